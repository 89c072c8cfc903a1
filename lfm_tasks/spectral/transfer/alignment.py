"""Carrying coordinates from one space to another by a linear map between their rows."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from lfm_tasks.errors import DataError
from lfm_tasks.spectral.maps.descriptors import Anchors, check_anchors

AlignmentMethod = Literal["orthogonal", "ridge", "affine"]


@dataclass(frozen=True)
class Alignment:
    """Two linear maps into one set of coordinates, (x − mean_x) W_x and (y − mean_y) W_y.

    The angle between a source and a target row in these coordinates measures how alike the two are.

    Without ``target_matrix`` the coordinates are the target's own, y − mean_y.
    """

    source_mean: Float[np.ndarray, " source_features"]
    target_mean: Float[np.ndarray, " target_features"]
    source_matrix: Float[np.ndarray, "source_features common"]
    target_matrix: Float[np.ndarray, "target_features common"] | None = None


def fit_coordinates(
    source_rows: Float[np.ndarray, "pairs source_features"],
    target_rows: Float[np.ndarray, "pairs target_features"],
    *,
    method: AlignmentMethod,
    ridge: float = 0.01,
) -> Alignment:
    """Return the map of coordinates that carries row i of the source to row i of the target.

    For a point map T, target → source, the pairs are (source[T], target).

    - ``orthogonal``: s U Vᵀ from UΣVᵀ = X_cᵀ Y_c, s = tr Σ/‖X_c‖² (centered Procrustes; unequal widths as if padded
      with zeros);
    - ``ridge``: (X_cᵀX_c + r I)⁻¹ X_cᵀY_c, r = ``ridge`` × trace(X_cᵀX_c)/features;
    - ``affine``: plain least squares, which collapses when there are about as many pairs as features.

    Raises
    ------
    DataError
        ``few_anchors`` for fewer than two pairs; ``constant`` if all rows of a side are equal.

    Examples
    --------
    >>> rows = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    >>> turned = fit_coordinates(rows, rows @ np.array([[0.0, 1.0], [-1.0, 0.0]]), method="orthogonal")
    >>> (transfer_coordinates(turned, np.array([[3.0, 0.0]])).round(6) + 0.0).tolist()
    [[0.0, 3.0]]
    """
    if len(source_rows) < 2:
        raise DataError("few_anchors", f"got {len(source_rows)} pairs, expected at least 2. Give more known pairs")
    source_mean, target_mean = source_rows.mean(axis=0), target_rows.mean(axis=0)
    centered, images = source_rows - source_mean, target_rows - target_mean
    if not (centered.any() and images.any()):
        raise DataError("constant", "got pairs that are all one point. Give distinct ones")
    matrix = _FITS[method](centered, images, ridge)
    return Alignment(source_mean, target_mean, matrix)


def transfer_coordinates(
    alignment: Alignment, rows: Float[np.ndarray, "points source_features"]
) -> Float[np.ndarray, "points target_features"]:
    """Return the rows in the target's coordinates, (x − mean_x) W_x W_y⁺ + mean_y: in the sample or out of it.

    Parameters
    ----------
    alignment
        Linear maps of both spaces into common coordinates, as `choose_alignment` finds them.
    rows
        Activations of the source, in the sample or not.
    """
    direct = direct_map(alignment)
    return (rows - direct.source_mean) @ direct.source_matrix + direct.target_mean


def direct_map(alignment: Alignment) -> Alignment:
    """Return the alignment that leads straight to the target's coordinates, without a ``target_matrix``: W_x W_y⁺."""
    if alignment.target_matrix is None:
        return alignment
    matrix = alignment.source_matrix @ np.linalg.pinv(alignment.target_matrix)
    return Alignment(alignment.source_mean, alignment.target_mean, matrix)


def similarities(
    alignment: Alignment,
    source_rows: Float[np.ndarray, "source_points source_features"],
    target_rows: Float[np.ndarray, "target_points target_features"],
) -> Float[np.ndarray, "target_points source_points"]:
    """Return the cosine between every target and every source row in the common coordinates, in [−1, 1], float32."""
    source = _directions(source_rows - alignment.source_mean, alignment.source_matrix)
    target = _directions(target_rows - alignment.target_mean, alignment.target_matrix)
    return np.asarray(target @ source.T)


def _orthogonal(centered: np.ndarray, images: np.ndarray, ridge: float) -> np.ndarray:
    left, singular, right = np.linalg.svd(centered.T @ images, full_matrices=False)
    return np.asarray((left @ right) * (singular.sum() / np.einsum("ij,ij->", centered, centered)))


