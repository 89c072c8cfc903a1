"""The functional map from a few anchors."""

import numpy as np
from jaxtyping import Int

from lfm_tasks.spectral.bases.space import SpectralSpace
from lfm_tasks.spectral.maps.anchors import Anchors, check_anchors
from lfm_tasks.spectral.maps.descriptors import cosine_descriptors, geodesic_descriptors, landmark_heat_descriptors
from lfm_tasks.spectral.maps.refinement import FULL_EFFORT, Descriptor, Effort, Functions, MapFit, Start, grow_best

_KINDS: tuple[Descriptor, ...] = ("heat", "geodesic", "cosine")
# No single start is right for all spaces: from 5 anchors each of them finds the true map in some, none in all.
STARTS = tuple(Start(descriptor, n) for descriptor in _KINDS for n in (10, 20, 30))


def fit_from_anchors(
    source: SpectralSpace,
    target: SpectralSpace,
    anchors: Anchors,
    *,
    starts: tuple[Start, ...] = STARTS,
    effort: Effort = FULL_EFFORT,
) -> MapFit:
    """Return the functional map that a few known pairs lead to.

    Every start fits the anchors' descriptors on a few low modes (`first_map`) and grows by ZoomOut to a fixed point
    that depends on the anchors no more. The one with the smallest residual is kept: that needs no labels, and tells
    the true map from the others by a wide margin. ZoomOut needs many samples here: with 600 of 2,000 points nearly all
    starts fail from 5 anchors, with all of them one succeeds.

    Raises
    ------
    ReasonError
        ``few_anchors`` or ``bad_anchors``; ``too_few_points`` if the samples do not determine a map of this size.

    References
    ----------
    Fumero et al. (2024), "Latent Functional Maps", equation 2; Melzi et al. (2019), "ZoomOut".
    """
    check_anchors(anchors, len(source), len(target))

    def functions(start: Start) -> tuple[Functions, Functions]:
        return (
            _describe(source, anchors.source, start.descriptor),
            _describe(target, anchors.target, start.descriptor),
        )

    return grow_best(source, target, starts, functions, effort)


def _describe(space: SpectralSpace, rows: Int[np.ndarray, " anchors"], descriptor: Descriptor) -> Functions:
    if descriptor == "heat":
        return landmark_heat_descriptors(space.basis, rows)
    if descriptor == "geodesic":
        return geodesic_descriptors(space.neighbours, rows)
    if descriptor == "cosine":
        return cosine_descriptors(space.activations, rows)
    raise ValueError(f"found the descriptor {descriptor!r}, needs one of {', '.join(_KINDS)}")
