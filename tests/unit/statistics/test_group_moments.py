"""Moments of groups against all permutations of them, one after the other, or many drawn ones."""

from itertools import permutations

import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.stats import skew

from lfm_tasks.statistics.exchange_moments import has_moments, sums_of_factor, sums_of_graph
from lfm_tasks.statistics.group_moments import GroupBlocks, dense_blocks, group_sums, leading_third, sparse_blocks
from lfm_tasks.statistics.permutation_moments import moments_of_pairs, permutation_profile
from lfm_tasks.statistics.resampling import Exchange, of_groups, within_strata
from lfm_tasks.statistics.strata_moments import moments_of_sums


def truth(first, second, groups):
    """Return mean and deviation over all permutations of the groups."""
    values = []
    for moved in permutations(range(len(groups))):
        order = np.empty(groups.size, dtype=int)
        order[groups] = groups[list(moved)]
        values.append(np.vdot(first, second[np.ix_(order, order)]))
    return np.mean(values), np.std(values)


def blocks_of(matrix, groups) -> GroupBlocks:
    ordered = matrix[np.ix_(groups.ravel(), groups.ravel())]
    return dense_blocks(lambda rows, columns: ordered[rows, columns], *groups.shape)


@pytest.mark.parametrize(("n_groups", "size"), [(4, 2), (5, 3), (6, 2), (6, 1)])
@pytest.mark.parametrize("is_symmetric", [True, False])
def test_moments__are_those_of_all_permutations(n_groups, size, is_symmetric):
    generator = np.random.default_rng(size)
    groups = generator.permutation(n_groups * size).reshape(n_groups, size)
    first, second = generator.standard_normal((2, groups.size, groups.size)) + 0.5
    if is_symmetric:
        first, second = first + first.T, second + second.T
    sums = [group_sums(sparse_blocks(csr_array(matrix), groups)) for matrix in (first, second)]
    moments = moments_of_sums(sums[:1], sums[1:])
    mean, deviation = truth(first, second, groups)
    assert moments.mean[0, 0] == pytest.approx(mean, rel=1e-12)
    assert moments.deviation[0, 0] == pytest.approx(deviation, rel=1e-9)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_sums_of_a_dense_matrix__are_those_of_it_as_a_sparse_one(size):
    generator = np.random.default_rng(0)
    # More than one run of blocks, the last of them short.
    groups = generator.permutation(700 // size * size).reshape(-1, size)
    matrix = generator.standard_normal((groups.size, groups.size)) * (generator.random((groups.size,) * 2) < 0.1)
    matrix += matrix.T
    dense, sparse = blocks_of(matrix, groups), sparse_blocks(csr_array(matrix), groups)
    for name in ("rows", "columns", "squares", "crossed", "diagonal", "energies"):
        np.testing.assert_allclose(getattr(dense, name), getattr(sparse, name), atol=1e-9, err_msg=name)


def test_directed_graph__has_the_moments_of_all_permutations_of_its_groups():
    generator = np.random.default_rng(3)
    exchange = of_groups(generator.permutation(np.arange(14) // 2))
    first, second = (generator.random((2, 14, 14)) < 0.3) * 1.0
    for matrix in (first, second):
        np.fill_diagonal(matrix, 0)
    sums = [sums_of_graph(csr_array(matrix), exchange) for matrix in (first, second)]
    moments = moments_of_sums(sums[:1], sums[1:])
    mean, deviation = truth(first, second, exchange.equal_groups)
    assert moments.mean[0, 0] == pytest.approx(mean, rel=1e-12)
    assert moments.deviation[0, 0] == pytest.approx(deviation, rel=1e-9)


@pytest.mark.parametrize("size", [2, 3, 6])
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

    def third(some):
        ordered = rows[some.ravel()]
        blocks = dense_blocks(lambda first, second: ordered[first] @ ordered[second].T, *some.shape)
        return leading_third(blocks, lambda first, second: ordered[first] @ ordered[second].T, 2)

    of_all, of_few = third(groups), third(groups[:384])
    # Sums over triples of groups grow with the third power of their number, and are divided by its half of that.
    assert np.vdot(of_all, of_all) == pytest.approx(np.vdot(of_few, of_few) * (3000 / 768) ** 3, rel=0.2)


@pytest.mark.parametrize(
    ("exchange", "expected"),
    [
        (Exchange(5), False),
        (Exchange(6), True),
        (of_groups(np.arange(60) // 6), True),
        (of_groups(np.arange(70) // 7), False),
        (of_groups(np.arange(12) // 2), False),
        (of_groups(np.arange(14) // 2), True),
        (of_groups(np.repeat(np.arange(20), [2] * 10 + [3] * 10)), False),
        (within_strata(np.arange(99) % 32), True),
        (within_strata(np.arange(99) % 33), False),
    ],
)
def test_moments__speak_for_all_permutations_of_few_strata_and_small_equal_groups(exchange, expected):
    # Six groups have 720 permutations, seven 5,040.
    assert has_moments(exchange) is expected


@pytest.mark.parametrize("exchange", [Exchange(20), of_groups(np.repeat(np.arange(8), [2] * 4 + [3] * 4))])
def test_exchange_without_moments__is_refused(exchange):
    message = "got an exchange of free rows, or of unequal groups, expected strata or equal groups"
    with pytest.raises(ValueError, match=message):
        sums_of_factor(np.ones((20, 2)), exchange)
    with pytest.raises(ValueError, match=message):
        sums_of_graph(csr_array(np.eye(20)), exchange)
