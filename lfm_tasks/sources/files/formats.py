"""The kinds of files that are read: by suffix, folders by what lies in them, further kinds from installed packages."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from pathlib import Path

from lfm_tasks.catalog.names import check_layer_name, did_you_mean, fill
from lfm_tasks.errors import DataError
from lfm_tasks.sources.files.arrow_files import (
    DATASET_MARKERS,
    arrow_keys,
    open_arrow,
    open_parquet,
    open_saved_dataset,
    parquet_keys,
    saved_dataset_keys,
)
from lfm_tasks.sources.files.hdf5_files import hdf5_keys, open_hdf5
from lfm_tasks.sources.files.numpy_files import npz_keys, open_npy, open_npz, open_text
from lfm_tasks.sources.files.paths import is_file, is_remote, locate, nearest, readable
from lfm_tasks.sources.files.safetensors_files import open_safetensors, safetensors_keys
from lfm_tasks.sources.files.stored_array import ReadRows, StoredArray
from lfm_tasks.sources.files.torch_files import open_torch, torch_keys
from lfm_tasks.sources.files.zarr_folders import MARKERS, open_zarr, zarr_keys

ENTRY_POINTS = "lfm_atlas.readers"
_INDEXED = re.compile(r"(.*)\[([0-9]{1,9})\]", re.DOTALL)
_INDEXED_LAYER = re.compile(r"([^{}]*)\[\{layer\}\]", re.DOTALL)


@dataclass(frozen=True)
class Format:
    """How one kind of file is read.

    ``open`` takes the path, the name that messages call it by, and the key; ``keys`` lists the arrays there are, or
    says None for a file that is one array. Both may raise what they like: it becomes a DataError that names the file.
    """

    open: Callable[[Path, str, str | None], StoredArray]
    keys: Callable[[Path, str], tuple[str, ...] | None] = lambda path, name: None
    keeps_order: bool = False  # whether keys come in the order they were written


_ZARR = Format(open_zarr, zarr_keys)
_SAVED_DATASET = Format(open_saved_dataset, saved_dataset_keys, keeps_order=True)
_ARROW = Format(open_arrow, arrow_keys, keeps_order=True)
_HDF5 = Format(open_hdf5, hdf5_keys)
_TORCH = Format(open_torch, torch_keys, keeps_order=True)

FORMATS: dict[str, Format] = {
    ".npy": Format(open_npy),
    ".npz": Format(open_npz, npz_keys, keeps_order=True),
    ".safetensors": Format(open_safetensors, safetensors_keys),
    ".h5": _HDF5,
    ".hdf5": _HDF5,
    ".parquet": Format(open_parquet, parquet_keys, keeps_order=True),
    ".arrow": _ARROW,
    ".feather": _ARROW,
    ".zarr": _ZARR,
    ".pt": _TORCH,
    ".pth": _TORCH,
    ".txt": Format(open_text),
}


def find_format(path: Path, name: str) -> Format:
    """Return how ``path`` is read; DataError ``missing_source`` if it is not there, or of an unknown kind."""
    known = FORMATS.get(path.suffix) or _installed(path.suffix, name)
    with readable(name):
        there = is_file(path)
        if there and known is not None:
            return known
        if not there and any(is_file(path / marker) for marker in DATASET_MARKERS):
            return _SAVED_DATASET
        if not there and any(is_file(path / marker) for marker in MARKERS):
            return _ZARR
        # Asked last: a web server answers with a page, or the whole file.
        if not there and path.is_dir():
            found = "no such file: found a folder that is neither Zarr nor a saved dataset"
            raise DataError("missing_source", f"{name}: {found}: name the file")
        if known is None:
            found = f"found a {path.suffix or 'nameless'} file"
            raise DataError("missing_source", f"{name}: {found}, needs one of {', '.join(FORMATS)}")
        raise DataError("missing_source", f"{name}: no such file{nearest(path)}")


def open_array(path: Path, name: str, key: str | None = None) -> StoredArray:
    """Return the array ``key`` in ``path``, its header read and checked; ``key[3]`` is the fourth of its second axis.

    Raises
    ------
    ReasonError
        ``missing_source``, ``wrong_dtype`` or ``wrong_shape``, each with what was found.
    """
    form = find_format(path, name)
    indexed = _INDEXED.fullmatch(key or "")
    with readable(name):
        if indexed is not None and key not in (form.keys(path, name) or ()):
            return _check(_along_second_axis(form.open(path, name, indexed[1] or None), int(indexed[2])))
        return _check(form.open(path, name, key))


def matching_keys(path: Path, name: str, pattern: str) -> tuple[str, ...] | None:
    """Return the keys to choose from, None for a file of one array; ``feats[{layer}]`` means the second axis."""
    form = find_format(path, name)
    indexed = _INDEXED_LAYER.fullmatch(pattern)
    with readable(name):
        if indexed is not None:
            array = form.open(path, name, indexed[1] or None)
            length = array.shape[1] if len(array.shape) > 2 else 0
            return tuple(f"{indexed[1]}[{number}]" for number in range(length))
        return form.keys(path, name)


def keeps_order(path: Path, name: str) -> bool:
    """Whether the keys of a file come in the order they were written."""
    return find_format(path, name).keeps_order


def _check(array: StoredArray) -> StoredArray:
    if not array.shape:
        found = f"found a single value of type {array.dtype}"
        raise DataError("wrong_shape", f"{array.name}: {found}, needs an array with a row a point")
    return array


def _along_second_axis(array: StoredArray, index: int) -> StoredArray:
    if len(array.shape) < 3 or index >= array.shape[1]:
        found = f"found the shape {array.shape} and the index {index}"
        raise DataError("wrong_shape", f"{array.name}: {found}, needs (points, layers, ...): name another one")

    @contextmanager
    def opened() -> Iterator[ReadRows]:
        with array.open() as read:
            yield lambda start, stop: read(start, stop)[:, index]

    shape = (array.shape[0], *array.shape[2:])
    return replace(array, name=f"{array.name}[{index}]", shape=shape, open=opened)


def _installed(suffix: str, name: str) -> Format | None:
    """Return the reader that an installed package brings for a suffix that none of ours knows."""
    found = tuple(entry_points(group=ENTRY_POINTS, name=suffix.removeprefix("."))) if suffix else ()
    if not found:
        return None
    if len(found) > 1:
        sources = ", ".join(sorted(point.value for point in found))
        raise DataError("missing_source", f"{name}: found {len(found)} readers ({sources}): keep one installed")
    try:
        reader = found[0].load()
    except Exception as error:  # another package's code
        message = f"the reader {found[0].value} for {suffix} cannot be loaded ({type(error).__name__})"
        raise DataError("missing_source", f"{name}: {message}: mend or remove its package") from error
    if not isinstance(reader, Format):
        message = f"found {type(reader).__name__} as the reader {found[0].value}"
        raise DataError("missing_source", f"{name}: {message}, needs a lfm_tasks.sources.files.formats.Format")
    return reader


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
class LayerPlace:
    """Where one layer lies; ``name`` is how messages call the file."""

    path: Path
    name: str
    key: str | None


def find_layers(pattern: FilePattern) -> dict[str, LayerPlace]:
    """Return the place of each layer: in the order of the file, or of the names with numbers in numerical order."""
    if "{layer}" in pattern.path:
        names = {layer: fill(pattern.path, layer=layer) for layer in _matching_files(pattern)}
        layers = {layer: LayerPlace(pattern.locate(name), name, pattern.key) for layer, name in names.items()}
    else:
        path = pattern.locate()
        layers = {layer: LayerPlace(path, pattern.path, key) for layer, key in _matching_keys(path, pattern).items()}
    for layer, place in layers.items():
        try:
            check_layer_name(layer)
        except ValueError as error:
            raise DataError("unknown_layer", f"{place.name}: {error}") from error
    return layers


def _matching_files(pattern: FilePattern) -> list[str]:
    """Return what ``{layer}`` stands for in the files that are there, numbers inside in numerical order."""
    head, _, rest = pattern.path.partition("{layer}")
    parent, _, before = head.rpartition("/")
    after, _, below = rest.partition("/")
    form = re.compile(f"{re.escape(before)}(.+){re.escape(after)}", re.DOTALL)
    folder = pattern.locate(parent + "/" if parent.endswith(":/") else parent or ".")
    with readable(pattern.path):
        if not folder.is_dir():
            raise DataError("missing_source", f"{pattern.path}: no such folder{_nearest_folder(folder)}")
        present = sorted(entry.name for entry in folder.iterdir())
        found = [match[1] for entry in present if (match := form.fullmatch(entry))]
        # A trailing slash would make another address on the web.
        paths = {layer: folder.joinpath(f"{before}{layer}{after}", *filter(None, [below])) for layer in found}
        layers = [layer for layer in found if paths[layer].exists()]
    if not layers:
        wanted = f"{before}{{layer}}{after}"
        raise DataError("missing_source", f"{pattern.path}: no file matches{did_you_mean(wanted, present)}")
    for layer in layers:
        _check_inside(paths[layer], folder, pattern)
    find_format(paths[layers[0]], pattern.path)
    return sorted(layers, key=_natural_order)


def _check_inside(path: Path, folder: Path, pattern: FilePattern) -> None:
    """Raise DataError for a link that leads elsewhere: nobody wrote the names of files that are found."""
    if is_remote(path):
        return
    real = path.resolve()
    if not any(real.is_relative_to(home.resolve()) for home in (pattern.root, folder)):
        found = f"found the link {path.name!r}, which leads out of the folder"
        needed = "needs files inside: name it in the catalog without {layer}, or copy it"
        raise DataError("missing_source", f"{pattern.path}: {found}, {needed}")


def _nearest_folder(folder: Path) -> str:
    if not folder.parent.is_dir():
        return ""
    return did_you_mean(folder.name, (entry.name for entry in folder.parent.iterdir() if entry.is_dir()))


def _natural_order(name: str) -> tuple[tuple[int, str], ...]:
    """Put layer2 before layer10."""
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
    form = re.compile(f"{re.escape(before)}(.+){re.escape(after)}", re.DOTALL)
    found = {match[1]: name for name in names or () if (match := form.fullmatch(name))}
    if not found:
        offer = did_you_mean(wanted, names) if names else "; the file holds no arrays"
        raise DataError("missing_source", f"{pattern.path}: no array matches the key {wanted!r}{offer}")
    if not keeps_order(path, pattern.path):
        found = {layer: found[layer] for layer in sorted(found, key=_natural_order)}
    return dict(found)
