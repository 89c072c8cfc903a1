"""Reads Zarr arrays, versions 2 and 3; codecs are checked by name first, because some of them unpickle."""

import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, cast

import numpy as np

from lfm_tasks.catalog.names import did_you_mean
from lfm_tasks.errors import DataError
from lfm_tasks.sources.files.packed_values import CONVENTIONS, find_packing, unpacked
from lfm_tasks.sources.files.paths import fingerprint, is_file, is_remote, refuse_pointer
from lfm_tasks.sources.files.stored_array import (
    ReadRows,
    StoredArray,
    check_compression_ratio,
    check_memory_size,
    text_array,
)
from lfm_tasks.sources.files.zarr_shards import is_sharded, n_inner_chunks

ZARR_MARKERS = ("zarr.json", ".zarray", ".zgroup")

_PACKERS = ("blosc", "zlib", "gzip", "zstd", "lz4", "bz2", "lzma", "shuffle", "delta", "crc32", "crc32c", "adler32")
_CODECS = frozenset(
    {"bytes", "endian", "transpose", "sharding_indexed", "vlen-utf8", "fletcher32", "fixedscaleoffset", "quantize"}
    | {"bitround", "astype", "packbits"}
    | set(_PACKERS)
    | {f"numcodecs.{codec}" for codec in _PACKERS}
)


def open_zarr(
    path: Path, name: str, key: str | None, *, unpack: bool = True, missing_chunks: str = "refuse"
) -> StoredArray:
    """Return the array at the path ``key`` of a group, or the array that the folder is.

    Parameters
    ----------
    path, name, key
        Which array, and how messages call the file.
    unpack
        Whether an array that is packed by the CF conventions is unpacked.
    missing_chunks
        ``fill``: chunks that were never written hold the fill value; ``refuse``: they are an error.
    """
    name, group_name = (name, name) if key is None else (f"{name}#{key}", name)
    seen = fingerprint(path)
    _refuse_pointers(path, name)
    _check_codecs(path if key is None else path / key, name)
    array = _array(path, key)
    if array is None:
        problem = "got a group and no key, expected key: with the name of an array" if key is None else "no such array"
        offer = did_you_mean(key or "", zarr_keys(path, group_name) or ()) or "; the group holds none"
        raise DataError("missing_source", f"{name}: {problem}{offer}")
    dtype = np.dtype("U") if array.dtype.kind == "T" else np.dtype(array.dtype)
    if array.dtype.kind not in "fiubTUS":
        text = str(array.dtype)[:80]
        raise DataError("wrong_dtype", f"{name}: got values of type {text}, expected real numbers or text. Convert it")
    check_memory_size(name, prod(array.shards or array.chunks) * max(1, array.dtype.itemsize))
    if missing_chunks == "refuse":
        _check_complete(array, path if key is None else path / key, name, len(seen))
    check_compression_ratio(name, array.nbytes, array.nbytes_stored() if missing_chunks == "refuse" else array.nbytes)
    block = (array.shards or array.chunks)[0] if array.shape else 1
    stored = StoredArray(name, path, seen, tuple(array.shape), dtype, partial(_rows, path, key), block)
    return unpacked(stored, find_packing(_conventions(array), dtype, name)) if unpack else stored


def _conventions(array: Any) -> dict[str, Any]:
    """Return the attributes that say how values are packed.

    In version 2, xarray writes ``_FillValue`` as the fill value of the array. Other programs mean by that what chunks
    hold that were never written.
    """
    attributes = dict(array.attrs)
    found = {key: attributes[key] for key in CONVENTIONS if key in attributes}
    if array.metadata.zarr_format == 2 and (found or "_ARRAY_DIMENSIONS" in attributes):
        fill = array.fill_value
        if fill is not None:
            found["_FillValue"] = np.asarray(fill)
    return found


def zarr_keys(path: Path, name: str) -> tuple[str, ...] | None:
    """Return the paths of all arrays below a group; None for an array."""
    import zarr

    with _quiet():
        item = zarr.open(_store(path), mode="r")
        if isinstance(item, zarr.Array):
            return None
        return tuple(key for key, member in item.members(max_depth=None) if isinstance(member, zarr.Array))


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # types without a specification, files beside the arrays
        yield


@contextmanager
def _rows(path: Path, key: str | None) -> Iterator[ReadRows]:
    array = _array(path, key)
    if array is None:
        raise ValueError("the array is gone")

    def read(start: int, stop: int) -> np.ndarray:
        values = np.asarray(array[start:stop])
        if values.dtype.kind != "T" or values.ndim != 1:
            return values
        return text_array(path.name, len(values), lambda first, last: values[first:last].tolist())

    yield read


def _array(path: Path, key: str | None) -> Any:
    import zarr

    with _quiet():
        item: Any = zarr.open(_store(path), mode="r")
        if key is not None:
            item = item.get(key) if isinstance(item, zarr.Group) else None
    return item if isinstance(item, zarr.Array) else None


def _store(path: Path) -> Any:
    from zarr.storage import FsspecStore, LocalStore

    if not is_remote(path):
        return LocalStore(path, read_only=True)
    from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper

    remote = cast(Any, path)
    # Those that are asynchronous too: theirs is bound to the loop of fsspec, and Zarr has its own.
    return FsspecStore(AsyncFileSystemWrapper(remote.fs, asynchronous=True), read_only=True, path=remote.path)


def _refuse_pointers(path: Path, name: str) -> None:
    """Raise DataError if metadata or chunks are pointers; git-lfs has patterns for all alike, so one tells."""
    if is_remote(path):
        return
    for folder, folders, files in os.walk(path):
        folders.sort()
        for file in sorted(files):
            refuse_pointer(Path(folder) / file, name)
            if not file.startswith((".z", "zarr.json")):
                return


def _check_codecs(path: Path, name: str) -> None:
    for marker in ("zarr.json", ".zarray"):
        if is_file(path / marker):
            for codec in _codecs(json.loads((path / marker).read_bytes())):
                if codec not in _CODECS:
                    problem = f"got the codec {codec[:60]!r}, expected one of {', '.join(_PACKERS)}"
                    raise DataError("missing_source", f"{name}: {problem}. Write it with one of these")


def _codecs(metadata: Any) -> Iterator[str]:
    """Yield the name of every codec of an array, those inside of shards too."""
    if isinstance(metadata, list):
        for part in metadata:
            yield from _codecs(part)
    elif isinstance(metadata, dict):
        if isinstance(codec := metadata.get("id"), str):
            yield codec
        if isinstance(codec := metadata.get("name"), str) and set(metadata) <= {"name", "configuration"}:
            yield codec
        for key in ("codecs", "index_codecs", "configuration", "compressor", "filters"):
            yield from _codecs(metadata.get(key))


def _check_complete(array: Any, folder: Path, name: str, n_files: int) -> None:
    """Raise DataError if chunks are missing: Zarr would give its fill value for them, without a word."""
    stored = array.shards or array.chunks
    needed = prod(-(-length // chunk) for length, chunk in zip(array.shape, stored, strict=True))
    present = n_files
    if needed <= n_files:  # else Zarr would look for each of them, however many there should be
        with _quiet():
            if is_sharded(array):
                present, needed = n_inner_chunks(array, folder, name)
            else:
                present, needed = array.nchunks_initialized, array.nchunks
    if present < needed:
        problem = f"got {present:,} of {needed:,} chunks, the others would be read as {array.fill_value!s:.20}"
        advice = "Copy it again, or say missing_chunks: fill where these values are meant"
        raise DataError("missing_source", f"{name}: {problem}. {advice}")
