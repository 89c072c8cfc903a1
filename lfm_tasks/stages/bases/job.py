"""One basis on a worker: the neighbor graph of a space, the low eigenpairs of its Laplacian, their checks."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped

from lfm_tasks.config import AtlasConfig, GraphConfig
from lfm_tasks.errors import DataError
from lfm_tasks.spectral.bases.automatic import BasisNumbers, n_landmarks_of
from lfm_tasks.spectral.bases.eigenbasis import Basis, BasisQuality, basis_quality, spectral_basis
from lfm_tasks.spectral.bases.graph import affinity_graph, join_components
from lfm_tasks.spectral.bases.space import agreement_with_half, extended, landmark_space, orthonormal
from lfm_tasks.spectral.neighbors.centering import center_of, from_center
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
from lfm_tasks.statistics.map_chance import localization, map_sums
from lfm_tasks.statistics.permutation_moments import FEWEST_POINTS, permutation_profile
from lfm_tasks.stores.units.store import UnitStore

# Below this recall the graph is another one: overlaps move by more than .2 (measured at .85).
LOWEST_RECALL = 0.90
# Largest residual |Lv - λv| and deviation from orthonormality of a basis that counts as solved (float64).
LARGEST_RESIDUAL = 1e-8
LARGEST_DEVIATION = 1e-8

Chunks = Callable[[], Iterator[Shaped[np.ndarray, "rows features"]]]


@dataclass(frozen=True)
class BasisMethod:
    """How to compute a basis: the graph, the search for neighbors, the landmarks.

    ``n_landmarks`` are drawn by ``seed``; None: the basis is solved on all points. ``graph`` may still say ``auto``:
    ``n_neighbors`` and ``n_eigenpairs`` are what counts.
    """

    graph: GraphConfig
    search: SearchMethod
    n_neighbors: int
    n_eigenpairs: int
    n_landmarks: int | None = None
    seed: int = 0


def basis_method(atlas: AtlasConfig, numbers: BasisNumbers, n_points: int, n_features: int) -> BasisMethod:
    """Return how to compute the basis of a space of this size; ``numbers``: those of its dataset."""
    graph = atlas.graph
    n_landmarks = n_landmarks_of(n_points, graph.landmarks)
    search = graph.method
    if search == "auto":
        search = choose_method(n_landmarks or n_points, n_features, numbers.n_neighbors)
    return BasisMethod(graph, search, numbers.n_neighbors, numbers.n_eigenpairs, n_landmarks, atlas.seed)


@dataclass(frozen=True)
class BasisJob:
    """One basis to compute; ``activations`` is the unit to read."""

    store: UnitStore
    activations: str
    key: str
    method: BasisMethod


def store_basis(job: BasisJob) -> None:
    """Read a space's activations, compute its graph and basis, check them, commit them."""
    with job.store.open("activations", job.activations) as unit:
        ids = unit.read("ids")
        basis = compute_basis(lambda: unit.batches("activations"), ids, job.method)
    check_accuracy(basis)
    with job.store.commit("bases", job.key) as unit_writer:
        arrays = unit_writer.arrays
        arrays.write("neighbors", basis.neighbors.indices)
        arrays.write("distances", basis.neighbors.distances.astype(np.float32))
        if basis.landmarks is not None:
            arrays.write("landmarks", basis.landmarks.astype(np.int32))
        if basis.center is not None:
            arrays.write("center", basis.center)
        arrays.write("eigenvalues", basis.eigenvalues)
        arrays.write("eigenvectors", basis.eigenvectors)
        functions = basis.eigenvectors[:, 1:]
        arrays.write("overlap_sums", permutation_profile(functions).sums)
        arrays.write("lfm_sums", map_sums(functions))
        arrays.write("ids", ids)
        unit_writer.facts |= basis.facts | {"localization": localization(functions)}


@dataclass(frozen=True)
class ComputedBasis:
    """A basis on all points; ``neighbors`` of all points, or of the landmarks among themselves where there are some.

    ``center``: where angles are seen from; None: from the origin, or none at all.
    """

    neighbors: Neighbors
    eigenvalues: Float[np.ndarray, " eigenpairs"]
    eigenvectors: Float[np.ndarray, "points eigenpairs"]
    facts: dict[str, Any]
    center: Float[np.ndarray, " features"] | None
    landmarks: Int[np.ndarray, " landmarks"] | None = None


