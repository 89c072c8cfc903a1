"""ZoomOut: functional maps grown from a small start to all modes, from several starts, the best one kept."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from lfm_tasks.errors import DataError
from lfm_tasks.spectral.bases.eigenbasis import Basis
from lfm_tasks.spectral.bases.full_map import commutativity_error, orthogonality_error
from lfm_tasks.spectral.bases.space import SpectralSpace
from lfm_tasks.spectral.maps.closed_form import descriptor_operators, fit_commuting_map, project_descriptors
from lfm_tasks.spectral.maps.decoding import Embedding, embed, nearest_points, scaled_rows
from lfm_tasks.spectral.maps.descriptors import unit_descriptors


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

    Parameters
    ----------
    start
        The map between low modes to grow from.
    source
        Basis of the source.
    target
        Basis of the target.
    step
        Modes added a round, ≥ 1.
    n_samples
        Farthest-point samples of each space.
    adjoint
        Whether to search among Φ_x with Φ_y C.
    n_final
        More rounds with all modes.
    target_weights
        Areas of the target's points on a mesh, > 0; None: all alike.

    Raises
    ------
    DataError
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
        raise DataError(
            "too_few_points",
            f"got {len(target_rows)} samples and a start of {start.shape} for {n_target} × {n_source} modes. "
            "Raise n_samples, or start smaller",
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
    """Return the C that minimizes ‖Φ_y C − Φ_x[T]‖² (rows times ``weights``) for the point map T, target → source."""
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


Descriptor = Literal["heat", "geodesic", "cosine", "labels", "heat signature", "wave signature"]
# The points of source and target differ in number, so the dimension has no name here.
Functions = Float[np.ndarray, "_ descriptors"]


@dataclass(frozen=True)
class Start:
    """The start of a fit: which descriptors, and how many low modes they determine."""

    descriptor: Descriptor
    n_eigenpairs: int


@dataclass(frozen=True)
class Effort:
    """How many farthest-point samples ZoomOut works on, modes a round, target points matched in the end (None: all)."""

    n_samples: int = 2000
    step: int = 2
    n_matched: int | None = None


FULL_EFFORT = Effort()


@dataclass(frozen=True)
class MapFit:
    """A map, its points T (target → source), measures of its quality that need no labels, and its start.

    ``matches`` are the source rows of the target's ``rows`` (all of them, or as many as `Effort` says). ``residual`` is
    the mean distance between these and their images; ``orthogonality_error`` ‖CᵀC − I‖²/K; ``commutativity_error``
    ‖Λ_y C − C Λ_x‖²/‖C‖²: all ≥ 0, 0 for an isometry.
    """

    functional_map: Float[np.ndarray, "target source"]
    rows: Int[np.ndarray, " matched"]
    matches: Int[np.ndarray, " matched"]
    residual: float
    orthogonality_error: float
    commutativity_error: float
    start: Start


def refine_best(
    source: SpectralSpace,
    target: SpectralSpace,
    starts: Sequence[Start],
    functions: Callable[[Start], tuple[Functions, Functions]],
    effort: Effort,
) -> MapFit:
    """Return the map of the start whose grown map has the smallest residual.

    ``functions`` gives the descriptors of a start, of the source and of the target, in one order. A start whose
    descriptors do not exist (zero rows, constant ones) is left out.

    Raises
    ------
    DataError
        The error of the last start if none has descriptors; ``too_few_points`` if the samples do not determine the map.
    """
    fits, last_error = [], None
    for start in starts:
        try:
            low = first_map(source.basis, target.basis, functions(start), start.n_eigenpairs)
        except DataError as error:
            if error.reason not in {"zero_rows", "constant"}:
                raise
            last_error = error
            continue
        fits.append(_grown(low, source.basis, target.basis, start, effort))
    if last_error is not None and not fits:
        raise last_error
    return min(fits, key=lambda fit: fit.residual)


def first_map(
    source: Basis, target: Basis, functions: tuple[Functions, Functions], n_eigenpairs: int
) -> Float[np.ndarray, "target source"]:
    """Return the C that minimizes ‖CA − B‖² + α Σ C_ij² M_ij + β Σ_l ‖C S_l^x − S_l^y C‖² on the low modes.

    ``functions`` are made unit descriptors; resolvent mask, β = 0.1.
    """
    n_low = min(n_eigenpairs, len(source.eigenvalues), len(target.eigenvalues))
    described, operators = [], []
    for basis, values in zip((source, target), functions, strict=True):
        units = unit_descriptors(basis, values)
        low = Basis(basis.eigenvalues[:n_low], basis.eigenvectors[:, :n_low], np.nan)
        described.append(project_descriptors(low, units))
        operators.append(descriptor_operators(low, units))
    return fit_commuting_map(described[0], described[1], (operators[0], operators[1]))


def map_residual(embedding: Embedding) -> tuple[float, Int[np.ndarray, " target_points"]]:
    """Return the mean distance of a target row to its nearest source row, and which that is."""
    matches = nearest_points(embedding)
    apart = embedding.source[matches] - embedding.target
    return float(np.sqrt(np.einsum("ij,ij->i", apart, apart)).mean()), matches


def _grown(
    low: Float[np.ndarray, "low_target low_source"], source: Basis, target: Basis, start: Start, effort: Effort
) -> MapFit:
    functional_map = zoomout(low, source, target, step=effort.step, n_samples=effort.n_samples)
    embedding = embed(functional_map, source, target)
    rows = np.arange(len(embedding.target))
    if effort.n_matched is not None:
        rows = farthest_points(scaled_rows(target, target.eigenvectors.shape[1]), effort.n_matched)
    residual, matches = map_residual(Embedding(embedding.source, embedding.target[rows]))
    return MapFit(
        functional_map,
        rows,
        matches,
        residual,
        float(orthogonality_error(functional_map)),
        float(commutativity_error(functional_map, source.eigenvalues, target.eigenvalues)),
        start,
    )
