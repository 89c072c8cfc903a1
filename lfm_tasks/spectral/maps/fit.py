"""Functional maps fitted from anchor pairs, from class labels, or from nothing."""

import numpy as np
from jaxtyping import Int

from lfm_tasks.spectral.bases.space import SpectralSpace
from lfm_tasks.spectral.maps.descriptors import (
    Anchors,
    check_anchors,
    cosine_descriptors,
    geodesic_descriptors,
    heat_signatures,
    label_descriptors,
    landmark_heat_descriptors,
    wave_signatures,
)
from lfm_tasks.spectral.maps.refinement import FULL_EFFORT, Descriptor, Effort, Functions, MapFit, Start, refine_best
from lfm_tasks.spectral.neighbors.centering import from_center

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
    """Return the functional map fitted from a few known pairs.

    Every start fits the anchors' descriptors on a few low modes (`first_map`) and grows by ZoomOut to a fixed point
    that depends on the anchors no more. The one with the smallest residual is kept: that needs no labels, and tells
    the true map from the others by a wide margin. ZoomOut needs many samples here: with 600 of 2,000 points nearly all
    starts fail from 5 anchors, with all of them one succeeds.

    Parameters
    ----------
    source
        Source space.
    target
        Target space; its points may be others, in any order and number.
    anchors
        Rows of both that are one point; two or more.
    starts
        Descriptors and numbers of low modes to start from; the best fit of all is returned.
    effort
        Samples and steps of ZoomOut.

    Raises
    ------
    DataError
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

    return refine_best(source, target, starts, functions, effort)


def _describe(space: SpectralSpace, rows: Int[np.ndarray, " anchors"], descriptor: Descriptor) -> Functions:
    if descriptor == "heat":
        return landmark_heat_descriptors(space.basis, rows)
    if descriptor == "geodesic":
        return geodesic_descriptors(space.neighbors, rows)
    if descriptor == "cosine":
        return cosine_descriptors(from_center(space.activations, space.center), rows)
    raise ValueError(f"got the descriptor {descriptor!r}, expected one of {', '.join(_KINDS)}")


LABEL_STARTS = tuple(Start("labels", n) for n in (10, 20, 30))
SIGNATURE_STARTS = tuple(Start(kind, n) for kind in ("heat signature", "wave signature") for n in (10, 20, 30))


def fit_from_labels(
    source: SpectralSpace,
    target: SpectralSpace,
    source_labels: Int[np.ndarray, " source_points"],
    target_labels: Int[np.ndarray, " target_points"],
    *,
    starts: tuple[Start, ...] = LABEL_STARTS,
    effort: Effort = FULL_EFFORT,
) -> MapFit:
    """Return the functional map fitted from the classes of the points; the classes that both spaces have count.

    Classes say where a point belongs, not which one it is: expect the class of most points to be right, the point
    itself only as far as the shapes of the spaces determine it.

    Parameters
    ----------
    source
        Source space.
    target
        Target space.
    source_labels
        Class of each source point.
    target_labels
        Class of each target point, by the same numbers.
    starts
        Descriptors and numbers of low modes to start from; the best fit of all is returned.
    effort
        Samples and steps of ZoomOut.

    Raises
    ------
    DataError
        ``one_class`` for fewer than two common classes; ``too_few_points`` as `refine_best`.
    """
    for space, labels, side in ((source, source_labels, "source"), (target, target_labels, "target")):
        if len(labels) != len(space):
            raise ValueError(f"got {len(labels)} labels for {len(space)} {side} points, expected one each")
    classes = np.intersect1d(source_labels, target_labels)
    functions = (
        label_descriptors(source.graph, source_labels, classes=classes),
        label_descriptors(target.graph, target_labels, classes=classes),
    )
    return refine_best(source, target, starts, lambda _: functions, effort)


def fit_unsupervised(
    source: SpectralSpace,
    target: SpectralSpace,
    *,
    starts: tuple[Start, ...] = SIGNATURE_STARTS,
    effort: Effort = FULL_EFFORT,
) -> MapFit:
    """Return the functional map fitted from heat and wave kernel signatures: weak, to be read with its residual.

    Signatures cannot tell apart what a symmetry of a space exchanges. They find the points between copies, and between
    two seeds of one architecture nearly as many as five anchors do; between layers or networks that differ, nothing.

    Parameters
    ----------
    source
        Source space.
    target
        Target space.
    starts
        Signatures and numbers of low modes to start from; the best fit of all is returned.
    effort
        Samples and steps of ZoomOut.

    Raises
    ------
    DataError
        ``too_few_points`` for fewer than three eigenpairs, or as `refine_best`.
    """
    signatures = {"heat signature": heat_signatures, "wave signature": wave_signatures}

    def functions(start: Start) -> tuple[Functions, Functions]:
        signature = signatures[start.descriptor]
        return signature(source.basis), signature(target.basis)

    return refine_best(source, target, starts, functions, effort)
