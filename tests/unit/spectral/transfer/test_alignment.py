"""Carrying data over, on permuted rows, unequal n and widths: closed forms, baselines, the estimator that chooses."""

import numpy as np
import pytest

from lfm_tasks.errors import DataError
from lfm_tasks.spectral.bases.space import dense_neighbors, spectral_space
from lfm_tasks.spectral.maps.descriptors import Anchors
from lfm_tasks.spectral.maps.fit import STARTS, fit_from_anchors
from lfm_tasks.spectral.maps.refinement import Start
from lfm_tasks.spectral.transfer.alignment import (
    fit_coordinates,
    fit_procrustes,
    fit_relative,
    refine_by_icp,
    refine_by_mutual_pairs,
    round_trip_rate,
    similarities,
    transfer_coordinates,
)
from lfm_tasks.spectral.transfer.selection import BASELINES, CANDIDATES, choose_alignment


def turned(seed, n_points=200, width=6, wider=9):
    """Return rows, the same rows turned, scaled and moved in a wider space, and the function that did it."""
    generator = np.random.default_rng(seed)
    rows = generator.standard_normal((n_points, width))
    embedding = np.linalg.qr(generator.standard_normal((wider, width)))[0].T
    return rows, lambda x: 2.5 * (x @ embedding) + 4


def anchors_of(partner, n_anchors, seed=0):
    """Return known pairs drawn from ``partner``, the source row of every target row."""
    known = np.random.default_rng(seed).choice(len(partner), n_anchors, replace=False)
    return Anchors(partner[known], known)


@pytest.fixture(scope="module")
def views(digit_views):
    source, target, partner = digit_views
    return spectral_space(source, n_eigenpairs=40), spectral_space(target, n_eigenpairs=40), partner


@pytest.mark.parametrize("method", ["orthogonal", "ridge", "affine"])
def test_coordinates__of_a_turned_space_are_found_for_new_points(method):
    rows, turn = turned(0)
    order = np.random.default_rng(1).permutation(200)[:150]
    alignment = fit_coordinates(rows[order], turn(rows)[order], method=method, ridge=1e-9)
    new = np.random.default_rng(2).standard_normal((40, 6))
    np.testing.assert_allclose(transfer_coordinates(alignment, new), turn(new), atol=1e-6)
    assert (similarities(alignment, rows, turn(rows)).argmax(axis=1) == np.arange(200)).all()


def test_coordinates__from_a_wider_to_a_narrower_space_keep_what_fits():
    rows, turn = turned(3)
    alignment = fit_coordinates(turn(rows), rows, method="orthogonal")
    np.testing.assert_allclose(transfer_coordinates(alignment, turn(rows)), rows, atol=1e-9)


def test_ridge__holds_where_there_are_as_many_pairs_as_features():
    rows, _ = turned(4, n_points=300, width=40)
    images = rows @ np.random.default_rng(5).standard_normal((40, 30)) + 0.5 * np.random.default_rng(6).standard_normal(
        (300, 30)
    )
    errors = {}
    for method in ("ridge", "affine"):
        alignment = fit_coordinates(rows[:41], images[:41], method=method)
        errors[method] = np.abs(transfer_coordinates(alignment, rows[100:]) - images[100:]).mean()
    assert errors["ridge"] < 0.7 * errors["affine"]


def test_fit__of_one_pair_or_of_one_point_is_refused():
    with pytest.raises(DataError, match="got 1 pairs, expected at least 2") as caught:
        fit_coordinates(np.ones((1, 3)), np.ones((1, 3)), method="ridge")
    assert caught.value.reason == "few_anchors"
    with pytest.raises(DataError, match="got pairs that are all one point") as caught:
        fit_coordinates(np.ones((4, 3)), np.eye(4)[:, :3], method="orthogonal")
    assert caught.value.reason == "constant"


def test_baselines__find_a_turned_space_from_few_anchors_whatever_the_order():
    rows, turn = turned(8)
    partner = np.random.default_rng(9).permutation(200)[:160]
    target = turn(rows)[partner]
    anchors = anchors_of(partner, 8)
    for alignment in (fit_procrustes(rows, target, anchors), fit_relative(rows, target, anchors)):
        assert (similarities(alignment, rows, target).argmax(axis=1) == partner).mean() > 0.9
    target = target + 0.4 * np.random.default_rng(10).standard_normal(target.shape)
    poor = fit_procrustes(rows, target, anchors_of(partner, 7))
    start = (similarities(poor, rows, target).argmax(axis=1) == partner).mean()
    for refined in (
        refine_by_icp(poor, rows, target),
        refine_by_mutual_pairs(poor, rows, target, method="orthogonal"),
    ):
        found = (similarities(refined, rows, target).argmax(axis=1) == partner).mean()
        assert found > start + 0.02
        assert round_trip_rate(refined, rows, target) > round_trip_rate(poor, rows, target)


def test_transfer_back__of_relative_coordinates_is_the_least_squares_one():
    rows, turn = turned(10, wider=6)
    anchors = Anchors(np.arange(30), np.arange(30))
    alignment = fit_relative(rows, turn(rows), anchors)
    common = (rows - alignment.source_mean) @ alignment.source_matrix
    back = (transfer_coordinates(alignment, rows) - alignment.target_mean) @ alignment.target_matrix
    fitted = alignment.target_matrix.T @ np.linalg.lstsq(alignment.target_matrix.T, common.T)[0]
    np.testing.assert_allclose(back, fitted.T, atol=1e-10)


