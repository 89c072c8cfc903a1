"""Activations that people have on disk: a file a layer, or a file with an array a layer."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from lfm_tasks.catalog.model import ActivationsSource
from lfm_tasks.catalog.names import did_you_mean, fill
from lfm_tasks.errors import DataError
from lfm_tasks.sources.files.formats import FilePattern, find_layers, open_array
from lfm_tasks.sources.files.pooling import TokenMask, check_finite, needs_tokens, pool_rows, pooled_features
from lfm_tasks.sources.files.stored_array import StoredArray

# Part of every identity. Raise it when the same file gives other numbers.
_READER_VERSION = "2"
_BATCH_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Reading:
    """How a point becomes a row, as the catalog says it: see `pool_rows`; ``dtype`` None leaves the stored type."""

    pool: str = "none"
    shape: str | None = None
    mask: FilePattern | None = None
    prefix_tokens: int = 0
    dtype: str | None = None


def activations_pattern(model_name: str, source: ActivationsSource, root: Path) -> FilePattern:
    """Return where a model's activations lie, its name and the dataset's filled in."""
    values = {"model": model_name, "dataset": source.dataset}
    key = None if source.key is None else fill(source.key, **values)
    return FilePattern(root, fill(source.path, **values), key, source.storage)


def activations_reading(model_name: str, source: ActivationsSource, root: Path) -> Reading:
    """Return how a model's activations are read."""
    mask = None
    if source.mask is not None:
        values = {"model": model_name, "dataset": source.dataset}
        key = None if source.mask.key is None else fill(source.mask.key, **values)
        mask = FilePattern(root, fill(source.mask.path, **values), key, source.mask.storage)
    return Reading(source.pool, source.shape, mask, source.prefix_tokens, source.dtype)


