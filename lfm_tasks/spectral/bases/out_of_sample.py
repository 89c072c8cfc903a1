"""The basis on points that were not in the sample: Nyström's extension of the eigenvectors."""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from scipy.sparse import csr_array

from lfm_tasks.reasons import ReasonError
from lfm_tasks.spectral.bases.eigenbasis import Basis
from lfm_tasks.spectral.bases.graph import Kernel
from lfm_tasks.spectral.neighbors.metric import DistanceRows, Metric, blocks, distance_rows, squared_norms
from lfm_tasks.spectral.neighbors.search import Neighbours

# Rows a block: their products with a sample of 50,000 points are 50 MiB.
_BLOCK_ROWS = 256
# An eigenvector whose affinity 1 − λ is smaller than this is made of noise by the division.
_SMALLEST_AFFINITY = 1e-3


@dataclass(frozen=True)
class Sample:
    """A sample as new points see it: its rows, the same less their mean in float32, squared norms, its neighbours."""

    rows: DistanceRows
    centred: Float[np.ndarray, "points features"]
    squares: Float[np.ndarray, " points"]
    neighbours: Neighbours
    metric: Metric
    kernel: Kernel


def as_sample(
    activations: Shaped[np.ndarray, "points features"], neighbours: Neighbours, *, metric: Metric, kernel: Kernel
) -> Sample:
    """Return what `new_weights` needs to know of a sample; 4 bytes × points × features beside the activations."""
    rows = distance_rows(activations, metric)
    centred = np.empty(activations.shape, dtype=np.float32)
    for block in blocks(centred):
        centred[block] = rows.centred(block)
    return Sample(rows, centred, squared_norms(centred), neighbours, metric, kernel)


def new_weights(new_rows: Shaped[np.ndarray, "new features"], sample: Sample) -> csr_array[Any]:
    """Return the weights (new, points) that new points would have in the graph of the sample, among themselves none.

    A new point is joined to its nearest sample points, and to those that would have it among their nearest, by the
    weights of `affinity_graph`; the sample's own edges stay as they are. Which they are, products in float32 say.
    """
    rows = distance_rows(new_rows, sample.metric)
    scales = rows.scales if sample.metric == "angular" else np.full(len(new_rows), sample.rows.scales[0])
    # Seen as the sample is: by its scale, and from its mean.
    rows = replace(rows, scales=scales, mean=sample.rows.mean)
    found = [_edges(rows.centred(block), sample) for block in blocks(new_rows, _BLOCK_ROWS)]
    starts = range(0, len(new_rows), _BLOCK_ROWS)
    i = np.concatenate([own + start for (own, _, _), start in zip(found, starts, strict=True)])
    j, weights = (np.concatenate([edges[part] for edges in found]) for part in (1, 2))
    return csr_array((weights, (i, j)), shape=(len(new_rows), len(sample.centred)))


def extend_basis(basis: Basis, graph: csr_array[Any], weights: csr_array[Any]) -> Float[np.ndarray, "new eigenpairs"]:
    """Return φ_k(x) = Σ_j w(x, j) φ_k(j)/√(d_x d_j)/(1 − λ_k) for every new point: Nyström's extension.

    ``graph`` is the sample's, ``weights`` those of the new points to it (`new_weights`). For a point of the sample with
    its own row of the graph it gives the eigenvectors themselves.

    Raises
    ------
    ReasonError
        ``inaccurate`` if an eigenvalue is so near to 1 that the extension would be noise; ``disconnected`` if a new
        point has no weight.

    References
    ----------
    Bengio et al. (2004), "Out-of-sample extensions for LLE, Isomap, MDS, eigenmaps, and spectral clustering", sec. 3.
    """
    affinities = 1 - basis.eigenvalues
    if np.abs(affinities).min() < _SMALLEST_AFFINITY:
        worst = float(basis.eigenvalues[np.abs(affinities).argmin()])
        raise ReasonError(
            "inaccurate", f"found the eigenvalue {worst:.4f}, too near to 1 to extend: lower n_eigenpairs"
        )
    degrees = np.asarray(graph.sum(axis=1)).ravel()
    own = np.asarray(weights.sum(axis=1)).ravel()
    if not own.all():
        raise ReasonError(
            "disconnected", f"found {int((own == 0).sum())} new points without a neighbour: raise n_neighbors"
        )
    spread = np.asarray(weights @ (basis.eigenvectors / np.sqrt(degrees)[:, None]))
    return spread / np.sqrt(own)[:, None] / affinities


def _edges(
    block: Float[np.ndarray, "block features"], sample: Sample
) -> tuple[Int[np.ndarray, " edges"], Int[np.ndarray, " edges"], Float[np.ndarray, " edges"]]:
    """Return the row, the sample point and the weight of every edge of a block of new rows."""
    n_neighbors = sample.neighbours.indices.shape[1]
    reach = sample.neighbours.distances[:, -1] * sample.rows.unit
    narrow = block.astype(np.float32)
    squared = narrow @ sample.centred.T
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
    if sample.kernel == "binary":
        return i, j, np.ones(len(i))
    distances = np.empty(len(i))
    starts = np.searchsorted(i, np.arange(len(block) + 1))
    for row, (first, last) in enumerate(pairwise(starts)):
        distances[first:last] = np.sqrt(squared_norms(sample.rows.centred(j[first:last]) - block[row]))
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
    known = sample.neighbours.distances
    if sample.kernel == "gaussian":
        own_reach = np.zeros(i[-1] + 1)
        np.maximum.at(own_reach, i[chosen], distances[chosen])
        # A sample point that gains a neighbour loses its last one.
        second = known[j, -2] if known.shape[1] > 1 else np.zeros(len(j))
        halves = [
            chose * np.exp(-4 * (distances / np.maximum(reach, np.finfo(float).tiny)) ** 2)
            for chose, reach in ((chosen, own_reach[i]), (distances < known[j, -1], np.maximum(distances, second)))
        ]
        return np.asarray((halves[0] + halves[1]) / 2)
    # Copies of a sample point are as near as the nearest two that differ.
    positive = known[known > 0]
    distances = np.maximum(distances, float(positive.min()) if positive.size else 1.0)
    return distances if sample.kernel == "distance" else 1 / distances
