"""Finds the arrays of a model in files: ``{layer}`` names layers, ``{shard}`` files of rows, ``{id}`` a stimulus each.

`find_layers` looks at names alone; a `LayerLocation` opens the array of a layer, joined where it lies in pieces.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from lfm_tasks.catalog.datasets import ArrayFile
from lfm_tasks.catalog.names import check_layer_name, did_you_mean, fill_pattern
from lfm_tasks.errors import DataError
from lfm_tasks.sources.files.formats import AS_IT_SAYS, Reading, find_format, keeps_order, matching_keys, open_array
from lfm_tasks.sources.files.joined_arrays import concatenated, stacked
from lfm_tasks.sources.files.paths import is_remote, locate, natural_order, readable
from lfm_tasks.sources.files.stored_array import StoredArray
from lfm_tasks.variables import names_variable

# What each field stands for in a name. Of two fields in one name the layer takes as much as it can.
_FORMS = {"layer": "(?P<layer>.+)", "id": "(?P<id>.+?)", "shard": "(?P<shard>.+?)"}
_KEY_FORMS = {**_FORMS, "id": "(?P<id>[^/]+)"}
_COUNTED = re.compile(r"([0-9]+)-of-([0-9]+)")
_FIELD = re.compile(r"\{(layer|id|shard)\}")


@dataclass(frozen=True)
class FilePattern:
    """Where the layers of one model lie: ``{layer}`` in ``path`` or in ``key``; relative to ``root``, or remote.

    ``reading`` says how the files are read; ``homes`` are folders that links may lead into, beside the catalog's own.
    """

    root: Path
    path: str
    key: str | None = None
    storage: str | None = None
    reading: Reading = AS_IT_SAYS
    homes: tuple[Path, ...] = ()

    def locate(self, path: str | None = None) -> Path:
        """Return where ``path``, or the pattern's own, lies."""
        return locate(self.root, self.path if path is None else path, self.storage)

    def open(self) -> StoredArray:
        """Return the one array that the pattern names, of several shards joined."""
        if "{shard}" not in self.path:
            return open_array(self.locate(), self.path, self.key, self.reading)
        places = [ArrayPlace(file.path, file.name, self.key, self.reading) for file in _matching_files(self)]
        return concatenated(
            [place.open() for place in places], f"{self.path}{'' if self.key is None else '#' + self.key}"
        )


def reading_of(file: ArrayFile) -> Reading:
    """Return how the catalog says that a file is read."""
    return Reading(file.format, file.columns, file.read_as, file.unpack, file.missing_chunks)


@dataclass(frozen=True)
class ArrayPlace:
    """Where one array lies; ``name`` is how messages call the file."""

    path: Path
    name: str
    key: str | None
    reading: Reading = AS_IT_SAYS

    def open(self) -> StoredArray:
        """Return the array, its header read."""
        return open_array(self.path, self.name, self.key, self.reading)

    def of_any_chunks(self) -> "ArrayPlace":
        """Return this place as one where chunks that were never written are no mistake."""
        return replace(self, reading=replace(self.reading, missing_chunks="fill"))


@dataclass(frozen=True)
class LayerLocation:
    """Where the arrays of one layer lie: one, or several: shards of its rows, or a stimulus each, of these ``ids``."""

    name: str
    places: tuple[ArrayPlace, ...]
    ids: tuple[str, ...] = ()

    def open(self) -> StoredArray:
        """Return the layer as one array, its headers read."""
        if self.ids:
            return stacked([place.open() for place in self.places], self.name)
        if len(self.places) == 1:
            return self.places[0].open()
        return concatenated([place.open() for place in self.places], self.name)


def find_layers(pattern: FilePattern) -> dict[str, LayerLocation]:
    """Return where each layer lies: in the order of the file, or of the names with numbers in numerical order.

    Raises
    ------
    DataError
        ``missing_source`` if nothing fits the pattern, shards are missing, or a link leads elsewhere;
        ``unknown_layer`` for what could be no name; ``bad_ids`` where layers have other stimuli.
    """
    files = (
        list(_matching_files(pattern)) if _FIELD.search(pattern.path) else [_File({}, pattern.locate(), pattern.path)]
    )
    arrays = list(_arrays(files, pattern))
    # The layers of a file of several, in its order, unless names give them another.
    by_layer: dict[str, list[tuple[_Fields, ArrayPlace]]] = {}
    for fields, place in arrays:
        by_layer.setdefault(fields["layer"], []).append((fields, place))
    for layer, of_layer in by_layer.items():
        try:
            check_layer_name(layer)
        except ValueError as error:
            raise DataError("unknown_layer", f"{of_layer[0][1].name}: {error}") from error
    names = list(by_layer)
    is_in_path = "{layer}" in pattern.path
    if is_in_path or not keeps_order(files[0].path, files[0].name, pattern.reading):
        names.sort(key=natural_order)
    layers = {layer: _location(layer, by_layer[layer], pattern) for layer in names}
    _check_same_ids(layers, pattern)
    return layers


