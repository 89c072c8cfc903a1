"""Sums over Gram matrices: against LAPACK's eigenvalues, and each matrix for itself."""

import numpy as np
import pytest

from lfm_tasks.spectral.map_loops import gram_sums


def _grams(n_maps, size, *, seed=0, scale=1.0):
    maps = np.random.default_rng(seed).standard_normal((n_maps, size, size)) * scale / np.sqrt(size)
    return (maps.swapaxes(1, 2) @ maps).astype(np.float32)


def _sums(grams):
    found = np.full((5, len(grams)), np.nan, dtype=np.float32)
    gram_sums(grams, found)
    return found


@pytest.mark.parametrize("size", [1, 2, 3, 15, 16, 17, 49, 64])
@pytest.mark.parametrize("n_maps", [1, 16, 129])
def test_gram_sums__are_what_lapack_computes(size, n_maps):
    grams = _grams(n_maps, size).astype(np.float32)
    exact = grams.astype(np.float64)
    diagonals = np.diagonal(exact, axis1=1, axis2=2)
    whole, on = (exact**2).sum((1, 2)), (diagonals**2).sum(1)
    capped = np.linalg.eigvalsh(exact).clip(0, 1).sum(1)
    expected = [whole - on, on, ((diagonals - 1) ** 2).sum(1), diagonals.sum(1), capped]
    np.testing.assert_allclose(_sums(grams), expected, rtol=2e-6, atol=1e-6 * size)


@pytest.mark.parametrize("n_ranks", [0, 1, 5])
def test_gram_sums__count_every_singular_value_as_1_at_most(n_ranks):
    # Orthonormal directions of squared lengths .25 and 9: 1.25 for two of them, 0 for what is missing.
    directions = np.linalg.qr(np.random.default_rng(2).standard_normal((20, 20)))[0][:, :n_ranks]
    lengths = np.resize([0.25, 9.0], n_ranks)
    found = _sums(((directions * lengths) @ directions.T)[None].astype(np.float32))
    assert found[4, 0] == pytest.approx(lengths.clip(max=1).sum(), abs=1e-5)


def test_gram_sums__of_a_matrix_have_the_same_bits_beside_any_others():
    grams = np.concatenate([_grams(90, 33), _grams(90, 33, seed=1, scale=100.0), np.zeros((3, 33, 33), np.float32)])
    order = np.random.default_rng(3).permutation(len(grams))
    together = _sums(grams)
    np.testing.assert_array_equal(_sums(grams[order]), together[:, order])
    np.testing.assert_array_equal(_sums(grams[5:6]), together[:, 5:6])


def test_gram_sums__read_the_upper_triangle_only_and_do_not_write():
    grams = _grams(20, 30)
    lower = np.where(np.tri(30, k=-1, dtype=bool), np.float32(np.nan), grams)
    before = lower.copy()
    np.testing.assert_array_equal(_sums(lower), _sums(grams))
    np.testing.assert_array_equal(lower, before)


def test_gram_sums__of_numbers_that_are_none_say_so_and_spoil_no_neighbour():
    grams = _grams(20, 30)
    sound = _sums(grams)
    grams[7, 2, 5] = np.inf
    grams[9, 3, 3] = np.nan
    found = _sums(grams)
    assert not np.isfinite(found[:, [7, 9]]).all(axis=0).any()
    kept = np.delete(np.arange(20), [7, 9])
    np.testing.assert_array_equal(found[:, kept], sound[:, kept])
