"""Reads .npy and .npz: headers first, then only the rows asked for; never pickles, never more than was declared."""

import hashlib
import os
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import IO, cast

import numpy as np
from jaxtyping import Int, Shaped

from lfm_tasks.catalog.problems import did_you_mean
from lfm_tasks.reasons import ReasonError

MAX_INFLATED_BYTES = 4 * 2**30  # what must be held in memory whole: compressed or column-wise arrays
# Zeros deflate at most 1030 : 1, real activations hardly 20 : 1; small arrays may be all zeros.
_MAX_RATIO = 200
_MAX_BYTES_AT_ANY_RATIO = 64 * 2**20
_BLOCK_BYTES = 2**20

RowReader = Callable[[Int[np.ndarray, " selected"]], Shaped[np.ndarray, "selected ..."]]


@dataclass(frozen=True)
class StoredArray:
    """One array on disk, its header read and its size checked; ``name`` is how messages call it."""

    path: Path
    name: str
    member: str | None
    shape: tuple[int, ...]
    dtype: np.dtype
    first_byte: int | None  # where the values begin, row after row; None if they must be read whole
    stamp: tuple[int, int, int]

    def reader(self) -> RowReader:
        """Return a function from row numbers to these rows."""
        if self.first_byte is None:
            whole = self.load()
            return lambda rows: whole[rows]
        return self._read_rows

    def load(self) -> Shaped[np.ndarray, "..."]:
        """Return the whole array."""
        if prod(self.shape) * self.dtype.itemsize > MAX_INFLATED_BYTES:
            limit = f"at most {MAX_INFLATED_BYTES:,}: store it uncompressed, in C order"
            raise ReasonError("missing_source", f"{self.name}: found more bytes than fit into memory, needs {limit}")
        with readable(self.name), self._open() as file, warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            array = np.lib.format.read_array(file, allow_pickle=False)
        self.check_unchanged()
        return array

    def sha256(self) -> str:
        """Return the SHA-256 of the array as a .npy file, header included, whether it lies alone or in a .npz."""
        hasher = hashlib.sha256()
        with readable(self.name), self._open() as file:
            while block := file.read(_BLOCK_BYTES):
                hasher.update(block)
        self.check_unchanged()
        return hasher.hexdigest()

    def check_unchanged(self) -> None:
        """Raise ReasonError if the file is another one than when its header was read."""
        with readable(self.name):
            stamp = _stamp(self.path)
        if stamp != self.stamp:
            raise ReasonError("missing_source", f"{self.name}: the file changed while it was read: start again")

    @contextmanager
    def _open(self) -> Iterator[IO[bytes]]:
        if self.member is None:
            with self.path.open("rb") as file:
                yield file
        else:
            with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as file:
                yield file

    def _read_rows(self, rows: Int[np.ndarray, " selected"]) -> Shaped[np.ndarray, "selected ..."]:
        # Not memory-mapped: a mapped file that shrinks kills the process, a short read is an error like any other.
        result = np.empty((len(rows), *self.shape[1:]), self.dtype)
        row_bytes = prod(self.shape[1:]) * self.dtype.itemsize
        buffer = result.reshape(-1).view(np.uint8).data if result.size else memoryview(b"")
        with readable(self.name), self.path.open("rb") as file:
            for start, stop in _runs(rows):
                file.seek(cast(int, self.first_byte) + int(rows[start]) * row_bytes)
                wanted = buffer[start * row_bytes : stop * row_bytes]
                if file.readinto(wanted) != len(wanted):
                    raise EOFError("the file ends too early")
        return result


