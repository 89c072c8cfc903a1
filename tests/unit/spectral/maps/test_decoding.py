"""From maps to points on permuted rows and unequal n; plans against their marginals."""

import numpy as np
import pytest

from lfm_tasks.errors import DataError
from lfm_tasks.spectral.bases.eigenbasis import Basis
from lfm_tasks.spectral.bases.space import spectral_space
from lfm_tasks.spectral.maps.decoding import (
    Embedding,
    csls_scores,
    embed,
    match_confidence,
    nearest_points,
    plan_confidence,
    scaled_rows,
    sinkhorn_plan,
)
from lfm_tasks.spectral.maps.refinement import farthest_points, map_of_points, zoomout


@pytest.fixture(scope="module")
def views(digit_views):
    """Return both spaces, the source row of every target row, and the map that all pairs give."""
    source_rows, target_rows, partner = digit_views
    source, target = spectral_space(source_rows, n_eigenpairs=30), spectral_space(target_rows, n_eigenpairs=30)
    truth = map_of_points(partner, scaled_rows(source.basis, 30), scaled_rows(target.basis, 30))
    return source.basis, target.basis, partner, truth


def test_true_map__is_decoded_into_the_true_points(views):
    source, target, partner, truth = views
    assert (nearest_points(embed(truth, source, target)) == partner).mean() > 0.85
    assert (nearest_points(embed(truth, source, target, adjoint=True)) == partner).mean() > 0.75


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
    with pytest.raises(DataError, match=r"found 20 samples and a start of \(8, 8\) for 30 × 30 modes") as caught:
        zoomout(truth[:8, :8], source, target, n_samples=20)
    assert caught.value.reason == "too_few_points"
    with pytest.raises(DataError, match=r"a start of \(31, 31\)"):
        zoomout(np.eye(31), source, target)


def test_map_larger_than_a_basis__is_refused(views):
    source, target, _, _ = views
    with pytest.raises(DataError, match="found 30 eigenpairs, the map needs 40: raise n_eigenpairs"):
        embed(np.eye(40), source, target)


def test_farthest_points__are_spread_and_distinct():
    line = np.arange(101, dtype=float)[:, None]
    assert farthest_points(line, 3).tolist() == [0, 50, 100]
    assert farthest_points(line, 5).tolist() == [0, 25, 50, 75, 100]
    assert farthest_points(line, 500).tolist() == list(range(101))


def test_transport__finds_more_points_than_nearest_rows(views):
    source, target, partner, truth = views
    embedding = embed(truth[:12, :12], source, target)
    plan = sinkhorn_plan(embedding)
    nearest = (nearest_points(embedding) == partner).mean()
    assert (plan.argmax(axis=1) == partner).mean() > nearest
    sure = plan_confidence(plan) > np.median(plan_confidence(plan))
    right = plan.argmax(axis=1) == partner
    assert right[sure].mean() > right[~sure].mean()


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


def test_csls__takes_the_lead_from_a_hub():
    # Row 0 is the nearest of all three targets; by CSLS each target gets its own.
    source = np.array([[0.0, 0.0], [1.9, 0.0], [-0.9, 1.7], [-0.9, -1.7]])
    target = 0.49 * source[1:]
    assert nearest_points(Embedding(source, target)).tolist() == [0, 0, 0]
    assert csls_scores(Embedding(source, target), n_neighbors=2).argmax(axis=1).tolist() == [1, 2, 3]


def test_csls__is_the_formula():
    generator = np.random.default_rng(4)
    source, target = generator.standard_normal((9, 3)), generator.standard_normal((7, 3))
    squared = ((target[:, None] - source) ** 2).sum(axis=2)
    r_target, r_source = np.sort(squared, axis=1)[:, :4].mean(axis=1), np.sort(squared, axis=0)[:4].mean(axis=0)
    expected = -2 * squared + r_target[:, None] + r_source
    np.testing.assert_allclose(csls_scores(Embedding(source, target), n_neighbors=4), expected, atol=1e-12)


def test_confidence__is_high_where_one_row_is_much_nearer():
    confidence = match_confidence(Embedding(np.array([[0.0], [10.0]]), np.array([[1.0], [5.0]])))
    np.testing.assert_allclose(confidence, [1 - 1 / 9, 0], atol=1e-7)
    with pytest.raises(DataError, match="found 1 source point"):
        match_confidence(Embedding(np.zeros((1, 1)), np.zeros((2, 1))))
