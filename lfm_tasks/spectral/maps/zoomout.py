"""ZoomOut: a small functional map grown mode by mode, points and map in turn."""

import numpy as np
from jaxtyping import Float, Int

from lfm_tasks.reasons import ReasonError
from lfm_tasks.spectral.bases.eigenbasis import Basis
from lfm_tasks.spectral.maps.decoding import Embedding, nearest_points, scaled_rows


def zoomout(
    start: Float[np.ndarray, "low_target low_source"],
    source: Basis,
    target: Basis,
    *,
    step: int = 1,
    n_samples: int = 1000,
    adjoint: bool = False,
    n_final: int = 1,
    target_weights: Float[np.ndarray, " target_points"] | None = None,
) -> Float[np.ndarray, "target source"]:
    """Return the map grown from ``start`` to all modes of both bases.

    Alternates T ← nearest rows of Φ_x Cᵀ to the rows of Φ_y (target → source), C ← least squares Φ_y⁺ Φ_x[T], with
    ``step`` more modes each time, and ``n_final`` more rounds with all of them. Bases are scaled by √n. ``n_samples``
    farthest-point samples stand for each space. ``adjoint`` searches among Φ_x with Φ_y C instead. ``target_weights``
    (the points' areas, on a mesh) weigh the least squares.

    Raises
    ------
    ReasonError
        ``too_few_points`` if ``start`` is larger than a basis, or the samples do not determine it.

    References
    ----------
    Melzi et al. (2019), "ZoomOut: spectral upsampling for efficient shape correspondence", section 4; adjoint: Huang,
    Ovsjanikov (2017), "Adjoint map representation for shape analysis and matching".
    """
    n_target, n_source = target.eigenvectors.shape[1], source.eigenvectors.shape[1]
    both = (scaled_rows(source, n_source), scaled_rows(target, n_target))
    source_samples, target_samples = (farthest_points(rows, n_samples) for rows in both)
    source_rows, target_rows = both[0][source_samples], both[1][target_samples]
    weights = None if target_weights is None else target_weights[target_samples]
    if len(target_rows) < n_target or start.shape[0] > n_target or start.shape[1] > n_source:
        raise ReasonError(
            "too_few_points",
            f"found {len(target_rows)} samples and a start of {start.shape} for {n_target} × {n_source} modes: "
            "raise n_samples, or start smaller",
        )
    current = start
    for low_target, low_source in _sizes(start.shape, (n_target, n_source), step, n_final):
        matches = _matches(current, source_rows, target_rows, adjoint=adjoint)
        current = map_of_points(matches, source_rows[:, :low_source], target_rows[:, :low_target], weights=weights)
    return current


def _sizes(start: tuple[int, ...], full: tuple[int, int], step: int, n_final: int) -> list[tuple[int, int]]:
    """Return the sizes of the map, one a round, from the first after ``start`` on."""
    sizes = []
    low = (start[0], start[1])
    while low != full:
        low = (min(low[0] + step, full[0]), min(low[1] + step, full[1]))
        sizes.append(low)
    return sizes + [full] * n_final


def map_of_points(
    matches: Int[np.ndarray, " target_points"],
    source_rows: Float[np.ndarray, "source_points source"],
    target_rows: Float[np.ndarray, "target_points target"],
    *,
    weights: Float[np.ndarray, " target_points"] | None = None,
) -> Float[np.ndarray, "target source"]:
    """Return the C that minimises ‖Φ_y C − Φ_x[T]‖² (rows times ``weights``) for the point map T, target → source."""
    weighted = target_rows if weights is None else weights[:, None] * target_rows
    return np.linalg.solve(weighted.T @ target_rows, weighted.T @ source_rows[matches])


def farthest_points(rows: Float[np.ndarray, "points features"], n_samples: int) -> Int[np.ndarray, " samples"]:
    """Return the rows of a farthest-point sample, all of them in order if there are no more than ``n_samples``.

    Starts at the row farthest from the mean; every next one is the farthest from all before; ties by the lower row.
    """
    if len(rows) <= n_samples:
        return np.arange(len(rows))
    squares = np.einsum("ij,ij->i", rows, rows)
    chosen = np.empty(n_samples, dtype=np.int64)
    distances = np.full(len(rows), np.inf)
    chosen[0] = np.square(rows - rows.mean(axis=0)).sum(axis=1).argmax()
    for position in range(1, n_samples):
        latest = chosen[position - 1]
        np.minimum(distances, squares + squares[latest] - 2 * (rows @ rows[latest]), out=distances)
        chosen[position] = distances.argmax()
    return np.sort(chosen)


def _matches(
    current: Float[np.ndarray, "target source"],
    source_rows: Float[np.ndarray, "source_points all_source"],
    target_rows: Float[np.ndarray, "target_points all_target"],
    *,
    adjoint: bool,
) -> Int[np.ndarray, " target_points"]:
    n_target, n_source = current.shape
    source_low, target_low = source_rows[:, :n_source], target_rows[:, :n_target]
    if adjoint:
        return nearest_points(Embedding(source_low, target_low @ current))
    return nearest_points(Embedding(source_low @ current.T, target_low))
