"""The interface of every source of activations, and the source that reads files: one file or one array a layer."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property, partial
from math import prod
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from lfm_tasks.catalog.names import did_you_mean, expand_layers
from lfm_tasks.errors import DataError
from lfm_tasks.sources.files.ids import unique_ids
from lfm_tasks.sources.files.joined_arrays import without_axis
from lfm_tasks.sources.files.pooling import (
    TokenMask,
    check_finite,
    check_tokens,
    pool_rows,
    pooled_features,
    wide_dtype,
)
from lfm_tasks.sources.files.stored_array import StoredArray
from lfm_tasks.sources.layers import FilePattern, find_layers
from lfm_tasks.sources.no_layers import why_no_layer
from lfm_tasks.sources.read_options import ReadOptions
from lfm_tasks.sources.trials import Trials, trials_of

Rows = Int[np.ndarray, " batch"]


class Source(Protocol):
    """Activations of one model on one dataset, layer by layer, read in batches of rows.

    Opening a source is cheap: it reads headers, not data. Errors are `DataError`s.
    """

    @property
    def ids(self) -> Shaped[np.ndarray, " points"]:
        """Unique sample ids (strings), one for each row, in the order of the source."""
        ...

    def layer_names(self) -> tuple[str, ...]:
        """Return all layers, in the model's order (first to last)."""
        ...

    def identity(self, layer: str) -> Mapping[str, str]:
        """Return the inputs of the key of ``layer``: digests of files, pooling, versions. Never a path or a time."""
        ...

    def batches(
        self, layers: Sequence[str], rows: Int[np.ndarray, " selected"]
    ) -> Iterator[Mapping[str, Float[np.ndarray, "batch features"]]]:
        """Yield ``rows`` of each layer, in the order of ``rows``, pooled to (batch, features), float32 or float64."""
        ...


# Part of every identity. Raise it when the same file gives other numbers.
_READER_VERSION = "2"
_BATCH_BYTES = 16 * 2**20
_MEAN_POINTS = 1024  # ids whose rows are averaged at a time


_N_NAMED = 12  # ids that a sentence names


