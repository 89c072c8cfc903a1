"""Exact neighbours by tiles of near points: short products exclude most pairs, full ones only where many are left."""

import numpy as np
from jaxtyping import Float, Float32, Int

from lfm_tasks.spectral.neighbors.by_blocks import Found
from lfm_tasks.spectral.neighbors.metric import DistanceRows, blocks
from lfm_tasks.spectral.neighbors.projections import Sketch, full_sketch, product_error

# Points of a tile, and the share of its pairs from which on full products cost less than one pair after the other.
TILE_ROWS, _DENSE = 512, 0.12


def search_tiles(rows: DistanceRows, sketch: Sketch, n_neighbors: int) -> Found:
    """Return the nearest neighbours of every point, all settled.

    Every limit is at least the true distance to the last neighbour, at first the one within the point's own tile. A
    pair is tried by exact distances unless the lower bound of the sketch, or of all features in float32, lies above
    the limits of both its points. Near tiles come first, so that the limits are soon tight.
    """
    from lfm_tasks.spectral.neighbors.tile_kernels import find_hits, try_hits

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
    return Found(nearest[places], squared[places], np.ones(len(order), dtype=bool))


def _own_limits(
    products: Float32[np.ndarray, "tile tile"],
    squares: Float32[np.ndarray, " tile"],
    n_features: int,
    n_neighbors: int,
) -> Float32[np.ndarray, " tile"]:
    """Return an upper bound of the distance to the last neighbour within the tile; infinite in a tile too small."""
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
