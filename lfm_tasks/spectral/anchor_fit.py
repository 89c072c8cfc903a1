"""The functional map from a few anchors: several starts, each grown by ZoomOut, the one that fits best is kept."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from lfm_tasks.reasons import ReasonError
from lfm_tasks.spectral.anchor_map import describe
from lfm_tasks.spectral.anchors import Anchors, check_anchors
from lfm_tasks.spectral.basis import Basis
from lfm_tasks.spectral.decoding import Embedding, embed, nearest_points
from lfm_tasks.spectral.descriptor_commutativity import descriptor_operators, fit_commuting_map
from lfm_tasks.spectral.descriptors import (
    cosine_descriptors,
    geodesic_descriptors,
    landmark_heat_descriptors,
    unit_descriptors,
)
from lfm_tasks.spectral.space import SpectralSpace
from lfm_tasks.spectral.zoomout import zoomout

Descriptor = Literal["heat", "geodesic", "cosine"]


@dataclass(frozen=True)
class Start:
    """What a first map is made of: descriptors of the anchors, and how many low modes they are asked to fix."""

    descriptor: Descriptor
    n_eigenpairs: int


# No single start is right for all spaces: from 5 anchors each of them finds the true map in some, none in all.
STARTS = tuple(Start(descriptor, n) for descriptor in ("heat", "geodesic", "cosine") for n in (10, 20, 30))


@dataclass(frozen=True)
class AnchorFit:
    """A map, its points T (target → source), the mean distance between target rows and their images, and its start."""

    functional_map: Float[np.ndarray, "target source"]
    matches: Int[np.ndarray, " target_points"]
    residual: float
    start: Start


def fit_from_anchors(
    source: SpectralSpace,
    target: SpectralSpace,
    anchors: Anchors,
    *,
    starts: tuple[Start, ...] = STARTS,
    n_samples: int = 2000,
    step: int = 2,
) -> AnchorFit:
    """Return the functional map that a few known pairs lead to.

    Every start minimises ‖CA − B‖² + α Σ C_ij² M_ij + β Σ_l ‖C S_l^x − S_l^y C‖² on a few low modes (β = 0.1, resolvent
    mask) and grows by ZoomOut to a fixed point that depends on the anchors no more. The one with the smallest residual
    is kept: that needs no labels, and tells the true map from the others by a wide margin. ZoomOut needs many samples
    here: with 600 of 2,000 points nearly all starts fail from 5 anchors, with all of them one succeeds.

    Raises
    ------
    ReasonError
        ``few_anchors`` or ``bad_anchors``; ``too_few_points`` if the samples do not determine a map of this size.

    References
    ----------
    Fumero et al. (2024), "Latent Functional Maps", equation 2; Melzi et al. (2019), "ZoomOut".
    """
    check_anchors(anchors, len(source), len(target))
    fits, refused = [], None
    for start in starts:
        try:
            low = first_map(source, target, anchors, start)
        except ReasonError as error:
            # Descriptors of one kind may not exist (zero rows, constant ones); those of another may.
            if error.reason not in {"zero_rows", "constant"}:
                raise
            refused = error
            continue
        functional_map = zoomout(low, source.basis, target.basis, step=step, n_samples=n_samples)
        residual, matches = map_residual(embed(functional_map, source.basis, target.basis))
        fits.append(AnchorFit(functional_map, matches, residual, start))
    if refused is not None and not fits:
        raise refused
    return min(fits, key=lambda fit: fit.residual)


def first_map(
    source: SpectralSpace, target: SpectralSpace, anchors: Anchors, start: Start
) -> Float[np.ndarray, "target source"]:
    """Return the map on the low modes of ``start``, fitted to the anchors' descriptors."""
    n_low = min(start.n_eigenpairs, len(source.basis.eigenvalues), len(target.basis.eigenvalues))
    described, operators = [], []
    for space, rows in ((source, anchors.source), (target, anchors.target)):
        functions = unit_descriptors(space.basis, _describe(space, rows, start.descriptor))
        low = Basis(space.basis.eigenvalues[:n_low], space.basis.eigenvectors[:, :n_low], np.nan)
        described.append(describe(low, functions))
        operators.append(descriptor_operators(low, functions))
    return fit_commuting_map(described[0], described[1], (operators[0], operators[1]))


def map_residual(embedding: Embedding) -> tuple[float, Int[np.ndarray, " target_points"]]:
    """Return the mean distance of a target row to its nearest source row, and which that is."""
    matches = nearest_points(embedding)
    apart = embedding.source[matches] - embedding.target
    return float(np.sqrt(np.einsum("ij,ij->i", apart, apart)).mean()), matches


def _describe(
    space: SpectralSpace, rows: Int[np.ndarray, " anchors"], descriptor: Descriptor
) -> Float[np.ndarray, "points descriptors"]:
    if descriptor == "heat":
        return landmark_heat_descriptors(space.basis, rows)
    if descriptor == "geodesic":
        return geodesic_descriptors(space.neighbours, rows)
    return cosine_descriptors(space.activations, rows)
