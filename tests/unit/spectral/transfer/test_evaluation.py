"""Linear probes, before and after another space was carried over."""

import numpy as np
import pytest

from lfm_tasks.errors import DataError
from lfm_tasks.spectral.transfer.evaluation import probe_accuracy, stratified_folds, transferred_probe_accuracy


@pytest.fixture(scope="module")
def blobs():
    """Give rows of five classes in 8 dimensions, their labels and folds; a tenth of the labels is wrong."""
    generator = np.random.default_rng(0)
    labels = np.repeat(np.array(list("abcde")), 60)
    centers = 3 * generator.standard_normal((5, 8))
    rows = centers[np.arange(300) // 60] + generator.standard_normal((300, 8))
    labels = np.where(generator.random(300) < 0.1, generator.permutation(labels), labels)
    return rows, labels, stratified_folds(labels)


def rotation(n, seed=1):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))[0]


def test_folds__share_every_class_alike_and_follow_the_seed(blobs):
    _, labels, folds = blobs
    for label in "abcde":
        counts = np.bincount(folds[labels == label], minlength=5)
        assert counts.max() - counts.min() <= 1
    np.testing.assert_array_equal(folds, stratified_folds(labels))
    assert (folds != stratified_folds(labels, seed=1)).any()


def test_accuracy__is_that_of_least_squares_written_out(blobs):
    rows, labels, folds = blobs
    classes, numbers = np.unique(labels, return_inverse=True)
    right = 0
    for fold in range(5):
        known = folds != fold
        centered = rows[known] - rows[known].mean(axis=0)
        signs = np.where(numbers[known][:, None] == np.arange(5), 1.0, -1.0)
        penalty = 0.01 * np.square(centered).sum() / 8 * np.eye(8)
        weights = np.linalg.solve(centered.T @ centered + penalty, centered.T @ (signs - signs.mean(axis=0)))
        scores = (rows[~known] - rows[known].mean(axis=0)) @ weights + signs.mean(axis=0)
        right += (classes[scores.argmax(axis=1)] == labels[~known]).sum()
    assert probe_accuracy(rows, labels, folds) == right / 300
    assert 0.85 < right / 300 < 0.95


def test_accuracy__is_chance_for_labels_that_mean_nothing(blobs):
    rows, labels, folds = blobs
    assert probe_accuracy(rows, np.random.default_rng(2).permutation(labels), folds) < 0.3


@pytest.mark.parametrize("n_features", [8, 400])
def test_rotated_and_scaled_copy__has_the_targets_own_accuracy_both_ways(blobs, n_features):
    rows, labels, folds = blobs
    wide = np.pad(rows, [(0, 0), (0, n_features - 8)])
    copy = 2.5 * wide @ rotation(n_features) + 7
    own = probe_accuracy(rows, labels, folds)

    assert probe_accuracy(copy.astype(np.float32), labels, folds) == own
    assert transferred_probe_accuracy(copy, rows, labels, folds) == own
    assert transferred_probe_accuracy(rows, copy, labels, folds) == own


def test_class_scattered_in_the_source__is_lost_and_no_other(blobs):
    rows, labels, folds = blobs
    generator = np.random.default_rng(3)
    source = rows.copy()
    scattered = np.flatnonzero(labels == "c")
    source[scattered] = rows[generator.choice(np.flatnonzero(labels != "c"), len(scattered))]
    own = probe_accuracy(rows, labels, folds)

    found = transferred_probe_accuracy(source @ rotation(8), rows, labels, folds)

    assert own - 0.2 - 0.02 < found < own - 0.2 + 0.04


def test_unrelated_source__gives_chance(blobs):
    _, labels, folds = blobs
    rows = blobs[0]
    unrelated = np.random.default_rng(4).standard_normal((300, 8))
    assert transferred_probe_accuracy(unrelated, rows, labels, folds) < 0.35


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a"] * 20, r"found 1 classes, a probe needs at least 2: give other labels"),
        (["a"] * 20 + ["rare"] * 4, r"found 4 points of class 'rare', a probe needs 5 of each: give more points"),
    ],
)
def test_folds__refuse_labels_that_cannot_be_learned(labels, message):
    with pytest.raises(DataError, match=message) as caught:
        stratified_folds(np.array(labels))
    assert caught.value.reason == "one_class"
