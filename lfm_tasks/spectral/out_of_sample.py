"""The basis on points that were not in the sample: Nyström's extension of the eigenvectors."""

from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.sparse import csr_array

from lfm_tasks.reasons import ReasonError
from lfm_tasks.spectral.basis import Basis
from lfm_tasks.spectral.distance_rows import Metric
from lfm_tasks.spectral.graph import Kernel
from lfm_tasks.spectral.neighbours import Neighbours, comparable_rows

_BLOCK_ROWS = 1024
# An eigenvector whose affinity 1 − λ is smaller than this is made of noise by the division.
_SMALLEST_AFFINITY = 1e-3


def new_weights(
    new_rows: Float[np.ndarray, "new features"],
    activations: Float[np.ndarray, "points features"],
    neighbours: Neighbours,
    *,
    metric: Metric,
    kernel: Kernel,
) -> csr_array[Any]:
    """Return the weights (new, points) that new points would have in the graph of the sample, among themselves none.

    A new point is joined to its nearest sample points, and to those that would have it among their nearest, by the
    weights of `affinity_graph`; the sample's own edges stay as they are.
    """
    n_neighbors = neighbours.indices.shape[1]
    # Together, because euclidean rows are moved to their mean.
    sample, new = np.split(comparable_rows(np.vstack([activations, new_rows]), metric), [len(activations)])
    squares, reach = np.einsum("ij,ij->i", sample, sample), neighbours.distances[:, -1]
    # A sample point that gains a neighbour loses its last one.
    second = neighbours.distances[:, -2] if n_neighbors > 1 else np.zeros(len(sample))
    positive = neighbours.distances[neighbours.distances > 0]
    smallest = float(positive.min()) if positive.size else 1.0
    rows, columns, weights = [], [], []
    for start in range(0, len(new), _BLOCK_ROWS):
        block = new[start : start + _BLOCK_ROWS]
        squared = np.einsum("ij,ij->i", block, block)[:, None] + squares - 2 * (block @ sample.T)
        distances = np.sqrt(np.maximum(squared, 0))
        own_reach = np.partition(distances, n_neighbors - 1, axis=1)[:, n_neighbors - 1 : n_neighbors]
        chosen, choosing = distances <= own_reach, distances < reach
        i, j = np.nonzero(chosen | choosing)
        # Copies of a sample point are as near as the nearest two that differ.
        d = np.maximum(distances[i, j], smallest if kernel in {"inverse", "distance"} else 0)
        rows.append(i + start)
        columns.append(j)
        weights.append(_weights(d, kernel, (chosen[i, j], own_reach[i, 0]), (choosing[i, j], np.maximum(d, second[j]))))
    place = (np.concatenate(rows), np.concatenate(columns))
    return csr_array((np.concatenate(weights), place), shape=(len(new), len(sample)))


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


def _weights(
    distances: np.ndarray, kernel: Kernel, own: tuple[np.ndarray, np.ndarray], others: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Return the weights of edges; ``own`` and ``others``: whether that side chose the edge, and how far it reaches."""
    if kernel == "binary":
        return np.ones_like(distances)
    if kernel == "gaussian":
        halves = [
            chose * np.exp(-4 * (distances / np.maximum(reach, np.finfo(float).tiny)) ** 2)
            for chose, reach in (own, others)
        ]
        return np.asarray((halves[0] + halves[1]) / 2)
    return distances if kernel == "distance" else 1 / distances
