"""Unpacks arrays by the CF conventions, like xarray: scale, offset and missing values.

Attributes beside an array name a scale, an offset, values that mean "missing", and whether bits are read as unsigned:
https://cfconventions.org/cf-conventions/cf-conventions.html#packed-data. Read raw, such an array holds other numbers.
"""

import base64
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Shaped

from lfm_tasks.catalog.names import shorten
from lfm_tasks.errors import DataError
from lfm_tasks.sources.files.stored_array import ReadRows, StoredArray

_MISSING = ("_FillValue", "missing_value")
# What says that an array was written by the conventions; of others a fill value says nothing about its values.
CONVENTIONS = ("scale_factor", "add_offset", "_Unsigned", *_MISSING)
# What NetCDF stands for values that nobody wrote: https://docs.unidata.ucar.edu/netcdf-c/current/netcdf_8h_source.html
_NETCDF_FILLS = {"f4": 9.9692099683868690e36, "f8": 9.9692099683868690e36, "i2": -32767, "i4": -2147483647}


def netcdf_default_fill(dtype: np.dtype[Any]) -> float | None:
    """Return the mark that NetCDF writes where nobody wrote a value; None for types whose mark is a usual number."""
    return _NETCDF_FILLS.get(f"{dtype.kind}{dtype.itemsize}")


@dataclass(frozen=True)
class Packing:
    """How stored values become numbers: read as ``stored``, ``missing`` ones NaN, times ``scale``, plus ``offset``."""

    stored: np.dtype[Any]
    dtype: np.dtype[Any]
    missing: tuple[float, ...] = ()
    scale: float | None = None
    offset: float | None = None

    def unpack(self, values: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
        """Return the numbers that ``values`` stand for, NaN where there is none."""
        native = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("="))
        whole = native.view(self.stored)
        numbers = whole.astype(self.dtype)
        if self.missing:
            numbers[np.isin(whole, np.asarray(self.missing, dtype=whole.dtype))] = np.nan
        if self.scale is not None:
            numbers *= self.scale
        if self.offset is not None:
            numbers += self.offset
        return numbers


def find_packing(attributes: Mapping[str, Any], dtype: np.dtype[Any], name: str) -> Packing | None:
    """Return how an array of ``dtype`` is packed; None if its values are the numbers themselves.

    Parameters
    ----------
    attributes
        Those of the array, by name.
    dtype
        As it is stored.
    name
        How messages call the array.

    Raises
    ------
    DataError
        ``wrong_dtype`` for attributes that are no numbers.
    """
    if dtype.kind not in "iuf" or not any(attributes.get(key) is not None for key in CONVENTIONS):
        return None
    scale, offset = (_factor(attributes.get(key), key, name) for key in ("scale_factor", "add_offset"))
    stored = _with_sign(dtype.newbyteorder("="), attributes.get("_Unsigned"))
    missing = sorted({value for key in _MISSING for value in _marks(attributes.get(key), key, dtype, stored, name)})
    if scale is None and offset is None and not missing:
        return None if stored == dtype.newbyteorder("=") else Packing(stored, stored)
    return Packing(
        stored,
        _unpacked_dtype(stored, scale, offset),
        tuple(missing),
        None if scale is None else float(scale),
        None if offset is None else float(offset),
    )


def unpacked(array: StoredArray, packing: Packing | None) -> StoredArray:
    """Return an array of the numbers that a packed one stands for."""
    if packing is None:
        return array

    @contextmanager
    def opened() -> Iterator[ReadRows]:
        with array.open() as read:
            yield lambda start, stop: packing.unpack(read(start, stop))

    return replace(array, dtype=packing.dtype, open=opened)


def _factor(value: Any, key: str, name: str) -> np.floating[Any] | None:
    if value is None:
        return None
    number = np.asarray(value)
    if number.size != 1 or number.dtype.kind not in "iuf" or not np.isfinite(number).all():
        problem = f"got {key} {shorten(str(value))}, expected one finite number"
        raise DataError("wrong_dtype", f"{name}: {problem}. Fix the attribute, or say unpack: false")
    only = number.reshape(-1)[0]
    return only if number.dtype.kind == "f" else np.float64(only)


def _with_sign(dtype: np.dtype[Any], unsigned: Any) -> np.dtype[Any]:
    said = unsigned.decode("ascii", "replace") if isinstance(unsigned, bytes) else str(unsigned)
    kinds = {("i", "true"): "u", ("u", "false"): "i"}
    return np.dtype(f"{kinds.get((dtype.kind, said.lower()), dtype.kind)}{dtype.itemsize}")


def _marks(value: Any, key: str, dtype: np.dtype[Any], stored: np.dtype[Any], name: str) -> Iterator[float]:
    """Yield the stored values that mean "missing", as ``stored`` holds them; NaN needs no mark."""
    if value is None:
        return
    if isinstance(value, str | bytes):
        value = _from_text(value, key, name)
    marks = np.asarray(value).reshape(-1)
    if marks.dtype.kind not in "iufb":
        problem = f"got {key} {shorten(str(value))}, expected numbers"
        raise DataError("wrong_dtype", f"{name}: {problem}. Fix the attribute, or say unpack: false")
    for mark in marks.tolist():
        if mark != mark:
            continue
        if stored.kind == "f":
            yield float(stored.type(mark))
            continue
        # A mark may be written as the bits are stored, or as they are read: -1 and 255 of eight bits are one.
        for kind in (stored, dtype):
            if int(mark) == mark and np.iinfo(kind).min <= mark <= np.iinfo(kind).max:
                yield int(np.asarray(int(mark), dtype=kind).view(stored))
                break


def _from_text(value: str | bytes, key: str, name: str) -> float:
    """Return a number that is written as text: base64 of eight bytes, as xarray does in Zarr 3, or NaN and the like."""
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else value
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return float(struct.unpack("<d", base64.standard_b64decode(text))[0])
    except (ValueError, struct.error) as error:
        problem = f"got {key} {shorten(text)}, expected a number"
        raise DataError("wrong_dtype", f"{name}: {problem}. Fix the attribute, or say unpack: false") from error


def _unpacked_dtype(stored: np.dtype[Any], scale: Any, offset: Any) -> np.dtype[Any]:
    """Return the float type that xarray chooses (`xarray.coding.variables._choose_float_dtype`)."""
    if scale is not None and offset is not None and scale.dtype == offset.dtype:
        is_wide = stored.kind in "iu" and stored.itemsize == 4
        return np.dtype(np.float64) if is_wide else np.dtype(scale.dtype)
    if offset is not None:
        return np.dtype(np.float64)
    if scale is not None:
        return np.dtype(scale.dtype)
    if stored.kind == "f":
        return stored
    return np.dtype(np.float32 if stored.itemsize <= 2 else np.float64)
