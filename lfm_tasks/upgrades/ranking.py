"""Search quality of carried rows: recall of the true neighbors, and the rank of the nearest one."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

_BLOCK_ROWS = 512


@dataclass(frozen=True)
class Searched:
    """Results of each query: the share of its true neighbors among its first, 1/rank of the nearest true one."""

    recall: Float[np.ndarray, " queries"]
    reciprocal_rank: Float[np.ndarray, " queries"]


def nearest(
    queries: Float[np.ndarray, "queries features"], stored: Float[np.ndarray, "stored features"], k: int
) -> Int[np.ndarray, "queries k"]:
    """Return for each query the k stored rows of the largest inner product, the nearest first.

    Examples
    --------
    >>> nearest(np.array([[1.0, 0.1]]), np.array([[0.0, 1.0], [1.0, 0.0], [0.9, 0.9]]), 2).tolist()
    [[1, 2]]
    """
    found = np.empty((len(queries), k), dtype=np.int64)
    for start in range(0, len(queries), _BLOCK_ROWS):
        scores = queries[start : start + _BLOCK_ROWS] @ stored.T
        some = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        order = np.argsort(-np.take_along_axis(scores, some, axis=1), axis=1, kind="stable")
        found[start : start + _BLOCK_ROWS] = np.take_along_axis(some, order, axis=1)
    return found


def searched(
    queries: Float[np.ndarray, "queries features"],
    stored: Float[np.ndarray, "stored features"],
    truth: Int[np.ndarray, "queries k"],
) -> Searched:
    """Return how well each query finds its true neighbors among the stored rows; rows have length 1.

    Parameters
    ----------
    queries, stored
        What is searched for, and where, in the same coordinates.
    truth
        The stored rows that each query should find, the nearest first.
    """
    k = truth.shape[1]
    recall, reciprocal = np.empty(len(queries)), np.empty(len(queries))
    for start in range(0, len(queries), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        scores = queries[block] @ stored.T
        wanted = np.take_along_axis(scores, truth[block], axis=1)
        last = -np.partition(-scores, k - 1, axis=1)[:, k - 1]
        recall[block] = (wanted >= last[:, None]).mean(axis=1)
        reciprocal[block] = 1 / (scores >= wanted[:, :1]).sum(axis=1)
    return Searched(recall, reciprocal)
