"""The graph of a space: symmetric edge weights over neighbors, in one piece.

A graph kernel turns distances into weights. To add one, write a function of the edges' distances in
lfm_tasks/spectral/bases/graph_kernels.py and give it a row in `KERNELS` there; nothing else changes.
"""

from typing import Any, no_type_check

import numpy as np
from jaxtyping import Float
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

from lfm_tasks.compiling import compiled_reordered
from lfm_tasks.errors import DataError
from lfm_tasks.spectral.bases.graph_kernels import Edges, find_kernel, smallest_distance
from lfm_tasks.spectral.neighbors.exact import shortest_exits
from lfm_tasks.spectral.neighbors.projections import Metric, distance_rows, exit_sketch
from lfm_tasks.spectral.neighbors.search import Neighbors


def affinity_graph(neighbors: Neighbors, *, kernel: str) -> csr_array[Any]:
    """Return the symmetric weights W ≥ 0 of the neighbor graph, without self loops.

    Parameters
    ----------
    neighbors
        The neighbors of every point, nearest first.
    kernel
        ``binary`` weighs every edge 1; ``gaussian`` exp(−4 d²/d_k(i)²) with d_k(i) the distance to the last neighbor
        (self-tuning); ``inverse`` 1/d, the largest finite weight where d = 0; ``distance`` d, which exists to reproduce
        a published figure. W is made symmetric by max(W, Wᵀ), for ``gaussian`` by the mean.

    Raises
    ------
    ValueError
        If there is no kernel of that name in `KERNELS`.
    """
    kind = find_kernel(kernel)
    n_points, n_neighbors = neighbors.indices.shape
    distances = neighbors.distances.astype(np.float64)
    weights = kind.weights(Edges(distances, distances[:, -1:], smallest_distance(distances)))
    rows = np.repeat(np.arange(n_points), n_neighbors)
    directed = coo_array((weights.ravel(), (rows, neighbors.indices.ravel())), shape=(n_points, n_points)).tocsr()
    graph = csr_array((directed + directed.T) / 2 if kind.averages else directed.maximum(directed.T))
    graph.sort_indices()
    return graph


def join_components(
    graph: csr_array[Any], activations: Float[np.ndarray, "points features"], *, metric: Metric
) -> tuple[csr_array[Any], int]:
    """Return the graph in one piece, and in how many pieces it was.

    Pieces are joined as in Borůvka's algorithm: every piece gets the shortest edge that leaves it, until one is left.
    A joining edge weighs as much as the median edge of the graph, whatever the kernel.

    Parameters
    ----------
    graph
        Symmetric edge weights W ≥ 0, in any number of pieces.
    activations
        The rows that the graph was built from; distances between them decide which edges join pieces.
    metric
        ``angular`` or ``euclidean``, as the graph was built.

    Raises
    ------
    DataError
        ``disconnected`` if no edge joins what is left.
    """
    n_components, labels = connected_components(graph, directed=False)
    n_before = int(n_components)
    if n_components == 1:
        return graph, n_before
    rows = distance_rows(activations, metric)
    sketch = exit_sketch(rows)
    weight = float(np.median(graph.data)) if graph.nnz else 1.0
    while n_components > 1:
        edges = sorted({tuple(sorted(edge)) for edge in shortest_exits(rows, sketch, labels)})
        first, second = np.array(edges).T
        bridge = coo_array((np.full(len(first), weight), (first, second)), shape=graph.shape).tocsr()
        graph = csr_array(graph.maximum(bridge + bridge.T))
        fewer, labels = connected_components(graph, directed=False)
        if fewer >= n_components:
            raise DataError("disconnected", f"got a graph of {n_before} components, expected 1. Raise n_neighbors")
        n_components = fewer
    graph.sort_indices()
    return graph, n_before


# Columns of a block: one cache line of float64.
WIDTH = 8


@compiled_reordered
@no_type_check
def add_product(starts, columns, weights, factors, block, result, block_factor, result_factor):
    """Set ``result`` to ``factors * (W @ block) + own * block + old * result``; no weights means that all are 1.

    The arguments carry no types: numba takes them from the arrays, and a checked function cannot be compiled.
    Several rows are summed before they are added: the running total waits for itself otherwise.
    """
    total = np.zeros(WIDTH)
    for i in range(len(block)):
        total[:] = 0
        e, end = np.int64(starts[i]), np.int64(starts[i + 1])
        if len(weights) == 0:
            while e + 8 <= end:
                x0, x1, x2, x3 = block[columns[e]], block[columns[e + 1]], block[columns[e + 2]], block[columns[e + 3]]
                x4, x5, x6 = block[columns[e + 4]], block[columns[e + 5]], block[columns[e + 6]]
                x7 = block[columns[e + 7]]
                for c in range(WIDTH):
                    total[c] += ((x0[c] + x1[c]) + (x2[c] + x3[c])) + ((x4[c] + x5[c]) + (x6[c] + x7[c]))
                e += 8
            while e < end:
                x0 = block[columns[e]]
                for c in range(WIDTH):
                    total[c] += x0[c]
                e += 1
        else:
            while e + 4 <= end:
                x0, x1, x2, x3 = block[columns[e]], block[columns[e + 1]], block[columns[e + 2]], block[columns[e + 3]]
                w0, w1, w2, w3 = weights[e], weights[e + 1], weights[e + 2], weights[e + 3]
                for c in range(WIDTH):
                    total[c] += (w0 * x0[c] + w1 * x1[c]) + (w2 * x2[c] + w3 * x3[c])
                e += 4
            while e < end:
                x0, w0 = block[columns[e]], weights[e]
                for c in range(WIDTH):
                    total[c] += w0 * x0[c]
                e += 1
        for c in range(WIDTH):
            result[i, c] = factors[i] * total[c] + block_factor * block[i, c] + result_factor * result[i, c]
