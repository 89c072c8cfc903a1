"""Agreement with what is known of networks, against scikit-learn, SciPy and drawn networks written out."""

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score

from lfm_tasks.statistics.groundings import (
    average_precision,
    difference_correlation,
    group_separation,
    mean_of_networks,
    mean_of_pairs,
    mean_ranks,
    network_counts,
    order_of_layers,
    weighted_spearman,
)

ONCE = np.ones((1, 9))
GROUPS = np.repeat([0, 1, 2], 3)


def similarities(seed: int = 0, *, digits: int = 8) -> np.ndarray:
    """Return similarities of nine networks, higher within groups; few digits make equal ones."""
    values = np.random.default_rng(seed).uniform(size=(9, 9)) + 0.3 * np.equal.outer(GROUPS, GROUPS)
    return ((values + values.T) / 2).round(digits)


@pytest.mark.parametrize("digits", [8, 1])
def test_group_separation__is_that_of_resi(digits: int) -> None:
    values = similarities(digits=digits)
    precisions, conformities = [], []
    for group in range(3):
        is_inside = np.equal(GROUPS, group)
        inside, outside = np.flatnonzero(is_inside), np.flatnonzero(~is_inside)
        within = [values[pair] for pair in combinations(inside, 2)]
        across = [values[one, other] for one in inside for other in outside]
        is_within = [1] * len(within) + [0] * len(across)
        precisions.append(average_precision_score(is_within, within + across))
        conformities.append(np.mean([one > other for one in within for other in across]))
    found = group_separation(values, GROUPS, ONCE)

    assert found.auprc[0] == pytest.approx(np.mean(precisions), abs=1e-12)
    assert found.conformity[0] == pytest.approx(np.mean(conformities), abs=1e-12)


def test_weights__stand_for_repeated_pairs() -> None:
    generator = np.random.default_rng(0)
    values, known = generator.integers(0, 6, (2, 30)).astype(float)
    weights = generator.integers(0, 3, 30)
    repeated = np.repeat(np.arange(30), weights)
    is_positive = known > 3
    rows = weights[None].astype(float)

    expected = average_precision_score(is_positive[repeated], values[repeated])
    assert average_precision(values, is_positive, rows)[0] == pytest.approx(expected, abs=1e-12)
    expected = spearmanr(values[repeated], known[repeated]).statistic
    assert weighted_spearman(values, known, rows)[0] == pytest.approx(expected, abs=1e-12)


def test_difference_correlation__is_of_all_pairs_of_drawn_networks() -> None:
    values, known = similarities(1), similarities(2)
    counts = np.array([1.0, 2, 0, 1, 0, 1, 1, 2, 1])
    drawn = np.repeat(np.arange(9), counts.astype(int))
    pairs = [(one, other) for one, other in combinations(drawn, 2) if one != other]
    expected = spearmanr([-values[pair] for pair in pairs], [known[pair] for pair in pairs]).statistic
    assert difference_correlation(values, known, counts[None])[0] == pytest.approx(expected, abs=1e-12)


def test_missing_values__leave_no_figure() -> None:
    values = similarities()
    values[0, 1] = values[1, 0] = np.nan
    assert np.isnan(group_separation(values, GROUPS, ONCE).auprc).all()
    assert np.isnan(difference_correlation(values, similarities(3), ONCE)).all()
    assert np.isnan(difference_correlation(similarities(), np.zeros((9, 9)), ONCE)).all()
    assert np.isnan(group_separation(similarities(), np.arange(9), ONCE).conformity).all()
    assert np.isnan(order_of_layers(values[:3, :3])).all()
    assert np.isnan(order_of_layers(similarities()[:2, :2])).all()


def test_network_counts__draw_units_together_within_their_stratum() -> None:
    units = np.array([0, 0, 1, 2, 3])
    counts = network_counts(units, ["a", "a", "b", "b"], 200, seed=1)

    assert counts.shape == (201, 5)
    assert (counts[0] == 1).all()
    assert (counts[:, 0] == counts[:, 1]).all()
    assert (counts[:, [0, 2]].sum(axis=1) == 2).all()
    assert (counts[:, 3:].sum(axis=1) == 2).all()
    assert set(counts[1:, 3]) == {0.0, 1.0, 2.0}
    assert (network_counts(units, ["a", "a", "b", "b"], 200, seed=1) == counts).all()


def test_order_of_layers__counts_triples_and_averages_correlations() -> None:
    values = np.array([[1, 0.9, 0.5, 0.6], [0.9, 1, 0.8, 0.7], [0.5, 0.8, 1, 0.9], [0.6, 0.7, 0.9, 1]])
    conformity, correlation = order_of_layers(values)
    # Only layer 0, and layer 3 nowhere, has a farther layer that is more alike: 3 before 2.
    assert conformity == pytest.approx(7 / 8)
    assert correlation == pytest.approx(np.mean([0.5, 1, 1, 1]))


def test_means__count_networks_as_often_as_they_are_drawn() -> None:
    counts = np.array([[1.0, 1, 1], [2, 1, 0]])
    assert mean_of_networks(np.array([1.0, 4, 7]), counts).tolist() == [4.0, 2.0]
    values = np.array([[np.nan, 1, 2], [1, np.nan, 3], [2, 3, np.nan]])
    assert mean_of_pairs(values, counts).tolist() == [2.0, 1.0]


def test_mean_ranks__take_rounding_for_equal_and_nothing_for_the_last() -> None:
    figures = np.array([[[0.9], [0.9 + 1e-12], [np.nan], [0.1]], [[0.1], [0.2], [0.3], [0.4]]])
    assert mean_ranks(figures).ravel().tolist() == [(1.5 + 4) / 2, (1.5 + 3) / 2, (4 + 2) / 2, (3 + 1) / 2]
