"""Intervals and halves of points: what they cover, and how wide they are."""

from collections.abc import Callable

import numpy as np
import pytest
from jaxtyping import Float

from lfm_tasks.measures.registry import MEASURES
from lfm_tasks.statistics.resampling import (
    halves_of,
    interval_reach,
    margin,
    mean_interval,
    pair_interval,
    split_half_reliability,
)


def names(n_points: int) -> list[str]:
    return [f"point-{number}" for number in range(n_points)]


def on_halves(
    score_of_rows: Callable[[np.ndarray], float], n_points: int, *, seed: int = 0
) -> Float[np.ndarray, " halves"]:
    """Return the score of the rows of each half."""
    halves = halves_of(names(n_points), seed=seed)
    return np.array([score_of_rows(np.flatnonzero(half)) for second in halves for half in (~second, second)])


@pytest.mark.parametrize("name", ["cka_linear_debiased_song", "procrustes_centered_unit_norm", "mean"])
def test_intervals__cover_the_true_value(name: str) -> None:
    def draw(seed: int, n_points: int) -> tuple[np.ndarray, np.ndarray]:
        generator = np.random.default_rng([1, seed])
        source = generator.standard_normal((n_points, 4)) * np.array([2, 1.5, 1, 0.5])
        return source, source @ np.diag([1, 0.7, 0.5, 1]) + 0.8 * generator.standard_normal((n_points, 4))

    def score(source: np.ndarray, target: np.ndarray) -> float:
        return float((source[:, 0] * target[:, 0]).mean()) if name == "mean" else MEASURES[name](source, target)

    truth = 4.0 if name == "mean" else score(*draw(10**6, 6000 if "cka" in name else 100_000))
    covered = 0
    for seed in range(200):
        source, target = draw(seed, 120)
        halves = on_halves(lambda rows, s=source, t=target: score(s[rows], t[rows]), 120, seed=seed)
        covered += abs(score(source, target) - truth) <= float(interval_reach(halves))
    assert 0.90 <= covered / 200 <= 0.99


def test_intervals__of_a_mean_follow_its_standard_error() -> None:
    values = np.random.default_rng(2).standard_normal(400)
    halves = [on_halves(lambda rows: float(values[rows].mean()), 400, seed=seed) for seed in range(300)]
    # Given the sample, the mean of a half varies as that of the sample does. Student's t of two degrees of freedom.
    squares = np.square(interval_reach(np.array(halves)) / 4.302653)
    assert np.sqrt(squares.mean()) == pytest.approx(values.std(ddof=1) / 20, rel=0.1)


def test_halves__depend_on_names_alone_and_are_drawn_evenly() -> None:
    halves = halves_of(names(2000))
    assert halves.shape == (2, 2000)
    np.testing.assert_array_equal(halves_of(names(2000)[::-3]), halves[:, ::-3])
    # 2,000 fair coins, and as many for agreement.
    assert np.abs(halves.sum(axis=1) - 1000).max() < 90
    assert abs(int((halves[0] == halves[1]).sum()) - 1000) < 90
    assert not np.array_equal(halves_of(names(2000), seed=1), halves)


def test_rows_that_say_the_same_thing__make_a_score_look_firmer_than_it_is_unless_groups_tell() -> None:
    values = np.repeat(np.random.default_rng(0).standard_normal(30), 4)
    groups = np.repeat(np.arange(30), 4)

    def mean_reach(of_row: list[str]) -> float:
        splits = [halves_of(of_row, seed=seed) for seed in range(100)]
        means = [[values[half].mean() for second in halves for half in (~second, second)] for halves in splits]
        return float(interval_reach(np.array(means)).mean())

    # Four copies of a row: the deviation is twice what 120 rows of their own would have.
    assert mean_reach([f"group-{group}" for group in groups]) > 1.7 * mean_reach(names(120))


def test_split_halves__give_the_reliability_that_noise_allows() -> None:
    generator = np.random.default_rng(8)
    true = generator.standard_normal(20_000)
    first, second = (true + generator.standard_normal(20_000) for _ in range(2))
    # Halves agree to .5; the mean of both has noise variance ½, so it agrees with another such mean to 1/(1 + ½).
    assert split_half_reliability(first, second) == pytest.approx(2 / 3, abs=0.02)
    assert np.isnan(split_half_reliability(np.ones(5), np.arange(5.0)))
    assert np.isnan(split_half_reliability(np.array([1.0, np.nan, 2.0]), np.array([1.0, 2.0, 3.0])))


def test_mean_interval__covers_the_mean_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(2)
    ends = np.array([mean_interval(generator.standard_normal(40)) for _ in range(200)])

    assert 0.88 <= ((ends[:, 0] < 0) & (ends[:, 1] > 0)).mean() <= 0.99


def test_mean_interval__is_the_same_each_time_and_none_for_one_value() -> None:
    values = np.arange(9.0)
    assert mean_interval(values) == mean_interval(values)
    assert np.isnan(mean_interval(np.array([1.0, np.nan]))).all()


def test_pair_interval__is_wider_than_one_over_pairs_where_networks_differ() -> None:
    worth = np.random.default_rng(3).standard_normal(10)
    pairs = worth[:, None] + worth  # all that varies is the networks
    between = pairs[~np.eye(10, dtype=bool)]

    low, high = pair_interval(pairs)
    narrow = mean_interval(between)

    assert low < between.mean() < high
    assert high - low > 1.5 * (narrow[1] - narrow[0])


def test_pair_interval__leaves_a_network_with_itself_out_and_needs_three() -> None:
    pairs = np.full((4, 4), 0.5)
    np.fill_diagonal(pairs, np.nan)

    assert pair_interval(pairs) == pytest.approx((0.5, 0.5))
    assert np.isnan(pair_interval(pairs[:2, :2])).all()


def test_margins__hold_the_true_difference_of_scores_of_the_same_points() -> None:
    held, found = 0, 0
    for seed in range(300):
        generator = np.random.default_rng([6, seed])
        noise = generator.standard_normal(200)
        # Both err together: intervals of each alone would be far wider.
        first, second = 3 * noise + 0.2 + generator.standard_normal(200), 3 * noise + generator.standard_normal(200)
        halves = on_halves(lambda rows, a=first, b=second: float(a[rows].mean() - b[rows].mean()), 200, seed=seed)
        lead = margin(float(first.mean() - second.mean()), halves)
        held += lead.low <= 0.2 <= lead.high
        found += lead.low > 0
        assert (lead.p_value < 0.05) == (lead.low > 0 or lead.high < 0)
    assert 0.91 <= held / 300 <= 0.98
    assert found / 300 > 0


def test_margins__without_halves_have_a_value_only_and_of_copies_are_sure() -> None:
    assert np.isnan([margin(0.1, np.empty(0)).low, margin(0.1, np.full(4, np.nan)).p_value]).all()
    assert margin(0.1, np.full(4, 0.1)).p_value == 0
    assert margin(0.0, np.zeros(4)).p_value == 1
    # All halves alike, and unlike the whole: they say nothing.
    assert np.isnan([margin(0.1, np.zeros(4)).p_value, margin(np.nan, np.zeros(4)).p_value]).all()
