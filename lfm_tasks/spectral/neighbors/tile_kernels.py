"""Compiled loops of the search by tiles: which pairs a tile of products leaves over, and the exact distances of those.

Their arguments carry no types: numba takes them from the arrays, and a checked function cannot be compiled.
"""

from typing import no_type_check

import numpy as np

from lfm_tasks.spectral.neighbors.block_kernels import _distance, _insert
from lfm_tasks.spectral.neighbors.jit import compiled, compiled_reordered


@compiled
@no_type_check
def find_hits(products, first_row, first_column, squares, limits, hits, n_most):
    """Write down the pairs of a tile whose bound excludes them for not both of their points; return how many.

    More than about ``n_most`` are not worth a list: then -1.
    """
    n_rows, n_columns = products.shape
    marks = np.zeros((n_columns + 7) // 8 * 8, dtype=np.uint8)
    eights = marks.view(np.uint64)
    others, other_limits = squares[first_column:], limits[first_column:]
    count = 0
    for row in range(n_rows):
        i = first_row + row
        start = row + 1 if first_row == first_column else 0
        own, own_square, own_limit = products[row], squares[i], limits[i]
        for column in range(n_columns):
            bound = own_square + others[column] - np.float32(2) * own[column]
            marks[column] = (bound <= own_limit) | (bound <= other_limits[column])
        for eight in range(start // 8, len(eights)):
            if eights[eight] == 0:
                continue
            for column in range(max(8 * eight, start), min(8 * eight + 8, n_columns)):
                if marks[column] != 0:
                    hits[count, 0] = row
                    hits[count, 1] = column
                    count += 1
        if count > n_most:
            return -1
    return count


@compiled_reordered
@no_type_check
def try_hits(
    hits, products, is_full, first_row, first_column, columns, squares, order, rows, scales, nearest, squared, limits
):
    """Insert each pair into the lists of both of its points, unless a float32 product of all features excludes it.

    That is in ``products`` if ``is_full``, else computed here.
    """
    last = nearest.shape[1] - 1
    for hit in range(len(hits)):
        i, j = first_row + np.int64(hits[hit, 0]), first_column + np.int64(hits[hit, 1])
        product = np.float32(0)
        if is_full:
            product = products[hits[hit, 0], hits[hit, 1]]
        else:
            for column in range(columns.shape[1]):
                product += columns[i, column] * columns[j, column]
        bound = squares[i] + squares[j] - np.float32(2) * product
        if bound > limits[i] and bound > limits[j]:
            continue
        # By the lower row first: the sum of the other order may differ in its last digit.
        low, high = (i, j) if order[i] < order[j] else (j, i)
        distance = _distance(rows, scales, low, high)
        if distance <= squared[i, last]:
            _insert(distance, order[j], nearest[i], squared[i])
            limits[i] = min(limits[i], np.nextafter(np.float32(squared[i, last]), np.float32(np.inf)))
        if distance <= squared[j, last]:
            _insert(distance, order[i], nearest[j], squared[j])
            limits[j] = min(limits[j], np.nextafter(np.float32(squared[j, last]), np.float32(np.inf)))
