"""Nulls, p-values, intervals and corrections against what must hold of them."""

import numpy as np
import pytest
from scipy.stats import gamma, kstest

from lfm_tasks.measures.registry import MEASURES
from lfm_tasks.statistics.intervals import jackknife_interval, random_parts, split_half_reliability
from lfm_tasks.statistics.model_pairs import best_of, false_discovery_rates
from lfm_tasks.statistics.permutation_null import (
    Exchange,
    calibrated,
    of_groups,
    p_value,
    permutation_scores,
    tail_p_value,
    within_strata,
)


def test_permutation__depends_on_seed_and_number_only() -> None:
    rows = Exchange(100)
    np.testing.assert_array_equal(rows.permutation(7), Exchange(100).permutation(7))
    assert sorted(rows.permutation(7)) == list(range(100))
    assert (rows.permutation(7) != rows.permutation(8)).any()
    assert (rows.permutation(7, seed=1) != rows.permutation(7)).any()


def test_strata__keep_their_rows() -> None:
    strata = np.array(list("aabbbaccc"))
    order = within_strata(strata).permutation(0)
    np.testing.assert_array_equal(strata[order], strata)
    assert (order != np.arange(9)).any()


def test_groups__move_as_a_whole() -> None:
    groups = np.array([3, 3, 1, 1, 2, 2, 5, 5, 5, 9])
    moved = False
    for number in range(20):
        order = of_groups(groups).permutation(number)
        assert sorted(order) == list(range(10))
        for name in np.unique(groups):
            rows = order[groups == name]
            assert len(np.unique(groups[rows])) == 1
            assert (np.diff(rows) == 1).all()
        moved |= bool((order != np.arange(10)).any())
        assert order[9] == 9  # the only group of its size
    assert moved


def test_groups_and_strata__of_which_none_can_move_are_refused() -> None:
    with pytest.raises(ValueError, match="found 2 groups that all differ in size"):
        of_groups(np.array([1, 2, 2]))
    with pytest.raises(ValueError, match="found 2 strata of one row each"):
        within_strata(np.array([1, 2]))


def test_groups__make_the_null_of_near_duplicates_honest() -> None:
    generator = np.random.default_rng(0)
    groups = np.repeat(np.arange(15), 6)
    plain, whole = [], []
    for draw in range(60):
        source, target = (
            np.repeat(generator.standard_normal((15, 3)), 6, axis=0) + 0.05 * generator.standard_normal((90, 3))
            for _ in range(2)
        )

        def chance(grouped: bool, source=source, target=target, draw=draw) -> float:
            exchange = of_groups(groups) if grouped else Exchange(90)
            orders = [exchange.permutation(r, seed=draw) for r in range(39)]
            score = MEASURES["cka_linear"](source, target)
            return p_value(score, permutation_scores(lambda o: MEASURES["cka_linear"](source, target[o]), orders))

        plain.append(chance(False))
        whole.append(chance(True))
    # Unrelated spaces: an honest test calls one in twenty significant. The plain one is fooled by the duplicates.
    assert np.mean(np.array(plain) <= 0.05) > 0.5
    assert np.mean(np.array(whole) <= 0.05) < 0.2


def test_p_values__count_ties_and_are_never_zero() -> None:
    chance = np.array([0.1, 0.2, 0.2, 0.3])
    assert [p_value(score, chance) for score in (0.5, 0.3, 0.2, 0.0)] == [0.2, 0.4, 0.8, 1.0]
    assert p_value(0.05, chance, is_distance=True) == 0.2


def test_calibration__puts_chance_at_zero_and_the_best_at_one() -> None:
    assert [calibrated(score, 0.4) for score in (0.4, 1.0)] == [0, 1]
    assert [calibrated(score, 1.2, best=0.0) for score in (1.2, 0.0)] == [0, 1]
    assert np.isnan(calibrated(1.0, 1.0))


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
        interval = jackknife_interval(lambda rows, s=source, t=target: score(s[rows], t[rows]), 120)
        covered += interval.low <= truth <= interval.high
        assert interval.low <= interval.score <= interval.high
    assert 0.90 <= covered / 200 <= 0.99


def test_intervals__of_a_mean_have_its_standard_error() -> None:
    values = np.random.default_rng(2).standard_normal(400)
    interval = jackknife_interval(lambda rows: float(values[rows].mean()), 400, n_groups=200)
    assert interval.standard_error == pytest.approx(values.std(ddof=1) / 20, rel=0.15)
    with pytest.raises(ValueError, match="found 30 points, 20 parts need at least 40"):
        jackknife_interval(lambda rows: 0.0, 30)


def test_best_of_layers__is_uniform_when_all_are_chance() -> None:
    found = best_of(np.random.default_rng(3).uniform(size=(5000, 12)))
    assert np.abs(np.sort(found) - np.linspace(0, 1, 5000)).max() < 1.95 / np.sqrt(5000)
    assert best_of(np.array([1e-12, 0.5])) == pytest.approx(2e-12, rel=1e-6)


def test_false_discovery_rates__hold_and_ignore_pairs_without_p_value() -> None:
    generator = np.random.default_rng(4)
    shares = []
    for _ in range(200):
        p_values = np.concatenate([generator.uniform(size=80), generator.uniform(0, 1e-4, 20), [np.nan]])
        rates = false_discovery_rates(p_values)
        assert np.isnan(rates[-1])
        named = rates <= 0.05
        shares.append(named[:80].sum() / max(named.sum(), 1))
    assert np.mean(shares) < 0.055
    assert np.isnan(false_discovery_rates(np.full(3, np.nan))).all()


@pytest.mark.parametrize("is_distance", [False, True])
def test_tail_p_values__resolve_more_than_the_permutations_drawn(is_distance: bool) -> None:
    # Gamma of shape 9 is a Pearson III curve: the truth is known.
    generator, truth = np.random.default_rng(5), gamma(9)
    sign = -1 if is_distance else 1
    for p in (1e-3, 1e-5):
        found = [
            tail_p_value(sign * truth.isf(p), sign * generator.gamma(9, size=200), is_distance=is_distance)
            for _ in range(400)
        ]
        assert p / 3 < np.median(found) < 10 * p
        # Rough with 200 permutations, but rarely far too bold.
        assert np.mean(np.array(found) < p / 30) < 0.05


def _chance_p(values: np.ndarray) -> float:
    return tail_p_value(float(values[0]), values[1:])


def test_tail_p_values__are_uniform_under_chance() -> None:
    generator = np.random.default_rng(6)
    found = np.array([_chance_p(generator.gamma(4, size=101)) for _ in range(2000)])
    assert kstest(found, "uniform").statistic < 0.04
    for level in (0.01, 0.05):
        assert np.mean(found <= level) < level + 3 * np.sqrt(level / 2000)


def test_tail_p_values__of_few_or_equal_permutations_are_the_plain_ones() -> None:
    chance = np.linspace(0, 1, 49)
    assert tail_p_value(2.0, chance) == p_value(2.0, chance) == 1 / 50
    assert tail_p_value(2.0, np.ones(100)) == 1 / 101


def test_parts__are_of_equal_size_and_keep_groups_whole() -> None:
    parts = random_parts(103, 20)
    assert set(np.bincount(parts)) == {5, 6}
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
