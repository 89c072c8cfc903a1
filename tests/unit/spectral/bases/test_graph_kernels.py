"""One table of graph kernels: what stands in it works in the graph and outside the sample, all else is refused."""

import json
from typing import Any, get_args

import numpy as np
import pytest
from pydantic import ValidationError

from lfm_tasks.catalog import catalog_schema
from lfm_tasks.config import GraphConfig
from lfm_tasks.spectral.bases.graph import affinity_graph
from lfm_tasks.spectral.bases.graph_kernels import KERNELS, Edges, GraphKernel, find_kernel, smallest_distance
from lfm_tasks.spectral.bases.space import as_sample, landmark_space, new_weights, spectral_space
from lfm_tasks.spectral.neighbors.search import exact_neighbors


@pytest.mark.parametrize("averages", [False, True])
@pytest.mark.parametrize("metric", ["euclidean", "angular"])
def test_new_row_of_the_table__weighs_the_graph_and_new_points_alike(
    cloud: np.ndarray, metric: str, averages: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def weights(edges: Edges) -> np.ndarray:
        return 1 / (1 + (edges.distances / np.maximum(edges.reaches, edges.smallest)) ** 2)

    monkeypatch.setitem(KERNELS, "cauchy", GraphKernel(weights, averages=averages))
    graph = affinity_graph(exact_neighbors(cloud, 12, metric=metric), kernel="cauchy").toarray()
    kept = np.delete(np.arange(300), 17)
    sample = as_sample(cloud[kept], exact_neighbors(cloud[kept], 12, metric=metric), metric=metric, kernel="cauchy")

    np.testing.assert_array_equal(graph, graph.T)
    np.testing.assert_allclose(new_weights(cloud[[17]], sample).toarray()[0], graph[17, kept], rtol=1e-6, atol=1e-12)


def test_kernels_by_distance_alone__give_the_same_weight_in_both_directions(cloud: np.ndarray) -> None:
    neighbors = exact_neighbors(cloud, 12, metric="euclidean")
    for name in ("binary", "inverse", "distance"):
        expected = KERNELS[name].weights(
            Edges(neighbors.distances, neighbors.distances[:, -1:], smallest_distance(neighbors.distances))
        )
        graph = affinity_graph(neighbors, kernel=name).toarray()
        np.testing.assert_array_equal(np.take_along_axis(graph, neighbors.indices.astype(int), axis=1), expected)


def test_smallest_distance__leaves_copies_out_and_never_makes_weights_infinite() -> None:
    assert smallest_distance(np.array([[0.0, 0.5], [0.25, 3.0]])) == 0.25
    assert smallest_distance(np.zeros((3, 2))) == 1.0
    assert np.isfinite(1 / smallest_distance(np.array([[5e-324]])))


@pytest.mark.parametrize("use", ["graph", "sample", "landmarks", "space"])
def test_unknown_kernel__is_refused_everywhere(cloud: np.ndarray, use: str) -> None:
    neighbors = exact_neighbors(cloud, 12, metric="euclidean")
    uses: dict[str, Any] = {
        "graph": lambda: affinity_graph(neighbors, kernel="binari"),
        "sample": lambda: as_sample(cloud, neighbors, metric="euclidean", kernel="binari"),
        "landmarks": lambda: landmark_space(cloud, neighbors, 5, metric="euclidean", kernel="binari"),
        "space": lambda: spectral_space(cloud, n_eigenpairs=5, kernel="binari"),
    }
    with pytest.raises(ValueError, match="got the graph kernel 'binari', expected one of binary, gaussian, inverse"):
        uses[use]()


def test_catalog__knows_the_kernels_of_the_table_and_no_others() -> None:
    assert get_args(GraphConfig.model_fields["kernel"].annotation) == tuple(KERNELS)
    assert all(GraphConfig(kernel=name).kernel == name for name in KERNELS)
    with pytest.raises(ValidationError, match="Input should be 'binary', 'gaussian'"):
        GraphConfig(kernel="binari")
    assert json.dumps(list(KERNELS)) in json.dumps(catalog_schema())


def test_find_kernel__returns_the_row_of_the_table() -> None:
    assert find_kernel("gaussian") is KERNELS["gaussian"]
