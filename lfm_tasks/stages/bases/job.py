"""A space on a worker: its neighbor graph, the low eigenpairs of its Laplacian, their checks; and so of its halves."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from scipy.sparse.linalg import ArpackError

from lfm_tasks.config import AtlasConfig, GraphConfig, IntervalsConfig
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
    tied_share,
)
from lfm_tasks.stages.activations.job import as_floats, gather_rows
from lfm_tasks.stages.inventory.correspondence import halves_of_space, read_exchangeability
from lfm_tasks.stages.inventory.stage import drawn_rows
from lfm_tasks.statistics.map_chance import localization, map_sums
from lfm_tasks.statistics.permutation_moments import FEWEST_POINTS, permutation_profile
from lfm_tasks.stores.units.store import UnitStore, digest

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
    """Return how to compute the basis of a space of this size; ``numbers``: of neighbors and eigenpairs."""
    graph = atlas.graph
    n_landmarks = n_landmarks_of(n_points, graph.landmarks)
    search = graph.method
    if search == "auto":
        search = choose_method(n_landmarks or n_points, n_features, numbers.n_neighbors)
    return BasisMethod(graph, search, numbers.n_neighbors, numbers.n_eigenpairs, n_landmarks, atlas.seed)


@dataclass(frozen=True)
class BasisJob:
    """One basis to compute; ``activations`` is the unit to read.

    ``is_missing``: whether the basis itself is to be computed. ``exchangeabilities``: the keys of the units that say
    which points belong together ("": none do), for each of which the bases of halves are to be computed.
    """

    store: UnitStore
    activations: str
    key: str
    method: BasisMethod
    intervals: IntervalsConfig
    is_missing: bool = True
    exchangeabilities: tuple[str, ...] = ()


def store_basis(job: BasisJob) -> None:
    """Read a space's activations, compute its graph and basis, check them, commit them; then those of its halves."""
    with job.store.open("activations", job.activations) as unit:
        ids = unit.read("ids")
        if job.is_missing:
            _store_whole(job, ids, compute_basis(lambda: unit.batches("activations"), ids, job.method))
        for exchangeability in job.exchangeabilities:
            _store_halves(job, exchangeability, ids, lambda: unit.batches("activations"))


def _store_whole(job: BasisJob, ids: Shaped[np.ndarray, " points"], basis: "ComputedBasis") -> None:
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


def halves_key(basis: str, intervals: IntervalsConfig, exchangeability: str) -> str | None:
    """Return the key of the bases of halves of a space's points; None where scores have no intervals."""
    if not intervals.n_splits:
        return None
    return digest(
        {"kind": "halves", "basis": basis, "intervals": intervals.model_dump(), "exchangeability": exchangeability}
    )


def read_halves(store: UnitStore, key: str) -> Float[np.ndarray, "splits points eigenpairs"] | None:
    """Return by split the rows of bases of halves, each from that of its point; None where halves have no basis."""
    if "refused" in store.receipt("halves", key).facts:
        return None
    with store.open("halves", key) as unit:
        return unit.read("eigenvectors")


def _store_halves(job: BasisJob, exchangeability: str, ids: Shaped[np.ndarray, " points"], chunks: Chunks) -> None:
    """Commit the bases of halves, or why there are none: a score then lacks an interval, and nothing else."""
    key = halves_key(job.key, job.intervals, exchangeability)
    if key is None:
        raise ValueError("got no splits, expected some")
    groups = read_exchangeability(job.store, exchangeability)
    with job.store.commit("halves", key) as unit_writer:
        try:
            halves = halves_of_space(ids, groups, job.intervals)
            unit_writer.arrays.write("eigenvectors", bases_of_halves(chunks, ids, job.method, halves))
        except DataError as error:
            unit_writer.facts |= {"refused": [error.reason, str(error)]}
        except (ArpackError, np.linalg.LinAlgError, ValueError) as error:  # numerics of a half, not of the space
            unit_writer.facts |= {"refused": ["failed", f"{type(error).__name__}: {error}"]}


