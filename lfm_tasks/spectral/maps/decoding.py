"""Points from functional maps: the source point of every target point, and where two spaces differ."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from lfm_tasks.errors import DataError
from lfm_tasks.spectral.bases.eigenbasis import Basis

_BLOCK_ROWS = 1024


@dataclass(frozen=True)
class Embedding:
    """Rows of both spaces in one set of coordinates: near means alike."""

    source: Float[np.ndarray, "source_points modes"]
    target: Float[np.ndarray, "target_points modes"]


def embed(
    functional_map: Float[np.ndarray, "target source"], source: Basis, target: Basis, *, adjoint: bool = False
) -> Embedding:
    """Return √n_x Φ_x Cᵀ beside √n_y Φ_y; with ``adjoint`` √n_x Φ_x beside √n_y Φ_y C.

    C may be smaller than the bases: the low modes are taken. The √n make spaces of different size comparable.

    Parameters
    ----------
    functional_map
        C (target eigenpairs, source eigenpairs).
    source
        Basis of the source; at least as many eigenpairs as C has columns.
    target
        Basis of the target; at least as many eigenpairs as C has rows.
    adjoint
        Whether to carry the target's rows to the source instead.

    Raises
    ------
    DataError
        ``too_few_points`` if a basis has fewer eigenpairs than C.
    """
    n_target, n_source = functional_map.shape
    source_rows = scaled_rows(source, n_source)
    target_rows = scaled_rows(target, n_target)
    if adjoint:
        return Embedding(source_rows, target_rows @ functional_map)
    return Embedding(source_rows @ functional_map.T, target_rows)


def scaled_rows(basis: Basis, n_eigenpairs: int) -> Float[np.ndarray, "points modes"]:
    """Return √n Φ of the first eigenpairs: entries of size 1, whatever n."""
    n_points, n_held = basis.eigenvectors.shape
    if n_eigenpairs > n_held:
        raise DataError(
            "too_few_points", f"got {n_held} eigenpairs, expected {n_eigenpairs} for the map. Raise n_eigenpairs"
        )
    return np.sqrt(n_points) * basis.eigenvectors[:, :n_eigenpairs]


def nearest_points(embedding: Embedding) -> Int[np.ndarray, " target_points"]:
    """Return T, target → source: the nearest source row of every target row; ties by the lower row.

    Pairs for a coordinate map are (source[T], target), not (source, target[T]).

    Parameters
    ----------
    embedding
        Rows of both spaces in common coordinates, as `embed` returns them.

    Examples
    --------
    >>> nearest_points(Embedding(np.array([[0.0], [5.0], [9.0]]), np.array([[8.0], [1.0]]))).tolist()
    [2, 0]
    """
    squares = np.einsum("ij,ij->i", embedding.source, embedding.source)
    nearest = np.empty(len(embedding.target), dtype=np.int64)
    for start in range(0, len(nearest), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        distances = (-2 * embedding.target[block]) @ embedding.source.T
        distances += squares
        nearest[block] = distances.argmin(axis=1)
    return nearest


def sinkhorn_plan(
    embedding: Embedding, *, sharpness: float = 200.0, n_rounds: int = 50, slack: float = 0.0
) -> Float[np.ndarray, "target_points source_points"]:
    """Return the transport plan from target to source rows; every target row sums to 1.

    Scales exp(−``sharpness`` d/d_max), d the distances, so that target rows sum to 1 and source columns to at most
    ``1 + slack``: a source point without a partner may stay empty (unbalanced), which is needed where the sets
    differ. With more target than source rows the columns may hold n_y/n_x each.

    Parameters
    ----------
    embedding
        Rows of both spaces in common coordinates, as `embed` returns them.
    sharpness
        Inverse temperature in units of 1/(largest distance), > 0: higher is closer to nearest neighbors.
    n_rounds
        Rounds of normalization, ≥ 1.
    slack
        Share by which a source row may hold more than its part, ≥ 0.

    References
    ----------
    Cuturi (2013), "Sinkhorn distances"; Pai et al. (2021), "Fast Sinkhorn filters", section 4.
    """
    distances = np.sqrt(_squared_distances(embedding))
    logs = -sharpness * distances / max(float(distances.max()), np.finfo(np.float64).tiny)
    kernel = np.exp(logs - logs.max(axis=1, keepdims=True))
    capacity = max(1.0, len(kernel) / kernel.shape[1]) * (1 + slack)
    columns = np.ones(kernel.shape[1])
    for _ in range(n_rounds):
        rows = 1 / np.maximum(kernel @ columns, 1e-300)
        load = rows @ kernel
        columns = np.minimum(1.0, capacity / np.maximum(load, 1e-300))
    rows = 1 / np.maximum(kernel @ columns, 1e-300)
    return rows[:, None] * kernel * columns


def _squared_distances(embedding: Embedding) -> Float[np.ndarray, "target_points source_points"]:
    source_squares = np.einsum("ij,ij->i", embedding.source, embedding.source)
    target_squares = np.einsum("ij,ij->i", embedding.target, embedding.target)
    products = embedding.target @ embedding.source.T
    return np.maximum(source_squares + target_squares[:, None] - 2 * products, 0)


def target_distortion(
    functional_map: Float[np.ndarray, "target source"], target: Basis, *, n_vectors: int | None = None
) -> Float[np.ndarray, " target_points"]:
    """Return, for every target point, n Σ_k (1 − σ_k²) (Φ_y u_k)²/K ≥ 0: large where the source sees it differently.

    σ_k and u_k are singular values and left singular vectors of C, which live on the target; values above 1 count as
    1. ``n_vectors`` takes only those with the smallest σ. Without it, and for the full map, the mean over the points
    is 1 − ‖C‖²/K.

    References
    ----------
    Fumero et al. (2024), "Latent Functional Maps", section 4.3; Ovsjanikov et al. (2013), "Analysis and visualization
    of maps between shapes", section 3.
    """
    left, singular, _ = np.linalg.svd(functional_map, full_matrices=True)
    return _distortion(scaled_rows(target, functional_map.shape[0]) @ left, singular, n_vectors)


def source_distortion(
    functional_map: Float[np.ndarray, "target source"], source: Basis, *, n_vectors: int | None = None
) -> Float[np.ndarray, " source_points"]:
    """Return n Σ_k (1 − σ_k²) (Φ_x v_k)²/K ≥ 0 for every source point: large where the map loses what the source has.

    σ_k and v_k are singular values and right singular vectors of C; otherwise as `target_distortion`.
    """
    return target_distortion(np.ascontiguousarray(functional_map.T), source, n_vectors=n_vectors)


def _distortion(
    functions: Float[np.ndarray, "points vectors"], singular: Float[np.ndarray, " smaller"], n_vectors: int | None
) -> Float[np.ndarray, " points"]:
    n_modes = functions.shape[1]
    # Vectors beyond the smaller side are not reached at all.
    lost = 1 - np.minimum(np.concatenate([singular, np.zeros(n_modes - len(singular))]), 1) ** 2
    first = 0 if n_vectors is None else max(0, n_modes - n_vectors)
    return functions[:, first:] ** 2 @ lost[first:] / n_modes