def _ridge(centered: np.ndarray, images: np.ndarray, ridge: float) -> np.ndarray:
    gram = centered.T @ centered
    strength = ridge * np.trace(gram) / len(gram)
    return np.linalg.solve(gram + strength * np.eye(len(gram)), centered.T @ images)


def _affine(centered: np.ndarray, images: np.ndarray, ridge: float) -> np.ndarray:
    return np.asarray(np.linalg.lstsq(centered, images, rcond=None)[0])


def _directions(centered: np.ndarray, matrix: np.ndarray | None) -> np.ndarray:
    narrow = centered.astype(np.float32)
    if matrix is not None:
        narrow = narrow @ matrix.astype(np.float32)
    return np.asarray(narrow / np.maximum(np.linalg.norm(narrow, axis=1, keepdims=True), np.float32(1e-30)))


_FITS = {"orthogonal": _orthogonal, "ridge": _ridge, "affine": _affine}


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
    method: AlignmentMethod,
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


def fit_procrustes(
    source_rows: Float[np.ndarray, "source_points source_features"],
    target_rows: Float[np.ndarray, "target_points target_features"],
    anchors: Anchors,
) -> Alignment:
    """Return the orthogonal map fitted on the anchors; both spaces are centered by all of their rows."""
    check_anchors(anchors, len(source_rows), len(target_rows))
    source_mean, target_mean = source_rows.mean(axis=0), target_rows.mean(axis=0)
    source, target = source_rows[anchors.source] - source_mean, target_rows[anchors.target] - target_mean
    left, singular, right = np.linalg.svd(source.T @ target, full_matrices=False)
    matrix = (left @ right) * (singular.sum() / max(float(np.einsum("ij,ij->", source, source)), 1e-300))
    return Alignment(source_mean, target_mean, matrix)


def refine_by_icp(
    start: Alignment,
    source_rows: Float[np.ndarray, "source_points source_features"],
    target_rows: Float[np.ndarray, "target_points target_features"],
    *,
    n_rounds: int = 20,
) -> Alignment:
    """Return ``start`` after rounds of: pair each target row with its most similar source row, fit Procrustes on all.

    Stops early when no pair changes.

    References
    ----------
    Besl, McKay (1992), "A method for registration of 3-D shapes", section III.
    """
    current = start
    matches: Int[np.ndarray, " targets"] | None = None
    for _ in range(n_rounds):
        before, matches = matches, similarities(current, source_rows, target_rows).argmax(axis=1)
        if before is not None and np.array_equal(before, matches):
            break
        current = fit_coordinates(source_rows[matches], target_rows, method="orthogonal")
    return current


def fit_relative(
    source_rows: Float[np.ndarray, "source_points source_features"],
    target_rows: Float[np.ndarray, "target_points target_features"],
    anchors: Anchors,
) -> Alignment:
    """Return relative representations: the common coordinates of a row are its cosines to the anchors.

    References
    ----------
    Moschella et al. (2023), "Relative representations enable zero-shot latent space communication", equation 2.
    """
    check_anchors(anchors, len(source_rows), len(target_rows))
    source_mean, target_mean = source_rows.mean(axis=0), target_rows.mean(axis=0)
    return Alignment(
        source_mean,
        target_mean,
        _unit(source_rows[anchors.source] - source_mean).T,
        _unit(target_rows[anchors.target] - target_mean).T,
    )


def _unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300))


_BLOCK_ROWS = 1024


def partner_ranks(
    alignment: Alignment,
    source_rows: Float[np.ndarray, "source_points source_features"],
    target_rows: Float[np.ndarray, "known target_features"],
    partners: Int[np.ndarray, " known"],
) -> Float[np.ndarray, " known"]:
    """Return, for each target row, the rank from 1 of its ``partners`` row among all source rows; ties count as ahead.

    1/rank, averaged, is the mean reciprocal rank; the share of ranks 1 is the accuracy.

    Parameters
    ----------
    alignment
        Linear maps of both spaces into common coordinates.
    source_rows
        Rows to be found.
    target_rows
        Rows that search.
    partners
        Row of ``source_rows`` that is the partner of each target row.

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
        partner_scores = scores[np.arange(len(scores)), partners[block]]
        ranks[block] = (scores >= partner_scores[:, None]).sum(axis=1)
    return ranks