def compute_basis(chunks: Chunks, ids: Shaped[np.ndarray, " points"], method: BasisMethod) -> ComputedBasis:
    """Return the basis of a space; `check_accuracy` checks it.

    Parameters
    ----------
    chunks
        Returns the rows of the space in chunks, each time it is called. With landmarks only they and one chunk are in
        memory at a time.
    ids
        The ids of the rows, in ascending order.
    method
        The graph, the search for neighbors, the landmarks.
    """
    if method.n_landmarks is not None:
        return _basis_of_landmarks(chunks, ids, method, method.n_landmarks)
    if len(ids) < FEWEST_POINTS:
        found = f"got {len(ids)} points, expected at least {FEWEST_POINTS}"
        raise DataError("too_few_points", f"{found}. Record more: chance has no moments on fewer.")
    activations = gather_rows(chunks(), np.arange(len(ids)))
    center = center_of(activations) if method.graph.is_centered else None
    activations = from_center(activations, center)
    neighbors, recall = _neighbors(activations, method)
    metric, kernel = method.graph.metric, method.graph.kernel
    graph, n_components = join_components(affinity_graph(neighbors, kernel=kernel), activations, metric=metric)
    del activations  # the largest array of all
    basis = spectral_basis(graph, method.n_eigenpairs)
    facts = _facts(basis, basis_quality(graph, basis), method) | {"n_components": n_components, "recall": recall}
    return ComputedBasis(neighbors, basis.eigenvalues, basis.eigenvectors, facts | {"method": method.search}, center)


def _basis_of_landmarks(
    chunks: Chunks, ids: Shaped[np.ndarray, " points"], method: BasisMethod, n_landmarks: int
) -> ComputedBasis:
    landmarks = drawn_rows(ids, n_landmarks, kind="landmarks", seed=method.seed)
    activations = gather_rows(chunks(), landmarks)
    center = center_of(activations) if method.graph.is_centered else None
    if center is None:
        _refuse_zero_rows(chunks, method)
    activations = from_center(activations, center)
    neighbors, recall = _neighbors(activations, method)
    metric, kernel = method.graph.metric, method.graph.kernel
    space = landmark_space(activations, neighbors, method.n_eigenpairs, metric=metric, kernel=kernel)
    of_half = find_neighbors(activations[::2], method.n_neighbors, metric=metric, method=method.search)
    agreement = agreement_with_half(space, activations, of_half)
    del activations
    vectors = np.empty((len(ids), method.n_eigenpairs))
    vectors[landmarks] = space.basis.eigenvectors
    start = 0
    for chunk in chunks():
        others = np.setdiff1d(np.arange(start, start + len(chunk)), landmarks, assume_unique=True)
        if len(others):
            vectors[others] = extended(space, from_center(as_floats(chunk)[others - start], center))
        start += len(chunk)
    vectors = orthonormal(vectors)
    quality = basis_quality(space.graph, space.basis)
    deviation = float(np.abs(vectors.T @ vectors - np.eye(vectors.shape[1])).max())
    facts = _facts(space.basis, replace(quality, orthonormality=max(deviation, quality.orthonormality)), method)
    facts |= {"n_components": space.n_components, "recall": recall, "n_landmarks": n_landmarks}
    facts |= {"method": f"{method.search} on {n_landmarks} landmarks", "landmark_agreement": agreement}
    return ComputedBasis(neighbors, space.basis.eigenvalues, vectors, facts, center, landmarks)


def _refuse_zero_rows(chunks: Chunks, method: BasisMethod) -> None:
    """Raise what `check_activations` would raise for the rows that are no landmarks: it never sees them."""
    n_zero = sum(int(np.count_nonzero(~chunk.any(axis=1))) for chunk in chunks())
    if n_zero and method.graph.metric == "angular":
        problem = f"found {n_zero} all-zero rows, which have no direction"
        raise DataError("zero_rows", f"{problem}: set graph.metric to euclidean, or drop the layer")


def _neighbors(activations: Float[np.ndarray, "points features"], method: BasisMethod) -> tuple[Neighbors, float]:
    """Return the neighbors of each row, and their recall on a sample."""
    metric = method.graph.metric
    neighbors = find_neighbors(activations, method.n_neighbors, metric=metric, method=method.search)
    return neighbors, 1.0 if method.search == "exact" else neighbor_recall(neighbors, activations, metric=metric)


def _facts(basis: Basis, quality: BasisQuality, method: BasisMethod) -> dict[str, Any]:
    return {
        "table_version": TABLE_VERSION,
        "n_neighbors": method.n_neighbors,
        "n_eigenpairs": method.n_eigenpairs,
        "solver": basis.solver,
        "residual": float(quality.residual),
        "orthonormality": float(quality.orthonormality),
        "n_zero_eigenvalues": int(quality.n_zero_eigenvalues),
        "eigengap": float(quality.eigengap),
    }


def check_accuracy(basis: ComputedBasis) -> None:
    """Raise DataError ``inaccurate`` if the neighbors or the eigenpairs of a basis are."""
    facts = basis.facts
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
