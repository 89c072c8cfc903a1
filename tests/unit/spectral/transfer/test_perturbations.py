"""Spaces that were tampered with on purpose."""

import numpy as np
import pytest

from lfm_tasks.errors import DataError
from lfm_tasks.spectral.transfer.evaluation import class_normal, is_separable, mean_radius, move_class, move_point


@pytest.fixture(scope="module")
def blobs() -> tuple[np.ndarray, np.ndarray]:
    """Give two classes that lie apart along the first axis, in five dimensions."""
    generator = np.random.default_rng(0)
    inside = np.arange(120) < 30
    rows = generator.standard_normal((120, 5))
    rows[:, 0] += np.where(inside, 6.0, -6.0)
    return rows, inside


def test_class_normal__points_into_the_class_and_has_length_one(blobs: tuple[np.ndarray, np.ndarray]) -> None:
    normal = class_normal(*blobs)

    assert np.linalg.norm(normal) == pytest.approx(1)
    assert normal[0] > 0.9


def test_class_normal__does_not_depend_on_scale_or_place(blobs: tuple[np.ndarray, np.ndarray]) -> None:
    rows, inside = blobs
    np.testing.assert_allclose(class_normal(40 * rows + 7, inside), class_normal(rows, inside), atol=1e-6)


def test_class_normal__needs_both_kinds(blobs: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(DataError, match="found 0 of 120 points in a class, needs some of both"):
        class_normal(blobs[0], np.zeros(120, dtype=bool))


def test_move_class__moves_the_class_alone_and_keeps_it_separable(blobs: tuple[np.ndarray, np.ndarray]) -> None:
    rows, inside = blobs
    normal = class_normal(rows, inside)
    for distance in (0.5, 3.0, 50.0):
        moved = move_class(rows, inside, normal, distance)
        np.testing.assert_array_equal(moved[~inside], rows[~inside])
        np.testing.assert_allclose(moved[inside] - rows[inside], np.tile(distance * normal, (30, 1)))
        assert is_separable(moved, inside, normal)


def test_is_separable__finds_a_plane_that_the_direction_does_not_tell(blobs: tuple[np.ndarray, np.ndarray]) -> None:
    rows, inside = blobs
    assert is_separable(rows, inside, np.eye(5)[1])


def test_is_separable__says_no_to_a_class_inside_another() -> None:
    generator = np.random.default_rng(1)
    rows = np.concatenate([0.1 * generator.standard_normal((20, 3)), 3 * generator.standard_normal((200, 3))])
    assert not is_separable(rows, np.arange(220) < 20, np.array([1.0, 0, 0]))


def test_is_separable__says_no_to_exclusive_or() -> None:
    corners = np.array([[0.0, 0], [1, 1], [0, 1], [1, 0]])
    assert not is_separable(corners, np.array([True, True, False, False]), np.array([1.0, 0]))


def test_move_point__puts_one_point_as_far_as_it_says(blobs: tuple[np.ndarray, np.ndarray]) -> None:
    rows, _ = blobs
    moved = move_point(rows, 7, 100.0)

    assert np.linalg.norm(moved[7] - rows.mean(axis=0)) == pytest.approx(100 * mean_radius(rows))
    np.testing.assert_array_equal(np.delete(moved, 7, axis=0), np.delete(rows, 7, axis=0))
