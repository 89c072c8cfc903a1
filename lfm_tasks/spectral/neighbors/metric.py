"""What distances are between: activations as they are, a factor for each row, and their mean."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int, Shaped

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

    def centred(self, points: Int[np.ndarray, " block"] | slice) -> Float[np.ndarray, "block features"]:
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
        scales = np.full(len(values), 2.0 ** -np.frexp(largest.max())[1])
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
