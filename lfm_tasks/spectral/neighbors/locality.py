"""Orders of points that go from near to near: their blocks hold near pairs, and rows stay in the cache."""

import numpy as np
from jaxtyping import Float32, Int

from lfm_tasks.spectral.neighbors.metric import DistanceRows, blocks

# Columns that an order is found by, and how many points may lie in any order.
THIN_COLUMNS, _NEAR_POINTS = 16, 64


def near_to_near(rows: DistanceRows) -> Int[np.ndarray, " points"]:
    """Return an order of the points that mostly goes from near to near: halves of halves, each along a direction.

    Its first blocks of products hold near pairs, so few later ones are worth keeping; and rows stay in the cache.
    """
    n_points, n_features = rows.values.shape
    directions = np.random.default_rng(0).standard_normal((n_features, THIN_COLUMNS)).astype(np.float32)
    thin = np.empty((n_points, THIN_COLUMNS), dtype=np.float32)
    for block in blocks(thin):
        thin[block] = rows.centred(block).astype(np.float32) @ directions
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
            centred = heads[part] - heads[part].mean(axis=0)
            direction = np.linalg.eigh(centred.T @ centred)[1][:, -1]
            middle = len(part) // 2
            split = np.argpartition(centred @ direction, middle)
            halves += [part[split[:middle]], part[split[middle:]]]
        parts = halves
    return np.concatenate(parts)
