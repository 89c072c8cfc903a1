"""Scores of activations: without anything in common, their p-values are uniform."""

from math import factorial

import numpy as np
import pytest
from scipy.stats import kstest

from lfm_tasks.config import NullConfig
from lfm_tasks.errors import DataError
from lfm_tasks.stages.inventory.correspondence import Resampling
from lfm_tasks.stages.scores.block import STATISTICS
from lfm_tasks.stages.scores.row_measures import MOST_POINTS_SQUARED, Activations, check_rows, score_rows
from lfm_tasks.statistics.resampling import Exchange, within_strata
from lfm_tasks.statistics.strata_moments import has_moments

P, MEAN = STATISTICS.index("p_value"), STATISTICS.index("null_mean")


@pytest.mark.parametrize("groups", [None, np.repeat(np.arange(50), 2)], ids=["rows", "groups"])
@pytest.mark.parametrize("name", ["cka_linear", "procrustes_centered_unit_norm"])
def test_p_values__of_rows_of_unrelated_spaces_are_uniform(name: str, groups: np.ndarray | None) -> None:
    n_alike = 1 if groups is None else 2
    exchange = Exchange(100) if groups is None else Exchange(100, tuple(np.arange(100).reshape(50, 2)), "sets")
    p_values = []
    for draw in range(200):
        generator = np.random.default_rng([3, draw])
        rows = [np.repeat(generator.standard_normal((100 // n_alike, 5)), n_alike, axis=0) for _ in range(2)]
        spaces, chance = Activations(dict(zip("ab", rows, strict=True)), {}), Resampling(exchange, None)
        drawn = NullConfig(n_permutations=99, seed=draw)
        p_values.append(score_rows(name, spaces, [("a", "b")], chance, drawn).values[0, 0, P])
    assert kstest(p_values, "uniform").pvalue > 1e-3
    assert np.mean(np.array(p_values) <= 0.05) < 0.11


def test_rows__that_a_measure_cannot_use_are_refused_with_their_reason() -> None:
    rows = np.ones((MOST_POINTS_SQUARED + 1, 1))
    with pytest.raises(DataError, match="expected at most 3000") as error:
        check_rows("rsa_pearson_rdm_spearman", rows, rows, is_drawn=True)
    assert error.value.reason == "too_many_points"
    with pytest.raises(DataError, match="expected at least 6 for cka_linear"):
        check_rows("cka_linear", rows[:4], rows[:4])
    assert check_rows("pwcca_textbook_x_to_y", np.ones((10, 10)), np.ones((10, 10))) == "degenerate"
    assert check_rows("cka_linear", np.ones((10, 3)), np.ones((10, 3))) == "ok"


CONCENTRATED = ["cka_linear", "cka_linear_debiased_song", "distance_correlation", "gulp_lambda_0.01"]


@pytest.mark.parametrize("name", CONCENTRATED)
@pytest.mark.parametrize("is_stratified", [False, True])
def test_spaces_that_live_on_few_points__have_drawn_chance(name: str, is_stratified: bool) -> None:
    # One massive point in each of two unrelated spaces: in closed form one of ten such pairs has p < 1e-6.
    exchange = within_strata(np.arange(200) % 2) if is_stratified else Exchange(200)
    smallest = []
    for seed in range(6):
        generator = np.random.default_rng(seed)
        rows = {key: generator.standard_normal((200, 8)) for key in "ab"}
        for values in rows.values():
            values[generator.integers(200)] *= 100
        null = NullConfig(n_permutations=99)
        found = score_rows(name, Activations(rows, {}), [("a", "b")], Resampling(exchange, None), null)
        assert found.localized == {0}
        smallest.append(found.values[0, 0, P])
        without = NullConfig(n_permutations=0)
        [[undrawn, _]] = score_rows(
            name, Activations(rows, {}), [("a", "b")], Resampling(exchange, None), without
        ).values
        # Its mean is exact all the same, its tail is not known.
        assert np.isfinite(undrawn[MEAN])
        assert np.isnan(undrawn[P])
    assert min(smallest) > 1e-4


@pytest.mark.parametrize("sizes", [[2] + [1] * 18, [2, 2] + [1] * 16, [3] + [1] * 17, [2, 2, 2]])
def test_few_permutations__are_drawn_and_p_is_not_below_the_share_of_one(sizes: list[int]) -> None:
    strata = np.repeat(np.arange(len(sizes)), sizes)
    exchange, n_ways = within_strata(strata), np.prod([factorial(size) for size in sizes])
    rows = np.random.default_rng(0).standard_normal((len(strata), 4))

    found = score_rows(
        "cka_linear", Activations({"a": rows, "b": rows}, {}), [("a", "b")], Resampling(exchange, None), NullConfig()
    )

    assert not has_moments(exchange)
    assert found.values[0, 0, P] > 0.5 / n_ways
    assert found.values[0, 0, MEAN + 1] <= 1 + 1e-12
