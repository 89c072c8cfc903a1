"""Nearest pairs by symmetric blocks of float32 products over sketches, settled by exact distances in float64."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from lfm_tasks.spectral.neighbors.projections import (
    BLOCK_ROWS,
    DistanceRows,
    Sketch,
    best_sketch,
    blocks,
    full_sketch,
    product_error,
)


@dataclass(frozen=True)
class SearchResult:
    """Row numbers and squared distances, nearest first, ties by the lower row; which places are surely right."""

    nearest: Int[np.ndarray, "points neighbors"]
    squared: Float[np.ndarray, "points neighbors"]
    settled: Bool[np.ndarray, " points"]


def search(rows: DistanceRows, n_neighbors: int) -> SearchResult:
    """Return the nearest neighbors of every point, all settled.

    Which sketch is used changes the time, never the result: what a sketch leaves open, exact distances settle.
    """
    sketch = best_sketch(rows, n_neighbors)
    return settle(rows, sketch, candidates(rows, sketch, n_neighbors))


def candidates(rows: DistanceRows, sketch: Sketch, n_neighbors: int) -> SearchResult:
    """Return the nearest among the points that are nearest by the sketch."""
    from lfm_tasks.spectral.neighbors import compiled as nearest_pairs

    n_points = len(sketch.columns)
    width = 3 * min(max(sketch.n_candidates, n_neighbors), n_points) // 2 + 3
    bounds = np.empty((n_points, width), dtype=np.float32)
    indices = np.empty((n_points, width), dtype=np.int32)
    counts = np.zeros(n_points, dtype=np.int64)
    limits = _first_limits(sketch, width * 2 // 3)
    products = np.empty(BLOCK_ROWS**2, dtype=np.float32)
    for block, other in _rounds(blocks(limits)):
        shape = (block.stop - block.start, other.stop - other.start)
        part = products[: shape[0] * shape[1]].reshape(shape)
        np.matmul(sketch.columns[block], sketch.columns[other].T, out=part)
        nearest_pairs.offer(part, block.start, other.start, sketch.squares, bounds, indices, counts, limits)
    nearest = np.full((n_points, n_neighbors), -1, dtype=np.int32)
    squared = np.full((n_points, n_neighbors), np.inf)
    settled = nearest_pairs.rank(
        sketch.order, rows.values, rows.scales, bounds, indices, counts, limits, nearest, squared
    )
    return SearchResult(nearest, squared, settled)


def settle(rows: DistanceRows, sketch: Sketch, result: SearchResult) -> SearchResult:
    """Return ``result`` with every point settled: all pairs that its bound does not exclude are tried."""
    from lfm_tasks.spectral.neighbors import compiled as nearest_pairs

    open_places = np.flatnonzero(~result.settled)
    nearest, squared = result.nearest.copy(), result.squared.copy()
    for start in range(0, len(open_places), BLOCK_ROWS):
        places = open_places[start : start + BLOCK_ROWS]
        columns = sketch.columns[places]
        for block in blocks(nearest):
            nearest_pairs.sweep(
                columns @ sketch.columns[block].T, places, block.start, sketch.squares, sketch.order,
                rows.values, rows.scales, nearest, squared,
            )  # fmt: skip
    return SearchResult(nearest, squared, np.ones(len(nearest), dtype=bool))


def shortest_exits(rows: DistanceRows, sketch: Sketch, labels: Int[np.ndarray, " points"]) -> list[tuple[int, int]]:
    """Return, for each label, the shortest pair of points of which only the first has it; ties by the lowest rows."""
    from lfm_tasks.spectral.neighbors import compiled as nearest_pairs

    best = np.full(int(labels.max()) + 1, np.inf)
    starts, ends = np.zeros(len(best), dtype=np.int64), np.zeros(len(best), dtype=np.int64)
    for block, other in _rounds(blocks(sketch.order)):
        nearest_pairs.leave(
            sketch.columns[block] @ sketch.columns[other].T, block.start, other.start, sketch.squares, sketch.order,
            labels, rows.values, rows.scales, best, starts, ends,
        )  # fmt: skip
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


def _first_limits(sketch: Sketch, n_kept: int) -> Float32[np.ndarray, " points"]:
    """Return an upper bound of the last of ``n_kept`` distances of each point, from the points of its own block."""
    n_points = len(sketch.columns)
    limits = np.full(n_points, np.inf, dtype=np.float32)
    n_rows = BLOCK_ROWS // 4 if n_kept <= BLOCK_ROWS // 8 else BLOCK_ROWS
    for block in blocks(limits, n_rows):
        if block.stop - block.start <= n_kept:
            continue
        columns, squares = sketch.columns[block], sketch.squares[block]
        bounds = squares[:, None] + squares - 2 * columns @ columns.T
        np.fill_diagonal(bounds, np.inf)
        bounds.partition(n_kept - 1, axis=1)
        limits[block] = np.nextafter(bounds[:, n_kept - 1], np.float32(np.inf))
    return limits


def _rounds(parts: list[slice]) -> Iterator[tuple[slice, slice]]:
    """Yield every pair of blocks once, so that after each round every block has met as many others."""
    for lap in range(len(parts) // 2 + 1):
        for index, block in enumerate(parts):
            if 2 * lap < len(parts) or index < lap:
                yield block, parts[(index + lap) % len(parts)]


# Points of a tile, and the share of its pairs from which on full products cost less than one pair after the other.
TILE_ROWS, _DENSE = 512, 0.12


def search_tiles(rows: DistanceRows, sketch: Sketch, n_neighbors: int) -> SearchResult:
    """Return the nearest neighbors of every point, all settled.

    Every limit is at least the true distance to the last neighbor, at first the one within the point's own tile. A
    pair is tried by exact distances unless the lower bound of the sketch, or of all features in float32, lies above
    the limits of both its points. Near tiles come first, so that the limits are soon tight.
    """
    from lfm_tasks.spectral.neighbors.compiled import find_hits, try_hits

    order = sketch.order
    full = full_sketch(rows, order, n_neighbors)
    ordered, scales = rows.values[order], rows.scales[order]
    nearest = np.full((len(order), n_neighbors), -1, dtype=np.int32)
    squared = np.full(nearest.shape, np.inf)
    limits = np.full(len(order), np.inf, dtype=np.float32)
    tiles = blocks(order, TILE_ROWS)
    hits = np.empty((TILE_ROWS**2, 2), dtype=np.uint16)

    def settle_pairs(tile: slice, other: slice, by: Sketch, products: np.ndarray, n_most: int) -> bool:
        n_hits = find_hits(products, tile.start, other.start, by.squares, limits, hits, n_most)
        if n_hits >= 0:
            try_hits(
                hits[:n_hits], products, by is full, tile.start, other.start, full.columns, full.squares, order,
                ordered, scales, nearest, squared, limits,
            )  # fmt: skip
        return bool(n_hits >= 0)

    for tile in tiles:
        products = full.columns[tile] @ full.columns[tile].T
        limits[tile] = _own_limits(products, full.squares[tile], full.columns.shape[1], n_neighbors)
        settle_pairs(tile, tile, full, products, TILE_ROWS**2)
    for tile, other in _near_first(sketch.columns, tiles):
        n_pairs = (tile.stop - tile.start) * (other.stop - other.start)
        products = sketch.columns[tile] @ sketch.columns[other].T
        if not settle_pairs(tile, other, sketch, products, int(_DENSE * n_pairs)):
            settle_pairs(tile, other, full, full.columns[tile] @ full.columns[other].T, n_pairs)
    places = np.empty(len(order), dtype=np.int64)
    places[order] = np.arange(len(order))
    return SearchResult(nearest[places], squared[places], np.ones(len(order), dtype=bool))


def _own_limits(
    products: Float32[np.ndarray, "tile tile"],
    squares: Float32[np.ndarray, " tile"],
    n_features: int,
    n_neighbors: int,
) -> Float32[np.ndarray, " tile"]:
    """Return an upper bound of the distance to the last neighbor within the tile; infinite in a tile too small."""
    if len(products) <= n_neighbors:
        return np.full(len(products), np.inf, dtype=np.float32)
    bounds = squares[:, None] + squares - 2 * products
    np.fill_diagonal(bounds, np.inf)
    bounds.partition(n_neighbors - 1, axis=1)
    # Lower bounds are short by the error on both sides; half as much again for the rounding of these sums.
    error = 3 * product_error(n_features) * (squares + squares.max()) + 1e-35
    return np.nextafter(bounds[:, n_neighbors - 1] + error.astype(np.float32), np.float32(np.inf))


def _near_first(columns: Float32[np.ndarray, "points columns"], tiles: list[slice]) -> list[tuple[slice, slice]]:
    """Return all pairs of two tiles, those first whose means are near."""
    means = np.array([columns[tile].mean(axis=0) for tile in tiles])
    first, second = np.triu_indices(len(tiles), 1)
    distances: Float[np.ndarray, " pairs"] = np.square(means[first] - means[second]).sum(axis=1)
    by_distance: Int[np.ndarray, " pairs"] = np.argsort(distances, kind="stable")
    return [(tiles[first[pair]], tiles[second[pair]]) for pair in by_distance]