class FileSource:
    """A `Source` of arrays in files of any kind that `FORMATS` knows.

    Opening finds the layers. A layer's header is read and checked when the layer is first asked for, so that one
    damaged array costs one layer; its values are checked as they are read.
    """

    def __init__(
        self, pattern: FilePattern, ids: Shaped[np.ndarray, " points"] | None, reading: Reading | None = None
    ) -> None:
        self._layers = find_layers(pattern)
        self._reading = reading or Reading()
        self._opened: dict[str, StoredArray] = {}
        self._ids = _positions(self._first_length()) if ids is None else ids

    @property
    def ids(self) -> Shaped[np.ndarray, " points"]:
        """Sample ids, one for each row; row numbers if the source was opened without ids."""
        return self._ids

    def layer_names(self) -> tuple[str, ...]:
        """All layers: in the order of the file, or of the names with numbers in numerical order."""
        return tuple(self._layers)

    def shape(self, layer: str) -> tuple[int, int]:
        """Return (points, features) of ``layer`` after pooling; reads the header only, and checks it."""
        array = self._checked(layer)
        return array.shape[0], self._n_features(array)

    def layout(self, layer: str) -> tuple[int, int, int]:
        """Return features after pooling, bytes of a number as it is recorded, and bytes that are held to read it."""
        array = self._checked(layer)
        dtype = np.dtype(self._reading.dtype or (array.dtype if array.dtype.kind == "f" else np.float32))
        return self._n_features(array), dtype.itemsize, array.held_bytes

    def identity(self, layer: str) -> Mapping[str, str]:
        """Return what decides the values of ``layer``: its content, how it is read, and this reader."""
        array, how = self._checked(layer), self._reading
        chosen = {"pool": how.pool, "shape": how.shape, "dtype": how.dtype, "prefix_tokens": how.prefix_tokens or None}
        if self._mask is not None:
            chosen["mask"] = self._mask.array.sha256()
        said = {name: str(value) for name, value in chosen.items() if value is not None}
        return {"kind": "file", "sha256": array.sha256(), "reader": _READER_VERSION, **said}

    def batches(
        self, layers: Sequence[str], rows: Int[np.ndarray, " selected"]
    ) -> Iterator[Mapping[str, Float[np.ndarray, "batch features"]]]:
        """Yield ``rows`` of each layer, pooled, as floats; DataError at the first value not finite."""
        arrays = {layer: self._checked(layer) for layer in layers}
        row_bytes = sum(prod(array.shape[1:]) * max(array.dtype.itemsize, 4) for array in arrays.values())
        n_rows = max(1, _BATCH_BYTES // max(row_bytes, 1))
        with ExitStack() as stack:
            readers = {layer: stack.enter_context(array.rows()) for layer, array in arrays.items()}
            valid = None if self._mask is None else stack.enter_context(self._mask.rows(self._ids))
            for start in range(0, len(rows), n_rows):
                batch = rows[start : start + n_rows]
                mask = None if valid is None else valid(batch)
                yield {layer: self._pooled(arrays[layer], read(batch), batch, mask) for layer, read in readers.items()}
        for array in arrays.values():
            array.check_unchanged()

    def _pooled(
        self,
        array: StoredArray,
        values: Shaped[np.ndarray, "batch ..."],
        rows: Int[np.ndarray, " batch"],
        mask: Bool[np.ndarray, "batch tokens"] | None,
    ) -> Float[np.ndarray, "batch features"]:
        how = self._reading
        if mask is not None and values.ndim == 3:
            needs_tokens(array.name, mask, how.prefix_tokens, self._ids[rows])
        pooled = pool_rows(values, how.pool, shape=how.shape, mask=mask, prefix_tokens=how.prefix_tokens)
        check_finite(pooled, rows, self._ids, name=array.name, advice="record it again, or drop the layer")
        if how.dtype is None:
            return pooled
        with np.errstate(over="ignore"):
            cast = pooled.astype(how.dtype)
        if not np.isfinite(cast).all():
            row = rows[np.flatnonzero(~np.isfinite(cast).all(axis=1))[0]]
            where = f"first in row {row} (id {self._ids[row]!s})"
            found = f"found values beyond {how.dtype} (largest {np.abs(pooled).max():.3g}), {where}"
            raise DataError("not_finite", f"{array.name}: {found}: leave out dtype, or ask for a wider one")
        return cast

    @cached_property
    def _mask(self) -> TokenMask | None:
        if self._reading.mask is None:
            return None
        place = self._reading.mask
        return TokenMask(open_array(place.locate(), place.path, place.key), len(self._ids))

    def _n_features(self, array: StoredArray) -> int:
        try:
            return pooled_features(array.shape[1:], self._reading.pool, shape=self._reading.shape)
        except DataError as error:
            raise DataError(error.reason, f"{array.name}: {error}") from error

    def _checked(self, layer: str) -> StoredArray:
        array = self._open(layer)
        if array.dtype.kind not in "fiub":
            found = f"found {array.dtype}, needs real numbers (float, integer or bool)"
            raise DataError("wrong_dtype", f"{array.name}: {found}: convert it")
        if self._n_features(array) < 1:
            raise DataError("wrong_shape", f"{array.name}: found no features in {array.shape}, needs at least one")
        if array.shape[0] != len(self._ids):
            found = f"found {array.shape[0]} rows and {len(self._ids)} ids"
            raise DataError("bad_ids", f"{array.name}: {found}, needs one id a row: give the ids of these rows")
        if len(array.shape) == 3 and self._reading.pool != "flatten":
            n_tokens, n_prefix = array.shape[1], self._reading.prefix_tokens
            if n_tokens <= n_prefix:
                found = f"found {n_tokens} tokens and prefix_tokens: {n_prefix}"
                raise DataError("wrong_shape", f"{array.name}: {found}, needs more tokens than prefix: lower it")
        if self._mask is not None and len(array.shape) == 3:
            self._mask.check_fits(array, self._reading.pool)
        return array

    def _open(self, layer: str) -> StoredArray:
        if layer not in self._layers:
            raise DataError("unknown_layer", f"no layer {layer[:100]!r}{did_you_mean(layer, self._layers)}")
        if layer not in self._opened:
            place = self._layers[layer]
            self._opened[layer] = open_array(place.path, place.name, place.key)
        return self._opened[layer]

    def _first_length(self) -> int:
        errors = []
        for layer in self._layers:
            try:
                return self._open(layer).shape[0]
            except DataError as error:
                errors.append(error)
        raise DataError("bad_ids", f"no layer tells how many rows there are: {errors[0]}")


def _positions(n_points: int) -> Shaped[np.ndarray, " points"]:
    return np.arange(n_points).astype(str)
