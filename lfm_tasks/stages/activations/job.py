"""rows.py."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float, Int, Shaped

from lfm_tasks.stores.units.arrays import ArrayReader


def read_activations(unit: ArrayReader) -> Float[np.ndarray, "points features"]:
    """Return a space's activations; half precision is cast up (`as_floats`) before anything is squared."""
    return as_floats(unit.read("activations"))


def read_rows(unit: ArrayReader, chosen: Int[np.ndarray, " chosen"]) -> Float[np.ndarray, "chosen features"]:
    """Return some rows, which ascend; beside them only a chunk is in memory."""
    return gather_rows(unit.batches("activations"), chosen)


def gather_rows(
    chunks: Iterable[Shaped[np.ndarray, "rows features"]], chosen: Int[np.ndarray, " chosen"]
) -> Float[np.ndarray, "chosen features"]:
    """Return the chosen rows of chunks, as `read_rows` does."""
    rows, start, filled = np.empty((0, 0)), 0, 0
    for chunk in chunks:
        own = chosen[np.searchsorted(chosen, start) : np.searchsorted(chosen, start + len(chunk))] - start
        if not start:
            rows = np.empty((len(chosen), chunk.shape[1]), dtype=as_floats(chunk[:0]).dtype)
        rows[filled : filled + len(own)] = chunk if len(own) == len(chunk) else chunk[own]
        start, filled = start + len(chunk), filled + len(own)
    return rows


def as_floats(rows: Shaped[np.ndarray, "rows features"]) -> Float[np.ndarray, "rows features"]:
    """Return rows in the precision that they are computed with."""
    return rows.astype(np.float32) if rows.dtype == np.float16 else rows
