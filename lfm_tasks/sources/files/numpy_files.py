"""Reads .npy and .npz: headers first, then only the requested rows; never pickles, never more than was declared."""

import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache, partial
from math import prod
from pathlib import Path
from typing import IO, cast

import numpy as np

from lfm_tasks.catalog.names import did_you_mean
from lfm_tasks.errors import DataError
from lfm_tasks.sources.files.paths import Fingerprint, fingerprint, is_remote, open_bytes, refuse_pointer
from lfm_tasks.sources.files.stored_array import (
    ReadRows,
    StoredArray,
    check_compression_ratio,
    check_memory_size,
    raw_rows,
    text_array,
)


def open_npy(path: Path, name: str, key: str | None) -> StoredArray:
    """Return the array in a .npy; DataError ``damaged_source`` if truncated, ``wrong_dtype`` if pickled."""
    if key is not None:
        raise DataError("missing_source", f"{name}: got key: {key} for a file of one array. Remove the key")
    seen = fingerprint(path)
    with open_bytes(path) as file:
        shape, fortran_order, dtype = _read_header(file, name)
        first_byte = file.tell()
        n_bytes = file.seek(0, 2) - first_byte
    _check_size(name, shape, dtype, n_bytes)
    rows = partial(raw_rows, path, shape, dtype, first_byte)
    if fortran_order:
        rows = partial(_rows_of_whole, name, path, n_bytes, None)
    return StoredArray(name, path, seen, shape, dtype, rows, is_read_whole=fortran_order)


def open_npz(path: Path, name: str, key: str | None) -> StoredArray:
    """Return one array of a .npz; DataError ``damaged_source``, or ``missing_source`` for a bomb."""
    if key is None:
        offer = _offer("", npz_keys(path, name))
        raise DataError("missing_source", f"{name}: got no key, expected key: with the name of an array{offer}")
    file_name, name = name, f"{name}#{key}"
    seen = fingerprint(path)
    member = _directory(path, seen).get(f"{key}.npy")
    if member is None:
        raise DataError("missing_source", f"{name}: no such array{_offer(key, npz_keys(path, file_name))}")
    _check_member(name, member)
    with open_bytes(path) as file:
        start = file.seek(_member_start(file, member))
        inner = cast(IO[bytes], zipfile.ZipExtFile(file, "r", member))
        shape, fortran_order, dtype = _read_header(inner, name)
        header_bytes = inner.tell()
    first_byte = start + header_bytes
    _check_size(name, shape, dtype, member.file_size - header_bytes)
    rows = partial(raw_rows, path, shape, dtype, first_byte)
    is_read_whole = member.compress_type != zipfile.ZIP_STORED or fortran_order
    if is_read_whole:
        rows = partial(_rows_of_whole, name, path, member.file_size, member.filename)
    return StoredArray(name, path, seen, shape, dtype, rows, is_read_whole=is_read_whole)


@lru_cache(maxsize=8)
def _directory(path: Path, seen: Fingerprint) -> Mapping[str, zipfile.ZipInfo]:
    """Return the members of an archive by name; kept for as long as the file stays as it was ``seen``.

    Of a hundred layers in one file each is opened by itself: reading the whole directory for each takes most of the
    time.
    """
    with open_bytes(path) as file, zipfile.ZipFile(file) as archive:
        return {member.filename: member for member in archive.infolist()}


def npz_keys(path: Path, name: str) -> tuple[str, ...]:
    """Return the names of the arrays in a .npz, in the order they were written."""
    with open_bytes(path) as file, zipfile.ZipFile(file) as archive:
        members = archive.namelist()
    if len(set(members)) < len(members):
        raise DataError("missing_source", f"{name}: got two arrays of one name. Write the file again")
    return tuple(member.removesuffix(".npy") for member in members if member.endswith(".npy"))


@contextmanager
def _rows_of_whole(name: str, path: Path, n_bytes: int, member: str | None) -> Iterator[ReadRows]:
    """Yield a reader of rows of an array that can only be read whole: compressed, or column after column."""
    check_memory_size(name, n_bytes)
    with open_bytes(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # headers written by Python 2
        if member is None:
            whole = np.lib.format.read_array(file, allow_pickle=False)
        else:
            with zipfile.ZipFile(file) as archive, archive.open(member) as inner:
                whole = np.lib.format.read_array(inner, allow_pickle=False)
    yield lambda start, stop: whole[start:stop]


def _read_header(file: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise DataError("wrong_dtype", f"{name}: got .npy version {version}, for records, expected numbers. Save them")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # headers written by Python 2
        shape, fortran_order, dtype = readers[version](file)
    if dtype.hasobject:
        advice = "Save numbers; ids and labels as text: numpy.save(path, array.astype(str))"
        raise DataError("wrong_dtype", f"{name}: got pickled Python objects, which are never loaded. {advice}")
    if dtype.names or dtype.subdtype:
        raise DataError("wrong_dtype", f"{name}: got records {str(dtype)[:80]}, expected numbers. Save one field")
    if any(length < 0 for length in shape):
        raise ValueError(f"negative shape {shape}")
    return shape, fortran_order and len(shape) > 1, dtype


def _check_size(name: str, shape: tuple[int, ...], dtype: np.dtype, n_bytes: int) -> None:
    declared = prod(shape) * dtype.itemsize
    if declared != n_bytes:
        problem = f"got {n_bytes:,} bytes of values, expected {declared:,} for {shape} {dtype}"
        raise DataError("damaged_source", f"{name}: {problem}: the file is truncated or damaged, copy it again")


def _check_member(name: str, member: zipfile.ZipInfo) -> None:
    if member.flag_bits & 1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError("missing_source", f"{name}: got an encrypted or unusual archive, expected one of numpy.savez")
    check_compression_ratio(name, member.file_size, member.compress_size)


def _member_start(file: IO[bytes], member: zipfile.ZipInfo) -> int:
    """Return where a member's bytes begin: after its local header, whose last two fields are two lengths."""
    file.seek(member.header_offset)
    header = file.read(30)
    name_bytes, extra_bytes = (int.from_bytes(header[start : start + 2], "little") for start in (26, 28))
    name = file.read(name_bytes).decode("utf-8" if member.flag_bits & 0x800 else "cp437", errors="replace")
    # The directory at the end of the file says the same; where it does not, the file was put together by hand.
    if header[:4] != b"PK\x03\x04" or name != member.orig_filename:
        raise zipfile.BadZipFile(f"got a directory and a header that differ for {member.filename!r}")
    return member.header_offset + 30 + name_bytes + extra_bytes


def _offer(key: str, names: tuple[str, ...]) -> str:
    return did_you_mean(key, names) if names else "; the file holds none"


def open_text(path: Path, name: str, key: str | None) -> StoredArray:
    """Return the lines of a UTF-8 text file."""
    if key is not None:
        raise DataError("missing_source", f"{name}: got key: {key} for a file of lines. Remove the key")
    seen = fingerprint(path)
    if not is_remote(path):
        refuse_pointer(path, name)
    check_memory_size(name, path.stat().st_size)
    try:
        lines = path.read_bytes().decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        problem = f"got bytes that are not UTF-8, first at {error.start:,}"
        raise DataError("wrong_dtype", f"{name}: {problem}. Save it as UTF-8, one a line") from error

    texts = text_array(name, len(lines), lambda start, stop: lines[start:stop])

    @contextmanager
    def rows() -> Iterator[ReadRows]:
        yield lambda start, stop: texts[start:stop]

    return StoredArray(name, path, seen, texts.shape, texts.dtype, rows, is_read_whole=True)
