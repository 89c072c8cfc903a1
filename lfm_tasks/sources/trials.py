"""Several rows with one id: which rows belong to each id, so that their mean replaces them."""

import hashlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Shaped


@dataclass(frozen=True)
class Trials:
    """Which rows belong to each of several ids: ``owners`` are their positions in ``ids``, -1 for rows left out."""

    ids: Shaped[np.ndarray, " points"]
    owners: Int[np.ndarray, " rows"]

    @property
    def counts(self) -> Int[np.ndarray, " points"]:
        """How many rows each id has."""
        return np.bincount(self.owners[self.owners >= 0], minlength=len(self.ids))

    @property
    def digest(self) -> str:
        """Digest of the choice of rows that are averaged."""
        return hashlib.sha256(np.ascontiguousarray(self.owners, dtype="<i8").tobytes()).hexdigest()

    def without(self, rows: Int[np.ndarray, " dropped"]) -> "Trials":
        """Return the trials without some rows."""
        owners = self.owners.copy()
        owners[rows] = -1
        return Trials(self.ids, owners)

    def rows_of(self, points: Int[np.ndarray, " batch"]) -> tuple[Int[np.ndarray, " rows"], Int[np.ndarray, " rows"]]:
        """Return the rows of some points, in their order, and to which of ``points`` each belongs."""
        places = np.full(len(self.ids) + 1, -1)
        places[points] = np.arange(len(points))
        chosen = np.flatnonzero(places[self.owners] >= 0)
        return chosen, places[self.owners[chosen]]


def trials_of(row_ids: Shaped[np.ndarray, " rows"]) -> Trials:
    """Return the different ids of rows, in the order of their first rows, and which rows each has."""
    distinct, first, owners = np.unique(row_ids, return_index=True, return_inverse=True)
    order = np.argsort(first)
    places = np.empty_like(order)
    places[order] = np.arange(len(order))
    return Trials(distinct[order], places[owners])
