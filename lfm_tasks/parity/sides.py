"""The two sides of a comparison: a model's layers with the ids of their rows, from a catalog or from files."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import numpy as np
from jaxtyping import Int, Shaped

from lfm_tasks.catalog import Catalog
from lfm_tasks.errors import DataError
from lfm_tasks.sources.files.formats import FORMATS, find_format, open_array
from lfm_tasks.sources.files.ids import near_join, unique_ids
from lfm_tasks.sources.files.paths import natural_order, readable
from lfm_tasks.sources.files.stored_array import MAX_MEMORY_BYTES, StoredArray
from lfm_tasks.sources.opening import open_source, read_dataset

# What holds the ids of the rows, in a folder of files or among the arrays of one.
_IDS = ("ids", "id")


@dataclass(frozen=True)
class Side:
    """One side: its layers in the order of the depth, and the ids of the rows.

    ``ids`` is None where the files have none: rows are then joined by position. A layer is an array in a file, or in
    memory where a network was run, or the error by which it has no values.
    """

    name: str
    layers: Mapping[str, StoredArray | np.ndarray | DataError]
    ids: Shaped[np.ndarray, " points"] | None
    notes: Sequence[str] = field(default=())

    def n_rows(self) -> int:
        """Return the number of rows; DataError ``wrong_shape`` if the layers disagree."""
        lengths = {name: layer.shape[0] for name, layer in self.layers.items() if not isinstance(layer, DataError)}
        expected = next(iter(lengths.values()), 0) if self.ids is None else len(self.ids)
        for name, length in lengths.items():
            if length != expected:
                other = f"{expected:,} ids" if self.ids is not None else f"{expected:,} in {next(iter(lengths))}"
                problem = f"{self.name}/{name}: got {length:,} rows, expected as many as there are {other}"
                raise DataError("wrong_shape", f"{problem}. Give a row of each layer for every input.")
        return expected

    def n_features(self, layer: str) -> int:
        """Return the number of features of a layer, dims beyond the second flattened; 0 if it has no values."""
        array = self.layers[layer]
        return 0 if isinstance(array, DataError) else prod(array.shape[1:])

    def rows(self, layer: str, wanted: Int[np.ndarray, " points"]) -> Shaped[np.ndarray, "points features"]:
        """Return the rows ``wanted`` of a layer, dims beyond the second flattened, as the file has them.

        Raises
        ------
        DataError
            If the layer cannot be read, holds no real numbers, or its file changes meanwhile.
        """
        array = self.layers[layer]
        if isinstance(array, DataError):
            raise array
        if isinstance(array, np.ndarray):
            found = array[wanted]
        else:
            with array.rows() as read:
                found = read(wanted)
            array.check_unchanged()
        return found.reshape(len(found), -1)


def open_side(name: str, catalog: Catalog | None, dataset: str | None = None) -> Side:
    """Return the side called ``name``: a folder or a file if there is one of that name, else a model of the catalog.

    Parameters
    ----------
    name
        A folder of files, one a layer, with ``ids.*`` among them; a file of several arrays, ``ids`` among them; or a
        model of the catalog.
    catalog
        Where models are looked up; None: only files can be named.
    dataset
        Of a model that is on several.

    Raises
    ------
    DataError
        ``missing_source`` if there is nothing of that name; and as reading the files or opening the model does.
    """
    path = Path(name)
    if path.is_dir():
        return _folder_side(path, name)
    if path.is_file():
        return _file_side(path, name)
    if catalog is None or names_files(name):
        advice = "Name a folder, a file, or a model of a catalog (--catalog)"
        raise DataError("missing_source", f"{name}: got nothing of this name, expected a folder or a file. {advice}.")
    return _model_side(name, catalog, dataset)


def names_files(name: str) -> bool:
    """Return whether ``name`` is that of a file or folder, there or not, and no model's."""
    return os.path.exists(name) or os.sep in name or Path(name.partition("#")[0]).suffix.lower() in FORMATS


def _folder_side(folder: Path, name: str) -> Side:
    files = sorted((path for path in folder.iterdir() if path.suffix.lower() in FORMATS and path.name[0] != "."),
                   key=lambda path: natural_order(path.name))  # fmt: skip
    by_stem: dict[str, Path] = {}
    for path in files:
        if path.stem in by_stem:
            both = f"{by_stem[path.stem].name} and {path.name}"
            raise DataError("missing_source", f"{name}: got {both}, expected one file a layer. Remove one of them.")
        by_stem[path.stem] = path
    ids = next((_read_ids(by_stem.pop(stem), f"{name}/{stem}") for stem in _IDS if stem in by_stem), None)
    layers = {stem: _numbers(path, f"{name}/{path.name}", None) for stem, path in by_stem.items()}
    return _side(name, layers, ids)


def _file_side(path: Path, name: str) -> Side:
    reader = find_format(path, name)
    with readable(name):
        keys = reader.keys(path, name)
    if keys is None:
        return _side(name, {path.stem: _numbers(path, name, None)}, None)
    ids = next((_read_ids(path, name, key) for key in _IDS if key in keys), None)
    chosen = [key for key in keys if key not in _IDS]
    if not reader.keeps_order:
        chosen.sort(key=natural_order)
    return _side(name, {key: _numbers(path, name, key) for key in chosen}, ids)