class FileSource:
    """A `Source` of arrays in files of any kind that `FORMATS` knows.

    Opening finds the layers. A layer's header is read and checked when the layer is first requested, so that one
    damaged array costs one layer; its values are checked as they are read.
    """

    def __init__(
        self, pattern: FilePattern, ids: Shaped[np.ndarray, " points"] | None, options: ReadOptions | None = None
    ) -> None:
        self._layers = find_layers(pattern)
        self._options = options or ReadOptions()
        self._opened: dict[str, StoredArray] = {}
        self._dropped: dict[str, Int[np.ndarray, " dropped"]] = {}
        stimuli = next(iter(self._layers.values())).ids
        if stimuli:
            self._row_ids = unique_ids(np.array(stimuli), pattern.path)
        else:
            self._row_ids = _positions(self._first_length()) if ids is None else ids
        self._trials = trials_of(self._row_ids) if self._options.repeats else None

    @property
    def ids(self) -> Shaped[np.ndarray, " points"]:
        """Sample ids, one for each point: row indices if the source was opened without ids."""
        return self._row_ids if self._trials is None else self._trials.ids

    def layer_names(self) -> tuple[str, ...]:
        """Return all layers: in the order of the file, or of the names with numbers in numerical order."""
        return tuple(self._layers)

    def passed_over(self, layer: str) -> str:
        """Return why an array that is found by ``*`` is no layer; "" if it is one, or cannot be read."""
        return why_no_layer(layer, self._layers[layer], partial(self._open, layer), self._options.named)

    def lacks_rows(self, layer: str) -> bool:
        """Return whether rows of ``layer`` are left out because they are not finite."""
        return len(self._dropped_rows(layer)) > 0

    def usable(self, layer: str) -> Int[np.ndarray, " points"]:
        """Return the indices of the points that ``layer`` has rows for: of all, or those with finite values."""
        dropped = self._dropped_rows(layer)
        if self._trials is None:
            return np.setdiff1d(np.arange(len(self._row_ids)), dropped)
        return np.flatnonzero(self._trials.without(dropped).counts)

    def shape(self, layer: str) -> tuple[int, int]:
        """Return (points, features) of ``layer`` after pooling; reads the header only, and checks it."""
        array = self._checked(layer)
        return len(self.ids), self._n_features(array)

    def layout(self, layer: str) -> tuple[int, int, int]:
        """Return features after pooling, bytes of a number as it is recorded, and bytes in memory while it is read."""
        array = self._checked(layer)
        dtype = np.dtype(self._options.dtype or (array.dtype if array.dtype.kind == "f" else np.float32))
        return self._n_features(array), dtype.itemsize, array.memory_bytes

    def identity(self, layer: str) -> Mapping[str, str]:
        """Return the inputs of the key of ``layer``: its content, how it is read, and this reader."""
        array, options = self._checked(layer), self._options
        chosen = {
            "pool": options.pool,
            "shape": options.shape_of(len(array.shape)),
            "dtype": options.dtype,
            "prefix_tokens": options.prefix_tokens or None,
        }
        if self._mask is not None:
            chosen["mask"] = self._mask.array.sha256()
        if self._trials is not None:
            chosen["repeats"] = f"{options.repeats} {self._trials.digest}"
        if len(self._dropped_rows(layer)):
            chosen["not_finite"] = options.not_finite
        texts = {name: str(value) for name, value in chosen.items() if value is not None}
        return {"kind": "file", "sha256": array.sha256(), "reader": _READER_VERSION, **texts}

    def batches(
        self, layers: Sequence[str], rows: Int[np.ndarray, " selected"]
    ) -> Iterator[Mapping[str, Float[np.ndarray, "batch features"]]]:
        """Yield ``rows`` of each layer, pooled, as floats; DataError at the first value not finite."""
        if self._trials is not None:
            yield from self._means(layers, rows)
            return
        for _, values in self._row_batches(layers, rows):
            for layer, pooled in values.items():
                self._check_finite(layer, pooled[0], pooled[1])
            yield {layer: self._cast(layer, *pooled) for layer, pooled in values.items()}

    def _row_batches(
        self, layers: Sequence[str], rows: Int[np.ndarray, " selected"]
    ) -> Iterator[tuple[Int[np.ndarray, " batch"], dict[str, tuple[Float[np.ndarray, "batch features"], Rows]]]]:
        """Yield rows of the files, pooled; values may be NaN."""
        arrays = {layer: self._checked(layer) for layer in layers}
        row_bytes = sum(prod(array.shape[1:]) * max(array.dtype.itemsize, 4) for array in arrays.values())
        n_rows = max(1, _BATCH_BYTES // max(row_bytes, 1))
        with ExitStack() as stack:
            readers = {layer: stack.enter_context(array.rows()) for layer, array in arrays.items()}
            valid = None if self._mask is None else stack.enter_context(self._mask.rows(self._row_ids))
            for start in range(0, len(rows), n_rows):
                batch = rows[start : start + n_rows]
                mask = None if valid is None else valid(batch)
                yield (
                    batch,
                    {
                        layer: (self._pooled(arrays[layer], read(batch), batch, mask), batch)
                        for layer, read in readers.items()
                    },
                )
        for array in arrays.values():
            array.check_unchanged()

    def _means(
        self, layers: Sequence[str], points: Int[np.ndarray, " selected"]
    ) -> Iterator[Mapping[str, Float[np.ndarray, "batch features"]]]:
        """Yield the means of the rows of each point, layer by layer the rows that are finite."""
        trials = {layer: self._known_trials.without(self._dropped_rows(layer)) for layer in layers}
        for start in range(0, len(points), _MEAN_POINTS):
            batch = points[start : start + _MEAN_POINTS]
            yield {layer: self._mean_rows(layer, trials[layer], batch) for layer in layers}

    def _mean_rows(
        self, layer: str, trials: Trials, points: Int[np.ndarray, " batch"]
    ) -> Float[np.ndarray, "batch features"]:
        rows, owners = trials.rows_of(points)
        total: Float[np.ndarray, "batch features"] | None = None
        dtype = np.dtype(np.float32)
        done = 0
        for batch, values in self._row_batches([layer], rows):
            pooled = values[layer][0]
            self._check_finite(layer, pooled, batch)
            if total is None:
                total, dtype = np.zeros((len(points), pooled.shape[1])), wide_dtype(pooled.dtype)
            np.add.at(total, owners[done : done + len(batch)], pooled.astype(np.float64))
            done += len(batch)
        if total is None:
            raise TypeError("a mean needs points")
        mean = (total / trials.counts[points][:, None]).astype(dtype)
        return self._cast(layer, mean, points)

    @property
    def _known_trials(self) -> Trials:
        if self._trials is None:
            raise TypeError("only repeated ids have trials")
        return self._trials

    def _dropped_rows(self, layer: str) -> Int[np.ndarray, " dropped"]:
        """Return the rows of the file that are left out because they are not finite; DataError if all are."""
        if self._options.not_finite != "drop":
            return np.arange(0)
        if layer not in self._dropped:
            n_rows = self._checked(layer).shape[0]
            broken = [
                batch[~np.isfinite(values[layer][0]).all(axis=1)]
                for batch, values in self._row_batches([layer], np.arange(n_rows))
            ]
            dropped = np.concatenate([*broken, np.arange(0)])
            if len(dropped) == n_rows:
                problem = f"got NaN or infinite values in each of {n_rows} rows"
                raise DataError("not_finite", f"{self._open(layer).name}: {problem}: no row is left, drop the layer")
            self._dropped[layer] = dropped
        return self._dropped[layer]

    def notes(self, layers: Sequence[str]) -> list[str]:
        """Return sentences for people on rows that were left out of layers, and on rows that were averaged."""
        said = []
        if self._trials is not None and len(self._row_ids) > len(self.ids):
            said.append(f"{len(self._row_ids)} rows of {len(self.ids)} ids: the mean of each id's rows")
        counts = {layer: len(self._dropped.get(layer, ())) for layer in layers}
        for layer in (layer for layer in layers if counts[layer]):
            first = ", ".join(str(self._row_ids[row]) for row in self._dropped[layer][:_N_NAMED])
            more = " ..." if counts[layer] > _N_NAMED else ""
            left_out = f"{counts[layer]} of {len(self._row_ids)} rows are not finite and left out"
            said.append(f"{layer}: {left_out}: {first}{more}")
        return said

    def _pooled(
        self,
        array: StoredArray,
        values: Shaped[np.ndarray, "batch ..."],
        rows: Int[np.ndarray, " batch"],
        mask: Bool[np.ndarray, "batch tokens"] | None,
    ) -> Float[np.ndarray, "batch features"]:
        options = self._options
        if mask is not None and values.ndim == 3:
            check_tokens(array.name, mask, options.prefix_tokens, self._row_ids[rows])
        return pool_rows(
            values, options.pool, shape=options.shape_of(values.ndim), mask=mask, prefix_tokens=options.prefix_tokens
        )

    def _check_finite(self, layer: str, pooled: Float[np.ndarray, "batch features"], rows: Rows) -> None:
        advice = "Record it again, say not_finite: drop to leave such rows out, or drop the layer"
        check_finite(pooled, rows, self._row_ids, name=self._opened[layer].name, advice=advice)

    def _cast(
        self, layer: str, pooled: Float[np.ndarray, "batch features"], rows: Rows
    ) -> Float[np.ndarray, "batch features"]:
        """Return rows in the type that the catalog asks for; ``rows`` are those of `ids`."""
        options = self._options
        if options.dtype is None:
            return pooled
        with np.errstate(over="ignore"):
            cast = pooled.astype(options.dtype)
        if not np.isfinite(cast).all():
            row = rows[np.flatnonzero(~np.isfinite(cast).all(axis=1))[0]]
            where = f"first in row {row} (id {self.ids[row]!s})"
            problem = f"got values beyond {options.dtype} (largest {np.abs(pooled).max():.3g}), {where}"
            name = self._opened[layer].name
            raise DataError("not_finite", f"{name}: {problem}. Leave out dtype, or ask for a wider one")
        return cast

    @cached_property
    def _mask(self) -> TokenMask | None:
        if self._options.mask is None:
            return None
        return TokenMask(self._options.mask.open(), len(self._row_ids))

    def _n_features(self, array: StoredArray) -> int:
        try:
            shape = self._options.shape_of(len(array.shape))
            return pooled_features(array.shape[1:], self._options.pool, shape=shape)
        except DataError as error:
            raise DataError(error.reason, f"{array.name}: {error}") from error

    def _checked(self, layer: str) -> StoredArray:
        array = self._open(layer)
        if array.dtype.kind not in "fiub":
            problem = f"got {array.dtype}, expected real numbers (float, integer or bool)"
            raise DataError("wrong_dtype", f"{array.name}: {problem}. Convert it")
        if self._n_features(array) < 1:
            raise DataError("wrong_shape", f"{array.name}: got no features in {array.shape}, expected at least one")
        if array.shape[0] != len(self._row_ids):
            problem = f"got {array.shape[0]} rows and {len(self._row_ids)} ids"
            advice = "Give the ids of these rows"
            if len(array.shape) == 2 and array.shape[1] == len(self._row_ids):
                advice = "The points stand in its columns, save its transpose"
            if array.name.endswith("]") and ",:]" not in array.name:
                advice += ', or key: "...[{layer},:]" where the layers come first'
            raise DataError("bad_ids", f"{array.name}: {problem}, expected one id a row. {advice}")
        if len(array.shape) == 3 and self._options.pool != "flatten":
            n_tokens, n_prefix = array.shape[1], self._options.prefix_tokens
            if n_tokens <= n_prefix:
                problem = f"got {n_tokens} tokens and prefix_tokens: {n_prefix}"
                raise DataError("wrong_shape", f"{array.name}: {problem}, expected more tokens than prefix. Lower it")
        if self._mask is not None and len(array.shape) == 3:
            self._mask.check_fits(array, self._options.pool)
        return array

    def _open(self, layer: str) -> StoredArray:
        if layer not in self._layers:
            raise DataError("unknown_layer", f"no layer {layer[:100]!r}{did_you_mean(layer, self._layers)}")
        if layer not in self._opened:
            array = self._layers[layer].open()
            self._opened[layer] = self._without_axis(array)
        return self._opened[layer]

    def _without_axis(self, array: StoredArray) -> StoredArray:
        """Return tokens that lie behind an axis of length 1 without it, where the catalog says that they are tokens."""
        shapes = self._options.shape
        is_tokens = "ntd" in (shapes if isinstance(shapes, tuple) else (shapes,))
        return without_axis(array) if is_tokens else array

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


def choose_layers(patterns: Sequence[str], source: Source) -> tuple[tuple[str, ...], list[str]]:
    """Return the layers that globs choose, and a sentence on what they find that is no layer.

    Parameters
    ----------
    patterns
        Names and globs, as `expand_layers` takes them. What a name asks for is taken whatever it holds; globs pass
        over arrays with one number a row or fewer, text, and what the catalog names as ids, labels, masks or inputs.
    source
        Whose layers.

    Raises
    ------
    DataError
        ``unknown_layer`` if nothing is left.
    """
    chosen = expand_layers(patterns, source.layer_names())
    if not isinstance(source, FileSource):
        return chosen, []
    named = set(patterns)
    reasons = {layer: "" if layer in named else source.passed_over(layer) for layer in chosen}
    kept = tuple(layer for layer in chosen if not reasons[layer])
    others = [f"{layer} ({reason})" for layer, reason in reasons.items() if reason]
    told = ", ".join(others[:6]) + (f" and {len(others) - 6} more" if len(others) > 6 else "")
    if not kept:
        advice = "Name what is one under layers; columns: [f*] reads a column a feature, {id} an array a stimulus"
        raise DataError("unknown_layer", f"got no layer, but {told}, expected (points, features). {advice}")
    return kept, [f"no layers: {told}"] if others else []
