"""Estimates, without the new model's output, how far a carried vector can be trusted."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from lfm_tasks.upgrades.ranking import nearest

_N_NEIGHBORS = 10
_BLOCK_ROWS = 2048


@dataclass(frozen=True)
class Confidence:
    """Three views of each carried row, in [0, 1], and their mean: 1 where nothing speaks against it.

    ``round_trip``: the cosine of the row and of what comes back from the new space. ``local``: the share of its nearest
    known inputs in the old space that are its nearest in the new one. ``known``: the cosine to the nearest known input.
    """

    round_trip: Float[np.ndarray, " points"]
    local: Float[np.ndarray, " points"]
    known: Float[np.ndarray, " points"]

    @property
    def value(self) -> Float[np.ndarray, " points"]:
        """The mean of the three."""
        return (self.round_trip + self.local + self.known) / 3


def confidence_of(
    rows: Float[np.ndarray, "points source_features"],
    carried: Float[np.ndarray, "points target_features"],
    returned: Float[np.ndarray, "points source_features"],
    known: tuple[Float[np.ndarray, "known source_features"], Float[np.ndarray, "known target_features"]],
) -> Confidence:
    """Return the confidence in each carried row; all rows have length 1.

    Parameters
    ----------
    rows
        Rows of the source.
    carried
        What the map makes of them.
    returned
        What the map in the other direction makes of these.
    known
        Rows of both models for some inputs.
    """
    k = min(_N_NEIGHBORS, max(1, len(known[0]) // 2))
    local, closest = np.empty(len(rows)), np.empty(len(rows))
    for start in range(0, len(rows), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        before, after = nearest(rows[block], known[0], k), nearest(carried[block], known[1], k)
        local[block] = (before[:, :, None] == after[:, None, :]).any(axis=2).mean(axis=1)
        closest[block] = np.einsum("ij,ij->i", rows[block], known[0][before[:, 0]])
    there_and_back = np.einsum("ij,ij->i", rows, returned)
    return Confidence(np.clip(there_and_back, 0, 1), local, np.clip(closest, 0, 1))
