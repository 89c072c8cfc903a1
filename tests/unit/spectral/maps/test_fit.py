"""Maps without known pairs, on permuted rows and unequal n: from classes, from spectra alone; bad labels are told."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from lfm_tasks.errors import DataError
from lfm_tasks.spectral.bases.space import spectral_space
from lfm_tasks.spectral.maps.fit import fit_from_labels, fit_unsupervised
from lfm_tasks.spectral.maps.refinement import Start


@pytest.fixture(scope="module")
def spaces(digit_views):
    source, target, partner = digit_views
    return spectral_space(source, n_eigenpairs=40), spectral_space(target, n_eigenpairs=40), partner


@pytest.fixture(scope="module")
def labels(digit_views):
    of_source = load_digits().target[:500]
    return of_source, of_source[digit_views[2]]


def test_labels__lead_to_the_points_of_another_view(spaces, labels):
    source, target, partner = spaces
    fit = fit_from_labels(source, target, *labels)
    assert (labels[0][fit.matches] == labels[1]).mean() > 0.95
    assert (fit.matches == partner).mean() > 0.9


def test_labels_of_scrambled_points__leave_a_larger_residual(spaces, labels):
    source, target, partner = spaces
    right = fit_from_labels(source, target, *labels)
    scrambled = np.random.default_rng(0).permutation(labels[1])
    wrong = fit_from_labels(source, target, labels[0], scrambled, starts=(Start("labels", 10),))
    assert (wrong.matches == partner).mean() < 0.5
    assert right.residual < wrong.residual


def test_labels_of_one_side_only__take_no_part(spaces, labels):
    source, target, _ = spaces
    renamed = np.where(labels[0] == 9, 77, labels[0])
    fit = fit_from_labels(source, target, renamed, labels[1])
    assert (labels[0][fit.matches] == labels[1]).mean() > 0.9


def test_labels__of_one_class_or_of_another_number_are_refused(spaces, labels):
    source, target, _ = spaces
    with pytest.raises(DataError, match="got 1 classes, 0 of them without a point; needs 2 or more") as caught:
        fit_from_labels(source, target, np.full(500, 3), labels[1])
    assert caught.value.reason == "one_class"
    with pytest.raises(ValueError, match="got 440 labels for 500 source points, expected one each"):
        fit_from_labels(source, target, labels[1], labels[1])


def test_spectra_alone__find_the_points_of_a_turned_copy(digit_views):
    rows, _, _ = digit_views
    order = np.random.default_rng(1).permutation(500)
    turn = np.linalg.qr(np.random.default_rng(2).standard_normal((64, 64)))[0]
    fit = fit_unsupervised(spectral_space(rows, n_eigenpairs=40), spectral_space((rows @ turn)[order], n_eigenpairs=40))
    assert (fit.matches == order).all()
    assert fit.residual < 1e-6
    assert fit.orthogonality_error < 1e-9
    assert fit.commutativity_error < 1e-9


def test_spectra_of_unrelated_spaces__end_with_a_large_residual(spaces):
    source, target, _ = spaces
    noise = spectral_space(np.random.default_rng(3).standard_normal((400, 20)), n_eigenpairs=40)
    related, unrelated = fit_unsupervised(source, target), fit_unsupervised(source, noise)
    assert unrelated.residual > 1.2 * related.residual
    assert unrelated.orthogonality_error > related.orthogonality_error


def test_spectra__need_three_eigenpairs():
    ring = np.array([[np.cos(angle), np.sin(angle)] for angle in np.arange(20) * np.pi / 10])
    space = spectral_space(ring, n_eigenpairs=2, n_neighbors=2)
    with pytest.raises(DataError, match="got 2 eigenpairs, expected at least 3 for signatures"):
        fit_unsupervised(space, space)
