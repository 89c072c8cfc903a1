"""Edge weights by hand, symmetry, and pieces that are joined and counted."""

import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree
from scipy.spatial.distance import cdist

from lfm_tasks.spectral.bases.eigenbasis import spectral_basis
from lfm_tasks.spectral.bases.graph import affinity_graph, join_components
from lfm_tasks.spectral.bases.graph_kernels import KERNELS
from lfm_tasks.spectral.neighbors.search import exact_neighbors

LINE = np.array([[0.0], [1.0], [3.0], [7.0]])


@pytest.mark.parametrize(
    ("kernel", "weight_01", "weight_12"),
    [
        ("binary", 1, 1),
        ("inverse", 1, 1 / 2),
        ("distance", 1, 2),
        # Distances to the second neighbor: 3, 2, 3, 6. The edge 0-1: exp(-4/9) and exp(-4/4), halved.
        ("gaussian", (np.exp(-4 / 9) + np.exp(-1)) / 2, (np.exp(-4) + np.exp(-16 / 9)) / 2),
    ],
)
def test_affinity_graph__weighs_the_edges_of_a_line_as_by_hand(kernel, weight_01, weight_12):
    graph = affinity_graph(exact_neighbors(LINE, 2, metric="euclidean"), kernel=kernel).toarray()
    assert graph[0, 1] == pytest.approx(weight_01)
    assert graph[1, 2] == pytest.approx(weight_12)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("metric", ["angular", "euclidean"])
def test_affinity_graph__is_symmetric_positive_and_has_no_loops(cloud, kernel, metric):
    graph = affinity_graph(exact_neighbors(cloud, 10, metric=metric), kernel=kernel)
    assert abs(graph - graph.T).max() == 0
    assert graph.data.min() > 0
    assert not graph.diagonal().any()


@pytest.mark.parametrize("kernel", KERNELS)
def test_affinity_graph__keeps_the_edge_between_copies_of_a_point(kernel):
    rows = np.array([[0.0], [0.0], [1.0], [3.0]])
    graph = affinity_graph(exact_neighbors(rows, 1, metric="euclidean"), kernel=kernel).toarray()
    assert np.isfinite(graph).all()
    assert graph[0, 1] > 0


@pytest.mark.parametrize("kernel", ["binary", "gaussian", "inverse"])
def test_affinity_graph__of_scaled_points_has_the_same_basis(cloud, kernel):
    values = [
        spectral_basis(affinity_graph(exact_neighbors(s * cloud, 20, metric="euclidean"), kernel=kernel), 8).eigenvalues
        for s in (1.0, 250.0)
    ]
    np.testing.assert_allclose(values[0], values[1], atol=1e-9)


def test_join_components__joins_by_the_shortest_edges_and_counts():
    rows = np.concatenate([np.arange(5.0), 100 + np.arange(5.0), 1000 + np.arange(5.0)])[:, None]
    graph = affinity_graph(exact_neighbors(rows, 2, metric="euclidean"), kernel="binary")
    joined, n_components = join_components(graph, rows, metric="euclidean")
    assert n_components == 3
    assert connected_components(joined, directed=False)[0] == 1
    new_edges = {tuple(edge) for edge in np.argwhere((joined - graph).toarray()).tolist()}
    assert new_edges == {(4, 5), (5, 4), (9, 10), (10, 9)}
    assert spectral_basis(joined, 4).eigenvalues[1] > 0


def test_join_components__leaves_a_graph_in_one_piece_alone(cloud):
    graph = affinity_graph(exact_neighbors(cloud, 20, metric="angular"), kernel="gaussian")
    joined, n_components = join_components(graph, cloud, metric="angular")
    assert n_components == 1
    assert joined is graph


@pytest.mark.parametrize("metric", ["angular", "euclidean"])
@pytest.mark.parametrize("n_features", [5, 300])
def test_join_components__adds_the_minimum_spanning_tree_of_the_pieces(n_features, metric):
    generator = np.random.default_rng(4)
    centers = 9 * generator.standard_normal((12, n_features))
    rows = centers[generator.integers(0, 12, 400)] + 0.1 * generator.standard_normal((400, n_features))
    sparse = affinity_graph(exact_neighbors(rows, 3, metric=metric), kernel="binary")
    joined, n_pieces = join_components(sparse, rows, metric=metric)
    assert n_pieces > 10
    _, labels = connected_components(sparse, directed=False)
    points = rows / np.linalg.norm(rows, axis=1, keepdims=True) if metric == "angular" else rows
    distances = cdist(points, points)
    pieces = [np.flatnonzero(labels == piece) for piece in range(n_pieces)]
    between = np.array([[distances[np.ix_(a, b)].min() for b in pieces] for a in pieces])
    added = np.argwhere(np.triu((joined - sparse).toarray()))
    np.testing.assert_array_equal(np.sort(distances[tuple(added.T)]), np.sort(minimum_spanning_tree(between).data))
