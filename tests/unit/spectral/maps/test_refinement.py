"""Maps grown by ZoomOut on permuted rows and unequal n, and the samples that they are grown on."""

import numpy as np
import pytest

from lfm_tasks.errors import DataError
from lfm_tasks.spectral.bases.eigenbasis import Basis
from lfm_tasks.spectral.maps.decoding import (
    embed,
    nearest_points,
)
from lfm_tasks.spectral.maps.refinement import farthest_points, map_of_points, zoomout


def test_map_of_points__is_the_least_squares_map():
    generator = np.random.default_rng(0)
    source, target, matches = (
        generator.standard_normal((20, 4)),
        generator.standard_normal((30, 5)),
        generator.integers(0, 20, 30),
    )
    expected = np.linalg.lstsq(target, source[matches])[0]
    np.testing.assert_allclose(map_of_points(matches, source, target), expected, atol=1e-12)


@pytest.mark.parametrize(("adjoint", "n_low"), [(False, 4), (True, 8)])
def test_zoomout__grows_the_true_low_map_into_the_true_points(views, adjoint, n_low):
    source, target, partner, truth = views
    grown = zoomout(truth[:n_low, :n_low], source, target, adjoint=adjoint)
    assert grown.shape == (30, 30)
    found = (nearest_points(embed(grown, source, target)) == partner).mean()
    assert found > (nearest_points(embed(truth[:4, :4], source, target)) == partner).mean() + 0.2
    assert found > 0.75


def test_zoomout__does_not_care_for_the_order_of_rows(views):
    source, target, _, truth = views
    order = np.random.default_rng(1).permutation(len(source.eigenvectors))
    shuffled = Basis(source.eigenvalues, source.eigenvectors[order], source.next_eigenvalue)
    np.testing.assert_allclose(
        zoomout(truth[:8, :8], shuffled, target), zoomout(truth[:8, :8], source, target), atol=1e-10
    )


def test_zoomout__takes_bases_of_different_size_and_larger_steps(views):
    source, target, partner, truth = views
    small = Basis(target.eigenvalues[:24], target.eigenvectors[:, :24], 1.0)
    grown = zoomout(truth[:8, :8], source, small, step=3)
    assert grown.shape == (24, 30)
    assert (nearest_points(embed(grown, source, small)) == partner).mean() > 0.6


def test_zoomout__refuses_a_start_or_samples_that_do_not_fit(views):
    source, target, _, truth = views
    with pytest.raises(DataError, match=r"got 20 samples and a start of \(8, 8\) for 30 × 30 modes") as caught:
        zoomout(truth[:8, :8], source, target, n_samples=20)
    assert caught.value.reason == "too_few_points"
    with pytest.raises(DataError, match=r"a start of \(31, 31\)"):
        zoomout(np.eye(31), source, target)


def test_farthest_points__are_spread_and_distinct():
    line = np.arange(101, dtype=float)[:, None]
    assert farthest_points(line, 3).tolist() == [0, 50, 100]
    assert farthest_points(line, 5).tolist() == [0, 25, 50, 75, 100]
    assert farthest_points(line, 500).tolist() == list(range(101))