_Fields = dict[str, str]


@dataclass(frozen=True)
class _File:
    """A file that fits a pattern, and what the fields of the pattern stand for."""

    fields: _Fields
    path: Path
    name: str


def _location(layer: str, found: list[tuple[_Fields, ArrayPlace]], pattern: FilePattern) -> LayerLocation:
    """Return where a layer lies, its pieces in the order of the numbers in their names."""
    name = fill_pattern(pattern.path, layer=layer) if "{layer}" in pattern.path else pattern.path
    if found[0][1].key is not None:
        name = f"{name}#{(pattern.key or layer).replace('{layer}', layer)}"
    for piece in ("id", "shard"):
        if piece in found[0][0]:
            found = sorted(found, key=lambda one: natural_order(one[0][piece]))
    ids = tuple(fields["id"] for fields, _ in found if "id" in fields)
    places = tuple(place for _, place in found)
    return LayerLocation(name if len(places) > 1 else places[0].name, places, ids)


def _check_same_ids(layers: Mapping[str, LayerLocation], pattern: FilePattern) -> None:
    most = max(layers.values(), key=lambda location: len(location.ids))
    for layer, location in layers.items():
        lacking = set(most.ids) - set(location.ids)
        if lacking or len(set(location.ids)) < len(location.ids):
            problem = f"got {len(location.ids)} stimuli in the layer {layer[:100]!r} and {len(most.ids)} in another"
            first = min(lacking or location.ids)
            raise DataError("bad_ids", f"{pattern.path}: {problem}, first {first[:60]!r}. Record all layers of each")


# --- names of files


def _matching_files(pattern: FilePattern) -> Iterator[_File]:
    """Yield the files that fit a path with fields, in the order of their names; hidden ones are passed over."""
    head = pattern.path[: _FIELD.search(pattern.path).start()]  # type: ignore[union-attr]
    parent, _, _ = head.rpartition("/")
    parts = str(pattern.path)[len(parent) + bool(parent) :].split("/")
    folder = pattern.locate(parent + "/" if parent.endswith(":/") else parent or ".")
    with readable(pattern.path):
        if not folder.is_dir():
            raise DataError("missing_source", f"{pattern.path}: no such folder{_nearest_folder(folder, pattern)}")
        present = sorted(entry.name for entry in folder.iterdir())
        found = [file for file in _walk(folder, parts, {}) if file.path.exists()]
    if not found:
        written = f"{pattern.path}".partition("{layer}")
        is_told = not names_variable(written[0].rpartition("/")[2] + written[2].partition("/")[0])
        hint = did_you_mean(parts[0], present) if is_told else ""
        raise DataError("missing_source", f"{pattern.path}: no file matches{hint}")
    for file in found:
        _check_inside(file.path, folder, pattern)
    _check_counted(found, pattern)
    named = [_File(file.fields, file.path, fill_pattern(pattern.path, **file.fields)) for file in found]
    find_format(named[0].path, pattern.path if len(named[0].fields) == 1 else named[0].name, pattern.reading)
    yield from named


def _walk(folder: Path, parts: list[str], fields: _Fields) -> Iterator[_File]:
    part, below = parts[0], parts[1:]
    if not _FIELD.search(part):
        # A trailing slash would make another address on the web.
        path = folder / part if part else folder
        yield from _walk(path, below, fields) if below else [_File(fields, path, "")]
        return
    if not folder.is_dir():
        return
    form = re.compile(_as_form(part, _FORMS), re.DOTALL)
    for name in sorted(entry.name for entry in folder.iterdir()):
        match = None if name.startswith(".") and not part.startswith(".") else form.fullmatch(name)
        if match is not None:
            found, path = fields | match.groupdict(), folder / name
            yield from _walk(path, below, found) if below else [_File(found, path, "")]


