"""Nearest pairs by symmetric blocks of float32 products over sketches, settled by exact distances in float64."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from lfm_tasks.spectral.neighbors.metric import BLOCK_ROWS, DistanceRows, blocks
from lfm_tasks.spectral.neighbors.projections import Sketch, best_sketch


@dataclass(frozen=True)
class Found:
    """Row numbers and squared distances, nearest first, ties by the lower row; which places are surely right."""

    nearest: Int[np.ndarray, "points neighbours"]
    squared: Float[np.ndarray, "points neighbours"]
    settled: Bool[np.ndarray, " points"]


def search(rows: DistanceRows, n_neighbors: int) -> Found:
    """Return the nearest neighbours of every point, all settled.

    Which sketch is used changes the time, never the result: what a sketch leaves open, exact distances settle.
    """
    sketch = best_sketch(rows, n_neighbors)
    return settle(rows, sketch, candidates(rows, sketch, n_neighbors))


def candidates(rows: DistanceRows, sketch: Sketch, n_neighbors: int) -> Found:
    """Return the nearest among the points that are nearest by the sketch."""
    from lfm_tasks.spectral.neighbors import block_kernels as nearest_pairs

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
    return Found(nearest, squared, settled)


def settle(rows: DistanceRows, sketch: Sketch, found: Found) -> Found:
    """Return ``found`` with every point settled: all pairs that its bound does not exclude are tried."""
    from lfm_tasks.spectral.neighbors import block_kernels as nearest_pairs

    open_places = np.flatnonzero(~found.settled)
    nearest, squared = found.nearest.copy(), found.squared.copy()
    for start in range(0, len(open_places), BLOCK_ROWS):
        places = open_places[start : start + BLOCK_ROWS]
        own = sketch.columns[places]
        for block in blocks(nearest):
            nearest_pairs.sweep(
                own @ sketch.columns[block].T, places, block.start, sketch.squares, sketch.order,
                rows.values, rows.scales, nearest, squared,
            )  # fmt: skip
    return Found(nearest, squared, np.ones(len(nearest), dtype=bool))


def shortest_exits(rows: DistanceRows, sketch: Sketch, labels: Int[np.ndarray, " points"]) -> list[tuple[int, int]]:
    """Return, for each label, the shortest pair of points of which only the first has it; ties by the lowest rows."""
    from lfm_tasks.spectral.neighbors import block_kernels as nearest_pairs

    best = np.full(int(labels.max()) + 1, np.inf)
    starts, ends = np.zeros(len(best), dtype=np.int64), np.zeros(len(best), dtype=np.int64)
    for block, other in _rounds(blocks(sketch.order)):
        nearest_pairs.leave(
            sketch.columns[block] @ sketch.columns[other].T, block.start, other.start, sketch.squares, sketch.order,
            labels, rows.values, rows.scales, best, starts, ends,
        )  # fmt: skip
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


def _first_limits(sketch: Sketch, n_kept: int) -> Float32[np.ndarray, " points"]:
    """Return what the last of ``n_kept`` is at most, as a point's own block says: the lists need not find that out."""
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
        for number, block in enumerate(parts):
            if 2 * lap < len(parts) or number < lap:
                yield block, parts[(number + lap) % len(parts)]
