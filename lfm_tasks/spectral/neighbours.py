"""The nearest neighbours of every point: exactly, by blocked matrix products, or approximately, by pynndescent."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from lfm_tasks.reasons import ReasonError

Metric = Literal["angular", "euclidean"]

# Rows a block of products: part of the convention, since the last bits of a product depend on its shape.
_BLOCK_ROWS = 1024
# From here on pynndescent is faster than n² products (k = 50: 56 s beside 31 s at 100,000 × 768, one core).
_APPROXIMATE_FROM = 60_000


@dataclass(frozen=True)
class Neighbours:
    """Row numbers and distances of the neighbours, nearest first, ties by the lower row; never the point itself."""

    indices: Int[np.ndarray, "points neighbours"]
    distances: Float[np.ndarray, "points neighbours"]


def choose_method(n_points: int, n_features: int, n_neighbors: int) -> Literal["exact", "pynndescent"]:
    """Return how ``graph.method: auto`` finds neighbours: exactly below 60,000 points, by pynndescent from there on.

    The table is part of the convention, never measured on the spot. With many neighbours (over 100) pynndescent slows
    down more than the products do, so the border moves to 200,000; with few features products are cheap, and it
    doubles below 128.
    """
    border = _APPROXIMATE_FROM * (2 if n_features < 128 else 1)
    if n_neighbors > 100:
        border = max(border, 200_000)
    return "exact" if n_points < border else "pynndescent"


def exact_neighbours(
    activations: Float[np.ndarray, "points features"], n_neighbors: int, *, metric: Metric
) -> Neighbours:
    """Return the ``n_neighbors`` nearest neighbours of every point.

    ``angular`` is the chord on the unit sphere, sqrt(2 (1 - cos)), in [0, 2]; ``euclidean`` the usual distance. Works
    in blocks: memory is points × 1,024, never points².

    Raises
    ------
    ReasonError
        ``not_finite``, ``constant``, ``zero_rows`` or ``too_few_points``, with what was found and what to do.
    """
    rows = comparable_rows(check_activations(activations, n_neighbors, metric=metric), metric)
    squares = np.einsum("ij,ij->i", rows, rows)
    indices = np.empty((len(rows), n_neighbors), dtype=np.int32)
    distances = np.empty((len(rows), n_neighbors), dtype=np.float64)
    for start in range(0, len(rows), _BLOCK_ROWS):
        stop = min(start + _BLOCK_ROWS, len(rows))
        squared = squares[start:stop, None] + squares - 2 * (rows[start:stop] @ rows.T)
        squared[np.arange(stop - start), np.arange(start, stop)] = np.inf
        nearest = _smallest(squared, n_neighbors)
        indices[start:stop] = nearest
        distances[start:stop] = np.sqrt(np.maximum(np.take_along_axis(squared, nearest, axis=1), 0))
    return Neighbours(indices, distances)


def approximate_neighbours(
    activations: Float[np.ndarray, "points features"], n_neighbors: int, *, metric: Metric, seed: int = 0
) -> Neighbours:
    """Return approximate neighbours by pynndescent (Dong, Moses, Li 2011), distances exact.

    One thread and a fixed seed: its result depends on both. The first call in a process compiles for about a minute.

    Raises
    ------
    ReasonError
        As `exact_neighbours`; ``inaccurate`` if pynndescent gives no neighbour for some point.
    """
    rows = comparable_rows(check_activations(activations, n_neighbors, metric=metric), metric)
    from pynndescent import NNDescent

    index = NNDescent(
        rows.astype(np.float32), metric="euclidean", n_neighbors=n_neighbors + 1, random_state=seed, n_jobs=1
    )
    candidates = np.asarray(index.neighbor_graph[0], dtype=np.int64)
    indices = _without_self(candidates, n_neighbors)
    distances = np.empty(indices.shape)
    for start in range(0, len(rows), _BLOCK_ROWS):
        block = indices[start : start + _BLOCK_ROWS]
        steps = rows[block] - rows[start : start + _BLOCK_ROWS, None, :]
        distances[start : start + _BLOCK_ROWS] = np.sqrt(np.einsum("ijk,ijk->ij", steps, steps))
    order = np.lexsort((indices, distances), axis=1)
    return Neighbours(
        np.take_along_axis(indices, order, axis=1).astype(np.int32), np.take_along_axis(distances, order, axis=1)
    )


def neighbour_recall(
    neighbours: Neighbours,
    activations: Float[np.ndarray, "points features"],
    *,
    metric: Metric,
    n_sample: int = 500,
    seed: int = 0,
) -> float:
    """Return the share of true neighbours that were found, in [0, 1], over a seeded sample of points."""
    n_neighbors = neighbours.indices.shape[1]
    rows = comparable_rows(check_activations(activations, n_neighbors, metric=metric), metric)
    sample = np.sort(np.random.default_rng(seed).permutation(len(rows))[:n_sample])
    squares = np.einsum("ij,ij->i", rows, rows)
    squared = squares[sample, None] + squares - 2 * (rows[sample] @ rows.T)
    squared[np.arange(len(sample)), sample] = np.inf
    truth = _smallest(squared, n_neighbors)
    hits = [len(np.intersect1d(a, b)) for a, b in zip(truth, neighbours.indices[sample], strict=True)]
    return float(np.sum(hits) / truth.size)


def check_activations(
    activations: Float[np.ndarray, "points features"], n_neighbors: int, *, metric: Metric
) -> Float[np.ndarray, "points features"]:
    """Return ``activations`` if a graph can be built on them, else raise `ReasonError`."""
    if n_neighbors < 1:
        raise ValueError(f"n_neighbors is {n_neighbors}, needs at least 1")
    if len(activations) <= n_neighbors:
        raise ReasonError(
            "too_few_points",
            f"found {len(activations)} points, {n_neighbors} neighbours need at least {n_neighbors + 1}: "
            "lower n_neighbors, or give more points",
        )
    finite = np.isfinite(activations)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        raise ReasonError(
            "not_finite",
            f"found {np.count_nonzero(~finite)} NaN or infinite values, first in row {row}, column {column}: "
            "all must be finite; record the activations again, or drop the layer",
        )
    if (activations == activations[0]).all():
        raise ReasonError("constant", "found the same activations for every point: drop the layer, it says nothing")
    if metric == "angular" and (zero := int(np.count_nonzero(~activations.any(axis=1)))):
        raise ReasonError(
            "zero_rows",
            f"found {zero} all-zero rows, which have no direction: set graph.metric to euclidean, or drop the layer",
        )
    return activations


def comparable_rows(
    activations: Float[np.ndarray, "points features"], metric: Metric
) -> Float[np.ndarray, "points features"]:
    """Return float64 rows whose euclidean distance is the metric's; centred where that loses nothing but digits."""
    rows = activations.astype(np.float64)
    # By the largest entry first: squares of 1e200 are infinite, and of 1e-200 zero.
    if metric == "angular":
        rows /= np.abs(rows).max(axis=1, keepdims=True)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows
    return rows - rows.mean(axis=0)


