"""Reads NetCDF: version 4 is HDF5; the classic format (1, 2 and 5) is a header, then the values, big-endian.

Variables along the dimension that may grow lie row by row, those of one row together:
https://docs.unidata.ucar.edu/netcdf-c/current/file_format_specifications.html.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from lfm_tasks.catalog.names import did_you_mean
from lfm_tasks.errors import DataError
from lfm_tasks.sources.files.hdf5_files import hdf5_keys, open_hdf5
from lfm_tasks.sources.files.packed_values import find_packing, netcdf_default_fill, unpacked
from lfm_tasks.sources.files.paths import fingerprint, open_bytes
from lfm_tasks.sources.files.stored_array import ReadRows, StoredArray, check_memory_size, raw_rows, text_array

_TYPES = {1: "i1", 2: "S1", 3: ">i2", 4: ">i4", 5: ">f4", 6: ">f8", 7: "u1", 8: ">u2", 9: ">u4", 10: ">i8", 11: ">u8"}
_DIMENSIONS, _VARIABLES, _ATTRIBUTES = 10, 11, 12
_FIRST_HEADER_BYTES, _MAX_HEADER_BYTES = 2**16, 2**26
_MAX_ENTRIES = 100_000
_ALIGNMENT = 4


def open_netcdf(
    path: Path, name: str, key: str | None, *, unpack: bool = True, missing_chunks: str = "refuse"
) -> StoredArray:
    """Return the variable ``key`` of a NetCDF file of any version; see `open_hdf5`."""
    if not _is_classic(path):
        return open_hdf5(path, name, key, unpack=unpack, missing_chunks=missing_chunks)
    seen = fingerprint(path)
    variables = _variables(path)
    if key is None or key not in variables:
        problem = (
            "got no key, expected key: with the name of a variable" if key is None else f"got no variable {key[:100]!r}"
        )
        raise DataError("missing_source", f"{name}: {problem}{did_you_mean(key or '', variables)}")
    variable, name = variables[key], f"{name}#{key}"
    end = variable.end
    with open_bytes(path) as file:
        size = file.seek(0, 2)
    if end > size:
        problem = f"got {size:,} bytes, expected {end:,}"
        raise DataError("damaged_source", f"{name}: {problem}: the file is cut off, copy it again")
    rows: Callable[[], Any] = partial(raw_rows, path, variable.shape, variable.dtype, variable.first_byte)
    if variable.record_bytes:
        rows = partial(_records, path, variable)
    if variable.dtype.kind == "S":
        length = variable.shape[-1] if variable.shape else 1
        check_memory_size(name, prod(variable.shape))
        return StoredArray(name, path, seen, variable.shape[:-1], np.dtype("U"), partial(_texts, rows, name, length))
    stored = StoredArray(name, path, seen, variable.shape, variable.dtype, rows)
    if not unpack:
        return stored
    marks = dict(variable.attributes)
    marks.setdefault("_FillValue", netcdf_default_fill(variable.dtype))
    return unpacked(stored, find_packing(marks, variable.dtype, name))


def netcdf_keys(path: Path, name: str) -> tuple[str, ...]:
    """Return the names of all variables, in the order of the file."""
    return tuple(_variables(path)) if _is_classic(path) else hdf5_keys(path, name)


@dataclass(frozen=True)
class _Variable:
    """A variable: where its first value lies; ``record_bytes`` from one row to the next, 0 if all lie together."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    first_byte: int
    record_bytes: int
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def row_bytes(self) -> int:
        return prod(self.shape[1:]) * self.dtype.itemsize

    @property
    def end(self) -> int:
        """The first byte behind the values."""
        if not self.record_bytes:
            return self.first_byte + prod(self.shape) * self.dtype.itemsize
        return self.first_byte + max(0, self.shape[0] - 1) * self.record_bytes + min(1, self.shape[0]) * self.row_bytes


def _is_classic(path: Path) -> bool:
    with open_bytes(path, _ALIGNMENT) as file:
        return file.read(3) == b"CDF"


@contextmanager
def _records(path: Path, variable: _Variable) -> Iterator[ReadRows]:
    """Yield a reader of a variable whose rows alternate with those of others."""
    with open_bytes(path) as file:

        def read(start: int, stop: int) -> np.ndarray:
            n_rows = stop - start
            if n_rows < 1:
                return np.empty((0, *variable.shape[1:]), variable.dtype)
            n_bytes = (n_rows - 1) * variable.record_bytes + variable.row_bytes
            file.seek(variable.first_byte + start * variable.record_bytes)
            content = file.read(n_bytes)
            if len(content) != n_bytes:
                raise EOFError("the file ends too early")
            inner = np.empty(variable.shape[1:], variable.dtype).strides
            shape = (n_rows, *variable.shape[1:])
            return np.ndarray(shape, variable.dtype, content, strides=(variable.record_bytes, *inner)).copy()

        yield read