def open_array(path: Path, name: str, key: str | None = None) -> StoredArray:
    """Return the array in ``path`` (.npy, or .npz with ``key``), its header read and checked against the file's size.

    Raises
    ------
    ReasonError
        ``missing_source`` if it is not there, not such a file, truncated, or a bomb; ``wrong_dtype`` if it is pickled.
    """
    if path.suffix != ".npz":
        if key is not None:
            raise ReasonError("missing_source", f"{name}: found key: {key} for a file of one array: remove the key")
        with readable(name), path.open("rb") as file:
            stamp = _stamp(path)
            shape, fortran_order, dtype = _read_header(file, name)
            first_byte = file.tell()
        _check_size(name, shape, dtype, stamp[0] - first_byte)
        return StoredArray(path, name, None, shape, dtype, None if fortran_order else first_byte, stamp)
    if key is None:
        raise ReasonError(
            "missing_source", f"{name}: needs key: to say which array{_offer('', array_names(path, name))}"
        )
    name = f"{name}#{key}"
    with readable(name), zipfile.ZipFile(path) as archive:
        stamp = _stamp(path)
        if f"{key}.npy" not in archive.namelist():
            raise ReasonError("missing_source", f"{name}: no such array{_offer(key, array_names(path, name))}")
        member = archive.getinfo(f"{key}.npy")
        _check_member(name, member)
        with archive.open(member) as file:
            shape, fortran_order, dtype = _read_header(file, name)
            header_bytes = file.tell()
        first_byte = _member_start(path, member) + header_bytes
    _check_size(name, shape, dtype, member.file_size - header_bytes)
    mapped = member.compress_type == zipfile.ZIP_STORED and not fortran_order
    return StoredArray(path, name, member.filename, shape, dtype, first_byte if mapped else None, stamp)


def array_names(path: Path, name: str) -> tuple[str, ...]:
    """Return the names of the arrays in a .npz, in the order they were written."""
    with readable(name), zipfile.ZipFile(path) as archive:
        members = archive.namelist()
    if len(set(members)) < len(members):
        raise ReasonError("missing_source", f"{name}: found two arrays of one name: write the file again")
    return tuple(member.removesuffix(".npy") for member in members if member.endswith(".npy"))


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Turn whatever a damaged or forbidden file raises into a ReasonError that names the file."""
    try:
        yield
    except ReasonError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ReasonError("missing_source", f"{name}: cannot be read ({' '.join(reason.split())[:200]})") from error
    except (SyntaxError, TypeError, MemoryError, RecursionError, RuntimeError, NotImplementedError) as error:
        # numpy evaluates a header as a Python literal, zipfile knows more kinds of archive than it reads.
        raise ReasonError("missing_source", f"{name}: cannot be read (damaged, or of an unknown kind)") from error


def _read_header(file: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ReasonError("wrong_dtype", f"{name}: found .npy version {version}, for records, needs numbers: save them")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # headers written by Python 2
        shape, fortran_order, dtype = readers[version](file)
    if dtype.hasobject:
        raise ReasonError("wrong_dtype", f"{name}: found pickled Python objects, which are never loaded: save numbers")
    if dtype.names or dtype.subdtype:
        raise ReasonError("wrong_dtype", f"{name}: found records {str(dtype)[:80]}, needs numbers: save one field")
    if any(length < 0 for length in shape):
        raise ValueError(f"negative shape {shape}")
    return shape, fortran_order and len(shape) > 1, dtype


def _check_size(name: str, shape: tuple[int, ...], dtype: np.dtype, n_bytes: int) -> None:
    declared = prod(shape) * dtype.itemsize
    if declared != n_bytes:
        found = f"found {n_bytes:,} bytes of values, needs {declared:,} for {shape} {dtype}"
        raise ReasonError("missing_source", f"{name}: {found}: the file is truncated or damaged, copy it again")


def _check_member(name: str, member: zipfile.ZipInfo) -> None:
    if member.flag_bits & 1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ReasonError("missing_source", f"{name}: found an encrypted or unusual archive, needs one of numpy.savez")
    ratio = member.file_size / max(member.compress_size, 1)
    if member.file_size > _MAX_BYTES_AT_ANY_RATIO and ratio > _MAX_RATIO:
        found = f"found {member.file_size:,} bytes packed {ratio:.0f} : 1"
        raise ReasonError("missing_source", f"{name}: {found}, needs at most {_MAX_RATIO} : 1: store it uncompressed")


def _member_start(path: Path, member: zipfile.ZipInfo) -> int:
    """Return where a member's bytes begin: after its local header, whose last two fields are two lengths."""
    with path.open("rb") as file:
        file.seek(member.header_offset + 26)
        lengths = file.read(4)
    return member.header_offset + 30 + int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")


def _stamp(path: Path) -> tuple[int, int, int]:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns, status.st_ino


def _offer(key: str, names: tuple[str, ...]) -> str:
    return did_you_mean(key, names) if names else "; the file holds none"


def _runs(rows: Int[np.ndarray, " selected"]) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of the stretches of ``rows`` that follow one another in the file."""
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    edges = [0, *breaks.tolist(), len(rows)]
    return ((start, stop) for start, stop in pairwise(edges) if stop > start)
