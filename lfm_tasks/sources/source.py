"""What every source of activations can do, and the source that reads files: a file a layer, or an array a layer."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from lfm_tasks.catalog.models import ActivationsSource
from lfm_tasks.catalog.names import check_layer_name, did_you_mean, fill_pattern
from lfm_tasks.errors import DataError
from lfm_tasks.sources.files.formats import find_format, keeps_order, matching_keys, open_array
from lfm_tasks.sources.files.paths import is_remote, locate, readable
from lfm_tasks.sources.files.pooling import TokenMask, check_finite, check_tokens, pool_rows, pooled_features
from lfm_tasks.sources.files.stored_array import StoredArray
from lfm_tasks.variables import names_variable


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
        """Return what decides the values of ``layer``: digests of files, pooling, versions. Never a path or a time."""
        ...

    def batches(
        self, layers: Sequence[str], rows: Int[np.ndarray, " selected"]
    ) -> Iterator[Mapping[str, Float[np.ndarray, "batch features"]]]:
        """Yield ``rows`` of each layer, in the order of ``rows``, pooled to (batch, features), float32 or float64."""
        ...


# Part of every identity. Raise it when the same file gives other numbers.
_READER_VERSION = "2"
_BATCH_BYTES = 16 * 2**20


@dataclass(frozen=True)
class FilePattern:
    """Where the layers of one model lie: ``{layer}`` in ``path`` or in ``key``; relative to ``root``, or remote."""

    root: Path
    path: str
    key: str | None = None
    storage: str | None = None

    def locate(self, path: str | None = None) -> Path:
        """Return where ``path``, or the pattern's own, lies."""
        return locate(self.root, self.path if path is None else path, self.storage)


@dataclass(frozen=True)
class ReadOptions:
    """How the values of a point become a row, as the catalog says: see `pool_rows`; ``dtype`` None keeps the type."""

    pool: str = "none"
    shape: str | None = None
    mask: FilePattern | None = None
    prefix_tokens: int = 0
    dtype: str | None = None


def file_pattern(model_name: str, source: ActivationsSource, root: Path) -> FilePattern:
    """Return where a model's activations lie, its name and the dataset's filled in."""
    values = {"model": model_name, "dataset": source.dataset}
    key = None if source.key is None else fill_pattern(source.key, **values)
    return FilePattern(root, fill_pattern(source.path, **values), key, source.storage)


def read_options(model_name: str, source: ActivationsSource, root: Path) -> ReadOptions:
    """Return how a model's activations are read."""
    mask = None
    if source.mask is not None:
        values = {"model": model_name, "dataset": source.dataset}
        key = None if source.mask.key is None else fill_pattern(source.mask.key, **values)
        mask = FilePattern(root, fill_pattern(source.mask.path, **values), key, source.mask.storage)
    return ReadOptions(source.pool, source.shape, mask, source.prefix_tokens, source.dtype)


