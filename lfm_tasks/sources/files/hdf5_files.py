"""Reads HDF5, and refuses what makes the library open other files: links, external and virtual datasets, plugins.

Text of variable length lies in heaps of the file. The HDF5 library loops in damaged heaps for ever, without giving way
to Python (https://github.com/HDFGroup/hdf5/issues/1707), so another process reads text. Numbers lie elsewhere.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from math import ceil, prod
from pathlib import Path
from typing import Any

import numpy as np

from lfm_tasks.catalog.names import did_you_mean
from lfm_tasks.errors import DataError
from lfm_tasks.sources.files.packed_values import CONVENTIONS, find_packing, netcdf_default_fill, unpacked
from lfm_tasks.sources.files.paths import fingerprint, is_remote, open_bytes, refuse_placeholder
from lfm_tasks.sources.files.stored_array import (
    MAX_MEMORY_BYTES,
    ReadRows,
    StoredArray,
    check_compression_ratio,
    check_memory_size,
    text_array,
)

_SECONDS = 60.0
# An alarm ends it, wherever it is, also when nobody waits for it any more.
_READ = """
import json, signal, sys, h5py
path, key, limit, seconds = sys.argv[1:]
signal.alarm(int(seconds))
with h5py.File(path, "r", locking=False) as file:
    text, texts, found = file[key].asstr(), [], 0
    for start in range(0, file[key].shape[0], 256):
        part = text[start : start + 256].tolist()
        texts += part
        found += len(json.dumps(part))
        if found > int(limit):
            sys.exit("found more text than fits into memory")
sys.stdout.write(json.dumps(texts))
"""


_READ_ATTRIBUTE = """
import json, signal, sys, h5py
path, key, attribute, seconds = sys.argv[1:]
signal.alarm(int(seconds))
with h5py.File(path, "r", locking=False) as file:
    sys.stdout.write(json.dumps(str(file[key].attrs[attribute])[:1000]))
