"""Moments of groups against all permutations of them, one after the other, or many drawn ones."""

from itertools import permutations

import numpy as np
import pytest
from scipy.stats import skew

from lfm_tasks.statistics.exchange_moments import has_moments, sums_of_factor
from lfm_tasks.statistics.group_moments import group_blocks, group_sums
from lfm_tasks.statistics.permutation_moments import moments_of_pairs, permutation_profile
from lfm_tasks.statistics.resampling import Exchange, of_groups, within_strata
from lfm_tasks.statistics.strata_moments import ExchangeSums, moments_of_sums


def truth(first, second, groups):
    """Return mean and deviation over all permutations of the groups."""
    values = []
    for moved in permutations(range(len(groups))):
        order = np.empty(groups.size, dtype=int)
        order[groups] = groups[list(moved)]
        values.append(np.vdot(first, second[np.ix_(order, order)]))
    return np.mean(values), np.std(values)


def sums_of(matrix, groups) -> ExchangeSums:
    ordered = matrix[np.ix_(groups.ravel(), groups.ravel())]

    def tile(rows, columns):
        return ordered[rows, columns].copy()

    return group_sums(group_blocks(tile, *groups.shape), tile)


@pytest.mark.parametrize(("n_groups", "size"), [(6, 1), (6, 3), (7, 2)])
def test_moments__are_those_of_all_permutations(n_groups, size):
    generator = np.random.default_rng(size)
    groups = generator.permutation(n_groups * size).reshape(n_groups, size)
    first, second = (matrix + matrix.T for matrix in generator.standard_normal((2, groups.size, groups.size)) + 0.5)
    moments = moments_of_sums([sums_of(first, groups)], [sums_of(second, groups)])
    mean, deviation = truth(first, second, groups)
    assert moments.mean[0, 0] == pytest.approx(mean, rel=1e-12)
    assert moments.deviation[0, 0] == pytest.approx(deviation, rel=1e-9)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_sums_of_blocks__are_those_of_the_whole_matrix_however_many_runs_there_are(size):
    generator = np.random.default_rng(0)
    # More than one run of blocks, the last of them short.
    n_groups = 700 // size
    matrix = generator.standard_normal((n_groups * size,) * 2)
    matrix += matrix.T
    found = group_blocks(lambda rows, columns: matrix[rows, columns], n_groups, size)
    blocks = matrix.reshape(n_groups, size, n_groups, size).transpose(0, 2, 1, 3).reshape(n_groups, n_groups, -1)
    diagonal = blocks[range(n_groups), range(n_groups)].copy()
    np.testing.assert_array_equal(found.diagonal, diagonal)
    np.testing.assert_allclose(found.energies, np.square(blocks).sum(axis=(1, 2)), rtol=1e-9)
    assert found.norm == pytest.approx(np.linalg.norm(matrix))
    blocks[range(n_groups), range(n_groups)] = 0
    np.testing.assert_allclose(found.rows, blocks.sum(axis=1), atol=1e-9)
    np.testing.assert_allclose(found.squares, np.einsum("ghx,ghy->xy", blocks, blocks, optimize=True), atol=1e-8)


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("are_alike", [True, False])
@pytest.mark.parametrize("is_offset", [True, False])
def test_skewness__is_that_of_permutations_whether_points_of_a_group_are_alike_or_not(size, are_alike, is_offset):
    generator = np.random.default_rng(7)
    groups = generator.permutation(np.arange(240) // size)
    # Offset rows: the sums of rows of F Fᵀ differ, and the effects of groups have a share in the variance.
    first, second = (
        np.array([4.0, 2.0, 1.0, 0.5])
        * (generator.standard_normal((240, 4)) + 3 * are_alike * generator.standard_normal((240, 4))[groups])
        + 2 * is_offset
        for _ in range(2)
    )
    exchange = of_groups(groups)
    sums = [sums_of_factor(rows, exchange) for rows in (first, second)]
    moments = moments_of_sums(sums[:1], sums[1:])
    drawn = np.array([np.square(second[exchange.permutation(draw)].T @ first).sum() for draw in range(5000)])
    assert moments.mean[0, 0] == pytest.approx(drawn.mean(), abs=0.05 * drawn.std())
    assert moments.deviation[0, 0] == pytest.approx(drawn.std(), rel=0.05)
    assert moments.skewness[0, 0] == pytest.approx(skew(drawn), abs=0.35)


def test_groups_of_one_point__have_the_moments_of_free_points():
    rows = np.random.default_rng(1).standard_normal((2, 300, 3))
    sums = [sums_of_factor(one, of_groups(np.arange(300))) for one in rows]
    of_groups_, of_points = (
        moments_of_sums(sums[:1], sums[1:]),
        moments_of_pairs(*(permutation_profile(one).sums[None] for one in rows), 300),
    )
    np.testing.assert_allclose(of_groups_.mean, of_points.mean, rtol=1e-9)
    np.testing.assert_allclose(of_groups_.deviation, of_points.deviation, rtol=1e-9)
    np.testing.assert_allclose(of_groups_.skewness, of_points.skewness, atol=0.1)


def test_third_moment_of_many_groups__is_that_of_the_first_768_points():
    generator = np.random.default_rng(2)
    groups = np.arange(3000).reshape(-1, 2)
    rows = generator.standard_normal((3000, 5)) * [3, 2, 1, 1, 1]
    rows -= rows.mean(axis=0)
    in_first = slice(384)

    def third(some):
        sums = sums_of(rows @ rows.T, some)
        return float(np.vdot(sums.third, sums.third))

    # Sums over triples of groups grow with the third power of their number, and are divided by its half of that.
    assert third(groups) == pytest.approx(third(groups[in_first]) * (3000 / 768) ** 3, rel=0.2)


@pytest.mark.parametrize(
    ("exchange", "expected"),
    [
        (Exchange(5), False),
        (Exchange(6), True),
        (of_groups(np.arange(120) // 4), True),
        (of_groups(np.arange(116) // 4), False),
        (of_groups(np.arange(150) // 5), False),
        (of_groups(np.repeat(np.arange(30), [2] * 15 + [3] * 15)), False),
        (within_strata(np.arange(99) % 32), True),
        (within_strata(np.arange(99) % 33), False),
    ],
)
def test_moments__speak_for_all_permutations_of_few_strata_and_small_equal_groups(exchange, expected):
    assert has_moments(exchange) is expected


@pytest.mark.parametrize("exchange", [Exchange(20), of_groups(np.repeat(np.arange(8), [2] * 4 + [3] * 4))])
def test_exchange_without_moments__is_refused(exchange):
    message = "got an exchange of free rows, or of unequal groups, expected strata or equal groups"
    with pytest.raises(ValueError, match=message):
        sums_of_factor(np.ones((20, 2)), exchange)
