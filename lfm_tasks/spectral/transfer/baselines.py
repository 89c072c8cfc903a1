"""The baselines a functional map has to stand beside: Procrustes, Procrustes + ICP, relative representations."""

import numpy as np
from jaxtyping import Float, Int

from lfm_tasks.spectral.maps.anchors import Anchors, check_anchors
from lfm_tasks.spectral.transfer.alignment import Alignment, fit_coordinates, similarities


def fit_procrustes(
    source_rows: Float[np.ndarray, "source_points source_features"],
    target_rows: Float[np.ndarray, "target_points target_features"],
    anchors: Anchors,
) -> Alignment:
    """Return the orthogonal map fitted on the anchors; both spaces are centred by all of their rows."""
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
