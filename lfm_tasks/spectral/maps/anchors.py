"""Anchors: the known pairs of points, and what is wrong with them."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from lfm_tasks.reasons import ReasonError


@dataclass(frozen=True)
class Anchors:
    """Known pairs: row ``source[i]`` of the source space and row ``target[i]`` of the target space are one point."""

    source: Int[np.ndarray, " anchors"]
    target: Int[np.ndarray, " anchors"]

    def __len__(self) -> int:
        """Return how many pairs are known."""
        return len(self.source)

    def take(self, chosen: np.ndarray) -> "Anchors":
        """Return the pairs that ``chosen`` (indices or a mask) selects."""
        return Anchors(self.source[chosen], self.target[chosen])

    def reversed(self) -> "Anchors":
        """Return the same pairs, seen from the target."""
        return Anchors(self.target, self.source)


def check_anchors(anchors: Anchors, n_source: int, n_target: int) -> Anchors:
    """Return ``anchors`` if they are at least two distinct pairs of existing rows.

    Raises
    ------
    ReasonError
        ``few_anchors`` below two, ``bad_anchors`` if a row is repeated or outside its space.

    Examples
    --------
    >>> len(check_anchors(Anchors(np.array([4, 0]), np.array([1, 2])), n_source=5, n_target=3))
    2
    """
    if len(anchors.source) != len(anchors.target):
        raise ValueError(f"found {len(anchors.source)} source and {len(anchors.target)} target rows, needs pairs")
    check_anchor_rows(anchors.source, n_source)
    check_anchor_rows(anchors.target, n_target)
    return anchors


def check_anchor_rows(rows: Int[np.ndarray, " anchors"], n_points: int) -> None:
    """Raise `ReasonError` unless ``rows`` are at least two distinct rows of a space of ``n_points``."""
    if len(rows) < 2:
        raise ReasonError("few_anchors", f"found {len(rows)} anchors, needs at least 2: give more known pairs")
    outside = rows[(rows < 0) | (rows >= n_points)]
    if len(outside):
        raise ReasonError(
            "bad_anchors",
            f"found anchor row {outside[0]} in a space of {n_points} points: rows count from 0 to {n_points - 1}",
        )
    values, counts = np.unique(rows, return_counts=True)
    if (counts > 1).any():
        raise ReasonError(
            "bad_anchors", f"found anchor row {values[counts > 1][0]} more than once: give each row one partner"
        )
