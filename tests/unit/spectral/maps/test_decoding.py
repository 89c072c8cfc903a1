"""From maps to points on permuted rows and unequal n; plans against their marginals; where two spaces differ."""

import numpy as np
import pytest

from lfm_tasks.errors import DataError
from lfm_tasks.spectral.bases.eigenbasis import Basis, spectral_basis
from lfm_tasks.spectral.bases.full_map import full_map
from lfm_tasks.spectral.bases.graph import affinity_graph, join_components
from lfm_tasks.spectral.maps.decoding import (
    Embedding,
    embed,
    nearest_points,
    sinkhorn_plan,
    source_distortion,
    target_distortion,
)
from lfm_tasks.spectral.neighbors.search import exact_neighbors


def test_true_map__is_decoded_into_the_true_points(views):
    source, target, partner, truth = views
    assert (nearest_points(embed(truth, source, target)) == partner).mean() > 0.85
    assert (nearest_points(embed(truth, source, target, adjoint=True)) == partner).mean() > 0.75


def test_map_larger_than_a_basis__is_refused(views):
    source, target, _, _ = views
    with pytest.raises(DataError, match=r"got 30 eigenpairs, expected 40 for the map. Raise n_eigenpairs"):
        embed(np.eye(40), source, target)


def test_transport__finds_more_points_than_nearest_rows(views):
    source, target, partner, truth = views
    embedding = embed(truth[:12, :12], source, target)
    plan = sinkhorn_plan(embedding)
    nearest = (nearest_points(embedding) == partner).mean()
    assert (plan.argmax(axis=1) == partner).mean() > nearest


def test_transport__of_equal_sets_has_both_marginals_and_is_a_permutation_where_it_is_clear():
    rows = np.random.default_rng(2).standard_normal((12, 5))
    order = np.random.default_rng(3).permutation(12)
    plan = sinkhorn_plan(Embedding(rows, rows[order]), n_rounds=500)
    np.testing.assert_allclose(plan.sum(axis=1), 1, atol=1e-9)
    assert plan.sum(axis=0).max() <= 1 + 1e-6
    assert plan.argmax(axis=1).tolist() == order.tolist()


def test_transport__leaves_source_points_without_partner_empty_and_holds_more_where_it_must():
    source, target = np.array([[0.0], [1.0], [50.0]]), np.array([[0.1], [0.9]])
    plan = sinkhorn_plan(Embedding(source, target))
    assert plan.argmax(axis=1).tolist() == [0, 1]
    assert plan[:, 2].max() < 1e-6
    crowded = sinkhorn_plan(Embedding(target, source[[0, 0, 0, 1]]), n_rounds=500)
    np.testing.assert_allclose(crowded.sum(axis=1), 1, atol=1e-9)
    assert crowded.sum(axis=0).max() <= 2 + 1e-6


def neighbors_and_graph(rows, *, kernel="gaussian", n_neighbors=12, metric="euclidean"):
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
    source = spectral_basis(neighbors_and_graph(rows)[1], 30)
    target = spectral_basis(neighbors_and_graph(other)[1], 30)
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
