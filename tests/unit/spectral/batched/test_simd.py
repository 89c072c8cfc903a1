"""Sixteen numbers as one value of compiled loops: the same as numpy, lane by lane."""

import numpy as np
import pytest
from numba import njit
from numba.core.errors import TypingError

from lfm_tasks.spectral.batched.simd import (
    WIDTH,
    broadcast,
    load_vector,
    multiply_columns,
    root,
    select_positive,
    store_vector,
    transpose,
)


@njit
def _calculate(rows, found):
    a, b = load_vector(rows, 0), load_vector(rows, 1)
    store_vector(found, 0, a + b)
    store_vector(found, 1, a - b)
    store_vector(found, 2, a * b)
    store_vector(found, 3, a / b)
    store_vector(found, 4, root(a * a))
    store_vector(found, 5, select_positive(b, a, broadcast(np.float32(7))))


@njit
def _transpose(numbers, starts, shift, found):
    transpose(numbers, starts, shift, found, 1)


@njit
def _multiply(entries, n_columns, left, right, found):
    multiply_columns(entries, n_columns, left, right, found)


def test_lanes__are_what_numpy_computes():
    rows = np.random.default_rng(0).standard_normal((2, WIDTH)).astype(np.float32)
    rows[1, :3] = 0, -0.0, np.nan
    found = np.empty((6, WIDTH), dtype=np.float32)
    _calculate(rows, found)
    a, b = rows
    with np.errstate(divide="ignore"):
        expected = np.stack([a + b, a - b, a * b, a / b, np.abs(a), np.where(b > 0, a, np.float32(7))])
    np.testing.assert_array_equal(found, expected)


def test_transpose__lays_a_start_in_each_lane_and_leaves_other_rows_alone():
    generator = np.random.default_rng(1)
    numbers = generator.standard_normal(1000).astype(np.float32)
    starts = generator.integers(0, 900, WIDTH)
    found = np.full((WIDTH + 2, WIDTH), 5, dtype=np.float32)
    _transpose(numbers, starts, 3, found)
    expected = [[numbers[start + 3 + row] for start in starts] for row in range(WIDTH)]
    np.testing.assert_array_equal(found[1:-1], expected)
    np.testing.assert_array_equal(found[[0, -1]], 5)


def test_multiply_columns__is_a_product_of_four_columns_and_four():
    matrices = np.random.default_rng(2).standard_normal((7, 9, WIDTH)).astype(np.float32)
    found = np.empty((16, WIDTH), dtype=np.float32)
    _multiply(matrices.reshape(-1, WIDTH), 9, 1, 4, found)
    expected = np.einsum("ral,rbl->abl", matrices[:, 1:5], matrices[:, 4:8])
    np.testing.assert_allclose(found.reshape(4, 4, WIDTH), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "rows", [np.zeros((2, WIDTH)), np.zeros((2, 2 * WIDTH), dtype=np.float32)[:, ::2], np.zeros(WIDTH, np.float32)]
)
def test_lanes__refuse_arrays_that_do_not_hold_them(rows):
    with pytest.raises(TypingError, match="get"):
        njit(lambda array: store_vector(array, 1, load_vector(array, 0)))(rows)
