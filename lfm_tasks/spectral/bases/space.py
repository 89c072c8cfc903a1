"""A space with its activations, neighbors, graph and basis; points outside the sample, and bases on landmarks."""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from scipy.linalg import solve_triangular
from scipy.sparse import csr_array

from lfm_tasks.errors import DataError
from lfm_tasks.spectral.bases.eigenbasis import Basis, fix_signs, spectral_basis
from lfm_tasks.spectral.bases.full_map import full_map, overlap
from lfm_tasks.spectral.bases.graph import affinity_graph, join_components
from lfm_tasks.spectral.bases.graph_kernels import Edges, find_kernel, smallest_distance
from lfm_tasks.spectral.neighbors.centering import center_of, from_center
from lfm_tasks.spectral.neighbors.projections import DistanceRows, Metric, blocks, distance_rows, squared_norms
from lfm_tasks.spectral.neighbors.search import Neighbors, exact_neighbors


@dataclass(frozen=True)
class SpectralSpace:
    """Activations with the neighbors, the graph in one piece and the basis that were made of them.

    ``center``: where their angles are seen from; None: from the origin.
    """

    activations: Float[np.ndarray, "points features"]
    neighbors: Neighbors
    graph: csr_array[Any]
    basis: Basis
    center: Float[np.ndarray, " features"] | None = None

    def __len__(self) -> int:
        """Return the number of points."""
        return len(self.activations)