def bases_of_halves(
    chunks: Chunks,
    ids: Shaped[np.ndarray, " points"],
    method: BasisMethod,
    halves: Bool[np.ndarray, "splits points"] | None,
) -> Float[np.ndarray, "splits points eigenpairs"]:
    """Return by split the rows of the bases of both halves of the points, each from that of its point, in float32.

    Parameters
    ----------
    chunks, ids, method
        As `compute_basis` takes them; half as many landmarks, all other numbers are the same.
    halves
        By split, which points are in the second half.

    Raises
    ------
    DataError
        ``too_few_points`` where there are no halves, or one has no more points than neighbors or eigenpairs; what
        `compute_basis` and `check_accuracy` raise.
    """
    needed = max(method.n_neighbors, method.n_eigenpairs) + 1
    n_smallest = 0 if halves is None else int(min(halves.sum(axis=1).min(), (~halves).sum(axis=1).min()))
    if method.n_landmarks is not None:
        n_smallest = min(n_smallest, method.n_landmarks // 2)
    if halves is None or n_smallest <= needed:
        found = f"got {len(ids)} points, expected halves of more than {needed}"
        raise DataError("too_few_points", f"{found}. Record more: scores have no intervals.")
    vectors = np.empty((len(halves), len(ids), method.n_eigenpairs), dtype=np.float32)
    for split, second in enumerate(halves):
        for half in (~second, second):
            of_half = _method_of_half(method, int(half.sum()))
            basis = compute_basis(partial(_rows_in, chunks, half), ids[half], of_half, is_half=True)
            check_accuracy(basis)
            vectors[split, half] = basis.eigenvectors
    return vectors


def _rows_in(chunks: Chunks, inside: Bool[np.ndarray, " points"]) -> Iterator[Shaped[np.ndarray, "rows features"]]:
    start = 0
    for chunk in chunks():
        yield chunk[inside[start : start + len(chunk)]]
        start += len(chunk)


def _method_of_half(method: BasisMethod, n_points: int) -> BasisMethod:
    n_landmarks = None if method.n_landmarks is None else min(method.n_landmarks // 2, n_points - 1)
    return replace(method, n_landmarks=n_landmarks)


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


def compute_basis(
    chunks: Chunks, ids: Shaped[np.ndarray, " points"], method: BasisMethod, *, is_half: bool = False
) -> ComputedBasis:
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
    is_half
        Whether the space is half of another one: how well half of its landmarks agree with it is not looked at, nor
        are ties.
    """
    if method.n_landmarks is not None:
        return _basis_of_landmarks(chunks, ids, method, method.n_landmarks, is_half=is_half)
    if len(ids) < FEWEST_POINTS:
        found = f"got {len(ids)} points, expected at least {FEWEST_POINTS}"
        raise DataError("too_few_points", f"{found}. Record more: chance has no moments on fewer.")
    activations = gather_rows(chunks(), np.arange(len(ids)))
    center = center_of(activations) if method.graph.is_centered else None
    activations = from_center(activations, center)
    neighbors, recall = _neighbors(activations, method)
    metric, kernel = method.graph.metric, method.graph.kernel
    tied = 0.0 if is_half else tied_share(activations, method.n_neighbors, metric=metric)
    graph, n_components = join_components(affinity_graph(neighbors, kernel=kernel), activations, metric=metric)
    del activations  # the largest array of all
    basis = spectral_basis(graph, method.n_eigenpairs)
    facts = _facts(basis, basis_quality(graph, basis), method)
    facts |= {"n_components": n_components, "recall": recall, "tied": tied}
    return ComputedBasis(neighbors, basis.eigenvalues, basis.eigenvectors, facts | {"method": method.search}, center)


def _basis_of_landmarks(
    chunks: Chunks, ids: Shaped[np.ndarray, " points"], method: BasisMethod, n_landmarks: int, *, is_half: bool
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
    agreement, tied = np.nan, 0.0
    if not is_half:
        tied = tied_share(activations, method.n_neighbors, metric=metric)
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
    facts |= {"n_components": space.n_components, "recall": recall, "tied": tied, "n_landmarks": n_landmarks}
    facts |= {"method": f"{method.search} on {n_landmarks} landmarks", "landmark_agreement": agreement}
    return ComputedBasis(neighbors, space.basis.eigenvalues, vectors, facts, center, landmarks)


def _refuse_zero_rows(chunks: Chunks, method: BasisMethod) -> None:
    """Raise what `check_activations` would raise for the rows that are no landmarks: it never sees them."""
    n_zero = sum(int(np.count_nonzero(~chunk.any(axis=1))) for chunk in chunks())
    if n_zero and method.graph.metric == "angular":
        problem = f"got {n_zero} all-zero rows, which have no direction"
        raise DataError("zero_rows", f"{problem}. Set graph.metric to euclidean, or drop the layer")


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
            f"the approximate neighbors have a recall of {facts['recall']:.3f}, at least {LOWEST_RECALL} is needed. "
            "Set atlas.graph.method to exact",
        )
    if facts["n_zero_eigenvalues"] != 1:
        raise DataError(
            "inaccurate",
            f"{facts['n_zero_eigenvalues']} eigenvalues are 0, a connected graph has exactly 1. "
            "Raise atlas.graph.n_neighbors",
        )
    if facts["residual"] > LARGEST_RESIDUAL or facts["orthonormality"] > LARGEST_DEVIATION:
        raise DataError(
            "inaccurate",
            f"the eigenpairs have a residual of {facts['residual']:.1e} and deviate from orthonormality by "
            f"{facts['orthonormality']:.1e}, {LARGEST_RESIDUAL:.0e} is allowed. Lower atlas.n_eigenpairs",
        )
