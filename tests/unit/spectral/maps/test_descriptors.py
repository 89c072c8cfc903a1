"""Descriptors against closed forms; what has no descriptor is told."""

import numpy as np
import pytest
from scipy.linalg import expm
from scipy.sparse import csr_array

from lfm_tasks.errors import DataError
from lfm_tasks.spectral.bases.eigenbasis import Basis, spectral_basis
from lfm_tasks.spectral.maps.descriptors import (
    cosine_descriptors,
    geodesic_descriptors,
    heat_signatures,
    label_descriptors,
    landmark_heat_descriptors,
    unit_descriptors,
    wave_signatures,
)
from lfm_tasks.spectral.neighbors.search import Neighbors, exact_neighbors


def ring(n_points):
    return csr_array(np.roll(np.eye(n_points), 1, axis=0) + np.roll(np.eye(n_points), -1, axis=0))


def test_geodesics_on_a_ring__count_the_steps():
    points = 2 * np.pi * np.arange(24) / 24
    steps = exact_neighbors(np.column_stack([np.cos(points), np.sin(points)]), 2, metric="euclidean")
    length = 2 * np.sin(np.pi / 24)
    found = geodesic_descriptors(steps, np.array([0, 5]))
    along = np.minimum(np.arange(24), 24 - np.arange(24))
    np.testing.assert_allclose(found[:, 0], np.exp(-((along * length) ** 2)), atol=1e-12)
    np.testing.assert_allclose(found[:, 1], np.roll(found[:, 0], 5), atol=1e-12)


def test_geodesics__go_through_copies_of_a_point():
    copies = Neighbors(np.array([[1], [2], [1]]), np.array([[0.0], [1.0], [1.0]]))
    np.testing.assert_allclose(geodesic_descriptors(copies, np.array([0, 2]))[2], [np.exp(-1), 1])


def test_geodesics__to_where_no_path_leads_are_refused():
    pieces = Neighbors(np.array([[1], [0], [3], [2]]), np.ones((4, 1)))
    with pytest.raises(DataError, match=r"got 4 points without a path to some anchor. Raise n_neighbors") as caught:
        geodesic_descriptors(pieces, np.array([0, 2]))
    assert caught.value.reason == "disconnected"


def test_cosines__ignore_length_and_follow_rotations(cloud):
    anchors = np.array([3, 17, 100])
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((8, 8)))[0]
    lengths = np.random.default_rng(1).uniform(0.5, 2, (300, 1))
    np.testing.assert_allclose(
        cosine_descriptors(lengths * cloud @ rotation, anchors), cosine_descriptors(cloud, anchors), atol=1e-12
    )


def test_cosines__of_zero_rows_are_refused():
    with pytest.raises(DataError, match="got all-zero rows") as caught:
        cosine_descriptors(np.zeros((5, 3)), np.array([0, 1]))
    assert caught.value.reason == "zero_rows"


@pytest.mark.parametrize("time", [0.5, 4.0])
def test_landmark_heat__is_the_heat_equation_of_a_full_basis(time):
    graph = ring(12)
    laplacian = np.eye(12) - graph.toarray() / 2
    values, vectors = np.linalg.eigh(laplacian)
    basis = Basis(values, vectors, 2.0)
    anchors = np.array([2, 7])
    found = landmark_heat_descriptors(basis, anchors, times=(time,))
    np.testing.assert_allclose(found, expm(-time * laplacian)[:, anchors], atol=1e-12)


def test_signatures__are_alike_for_all_points_of_a_ring_and_tell_those_of_a_path_apart():
    basis = spectral_basis(ring(15), 7)  # whole pairs of equal eigenvalues
    for signatures in (heat_signatures(basis), wave_signatures(basis)):
        np.testing.assert_allclose(signatures, np.broadcast_to(signatures[0], signatures.shape), atol=1e-9)
        np.testing.assert_allclose(signatures.mean(axis=0), 1, atol=1e-9)
    path = csr_array(np.eye(15, k=1) + np.eye(15, k=-1))
    for signatures in (heat_signatures(spectral_basis(path, 7)), wave_signatures(spectral_basis(path, 7))):
        np.testing.assert_allclose(signatures, signatures[::-1], atol=1e-9)  # the path's own symmetry
        assert np.abs(signatures[0] - signatures[7]).max() > 0.1


def test_signatures__need_three_eigenpairs():
    with pytest.raises(DataError, match="got 2 eigenpairs, expected at least 3 for signatures") as caught:
        heat_signatures(spectral_basis(ring(9), 2))
    assert caught.value.reason == "too_few_points"


def test_labels__are_smoothed_by_one_step():
    labels = np.array([0, 0, 1, 1, 1, 0])
    found = label_descriptors(ring(6), labels, classes=np.array([1, 0]))
    expected = (np.roll(labels, 1) + np.roll(labels, -1)) / 2
    np.testing.assert_allclose(found, np.column_stack([expected, 1 - expected]))


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        ([0, 0, 0, 0], [0], "got 1 classes, 0 of them without a point; needs 2 or more"),
        ([0, 0, 1, 1], [0, 1, 2], "got 3 classes, 1 of them without a point"),
    ],
)
def test_labels__of_one_class_or_of_absent_ones_are_refused(labels, classes, message):
    with pytest.raises(DataError, match=message) as caught:
        label_descriptors(ring(4), np.array(labels), classes=np.array(classes))
    assert caught.value.reason == "one_class"


def test_unit_descriptors__have_length_one_and_nothing_of_the_trivial_mode(cloud):
    basis = spectral_basis(ring(40), 5)
    functions = np.random.default_rng(2).standard_normal((40, 6)) + 100
    units = unit_descriptors(basis, functions)
    np.testing.assert_allclose(np.linalg.norm(units, axis=0), 1)
    np.testing.assert_allclose(basis.eigenvectors[:, 0] @ units, 0, atol=1e-12)
    np.testing.assert_allclose(unit_descriptors(basis, 7 * functions + 3), units, atol=1e-10)


def test_unit_descriptors__refuse_constants():
    basis = spectral_basis(ring(10), 3)
    with pytest.raises(DataError, match="got 1 descriptors that are constant over the space") as caught:
        unit_descriptors(basis, np.column_stack([np.ones(10), np.arange(10.0)]))
    assert caught.value.reason == "constant"
