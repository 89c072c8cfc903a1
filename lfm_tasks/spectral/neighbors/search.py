"""The nearest neighbors of every point, exact or approximate, and how many of them are true."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float, Int

from lfm_tasks.errors import DataError
from lfm_tasks.spectral.neighbors.projections import (
    BLOCK_ROWS,
    DistanceRows,
    Metric,
    blocks,
    distance_rows,
    squared_norms,
)

if TYPE_CHECKING:
    from lfm_tasks.spectral.neighbors.exact import SearchResult


SearchMethod = Literal["exact", "projection", "pynndescent"]

# Entries of a block of float64 products where neither symmetry nor sketches help: 128 MiB.
_PLAIN_ENTRIES = 1 << 24
# Tiles pay from so many points on, and up to so many neighbors: a tile has to hold them.
_TILES_FROM, _MOST_IN_TILES = 5_000, 128
# Columns of the projection, the norm of the rest included, and how many times the neighbors are candidates.
PROJECTED_COLUMNS, _CANDIDATES = 128, 2


@dataclass(frozen=True)
class Neighbors:
    """Row numbers and distances of the neighbors, nearest first, ties by the lower row; never the point itself."""

    indices: Int[np.ndarray, "points neighbors"]
    distances: Float[np.ndarray, "points neighbors"]


def find_neighbors(
    activations: Float[np.ndarray, "points features"], n_neighbors: int, *, metric: Metric, method: SearchMethod
) -> Neighbors:
    """Return the neighbors by ``exact``, ``projection`` or ``pynndescent``."""
    functions: dict[str, Callable[..., Neighbors]] = {
        "exact": exact_neighbors,
        "projection": projected_neighbors,
        "pynndescent": approximate_neighbors,
    }
    return functions[method](activations, n_neighbors, metric=metric)


def exact_neighbors(
    activations: Float[np.ndarray, "points features"], n_neighbors: int, *, metric: Metric
) -> Neighbors:
    """Return the ``n_neighbors`` nearest neighbors of every point.

    ``angular`` is the chord on the unit sphere, sqrt(2 (1 - cos)), in [0, 2]; ``euclidean`` the usual distance. The
    distances are sums of squared differences in float64: copies of a point are at 0 and alike, and ties go to the lower
    row. Products only exclude pairs, with a margin for their rounding.

    Memory beside the activations, never points²: 8 bytes × points × (features + 256), about 30 bytes × points ×
    neighbors, and 30 MiB. The compiled code takes a quarter of a second to load, once in a process.

    Parameters
    ----------
    activations
        A row for each point, finite.
    n_neighbors
        Neighbors of each point, itself excluded; 1 ≤ n_neighbors < points.
    metric
        ``angular`` or ``euclidean``.

    Raises
    ------
    DataError
        ``not_finite``, ``constant``, ``zero_rows`` or ``too_few_points``, with what was found and what to do.

    Examples
    --------
    >>> line = np.array([[0.0, 0.0], [1.0, 0.0], [3.0, 0.0]])
    >>> exact_neighbors(line, 1, metric="euclidean").indices.ravel().tolist()
    [1, 0, 1]
    """
    rows = distance_rows(check_activations(activations, n_neighbors, metric=metric), metric)
    result = _search(rows, n_neighbors)
    return Neighbors(result.nearest, np.sqrt(result.squared) / rows.unit)


def projected_neighbors(
    activations: Float[np.ndarray, "points features"], n_neighbors: int, *, metric: Metric
) -> Neighbors:
    """Return the nearest, by exact distance, of the points that are nearest in 127 main directions and what is left.

    Twice as many candidates as neighbors are ranked. With up to 128 features it is a search over all of them.

    Raises
    ------
    DataError
        As `exact_neighbors`.
    """
    rows = distance_rows(check_activations(activations, n_neighbors, metric=metric), metric)
    from lfm_tasks.spectral.neighbors.exact import candidates
    from lfm_tasks.spectral.neighbors.projections import short_sketch

    result = candidates(rows, short_sketch(rows, PROJECTED_COLUMNS, _CANDIDATES * n_neighbors + 16), n_neighbors)
    return Neighbors(result.nearest, np.sqrt(result.squared) / rows.unit)


def approximate_neighbors(
    activations: Float[np.ndarray, "points features"], n_neighbors: int, *, metric: Metric, seed: int = 0
) -> Neighbors:
    """Return approximate neighbors by pynndescent (Dong, Moses, Li 2011), distances exact.

    One thread and a fixed seed: its result depends on both. The first call in a process compiles for about a minute.

    Raises
    ------
    DataError
        As `exact_neighbors`; ``inaccurate`` if pynndescent gives no neighbor for some point.
    """
    rows = distance_rows(check_activations(activations, n_neighbors, metric=metric), metric)
    from pynndescent import NNDescent

    from lfm_tasks.spectral.neighbors import compiled as nearest_pairs

    points = np.empty(rows.values.shape, dtype=np.float32)
    for block in blocks(points):
        points[block] = rows.centered(block)
    index = NNDescent(points, metric="euclidean", n_neighbors=n_neighbors + 1, random_state=seed, n_jobs=1)
    candidates = np.asarray(index.neighbor_graph[0], dtype=np.int64)
    nearest = np.full((len(points), n_neighbors), -1, dtype=np.int32)
    squared = np.full(nearest.shape, np.inf)
    nearest_pairs.rank_given(rows.values, rows.scales, candidates, nearest, squared)
    n_found = np.count_nonzero(nearest >= 0, axis=1)
    if n_found.min() < n_neighbors:
        raise DataError(
            "inaccurate",
            f"pynndescent found {n_found.min()} neighbors of point {n_found.argmin()}, {n_neighbors} are needed. "
            "Set graph.method to exact",
        )
    return Neighbors(nearest, np.sqrt(squared) / rows.unit)


def neighbor_recall(
    neighbors: Neighbors,
    activations: Float[np.ndarray, "points features"],
    *,
    metric: Metric,
    n_sample: int = 500,
    seed: int = 0,
) -> float:
    """Return the share of true neighbors that were found, in [0, 1], over a seeded sample of points."""
    n_neighbors = neighbors.indices.shape[1]
    rows = distance_rows(check_activations(activations, n_neighbors, metric=metric), metric)
    sample = np.sort(np.random.default_rng(seed).permutation(len(activations))[:n_sample])
    truth = nearest_of(rows, sample, n_neighbors).indices
    hits = [len(np.intersect1d(a, b)) for a, b in zip(truth, neighbors.indices[sample], strict=True)]
    return float(np.sum(hits) / truth.size)


def tied_share(
    activations: Float[np.ndarray, "points features"],
    n_neighbors: int,
    *,
    metric: Metric,
    n_sample: int = 200,
    seed: int = 0,
) -> float:
    """Return the share of points whose last neighbor and the next point are equally far but for rounding, in [0, 1].

    Which of them is the neighbor is then settled by the lower row; the same space rotated or scaled may have the other.
    Rounding: that of the type of ``activations``. Over a seeded sample of points; 0 where all points are neighbors.
    """
    if n_neighbors + 1 >= len(activations):
        return 0.0
    rows = distance_rows(check_activations(activations, n_neighbors + 1, metric=metric), metric)
    sample = np.sort(np.random.default_rng(seed).permutation(len(activations))[:n_sample])
    squared = np.square(nearest_of(rows, sample, n_neighbors + 1).distances)
    rounding = 16 * float(np.finfo(activations.dtype).eps) * squared_norms(rows.centered(sample)) / rows.unit**2
    return float(np.mean(squared[:, -1] - squared[:, -2] <= rounding))


def nearest_of(rows: DistanceRows, points: Int[np.ndarray, " some"], n_neighbors: int) -> Neighbors:
    """Return the exact neighbors of some of the points, without compiled code: products in float64, then differences.

    What a product may be wrong by is left in: γ (|x|² + |y|²) with γ = (features + 8) 2^-53.
    """
    norms = np.concatenate([squared_norms(rows.centered(block)) for block in blocks(rows.scales)])
    gamma = (rows.values.shape[1] + 8) * 2.0**-53
    indices = np.empty((len(points), n_neighbors), dtype=np.int32)
    squared = np.empty((len(points), n_neighbors))
    for chunk in blocks(points, max(1, min(BLOCK_ROWS, _PLAIN_ENTRIES // len(norms)))):
        centered = rows.centered(points[chunk])
        bounds = np.empty((len(centered), len(norms)))
        for block in blocks(norms):
            np.matmul(centered, rows.centered(block).T, out=bounds[:, block])
        bounds *= -2
        bounds += (1 - gamma) * (norms[points[chunk], None] + norms)
        bounds[np.arange(len(centered)), points[chunk]] = np.inf
        limits = np.partition(bounds, n_neighbors - 1, axis=1)[:, n_neighbors - 1]
        limits += 2 * gamma * (norms[points[chunk]] + norms.max())
        for place, (point, limit) in enumerate(zip(points[chunk], limits, strict=True), start=chunk.start):
            candidates = np.flatnonzero(bounds[place - chunk.start] <= limit)
            steps = rows.values[candidates] * rows.scales[candidates, None] - rows.values[point] * rows.scales[point]
            distances = squared_norms(steps)
            nearest = np.argsort(distances, kind="stable")[:n_neighbors]
            indices[place], squared[place] = candidates[nearest], distances[nearest]
    return Neighbors(indices, np.sqrt(squared) / rows.unit)


def goes_by_tiles(n_points: int, n_features: int, n_neighbors: int) -> bool:
    """Return whether an exact search of this size goes by tiles, if main directions tell its points apart."""
    return n_points >= _TILES_FROM and n_features >= 2 * PROJECTED_COLUMNS and n_neighbors <= _MOST_IN_TILES


def _search(rows: DistanceRows, n_neighbors: int) -> "SearchResult":
    """Return the neighbors by compiled search: the algorithm changes the time, never the result."""
    from lfm_tasks.spectral.neighbors.exact import search, search_tiles
    from lfm_tasks.spectral.neighbors.projections import tile_sketch

    n_points, n_features = rows.values.shape
    if goes_by_tiles(n_points, n_features, n_neighbors):
        sketch = tile_sketch(rows, n_neighbors)
        if sketch is not None:
            return search_tiles(rows, sketch, n_neighbors)
    return search(rows, n_neighbors)


def check_activations(
    activations: Float[np.ndarray, "points features"], n_neighbors: int, *, metric: Metric
) -> Float[np.ndarray, "points features"]:
    """Return ``activations`` if a graph can be built on them, else raise `DataError`."""
    if n_neighbors < 1:
        raise ValueError(f"got n_neighbors {n_neighbors}, expected at least 1")
    if len(activations) <= n_neighbors:
        raise DataError(
            "too_few_points",
            f"got {len(activations)} points, expected at least {n_neighbors + 1} for {n_neighbors} neighbors. "
            "Lower n_neighbors, or give more points",
        )
    finite = np.isfinite(activations)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        raise DataError(
            "not_finite",
            f"got {np.count_nonzero(~finite)} NaN or infinite values, first in row {row}, column {column}: "
            "all must be finite; record the activations again, or drop the layer",
        )
    if (activations == activations[0]).all():
        raise DataError("constant", "got the same activations for every point. Drop the layer, it says nothing")
    if metric == "angular" and (zero := int(np.count_nonzero(~activations.any(axis=1)))):
        raise DataError(
            "zero_rows",
            f"got {zero} all-zero rows, which have no direction. Set graph.metric to euclidean, or drop the layer",
        )
    return activations


def comparable_rows(
    activations: Float[np.ndarray, "points features"], metric: Metric
) -> Float[np.ndarray, "points features"]:
    """Return float64 rows whose euclidean distance is the metric's; centered where that loses nothing but digits."""
    rows = activations.astype(np.float64)
    # By the largest entry first: squares of 1e200 are infinite, and of 1e-200 zero.
    if metric == "angular":
        rows /= np.abs(rows).max(axis=1, keepdims=True)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows
    return rows - rows.mean(axis=0)


