"""Compiled loops over the entries of tiles of matrices: counts in bins, and ranks."""

from typing import no_type_check

import numpy as np

from lfm_tasks.compiling import compiled


@compiled
@no_type_check
def count_in_bins(bits, n_dropped, weight, counts):
    """Add the weight to the bin of each number: its bits less the last ``n_dropped``."""
    for i in range(bits.shape[0]):
        for j in range(bits.shape[1]):
            counts[bits[i, j] >> n_dropped] += weight


@compiled
@no_type_check
def of_bins(bits, n_dropped, is_wanted):
    """Return the numbers, as bits, of wanted bins."""
    n_found = 0
    for i in range(bits.shape[0]):
        for j in range(bits.shape[1]):
            n_found += is_wanted[bits[i, j] >> n_dropped]
    found = np.empty(n_found, dtype=np.int32)
    n_found = 0
    for i in range(bits.shape[0]):
        for j in range(bits.shape[1]):
            if is_wanted[bits[i, j] >> n_dropped]:
                found[n_found] = bits[i, j]
                n_found += 1
    return found


# Bits of a rising key that tell where in its bin a number is.
BITS_IN_BIN = 15


@compiled
@no_type_check
def count_keys(correlations, center, least, is_diagonal, counts, sums, squares):
    """Count 1 − r in bins of `keys_of_row`; also sums, and squares, of the places in each bin.

    ``is_diagonal``: whether the points of rows are those of columns; one with itself is left out, others count once,
    those of other tiles twice.
    """
    n_rows, n_columns = correlations.shape
    numbers = np.empty(n_columns, dtype=np.float32)
    weight = 1 if is_diagonal else 2
    for i in range(n_rows):
        keys = keys_of_row(correlations[i], center, least, numbers)
        for j in range(n_columns):
            if is_diagonal and i == j:
                continue
            place = np.int64(keys[j] & np.uint32((1 << BITS_IN_BIN) - 1))
            bin_ = keys[j] >> np.uint32(BITS_IN_BIN)
            counts[bin_] += weight
            sums[bin_] += weight * place
            squares[bin_] += weight * place * place


@compiled
@no_type_check
def shares_below(correlations, center, least, first, index, table):
    """Return the share of all numbers below each 1 − r, half of its equals counted.

    ``table``: of each present bin the share below it, that of all numbers up to its end, and of what is added to the
    first by step: offset and slope.
    """
    n_rows, n_columns = correlations.shape
    numbers = np.empty(n_columns, dtype=np.float32)
    shares = np.empty((n_rows, n_columns))
    for i in range(n_rows):
        keys = keys_of_row(correlations[i], center, least, numbers)
        for j in range(n_columns):
            bin_ = np.int64(keys[j] >> np.uint32(BITS_IN_BIN)) - first
            row = np.int64(index[min(max(bin_, 0), len(index) - 1)])
            place = keys[j] & np.uint32((1 << BITS_IN_BIN) - 1)
            share = table[row, 2] + np.float64(table[row, 3]) * place
            shares[i, j] = min(max(share, table[row, 0]), table[row, 1])
    return shares


@compiled
@no_type_check
def keys_of_row(correlations, center, least, numbers):
    """Return whole numbers that rise with 1 − r: the bits, in float32, of their difference to the center.

    What is less than ``least`` is 0 but for rounding. ``numbers``: where to compute.
    """
    for j in range(len(correlations)):
        dissimilarity = 1 - correlations[j]
        numbers[j] = np.float32((0.0 if dissimilarity < least else dissimilarity) - center)
    keys = numbers.view(np.uint32)
    for j in range(len(keys)):
        bits = keys[j]
        keys[j] = ~bits if bits >> np.uint32(31) else bits | np.uint32(1 << 31)
    return keys