def spectral_space(
    activations: Float[np.ndarray, "points features"],
    *,
    n_eigenpairs: int | None = None,
    n_neighbors: int | None = None,
    metric: Metric = "angular",
    kernel: str = "inverse",
    center: bool = True,
) -> SpectralSpace:
    """Return the space of ``activations``, its graph joined into one piece.

    The defaults are those for few anchors: a dense graph (`dense_neighbors`) with edges of weight 1/d, and 50
    eigenpairs, or as many as a third of the points. ``center``: angles are seen from the `spatial_median` of the rows,
    so that translation changes nothing (`invariances`).

    Parameters
    ----------
    activations
        A row for each point, finite; at least three points that differ.
    n_eigenpairs
        K, the trivial eigenpair included; 2 ≤ K < points. None: 50, or a third of the points.
    n_neighbors
        Neighbors of each point, itself excluded. None: a quarter of the points, at most 300.
    metric
        ``angular``: the chord between directions, in [0, 2]; ``euclidean``: the usual distance.
    kernel
        Weights of edges: a name in `KERNELS`, see `affinity_graph`.
    center
        Whether angles are seen from the `spatial_median`; no effect on ``euclidean``.

    Raises
    ------
    DataError
        ``too_few_points``, ``constant`` or ``zero_rows`` if no such graph or basis exists.

    Examples
    --------
    >>> ring = np.array([[np.cos(angle), np.sin(angle)] for angle in np.arange(12) * np.pi / 6])
    >>> space = spectral_space(ring, n_eigenpairs=3, n_neighbors=2, kernel="binary")
    >>> len(space), space.basis.eigenvalues.round(3).tolist()
    (12, [0.0, 0.134, 0.134])
    """
    from_where = center_of(activations) if center and metric == "angular" else None
    rows = from_center(activations, from_where)
    n_eigenpairs = n_eigenpairs or max(2, min(_EIGENPAIRS, len(rows) // 3))
    neighbors = exact_neighbors(rows, n_neighbors or dense_neighbors(len(rows)), metric=metric)
    graph, _ = join_components(affinity_graph(neighbors, kernel=kernel), rows, metric=metric)
    return SpectralSpace(activations, neighbors, graph, spectral_basis(graph, n_eigenpairs), from_where)


def invariances(metric: Metric, *, center: bool) -> frozenset[str]:
    """Return the transformations of a space that leave its graph, its basis and the scores of its maps unchanged.

    *rotation* of features by any orthogonal matrix, their *permutation*, isotropic *scaling*, *translation*: the words
    of `lfm_tasks.measures.Measure`. Angles that are not seen from the center change with translation.
    """
    of_all = frozenset({"rotation", "permutation", "scaling"})
    return of_all | {"translation"} if center or metric == "euclidean" else of_all


# Of maps from few anchors: more make them no better, and each fit takes longer.
_EIGENPAIRS = 50


def dense_neighbors(n_points: int) -> int:
    """Return a quarter of the points, at most 300: with few anchors sparse graphs fail where dense ones work."""
    return max(1, min(300, n_points // 4))


# Rows a block: their products with a sample of 50,000 points are 50 MiB.
_BLOCK_ROWS = 256
# An eigenvector whose affinity 1 − λ is smaller than this is made of noise by the division.
_SMALLEST_AFFINITY = 1e-3


@dataclass(frozen=True)
class Sample:
    """A sample as new points see it: its rows, the same less their mean in float32, squared norms, its neighbors.

    ``smallest`` is the smallest distance between neighbors that is not 0.
    """

    rows: DistanceRows
    centered: Float[np.ndarray, "points features"]
    squares: Float[np.ndarray, " points"]
    neighbors: Neighbors
    metric: Metric
    kernel: str
    smallest: float


def as_sample(
    activations: Shaped[np.ndarray, "points features"], neighbors: Neighbors, *, metric: Metric, kernel: str
) -> Sample:
    """Return a sample as `new_weights` reads it; 4 bytes × points × features beside the activations.

    Raises
    ------
    ValueError
        If there is no graph kernel called ``kernel``.
    """
    find_kernel(kernel)
    rows = distance_rows(activations, metric)
    centered = np.empty(activations.shape, dtype=np.float32)
    for block in blocks(centered):
        centered[block] = rows.centered(block)
    smallest = smallest_distance(neighbors.distances)
    return Sample(rows, centered, squared_norms(centered), neighbors, metric, kernel, smallest)


def new_weights(new_rows: Shaped[np.ndarray, "new features"], sample: Sample) -> csr_array[Any]:
    """Return the weights (new, points) that new points would have in the graph of the sample, among themselves none.

    A new point is joined to its nearest sample points, and to those that would have it among their nearest, by the
    weights of `affinity_graph`; the edges of the sample stay as they are. Products in float32 choose the edges.
    """
    rows = distance_rows(new_rows, sample.metric)
    scales = rows.scales if sample.metric == "angular" else np.full(len(new_rows), sample.rows.scales[0])
    # Seen as the sample is: by its scale, and from its mean.
    rows = replace(rows, scales=scales, mean=sample.rows.mean)
    block_edges = [_edges(rows.centered(block), sample) for block in blocks(new_rows, _BLOCK_ROWS)]
    starts = range(0, len(new_rows), _BLOCK_ROWS)
    i = np.concatenate(
        [rows_of_block + start for (rows_of_block, _, _), start in zip(block_edges, starts, strict=True)]
    )
    j, weights = (np.concatenate([edges[part] for edges in block_edges]) for part in (1, 2))
    return csr_array((weights, (i, j)), shape=(len(new_rows), len(sample.centered)))


def extend_basis(basis: Basis, graph: csr_array[Any], weights: csr_array[Any]) -> Float[np.ndarray, "new eigenpairs"]:
    """Return φ_k(x) = Σ_j w(x, j) φ_k(j)/√(d_x d_j)/(1 − λ_k) for every new point: Nyström's extension.

    ``graph`` is that of the sample, ``weights`` join the new points to it (`new_weights`). For a point of the sample,
    with its row of the graph as weights, it returns the eigenvectors themselves.

    Raises
    ------
    DataError
        ``inaccurate`` if an eigenvalue is so near to 1 that the extension would be noise; ``disconnected`` if a new
        point has no weight.

    References
    ----------
    Bengio et al. (2004), "Out-of-sample extensions for LLE, Isomap, MDS, eigenmaps, and spectral clustering", sec. 3.
    """
    affinities = 1 - basis.eigenvalues
    if np.abs(affinities).min() < _SMALLEST_AFFINITY:
        worst = float(basis.eigenvalues[np.abs(affinities).argmin()])
        raise DataError("inaccurate", f"got the eigenvalue {worst:.4f}, too near to 1 to extend. Lower n_eigenpairs")
    degrees = np.asarray(graph.sum(axis=1)).ravel()
    new_degrees = np.asarray(weights.sum(axis=1)).ravel()
    if not new_degrees.all():
        raise DataError(
            "disconnected", f"got {int((new_degrees == 0).sum())} new points without a neighbor. Raise n_neighbors"
        )
    spread = np.asarray(weights @ (basis.eigenvectors / np.sqrt(degrees)[:, None]))
    return spread / np.sqrt(new_degrees)[:, None] / affinities


def _edges(
    block: Float[np.ndarray, "block features"], sample: Sample
) -> tuple[Int[np.ndarray, " edges"], Int[np.ndarray, " edges"], Float[np.ndarray, " edges"]]:
    """Return the row, the sample point and the weight of every edge of a block of new rows."""
    n_neighbors = sample.neighbors.indices.shape[1]
    reach = sample.neighbors.distances[:, -1] * sample.rows.unit
    narrow = block.astype(np.float32)
    squared = narrow @ sample.centered.T
    squared *= -2
    squared += sample.squares
    squared += squared_norms(narrow)[:, None]
    # The nearest of some points are no nearer than those of all: what is farther need not be sorted.
    some = squared[:, : max(4 * n_neighbors, squared.shape[1] // 8)]
    limits = np.partition(some, n_neighbors - 1, axis=1)[:, n_neighbors - 1 : n_neighbors]
    i, j = np.nonzero((squared <= limits) | (squared < (reach**2).astype(np.float32)))
    near = squared[i, j]
    chosen = _nearest(i, near, n_neighbors, len(block))
    kept = chosen | (near < (reach[j] ** 2).astype(np.float32))
    i, j, chosen = i[kept], j[kept], chosen[kept]
    distances = np.zeros(len(i))
    if find_kernel(sample.kernel).uses_distances:
        starts = np.searchsorted(i, np.arange(len(block) + 1))
        for row, (first, last) in enumerate(pairwise(starts)):
            distances[first:last] = np.sqrt(squared_norms(sample.rows.centered(j[first:last]) - block[row]))
    return i, j, _weights(distances / sample.rows.unit, i, j, chosen, sample)


def _nearest(
    rows: Int[np.ndarray, " edges"], squared: Float[np.ndarray, " edges"], n_neighbors: int, n_rows: int
) -> Bool[np.ndarray, " edges"]:
    """Return which edges are among the shortest of their row."""
    order = np.lexsort((squared, rows))
    starts = np.searchsorted(rows, np.arange(n_rows))  # rows come in order
    nearest = np.empty(len(rows), dtype=bool)
    nearest[order] = np.arange(len(rows)) - starts[rows] < n_neighbors
    return nearest


def _weights(
    distances: Float[np.ndarray, " edges"],
    i: Int[np.ndarray, " edges"],
    j: Int[np.ndarray, " edges"],
    chosen: Bool[np.ndarray, " edges"],
    sample: Sample,
) -> Float[np.ndarray, " edges"]:
    """Return the weights of edges between new points ``i`` and sample points ``j``, by the kernel of the sample.

    An edge leads from the new point where it is ``chosen``, and from the sample point where that would have the new
    point among its nearest; both directions together weigh as in `affinity_graph`.
    """
    kernel, known = find_kernel(sample.kernel), sample.neighbors.distances
    reaches = np.zeros(i[-1] + 1)
    np.maximum.at(reaches, i[chosen], distances[chosen])
    there = kernel.weights(Edges(distances, reaches[i], sample.smallest))
    # A sample point that gains a neighbor loses its last one.
    second = known[j, -2] if known.shape[1] > 1 else np.zeros(len(j))
    back = kernel.weights(Edges(distances, np.maximum(distances, second), sample.smallest))
    is_nearer = distances < known[j, -1]
    if kernel.averages:
        return np.asarray((chosen * there + is_nearer * back) / 2)
    # An edge that only rounding keeps leads back, too: every edge has a weight.
    return np.asarray(np.maximum(chosen * there, (is_nearer | ~chosen) * back))


@dataclass(frozen=True)
class LandmarkSpace:
    """The graph of the landmarks in one piece, in how many it was, its basis, and the landmarks as others see them."""

    sample: Sample
    graph: csr_array[Any]
    n_components: int
    basis: Basis


def landmark_space(
    activations: Shaped[np.ndarray, "landmarks features"],
    neighbors: Neighbors,
    n_eigenpairs: int,
    *,
    metric: Metric,
    kernel: str,
) -> LandmarkSpace:
    """Return the space of the landmarks, from their neighbors among themselves."""
    graph, n_components = join_components(affinity_graph(neighbors, kernel=kernel), activations, metric=metric)
    sample = as_sample(activations, neighbors, metric=metric, kernel=kernel)
    return LandmarkSpace(sample, graph, n_components, spectral_basis(graph, n_eigenpairs))


def extended(space: LandmarkSpace, activations: Shaped[np.ndarray, "new features"]) -> Float[np.ndarray, "new modes"]:
    """Return the landmarks' eigenvectors on other rows, by Nyström's formula, as if each were one landmark more.

    Memory beside the result: 256 rows in float64, and 9 bytes × 256 × landmarks.
    """
    return extend_basis(space.basis, space.graph, new_weights(activations, space.sample))


def orthonormal(vectors: Float[np.ndarray, "points eigenpairs"]) -> Float[np.ndarray, "points eigenpairs"]:
    """Return orthonormal columns, signs fixed, of which the first k span what the first k of ``vectors`` do.

    Raises
    ------
    DataError
        ``inaccurate`` if the columns hardly differ.
    """
    for _ in range(2):  # the second time removes what rounding left of the first
        try:
            factor = np.linalg.cholesky(vectors.T @ vectors)
        except np.linalg.LinAlgError as error:
            message = "the extended eigenvectors hardly differ"
            raise DataError("inaccurate", f"{message}. Raise graph.landmarks, or lower n_eigenpairs") from error
        vectors = vectors @ solve_triangular(factor, np.eye(len(factor)), lower=True).T
    return fix_signs(vectors)


def agreement_with_half(
    space: LandmarkSpace,
    activations: Shaped[np.ndarray, "landmarks features"],
    neighbors_of_half: Neighbors,
) -> float:
    """Return the overlap, in [0, 1], of the landmarks' basis with that of every other landmark extended to all.

    The loss from halving the landmarks shows how far the basis is from that of twice as many; all points are farther.
    """
    sample, n_eigenpairs = space.sample, len(space.basis.eigenvalues)
    half = landmark_space(activations[::2], neighbors_of_half, n_eigenpairs, metric=sample.metric, kernel=sample.kernel)
    vectors = np.empty((len(activations), n_eigenpairs))
    vectors[::2], vectors[1::2] = half.basis.eigenvectors, extended(half, activations[1::2])
    return float(overlap(full_map(orthonormal(vectors), space.basis.eigenvectors)))
