"""Neighbours against a brute-force search, and what a graph cannot be built on."""

import numpy as np
import pytest

from lfm_tasks.reasons import ReasonError
from lfm_tasks.spectral.neighbours import (
    Neighbours,
    approximate_neighbours,
    choose_method,
    exact_neighbours,
    neighbour_recall,
)


def brute_distances(rows, metric):
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True) if metric == "angular" else rows
    distances = np.linalg.norm(rows[:, None] - rows, axis=2)
    np.fill_diagonal(distances, np.inf)
    return distances


@pytest.mark.parametrize("metric", ["angular", "euclidean"])
def test_exact_neighbours__are_those_of_a_brute_force_search(cloud, metric):
    distances = brute_distances(cloud, metric)
    found = exact_neighbours(cloud, 12, metric=metric)
    np.testing.assert_array_equal(found.indices, np.argsort(distances, axis=1)[:, :12])
    np.testing.assert_allclose(found.distances, np.sort(distances, axis=1)[:, :12], atol=1e-7)


def test_exact_neighbours__never_hold_the_point_itself_though_copies_exist(cloud):
    rows = np.concatenate([cloud, cloud[:50]])
    found = exact_neighbours(rows, 5, metric="euclidean")
    assert not (found.indices == np.arange(len(rows))[:, None]).any()
    np.testing.assert_array_equal(found.indices[:50, 0], np.arange(300, 350))


def test_exact_neighbours__across_blocks_are_the_same_as_in_one():
    rows = np.random.default_rng(0).standard_normal((1100, 4))
    found = exact_neighbours(rows, 3, metric="euclidean")
    np.testing.assert_array_equal(found.indices, np.argsort(brute_distances(rows, "euclidean"), axis=1)[:, :3])


@pytest.mark.parametrize("metric", ["angular", "euclidean"])
def test_exact_neighbours__do_not_move_under_rotation_and_scale(cloud, metric):
    rotation = np.linalg.qr(np.random.default_rng(1).standard_normal((8, 8)))[0]
    moved = exact_neighbours(7.5 * cloud @ rotation, 10, metric=metric)
    np.testing.assert_array_equal(moved.indices, exact_neighbours(cloud, 10, metric=metric).indices)


def test_exact_neighbours__follow_a_permutation_of_the_points(cloud):
    order = np.random.default_rng(2).permutation(300)
    found = exact_neighbours(cloud[order], 10, metric="angular")
    np.testing.assert_array_equal(order[found.indices], exact_neighbours(cloud, 10, metric="angular").indices[order])


@pytest.mark.parametrize("scale", [1e-200, 1e150])
def test_exact_neighbours__angular_survive_extreme_scales(cloud, scale):
    found = exact_neighbours(cloud * scale, 10, metric="angular")
    np.testing.assert_array_equal(found.indices, exact_neighbours(cloud, 10, metric="angular").indices)


@pytest.mark.parametrize(
    ("spoil", "reason", "message"),
    [
        (lambda rows: np.where(np.arange(len(rows))[:, None] == 7, np.nan, rows), "not_finite", "first in row 7"),
        (lambda rows: np.ones_like(rows), "constant", "drop the layer"),
        (lambda rows: np.where(np.arange(len(rows))[:, None] < 3, 0.0, rows), "zero_rows", "found 3 all-zero rows"),
        (lambda rows: rows[:10], "too_few_points", "at least 11"),
    ],
)
def test_exact_neighbours__refuse_what_no_graph_can_be_built_on(cloud, spoil, reason, message):
    with pytest.raises(ReasonError, match=message) as caught:
        exact_neighbours(spoil(cloud), 10, metric="angular")
    assert caught.value.reason == reason


def test_exact_neighbours__refuse_no_neighbours_at_all(cloud):
    with pytest.raises(ValueError, match="needs at least 1"):
        exact_neighbours(cloud, 0, metric="angular")


def test_neighbour_recall__counts_the_true_neighbours(cloud):
    truth = exact_neighbours(cloud, 10, metric="angular")
    assert neighbour_recall(truth, cloud, metric="angular", n_sample=300) == 1
    far = np.argsort(-brute_distances(cloud, "angular"), axis=1)[:, 1:6].astype(np.int32)
    half = Neighbours(np.hstack([truth.indices[:, :5], far]), truth.distances)
    assert neighbour_recall(half, cloud, metric="angular", n_sample=300) == pytest.approx(0.5)


def test_choose_method__is_exact_for_few_points_or_many_neighbours():
    assert choose_method(20_000, 768, 50) == "exact"
    assert choose_method(100_000, 768, 50) == "pynndescent"
    assert choose_method(100_000, 64, 50) == "exact"
    assert choose_method(100_000, 768, 300) == "exact"


@pytest.mark.slow
def test_approximate_neighbours__find_nearly_all_and_repeat_exactly():
    rows = np.random.default_rng(4).standard_normal((2000, 8))
    first, second = (approximate_neighbours(rows, 15, metric="euclidean") for _ in range(2))
    np.testing.assert_array_equal(first.indices, second.indices)
    assert not (first.indices == np.arange(2000)[:, None]).any()
    assert neighbour_recall(first, rows, metric="euclidean") > 0.95
