"""How a basis is made: its graph, the neighbor search, its landmarks."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped

from lfm_tasks.config import AtlasConfig, GraphConfig
from lfm_tasks.errors import DataError
from lfm_tasks.spectral.bases.eigenbasis import Basis, BasisQuality, basis_quality, spectral_basis
from lfm_tasks.spectral.bases.graph import affinity_graph, join_components
from lfm_tasks.spectral.bases.space import agreement_with_half, extended, landmark_space, n_landmarks_of, orthonormal
from lfm_tasks.spectral.neighbors.search import (
    TABLE_VERSION,
    Neighbors,
    SearchMethod,
    choose_method,
    find_neighbors,
    neighbor_recall,
)
from lfm_tasks.stages.activations.job import as_floats, gather_rows
from lfm_tasks.stages.inventory.stage import drawn_rows


@dataclass(frozen=True)
class BasisMethod:
    """How a basis is made: its graph, by which search, of how many landmarks drawn by which seed (None: all points)."""

    graph: GraphConfig
    method: SearchMethod
    n_eigenpairs: int
    n_landmarks: int | None = None
    seed: int = 0


def basis_method(atlas: AtlasConfig, n_points: int, n_features: int) -> BasisMethod:
    """Return how the basis of a space of this size is made."""
    graph = atlas.graph
    n_landmarks = n_landmarks_of(n_points, graph.landmarks)
    method = graph.method
    if method == "auto":
        method = choose_method(n_landmarks or n_points, n_features, graph.n_neighbors)
    return BasisMethod(graph, method, atlas.n_eigenpairs, n_landmarks, atlas.seed)


# Below this recall the graph is not the one asked for: overlaps move by more than .2 (measured at .85).
LOWEST_RECALL = 0.90
# Largest residual |Lv - λv| and deviation from orthonormality of a basis that counts as solved (float64).
LARGEST_RESIDUAL = 1e-8
LARGEST_DEVIATION = 1e-8

Chunks = Callable[[], Iterator[Shaped[np.ndarray, "rows features"]]]


@dataclass(frozen=True)
class ComputedBasis:
    """A basis on all points; ``neighbors`` are those of the landmarks among themselves where there are such."""

    neighbors: Neighbors
    eigenvalues: Float[np.ndarray, " eigenpairs"]
    eigenvectors: Float[np.ndarray, "points eigenpairs"]
    facts: dict[str, Any]
    landmarks: Int[np.ndarray, " landmarks"] | None = None


def compute_basis(chunks: Chunks, ids: Shaped[np.ndarray, " points"], way: BasisMethod) -> ComputedBasis:
    """Return the basis of the rows that ``chunks`` gives, as often as it is called; `refuse_inaccurate` checks it.

    With landmarks never more than them and a chunk are in memory.
    """
    if way.n_landmarks is not None:
        return _of_landmarks(chunks, ids, way, way.n_landmarks)
    activations = gather_rows(chunks(), np.arange(len(ids)))
    neighbors, recall = _neighbors(activations, way)
    metric, kernel = way.graph.metric, way.graph.kernel
    graph, n_components = join_components(affinity_graph(neighbors, kernel=kernel), activations, metric=metric)
    del activations  # the largest of all, and needed no more
    basis = spectral_basis(graph, way.n_eigenpairs)
    facts = _facts(basis, basis_quality(graph, basis)) | {"n_components": n_components, "recall": recall}
    return ComputedBasis(neighbors, basis.eigenvalues, basis.eigenvectors, facts | {"method": way.method})


def check_accuracy(found: ComputedBasis) -> None:
    """Raise DataError ``inaccurate`` if the neighbors or the eigenpairs are."""
    facts = found.facts
    if facts["recall"] < LOWEST_RECALL:
        raise DataError(
            "inaccurate",
            f"the approximate neighbors have a recall of {facts['recall']:.3f}, at least {LOWEST_RECALL} is needed: "
            "set atlas.graph.method to exact",
        )
    if facts["n_zero_eigenvalues"] != 1:
        raise DataError(
            "inaccurate",
            f"{facts['n_zero_eigenvalues']} eigenvalues are 0, a connected graph has exactly 1: "
            "raise atlas.graph.n_neighbors",
        )
    if facts["residual"] > LARGEST_RESIDUAL or facts["orthonormality"] > LARGEST_DEVIATION:
        raise DataError(
            "inaccurate",
            f"the eigenpairs have a residual of {facts['residual']:.1e} and deviate from orthonormality by "
            f"{facts['orthonormality']:.1e}, {LARGEST_RESIDUAL:.0e} is allowed: lower atlas.n_eigenpairs",
        )


def _of_landmarks(
    chunks: Chunks, ids: Shaped[np.ndarray, " points"], way: BasisMethod, n_landmarks: int
) -> ComputedBasis:
    chosen = drawn_rows(ids, n_landmarks, kind="landmarks", seed=way.seed)
    _refuse_zero_rows(chunks, way)
    activations = gather_rows(chunks(), chosen)
    neighbors, recall = _neighbors(activations, way)
    space = landmark_space(activations, neighbors, way.n_eigenpairs, metric=way.graph.metric, kernel=way.graph.kernel)
    of_half = find_neighbors(activations[::2], way.graph.n_neighbors, metric=way.graph.metric, method=way.method)
    agreement = agreement_with_half(space, activations, of_half)
    del activations
    vectors = np.empty((len(ids), way.n_eigenpairs))
    vectors[chosen] = space.basis.eigenvectors
    start = 0
    for chunk in chunks():
        others = np.setdiff1d(np.arange(start, start + len(chunk)), chosen, assume_unique=True)
        if len(others):
            vectors[others] = extended(space, as_floats(chunk)[others - start])
        start += len(chunk)
    vectors = orthonormal(vectors)
    quality = basis_quality(space.graph, space.basis)
    deviation = float(np.abs(vectors.T @ vectors - np.eye(vectors.shape[1])).max())
    facts = _facts(space.basis, replace(quality, orthonormality=max(deviation, quality.orthonormality)))
    facts |= {"n_components": space.n_components, "recall": recall, "n_landmarks": n_landmarks}
    facts |= {"method": f"{way.method} on {n_landmarks} landmarks", "landmark_agreement": agreement}
    return ComputedBasis(neighbors, space.basis.eigenvalues, vectors, facts, chosen)


def _refuse_zero_rows(chunks: Chunks, way: BasisMethod) -> None:
    """Raise what `check_activations` would: rows that are no landmarks never come there."""
    n_zero = sum(int(np.count_nonzero(~chunk.any(axis=1))) for chunk in chunks())
    if n_zero and way.graph.metric == "angular":
        found = f"found {n_zero} all-zero rows, which have no direction"
        raise DataError("zero_rows", f"{found}: set graph.metric to euclidean, or drop the layer")


def _neighbors(activations: Float[np.ndarray, "points features"], way: BasisMethod) -> tuple[Neighbors, float]:
    """Return the neighbors, and their recall on a sample."""
    metric = way.graph.metric
    found = find_neighbors(activations, way.graph.n_neighbors, metric=metric, method=way.method)
    return found, 1.0 if way.method == "exact" else neighbor_recall(found, activations, metric=metric)


def _facts(basis: Basis, quality: BasisQuality) -> dict[str, Any]:
    return {
        "table_version": TABLE_VERSION,
        "n_eigenpairs": len(basis.eigenvalues),
        "solver": basis.solver,
        "residual": float(quality.residual),
        "orthonormality": float(quality.orthonormality),
        "n_zero_eigenvalues": int(quality.n_zero_eigenvalues),
        "eigengap": float(quality.eigengap),
    }
