"""Eigenpairs against closed forms and the dense solver; signs; gaps; what has no basis."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from lfm_tasks.errors import DataError
from lfm_tasks.spectral.bases import eigenbasis as basis_module
from lfm_tasks.spectral.bases import eigenbasis as filtered_krylov
from lfm_tasks.spectral.bases.eigenbasis import (
    Basis,
    basis_quality,
    choose_solver,
    fix_signs,
    normalized_adjacency,
    spectral_basis,
)
from lfm_tasks.spectral.bases.graph import affinity_graph
from lfm_tasks.spectral.neighbors.search import exact_neighbors


def path(n_points):
    return csr_array(np.eye(n_points, k=1) + np.eye(n_points, k=-1))


def ring(n_points):
    return csr_array(np.roll(np.eye(n_points), 1, axis=0) + np.roll(np.eye(n_points), -1, axis=0))


def knn_graph(rows, n_neighbors=20, kernel="binary"):
    return affinity_graph(exact_neighbors(rows, n_neighbors, metric="euclidean"), kernel=kernel)


def test_spectral_basis__of_a_ring_has_its_eigenvalues():
    frequencies = np.sort(np.minimum(np.arange(30), 30 - np.arange(30)))[:9]
    found = spectral_basis(ring(30), 9)
    np.testing.assert_allclose(found.eigenvalues, 1 - np.cos(2 * np.pi * frequencies / 30), atol=1e-12)
    assert found.next_eigenvalue == pytest.approx(1 - np.cos(2 * np.pi * 5 / 30))


def test_spectral_basis__of_a_path_has_its_eigenpairs():
    found = spectral_basis(path(25), 6)
    np.testing.assert_allclose(found.eigenvalues, 1 - np.cos(np.pi * np.arange(6) / 24), atol=1e-12)
    degrees = np.r_[1, np.full(23, 2), 1]
    waves = np.sqrt(degrees)[:, None] * np.cos(np.pi * np.outer(np.arange(25), np.arange(6)) / 24)
    np.testing.assert_allclose(found.eigenvectors, fix_signs(waves / np.linalg.norm(waves, axis=0)), atol=1e-10)


def test_spectral_basis__of_a_complete_graph_has_one_eigenvalue_besides_zero():
    found = spectral_basis(csr_array(np.ones((12, 12)) - np.eye(12)), 11)
    np.testing.assert_allclose(found.eigenvalues, np.r_[0, np.full(10, 12 / 11)], atol=1e-12)


def test_spectral_basis__takes_the_lowest_frequencies_where_magnitudes_would_mix_in_the_highest():
    bipartite = np.kron([[0, 1], [1, 0]], np.ones((4, 4)))
    assert spectral_basis(csr_array(bipartite), 2).eigenvalues.tolist() == pytest.approx([0, 1])


def test_spectral_basis__sparse_solver_agrees_with_the_dense_one():
    graph = knn_graph(np.random.default_rng(5).standard_normal((600, 3)), 12, "gaussian")
    found = spectral_basis(graph, 10)
    values, vectors = np.linalg.eigh(np.eye(600) - normalized_adjacency(graph).toarray())
    np.testing.assert_allclose(found.eigenvalues, values[:10], atol=1e-10)
    np.testing.assert_allclose(found.eigenvectors, fix_signs(vectors[:, :10]), atol=1e-6)
    assert found.next_eigenvalue == pytest.approx(values[10])


def test_spectral_basis__first_eigenvector_is_the_root_of_the_degrees(cloud):
    graph = knn_graph(cloud)
    degrees = graph.sum(axis=1)
    found = spectral_basis(graph, 3)
    np.testing.assert_allclose(found.eigenvectors[:, 0], np.sqrt(degrees / degrees.sum()), atol=1e-9)


def test_spectral_basis__follows_a_permutation_of_the_points(cloud):
    order = np.random.default_rng(6).permutation(300)
    first, second = spectral_basis(knn_graph(cloud), 5), spectral_basis(knn_graph(cloud[order]), 5)
    np.testing.assert_allclose(first.eigenvectors[order], second.eigenvectors, atol=1e-7)


def test_spectral_basis__gives_the_same_bytes_twice():
    graph = knn_graph(np.random.default_rng(5).standard_normal((600, 3)))
    assert spectral_basis(graph, 10).eigenvectors.tobytes() == spectral_basis(graph, 10).eigenvectors.tobytes()


def test_spectral_basis__refuses_a_graph_in_pieces():
    with pytest.raises(DataError, match="got a graph of 2 components, expected 1") as caught:
        spectral_basis(csr_array(np.kron(np.eye(2), np.ones((5, 5)) - np.eye(5))), 3)
    assert caught.value.reason == "disconnected"


def test_spectral_basis__refuses_more_eigenpairs_than_points():
    with pytest.raises(DataError, match="expected at least 9 for 8 eigenpairs") as caught:
        spectral_basis(ring(8), 8)
    assert caught.value.reason == "too_few_points"


def test_spectral_basis__refuses_no_eigenpairs():
    with pytest.raises(ValueError, match="expected at least 1"):
        spectral_basis(ring(8), 0)


def test_fix_signs__makes_the_largest_entry_positive_and_breaks_ties_by_the_lowest_row():
    vectors = np.array([[0.1, 0.5, -0.5], [-0.9, -0.5, 0.5 + 1e-9]])
    np.testing.assert_array_equal(fix_signs(vectors), vectors * [-1, 1, -1])


def test_basis_quality__reports_a_cut_through_equal_eigenvalues_and_a_spoiled_vector():
    graph = ring(30)
    assert basis_quality(graph, spectral_basis(graph, 2)).eigengap == pytest.approx(0, abs=1e-12)
    whole = spectral_basis(graph, 3)
    quality = basis_quality(graph, whole)
    assert quality.residual < 1e-12
    assert quality.orthonormality < 1e-12
    assert quality.n_zero_eigenvalues == 1
    assert quality.eigengap > 0.06
    vectors = whole.eigenvectors.copy()
    vectors[0] += 0.1
    spoiled = basis_quality(graph, Basis(whole.eigenvalues, vectors, whole.next_eigenvalue))
    assert spoiled.residual > 0.01
    assert spoiled.orthonormality > 0.01


def filtered_and_lanczos(graph, n_eigenpairs, monkeypatch):
    monkeypatch.setattr(basis_module, "_FILTERED_FROM", 400)
    filtered = spectral_basis(graph, n_eigenpairs)
    monkeypatch.setattr(basis_module, "_FILTERED_FROM", 10**9)
    return filtered, spectral_basis(graph, n_eigenpairs)


@pytest.mark.parametrize("kernel", ["binary", "gaussian"])
def test_spectral_basis__filtered_is_that_of_lanczos_to_a_millionth_of_the_gap(kernel, monkeypatch):
    graph = knn_graph(np.random.default_rng(5).standard_normal((900, 4)), 12, kernel)
    filtered, lanczos = filtered_and_lanczos(graph, 20, monkeypatch)
    assert (filtered.solver, lanczos.solver) == ("filtered", "lanczos")
    np.testing.assert_allclose(filtered.eigenvalues, lanczos.eigenvalues, atol=1e-12)
    assert filtered.next_eigenvalue == pytest.approx(lanczos.next_eigenvalue, abs=1e-10)
    quality = basis_quality(graph, filtered)
    assert quality.residual < 1e-6 * quality.eigengap
    assert quality.orthonormality < 1e-12
    assert np.linalg.norm(filtered.eigenvectors.T @ lanczos.eigenvectors) ** 2 == pytest.approx(20, abs=1e-9)


def test_spectral_basis__filtered_gives_the_same_bytes_twice_and_follows_a_permutation(monkeypatch):
    monkeypatch.setattr(basis_module, "_FILTERED_FROM", 400)
    rows = np.random.default_rng(7).standard_normal((800, 3))
    order = np.random.default_rng(8).permutation(800)
    first, again = spectral_basis(knn_graph(rows), 10), spectral_basis(knn_graph(rows), 10)
    assert first.eigenvectors.tobytes() == again.eigenvectors.tobytes()
    moved = spectral_basis(knn_graph(rows[order]), 10)
    np.testing.assert_allclose(moved.eigenvalues, first.eigenvalues, atol=1e-12)
    np.testing.assert_allclose(moved.eigenvectors, first.eigenvectors[order], atol=1e-7)


def test_spectral_basis__filtered_finds_equal_eigenvalues_or_says_that_lanczos_had_to(monkeypatch):
    filtered, lanczos = filtered_and_lanczos(ring(1000), 9, monkeypatch)
    assert filtered.solver in ("filtered", "lanczos after filtered")
    np.testing.assert_allclose(filtered.eigenvalues, lanczos.eigenvalues, atol=1e-10)


@pytest.mark.parametrize("reason", ["a pair is missing", "a block has lost its rank"])
def test_spectral_basis__falls_back_to_lanczos_and_says_so(reason, monkeypatch):
    graph = knn_graph(np.random.default_rng(5).standard_normal((900, 4)), 12)
    if reason == "a pair is missing":
        monkeypatch.setattr(filtered_krylov, "_largest_left", lambda *_: 1.0)
    else:
        monkeypatch.setattr(filtered_krylov, "cholesky", lambda matrix: np.linalg.cholesky(-matrix))
    filtered, lanczos = filtered_and_lanczos(graph, 20, monkeypatch)
    assert filtered.solver == "lanczos after filtered"
    np.testing.assert_array_equal(filtered.eigenvectors, lanczos.eigenvectors)


def test_filtered_eigenpairs__lower_an_interval_that_reaches_too_high(monkeypatch):
    graph = knn_graph(np.random.default_rng(5).standard_normal((900, 4)), 12)
    expected = filtered_krylov.filtered_eigenpairs(graph, 20)
    monkeypatch.setattr(filtered_krylov, "_survey", lambda *_: (-0.4, 0.95))
    found = filtered_krylov.filtered_eigenpairs(graph, 20)
    np.testing.assert_allclose(found[0], expected[0], atol=1e-12)


def test_choose_solver__is_dense_for_few_points_and_filtered_for_many_with_few_pairs():
    assert [choose_solver(n, 51) for n in (300, 3000, 10_000, 300_000)] == ["dense", "lanczos", "filtered", "lanczos"]
    assert [choose_solver(10_000, k) for k in (201, 2000, 6000)] == ["filtered", "lanczos", "dense"]
