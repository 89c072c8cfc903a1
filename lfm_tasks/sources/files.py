"""Activations that people have on disk: a file a layer, or a file with an array a layer."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path, PurePath

import numpy as np
from jaxtyping import Float, Int, Shaped

from lfm_tasks.catalog.model import ActivationsSource
from lfm_tasks.catalog.names import check_layer_name
from lfm_tasks.catalog.patterns import fill
from lfm_tasks.catalog.problems import did_you_mean
from lfm_tasks.reasons import ReasonError
from lfm_tasks.sources.numpy_files import RowReader, StoredArray, array_names, open_array, readable
from lfm_tasks.sources.pooling import pool_rows, pooled_features

# Part of every identity. Raise it when the same file gives other numbers.
_READER_VERSION = "1"
_READERS = (".npy", ".npz")
_BATCH_BYTES = 32 * 2**20


@dataclass(frozen=True)
class FilePattern:
    """Where the layers of one model lie: paths relative to ``root``; ``{layer}`` in ``path`` or in ``key``."""

    root: Path
    path: str
    key: str | None = None


def activations_pattern(model_name: str, source: ActivationsSource, root: Path) -> FilePattern:
    """Return where a model's activations lie, its name and the dataset's filled in."""
    values = {"model": model_name, "dataset": source.dataset}
    key = None if source.key is None else fill(source.key, **values)
    return FilePattern(root, fill(source.path, **values), key)


class FileSource:
    """A `Source` of arrays in .npy and .npz files.

    Opening finds the layers. A layer's header is read and checked when the layer is first asked for, so that one
    damaged array costs one layer; its values are checked as they are read.
    """

    def __init__(self, pattern: FilePattern, ids: Shaped[np.ndarray, " points"] | None, *, pool: str = "none") -> None:
        self._layers = _find_layers(pattern)
        self._pool = pool
        self._opened: dict[str, StoredArray] = {}
        self._ids = _positions(self._first_length()) if ids is None else ids

    @property
    def ids(self) -> Shaped[np.ndarray, " points"]:
        """Sample ids, one for each row; row numbers if the source was opened without ids."""
        return self._ids

    def layer_names(self) -> tuple[str, ...]:
        """All layers: in the order of the .npz, or of the file names with numbers in numerical order."""
        return tuple(self._layers)

    def shape(self, layer: str) -> tuple[int, int]:
        """Return (points, features) of ``layer`` after pooling; reads the header only, and checks it."""
        array = self._checked(layer)
        return array.shape[0], pooled_features(array.shape[1:], self._pool)

    def identity(self, layer: str) -> Mapping[str, str]:
        """Return what decides the values of ``layer``: its bytes, the pooling, and this reader."""
        digest = self._checked(layer).sha256()
        return {"kind": "file", "sha256": digest, "pool": self._pool, "reader": _READER_VERSION}

    def batches(
        self, layers: Sequence[str], rows: Int[np.ndarray, " selected"]
    ) -> Iterator[Mapping[str, Float[np.ndarray, "batch features"]]]:
        """Yield ``rows`` of each layer, pooled, float32 or float64; ReasonError at the first value not finite."""
        arrays = {layer: self._checked(layer) for layer in layers}
        readers: dict[str, RowReader] = {layer: array.reader() for layer, array in arrays.items()}
        row_bytes = sum(prod(array.shape[1:]) * max(array.dtype.itemsize, 4) for array in arrays.values())
        n_rows = max(1, _BATCH_BYTES // max(row_bytes, 1))
        for start in range(0, len(rows), n_rows):
            batch = rows[start : start + n_rows]
            yield {layer: self._pooled(arrays[layer].name, reader(batch), batch) for layer, reader in readers.items()}
        for array in arrays.values():
            array.check_unchanged()

    def _pooled(
        self, name: str, values: Shaped[np.ndarray, "batch ..."], rows: Int[np.ndarray, " batch"]
    ) -> Float[np.ndarray, "batch features"]:
        pooled = pool_rows(values, self._pool)
        finite = np.isfinite(pooled)
        if not finite.all():
            row, column = np.argwhere(~finite)[0]
            where = f"first in row {rows[row]} (id {self._ids[rows[row]]!s}), column {column}"
            found = f"found {np.count_nonzero(~finite)} NaN or infinite values among {len(rows)} rows, {where}"
            raise ReasonError(
                "not_finite", f"{name}: {found}, needs finite numbers: record it again, or drop the layer"
            )
        return pooled

    def _checked(self, layer: str) -> StoredArray:
        array = self._open(layer)
        if array.dtype.kind not in "fiub":
            found = f"found {array.dtype}, needs real numbers (float, integer or bool)"
            raise ReasonError("wrong_dtype", f"{array.name}: {found}: convert it")
        try:
            n_features = pooled_features(array.shape[1:], self._pool)
        except ReasonError as error:
            raise ReasonError(error.reason, f"{array.name}: {error}") from error
        if n_features < 1:
            raise ReasonError("wrong_shape", f"{array.name}: found no features in {array.shape}, needs at least one")
        if array.shape[0] != len(self._ids):
            found = f"found {array.shape[0]} rows and {len(self._ids)} ids"
            raise ReasonError("bad_ids", f"{array.name}: {found}, needs one id a row: give the ids of these rows")
        return array

    def _open(self, layer: str) -> StoredArray:
        if layer not in self._layers:
            raise ReasonError("unknown_layer", f"no layer {layer[:100]!r}{did_you_mean(layer, self._layers)}")
        if layer not in self._opened:
            path, name, key = self._layers[layer]
            self._opened[layer] = open_array(path, name, key)
        return self._opened[layer]

    def _first_length(self) -> int:
        errors = []
        for layer in self._layers:
            try:
                return self._open(layer).shape[0]
            except (ReasonError, IndexError) as error:  # IndexError: a number, not an array
                errors.append(error)
        raise ReasonError("bad_ids", f"no layer tells how many rows there are: {errors[0]}")


def _positions(n_points: int) -> Shaped[np.ndarray, " points"]:
    return np.arange(n_points).astype(str)


def _find_layers(pattern: FilePattern) -> dict[str, tuple[Path, str, str | None]]:
    """Return path, name in messages, and key of each layer."""
    layers: dict[str, tuple[Path, str, str | None]] = {}
    if "{layer}" in pattern.path:
        for layer in _matching_files(pattern):
            name = fill(pattern.path, layer=layer)
            layers[layer] = (pattern.root / name, name, pattern.key)
    else:
        path = pattern.root / pattern.path
        check_file(path, pattern.path)
        keys = _matching_keys(path, pattern) if path.suffix == ".npz" else {pattern.key or path.stem: pattern.key}
        layers = {layer: (path, pattern.path, key) for layer, key in keys.items()}
    for layer, (_, name, _) in layers.items():
        try:
            check_layer_name(layer)
        except ValueError as error:
            raise ReasonError("unknown_layer", f"{name}: {error}") from error
    return layers


def check_file(path: Path, name: str) -> None:
    """Raise ReasonError if there is no such file, naming what lies nearest, or if no reader knows its kind."""
    if path.suffix not in _READERS:
        known = ", ".join(_READERS)
        raise ReasonError("missing_source", f"{name}: found a {path.suffix or 'nameless'} file, needs one of {known}")
    with readable(name):
        if path.is_file():
            return
        raise ReasonError("missing_source", f"{name}: no such file{_nearest(path)}")


def _nearest(path: Path) -> str:
    if not path.parent.is_dir():
        return f"; there is no folder {path.parent.name!r} either"
    present = sorted(entry.name for entry in path.parent.iterdir() if entry.is_file())
    return did_you_mean(path.name, present) if present else "; the folder is empty"


def _matching_files(pattern: FilePattern) -> list[str]:
    """Return what ``{layer}`` stands for in the files that are there, numbers inside in numerical order."""
    parts = PurePath(pattern.path).parts
    level = next(index for index, part in enumerate(parts) if "{layer}" in part)
    before, _, after = parts[level].partition("{layer}")
    name = re.compile(f"{re.escape(before)}(.+){re.escape(after)}", re.DOTALL)
    folder = pattern.root.joinpath(*parts[:level])
    with readable(pattern.path):
        if not folder.is_dir():
            raise ReasonError("missing_source", f"{pattern.path}: no such folder{_nearest_folder(folder)}")
        present = sorted(os.listdir(folder))
        found = [match[1] for entry in present if (match := name.fullmatch(entry))]
        layers = [layer for layer in found if (pattern.root / fill(pattern.path, layer=layer)).is_file()]
    if not layers:
        raise ReasonError("missing_source", f"{pattern.path}: no file matches{did_you_mean(parts[level], present)}")
    check_file(pattern.root / fill(pattern.path, layer=layers[0]), pattern.path)
    return sorted(layers, key=_natural_order)


def _nearest_folder(folder: Path) -> str:
    if not folder.parent.is_dir():
        return ""
    return did_you_mean(folder.name, (entry.name for entry in folder.parent.iterdir() if entry.is_dir()))


def _natural_order(name: str) -> tuple[tuple[int, str], ...]:
    """Put layer2 before layer10."""
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]{1,18})", name))


def _matching_keys(path: Path, pattern: FilePattern) -> dict[str, str]:
    """Return the key of each layer in a .npz; without ``key``, every array is a layer."""
    wanted = pattern.key or "{layer}"
    names = array_names(path, pattern.path)
    if "{layer}" not in wanted:
        return {wanted: wanted}
    before, _, after = wanted.partition("{layer}")
    form = re.compile(f"{re.escape(before)}(.+){re.escape(after)}", re.DOTALL)
    found = {match[1]: name for name in names if (match := form.fullmatch(name))}
    if not found:
        offer = did_you_mean(wanted, names) if names else "; the file holds no arrays"
        raise ReasonError("missing_source", f"{pattern.path}: no array matches the key {wanted!r}{offer}")
    return found