class FileSource:
    """A `Source` of arrays in files of any kind that `FORMATS` knows.

    Opening finds the layers. A layer's header is read and checked when the layer is first asked for, so that one
    damaged array costs one layer; its values are checked as they are read.
    """

    def __init__(
        self, pattern: FilePattern, ids: Shaped[np.ndarray, " points"] | None, options: ReadOptions | None = None
    ) -> None:
        self._layers = find_layers(pattern)
        self._options = options or ReadOptions()
        self._opened: dict[str, StoredArray] = {}
        self._ids = _positions(self._first_length()) if ids is None else ids

    @property
    def ids(self) -> Shaped[np.ndarray, " points"]:
        """Sample ids, one for each row; row indices if the source was opened without ids."""
        return self._ids

    def layer_names(self) -> tuple[str, ...]:
        """Return all layers: in the order of the file, or of the names with numbers in numerical order."""
        return tuple(self._layers)

    def shape(self, layer: str) -> tuple[int, int]:
        """Return (points, features) of ``layer`` after pooling; reads the header only, and checks it."""
        array = self._checked(layer)
        return array.shape[0], self._n_features(array)

    def layout(self, layer: str) -> tuple[int, int, int]:
        """Return features after pooling, bytes of a number as it is recorded, and bytes in memory while it is read."""
        array = self._checked(layer)
        dtype = np.dtype(self._options.dtype or (array.dtype if array.dtype.kind == "f" else np.float32))
        return self._n_features(array), dtype.itemsize, array.memory_bytes

    def identity(self, layer: str) -> Mapping[str, str]:
        """Return what decides the values of ``layer``: its content, how it is read, and this reader."""
        array, options = self._checked(layer), self._options
        chosen = {
            "pool": options.pool,
            "shape": options.shape,
            "dtype": options.dtype,
            "prefix_tokens": options.prefix_tokens or None,
        }
        if self._mask is not None:
            chosen["mask"] = self._mask.array.sha256()
        texts = {name: str(value) for name, value in chosen.items() if value is not None}
        return {"kind": "file", "sha256": array.sha256(), "reader": _READER_VERSION, **texts}

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
        options = self._options
        if mask is not None and values.ndim == 3:
            check_tokens(array.name, mask, options.prefix_tokens, self._ids[rows])
        pooled = pool_rows(values, options.pool, shape=options.shape, mask=mask, prefix_tokens=options.prefix_tokens)
        check_finite(pooled, rows, self._ids, name=array.name, advice="record it again, or drop the layer")
        if options.dtype is None:
            return pooled
        with np.errstate(over="ignore"):
            cast = pooled.astype(options.dtype)
        if not np.isfinite(cast).all():
            row = rows[np.flatnonzero(~np.isfinite(cast).all(axis=1))[0]]
            where = f"first in row {row} (id {self._ids[row]!s})"
            problem = f"found values beyond {options.dtype} (largest {np.abs(pooled).max():.3g}), {where}"
            raise DataError("not_finite", f"{array.name}: {problem}: leave out dtype, or ask for a wider one")
        return cast

    @cached_property
    def _mask(self) -> TokenMask | None:
        if self._options.mask is None:
            return None
        mask = self._options.mask
        return TokenMask(open_array(mask.locate(), mask.path, mask.key), len(self._ids))

    def _n_features(self, array: StoredArray) -> int:
        try:
            return pooled_features(array.shape[1:], self._options.pool, shape=self._options.shape)
        except DataError as error:
            raise DataError(error.reason, f"{array.name}: {error}") from error

    def _checked(self, layer: str) -> StoredArray:
        array = self._open(layer)
        if array.dtype.kind not in "fiub":
            problem = f"found {array.dtype}, needs real numbers (float, integer or bool)"
            raise DataError("wrong_dtype", f"{array.name}: {problem}: convert it")
        if self._n_features(array) < 1:
            raise DataError("wrong_shape", f"{array.name}: found no features in {array.shape}, needs at least one")
        if array.shape[0] != len(self._ids):
            problem = f"found {array.shape[0]} rows and {len(self._ids)} ids"
            raise DataError("bad_ids", f"{array.name}: {problem}, needs one id a row: give the ids of these rows")
        if len(array.shape) == 3 and self._options.pool != "flatten":
            n_tokens, n_prefix = array.shape[1], self._options.prefix_tokens
            if n_tokens <= n_prefix:
                problem = f"found {n_tokens} tokens and prefix_tokens: {n_prefix}"
                raise DataError("wrong_shape", f"{array.name}: {problem}, needs more tokens than prefix: lower it")
        if self._mask is not None and len(array.shape) == 3:
            self._mask.check_fits(array, self._options.pool)
        return array

    def _open(self, layer: str) -> StoredArray:
        if layer not in self._layers:
            raise DataError("unknown_layer", f"no layer {layer[:100]!r}{did_you_mean(layer, self._layers)}")
        if layer not in self._opened:
            location = self._layers[layer]
            self._opened[layer] = open_array(location.path, location.name, location.key)
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


@dataclass(frozen=True)
class LayerLocation:
    """Where one layer lies; ``name`` is how messages call the file."""

    path: Path
    name: str
    key: str | None