def _read_ids(path: Path, name: str, key: str | None = None) -> Shaped[np.ndarray, " points"]:
    array = open_array(path, name, key)
    return unique_ids(array.load(), array.name)


def _numbers(path: Path, name: str, key: str | None) -> StoredArray | DataError:
    try:
        array = open_array(path, name, key)
        if array.dtype.kind not in "fiu" or len(array.shape) < 2:
            found = f"{array.name}: got {array.dtype} of shape {array.shape}"
            raise DataError("wrong_dtype", f"{found}, expected real numbers, (points, ...). Remove it, or convert it.")
        if not prod(array.shape[1:]):
            problem = f"{array.name}: got the shape {array.shape}, expected at least one feature"
            raise DataError("wrong_shape", f"{problem}. Remove it, or record it again.")
    except DataError as error:
        return error
    return array


def _side(name: str, layers: Mapping[str, StoredArray | DataError], ids: np.ndarray | None) -> Side:
    if not any(isinstance(layer, StoredArray) for layer in layers.values()):
        first = next((f": {error}" for error in layers.values() if isinstance(error, DataError)), "")
        raise DataError("missing_source", f"{name}: got no layer that can be read, expected at least one{first}")
    side = Side(name, layers, ids, () if ids is not None else (f"{name} has no ids: rows are joined by position",))
    side.n_rows()
    return side


def _model_side(name: str, catalog: Catalog, dataset: str | None) -> Side:
    try:
        model = catalog.model_on(name, dataset)
    except LookupError as error:
        raise DataError("missing_source", str(error)) from error
    source = open_source(name, model, catalog, read_dataset(model.dataset, catalog))
    ids = source.ids
    names = source.layer_names()
    everything = np.arange(len(ids))
    layers: dict[str, StoredArray | np.ndarray | DataError] = {}
    try:
        layers.update(_recorded(name, source.batches(names, everything)))
    except DataError:
        # One layer that has no values must not cost the others theirs.
        for layer in names:
            try:
                layers.update(_recorded(name, source.batches([layer], everything)))
            except DataError as error:
                layers[layer] = error
    return Side(name, {layer: layers[layer] for layer in names}, ids)


def _recorded(name: str, batches: object) -> dict[str, np.ndarray]:
    parts: dict[str, list[np.ndarray]] = {}
    n_bytes = 0
    for batch in batches:  # type: ignore[attr-defined]
        for layer, rows in batch.items():
            parts.setdefault(layer, []).append(rows)
            n_bytes += rows.nbytes
        if n_bytes > MAX_MEMORY_BYTES:
            limit = f"got more than {MAX_MEMORY_BYTES:,} bytes of activations, expected fewer"
            raise DataError("missing_source", f"{name}: {limit}. Compare recorded files, or fewer points.")
    return {layer: np.concatenate(rows) for layer, rows in parts.items()}


@dataclass(frozen=True)
class JoinedRows:
    """Which rows of the two sides are the same input, how inputs are called, and what only one side has."""

    reference: Int[np.ndarray, " points"]
    candidate: Int[np.ndarray, " points"]
    ids: Shaped[np.ndarray, " points"]
    notes: tuple[str, ...]


def join_rows(reference: Side, candidate: Side) -> JoinedRows:
    """Return the rows that both sides have, joined on their ids; by position where neither side has any.

    Raises
    ------
    DataError
        ``bad_ids`` if only one side has ids, or there are none and the numbers of rows differ; ``no_overlap`` if no
        id is common.
    """
    counts = reference.n_rows(), candidate.n_rows()
    for side, count in ((reference, counts[0]), (candidate, counts[1])):
        if not count:
            raise DataError("too_few_points", f"{side.name}: got no rows, expected some. Record it again.")
    notes = (*reference.notes, *candidate.notes)
    if reference.ids is None or candidate.ids is None:
        if (reference.ids is None) != (candidate.ids is None):
            without = reference.name if reference.ids is None else candidate.name
            raise DataError("bad_ids", f"{without}: got no ids, expected those of the other side. Add the array ids.")
        if counts[0] != counts[1]:
            problem = f"got {counts[0]:,} and {counts[1]:,} rows without ids, expected as many"
            raise DataError("bad_ids", f"{reference.name}, {candidate.name}: {problem}. Add the array ids to both.")
        rows = np.arange(counts[0])
        return JoinedRows(rows, rows, rows.astype(str), notes)
    ids, first, second = np.intersect1d(reference.ids, candidate.ids, assume_unique=True, return_indices=True)
    if not len(ids):
        hint = near_join(candidate.ids, reference.ids, "ids", reference.name)
        problem = f"{candidate.name}: got no id that {reference.name} has, {hint}"
        raise DataError("no_overlap", f"{problem}. Record both on the same inputs.")
    order = np.argsort(first)  # as the reference has them
    for side, count in ((reference, counts[0]), (candidate, counts[1])):
        if count > len(ids):
            notes = (*notes, f"{count - len(ids):,} of {count:,} rows of {side.name} are not on the other side")
    return JoinedRows(first[order], second[order], ids[order], notes)
