"""The linear assignment problem of many small matrices, in compiled loops.

`scipy.optimize.linear_sum_assignment` takes four times as long (docs/design/speed.md), which is most of what a pair
takes of a measure that solves fifteen of these.
"""

from typing import no_type_check

import numpy as np
from jaxtyping import Float

from lfm_tasks.compiling import compiled


def largest_assigned_means(matrices: Float[np.ndarray, "matrices rows columns"]) -> Float[np.ndarray, " matrices"]:
    """Return the mean of the entries that match rows and columns one to one, their sum as large as can be.

    Jonker and Volgenant (1987), "A shortest augmenting path algorithm for dense and sparse linear assignment problems":
    augmenting row reduction, then shortest augmenting paths. Of more rows than columns, or fewer, as many are matched
    as the smaller side has. NaN for a matrix with entries that are not finite.
    """
    if matrices.shape[1] > matrices.shape[2]:
        matrices = np.swapaxes(matrices, 1, 2)
    return np.asarray(_assigned_means(np.ascontiguousarray(matrices)))


@compiled
@no_type_check
def _assigned_means(matrices):
    n_matrices, n_rows, n_columns = matrices.shape
    costs = np.empty((n_rows, n_columns))
    means = np.empty(n_matrices)
    for place in range(n_matrices):
        total = 0.0
        for i in range(n_rows):
            for j in range(n_columns):
                costs[i, j] = -matrices[place, i, j]
                total += costs[i, j]
        if np.isfinite(total):
            column_of = _assign(costs)
            total = 0.0
            for i in range(n_rows):
                total -= costs[i, column_of[i]]
            means[place] = total / n_rows
        else:
            means[place] = np.nan
    return means


@compiled
@no_type_check
def _assign(costs):
    """Return the column of each row, their costs as small as can be; not more rows than columns.

    ``prices`` and the matching always satisfy complementary slackness: the column of a row has its smallest reduced
    cost (cost less price), and a free column has the price 0.
    """
    n_rows, n_columns = costs.shape
    row_of = np.full(n_columns, -1)
    column_of = np.full(n_rows, -1)
    prices = np.zeros(n_columns)
    _reduce_rows(costs, row_of, column_of, prices)
    distance = np.empty(n_columns)
    before = np.empty(n_columns, dtype=np.int64)
    beyond = np.empty(n_columns)
    for start in range(n_rows):
        if column_of[start] < 0:
            _augment(start, costs, row_of, column_of, prices, distance, before, beyond)
    return column_of


@compiled
@no_type_check
def _reduce_rows(costs, row_of, column_of, prices):
    """Match rows to their nearest columns, each of which gets the price at which its row would as well take the next.

    Rows that lose their column are matched again, four times as many as there are rows at most; those that would tie
    for columns that all have rows are left.
    """
    n_rows, n_columns = costs.shape
    reduced = np.empty(n_columns)
    waiting = np.arange(n_rows)[::-1].copy()
    n_waiting = n_rows
    for _ in range(4 * n_rows):
        if not n_waiting:
            break
        n_waiting -= 1
        i = waiting[n_waiting]
        smallest = np.inf
        for j in range(n_columns):
            reduced[j] = costs[i, j] - prices[j]
            smallest = min(smallest, reduced[j])
        nearest = 0
        while reduced[nearest] != smallest:
            nearest += 1
        reduced[nearest] = np.inf
        second = np.inf
        for j in range(n_columns):
            second = min(second, reduced[j])
        loser = row_of[nearest]
        if smallest == second and loser >= 0:
            for j in range(nearest + 1, n_columns):
                if reduced[j] == second and row_of[j] < 0:
                    nearest, loser = j, -1
                    break
            if loser >= 0:
                continue
        if n_columns > 1:
            prices[nearest] -= second - smallest
        row_of[nearest], column_of[i] = i, nearest
        if loser >= 0:
            column_of[loser] = -1
            waiting[n_waiting] = loser
            n_waiting += 1


@compiled
@no_type_check
def _augment(start, costs, row_of, column_of, prices, distance, before, beyond):
    """Match one more row, by the shortest path of reduced costs to a free column (Dijkstra).

    ``beyond``: infinite for columns that have been reached, so that they are no longer the nearest.
    """
    n_columns = len(prices)
    for j in range(n_columns):
        distance[j] = costs[start, j] - prices[j]
        before[j] = start
        beyond[j] = 0.0
    while True:
        shortest = np.inf
        for j in range(n_columns):
            shortest = min(shortest, distance[j] + beyond[j])
        nearest = 0
        while distance[nearest] + beyond[nearest] != shortest:
            nearest += 1
        i = row_of[nearest]
        if i < 0:
            break
        beyond[nearest] = np.inf
        offset = shortest - (costs[i, nearest] - prices[nearest])
        for j in range(n_columns):
            through = costs[i, j] - prices[j] + offset
            if beyond[j] == 0.0 and through < distance[j]:
                distance[j] = through
                before[j] = i
    for j in range(n_columns):
        if beyond[j] > 0.0:
            prices[j] += distance[j] - shortest
    while True:
        i = before[nearest]
        row_of[nearest] = i
        column_of[i], nearest = nearest, column_of[i]
        if i == start:
            break
