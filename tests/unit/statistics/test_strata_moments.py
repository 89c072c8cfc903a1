"""Moments within strata against all permutations, one after the other."""

from itertools import permutations, product

import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.stats import skew

from lfm_tasks.statistics.resampling import within_strata
from lfm_tasks.statistics.strata_moments import (
    BlockSums,
    block_sums,
    gram_sums,
    gram_triangles,
    moments_of_sums,
    strata_sums,
    triangles,
)


def all_within(strata):
    """Yield every permutation that leaves each point in its stratum."""
    sets = [np.flatnonzero(strata == s) for s in np.unique(strata)]
    for orders in product(*(permutations(rows) for rows in sets)):
        order = np.arange(len(strata))
        for rows, moved in zip(sets, orders, strict=True):
            order[rows] = moved
        yield order


def truth(first, second, strata):
    values = [np.vdot(first, second[np.ix_(order, order)]) for order in all_within(strata)]
    return np.mean(values), np.std(values)


def dense_sums(matrix, strata):
    members = np.eye(strata.max() + 1)[strata]
    off = matrix - np.diag(np.diag(matrix))
    rows, columns = off @ members, off.T @ members
    is_symmetric = np.array_equal(off, off.T)
    return BlockSums(
        rows, rows if is_symmetric else columns, members.T @ off**2 @ members, members.T @ (off * off.T) @ members,
        np.diag(matrix).copy(),
    )  # fmt: skip


@pytest.mark.parametrize("sizes", [(4, 3), (1, 5), (2, 2, 3), (3, 1, 1), (5,), (2, 1)])
@pytest.mark.parametrize("is_symmetric", [True, False])
def test_moments__are_those_of_all_permutations(sizes, is_symmetric):
    generator = np.random.default_rng(len(sizes))
    strata = generator.permutation(np.repeat(np.arange(len(sizes)), sizes))
    first, second = generator.standard_normal((2, len(strata), len(strata))) + 0.5
    if is_symmetric:
        first, second = first + first.T, second + second.T
    of_first, of_second = (strata_sums(dense_sums(matrix, strata), strata) for matrix in (first, second))
    moments = moments_of_sums([of_first], [of_second])
    mean, deviation = truth(first, second, strata)
    assert moments.mean[0, 0] == pytest.approx(mean, rel=1e-12)
    assert moments.deviation[0, 0] == pytest.approx(deviation, rel=1e-9)


def test_moments__of_sparse_matrices_are_those_of_dense_ones():
    generator = np.random.default_rng(3)
    strata = np.array([0, 1, 0, 1, 1, 0, 2, 2])
    matrix = (generator.random((8, 8)) < 0.4) * 1.0
    np.fill_diagonal(matrix, 0)
    members = np.eye(3)[strata]
    sparse, dense = (
        strata_sums(block_sums(csr_array(matrix), members), strata),
        strata_sums(dense_sums(matrix, strata), strata),
    )
    np.testing.assert_allclose(sparse.mean, dense.mean, atol=1e-14)
    np.testing.assert_allclose(sparse.variance, dense.variance, atol=1e-14)


def test_moments__of_products_of_features_are_those_of_their_matrix():
    generator = np.random.default_rng(4)
    strata, rows = np.array([0, 1, 0, 1, 1, 0, 2, 2]), generator.standard_normal((8, 3))
    of_rows = strata_sums(gram_sums(rows, np.eye(3)[strata]), strata)
    of_matrix = strata_sums(dense_sums(rows @ rows.T, strata), strata)
    np.testing.assert_allclose(of_rows.mean, of_matrix.mean, atol=1e-12)
    np.testing.assert_allclose(of_rows.variance, of_matrix.variance, atol=1e-12)


@pytest.mark.parametrize("offset", [0.0, 3.0])
@pytest.mark.parametrize("n_features", [2, 70])
def test_skewness__is_that_of_permutations_whether_strata_tell_something_or_not(offset, n_features):
    generator = np.random.default_rng(7)
    strata = generator.permutation(np.repeat([0, 1, 2], [70, 50, 30]))
    spectrum = np.r_[4.0, 2.0, np.full(n_features - 2, 0.2)]
    first, second = (
        spectrum * generator.standard_normal((150, n_features))
        + offset * generator.standard_normal((3, n_features))[strata]
        for _ in range(2)
    )
    members = np.eye(3)[strata]
    sums = [strata_sums(gram_sums(rows, members), strata, gram_triangles(rows, strata)) for rows in (first, second)]
    moments = moments_of_sums(sums[:1], sums[1:])
    exchange = within_strata(strata)
    drawn = np.array([np.square(second[exchange.permutation(draw)].T @ first).sum() for draw in range(6000)])
    assert moments.mean[0, 0] == pytest.approx(drawn.mean(), abs=0.05 * drawn.std())
    assert moments.deviation[0, 0] == pytest.approx(drawn.std(), rel=0.04)
    assert moments.skewness[0, 0] == pytest.approx(skew(drawn), abs=0.2)


def test_triangles__of_features_are_those_of_points():
    generator = np.random.default_rng(8)
    strata, rows = generator.permutation(np.repeat([0, 1], [300, 200])), generator.standard_normal((500, 3))
    by_points = triangles(rows @ rows.T, strata, np.bincount(strata))
    # The diagonal, a share of features/points of each, is in one of them only.
    np.testing.assert_allclose(gram_triangles(rows, strata), by_points, rtol=0.1)
