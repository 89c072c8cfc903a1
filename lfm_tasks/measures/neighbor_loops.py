"""Compiled loops that list nearest neighbors, and over the shared entries of two lists, a row a point."""

from typing import no_type_check

import numpy as np

from lfm_tasks.compiling import compiled


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


# Spaces that one is compared with in one pass over its points: the sums of so many stay in a processor's cache.
_AT_ONCE = 8


@compiled
@no_type_check
def rank_agreements(one, many, chosen, weights, most):
    """Return, for chosen spaces of many, the mean over points of Σ weights[r, s] over shared neighbors.

    It is divided by most[their number]; r and s are the places of a shared neighbor in both lists. ``many``: points x
    spaces x neighbors.
    """
    n_points, n_neighbors = one.shape
    place = np.full(n_points, -1, dtype=np.int16)
    totals = np.zeros(len(chosen))
    for i in range(n_points):
        for entry in range(n_neighbors):
            place[one[i, entry]] = entry
        for c in range(len(chosen)):
            agreement, n_shared = 0.0, 0
            for entry in range(n_neighbors):
                first = place[many[i, chosen[c], entry]]
                if first >= 0:
                    agreement += weights[first, entry]
                    n_shared += 1
            totals[c] += agreement / most[n_shared]
        for entry in range(n_neighbors):
            place[one[i, entry]] = -1
    return totals / n_points


@compiled
@no_type_check
def shared_products(one, values, many, many_values, chosen):
    """Return Σ K_ij L_ij over the entries that both lists have, L the kernel of each chosen space of many."""
    n_points, n_neighbors = one.shape
    place = np.full(n_points, -1, dtype=np.int16)
    totals = np.zeros(len(chosen))
    for i in range(n_points):
        for entry in range(n_neighbors):
            place[one[i, entry]] = entry
        for c in range(len(chosen)):
            total = 0.0
            for entry in range(n_neighbors):
                first = place[many[i, chosen[c], entry]]
                if first >= 0:
                    total += values[i, first] * many_values[i, chosen[c], entry]
            totals[c] += total
        for entry in range(n_neighbors):
            place[one[i, entry]] = -1
    return totals


@compiled
@no_type_check
def shared_sums(one, values, mutual, many, many_values, many_mutual, chosen):
    """Return the sums that HSIC₁ of two kernels follows from, both on the entries (i, j) that both lists have.

    For each chosen space L of many: Σ K_ij L_ji (a pair counts where both points list each other in both spaces: K and
    L are symmetric there); Σ K_ij; Σ L_ij; the sum of all entries of K L, and of L K.
    """
    n_points, n_neighbors = one.shape
    place = np.full(n_points, -1, dtype=np.int16)
    found = np.zeros((len(chosen), 5))
    rows = np.empty((_AT_ONCE, 2, n_points))
    columns = np.empty((_AT_ONCE, 2, n_points))
    for start in range(0, len(chosen), _AT_ONCE):
        n_now = min(_AT_ONCE, len(chosen) - start)
        columns[:] = 0.0
        for i in range(n_points):
            for entry in range(n_neighbors):
                place[one[i, entry]] = entry
            for c in range(n_now):
                space = chosen[start + c]
                product, of_one, of_other = 0.0, 0.0, 0.0
                for entry in range(n_neighbors):
                    j = many[i, space, entry]
                    first = place[j]
                    if first >= 0:
                        here, there = values[i, first], many_values[i, space, entry]
                        of_one += here
                        of_other += there
                        columns[c, 0, j] += here
                        columns[c, 1, j] += there
                        if mutual[i, first] and many_mutual[i, space, entry]:
                            product += here * there
                rows[c, 0, i], rows[c, 1, i] = of_one, of_other
                found[start + c, 0] += product
                found[start + c, 1] += of_one
                found[start + c, 2] += of_other
            for entry in range(n_neighbors):
                place[one[i, entry]] = -1
        for c in range(n_now):
            for i in range(n_points):
                found[start + c, 3] += columns[c, 0, i] * rows[c, 1, i]
                found[start + c, 4] += columns[c, 1, i] * rows[c, 0, i]
    return found
