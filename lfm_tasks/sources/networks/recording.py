"""What every recorder does alike, whatever runs the network: feed the inputs, pool and check what comes out."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int, Shaped

from lfm_tasks.reasons import ReasonError
from lfm_tasks.sources.files.pooling import check_finite, pool_rows, pooled_features
from lfm_tasks.sources.source import Source

# Part of every identity. Raise it when the same model and inputs give other numbers.
RECORDER_VERSION = "1"
_DIGEST_ROWS = 4096


@runtime_checkable
class RecordedSource(Source, Protocol):
    """A `Source` that runs a network: dear to start again, and known before it is pooled."""

    @property
    def batch_rows(self) -> int:
        """Rows that are computed together; a recording that goes on does so at a multiple of it, for the same bits."""
        ...

    def layer_shapes(self) -> Mapping[str, tuple[int | None, ...]]:
        """Return the shape of one point in each layer, before pooling; None where only a run can tell."""
        ...


@dataclass(frozen=True)
class Recorder:
    """The inputs of a network, and what is recorded of it; ``name`` is how messages call the network."""

    name: str
    inputs: Shaped[np.ndarray, "points ..."]
    ids: Shaped[np.ndarray, " points"]
    pool: str
    batch_rows: int

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.ids):
            found = f"found {len(self.inputs)} inputs and {len(self.ids)} ids, needs one id an input"
            raise ReasonError("bad_ids", f"{self.name}: {found}: give the ids of these inputs")

    @cached_property
    def identity(self) -> Mapping[str, str]:
        """What decides the values beside the network and what runs it."""
        return {
            "inputs": self._inputs_digest(),
            "pool": self.pool,
            "batch_size": str(self.batch_rows),
            "recorder": RECORDER_VERSION,
        }

    def batches(self, rows: Int[np.ndarray, " selected"]) -> Iterator[Int[np.ndarray, " batch"]]:
        """Yield ``rows`` in their order, as many as are computed together; the last batch may be smaller."""
        return (rows[start : start + self.batch_rows] for start in range(0, len(rows), self.batch_rows))

    def fed(self, rows: Int[np.ndarray, " batch"], dtype: np.dtype[Any]) -> Shaped[np.ndarray, "batch ..."]:
        """Return a copy of these inputs as ``dtype``; ReasonError if they are not finite, or do not fit it."""
        values = self.inputs[rows]
        with np.errstate(over="ignore"):
            fed = np.ascontiguousarray(values, dtype=dtype)
        if fed.dtype.kind == "f" and not np.isfinite(fed).all():
            row = rows[np.flatnonzero(~np.isfinite(fed).reshape(len(fed), -1).all(axis=1))[0]]
            found = f"found NaN or infinite inputs as {fed.dtype}, first in row {row} (id {self.ids[row]!s})"
            raise ReasonError("not_finite", f"{self.name}: {found}, needs finite numbers: mend the dataset's inputs")
        if fed.dtype.kind in "iu" and not np.array_equal(fed, values):
            found = f"found inputs of {values.dtype} beyond {fed.dtype}, needs numbers that fit"
            raise ReasonError("wrong_dtype", f"{self.name}: {found}: check the dataset's inputs")
        return fed

    def check_pooling(self, layer: str, shape: Sequence[int | None]) -> None:
        """Raise ReasonError if the pooling does not fit a layer whose points have ``shape``."""
        if None in shape:
            return  # the first batch tells
        try:
            pooled_features([length or 0 for length in shape], self.pool)
        except ReasonError as error:
            raise ReasonError(error.reason, f"{self.name}: {layer}: {error}") from error

    def pooled(
        self, layer: str, values: Shaped[np.ndarray, "..."], rows: Int[np.ndarray, " batch"]
    ) -> Float[np.ndarray, "batch features"]:
        """Return what ``layer`` gave for ``rows``, pooled, in memory of its own; ReasonError if it cannot be used."""
        if values.ndim < 2 or len(values) != len(rows):
            found = f"found {values.shape} for {len(rows)} points, needs a row a point"
            raise ReasonError("wrong_shape", f"{self.name}: {layer}: {found}: leave it out with layers: ['!{layer}']")
        try:
            pooled = pool_rows(values, self.pool)
        except ReasonError as error:
            raise ReasonError(error.reason, f"{self.name}: {layer}: {error}") from error
        check_finite(pooled, rows, self.ids, name=f"{self.name}: {layer}", advice="leave the layer out")
        # A network may go on to overwrite what it gave.
        return pooled.copy() if np.may_share_memory(pooled, values) else pooled

    def _inputs_digest(self) -> str:
        dtype = self.inputs.dtype.newbyteorder("<")
        hasher = hashlib.sha256(f"{dtype.str}:{self.inputs.shape}".encode())
        for start in range(0, len(self.inputs), _DIGEST_ROWS):
            hasher.update(np.ascontiguousarray(self.inputs[start : start + _DIGEST_ROWS], dtype=dtype).tobytes())
        return hasher.hexdigest()
