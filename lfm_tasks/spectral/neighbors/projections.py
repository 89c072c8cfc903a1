"""Sketches: float32 columns whose distances are never more than the true ones: products of them exclude pairs."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32, Int, Shaped

Metric = Literal["angular", "euclidean"]

# Rows a block: of all that is held beside the rows, the products of two blocks are the largest.
BLOCK_ROWS = 1024


@dataclass(frozen=True)
class DistanceRows:
    """Points are ``values[i] * scales[i]``; their euclidean distances are the metric's, times ``unit``."""

    values: Shaped[np.ndarray, "points features"]
    scales: Float[np.ndarray, " points"]
    mean: Float[np.ndarray, " features"]
    unit: float

    def centered(self, points: Int[np.ndarray, " block"] | slice) -> Float[np.ndarray, "block features"]:
        """Return some of the points less the mean, in float64."""
        return self.values[points] * self.scales[points, None] - self.mean


def distance_rows(activations: Shaped[np.ndarray, "points features"], metric: Metric) -> DistanceRows:
    """Return the rows for ``metric``: unit rows for ``angular``; for ``euclidean`` all divided by one power of two.

    Nothing is copied where ``activations`` are float32 or float64 already. A power of two leaves differences exact.
    """
    kept = activations.dtype in (np.float32, np.float64)
    values = np.ascontiguousarray(activations if kept else activations.astype(np.float64))
    if activations.dtype == np.float16:
        values = values.astype(np.float32)
    largest = np.concatenate([np.abs(values[block]).max(axis=1) for block in blocks(values)]).astype(np.float64)
    if metric == "euclidean":
        # Beyond 2^1000 the power itself would be infinite.
        scales = np.full(len(values), 2.0 ** np.clip(-np.frexp(largest.max())[1], -1000, 1000))
    else:
        if largest.min() < 1e-100 or largest.max() > 1e100:
            # Their squares are zero, or infinite.
            values = values / largest[:, None]
        norms = [np.linalg.norm(values[block].astype(np.float64), axis=1) for block in blocks(values)]
        scales = 1 / np.concatenate(norms)
    sums = [(values[block] * scales[block, None]).sum(axis=0) for block in blocks(values)]
    return DistanceRows(
        values, scales, np.sum(sums, axis=0) / len(values), float(scales[0]) if metric == "euclidean" else 1.0
    )


def squared_norms(rows: Float[np.ndarray, "block columns"]) -> Float[np.ndarray, " block"]:
    """Return |x|² of every row."""
    return np.einsum("ij,ij->i", rows, rows)


def blocks(rows: Shaped[np.ndarray, "points ..."], n_rows: int | None = None) -> list[slice]:
    """Return the slices of at most ``n_rows`` rows (`BLOCK_ROWS`) that make up ``rows``."""
    n_rows = n_rows or BLOCK_ROWS
    return [slice(start, min(start + n_rows, len(rows))) for start in range(0, len(rows), n_rows)]


# Columns that an order is found by, and how many points may lie in any order.
THIN_COLUMNS, _NEAR_POINTS = 16, 64


def locality_order(rows: DistanceRows) -> Int[np.ndarray, " points"]:
    """Return an order of the points that mostly goes from near to near: halves of halves, each along a direction.

    Its first blocks of products hold near pairs, so few later ones are worth keeping; and rows stay in the cache.
    """
    n_points, n_features = rows.values.shape
    directions = np.random.default_rng(0).standard_normal((n_features, THIN_COLUMNS)).astype(np.float32)
    thin = np.empty((n_points, THIN_COLUMNS), dtype=np.float32)
    for block in blocks(thin):
        thin[block] = rows.centered(block).astype(np.float32) @ directions
    parts = [np.arange(n_points)]
    while len(parts[0]) > _NEAR_POINTS:
        halves = []
        for part in parts:
            middle = len(part) // 2
            split = np.argpartition(thin[part] @ (thin[part[0]] - thin[part[-1]]), middle)
            halves += [part[split[:middle]], part[split[middle:]]]
        parts = halves
    return np.concatenate(parts)


def along_variance(heads: Float32[np.ndarray, "points directions"]) -> Int[np.ndarray, " points"]:
    """Return an order from near to near: halves of halves, each along the direction in which it varies most."""
    parts = [np.arange(len(heads))]
    while len(parts[0]) > _NEAR_POINTS:
        halves = []
        for part in parts:
            centered = heads[part] - heads[part].mean(axis=0)
            direction = np.linalg.eigh(centered.T @ centered)[1][:, -1]
            middle = len(part) // 2
            split = np.argpartition(centered @ direction, middle)
            halves += [part[split[:middle]], part[split[middle:]]]
        parts = halves
    return np.concatenate(parts)


# Columns of short sketches, the norm of what they leave out included.
_SHORT = (64, 128, 256)
# Columns of the sketch that finds the edges between pieces.
_EXIT_COLUMNS = 128
# Rows that the directions of a short sketch are found on, and rows that try it.
_FITTED_ROWS, _TRIED_ROWS = 1024, 32
# Columns of the sketch of tiles, and the share of pairs it may leave open.
_TILE_COLUMNS, _MOST_UNCLEAR = 128, 0.06
# Seconds of a multiplication in a product of matrices, in an exact distance, and of offering a pair to its points:
# only their ratios matter, and only for the time.
_PRODUCT, _DISTANCE, _OFFER = 2e-11, 3e-10, 2e-9