# Raised with every change of the table; stored with the graph.
TABLE_VERSION = 3
# Exact below, whatever the rest: what a projection saves does not pay for what it may miss; by tiles it saves nothing.
_EXACT_BELOW, _TILES_BELOW = 30_000, 60_000
# Most neighbors, and from how many points on pynndescent is the default: the rest is quadratic (docs/speed.md).
_PYNNDESCENT_FROM = ((20, 60_000), (100, 100_000))
_PYNNDESCENT_FROM_WITH_MORE = 400_000


def choose_method(n_points: int, n_features: int, n_neighbors: int) -> SearchMethod:
    """Return ``exact`` below 30,000 points, or 60,000 where it goes by tiles; then ``projection``.

    ``exact`` remains where there is nothing to project.
    ``pynndescent`` is the default from 60,000 points on for up to 20 neighbors, from 100,000 for up to 100, from
    400,000 for more: its time grows with the neighbors, that of products hardly.
    """
    largest = next((n for most, n in _PYNNDESCENT_FROM if n_neighbors <= most), _PYNNDESCENT_FROM_WITH_MORE)
    if n_points >= largest:
        return "pynndescent"
    exact_below = _TILES_BELOW if goes_by_tiles(n_points, n_features, n_neighbors) else _EXACT_BELOW
    return "exact" if n_points < exact_below or n_features <= PROJECTED_COLUMNS else "projection"
