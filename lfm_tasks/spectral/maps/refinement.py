"""A functional map grown from several starts by ZoomOut; the one that fits best is kept."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from lfm_tasks.reasons import ReasonError
from lfm_tasks.spectral.bases.eigenbasis import Basis
from lfm_tasks.spectral.bases.map_scores import commutativity_error, orthogonality_error
from lfm_tasks.spectral.bases.space import SpectralSpace
from lfm_tasks.spectral.maps.closed_form import describe
from lfm_tasks.spectral.maps.decoding import Embedding, embed, nearest_points, scaled_rows
from lfm_tasks.spectral.maps.descriptor_commutativity import descriptor_operators, fit_commuting_map
from lfm_tasks.spectral.maps.descriptors import unit_descriptors
from lfm_tasks.spectral.maps.zoomout import farthest_points, zoomout

Descriptor = Literal["heat", "geodesic", "cosine", "labels", "heat signature", "wave signature"]
# The points of source and target differ in number, so the dimension has no name here.
Functions = Float[np.ndarray, "_ descriptors"]


@dataclass(frozen=True)
class Start:
    """What a first map is made of: which descriptors, and how many low modes they are asked to fix."""

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
    """A map, its points T (target → source), what tells its quality without labels, and its start.

    ``matches`` are the source rows of the target's ``rows`` (all of them, unless few were asked for). ``residual`` is
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


def grow_best(
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
    ReasonError
        That of the last start left out if all were; ``too_few_points`` if the samples do not determine the map.
    """
    fits, refused = [], None
    for start in starts:
        try:
            low = first_map(source.basis, target.basis, functions(start), start.n_eigenpairs)
        except ReasonError as error:
            if error.reason not in {"zero_rows", "constant"}:
                raise
            refused = error
            continue
        fits.append(_grown(low, source.basis, target.basis, start, effort))
    if refused is not None and not fits:
        raise refused
    return min(fits, key=lambda fit: fit.residual)


def first_map(
    source: Basis, target: Basis, functions: tuple[Functions, Functions], n_eigenpairs: int
) -> Float[np.ndarray, "target source"]:
    """Return the C that minimises ‖CA − B‖² + α Σ C_ij² M_ij + β Σ_l ‖C S_l^x − S_l^y C‖² on the low modes.

    ``functions`` are made unit descriptors; resolvent mask, β = 0.1.
    """
    n_low = min(n_eigenpairs, len(source.eigenvalues), len(target.eigenvalues))
    described, operators = [], []
    for basis, values in zip((source, target), functions, strict=True):
        units = unit_descriptors(basis, values)
        low = Basis(basis.eigenvalues[:n_low], basis.eigenvectors[:, :n_low], np.nan)
        described.append(describe(low, units))
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