@dataclass(frozen=True)
class Sketch:
    """Columns whose distances are never more than the true ones, for the points in an order from near to near.

    ``squares`` are those of the columns, less what rounding can do to a product.
    """

    order: Int[np.ndarray, " points"]
    columns: Float32[np.ndarray, "points columns"]
    squares: Float32[np.ndarray, " points"]
    n_candidates: int


def best_sketch(rows: DistanceRows, n_neighbors: int) -> Sketch:
    """Return the sketch that ``n_neighbors`` are probably settled with soonest: all features, or main directions.

    How many points a short sketch cannot tell from neighbors is counted on a few rows.
    """
    n_points, n_features = rows.values.shape
    order = locality_order(rows)
    if n_features < 2 * _SHORT[-1] or n_points < 16 * _FITTED_ROWS:
        return full_sketch(rows, order, n_neighbors)
    heads, squares = _project(rows, order, _SHORT[-1] - 1)
    tried = np.linspace(0, n_points - 1, _TRIED_ROWS).astype(np.int64)
    limits = _true_limits(rows, order, tried, n_neighbors)
    n_few = n_neighbors + max(16, n_neighbors // 4)
    best, least = None, n_points / 2 * (n_features * _PRODUCT + _OFFER) + n_few * n_features * _DISTANCE
    for n_columns in _SHORT:
        sketch = _short_sketch(heads, squares, order, n_columns)
        bounds = sketch.squares[tried, None] + sketch.squares - 2 * sketch.columns[tried] @ sketch.columns.T
        n_unclear = np.count_nonzero(bounds <= limits[:, None], axis=1)
        seconds = n_points / 2 * (n_columns * _PRODUCT + _OFFER) + n_unclear.mean() * n_features * _DISTANCE
        if seconds < least:
            n_candidates = int(np.clip(np.quantile(n_unclear, 0.9), n_few, 5 * n_few))
            best, least = replace(sketch, n_candidates=n_candidates), seconds
    return best or full_sketch(rows, order, n_neighbors)


def full_sketch(rows: DistanceRows, order: Int[np.ndarray, " points"], n_neighbors: int) -> Sketch:
    """Return all features, rounded to float32."""
    columns = np.empty(rows.values.shape, dtype=np.float32)
    squares = np.empty(len(columns))
    for block in blocks(columns):
        columns[block] = rows.centered(order[block])
        squares[block] = squared_norms(columns[block].astype(np.float64))
    return _bounded(order, columns, squares, n_neighbors + max(16, n_neighbors // 4))


def short_sketch(rows: DistanceRows, n_columns: int, n_candidates: int) -> Sketch:
    """Return the main directions and the norm of the rest.

    With V orthonormal and ρ = |x − VVᵀx|: |x − y|² ≥ |Vᵀx − Vᵀy|² + (ρ_x − ρ_y)², so (Vᵀx, ρ) is a sketch.
    """
    order = locality_order(rows)
    return replace(_short_sketch(*_project(rows, order, n_columns - 1), order, n_columns), n_candidates=n_candidates)


def tile_sketch(rows: DistanceRows, n_neighbors: int) -> Sketch | None:
    """Return the main directions and the norm of the rest, points ordered by halves of halves along their variance.

    None where, counted among a few rows, they leave so many pairs open that products of all features are as fast.
    """
    order = np.arange(len(rows.values))
    some = rows.centered(order[:: -(-len(order) // _FITTED_ROWS)])
    directions = _main_directions(some, _TILE_COLUMNS - 1)
    if not _tells_apart(some, directions, max(1, n_neighbors * len(some) // len(order))):
        return None
    heads, squares = _along(rows, order, directions)
    order = along_variance(heads[:, :THIN_COLUMNS])
    return _short_sketch(heads[order], squares[order], order, _TILE_COLUMNS)


def _tells_apart(
    some: Float[np.ndarray, "fitted features"],
    directions: Float[np.ndarray, "features directions"],
    n_neighbors: int,
) -> bool:
    """Return whether a short sketch of some of the rows excludes nearly all pairs that are no neighbors."""
    heads = some @ directions
    squares, rest = squared_norms(some), np.sqrt(np.maximum(squared_norms(some) - squared_norms(heads), 0))
    tried = np.linspace(0, len(some) - 1, _TRIED_ROWS).astype(np.int64)
    distances = squares[tried, None] + squares - 2 * some[tried] @ some.T
    limits = np.partition(distances, n_neighbors, axis=1)[:, n_neighbors]
    inside = np.square(heads[tried]).sum(axis=1)[:, None] + squared_norms(heads) - 2 * heads[tried] @ heads.T
    bounds = inside + np.square(rest[tried, None] - rest)
    return bool(np.count_nonzero(bounds <= limits[:, None]) <= _MOST_UNCLEAR * bounds.size)


def exit_sketch(rows: DistanceRows) -> Sketch:
    """Return the sketch that finds shortest edges between pieces: short where there are many features."""
    if rows.values.shape[1] >= 2 * _EXIT_COLUMNS:
        return short_sketch(rows, _EXIT_COLUMNS, 0)
    return full_sketch(rows, locality_order(rows), 0)


def _project(
    rows: DistanceRows, order: Int[np.ndarray, " points"], n_directions: int
) -> tuple[Float32[np.ndarray, "points directions"], Float[np.ndarray, " points"]]:
    """Return the rows along their main directions, most variance first, and their squared norms."""
    return _along(rows, order, _main_directions(rows.centered(order[:: -(-len(order) // _FITTED_ROWS)]), n_directions))


def _along(
    rows: DistanceRows, order: Int[np.ndarray, " points"], directions: Float[np.ndarray, "features directions"]
) -> tuple[Float32[np.ndarray, "points directions"], Float[np.ndarray, " points"]]:
    """Return the rows along some directions, and their squared norms."""
    heads = np.empty((len(order), directions.shape[1]), dtype=np.float32)
    squares = np.empty(len(order))
    for block in blocks(order):
        centered = rows.centered(order[block])
        heads[block] = centered @ directions
        squares[block] = squared_norms(centered)
    return heads, squares


def _main_directions(
    some: Float[np.ndarray, "fitted features"], n_directions: int
) -> Float[np.ndarray, "features directions"]:
    """Return orthonormal directions of much variance, by two steps of a randomised subspace iteration.

    Which directions they are need not be exact, so all but the last rotation is in float32.
    """
    n_directions = min(n_directions, *some.shape)
    short = (some / max(np.abs(some).max(), np.finfo(np.float32).tiny)).astype(np.float32)
    start = np.random.default_rng(0).standard_normal((some.shape[1], n_directions)).astype(np.float32)
    for _ in range(2):
        start = np.linalg.qr(short.T @ (short @ start))[0]
    directions = np.linalg.qr(start.astype(np.float64))[0]
    along = some @ directions
    return np.ascontiguousarray(directions @ np.linalg.eigh(along.T @ along)[1][:, ::-1])


def _true_limits(
    rows: DistanceRows, order: Int[np.ndarray, " points"], places: Int[np.ndarray, " tried"], n_neighbors: int
) -> Float[np.ndarray, " tried"]:
    """Return the squared distance of some points to their last neighbor."""
    tried = rows.centered(order[places])
    squared = np.empty((len(tried), len(order)))
    for block in blocks(order):
        centered = rows.centered(order[block])
        squared[:, block] = squared_norms(centered) - 2 * tried @ centered.T
    return np.partition(squared, n_neighbors, axis=1)[:, n_neighbors] + squared_norms(tried)


def _short_sketch(
    heads: Float32[np.ndarray, "points directions"],
    squares: Float[np.ndarray, " points"],
    order: Int[np.ndarray, " points"],
    n_columns: int,
) -> Sketch:
    columns = np.empty((len(heads), min(n_columns, heads.shape[1] + 1)), dtype=np.float32)
    columns[:, :-1] = heads[:, : columns.shape[1] - 1]
    shortened = np.empty(len(heads))
    for block in blocks(heads):
        inside = squared_norms(columns[block, :-1].astype(np.float64))
        rest = np.sqrt(np.maximum(squares[block] - inside, 0))
        # Rounded heads put ρ off by δ ≤ min(√(2ε)|x|, 2ε|x|²/ρ), ε = 2^-24. With (a + δ)² ≤ (1 + t)a² + (1 + 1/t)δ²
        # and t = 2^-10, a ρ a little shorter and a square less by 2050 δ² make up for it.
        wrong = 2.0**-23 * squares[block]
        error = 2050 * np.minimum(wrong, np.square(wrong / np.maximum(rest, 1e-150)))
        rest *= 1 - 2.0**-10
        columns[block, -1] = rest
        shortened[block] = inside + np.square(rest) - error
    return _bounded(order, columns, shortened, 0)


def _bounded(
    order: Int[np.ndarray, " points"],
    columns: Float32[np.ndarray, "points columns"],
    squares: Float[np.ndarray, " points"],
    n_candidates: int,
) -> Sketch:
    """Return the sketch whose |x|² + |y|² − 2 fl(xᵀy) is never more than the true |x − y|².

    |fl(xᵀy) − xᵀy| ≤ γ|x||y| ≤ γ(|x|² + |y|²)/2 with γ = m 2^-24 for m columns; over 256 columns 16 √m 2^-24, which
    independent roundings exceed with probability e^-128 (Higham and Mary 2019). So each |x|² is shortened by γ, and by
    16 more roundings for the columns themselves and the sum of the three terms.
    """
    gamma = product_error(columns.shape[1])
    return Sketch(order, columns, (squares - gamma * np.abs(squares) - 1e-36).astype(np.float32), n_candidates)


def product_error(n_columns: int) -> float:
    """Return γ: what a squared distance by a float32 product is off by, as a share of |x|² + |y|²."""
    return float((min(n_columns, 16 * np.sqrt(n_columns)) + 16) * 2.0**-24)
