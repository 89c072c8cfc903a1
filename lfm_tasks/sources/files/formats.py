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
memory is taken. Raise `DataError` for mistakes that the user can fix; any other exception becomes a `DataError` that
names the file.

A package of its own adds a reader without a change here: an entry point in the group ``lfm_atlas.readers`` whose name
is the suffix without the dot and whose value is a `Format`. ``tests/packaging/example_plugin`` is such a package.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from lfm_tasks.catalog.names import expand_layers
from lfm_tasks.errors import DataError
from lfm_tasks.sources.files.arrow_files import (
    DATASET_MARKERS,
    arrow_keys,
    open_arrow,
    open_arrow_columns,
    open_parquet,
    open_parquet_columns,
    open_parquet_folder,
    open_parquet_folder_columns,
    open_saved_dataset,
    open_saved_dataset_columns,
    parquet_files,
    parquet_folder_keys,
    parquet_keys,
    saved_dataset_keys,
)
from lfm_tasks.sources.files.hdf5_files import hdf5_keys, open_hdf5
from lfm_tasks.sources.files.joined_arrays import along_axis, as_bfloat16
from lfm_tasks.sources.files.netcdf_files import netcdf_keys, open_netcdf
from lfm_tasks.sources.files.numpy_files import npz_keys, open_npy, open_npz, open_text
from lfm_tasks.sources.files.paths import is_file, nearest, open_bytes, readable
from lfm_tasks.sources.files.safetensors_files import open_safetensors, safetensors_keys
from lfm_tasks.sources.files.stored_array import StoredArray
from lfm_tasks.sources.files.table_files import open_table, open_table_columns, table_keys
from lfm_tasks.sources.files.torch_files import open_torch, torch_keys
from lfm_tasks.sources.files.zarr_folders import ZARR_MARKERS, open_zarr, zarr_keys

