"""Sums over the Gram matrices of maps: against LAPACK's eigenvalues, and each map for itself."""

import numpy as np
import pytest

from lfm_tasks.spectral.batched.loops import LANES, gram_sums


def _maps(n_maps, n_rows, n_columns, *, seed=0, scale=1.0):
    drawn = np.random.default_rng(seed).standard_normal((n_maps, n_rows, n_columns))
    return (scale * drawn / np.sqrt(n_columns)).astype(np.float32)


def _sums(maps):
    found = np.full((5, len(maps)), np.nan, dtype=np.float32)
    gram_sums(maps, found)
    return found


@pytest.mark.parametrize("n_columns", [1, 2, 3, 4, 5, 15, 16, 17, 50])
@pytest.mark.parametrize("surplus", [-1, 0, 3])
def test_gram_sums__are_those_of_lapack(n_columns, surplus):
    n_rows = max(1, n_columns + surplus)
    maps = _maps(LANES + 9, n_rows, n_columns, scale=2)
    maps[0], maps[1] = np.eye(n_rows, n_columns), 0
    maps[2] = np.linalg.qr(_maps(1, 60, 60)[0])[0][:n_rows, :n_columns]
    maps[3] = np.eye(n_rows, n_columns) * np.arange(n_columns) / 4
    maps[4] = np.outer(np.arange(n_rows), np.ones(n_columns)) / n_rows
    found = _sums(maps)

    grams = np.matmul(maps.swapaxes(1, 2), maps, dtype=np.float64)
    squares, diagonals = np.square(grams).sum(axis=(1, 2)), np.diagonal(grams, axis1=1, axis2=2)
    eigenvalues = np.linalg.eigvalsh(grams)
    largest = np.maximum(eigenvalues.max(axis=1), 1)
    assert (np.abs(found[4] - eigenvalues.clip(0, 1).sum(axis=1)) <= 2e-6 * n_columns * largest).all()
    assert (np.abs(found[0] - squares + np.square(diagonals).sum(axis=1)) <= 2e-6 * squares).all()
    np.testing.assert_allclose(found[1], np.square(diagonals).sum(axis=1), rtol=1e-5)
    np.testing.assert_allclose(found[2], np.square(diagonals - 1).sum(axis=1), rtol=1e-5, atol=1e-6 * n_columns)
    np.testing.assert_allclose(found[3], diagonals.sum(axis=1), rtol=1e-5)


@pytest.mark.parametrize("n_ranks", [0, 1, 5])
def test_gram_sums__count_every_singular_value_as_1_at_most(n_ranks):
    # Orthonormal directions of lengths .5 and 3 in turns: .25 and 1 of each, 0 of those that are missing.
    left, right = (np.linalg.qr(_maps(1, 20, 20, seed=seed)[0])[0][:, :n_ranks] for seed in (1, 2))
    lengths = np.resize([0.5, 3.0], n_ranks)
    found = _sums(((left * lengths) @ right.T)[None].astype(np.float32))
    assert found[4, 0] == pytest.approx(np.square(lengths).clip(max=1).sum(), abs=1e-5)


def test_gram_sums__of_a_map_have_the_same_bits_beside_any_others():
    maps = np.concatenate([_maps(90, 30, 33), _maps(90, 30, 33, seed=1, scale=10), np.zeros((3, 30, 33), np.float32)])
    order = np.random.default_rng(3).permutation(len(maps))
    together = _sums(maps)
    np.testing.assert_array_equal(_sums(maps[order]), together[:, order])
    np.testing.assert_array_equal(_sums(maps[5:6]), together[:, 5:6])


def test_gram_sums__of_numbers_that_are_none_say_so_and_spoil_no_neighbor():
    maps = _maps(20, 30, 30)
    sound = _sums(maps)
    maps[7, 2, 5] = np.inf
    maps[9, 3, 3] = np.nan
    found = _sums(maps)
    assert not np.isfinite(found[:, [7, 9]]).all(axis=0).any()
    kept = np.delete(np.arange(20), [7, 9])
    np.testing.assert_array_equal(found[:, kept], sound[:, kept])
