"""Maps from all pairs, from classes, from spectra alone, and the one call for a notebook: permuted rows, unequal n."""

import subprocess
import sys

import numpy as np
import pytest

import lfm_tasks
from lfm_tasks.errors import DataError
from lfm_tasks.spectral.bases.space import spectral_space
from lfm_tasks.spectral.transfer.alignment import Alignment, direct_map, partner_ranks, transfer_coordinates
from lfm_tasks.spectral.transfer.selection import (
    choose_from_all_pairs,
    choose_from_labels,
    choose_unsupervised,
    fit_map,
)


@pytest.fixture(scope="module")
def views(digit_views):
    source, target, partner = digit_views
    return spectral_space(source, n_eigenpairs=40), spectral_space(target, n_eigenpairs=40), partner


def found(choice, views):
    source, target, partner = views
    return (partner_ranks(choice.alignment, source.activations, target.activations, partner) == 1).mean()


def test_ranks__count_ties_as_ahead_and_are_the_same_in_blocks(monkeypatch):
    generator = np.random.default_rng(0)
    rows = generator.standard_normal((30, 4))
    rows[7] = rows[3]
    same = Alignment(np.zeros(4), np.zeros(4), np.eye(4))
    whole = partner_ranks(same, rows, rows, np.arange(30))
    monkeypatch.setattr("lfm_tasks.spectral.transfer.alignment._BLOCK_ROWS", 7)
    np.testing.assert_array_equal(partner_ranks(same, rows, rows, np.arange(30)), whole)
    assert whole[3] == whole[7] == 2
    assert whole.sum() == 32


def test_direct_map__goes_the_same_way_without_a_target_matrix():
    generator = np.random.default_rng(1)
    alignment = Alignment(*(generator.standard_normal(shape) for shape in (5, 4, (5, 6), (4, 6))))
    direct = direct_map(alignment)
    rows = generator.standard_normal((9, 5))
    common = (rows - alignment.source_mean) @ alignment.source_matrix
    expected = common @ np.linalg.pinv(alignment.target_matrix) + alignment.target_mean
    assert direct.target_matrix is None
    np.testing.assert_allclose(transfer_coordinates(direct, rows), expected, atol=1e-12)


@pytest.mark.parametrize(("n_pairs", "name"), [(24, "orthogonal"), (300, "ridge")])
def test_all_pairs__choose_the_map_that_carries_held_out_ones(n_pairs, name):
    generator = np.random.default_rng(2)
    rows = generator.standard_normal((n_pairs, 20))
    # Few pairs tell a turn only; many tell that the target is no turned copy.
    turn = np.linalg.qr(generator.standard_normal((20, 20)))[0]
    matrix = turn if name == "orthogonal" else generator.standard_normal((20, 20))
    choice = choose_from_all_pairs(rows, rows @ matrix + generator.standard_normal((n_pairs, 20)))
    assert choice.name == name
    assert set(choice.candidates) == {"orthogonal", "ridge"}
    assert "a fifth held out at a time" in choice.why


def test_all_pairs__refuse_few():
    with pytest.raises(
        DataError, match=r"got 9 pairs, expected at least 10 for a map of all of them. Give more points"
    ):
        choose_from_all_pairs(np.eye(9), np.eye(9))


def test_labels__lead_to_points_that_the_means_of_the_classes_do_not(views):
    source, target, partner = views
    from sklearn.datasets import load_digits

    labels = load_digits().target[:500]
    choice = choose_from_labels(source, target, labels, labels[partner])
    assert found(choice, views) > 0.9
    assert {"class means", "class means, mutual", "lfm"} <= set(choice.candidates)
    assert all(np.isnan(one.held_out) for one in choice.candidate_scores)
    assert "no anchors to judge by" in choice.why


def test_spectra_alone__are_judged_by_round_trips(views):
    choice = choose_unsupervised(views[0], views[1])
    best = max(choice.candidate_scores, key=lambda one: one.round_trip)
    assert choice.name == best.name
    assert set(choice.candidates) == {"lfm", "lfm, mutual", "lfm, mutual ridge"}


def test_fit_map__takes_pairs_of_rows_in_any_order(digit_views):
    source, target, partner = digit_views
    known = np.random.default_rng(3).choice(440, 10, replace=False)
    fitted = fit_map(source, target, np.column_stack([partner[known], known]), n_eigenpairs=40)
    moved = fitted.transfer(source[partner].astype(np.float32))
    assert moved.shape == target.shape
    assert np.linalg.norm(moved - target) < 0.2 * np.linalg.norm(target - target.mean(axis=0))
    assert fitted.table[fitted.name]["held_out"] > 0.9
    assert f"* {fitted.name}" in str(fitted)
    assert fitted.why.startswith("10 held-out anchors")


def test_fit_map__takes_rows_that_both_spaces_number_alike(digit_views):
    source, target, partner = digit_views
    fitted = fit_map(source[partner], target, np.arange(0, 440, 40), n_eigenpairs=40)
    assert fitted.table[fitted.name]["held_out"] > 0.9


@pytest.mark.parametrize(
    ("anchors", "reason", "message"),
    [
        (np.array([0.5, 1, 2]), "bad_anchors", r"got anchors of type float64 and shape \(3,\), expected row numbers"),
        (np.zeros((3, 3), int), "bad_anchors", r"shape \(3, 3\), expected row numbers, \(anchors,\) or \(anchors, 2\)"),
        (np.array([1, 2]), "few_anchors", "got 2 anchors, expected at least 3 to choose by"),
        (np.array([1, 2, 2]), "bad_anchors", "got anchor row 2 more than once"),
        (np.array([1, 2, 50]), "bad_anchors", "got anchor row 50 in a space of 50 points"),
    ],
)
def test_fit_map__refuses_anchors_that_are_none(anchors, reason, message):
    rows = np.random.default_rng(4).standard_normal((50, 4))
    with pytest.raises(DataError, match=message) as caught:
        fit_map(rows, rows, anchors, n_eigenpairs=8)
    assert caught.value.reason == reason


def test_fit_map__refuses_nan_and_rows_of_another_width():
    rows = np.random.default_rng(5).standard_normal((50, 4))
    with pytest.raises(DataError, match="got NaN or infinite values in the target, expected finite numbers"):
        fit_map(rows, np.where(rows > 2, np.nan, rows), np.arange(5), n_eigenpairs=8)
    fitted = fit_map(rows, rows, np.arange(5), n_eigenpairs=8)
    with pytest.raises(DataError, match="got 3 features, expected 4: rows of the map's source"):
        fitted.transfer(rows[:, :3])


def test_package__gives_fit_map_without_loading_it_before():
    code = "import sys, lfm_tasks; print('numpy' in sys.modules, lfm_tasks.fit_map.__name__)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.split() == ["False", "fit_map"]
    with pytest.raises(AttributeError, match="has no attribute 'fit_nothing'"):
        _ = lfm_tasks.fit_nothing
