"""Compiled loops that list nearest neighbors, and over the shared entries of two lists, a row a point."""

from typing import no_type_check

import numpy as np

from lfm_tasks.compiling import compiled, compiled_reordered

# Steps in which a scale is found, at most; terms exp(-800) are 0.
_MOST_STEPS, _NO_TERM = 60, 800.0


@compiled
@no_type_check
def largest_of_rows(numbers, own, n_chosen):
    """Return the places of the largest numbers of each row, falling, without place ``own``; of equal ones the first."""
    n_rows, n_columns = numbers.shape
    chosen = np.empty((n_rows, n_chosen), dtype=np.int64)
    largest = np.empty(n_chosen)
    for i in range(n_rows):
        n_found = 0
        for j in range(n_columns):
            number = numbers[i, j]
            if j == own[i] or (n_found == n_chosen and not number > largest[n_chosen - 1]):
                continue
            place = min(n_found, n_chosen - 1)
            while place > 0 and number > largest[place - 1]:
                largest[place], chosen[i, place] = largest[place - 1], chosen[i, place - 1]
                place -= 1
            largest[place], chosen[i, place] = number, j
            n_found = min(n_found + 1, n_chosen)
    return chosen


@compiled_reordered
@no_type_check
def _distance(first, second):
    """Return the distance of two rows."""
    total = 0.0
    for place in range(len(first)):
        step = first[place] - second[place]
        total += step * step
    return np.sqrt(total)


@compiled
@no_type_check
def manifold_weights(rows, nearest, wanted):
    """Return exp(-(d - least d)/σ) of the distances d of each row to its nearest ones, σ such that they sum to wanted.

    Where too many are as near as the nearest for any σ, they weigh 1 and all others 0. The sum is convex in 1/σ:
    Newton's steps come nearer to it from one side.
    """
    n_points, k = nearest.shape
    weights = np.empty((n_points, k))
    beyond = np.empty(k)
    for i in range(n_points):
        for entry in range(k):
            beyond[entry] = _distance(rows[i], rows[nearest[i, entry]])
        beyond -= beyond.min()
        largest, least = beyond.max(), np.inf
        for entry in range(k):
            if 0 < beyond[entry] < least:
                least = beyond[entry]
        # With this σ every term is at least wanted/k; a point whose neighbors are equally far takes any σ.
        inverse = 1.0
        if largest > 0:
            inverse = np.log(k / wanted) / largest if k > 2 else 1 / largest
        most = _NO_TERM / least
        for _ in range(_MOST_STEPS):
            total, slope = 0.0, 0.0
            for entry in range(k):
                term = np.exp(-beyond[entry] * inverse)
                weights[i, entry] = term
                total += term
                slope += term * beyond[entry]
            if slope <= 0 or total <= wanted or inverse >= most:
                break
            reached = min(inverse + (total - wanted) / slope, most)
            if reached - inverse <= 9e-16 * inverse:
                break
            inverse = reached
    return weights


@compiled
@no_type_check
def mutual_entries(lists):
    """Return which entries are of two points that list each other."""
    found = np.zeros(lists.shape, dtype=np.bool_)
    for i in range(lists.shape[0]):
        for entry in range(lists.shape[1]):
            for back in lists[lists[i, entry]]:
                if back == i:
                    found[i, entry] = True
    return found


# Below, ``many`` holds lists of many spaces as `SideBySide` has them, and ``chosen`` are places of spaces, rising.


@compiled
@no_type_check
def rank_agreements(one, many, chosen, weights, most):
    """Return the mean over points of Σ weights[r, s] over shared neighbors, over most[their number], by chosen space.

    r and s are the places of a shared neighbor in both lists. No step depends on whether a neighbor is shared, which
    cannot be guessed: others have a row of zeros.
    """
    n_points, k = one.shape
    with_none = np.zeros((k + 1, k))
    with_none[:k] = weights
    place = np.full(n_points, k, dtype=np.int16)
    totals = np.zeros(len(chosen))
    start = 0
    while start < len(chosen):
        group, stop = chosen[start] // many.shape[2], _stop_of_group(chosen, start, many.shape[2])
        for i in range(n_points):
            for entry in range(k):
                place[one[i, entry]] = entry
            lists = many[group, i]
            for c in range(start, stop):
                others = lists[chosen[c] - group * many.shape[2]]
                agreement, n_shared = 0.0, 0
                for entry in range(k):
                    first = place[others[entry]]
                    agreement += with_none[first, entry]
                    n_shared += first < k
                totals[c] += agreement / most[n_shared]
            for entry in range(k):
                place[one[i, entry]] = k
        start = stop
    return totals / n_points


