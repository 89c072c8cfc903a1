"""Pairs of a block in few numbers: runs of pairs that have one first place and second places one after the other.

All pairs of two times 256 bases are 256 runs: 4 kB in a receipt, where the pairs themselves would be 800 kB.
"""

import numpy as np
from jaxtyping import Int


def runs_of_pairs(pairs: Int[np.ndarray, "pairs 2"]) -> Int[np.ndarray, "runs 3"]:
    """Return pairs, in any order, as runs: the first place, the lowest of the second places, how many there are.

    Examples
    --------
    >>> runs_of_pairs(np.array([[0, 4], [0, 5], [0, 7], [1, 8]])).tolist()
    [[0, 4, 2], [0, 7, 1], [1, 8, 1]]
    """
    # Differences of unsigned numbers would wrap around.
    first, second = pairs.astype(np.int32).T
    goes_on = (np.diff(first) == 0) & (np.diff(second) == 1)
    starts = np.flatnonzero(np.concatenate([np.ones(min(len(pairs), 1), dtype=bool), ~goes_on]))
    lengths = np.diff(starts, append=len(pairs))
    return np.stack([first[starts], second[starts], lengths], axis=1).astype(np.int32)


def pairs_of_runs(runs: Int[np.ndarray, "runs 3"]) -> Int[np.ndarray, "pairs 2"]:
    """Return the pairs of runs in their order.

    Examples
    --------
    >>> pairs_of_runs(np.array([[0, 4, 2], [1, 8, 1]])).tolist()
    [[0, 4], [0, 5], [1, 8]]
    """
    first, second, lengths = runs.astype(np.int32).T
    n_before = np.cumsum(lengths, dtype=np.int32) - lengths
    places = np.arange(lengths.sum(), dtype=np.int32) + np.repeat(second - n_before, lengths)
    return np.stack([np.repeat(first, lengths), places], axis=1)


def n_pairs_of_runs(runs: Int[np.ndarray, "runs 3"]) -> int:
    """Return how many pairs there are in runs."""
    return int(runs[:, 2].sum())
