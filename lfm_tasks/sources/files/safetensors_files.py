"""Reads .safetensors without its library, which reads local files only and has no bfloat16 for numpy.

The format is eight bytes of length, that much JSON, then raw values:
https://huggingface.co/docs/safetensors/index#format
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from lfm_tasks.catalog.names import did_you_mean
from lfm_tasks.errors import DataError
from lfm_tasks.sources.files.joined_arrays import widened
from lfm_tasks.sources.files.paths import Fingerprint, fingerprint, open_bytes
from lfm_tasks.sources.files.stored_array import ReadRows, StoredArray, raw_rows

_MAX_HEADER_BYTES = 100_000_000  # the library's own limit
_BFLOAT16 = "BF16"
_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", _BFLOAT16: "<u2", "BOOL": "|b1",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1",
}  # fmt: skip


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of the header: its type as the format calls it (``BF16``), its shape, and where its bytes begin."""

    kind: str
    shape: tuple[int, ...]
    first_byte: int
    n_bytes: int


def open_safetensors(path: Path, name: str, key: str | None) -> StoredArray:
    """Return the tensor ``key``; bfloat16 comes as float32, which holds each of its values."""
    seen = fingerprint(path)
    tensors = _known_header(path, name, seen)
    if key is None or key not in tensors:
        problem = (
            "got no key, expected key: with the name of a tensor" if key is None else f"got no tensor {key[:100]!r}"
        )
        raise DataError("missing_source", f"{name}: {problem}{did_you_mean(key or '', tensors)}")
    tensor = tensors[key]
    name = f"{name}#{key}"
    if tensor.kind not in _DTYPES:
        problem = f"got values of type {tensor.kind[:20]!r}, expected one of {', '.join(_DTYPES)}"
        raise DataError("wrong_dtype", f"{name}: {problem}. Save it as F32")
    dtype = np.dtype(_DTYPES[tensor.kind])
    opened = partial(raw_rows, path, tensor.shape, dtype, tensor.first_byte)
    if tensor.kind == _BFLOAT16:
        return StoredArray(name, path, seen, tensor.shape, np.dtype(np.float32), partial(_widened, opened))
    return StoredArray(name, path, seen, tensor.shape, dtype, opened)


@lru_cache(maxsize=8)
def _known_header(path: Path, name: str, seen: Fingerprint) -> Mapping[str, StoredTensor]:
    """Return the header of a file, kept while it stays as it was seen: each of its tensors is opened by itself."""
    return read_header(path, name)


def safetensors_keys(path: Path, name: str) -> tuple[str, ...]:
    """Return the names of all tensors."""
    return tuple(read_header(path, name))


@contextmanager
def _widened(opened: Any) -> Iterator[ReadRows]:
    """Yield a reader of bfloat16 values as float32."""
    with opened() as read:
        yield lambda start, stop: widened(read(start, stop))


def read_header(path: Path, name: str) -> dict[str, StoredTensor]:
    """Return the tensors of the header, in its order; DataError if it is damaged."""
    with open_bytes(path) as file:
        n_bytes = int.from_bytes(file.read(8), "little")
        size = file.seek(0, 2)
        if n_bytes > min(_MAX_HEADER_BYTES, size - 8):
            problem = f"got a header of {n_bytes:,} bytes in a file of {size:,}, expected at most {_MAX_HEADER_BYTES:,}"
            raise DataError("damaged_source", f"{name}: {problem}: the file is truncated or no .safetensors")
        file.seek(8)
        header = json.loads(file.read(n_bytes))
    try:
        entries = {key: entry for key, entry in header.items() if key != "__metadata__"}
        spans = sorted((*_span(entry), key) for key, entry in entries.items())
        tensors = {
            key: StoredTensor(str(entry["dtype"]), tuple(entry["shape"]), 8 + n_bytes + start, stop - start)
            for key, entry in entries.items()
            for start, stop in [_span(entry)]
        }
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        problem = "got a header that describes no tensors, expected dtype, shape and data_offsets"
        raise DataError("damaged_source", f"{name}: {problem}. Write it again") from error
    _check_spans(spans, size - 8 - n_bytes, name)
    for key, entry in entries.items():
        start, stop = _span(entry)
        kind = str(entry["dtype"])
        if kind in _DTYPES and stop - start != prod(entry["shape"]) * np.dtype(_DTYPES[kind]).itemsize:
            problem = f"got {stop - start:,} bytes for {kind} of shape {entry['shape']}"
            raise DataError("damaged_source", f"{name}#{key[:100]}: {problem}: the header is damaged")
    return tensors


def _span(entry: Mapping[str, Any]) -> tuple[int, int]:
    start, stop = entry["data_offsets"]
    lengths = [start, stop, *entry["shape"]]
    if not all(type(length) is int and length >= 0 for length in lengths):
        raise TypeError("offsets and lengths are whole numbers")
    return start, stop


def _check_spans(spans: list[tuple[int, int, str]], n_bytes: int, name: str) -> None:
    end = 0
    for start, stop, key in spans:
        if start < end or stop < start:
            problem = f"got the tensor {key[:100]!r} at {start:,} to {stop:,}, over bytes of another"
            raise DataError("damaged_source", f"{name}: {problem}: the header is damaged, write it again")
        end = stop
    if end > n_bytes:
        problem = f"got {n_bytes:,} bytes of values, expected {end:,}"
        raise DataError("damaged_source", f"{name}: {problem}: the file is truncated, copy it again")