def _smallest(squared: Float[np.ndarray, "block points"], n_neighbors: int) -> Int[np.ndarray, "block neighbours"]:
    """Return the columns of the smallest entries of each row, in order, ties by the lower column."""
    threshold = np.partition(squared, n_neighbors - 1, axis=1)[:, n_neighbors - 1]
    chosen = np.empty((len(squared), n_neighbors), dtype=np.int64)
    for row, (values, limit) in enumerate(zip(squared, threshold, strict=True)):
        columns = np.flatnonzero(values <= limit)
        order = np.argsort(values[columns], kind="stable")
        chosen[row] = columns[order[:n_neighbors]]
    return chosen


def _without_self(candidates: Int[np.ndarray, "points candidates"], n_neighbors: int) -> Int[np.ndarray, "points k"]:
    """Return the first ``n_neighbors`` distinct valid candidates that are not the point itself."""
    kept = np.empty((len(candidates), n_neighbors), dtype=np.int64)
    for point, row in enumerate(candidates):
        valid = row[(row >= 0) & (row != point)]
        distinct = valid[np.sort(np.unique(valid, return_index=True)[1])]
        if len(distinct) < n_neighbors:
            raise ReasonError(
                "inaccurate",
                f"pynndescent found {len(distinct)} neighbours of point {point}, {n_neighbors} are needed: "
                "set graph.method to exact",
            )
        kept[point] = distinct[:n_neighbors]
    return kept