ENTRY_POINTS = "lfm_atlas.readers"
# A layer of a stack: feats[3] and feats[:,3] of (points, layers, ...), feats[3,:] of (layers, points, ...).
_INDEXED = re.compile(r"(.*)\[(:, ?)?([0-9]{1,9})(, ?:)?\]", re.DOTALL)
_INDEXED_LAYER = re.compile(r"([^{}]*)\[(:, ?)?\{layer\}(, ?:)?\]", re.DOTALL)


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
    open_columns
        Takes path, name and several keys of columns; returns them side by side. None: the file has no columns.
    options
        Which of ``unpack`` and ``missing_chunks`` the function ``open`` takes by keyword.
    """

    open: Callable[..., StoredArray]
    keys: Callable[[Path, str], tuple[str, ...] | None] = lambda path, name: None
    keeps_order: bool = False
    open_columns: Callable[[Path, str, Sequence[str]], StoredArray] | None = None
    options: tuple[str, ...] = ()


_OPTIONS = ("unpack", "missing_chunks")
_NPY = Format(open_npy)
_NPZ = Format(open_npz, npz_keys, keeps_order=True)
_SAFETENSORS = Format(open_safetensors, safetensors_keys)
_ZARR = Format(open_zarr, zarr_keys, options=_OPTIONS)
_PARQUET = Format(open_parquet, parquet_keys, keeps_order=True, open_columns=open_parquet_columns)
_ARROW = Format(open_arrow, arrow_keys, keeps_order=True, open_columns=open_arrow_columns)
_HDF5 = Format(open_hdf5, hdf5_keys, options=_OPTIONS)
_NETCDF = Format(open_netcdf, netcdf_keys, options=_OPTIONS)
_TORCH = Format(open_torch, torch_keys, keeps_order=True)
_TABLE = Format(open_table, table_keys, keeps_order=True, open_columns=open_table_columns)
_TEXT = Format(open_text)

# By suffix, in lower case.
FORMATS: dict[str, Format] = {
    ".npy": _NPY,
    ".npz": _NPZ,
    ".safetensors": _SAFETENSORS,
    ".h5": _HDF5,
    ".hdf5": _HDF5,
    ".h5ad": _HDF5,
    ".nc": _NETCDF,
    ".nc4": _NETCDF,
    ".parquet": _PARQUET,
    ".pq": _PARQUET,
    ".arrow": _ARROW,
    ".feather": _ARROW,
    ".zarr": _ZARR,
    ".pt": _TORCH,
    ".pth": _TORCH,
    ".csv": _TABLE,
    ".tsv": _TABLE,
    ".jsonl": _TABLE,
    ".ndjson": _TABLE,
    ".txt": _TEXT,
}
# By the word that a catalog says for files whose suffix does not tell, with the bytes that such a file begins with.
NAMED_FORMATS: dict[str, tuple[Format, bytes]] = {
    "npy": (_NPY, b"\x93NUMPY"),
    "npz": (_NPZ, b"PK"),
    "safetensors": (_SAFETENSORS, b""),
    "hdf5": (_HDF5, b"\x89HDF"),
    "netcdf": (_NETCDF, b"CDF"),
    "parquet": (_PARQUET, b"PAR1"),
    "arrow": (_ARROW, b"ARROW1"),
    "torch": (_TORCH, b""),
    "text": (_TEXT, b""),
}
# By a file that lies in the folder, whatever the folder's suffix; the first that is there counts.
FOLDER_FORMATS: dict[str, Format] = {
    **dict.fromkeys(
        DATASET_MARKERS,
        Format(open_saved_dataset, saved_dataset_keys, keeps_order=True, open_columns=open_saved_dataset_columns),
    ),
    **dict.fromkeys(ZARR_MARKERS, _ZARR),
}
_PARQUET_FOLDER = Format(
    open_parquet_folder, parquet_folder_keys, keeps_order=True, open_columns=open_parquet_folder_columns
)


@dataclass(frozen=True)
class Reading:
    """Settings of the catalog for reading a file, beside its path and key.

    Parameters
    ----------
    format
        One of `NAMED_FORMATS`; None: as the suffix says.
    columns
        Globs of columns, each of them a feature; ``!`` takes away.
    read_as
        ``bfloat16``: the values are 16 bits that no type of numpy stands for.
    unpack
        Whether an array that is packed by the CF conventions is unpacked.
    missing_chunks
        ``fill``: chunks that were never written hold the fill value; ``refuse``: they are an error.
    """

    format: str | None = None
    columns: tuple[str, ...] = ()
    read_as: str | None = None
    unpack: bool = True
    missing_chunks: str = "refuse"


AS_IT_SAYS = Reading()


def find_format(path: Path, name: str, reading: Reading = AS_IT_SAYS) -> Format:
    """Return how ``path`` is read; DataError ``missing_source`` if it is not there, or of an unknown kind."""
    by_name = None if reading.format is None else NAMED_FORMATS[reading.format][0]
    by_suffix = by_name or FORMATS.get(path.suffix.lower()) or _installed_format(path.suffix, name)
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
                if parquet_files(path):
                    return _PARQUET_FOLDER
                problem = "no such file: got a folder that is neither Zarr nor a saved dataset nor of Parquet files"
                raise DataError("missing_source", f"{name}: {problem}. Name the file")
        if is_there:
            problem = f"got a {path.suffix or 'nameless'} file"
            raise DataError("missing_source", f"{name}: {problem}, expected one of {', '.join(FORMATS)}{_guess(path)}")
        raise DataError("missing_source", f"{name}: no such file{nearest(path, name)}")


def _guess(path: Path) -> str:
    """Return how a message goes on after the kinds of files: what a file of another suffix begins like."""
    with open_bytes(path, 16) as file:
        start = file.read(8)
    alike = [word for word, (_, beginning) in NAMED_FORMATS.items() if beginning and start.startswith(beginning)]
    word = alike[0] if alike else None
    if word == "npz":
        return "; or say format: npz, or format: torch, if it is one"
    return f"; it begins like one of them. Say format: {word}" if word else "; or say format: if it is one of them"


def open_array(path: Path, name: str, key: str | None = None, reading: Reading = AS_IT_SAYS) -> StoredArray:
    """Return the array ``key`` in ``path``, its header read and checked.

    ``key[3]`` and ``key[:,3]`` are the fourth of its second axis, ``key[3,:]`` of its first.

    Parameters
    ----------
    path
        A file or folder of a format in `FORMATS`.
    name
        Name of the file in messages.
    key
        Array in the file; None where it holds one.
    reading
        How the catalog says that the file is read: format, columns, type.

    Raises
    ------
    DataError
        ``missing_source``, ``wrong_dtype`` or ``wrong_shape``, each with what was found.
    """
    file_format = find_format(path, name, reading)
    with readable(name):
        if reading.columns:
            return _checked(_open_columns(file_format, path, name, key, reading.columns), reading)
        options = _options(file_format, name, reading)
        indexed = _INDEXED.fullmatch(key or "")
        if indexed is not None and key not in (file_format.keys(path, name) or ()):
            stack = file_format.open(path, name, indexed[1] or None, **options)
            return _checked(along_axis(stack, 0 if indexed[4] else 1, int(indexed[3])), reading)
        return _checked(file_format.open(path, name, key, **options), reading)


def _options(file_format: Format, name: str, reading: Reading) -> dict[str, Any]:
    """Return the options that differ from the usual ones; DataError for those that mean nothing for this kind."""
    given = {
        option: getattr(reading, option)
        for option in _OPTIONS
        if getattr(reading, option) != getattr(AS_IT_SAYS, option)
    }
    if unfit := sorted(given.keys() - set(file_format.options)):
        problem = f"got {' and '.join(unfit)} for a kind of file that has no chunks and no attributes"
        raise DataError("missing_source", f"{name}: {problem}, expected Zarr, HDF5 or NetCDF. Remove it")
    return given


def _open_columns(file_format: Format, path: Path, name: str, key: str | None, columns: Sequence[str]) -> StoredArray:
    """Return the columns that globs choose, side by side."""
    if file_format.open_columns is None or key is not None:
        problem = "got key and columns" if key is not None else "got columns for a kind of file that has none"
        needed = "expected one of them" if key is not None else "expected Parquet, Arrow, CSV or JSON lines"
        raise DataError("missing_source", f"{name}: {problem}, {needed}. Remove columns")
    try:
        chosen = expand_layers(columns, file_format.keys(path, name) or ())
    except DataError as error:
        message = str(error).replace("no layer matches", "got no column that matches").replace("layers", "columns")
        raise DataError("missing_source", f"{name}: {message}") from error
    return file_format.open_columns(path, name, chosen)


def matching_keys(path: Path, name: str, pattern: str, reading: Reading = AS_IT_SAYS) -> tuple[str, ...] | None:
    """Return the keys to choose from, None for a file of one array; ``feats[{layer}]`` means the second axis."""
    file_format = find_format(path, name, reading)
    indexed = _INDEXED_LAYER.fullmatch(pattern)
    with readable(name):
        if indexed is not None:
            array = file_format.open(path, name, indexed[1] or None, **_options(file_format, name, reading))
            length = array.shape[0 if indexed[3] else 1] if len(array.shape) > 2 else 0
            before, after = indexed[2] or "", indexed[3] or ""
            return tuple(f"{indexed[1]}[{before}{index}{after}]" for index in range(length))
        return file_format.keys(path, name)


def keeps_order(path: Path, name: str, reading: Reading = AS_IT_SAYS) -> bool:
    """Return whether the keys of a file come in the order they were written."""
    return find_format(path, name, reading).keeps_order


def _checked(array: StoredArray, reading: Reading) -> StoredArray:
    if not array.shape:
        problem = f"got a single value of type {array.dtype}"
        raise DataError("wrong_shape", f"{array.name}: {problem}, expected an array with a row a point")
    if reading.read_as is not None:
        return as_bfloat16(array)
    if array.dtype.kind == "V":
        advice = "If these are bfloat16, say read_as: bfloat16" if array.dtype.itemsize == 2 else "Convert it"
        raise DataError("wrong_dtype", f"{array.name}: got {array.dtype}, expected numbers or text. {advice}")
    return array


def _installed_format(suffix: str, name: str) -> Format | None:
    """Return the reader that an installed package brings for ``suffix``; None if there is none."""
    points = tuple(entry_points(group=ENTRY_POINTS, name=suffix.removeprefix("."))) if suffix else ()
    if not points:
        return None
    if len(points) > 1:
        packages = ", ".join(sorted(point.value for point in points))
        raise DataError("missing_source", f"{name}: got {len(points)} readers ({packages}). Keep one installed")
    (point,) = points
    try:
        reader = point.load()
    except Exception as error:  # another package's code
        message = f"the reader {point.value} for {suffix} cannot be loaded ({type(error).__name__})"
        raise DataError("missing_source", f"{name}: {message}. Fix or remove its package") from error
    if not isinstance(reader, Format):
        message = f"got {type(reader).__name__} as the reader {point.value}"
        raise DataError("missing_source", f"{name}: {message}, expected a lfm_tasks.sources.Format")
    return reader
