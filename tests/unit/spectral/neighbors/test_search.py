"""Neighbors against a brute-force search, and what a graph cannot be built on."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from lfm_tasks.errors import DataError
from lfm_tasks.spectral.neighbors import exact as block_search
from lfm_tasks.spectral.neighbors import exact as tile_search
from lfm_tasks.spectral.neighbors import projections as distance_rows_module
from lfm_tasks.spectral.neighbors import projections as sketches
from lfm_tasks.spectral.neighbors import search as neighbors
from lfm_tasks.spectral.neighbors.projections import distance_rows
from lfm_tasks.spectral.neighbors.search import (
    Neighbors,
    approximate_neighbors,
    choose_method,
    exact_neighbors,
    nearest_of,
    neighbor_recall,
    projected_neighbors,
)


def brute_distances(rows, metric):
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True) if metric == "angular" else rows
    distances = np.linalg.norm(rows[:, None] - rows, axis=2)
    np.fill_diagonal(distances, np.inf)
    return distances


@pytest.mark.parametrize("metric", ["angular", "euclidean"])
def test_exact_neighbors__are_those_of_a_brute_force_search(cloud, metric):
    distances = brute_distances(cloud, metric)
    found = exact_neighbors(cloud, 12, metric=metric)
    np.testing.assert_array_equal(found.indices, np.argsort(distances, axis=1)[:, :12])
    np.testing.assert_allclose(found.distances, np.sort(distances, axis=1)[:, :12], atol=1e-7)


def test_exact_neighbors__never_hold_the_point_itself_though_copies_exist(cloud):
    rows = np.concatenate([cloud, cloud[:50]])
    found = exact_neighbors(rows, 5, metric="euclidean")
    assert not (found.indices == np.arange(len(rows))[:, None]).any()
    np.testing.assert_array_equal(found.indices[:50, 0], np.arange(300, 350))


def test_exact_neighbors__across_blocks_are_the_same_as_in_one():
    rows = np.random.default_rng(0).standard_normal((1100, 4))
    found = exact_neighbors(rows, 3, metric="euclidean")
    np.testing.assert_array_equal(found.indices, np.argsort(brute_distances(rows, "euclidean"), axis=1)[:, :3])


@pytest.mark.parametrize("metric", ["angular", "euclidean"])
def test_exact_neighbors__do_not_move_under_rotation_and_scale(cloud, metric):
    rotation = np.linalg.qr(np.random.default_rng(1).standard_normal((8, 8)))[0]
    moved = exact_neighbors(7.5 * cloud @ rotation, 10, metric=metric)
    np.testing.assert_array_equal(moved.indices, exact_neighbors(cloud, 10, metric=metric).indices)


def test_exact_neighbors__follow_a_permutation_of_the_points(cloud):
    order = np.random.default_rng(2).permutation(300)
    found = exact_neighbors(cloud[order], 10, metric="angular")
    np.testing.assert_array_equal(order[found.indices], exact_neighbors(cloud, 10, metric="angular").indices[order])


@pytest.mark.parametrize("scale", [1e-200, 1e150])
def test_exact_neighbors__angular_survive_extreme_scales(cloud, scale):
    found = exact_neighbors(cloud * scale, 10, metric="angular")
    np.testing.assert_array_equal(found.indices, exact_neighbors(cloud, 10, metric="angular").indices)


@pytest.mark.parametrize(
    ("spoil", "reason", "message"),
    [
        (lambda rows: np.where(np.arange(len(rows))[:, None] == 7, np.nan, rows), "not_finite", "first in row 7"),
        (lambda rows: np.ones_like(rows), "constant", "Drop the layer"),
        (lambda rows: np.where(np.arange(len(rows))[:, None] < 3, 0.0, rows), "zero_rows", "got 3 all-zero rows"),
        (lambda rows: rows[:10], "too_few_points", "at least 11"),
    ],
)
def test_exact_neighbors__refuse_what_no_graph_can_be_built_on(cloud, spoil, reason, message):
    with pytest.raises(DataError, match=message) as caught:
        exact_neighbors(spoil(cloud), 10, metric="angular")
    assert caught.value.reason == reason


def test_exact_neighbors__refuse_no_neighbors_at_all(cloud):
    with pytest.raises(ValueError, match="expected at least 1"):
        exact_neighbors(cloud, 0, metric="angular")


def test_neighbor_recall__counts_the_true_neighbors(cloud):
    truth = exact_neighbors(cloud, 10, metric="angular")
    assert neighbor_recall(truth, cloud, metric="angular", n_sample=300) == 1
    far = np.argsort(-brute_distances(cloud, "angular"), axis=1)[:, 1:6].astype(np.int32)
    half = Neighbors(np.hstack([truth.indices[:, :5], far]), truth.distances)
    assert neighbor_recall(half, cloud, metric="angular", n_sample=300) == pytest.approx(0.5)


@pytest.mark.slow
def test_approximate_neighbors__find_nearly_all_and_repeat_exactly():
    rows = np.random.default_rng(4).standard_normal((2000, 8))
    first, second = (approximate_neighbors(rows, 15, metric="euclidean") for _ in range(2))
    np.testing.assert_array_equal(first.indices, second.indices)
    assert not (first.indices == np.arange(2000)[:, None]).any()
    assert neighbor_recall(first, rows, metric="euclidean") > 0.95


def cases():
    generator = np.random.default_rng(8)
    cloud = generator.standard_normal((500, 6))
    duplicates = np.repeat(generator.standard_normal((40, 5)), 12, axis=0)[generator.permutation(480)]
    return {
        "cloud": cloud,
        "float32": cloud.astype(np.float32),
        "wide": generator.standard_normal((300, 700)),
        "duplicates": duplicates,
        "grid": np.stack(np.meshgrid(*[np.arange(1.0, 9.0)] * 3), axis=-1).reshape(-1, 3),
        "offset": 1e6 + 1e-3 * cloud,
        "tiny": 1e-30 * cloud,
        "collapsed": np.round(cloud) + 1e-7 * cloud,
        "outlier": np.concatenate([cloud, [[1e8] * 6]]),
        "few": cloud[:13],
    }


@pytest.mark.parametrize("metric", ["angular", "euclidean"])
@pytest.mark.parametrize("name", cases())
def test_exact_neighbors__are_the_naive_ones_on_hard_data_as_are_those_of_some_points(name, metric):
    rows = cases()[name]
    truth = naive_neighbors(rows, 12, metric)
    of_some = nearest_of(distance_rows(rows, metric), np.arange(len(rows)), 12)
    for found in (exact_neighbors(rows, 12, metric=metric), of_some):
        # Unit rows are rounded before they are compared: either order is right where distances agree to the last bits.
        rounding = 1e-12 * truth.distances + (1e-15 if metric == "angular" else 0)
        assert (np.abs(found.distances - truth.distances) <= rounding).all()
        assert not ((found.indices != truth.indices) & (gaps(truth.distances) > 2 * rounding)).any()
        if name in {"duplicates", "float32", "cloud"} or (name, metric) == ("grid", "euclidean"):
            np.testing.assert_array_equal(found.indices, truth.indices)


@pytest.mark.parametrize("block_rows", [7, 64, 100, 1024])
@pytest.mark.parametrize("n_features", [3, 40, 700])
def test_search__finds_the_same_bytes_with_any_blocks_and_any_sketch(block_rows, n_features, monkeypatch):
    generator = np.random.default_rng(9)
    latent = generator.standard_normal((500, 10))
    data = np.maximum(latent @ generator.standard_normal((10, n_features)), 0) + 1e-3
    rows = distance_rows(data, "euclidean")
    expected = block_search.search(rows, 9)
    for module in (block_search, distance_rows_module):
        monkeypatch.setattr(module, "BLOCK_ROWS", block_rows)
    monkeypatch.setattr(sketches, "_FITTED_ROWS", 50)
    order = sketches.locality_order(rows)
    for sketch in (
        sketches.best_sketch(rows, 9),
        sketches.full_sketch(rows, order, 9),
        sketches.full_sketch(rows, order[::-1].copy(), 40),
        sketches.short_sketch(rows, 6, 20),
        sketches.short_sketch(rows, 64, 600),
    ):
        found = block_search.settle(rows, sketch, block_search.candidates(rows, sketch, 9))
        np.testing.assert_array_equal(found.nearest, expected.nearest)
        np.testing.assert_array_equal(found.squared, expected.squared)


def test_search__is_that_of_scikit_learn():
    data = np.random.default_rng(10).standard_normal((5000, 20)).astype(np.float32)
    brute = NearestNeighbors(n_neighbors=16, algorithm="brute").fit(data.astype(np.float64))
    distances, indices = brute.kneighbors()
    found = exact_neighbors(data, 16, metric="euclidean")
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_allclose(found.distances, distances, rtol=1e-6)


def test_exact_neighbors__of_a_large_cloud_follow_a_permutation_and_a_rotation():
    generator = np.random.default_rng(12)
    data = generator.standard_normal((4200, 12))
    order, rotation = generator.permutation(4200), np.linalg.qr(generator.standard_normal((12, 12)))[0]
    found = exact_neighbors(data, 10, metric="angular")
    moved = exact_neighbors((3 * data @ rotation)[order], 10, metric="angular")
    np.testing.assert_array_equal(order[moved.indices], found.indices[order])


def test_approximate_neighbors__refuse_what_pynndescent_leaves_empty(cloud, monkeypatch):
    def find_none(rows, **_):
        return SimpleNamespace(neighbor_graph=(np.full((len(rows), 11), -1), None))

    monkeypatch.setitem(sys.modules, "pynndescent", SimpleNamespace(NNDescent=find_none))
    with pytest.raises(DataError, match="found 0 neighbors of point 0, 10 are needed") as caught:
        approximate_neighbors(cloud, 10, metric="angular")
    assert caught.value.reason == "inaccurate"


def test_projected_neighbors__find_nearly_all_and_repeat_exactly():
    generator = np.random.default_rng(13)
    data = np.maximum(generator.standard_normal((3000, 16)) @ generator.standard_normal((16, 400)), 0)
    first, second = (projected_neighbors(data, 20, metric="angular") for _ in range(2))
    np.testing.assert_array_equal(first.indices, second.indices)
    assert neighbor_recall(first, data, metric="angular") > 0.99


def test_choose_method__is_exact_for_few_points_and_pynndescent_from_a_number_that_grows_with_the_neighbors():
    assert choose_method(20_000, 768, 50) == "exact"
    assert choose_method(59_999, 768, 50) == "exact"
    assert choose_method(60_000, 768, 50) == "projection"
    assert choose_method(30_000, 200, 50) == "projection"
    assert choose_method(50_000, 64, 50) == "exact"
    assert choose_method(60_000, 768, 15) == "pynndescent"
    assert choose_method(100_000, 768, 50) == "pynndescent"
    assert choose_method(100_000, 768, 300) == "projection"
    assert choose_method(400_000, 768, 300) == "pynndescent"


def naive_neighbors(rows, n_neighbors, metric):
    rows = rows.astype(np.float64)
    if metric == "angular":
        rows = rows / np.abs(rows).max(axis=1, keepdims=True)
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    distances = np.sqrt(((rows[:, None] - rows) ** 2).sum(axis=2))
    np.fill_diagonal(distances, np.inf)
    nearest = np.argsort(distances, axis=1, kind="stable")[:, :n_neighbors]
    return Neighbors(nearest.astype(np.int32), np.take_along_axis(distances, nearest, axis=1))


def gaps(distances):
    """Return the gap of each distance to the nearer of those beside it; 0 for the last one, whose next is unknown."""
    steps = np.diff(distances, axis=1)
    return np.minimum(np.c_[steps, np.zeros(len(steps))], np.c_[np.full(len(steps), np.inf), steps])


@pytest.mark.parametrize("kind", ["relu", "noise", "low rank", "clusters", "duplicates"])
def test_search_tiles__are_those_of_the_search_by_blocks(kind, monkeypatch):
    generator = np.random.default_rng(21)
    latent = generator.standard_normal((900, 10))
    centers = 3 * generator.standard_normal((12, 300))[generator.integers(0, 12, 900)]
    data = {
        "relu": np.maximum(latent @ generator.standard_normal((10, 300)), 0) + 1e-3,
        "noise": generator.standard_normal((900, 300)),
        "low rank": (latent @ generator.standard_normal((10, 300))).astype(np.float32),
        "clusters": centers + 0.1 * generator.standard_normal((900, 300)),
        "duplicates": np.repeat(generator.standard_normal((90, 300)), 10, axis=0)[generator.permutation(900)],
    }[kind]
    rows = distance_rows(data, "euclidean")
    expected = block_search.search(rows, 9)
    monkeypatch.setattr(sketches, "_MOST_UNCLEAR", 1.0)
    sketch = sketches.tile_sketch(rows, 9)
    for tile_rows in (7, 64, 512):
        monkeypatch.setattr(tile_search, "TILE_ROWS", tile_rows)
        found = tile_search.search_tiles(rows, sketch, 9)
        np.testing.assert_array_equal(found.nearest, expected.nearest)
        np.testing.assert_allclose(found.squared, expected.squared, rtol=1e-12)
        assert found.settled.all()


def test_tile_sketch__is_none_where_main_directions_tell_nothing():
    generator = np.random.default_rng(22)
    assert sketches.tile_sketch(distance_rows(generator.standard_normal((2000, 300)), "angular"), 9) is None
    plane = generator.standard_normal((2000, 4)) @ generator.standard_normal((4, 300))
    assert sketches.tile_sketch(distance_rows(plane, "angular"), 9) is not None


def test_short_sketch__never_says_more_than_the_true_distance_though_rows_lie_within_its_directions():
    generator = np.random.default_rng(23)
    data = generator.standard_normal((600, 20)) @ generator.standard_normal((20, 300))
    data[::2] += 0.3 * generator.standard_normal((300, 300))
    rows = distance_rows(data, "euclidean")
    sketch = sketches.short_sketch(rows, 21, 30)
    columns, squares = sketch.columns.astype(np.float64), sketch.squares.astype(np.float64)
    points = rows.centered(sketch.order)
    true = ((points[:, None] - points) ** 2).sum(axis=2)
    assert (squares[:, None] + squares - 2 * columns @ columns.T <= true).all()


def test_exact_neighbors__by_tiles_follow_a_permutation_and_a_rotation(monkeypatch):
    monkeypatch.setattr(neighbors, "_TILES_FROM", 0)
    generator = np.random.default_rng(24)
    data = np.maximum(generator.standard_normal((1500, 8)) @ generator.standard_normal((8, 260)), 0)
    order, rotation = generator.permutation(1500), np.linalg.qr(generator.standard_normal((260, 260)))[0]
    found = exact_neighbors(data, 10, metric="angular")
    moved = exact_neighbors((3 * data @ rotation)[order], 10, metric="angular")
    np.testing.assert_array_equal(order[moved.indices], found.indices[order])


def test_exact_neighbors__load_no_pynndescent(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynndescent", None)
    data = np.random.default_rng(25).standard_normal((600, 20))
    assert exact_neighbors(data, 5, metric="euclidean").indices.shape == (600, 5)
    assert projected_neighbors(data, 5, metric="euclidean").indices.shape == (600, 5)
