"""Where two spaces differ, and points that came later."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from lfm_tasks.errors import DataError
from lfm_tasks.spectral.bases.eigenbasis import Basis, spectral_basis
from lfm_tasks.spectral.bases.full_map import full_map
from lfm_tasks.spectral.bases.graph import affinity_graph, join_components
from lfm_tasks.spectral.bases.space import as_sample, extend_basis, new_weights
from lfm_tasks.spectral.maps.decoding import source_distortion, target_distortion
from lfm_tasks.spectral.neighbors.search import exact_neighbors


def space(rows, *, kernel="gaussian", n_neighbors=12, metric="euclidean"):
    neighbors = exact_neighbors(rows, n_neighbors, metric=metric)
    graph, _ = join_components(affinity_graph(neighbors, kernel=kernel), rows, metric=metric)
    return neighbors, graph


def test_distortion__is_zero_between_equal_spans_and_averages_to_what_is_lost():
    generator = np.random.default_rng(0)
    source, target = (np.linalg.qr(generator.standard_normal((80, k)))[0] for k in (7, 9))
    basis = Basis(np.arange(9.0), target, 9.0)
    rotation = np.linalg.qr(generator.standard_normal((9, 9)))[0]
    np.testing.assert_allclose(target_distortion(full_map(target @ rotation, target), basis), 0, atol=1e-12)
    functional_map = full_map(source, target)
    distortion = target_distortion(functional_map, basis)
    np.testing.assert_allclose(distortion.mean(), 1 - np.square(functional_map).sum() / 9)
    # The same by its meaning: what of the target's functions the source's do not span.
    lost = target - source @ (source.T @ target)
    expected = 80 * np.einsum("ij,ij->i", target @ (target.T @ lost), target) / 9
    np.testing.assert_allclose(distortion, expected, atol=1e-12)


def test_distortion__is_largest_on_the_points_that_were_moved():
    generator = np.random.default_rng(1)
    rows = generator.standard_normal((300, 3))
    moved = np.arange(300) % 10 == 0
    other = rows.copy()
    other[moved] = other[moved][generator.permutation(moved.sum())]
    order = generator.permutation(300)
    source = spectral_basis(space(rows)[1], 30)
    target = spectral_basis(space(other)[1], 30)
    # The target's rows come in another order; the map is on the ids that both share.
    shuffled = Basis(target.eigenvalues, target.eigenvectors[order], target.next_eigenvalue)
    functional_map = full_map(source.eigenvectors[order], shuffled.eigenvectors)
    for distortion, where in (
        (target_distortion(functional_map, shuffled), moved[order]),
        (source_distortion(functional_map, source), moved),
        (target_distortion(functional_map, shuffled, n_vectors=10), moved[order]),
    ):
        assert (distortion >= -1e-12).all()
        assert distortion[where].mean() > 1.7 * distortion[~where].mean()


@pytest.mark.parametrize("kernel", ["binary", "gaussian", "inverse", "distance"])
@pytest.mark.parametrize("metric", ["euclidean", "angular"])
def test_weights_of_a_point_left_out__are_its_row_of_the_whole_graph(cloud, kernel, metric):
    _, graph = space(cloud, kernel=kernel, metric=metric)
    kept = np.delete(np.arange(300), 17)
    sample = exact_neighbors(cloud[kept], 12, metric=metric)
    weights = new_weights(cloud[[17]], as_sample(cloud[kept], sample, metric=metric, kernel=kernel))
    np.testing.assert_allclose(weights.toarray()[0], graph.toarray()[17, kept], rtol=1e-6, atol=1e-12)


def test_extension__of_the_samples_own_rows_is_the_basis(cloud):
    _, graph = space(cloud)
    basis = spectral_basis(graph, 10)
    np.testing.assert_allclose(extend_basis(basis, graph, graph), basis.eigenvectors, atol=1e-9)


def test_extension__of_new_points_agrees_with_the_basis_of_all(cloud):
    generator = np.random.default_rng(2)
    rows = generator.standard_normal((600, 2))
    new = generator.permutation(600)[:60]
    kept = np.setdiff1d(np.arange(600), new)
    whole = spectral_basis(space(rows, n_neighbors=30)[1], 5).eigenvectors
    neighbors, graph = space(rows[kept], n_neighbors=30)
    weights = new_weights(rows[new], as_sample(rows[kept], neighbors, metric="euclidean", kernel="gaussian"))
    found = extend_basis(spectral_basis(graph, 5), graph, weights)
    for mode in range(5):
        assert abs(np.corrcoef(found[:, mode], whole[new, mode])[0, 1]) > 0.97


def test_extension__refuses_eigenvalues_near_one_and_points_without_weight():
    ring = np.roll(np.eye(12), 1, axis=0) + np.roll(np.eye(12), -1, axis=0)
    graph = csr_array(ring)
    with pytest.raises(DataError, match=r"found the eigenvalue 1\.0000, too near to 1 to extend") as caught:
        extend_basis(spectral_basis(graph, 8), graph, graph)
    assert caught.value.reason == "inaccurate"
    with pytest.raises(DataError, match="found 1 new points without a neighbor") as caught:
        extend_basis(spectral_basis(graph, 3), graph, csr_array((1, 12)))
    assert caught.value.reason == "disconnected"
