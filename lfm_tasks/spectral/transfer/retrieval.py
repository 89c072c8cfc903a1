"""How well a map of coordinates finds known points: the rank of each point's true partner."""

import numpy as np
from jaxtyping import Float, Int

from lfm_tasks.spectral.transfer.alignment import Alignment, similarities

_BLOCK_ROWS = 1024


def partner_ranks(
    alignment: Alignment,
    source_rows: Float[np.ndarray, "source_points source_features"],
    target_rows: Float[np.ndarray, "known target_features"],
    partners: Int[np.ndarray, " known"],
) -> Float[np.ndarray, " known"]:
    """Return, for each target row, the rank from 1 of its ``partners`` row among all source rows; ties count as ahead.

    1/rank, averaged, is the mean reciprocal rank; the share of ranks 1 is the accuracy.

    Examples
    --------
    >>> same = Alignment(np.zeros(2), np.zeros(2), np.eye(2))
    >>> partner_ranks(same, np.array([[1.0, 0], [0, 1]]), np.array([[2.0, 1]]), np.array([1])).tolist()
    [2.0]
    """
    ranks = np.empty(len(partners))
    for start in range(0, len(partners), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        scores = similarities(alignment, source_rows, target_rows[block])
        own = scores[np.arange(len(scores)), partners[block]]
        ranks[block] = (scores >= own[:, None]).sum(axis=1)
    return ranks
