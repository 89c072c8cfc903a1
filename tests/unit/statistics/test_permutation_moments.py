"""Exact moments against all permutations of a few points, and against ten thousand of many."""

from itertools import permutations

import numpy as np
import pytest
from scipy.stats import pearson3, skew

from lfm_tasks.measures.measure import centered
from lfm_tasks.statistics.permutation_moments import (
    Moments,
    moments_of_aligned,
    moments_of_pairs,
    permutation_moments,
    permutation_profile,
    upper_quantile,
    upper_tail,
)
from lfm_tasks.statistics.resampling import upper_share, value_below


def traces(source: np.ndarray, target: np.ndarray, orders: list[np.ndarray]) -> np.ndarray:
    return np.array([np.square(target[order].T @ source).sum() for order in orders])


@pytest.mark.parametrize("n_points", [6, 7])
@pytest.mark.parametrize("center", [False, True])
def test_moments__are_those_of_all_permutations(n_points: int, center: bool) -> None:
    generator = np.random.default_rng(n_points)
    source, target = generator.standard_normal((n_points, 3)) + 0.5, generator.standard_normal((n_points, 2)) + 0.3
    if center:
        source, target = centered(source), centered(target)
    every = traces(source, target, [np.array(order) for order in permutations(range(n_points))])

    found = permutation_moments(permutation_profile(source), permutation_profile(target))

    assert found.mean == pytest.approx(every.mean(), rel=1e-10)
    assert found.deviation == pytest.approx(every.std(), rel=1e-8)
    assert found.skewness == pytest.approx(skew(every), rel=1e-6)


@pytest.mark.parametrize("kind", ["bases", "activations"])
def test_moments__agree_with_ten_thousand_permutations_and_so_does_the_tail(kind: str) -> None:
    generator = np.random.default_rng(1)
    if kind == "bases":
        source, target = (np.linalg.qr(generator.standard_normal((400, k)) + 0.1)[0][:, 1:] for k in (21, 31))
    else:
        source, target = (centered(generator.exponential(size=(400, k))) for k in (5, 8))
    drawn = traces(source, target, [generator.permutation(400) for _ in range(10_000)])

    found = permutation_moments(permutation_profile(source), permutation_profile(target))

    assert found.mean == pytest.approx(drawn.mean(), abs=4 * drawn.std() / 100)
    assert found.deviation == pytest.approx(drawn.std(), rel=0.06)
    assert found.skewness == pytest.approx(skew(drawn), abs=0.25)
    for share in (0.9, 0.95, 0.99):
        value = np.quantile(drawn, share)
        assert upper_tail(found, value) == pytest.approx(1 - share, abs=0.02)
        assert upper_quantile(found, share) == pytest.approx(value, abs=0.2 * drawn.std())


def test_p_values__of_unrelated_spaces_are_uniform() -> None:
    generator = np.random.default_rng(2)
    found = []
    for _ in range(400):
        source, target = centered(generator.standard_normal((60, 4))), centered(generator.standard_normal((60, 3)))
        moments = permutation_moments(permutation_profile(source), permutation_profile(target))
        found.append(upper_tail(moments, float(np.square(target.T @ source).sum())))
    # Kolmogorov-Smirnov at one in a thousand.
    assert np.abs(np.sort(found) - np.linspace(0, 1, 400)).max() < 1.95 / np.sqrt(400)


def test_tail__resolves_p_values_that_permutations_never_reach() -> None:
    rows = np.random.default_rng(3).standard_normal((300, 6))
    profile = permutation_profile(centered(rows))
    own = float(np.square(centered(rows).T @ centered(rows)).sum())
    assert 0 < upper_tail(permutation_moments(profile, profile), own) < 1e-50
    assert upper_tail(permutation_moments(profile, profile), own / 20) > 1e-50


def test_profile__does_not_depend_on_the_order_of_points_or_the_rotation_of_features() -> None:
    generator = np.random.default_rng(4)
    rows = generator.standard_normal((50, 4)) + 1
    turned = rows[generator.permutation(50)] @ np.linalg.qr(generator.standard_normal((4, 4)))[0]
    for before, after in zip(permutation_profile(rows).sums, permutation_profile(turned).sums, strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-8, atol=1e-6)


def test_moments__refuse_too_few_points_and_different_ones() -> None:
    with pytest.raises(ValueError, match="got 5 points, expected at least 6 for exact moments"):
        permutation_profile(np.ones((5, 2)))
    rows = np.random.default_rng(5).standard_normal((8, 2))
    with pytest.raises(ValueError, match="got 8 and 7 points, expected the same points"):
        permutation_moments(permutation_profile(rows), permutation_profile(rows[:7]))


def test_constant_trace__has_no_tail() -> None:
    assert upper_tail(Moments(1.0, 0.0, 0.0), 1.0) == 1.0


def test_cubes__are_summed_alike_over_points_and_through_features() -> None:
    rows = np.random.default_rng(6).standard_normal((500, 5))
    wide = np.hstack([rows, np.zeros((500, 20))])  # more features than the root of the points
    for narrow, padded in zip(permutation_profile(rows).sums, permutation_profile(wide).sums, strict=True):
        np.testing.assert_allclose(padded, narrow, rtol=1e-9)


def test_moments_of_pairs__are_those_of_each_pair() -> None:
    generator = np.random.default_rng(7)
    profiles = [permutation_profile(generator.standard_normal((30, 3)) + 1) for _ in range(3)]
    sums = np.stack([profile.sums for profile in profiles])
    table = moments_of_pairs(sums, sums[:2], 30)
    aligned = moments_of_aligned(sums[1:], sums[:2], 30)
    for row, column in np.ndindex(3, 2):
        one = permutation_moments(profiles[row], profiles[column])
        assert (one.mean, one.deviation) == (table.mean[row, column], table.deviation[row, column])
        assert one.skewness == table.skewness[row, column]
    np.testing.assert_array_equal(aligned.mean, [table.mean[1, 0], table.mean[2, 1]])
    np.testing.assert_array_equal(aligned.deviation, [table.deviation[1, 0], table.deviation[2, 1]])


@pytest.mark.parametrize("skewness", [-2.0, -0.3, -1e-6, 0.0, 0.01, 0.5, 3.0])
def test_pearson_iii__is_that_of_scipy(skewness):
    values, shares = np.array([-3, -0.1, 1, 5]), np.array([0.01, 0.5, 0.975])
    found = [upper_share(value, skewness) for value in values]
    np.testing.assert_allclose(found, pearson3.sf(values, skewness), rtol=1e-9)
    np.testing.assert_allclose([value_below(share, skewness) for share in shares], pearson3.ppf(shares, skewness))