"""


def read_texts(path: Path, key: str, most_bytes: int) -> list[str]:
    """Return the texts of a dataset that lies in a local file; ValueError if it is damaged."""
    texts: list[str] = _read_apart(_READ, path, key, str(most_bytes))
    return texts


def _read_apart(program: str, path: Path, key: str, last: str) -> Any:
    """Return the output of ``program`` for a local file, in a separate process; ValueError if the file is damaged."""
    command = [sys.executable, "-P", "-c", program, str(path.absolute()), key, last, str(ceil(_SECONDS) + 1)]
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and program
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, encoding="utf-8", timeout=_SECONDS,
            check=False, cwd="/",  # an empty entry of PYTHONPATH means the working directory
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"the HDF5 library reads its text for more than {_SECONDS:.0f} s") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise ValueError(lines[-1] if lines else f"the HDF5 library ended with {done.returncode}")
    return json.loads(done.stdout)


# Built into the library. Any other one would be looked for among shared libraries, whose code would run.
_FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 4: "szip", 5: "nbit", 6: "scaleoffset", 32000: "lzf"}


def open_hdf5(
    path: Path, name: str, key: str | None, *, unpack: bool = True, missing_chunks: str = "refuse"
) -> StoredArray:
    """Return the dataset at the path ``key`` inside the file.

    Parameters
    ----------
    path, name, key
        Which dataset, and how messages call the file.
    unpack
        Whether a dataset that is packed by the CF conventions, as NetCDF 4 has them, is unpacked.
    missing_chunks
        ``fill``: chunks that were never written hold the fill value; ``refuse``: they are an error.
    """
    if key is None:
        offer = did_you_mean("", hdf5_keys(path, name)) or "; the file holds none"
        raise DataError("missing_source", f"{name}: got no key, expected key: with the name of a dataset{offer}")
    seen = fingerprint(path)
    with _opened(path) as file:
        dataset = _find(file, key, name, path)
        name = f"{name}#{key}"
        _check_storage(dataset, name)
        dtype, is_text = _dtype(dataset, name), dataset.dtype.kind == "O"
        _check_size(dataset, name, may_miss_chunks=missing_chunks == "fill")
        block_rows = dataset.chunks[0] if dataset.chunks else 1
        shape = tuple(dataset.shape or ())
        packing = find_packing(_conventions(file, dataset, path), dtype, name) if unpack else None
    stored = StoredArray(name, path, seen, shape, dtype, partial(_rows, path, key, name, is_text), block_rows)
    return unpacked(stored, packing)


def _conventions(file: Any, dataset: Any, path: Path) -> dict[str, Any]:
    """Return the attributes that say how values are packed, and the mark of NetCDF for values that nobody wrote."""
    import h5py

    found: dict[str, Any] = {}
    for key in CONVENTIONS:
        if key not in dataset.attrs:
            continue
        kind = dataset.attrs.get_id(key).dtype
        text = h5py.check_string_dtype(kind)
        if text is not None and text.length is None and not is_remote(path):
            found[key] = _read_apart(_READ_ATTRIBUTE, path, dataset.name, key)
        else:
            value = dataset.attrs[key]
            found[key] = None if isinstance(value, h5py.Empty) else value
    if "_FillValue" not in found and "_NCProperties" in file.attrs:
        found["_FillValue"] = netcdf_default_fill(dataset.dtype)
    return found


def hdf5_keys(path: Path, name: str) -> tuple[str, ...]:
    """Return the paths of all datasets that lie in the file itself, without the lengths of dimensions in NetCDF."""
    import h5py

    keys: list[str] = []

    def visit(key: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and not _is_length(item):
            keys.append(key)

    with _opened(path) as file:  # visititems follows hard links only
        file.visititems(visit)
    return tuple(keys)


def _is_length(dataset: Any) -> bool:
    """Return whether a dataset only tells how long a dimension of NetCDF is, and holds no values."""
    if "CLASS" not in dataset.attrs or "NAME" not in dataset.attrs or dataset.attrs.get_id("NAME").dtype.kind != "S":
        return False
    return bytes(dataset.attrs["NAME"]).startswith(b"This is a netCDF dimension but not a netCDF variable")


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    import h5py

    if not is_remote(path):
        refuse_placeholder(path)
        # Locks are refused by some network file systems; that nothing changed is checked by the fingerprint.
        with h5py.File(path, "r", locking=False) as file:
            yield file
        return
    with open_bytes(path) as content, h5py.File(content, "r") as file:
        yield file


@contextmanager
def _rows(path: Path, key: str, name: str, is_text: bool) -> Iterator[ReadRows]:
    if is_text and not is_remote(path):
        local = read_texts(path, key, MAX_MEMORY_BYTES)
        yield lambda start, stop: text_array(name, stop - start, lambda first, last: local[start:stop][first:last])
        return
    with _opened(path) as file:
        dataset = file[key]
        if is_text:
            text = dataset.asstr()
            yield lambda start, stop: text_array(
                name, stop - start, lambda first, last: text[start + first : start + last].tolist()
            )
        else:
            yield lambda start, stop: dataset[start:stop]


def _find(file: Any, key: str, name: str, path: Path) -> Any:
    """Return the dataset, every step toward it a hard link: a soft one may lead to an external one."""
    import h5py

    item = file
    for part in key.strip("/").split("/"):
        link = item.get(part, getlink=True) if isinstance(item, h5py.Group) else None
        if link is None:
            raise DataError("missing_source", f"{name}#{key[:100]}: no such dataset{_offer(key, path, name)}")
        if not isinstance(link, h5py.HardLink):
            problem = f"got a link at {part[:100]!r}, which may lead to another file, expected the dataset itself"
            raise DataError("missing_source", f"{name}#{key}: {problem}. Copy it into this file")
        item = item[part]
    if not isinstance(item, h5py.Dataset):
        raise DataError("missing_source", f"{name}#{key}: got a group, expected a dataset{_offer(key, path, name)}")
    return item


def _offer(key: str, path: Path, name: str) -> str:
    return did_you_mean(key, hdf5_keys(path, name)) or "; the file holds none"


def _check_storage(dataset: Any, name: str) -> None:
    if dataset.external or dataset.is_virtual:
        problem = "got values that lie in other files, expected them inside"
        raise DataError("missing_source", f"{name}: {problem}. Copy the dataset into this file")
    plist = dataset.id.get_create_plist()
    for position in range(plist.get_nfilters()):
        filter_id, _, _, label = plist.get_filter(position)
        if filter_id not in _FILTERS:
            problem = f"got the filter {ascii(label.decode(errors='replace'))[:60]} ({filter_id})"
            needed = f"expected one of {', '.join(_FILTERS.values())}"
            raise DataError("missing_source", f"{name}: {problem}, {needed}. Write it with compression='gzip'")


def _check_size(dataset: Any, name: str, *, may_miss_chunks: bool) -> None:
    """Raise DataError if values are missing, which would be read as zeros, or are far more than the file holds."""
    if not dataset.size:
        return
    stored = dataset.id.get_storage_size()
    if dataset.chunks:
        needed = prod(-(-length // chunk) for length, chunk in zip(dataset.shape, dataset.chunks, strict=True))
        present = dataset.id.get_num_chunks()
        check_memory_size(name, prod(dataset.chunks) * dataset.dtype.itemsize)
    else:
        needed, present = 1, int(stored > 0)
    if may_miss_chunks:
        return
    if present < needed:
        problem = f"got {present:,} of {needed:,} chunks, the others would be read as {dataset.fillvalue!s:.20}"
        advice = (
            "Write all of the dataset, copy the file again, or say missing_chunks: fill where these values are meant"
        )
        raise DataError("missing_source", f"{name}: {problem}. {advice}")
    check_compression_ratio(name, dataset.nbytes, stored)


def _dtype(dataset: Any, name: str) -> np.dtype:
    import h5py

    if h5py.check_string_dtype(dataset.dtype) is not None:
        return np.dtype("U") if dataset.dtype.kind == "O" else dataset.dtype
    if str(dataset.dtype) == "|V2":
        return dataset.dtype  # bfloat16, where the catalog says so
    if dataset.dtype.kind not in "fiub" or h5py.check_enum_dtype(dataset.dtype) not in (None, _BOOLEAN):
        problem = f"got values of type {str(dataset.dtype)[:80]}, expected real numbers or text"
        raise DataError("wrong_dtype", f"{name}: {problem}. Convert it")
    return dataset.dtype


_BOOLEAN = {"FALSE": 0, "TRUE": 1}
