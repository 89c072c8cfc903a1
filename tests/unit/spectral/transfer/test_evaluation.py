"""Linear probes before and after a transfer, spaces that were changed on purpose, and pictures of spaces."""

import numpy as np
import pytest

from lfm_tasks.errors import DataError
from lfm_tasks.spectral.transfer.evaluation import (
    class_normal,
    is_separable,
    mean_radius,
    move_class,
    move_point,
    probe_accuracy,
    stratified_folds,
    transferred_probe_accuracy,
    tsne,
)


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
        (["a"] * 20, r"got 1 classes, expected at least 2 for a probe. Give other labels"),
        (["a"] * 20 + ["rare"] * 4, r"got 4 points of class 'rare', expected 5 of each for a probe. Give more points"),
    ],
)
def test_folds__refuse_labels_that_cannot_be_learned(labels, message):
    with pytest.raises(DataError, match=message) as caught:
        stratified_folds(np.array(labels))
    assert caught.value.reason == "one_class"


@pytest.fixture(scope="module")
def two_classes() -> tuple[np.ndarray, np.ndarray]:
    """Give two classes that lie apart along the first axis, in five dimensions."""
    generator = np.random.default_rng(0)
    inside = np.arange(120) < 30
    rows = generator.standard_normal((120, 5))
    rows[:, 0] += np.where(inside, 6.0, -6.0)
    return rows, inside


def test_class_normal__points_into_the_class_and_has_length_one(two_classes: tuple[np.ndarray, np.ndarray]) -> None:
    normal = class_normal(*two_classes)

    assert np.linalg.norm(normal) == pytest.approx(1)
    assert normal[0] > 0.9


def test_class_normal__does_not_depend_on_scale_or_place(two_classes: tuple[np.ndarray, np.ndarray]) -> None:
    rows, inside = two_classes
    np.testing.assert_allclose(class_normal(40 * rows + 7, inside), class_normal(rows, inside), atol=1e-6)


def test_class_normal__needs_both_kinds(two_classes: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(DataError, match="got 0 of 120 points in a class, expected some of both"):
        class_normal(two_classes[0], np.zeros(120, dtype=bool))


def test_move_class__moves_the_class_alone_and_keeps_it_separable(two_classes: tuple[np.ndarray, np.ndarray]) -> None:
    rows, inside = two_classes
    normal = class_normal(rows, inside)
    for distance in (0.5, 3.0, 50.0):
        moved = move_class(rows, inside, normal, distance)
        np.testing.assert_array_equal(moved[~inside], rows[~inside])
        np.testing.assert_allclose(moved[inside] - rows[inside], np.tile(distance * normal, (30, 1)))
        assert is_separable(moved, inside, normal)


def test_is_separable__finds_a_plane_that_the_direction_does_not_tell(
    two_classes: tuple[np.ndarray, np.ndarray],
) -> None:
    rows, inside = two_classes
    assert is_separable(rows, inside, np.eye(5)[1])


def test_is_separable__says_no_to_a_class_inside_another() -> None:
    generator = np.random.default_rng(1)
    rows = np.concatenate([0.1 * generator.standard_normal((20, 3)), 3 * generator.standard_normal((200, 3))])
    assert not is_separable(rows, np.arange(220) < 20, np.array([1.0, 0, 0]))


def test_is_separable__says_no_to_exclusive_or() -> None:
    corners = np.array([[0.0, 0], [1, 1], [0, 1], [1, 0]])
    assert not is_separable(corners, np.array([True, True, False, False]), np.array([1.0, 0]))


def test_move_point__puts_one_point_as_far_as_it_says(two_classes: tuple[np.ndarray, np.ndarray]) -> None:
    rows, _ = two_classes
    moved = move_point(rows, 7, 100.0)

    assert np.linalg.norm(moved[7] - rows.mean(axis=0)) == pytest.approx(100 * mean_radius(rows))
    np.testing.assert_array_equal(np.delete(moved, 7, axis=0), np.delete(rows, 7, axis=0))


def three_groups(n_features=6):
    generator = np.random.default_rng(0)
    centers = 6 * generator.standard_normal((3, n_features))
    return centers[np.arange(90) // 30] + generator.standard_normal((90, n_features))


def test_picture__keeps_the_nearest_in_their_group_and_is_the_same_every_time():
    rows = three_groups()

    drawn = tsne(rows, perplexity=10.0)

    distances = np.linalg.norm(drawn[:, None] - drawn, axis=2) + np.diag(np.full(90, np.inf))
    assert (np.arange(90) // 30 == distances.argmin(axis=1) // 30).mean() > 0.95
    assert drawn.dtype == np.float32
    assert tsne(rows, perplexity=10.0).tobytes() == drawn.tobytes()
    assert tsne(rows.astype(np.float32), perplexity=10.0).shape == (90, 2)


def test_angular_picture__does_not_see_the_length_of_rows():
    rows = three_groups()
    lengths = np.random.default_rng(1).choice([0.5, 1.0, 4.0], (90, 1))

    np.testing.assert_array_equal(tsne(rows * lengths, perplexity=5.0), tsne(rows, perplexity=5.0))
    assert (tsne(rows * lengths, perplexity=5.0, metric="euclidean") != tsne(rows, perplexity=5.0)).any()


def test_space_of_one_feature__has_a_picture():
    assert np.isfinite(tsne(three_groups(1), perplexity=5.0, metric="euclidean")).all()


def test_too_few_points__are_refused():
    message = r"got 30 points, expected more for t-SNE with perplexity 30. Lower atlas.embeddings.perplexity"
    with pytest.raises(DataError, match=message) as caught:
        tsne(three_groups()[:30])
    assert caught.value.reason == "too_few_points"