@compiled
@no_type_check
def shared_products(one, values, many, many_values, chosen):
    """Return Σ K_ij L_ij over the entries that both lists have, L the kernel of each chosen space.

    Points that are no neighbors have the value 0, so that no step depends on which are shared.
    """
    n_points, k = one.shape
    value_of = np.zeros(n_points)
    totals = np.zeros(len(chosen))
    start = 0
    while start < len(chosen):
        group, stop = chosen[start] // many.shape[2], _stop_of_group(chosen, start, many.shape[2])
        for i in range(n_points):
            for entry in range(k):
                value_of[one[i, entry]] = values[i, entry]
            lists, of_lists = many[group, i], many_values[group, i]
            for c in range(start, stop):
                inside = chosen[c] - group * many.shape[2]
                others, theirs = lists[inside], of_lists[inside]
                total = 0.0
                for entry in range(k):
                    total += value_of[others[entry]] * theirs[entry]
                totals[c] += total
            for entry in range(k):
                value_of[one[i, entry]] = 0.0
        start = stop
    return totals


@compiled
@no_type_check
def shared_sums(one, values, mutual, many, many_values, many_mutual, chosen):
    """Return the sums that HSIC₁ of two kernels follows from, both on the entries (i, j) that both lists have.

    For each chosen space L: Σ K_ij L_ji (a pair counts where both points list each other in both spaces: K and L are
    symmetric there); Σ K_ij; Σ L_ij; the sum of all entries of K L, and of L K.
    """
    n_points, n_neighbors = one.shape
    place = np.full(n_points, -1, dtype=np.int16)
    found = np.zeros((len(chosen), 5))
    rows = np.empty((many.shape[2], 2, n_points))
    columns = np.empty((many.shape[2], 2, n_points))
    start = 0
    while start < len(chosen):
        group, stop = chosen[start] // many.shape[2], _stop_of_group(chosen, start, many.shape[2])
        columns[:] = 0.0
        for i in range(n_points):
            for entry in range(n_neighbors):
                place[one[i, entry]] = entry
            lists, of_lists, mutual_of = many[group, i], many_values[group, i], many_mutual[group, i]
            for c in range(start, stop):
                inside = chosen[c] - group * many.shape[2]
                others, theirs = lists[inside], of_lists[inside]
                product, of_one, of_other = 0.0, 0.0, 0.0
                for entry in range(n_neighbors):
                    j = others[entry]
                    first = place[j]
                    if first >= 0:
                        here, there = values[i, first], theirs[entry]
                        of_one += here
                        of_other += there
                        columns[inside, 0, j] += here
                        columns[inside, 1, j] += there
                        if mutual[i, first] and mutual_of[inside, entry]:
                            product += here * there
                rows[inside, 0, i], rows[inside, 1, i] = of_one, of_other
                found[c, 0] += product
                found[c, 1] += of_one
                found[c, 2] += of_other
            for entry in range(n_neighbors):
                place[one[i, entry]] = -1
        for c in range(start, stop):
            inside = chosen[c] - group * many.shape[2]
            for i in range(n_points):
                found[c, 3] += columns[inside, 0, i] * rows[inside, 1, i]
                found[c, 4] += columns[inside, 1, i] * rows[inside, 0, i]
        start = stop
    return found


@compiled
@no_type_check
def _stop_of_group(chosen, start, in_group):
    """Return the end of the run of chosen places that are in the group of the first."""
    stop = start + 1
    while stop < len(chosen) and chosen[stop] // in_group == chosen[start] // in_group:
        stop += 1
    return stop
