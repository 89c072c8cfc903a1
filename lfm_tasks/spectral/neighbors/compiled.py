"""Compiled loops of the neighbor search: what a block of products leaves over, and exact distances of that.

Their arguments carry no types: numba takes them from the arrays, and a checked function cannot be compiled.
"""

from typing import no_type_check

import numpy as np

from lfm_tasks.compiling import compiled, compiled_reordered


@compiled_reordered
@no_type_check
def offer(products, first_row, first_column, squares, bounds, indices, counts, limits):
    """Offer every pair of a block to both of its points; each keeps the pairs of its smallest bounds.

    The bound of a pair is ``squares[i] + squares[j] - 2 products[i, j]``. A point's list grows to the width of
    ``bounds`` and is then cut to two thirds; ``limits`` is the largest bound kept, above which nothing enters.
    """
    n_rows, n_columns = products.shape
    # Most pairs are near to neither point: one pass of vector code says which, eight at a look.
    hits = np.zeros((n_columns + 7) // 8 * 8, dtype=np.uint8)
    eights = hits.view(np.uint64)
    others, other_limits = squares[first_column:], limits[first_column:]
    for row in range(n_rows):
        i = first_row + row
        start = row + 1 if first_row == first_column else 0
        row_products, row_square, row_limit = products[row], squares[i], limits[i]
        for column in range(n_columns):
            bound = row_square + others[column] - np.float32(2) * row_products[column]
            hits[column] = (bound < row_limit) | (bound < other_limits[column])
        for eight in range(start // 8, len(eights)):
            if eights[eight] == 0:
                continue
            for column in range(max(8 * eight, start), min(8 * eight + 8, n_columns)):
                bound = row_square + others[column] - np.float32(2) * row_products[column]
                j = first_column + column
                if bound < limits[i]:
                    _keep(bound, j, bounds[i], indices[i], counts, limits, i)
                if bound < limits[j]:
                    _keep(bound, i, bounds[j], indices[j], counts, limits, j)


@compiled_reordered
@no_type_check
def rank(order, rows, scales, bounds, indices, counts, limits, nearest, squared):
    """Fill ``nearest`` and ``squared`` by exact distances of the pairs kept; return whether each point is settled.

    Place p of the lists is point ``order[p]``; where the order leads from near to near, most rows are still in the
    cache. A point is settled if every pair that was not kept is farther than its last neighbor.
    """
    n_points, n_neighbors = nearest.shape
    settled = np.zeros(n_points, dtype=np.bool_)
    n_kept = _n_kept(bounds.shape[1])
    for place in range(n_points):
        i, count = order[place], counts[place]
        complete = count == n_points - 1
        if count > n_kept:
            _cut(bounds[place], indices[place], count, n_kept)
            count = n_kept
        by_bound = np.argsort(bounds[place, :count])
        limit = min(limits[place], bounds[place, by_bound[count - 1]])
        for candidate in by_bound:
            if bounds[place, candidate] > squared[i, n_neighbors - 1]:
                break
            j = order[indices[place, candidate]]
            _insert(_distance(rows, scales, i, j), j, nearest[i], squared[i])
        settled[place] = complete or limit > squared[i, n_neighbors - 1]
    return settled


@compiled_reordered
@no_type_check
def sweep(
    products,
    places,
    first_column,
    squares,
    order,
    rows,
    scales,
    nearest,
    squared,
):
    """Try every pair of a block whose bound does not exclude it; ``places`` are those of the block's rows."""
    for row in range(products.shape[0]):
        place = places[row]
        i = order[place]
        for column in range(products.shape[1]):
            other = first_column + column
            bound = squares[place] + squares[other] - np.float32(2) * products[row, column]
            if bound <= squared[i, -1] and other != place:
                _insert(_distance(rows, scales, i, order[other]), order[other], nearest[i], squared[i])


@compiled_reordered
@no_type_check
def rank_given(rows, scales, candidates, nearest, squared):
    """Fill ``nearest`` and ``squared`` by exact distances to the given candidates; -1 and the point itself are none."""
    for i in range(len(candidates)):
        for j in candidates[i]:
            if j >= 0 and j != i:
                _insert(_distance(rows, scales, i, j), j, nearest[i], squared[i])


@compiled_reordered
@no_type_check
def leave(products, first_row, first_column, squares, order, labels, rows, scales, best, starts, ends):
    """Keep, for each label, the shortest pair that leaves it: its squared distance, where it starts, where it ends."""
    for row in range(products.shape[0]):
        place = first_row + row
        i = order[place]
        for column in range(products.shape[1]):
            other = first_column + column
            j = order[other]
            if labels[i] == labels[j]:
                continue
            bound = squares[place] + squares[other] - np.float32(2) * products[row, column]
            if bound <= max(best[labels[i]], best[labels[j]]):
                distance = _distance(rows, scales, i, j)
                _improve(distance, i, j, labels[i], best, starts, ends)
                _improve(distance, j, i, labels[j], best, starts, ends)


@compiled_reordered
@no_type_check
def _improve(distance, i, j, label, best, starts, ends):
    """Take the shorter, by the lower pair of rows among the equally short."""
    low, high = min(i, j), max(i, j)
    known_low, known_high = min(starts[label], ends[label]), max(starts[label], ends[label])
    if distance < best[label] or (
        distance == best[label] and (low < known_low or (low == known_low and high < known_high))
    ):
        best[label], starts[label], ends[label] = distance, i, j


@compiled_reordered
@no_type_check
def _n_kept(width):
    return width * 2 // 3


@compiled_reordered
@no_type_check
def _keep(bound, j, bounds, indices, counts, limits, i):
    count = counts[i]
    bounds[count] = bound
    indices[count] = j
    count += 1
    if count == len(bounds):
        count = _n_kept(count)
        limits[i] = _cut(bounds, indices, len(bounds), count)
    counts[i] = count


@compiled_reordered
@no_type_check
def _cut(bounds, indices, n_entries, n_kept):
    """Move the ``n_kept`` smallest to the front (Hoare's selection); return the largest of them."""
    low, high, last = 0, n_entries - 1, n_kept - 1
    while low < high:
        pivot = bounds[(low + high) // 2]
        left, right = low, high
        while left <= right:
            while bounds[left] < pivot:
                left += 1
            while bounds[right] > pivot:
                right -= 1
            if left <= right:
                bounds[left], bounds[right] = bounds[right], bounds[left]
                indices[left], indices[right] = indices[right], indices[left]
                left += 1
                right -= 1
        if last <= right:
            high = right
        elif last >= left:
            low = left
        else:
            break
    return bounds[:n_kept].max()


@compiled_reordered
@no_type_check
def _distance(rows, scales, i, j):
    """Return |s_i x_i - s_j x_j|² in float64."""
    total = 0.0
    scale_i, scale_j = scales[i], scales[j]
    for feature in range(rows.shape[1]):
        step = np.float64(rows[i, feature]) * scale_i - np.float64(rows[j, feature]) * scale_j
        total += step * step
    return total


@compiled_reordered
@no_type_check
def _insert(distance, j, nearest, squared):
    """Insert into a list sorted by distance, then by number; what is there already, or farther, is left out."""
    place = len(nearest)
    while place > 0 and (squared[place - 1] > distance or (squared[place - 1] == distance and nearest[place - 1] > j)):
        place -= 1
    if place == len(nearest) or (place > 0 and nearest[place - 1] == j and squared[place - 1] == distance):
        return
    for moved in range(len(nearest) - 1, place, -1):
        nearest[moved] = nearest[moved - 1]
        squared[moved] = squared[moved - 1]
    nearest[place] = j
    squared[place] = distance


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
        row_products, row_square, row_limit = products[row], squares[i], limits[i]
        for column in range(n_columns):
            bound = row_square + others[column] - np.float32(2) * row_products[column]
            marks[column] = (bound <= row_limit) | (bound <= other_limits[column])
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
