"""Pairs that choose each other: what a map of coordinates is refined on, and how far it can be trusted."""

import numpy as np
from jaxtyping import Bool, Float, Int

from lfm_tasks.spectral.transfer.alignment import Alignment, Method, fit_coordinates, similarities


def mutual_pairs(
    scores: Float[np.ndarray, "target_points source_points"],
) -> tuple[Int[np.ndarray, " target_points"], Bool[np.ndarray, " target_points"]]:
    """Return the best source of every target row, and whether that source has it as its best target.

    Examples
    --------
    >>> best, mutual = mutual_pairs(np.array([[0.9, 0.1], [0.8, 0.2]]))
    >>> best.tolist(), mutual.tolist()
    ([0, 0], [True, False])
    """
    best_source, best_target = scores.argmax(axis=1), scores.argmax(axis=0)
    return best_source, best_target[best_source] == np.arange(len(best_source))


def round_trip_rate(
    alignment: Alignment,
    source_rows: Float[np.ndarray, "source_points source_features"],
    target_rows: Float[np.ndarray, "target_points target_features"],
) -> float:
    """Return the share of target rows that come back to themselves by way of their best source row, in [0, 1].

    Needs no labels. An alignment that is wrong sends most rows elsewhere.
    """
    return float(mutual_pairs(similarities(alignment, source_rows, target_rows))[1].mean())


def refine_by_mutual_pairs(
    start: Alignment,
    source_rows: Float[np.ndarray, "source_points source_features"],
    target_rows: Float[np.ndarray, "target_points target_features"],
    *,
    method: Method,
    n_rounds: int = 10,
) -> Alignment:
    """Return ``start`` after rounds of: find the pairs that choose each other, fit the coordinates on these.

    Rows without a partner, of which one-sided pairs make wrong ones, stay out. Stops early when no pair changes.

    References
    ----------
    Lample et al. (2018), "Word translation without parallel data", section 2.2.
    """
    current = start
    before: Int[np.ndarray, " target_points"] | None = None
    for _ in range(n_rounds):
        best, mutual = mutual_pairs(similarities(current, source_rows, target_rows))
        chosen = np.where(mutual, best, -1)
        if mutual.sum() < 2 or (before is not None and np.array_equal(before, chosen)):
            break
        before = chosen
        current = fit_coordinates(source_rows[best[mutual]], target_rows[mutual], method=method)
    return current


def refined_alignments(
    start: Alignment,
    source_rows: Float[np.ndarray, "source_points source_features"],
    target_rows: Float[np.ndarray, "target_points target_features"],
    n_rounds: int,
) -> tuple[Alignment, Alignment]:
    """Return ``start`` refined on mutual pairs by orthogonal maps, and that refined on by ridge maps."""
    mutual = refine_by_mutual_pairs(start, source_rows, target_rows, method="orthogonal", n_rounds=n_rounds)
    return mutual, refine_by_mutual_pairs(mutual, source_rows, target_rows, method="ridge", n_rounds=n_rounds)
