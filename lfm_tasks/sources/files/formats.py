"""The kinds of files that are read: one table, by suffix; further kinds come from installed packages.

How to add a reader
-------------------
1. Write ``files/<kind>_files.py`` with one function ``open_<kind>(path, name, key) -> StoredArray`` and, if a file
   holds several arrays, ``<kind>_keys(path, name) -> tuple of keys``. ``path`` may be remote: open it with
   `open_bytes`, never with ``open``. ``name`` is how messages call the file.
2. Add a row to `FORMATS` (or to `FOLDER_FORMATS`, if the kind is a folder, by a file that lies in it), a row to the
   table of ``docs/readers.md``, and a case to ``WRITE`` in ``tests/unit/sources/files/test_formats.py``, which reads
   every kind in parts, whole, remotely, and after a change.

``open_<kind>`` reads the header only, and returns these fields of a `StoredArray`:

``name``
    ``name``, or ``f"{name}#{key}"`` for one array of several.
``path``
    The path it was called with.
``fingerprint``
    ``fingerprint(path)``, taken before the header is read: a file that changes between the header and the last row
    is an error.
``shape``, ``dtype``
    As the header declares them, the points first. Check them against the size of the file: a header may claim
    anything. Text has the dtype ``U``.
``open``
    A function without arguments that returns a context manager. Entering it opens the file and yields
    ``read(start, stop)``, which returns these rows; leaving it closes the file. Nothing stays open before or after:
    a zoo has more layers than a process may have open files. `raw_rows` does all of it for values that lie in the file
    as they do in memory.
``block_rows``, ``is_read_whole``
    What ``read`` has to decode at once, for the estimate of memory: rows a chunk, or everything.

Never run or unpickle anything in a file; check sizes with `check_memory_size` and `check_compression_ratio` before
memory is taken. Raise `DataError` for what the user can mend; whatever else is raised becomes a `DataError` that names
the file.

A package of its own adds a reader without a change here: an entry point in the group ``lfm_atlas.readers`` whose name
is the suffix without the dot and whose value is a `Format`. ``tests/packaging/example_plugin`` is such a package.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from pathlib import Path

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
from lfm_tasks.sources.files.paths import is_file, nearest, readable
from lfm_tasks.sources.files.safetensors_files import open_safetensors, safetensors_keys
from lfm_tasks.sources.files.stored_array import ReadRows, StoredArray
from lfm_tasks.sources.files.torch_files import open_torch, torch_keys
from lfm_tasks.sources.files.zarr_folders import ZARR_MARKERS, open_zarr, zarr_keys

ENTRY_POINTS = "lfm_atlas.readers"
_INDEXED = re.compile(r"(.*)\[([0-9]{1,9})\]", re.DOTALL)
_INDEXED_LAYER = re.compile(r"([^{}]*)\[\{layer\}\]", re.DOTALL)


@dataclass(frozen=True)
class Format:
    """How one kind of file is read.

    Parameters
    ----------
    open
        Takes the path, the name that messages call the file by, and the key (None: the file's only array); returns the
        array, its header read.
    keys
        Takes path and name; returns the keys of the arrays in the file, or None if the file is a single array.
    keeps_order
        Whether ``keys`` come in the order in which they were written; else layers are sorted by name.
    """

    open: Callable[[Path, str, str | None], StoredArray]
    keys: Callable[[Path, str], tuple[str, ...] | None] = lambda path, name: None
    keeps_order: bool = False


_ZARR = Format(open_zarr, zarr_keys)
_ARROW = Format(open_arrow, arrow_keys, keeps_order=True)
_HDF5 = Format(open_hdf5, hdf5_keys)
_TORCH = Format(open_torch, torch_keys, keeps_order=True)

# By suffix.
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
# By a file that lies in the folder, whatever the folder's suffix; the first that is there counts.
FOLDER_FORMATS: dict[str, Format] = {
    **dict.fromkeys(DATASET_MARKERS, Format(open_saved_dataset, saved_dataset_keys, keeps_order=True)),
    **dict.fromkeys(ZARR_MARKERS, _ZARR),
}


def find_format(path: Path, name: str) -> Format:
    """Return how ``path`` is read; DataError ``missing_source`` if it is not there, or of an unknown kind."""
    by_suffix = FORMATS.get(path.suffix) or _installed_format(path.suffix, name)
    with readable(name):
        is_there = is_file(path)
        if is_there and by_suffix is not None:
            return by_suffix
        if not is_there:
            for marker, folder_format in FOLDER_FORMATS.items():
                if is_file(path / marker):
                    return folder_format
            # Last: a web server answers with a page, or the whole file.
            if path.is_dir():
                problem = "no such file: found a folder that is neither Zarr nor a saved dataset"
                raise DataError("missing_source", f"{name}: {problem}: name the file")
        if by_suffix is None:
            problem = f"found a {path.suffix or 'nameless'} file"
            raise DataError("missing_source", f"{name}: {problem}, needs one of {', '.join(FORMATS)}")
        raise DataError("missing_source", f"{name}: no such file{nearest(path, name)}")


def open_array(path: Path, name: str, key: str | None = None) -> StoredArray:
    """Return the array ``key`` in ``path``, its header read and checked; ``key[3]`` is the fourth of its second axis.

    Raises
    ------
    DataError
        ``missing_source``, ``wrong_dtype`` or ``wrong_shape``, each with what was found.
    """
    file_format = find_format(path, name)
    indexed = _INDEXED.fullmatch(key or "")
    with readable(name):
        if indexed is not None and key not in (file_format.keys(path, name) or ()):
            return _check(_along_second_axis(file_format.open(path, name, indexed[1] or None), int(indexed[2])))
        return _check(file_format.open(path, name, key))


def matching_keys(path: Path, name: str, pattern: str) -> tuple[str, ...] | None:
    """Return the keys to choose from, None for a file of one array; ``feats[{layer}]`` means the second axis."""
    file_format = find_format(path, name)
    indexed = _INDEXED_LAYER.fullmatch(pattern)
    with readable(name):
        if indexed is not None:
            array = file_format.open(path, name, indexed[1] or None)
            length = array.shape[1] if len(array.shape) > 2 else 0
            return tuple(f"{indexed[1]}[{index}]" for index in range(length))
        return file_format.keys(path, name)


def keeps_order(path: Path, name: str) -> bool:
    """Return whether the keys of a file come in the order they were written."""
    return find_format(path, name).keeps_order


def _check(array: StoredArray) -> StoredArray:
    if not array.shape:
        problem = f"found a single value of type {array.dtype}"
        raise DataError("wrong_shape", f"{array.name}: {problem}, needs an array with a row a point")
    return array


def _along_second_axis(array: StoredArray, index: int) -> StoredArray:
    if len(array.shape) < 3 or index >= array.shape[1]:
        problem = f"found the shape {array.shape} and the index {index}"
        raise DataError("wrong_shape", f"{array.name}: {problem}, needs (points, layers, ...): name another one")

    @contextmanager
    def opened() -> Iterator[ReadRows]:
        with array.open() as read:
            yield lambda start, stop: read(start, stop)[:, index]

    shape = (array.shape[0], *array.shape[2:])
    return replace(array, name=f"{array.name}[{index}]", shape=shape, open=opened)


def _installed_format(suffix: str, name: str) -> Format | None:
    """Return the reader that an installed package brings for ``suffix``; None if there is none."""
    points = tuple(entry_points(group=ENTRY_POINTS, name=suffix.removeprefix("."))) if suffix else ()
    if not points:
        return None
    if len(points) > 1:
        packages = ", ".join(sorted(point.value for point in points))
        raise DataError("missing_source", f"{name}: found {len(points)} readers ({packages}): keep one installed")
    (point,) = points
    try:
        reader = point.load()
    except Exception as error:  # another package's code
        message = f"the reader {point.value} for {suffix} cannot be loaded ({type(error).__name__})"
        raise DataError("missing_source", f"{name}: {message}: mend or remove its package") from error
    if not isinstance(reader, Format):
        message = f"found {type(reader).__name__} as the reader {point.value}"
        raise DataError("missing_source", f"{name}: {message}, needs a lfm_tasks.sources.Format")
    return reader