def _as_form(pattern: str, forms: Mapping[str, str]) -> str:
    """Return a pattern of names as a regular expression."""
    pieces = _FIELD.split(pattern)
    return "".join(forms[piece] if index % 2 else re.escape(piece) for index, piece in enumerate(pieces))


def _check_inside(path: Path, folder: Path, pattern: FilePattern) -> None:
    """Raise DataError for a link that leads elsewhere: no catalog names the files that ``{layer}`` matches."""
    if is_remote(path):
        return
    real = path.resolve()
    if not any(real.is_relative_to(home.resolve()) for home in (pattern.root, folder, *pattern.homes)):
        problem = f"got the link {path.name!r}, which leads out of the folder"
        needed = "expected files inside. Copy it, or allow the folder that it leads to by links: [...] in the catalog"
        raise DataError("missing_source", f"{pattern.path}: {problem}, {needed}")


def _check_counted(files: list[_File], pattern: FilePattern) -> None:
    """Raise DataError if shards say how many there are, as in 00001-of-00004, and some are missing."""
    counted: dict[tuple[str, int], set[int]] = {}
    for file in files:
        match = _COUNTED.search(file.fields.get("shard", ""))
        if match is not None:
            others = ",".join(f"{name}={value}" for name, value in file.fields.items() if name != "shard")
            counted.setdefault((others, int(match[2])), set()).add(int(match[1]))
    for (_, n_shards), numbers in counted.items():
        if len(numbers) < n_shards:
            problem = f"got {len(numbers)} shards of {n_shards}"
            raise DataError("missing_source", f"{pattern.path}: {problem}, expected all of them. Copy the others, too")


def _nearest_folder(folder: Path, pattern: FilePattern) -> str:
    written = _FIELD.split(f"{pattern.path}")[0].rpartition("/")[0]
    if not folder.parent.is_dir() or names_variable(written.rpartition("/")[2]):
        return ""
    return did_you_mean(
        folder.name,
        [entry.name for entry in folder.parent.iterdir() if entry.is_dir() and not entry.name.startswith(".")],
    )


# --- names of arrays in a file


def _arrays(files: list[_File], pattern: FilePattern) -> Iterator[tuple[_Fields, ArrayPlace]]:
    """Yield the arrays of a model, with what the fields stand for: ``layer`` always."""
    for file in files:
        if "layer" in file.fields and "{id}" not in (pattern.key or ""):
            yield file.fields, ArrayPlace(file.path, file.name, pattern.key, pattern.reading)
            continue
        for fields, key in _matching_keys(file, pattern):
            yield file.fields | fields, ArrayPlace(file.path, file.name, key, pattern.reading)


def _matching_keys(file: _File, pattern: FilePattern) -> Iterator[tuple[_Fields, str | None]]:
    """Yield the values of the fields in the keys of a file; without ``key``, every array is a layer."""
    wanted = pattern.key or "{layer}"
    alone = {"layer": _name_alone(file, pattern)}
    if pattern.reading.columns:
        find_format(file.path, file.name, pattern.reading)
        yield alone, None
        return
    if not _FIELD.search(wanted):
        find_format(file.path, file.name, pattern.reading)
        yield {"layer": wanted}, wanted
        return
    names = matching_keys(file.path, file.name, wanted, pattern.reading)
    if names is None and pattern.key is None:
        yield alone, None
        return
    form = re.compile(_as_form(wanted, _KEY_FORMS), re.DOTALL)
    found = [(match.groupdict(), name) for name in names or () if (match := form.fullmatch(name))]
    if not found:
        offer = did_you_mean(wanted, names) if names else "; the file holds no arrays"
        raise DataError("missing_source", f"{pattern.path}: no array matches the key {wanted!r}{offer}")
    for fields, name in found:
        yield alone | fields, name


def _name_alone(file: _File, pattern: FilePattern) -> str:
    """Return the name of the layer of a file that holds one: the file's name without suffix and pieces."""
    if "layer" in file.fields or not file.fields:
        return file.fields.get("layer", file.path.stem)
    stem = str(pattern.path).rpartition("/")[2].rpartition(".")[0] or str(pattern.path).rpartition("/")[2]
    written = _FIELD.sub("", stem).strip("-_. ")
    return written or str(pattern.path).rpartition("/")[0].rpartition("/")[2] or "rows"