@contextmanager
def _texts(rows: Callable[[], Any], name: str, length: int) -> Iterator[ReadRows]:
    with rows() as read:

        def texts(start: int, stop: int) -> np.ndarray:
            letters = np.ascontiguousarray(read(start, stop))
            whole = letters.view(f"S{max(1, length)}").reshape(letters.shape[:-1])
            decoded = np.char.decode(whole, "utf-8").reshape(-1).tolist()
            return text_array(name, len(decoded), lambda first, last: decoded[first:last]).reshape(whole.shape)

        yield texts


def _variables(path: Path) -> dict[str, _Variable]:
    with open_bytes(path) as file:
        size = file.seek(0, 2)
        n_bytes = _FIRST_HEADER_BYTES
        while True:
            file.seek(0)
            try:
                return _Header(file.read(n_bytes), size).variables()
            except EOFError:
                if n_bytes >= min(size, _MAX_HEADER_BYTES):
                    raise
            n_bytes *= 16


class _Header:
    """The header of a classic file, read from its first byte on; ValueError where it is damaged."""

    def __init__(self, content: bytes, size: int) -> None:
        if len(content) < _ALIGNMENT or content[3] not in (1, 2, 5):
            raise ValueError("a NetCDF file of an unknown version")
        self._content, self._size, self._at = content, size, _ALIGNMENT
        self._n_word = 8 if content[3] == 5 else 4
        self._n_place = 4 if content[3] == 1 else 8

    def variables(self) -> dict[str, _Variable]:
        n_records = self._number(self._n_word)
        dimensions = [(self._name(), self._number(self._n_word))[1] for _ in range(self._list(_DIMENSIONS))]
        self._attributes()
        found: dict[str, tuple[list[int], np.dtype[Any], int, Mapping[str, Any]]] = {}
        for _ in range(self._list(_VARIABLES)):
            name = self._name()
            rank = self._count(32)
            axes = [self._number(self._n_word) for _ in range(rank)]
            attributes = self._attributes()
            dtype = self._dtype()
            self._number(self._n_word)  # its size, which follows from its shape
            if any(axis >= len(dimensions) for axis in axes):
                raise ValueError(f"a variable along the dimension {max(axes)} of {len(dimensions)}")
            found[name] = axes, dtype, self._number(self._n_place), attributes
        growing = {name for name, (axes, *_) in found.items() if axes and dimensions[axes[0]] == 0}
        sizes = {
            name: prod(dimensions[axis] for axis in found[name][0][1:]) * found[name][1].itemsize for name in growing
        }
        # The rows of a single such variable are not filled up.
        record_bytes = (
            sum(-(-size // _ALIGNMENT) * _ALIGNMENT for size in sizes.values())
            if len(sizes) > 1
            else sum(sizes.values())
        )
        if n_records == 2 ** (8 * self._n_word) - 1:  # written as a stream: the size of the file tells
            first = min((found[name][2] for name in growing), default=self._size)
            n_records = max(0, self._size - first) // max(1, record_bytes)
        return {
            name: _Variable(
                tuple(
                    n_records if name in growing and not place else dimensions[axis] for place, axis in enumerate(axes)
                ),
                dtype,
                first_byte,
                record_bytes if name in growing else 0,
                attributes,
            )
            for name, (axes, dtype, first_byte, attributes) in found.items()
        }

    def _number(self, n_bytes: int) -> int:
        if self._at + n_bytes > len(self._content):
            raise EOFError("a header that ends too early")
        self._at += n_bytes
        return int.from_bytes(self._content[self._at - n_bytes : self._at], "big")

    def _count(self, most: int) -> int:
        n_entries = self._number(self._n_word)
        if n_entries > most:
            raise ValueError(f"a header with {n_entries:,} entries of one kind")
        return n_entries

    def _list(self, kind: int) -> int:
        """Return the number of entries of a list."""
        tag, n_entries = self._number(4), self._count(_MAX_ENTRIES)
        if tag not in (0, kind) or (tag == 0 and n_entries):
            raise ValueError(f"a header with the tag {tag}, where {kind} is expected")
        return n_entries

    def _bytes(self, n_bytes: int) -> bytes:
        padded = -(-n_bytes // _ALIGNMENT) * _ALIGNMENT
        if self._at + padded > len(self._content):
            raise EOFError("a header that ends too early")
        self._at += padded
        return self._content[self._at - padded : self._at - padded + n_bytes]

    def _name(self) -> str:
        return self._bytes(self._count(_MAX_ENTRIES)).decode("utf-8")

    def _dtype(self) -> np.dtype[Any]:
        kind = self._number(4)
        if kind not in _TYPES:
            raise ValueError(f"a header with the type {kind}")
        return np.dtype(_TYPES[kind])

    def _attributes(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for _ in range(self._list(_ATTRIBUTES)):
            name, dtype = self._name(), self._dtype()
            content = self._bytes(self._count(2**24) * dtype.itemsize)
            found[name] = content.decode("utf-8", "replace") if dtype.kind == "S" else np.frombuffer(content, dtype)
        return found