@pytest.mark.parametrize("n_anchors", [3, 5, 10])
def test_few_anchors__lead_to_the_true_points(views, n_anchors):
    source, target, partner = views
    fit = fit_from_anchors(source, target, anchors_of(partner, n_anchors))
    assert (fit.matches == partner).mean() > 0.8
    assert fit.start in STARTS


def test_residual__tells_a_right_map_from_a_wrong_one(views):
    source, target, partner = views
    right = fit_from_anchors(source, target, anchors_of(partner, 8))
    scrambled = Anchors(np.random.default_rng(1).permutation(right.matches)[:8], np.arange(8))
    wrong = fit_from_anchors(source, target, scrambled)
    assert (wrong.matches == partner).mean() < 0.3
    assert right.residual < 0.9 * wrong.residual


def test_start_without_its_descriptors__is_left_out():
    generator = np.random.default_rng(11)
    rows = generator.standard_normal((80, 6))
    rows[3] = 0
    space = spectral_space(rows, n_eigenpairs=8, metric="euclidean")
    anchors = Anchors(np.array([1, 2, 5]), np.array([1, 2, 5]))
    assert fit_from_anchors(space, space, anchors).start.descriptor != "cosine"
    with pytest.raises(DataError, match="all-zero rows"):
        fit_from_anchors(space, space, anchors, starts=(Start("cosine", 8),))


def test_choice__is_right_where_one_candidate_is(views):
    source, target, partner = views
    choice = choose_alignment(source, target, anchors_of(partner, 5))
    found = similarities(choice.alignment, source.activations, target.activations).argmax(axis=1)
    assert (found == partner).mean() > 0.98
    assert [score.name for score in choice.candidate_scores] == list(CANDIDATES) == list(choice.candidates)
    assert "5 held-out anchors: mean reciprocal rank" in choice.why
    if choice.name.startswith("lfm"):
        assert "errors of its functional map: orthogonality 0." in choice.why
    assert choice.fit is not None


def test_choice__between_unrelated_spaces_does_not_pretend(views):
    source, _, _ = views
    noise = spectral_space(np.random.default_rng(12).standard_normal((400, 20)), n_eigenpairs=40)
    choice = choose_alignment(source, noise, Anchors(np.arange(25) * 7, np.arange(25) * 3))
    assert max(score.held_out for score in choice.candidate_scores) < 0.3
    assert "25 held-out anchors" in choice.why


def test_choice__is_a_baseline_where_no_spectral_map_exists():
    rows = np.zeros((60, 4))
    rows[:, 0] = np.random.default_rng(13).standard_normal(60)
    rows[:, 1:] = 1e-14
    space = spectral_space(rows, n_eigenpairs=6, metric="euclidean", n_neighbors=8)
    choice = choose_alignment(space, space, Anchors(np.arange(6), np.arange(6)))
    assert choice.name in (*BASELINES, *CANDIDATES)


def test_choice__needs_three_anchors(views):
    source, target, partner = views
    with pytest.raises(DataError, match="got 2 anchors, expected at least 3 to choose by") as caught:
        choose_alignment(source, target, anchors_of(partner, 2))
    assert caught.value.reason == "few_anchors"


def test_dense_graphs__have_a_quarter_of_the_points_as_neighbors():
    assert [dense_neighbors(n) for n in (3, 100, 1100, 5000)] == [1, 25, 275, 300]


def test_choice__between_copies_carries_coordinates_that_the_anchors_do_not_span():
    generator = np.random.default_rng(12)
    rows = np.maximum(generator.standard_normal((150, 4)) @ generator.standard_normal((4, 12)), 0)
    rows += 0.1 * generator.random((150, 12))
    copy = 0.3 * rows[:, generator.permutation(12)]
    source, target = (spectral_space(side, n_eigenpairs=20) for side in (rows, copy))
    choice = choose_alignment(source, target, Anchors(np.arange(5), np.arange(5)))
    trips = {one.name: one.round_trip for one in choice.candidate_scores}

    assert trips["relative"] == trips[choice.name] == 1
    assert choice.name != "relative"
    np.testing.assert_allclose(transfer_coordinates(choice.alignment, rows), copy, atol=1e-3)
    lost = transfer_coordinates(choice.candidates["relative"], rows) - copy
    assert np.abs(lost).max() > 0.1


def test_held_out_anchors__are_judged_as_new_pairs_are_where_other_rows_have_no_partner():
    """Of 150 unpaired rows of other points none has a partner, so a refined map would pair the held-out rows."""
    generator = np.random.default_rng(2)
    width, n_anchors, n_new = 100, 25, 200
    centers, images = generator.standard_normal((8, width)), np.linalg.qr(generator.standard_normal((width, width)))[0]

    def points(n):
        return centers[generator.integers(0, 8, n)] + generator.standard_normal((n, width))

    def views(rows):
        noise = 0.3 * generator.standard_normal((2, *rows.shape))
        return rows + noise[0], np.tanh(rows) @ images + noise[1]

    known, new = views(points(n_anchors)), views(points(n_new))
    source, target = (np.vstack([known[side], views(points(150))[side]]) for side in (0, 1))
    anchors = Anchors(np.arange(n_anchors), np.arange(n_anchors))
    choice = choose_alignment(spectral_space(source), spectral_space(target), anchors)

    for score in choice.candidate_scores:
        if score.name in ("ridge", "relative", "lfm, mutual", "lfm, mutual ridge"):
            alignment = choice.candidates[score.name]
            others = similarities(alignment, source, new[1])
            own = np.diagonal(similarities(alignment, new[0], new[1]))
            found = (1 / (1 + (others >= own[:, None]).sum(axis=1))).mean()
            assert score.held_out < found + 0.1, score.name
