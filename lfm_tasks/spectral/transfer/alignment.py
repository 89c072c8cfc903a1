"""Carrying data from one space to another: functions by the map, coordinates by a linear map between the rows."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from lfm_tasks.reasons import ReasonError
from lfm_tasks.spectral.bases.eigenbasis import Basis
from lfm_tasks.spectral.maps.decoding import scaled_rows

Method = Literal["orthogonal", "ridge", "affine"]


@dataclass(frozen=True)
class Alignment:
    """Two linear maps into one set of coordinates, (x − mean_x) W_x and (y − mean_y) W_y.

    The angle between a source and a target row in these coordinates says how alike the two are.

    Without ``target_matrix`` the coordinates are the target's own, y − mean_y.
    """

    source_mean: Float[np.ndarray, " source_features"]
    target_mean: Float[np.ndarray, " target_features"]
    source_matrix: Float[np.ndarray, "source_features common"]
    target_matrix: Float[np.ndarray, "target_features common"] | None = None


def transfer_function(
    functional_map: Float[np.ndarray, "target source"],
    source: Basis,
    target: Basis,
    values: Float[np.ndarray, "source_points functions"],
) -> Float[np.ndarray, "target_points functions"]:
    """Return √n_y Φ_y C Φ_xᵀ f/√n_x: functions on the source points as functions on the target points.

    What the low modes of either basis cannot carry is lost. Works for any two sizes; the √n keep the values' scale.
    """
    n_target, n_source = functional_map.shape
    coefficients = scaled_rows(source, n_source).T @ values / len(values)
    return scaled_rows(target, n_target) @ (functional_map @ coefficients)


def fit_coordinates(
    source_rows: Float[np.ndarray, "pairs source_features"],
    target_rows: Float[np.ndarray, "pairs target_features"],
    *,
    method: Method,
    ridge: float = 0.01,
) -> Alignment:
    """Return the map of coordinates that carries row i of the source to row i of the target.

    For a point map T, target → source, the pairs are (source[T], target).

    - ``orthogonal``: s U Vᵀ from UΣVᵀ = X_cᵀ Y_c, s = tr Σ/‖X_c‖² (centred Procrustes; unequal widths as if padded
      with zeros);
    - ``ridge``: (X_cᵀX_c + r I)⁻¹ X_cᵀY_c, r = ``ridge`` × trace(X_cᵀX_c)/features;
    - ``affine``: plain least squares, which collapses when there are about as many pairs as features.

    Raises
    ------
    ReasonError
        ``few_anchors`` for fewer than two pairs; ``constant`` if all rows of a side are equal.

    Examples
    --------
    >>> rows = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    >>> turned = fit_coordinates(rows, rows @ np.array([[0.0, 1.0], [-1.0, 0.0]]), method="orthogonal")
    >>> (transfer_coordinates(turned, np.array([[3.0, 0.0]])) + 0.0).round(6).tolist()
    [[0.0, 3.0]]
    """
    if len(source_rows) < 2:
        raise ReasonError("few_anchors", f"found {len(source_rows)} pairs, needs at least 2: give more known pairs")
    source_mean, target_mean = source_rows.mean(axis=0), target_rows.mean(axis=0)
    centred, images = source_rows - source_mean, target_rows - target_mean
    if not (centred.any() and images.any()):
        raise ReasonError("constant", "found pairs that are all one point: give distinct ones")
    matrix = _FITS[method](centred, images, ridge)
    return Alignment(source_mean, target_mean, matrix)


def transfer_coordinates(
    alignment: Alignment, rows: Float[np.ndarray, "points source_features"]
) -> Float[np.ndarray, "points target_features"]:
    """Return the rows in the target's coordinates, (x − mean_x) W_x W_y⁺ + mean_y: in the sample or out of it."""
    direct = direct_map(alignment)
    return (rows - direct.source_mean) @ direct.source_matrix + direct.target_mean


def direct_map(alignment: Alignment) -> Alignment:
    """Return the same way from the source to the target's own coordinates, without a ``target_matrix``: W_x W_y⁺."""
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


def _orthogonal(centred: np.ndarray, images: np.ndarray, ridge: float) -> np.ndarray:
    left, singular, right = np.linalg.svd(centred.T @ images, full_matrices=False)
    return np.asarray((left @ right) * (singular.sum() / np.einsum("ij,ij->", centred, centred)))


def _ridge(centred: np.ndarray, images: np.ndarray, ridge: float) -> np.ndarray:
    gram = centred.T @ centred
    strength = ridge * np.trace(gram) / len(gram)
    return np.linalg.solve(gram + strength * np.eye(len(gram)), centred.T @ images)


def _affine(centred: np.ndarray, images: np.ndarray, ridge: float) -> np.ndarray:
    return np.asarray(np.linalg.lstsq(centred, images, rcond=None)[0])


def _directions(centred: np.ndarray, matrix: np.ndarray | None) -> np.ndarray:
    narrow = centred.astype(np.float32)
    if matrix is not None:
        narrow = narrow @ matrix.astype(np.float32)
    return np.asarray(narrow / np.maximum(np.linalg.norm(narrow, axis=1, keepdims=True), np.float32(1e-30)))


_FITS = {"orthogonal": _orthogonal, "ridge": _ridge, "affine": _affine}