def find_layers(pattern: FilePattern) -> dict[str, LayerLocation]:
    """Return where each layer lies: in the order of the file, or of the names with numbers in numerical order."""
    if "{layer}" in pattern.path:
        names = {layer: fill_pattern(pattern.path, layer=layer) for layer in _matching_files(pattern)}
        layers = {layer: LayerLocation(pattern.locate(name), name, pattern.key) for layer, name in names.items()}
    else:
        path = pattern.locate()
        layers = {layer: LayerLocation(path, pattern.path, key) for layer, key in _matching_keys(path, pattern).items()}
    for layer, location in layers.items():
        try:
            check_layer_name(layer)
        except ValueError as error:
            raise DataError("unknown_layer", f"{location.name}: {error}") from error
    return layers


def _matching_files(pattern: FilePattern) -> list[str]:
    """Return what ``{layer}`` stands for in the names of the files that are there, layer2 before layer10."""
    head, _, rest = pattern.path.partition("{layer}")
    parent, _, before = head.rpartition("/")
    after, _, below = rest.partition("/")
    name_form = re.compile(f"{re.escape(before)}(.+){re.escape(after)}", re.DOTALL)
    folder = pattern.locate(parent + "/" if parent.endswith(":/") else parent or ".")
    with readable(pattern.path):
        if not folder.is_dir():
            raise DataError("missing_source", f"{pattern.path}: no such folder{_nearest_folder(folder, pattern)}")
        present = sorted(entry.name for entry in folder.iterdir())
        matching = [match[1] for entry in present if (match := name_form.fullmatch(entry))]
        # A trailing slash would make another address on the web.
        paths = {layer: folder.joinpath(f"{before}{layer}{after}", *filter(None, [below])) for layer in matching}
        layers = [layer for layer in matching if paths[layer].exists()]
    if not layers:
        written = f"{pattern.path}".partition("{layer}")
        is_told = not names_variable(written[0].rpartition("/")[2] + written[2].partition("/")[0])
        hint = did_you_mean(f"{before}{{layer}}{after}", present) if is_told else ""
        raise DataError("missing_source", f"{pattern.path}: no file matches{hint}")
    for layer in layers:
        _check_inside(paths[layer], folder, pattern)
    find_format(paths[layers[0]], pattern.path)
    return sorted(layers, key=_natural_order)


def _check_inside(path: Path, folder: Path, pattern: FilePattern) -> None:
    """Raise DataError for a link that leads elsewhere: no catalog names the files that ``{layer}`` matches."""
    if is_remote(path):
        return
    real = path.resolve()
    if not any(real.is_relative_to(home.resolve()) for home in (pattern.root, folder)):
        problem = f"found the link {path.name!r}, which leads out of the folder"
        needed = "needs files inside: name it in the catalog without {layer}, or copy it"
        raise DataError("missing_source", f"{pattern.path}: {problem}, {needed}")


def _nearest_folder(folder: Path, pattern: FilePattern) -> str:
    written = f"{pattern.path}".partition("{layer}")[0].rpartition("/")[0]
    if not folder.parent.is_dir() or names_variable(written.rpartition("/")[2]):
        return ""
    return did_you_mean(
        folder.name,
        [entry.name for entry in folder.parent.iterdir() if entry.is_dir() and not entry.name.startswith(".")],
    )


def _natural_order(name: str) -> tuple[tuple[int, str], ...]:
    """Return a sort key that puts layer2 before layer10."""
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]{1,18})", name))


def _matching_keys(path: Path, pattern: FilePattern) -> dict[str, str | None]:
    """Return the key of each layer in a file; without ``key``, every array is a layer."""
    wanted = pattern.key or "{layer}"
    if "{layer}" not in wanted:
        find_format(path, pattern.path)
        return {wanted: wanted}
    names = matching_keys(path, pattern.path, wanted)
    if names is None and pattern.key is None:
        return {path.stem: None}
    before, _, after = wanted.partition("{layer}")
    key_form = re.compile(f"{re.escape(before)}(.+){re.escape(after)}", re.DOTALL)
    layers = {match[1]: name for name in names or () if (match := key_form.fullmatch(name))}
    if not layers:
        offer = did_you_mean(wanted, names) if names else "; the file holds no arrays"
        raise DataError("missing_source", f"{pattern.path}: no array matches the key {wanted!r}{offer}")
    if not keeps_order(path, pattern.path):
        layers = {layer: layers[layer] for layer in sorted(layers, key=_natural_order)}
    return dict(layers)
