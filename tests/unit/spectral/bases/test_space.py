"""Points outside the sample, and bases on landmarks against bases of all points."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from lfm_tasks.errors import DataError
from lfm_tasks.spectral.bases.eigenbasis import spectral_basis
from lfm_tasks.spectral.bases.full_map import full_map, overlap
from lfm_tasks.spectral.bases.graph import affinity_graph, join_components
from lfm_tasks.spectral.bases.graph_kernels import KERNELS
from lfm_tasks.spectral.bases.space import (
    LandmarkSpace,
    agreement_with_half,
    as_sample,
    extend_basis,
    extended,
    invariances,
    landmark_space,
    new_weights,
    orthonormal,
    spectral_space,
)
from lfm_tasks.spectral.neighbors.search import exact_neighbors


def neighbors_and_graph(rows, *, kernel="gaussian", n_neighbors=12, metric="euclidean"):
    neighbors = exact_neighbors(rows, n_neighbors, metric=metric)
    graph, _ = join_components(affinity_graph(neighbors, kernel=kernel), rows, metric=metric)
    return neighbors, graph


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("metric", ["euclidean", "angular"])
def test_weights_of_a_point_left_out__are_its_row_of_the_whole_graph(cloud, kernel, metric):
    _, graph = neighbors_and_graph(cloud, kernel=kernel, metric=metric)
    kept = np.delete(np.arange(300), 17)
    sample = exact_neighbors(cloud[kept], 12, metric=metric)
    weights = new_weights(cloud[[17]], as_sample(cloud[kept], sample, metric=metric, kernel=kernel))
    np.testing.assert_allclose(weights.toarray()[0], graph.toarray()[17, kept], rtol=1e-6, atol=1e-12)


def test_extension__of_the_samples_own_rows_is_the_basis(cloud):
    _, graph = neighbors_and_graph(cloud)
    basis = spectral_basis(graph, 10)
    np.testing.assert_allclose(extend_basis(basis, graph, graph), basis.eigenvectors, atol=1e-9)


def test_extension__of_new_points_agrees_with_the_basis_of_all(cloud):
    generator = np.random.default_rng(2)
    rows = generator.standard_normal((600, 2))
    new = generator.permutation(600)[:60]
    kept = np.setdiff1d(np.arange(600), new)
    whole = spectral_basis(neighbors_and_graph(rows, n_neighbors=30)[1], 5).eigenvectors
    neighbors, graph = neighbors_and_graph(rows[kept], n_neighbors=30)
    weights = new_weights(rows[new], as_sample(rows[kept], neighbors, metric="euclidean", kernel="gaussian"))
    found = extend_basis(spectral_basis(graph, 5), graph, weights)
    for mode in range(5):
        assert abs(np.corrcoef(found[:, mode], whole[new, mode])[0, 1]) > 0.97


def test_extension__refuses_eigenvalues_near_one_and_points_without_weight():
    ring = np.roll(np.eye(12), 1, axis=0) + np.roll(np.eye(12), -1, axis=0)
    graph = csr_array(ring)
    with pytest.raises(DataError, match=r"got the eigenvalue 1\.0000, too near to 1 to extend") as caught:
        extend_basis(spectral_basis(graph, 8), graph, graph)
    assert caught.value.reason == "inaccurate"
    with pytest.raises(DataError, match="got 1 new points without a neighbor") as caught:
        extend_basis(spectral_basis(graph, 3), graph, csr_array((1, 12)))
    assert caught.value.reason == "disconnected"


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    """2,000 points of four clusters that touch, seen through a layer."""
    generator = np.random.default_rng(0)
    centers = 1.5 * generator.standard_normal((4, 3))
    latent = centers[generator.integers(0, 4, 2000)] + generator.standard_normal((2000, 3))
    return np.tanh(latent @ generator.standard_normal((3, 20))).astype(np.float32)


def space_of(rows: np.ndarray, metric: str = "angular", kernel: str = "binary", n_neighbors: int = 30) -> LandmarkSpace:
    neighbors = exact_neighbors(rows, n_neighbors, metric=metric)
    return landmark_space(rows, neighbors, 8, metric=metric, kernel=kernel)


def from_landmarks(rows: np.ndarray, every: int, **choices: str) -> np.ndarray:
    space, found = space_of(rows[::every], **choices), np.empty((len(rows), 8))
    found[::every] = space.basis.eigenvectors
    others = np.arange(len(rows)) % every != 0
    found[others] = extended(space, rows[others])
    return orthonormal(found)


@pytest.mark.parametrize("metric", ["angular", "euclidean"])
@pytest.mark.parametrize("kernel", ["binary", "gaussian"])
def test_extended_basis__spans_what_the_basis_of_all_points_does(rows: np.ndarray, metric: str, kernel: str) -> None:
    whole = space_of(rows, metric, kernel, n_neighbors=60).basis.eigenvectors
    found = from_landmarks(rows, 2, metric=metric, kernel=kernel)
    assert overlap(full_map(found, whole)) > 0.93
    np.testing.assert_allclose(found.T @ found, np.eye(8), atol=1e-12)


def test_extended_rows__do_not_depend_on_the_rows_beside_them(rows: np.ndarray) -> None:
    space = space_of(rows[:600])
    together = extended(space, rows[600:])
    apart = np.concatenate([extended(space, rows[600:1111]), extended(space, rows[1111:])])
    np.testing.assert_allclose(together, apart, atol=1e-6)


def test_extended_rows__of_another_scale_are_the_same_angularly(rows: np.ndarray) -> None:
    space = space_of(rows[:600])
    np.testing.assert_allclose(extended(space, 3 * rows[600:]), extended(space, rows[600:]), atol=1e-5)


def test_agreement_with_half__falls_with_fewer_landmarks(rows: np.ndarray) -> None:
    agreements = []
    for every in (1, 4):
        own = rows[::every]
        half = exact_neighbors(own[::2], 30, metric="angular")
        agreements.append(agreement_with_half(space_of(own), own, half))
    assert 0.5 < agreements[1] < agreements[0] < 1


def test_orthonormal__keeps_the_span_of_the_first_columns() -> None:
    vectors = np.random.default_rng(0).standard_normal((50, 4)) + 2
    found = orthonormal(vectors)
    np.testing.assert_allclose(found.T @ found, np.eye(4), atol=1e-12)
    for k in range(1, 5):
        own = found[:, :k]
        np.testing.assert_allclose(own @ (own.T @ vectors[:, :k]), vectors[:, :k], atol=1e-10)


def test_orthonormal__refuses_columns_that_hardly_differ() -> None:
    with pytest.raises(DataError, match=r"extended eigenvectors hardly differ. Raise"):
        orthonormal(np.ones((10, 2)))


CHANGES = {
    "rotation": lambda rows: rows @ np.linalg.qr(np.random.default_rng(5).standard_normal((8, 8)))[0],
    "permutation": lambda rows: rows[:, ::-1],
    "scaling": lambda rows: 3.7 * rows,
    "translation": lambda rows: rows + np.arange(8),
    "invertible": lambda rows: rows @ (np.eye(8) + 0.3 * np.random.default_rng(6).standard_normal((8, 8))),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(("metric", "center"), [("angular", True), ("angular", False), ("euclidean", True)])
def test_space__is_invariant_to_what_it_claims_and_to_nothing_else(cloud, change, metric, center):
    whole, changed = (
        spectral_space(rows, n_eigenpairs=20, n_neighbors=12, kernel="binary", metric=metric, center=center)
        for rows in (cloud, CHANGES[change](cloud))
    )
    same = overlap(full_map(whole.basis.eigenvectors, changed.basis.eigenvectors))
    if change in invariances(metric, center=center):
        assert same == pytest.approx(1, abs=1e-9)
    else:
        assert same < 0.95
