"""Intervals and parts of points: what they cover, and how wide they are."""

from collections.abc import Callable

import numpy as np
import pytest
from jaxtyping import Float

from lfm_tasks.measures.registry import MEASURES
from lfm_tasks.statistics.resampling import (
    interval_reach,
    jackknife_error,
    mean_interval,
    pair_interval,
    random_parts,
    split_half_reliability,
)


def without_each_part(
    score_of_rows: Callable[[np.ndarray], float], n_points: int, n_parts: int
) -> Float[np.ndarray, " parts"]:
    """Return the score of the rows outside each of ``n_parts`` random parts."""
    parts = random_parts(n_points, n_parts)
    return np.array([score_of_rows(np.flatnonzero(parts != part)) for part in range(n_parts)])


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
        left = without_each_part(lambda rows, s=source, t=target: score(s[rows], t[rows]), 120, 20)
        covered += abs(score(source, target) - truth) <= interval_reach(20) * float(jackknife_error(left))
    assert 0.90 <= covered / 200 <= 0.99


def test_intervals__of_a_mean_have_its_standard_error() -> None:
    values = np.random.default_rng(2).standard_normal(400)
    left = without_each_part(lambda rows: float(values[rows].mean()), 400, 200)
    assert float(jackknife_error(left)) == pytest.approx(values.std(ddof=1) / 20, rel=0.15)


def test_parts__are_of_equal_size_and_keep_groups_whole() -> None:
    parts = random_parts(103, 20)
    assert set(np.bincount(parts)) == {5, 6}
    with pytest.raises(ValueError, match="found 30 points, 20 parts need at least 40"):
        random_parts(30, 20)
    groups = np.random.default_rng(7).permutation(np.repeat(np.arange(41), 3))
    parts = random_parts(123, 20, groups=groups)
    assert all(len(set(parts[groups == group])) == 1 for group in range(41))
    with pytest.raises(ValueError, match="found 20 groups of points, 20 parts need at least 40"):
        random_parts(40, 20, groups=np.repeat(np.arange(20), 2))


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
