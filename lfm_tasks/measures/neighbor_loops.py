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
def rank_agreement(source, target, weights, most):
    """Return the mean over points of Σ weights[r, s] over shared neighbors, over most[their number].

    r and s are the places of a shared neighbor in both lists.
    """
    n_points, n_source = source.shape
    place = np.full(n_points, -1, dtype=np.int32)
    total = 0.0
    for i in range(n_points):
        for entry in range(n_source):
            place[source[i, entry]] = entry
        agreement, n_shared = 0.0, 0
        for entry in range(target.shape[1]):
            first = place[target[i, entry]]
            if first >= 0:
                agreement += weights[first, entry]
                n_shared += 1
        total += agreement / most[n_shared]
        for entry in range(n_source):
            place[source[i, entry]] = -1
    return total / n_points


@compiled
@no_type_check
def shared_product(source, source_values, target, target_values):
    """Return Σ K_ij L_ij over the entries that both lists have."""
    n_points, n_source = source.shape
    place = np.full(n_points, -1, dtype=np.int32)
    total = 0.0
    for i in range(n_points):
        for entry in range(n_source):
            place[source[i, entry]] = entry
        for entry in range(target.shape[1]):
            first = place[target[i, entry]]
            if first >= 0:
                total += source_values[i, first] * target_values[i, entry]
        for entry in range(n_source):
            place[source[i, entry]] = -1
    return total


@compiled
@no_type_check
def shared_sums(source, source_values, source_mutual, target, target_values, target_mutual):
    """Return the sums that HSIC₁ of two kernels follows from, both on the entries (i, j) that both lists have.

    Σ K_ij L_ji (a pair counts where both points list each other in both spaces: K and L are symmetric there); Σ K_ij;
    Σ L_ij; the sum of all entries of K L, and of L K.
    """
    n_points, n_source = source.shape
    place = np.full(n_points, -1, dtype=np.int32)
    rows = np.zeros((2, n_points))
    columns = np.zeros((2, n_points))
    product = 0.0
    for i in range(n_points):
        for entry in range(n_source):
            place[source[i, entry]] = entry
        for entry in range(target.shape[1]):
            j = target[i, entry]
            first = place[j]
            if first >= 0:
                of_source, of_target = source_values[i, first], target_values[i, entry]
                rows[0, i] += of_source
                rows[1, i] += of_target
                columns[0, j] += of_source
                columns[1, j] += of_target
                if source_mutual[i, first] and target_mutual[i, entry]:
                    product += of_source * of_target
        for entry in range(n_source):
            place[source[i, entry]] = -1
    there, back = 0.0, 0.0
    for i in range(n_points):
        there += columns[0, i] * rows[1, i]
        back += columns[1, i] * rows[0, i]
    return product, rows[0].sum(), rows[1].sum(), there, back
