"""Packing: arrays in the form that the page unpacks, small because they are rounded to what it shows."""

import base64
import zlib
from typing import Any

import numpy as np

# int16; the smallest number stands for NaN.
_MISSING = -(2**15)
_LARGEST = 2**15 - 1


def packed(values: np.ndarray, digits: int = 3) -> dict[str, Any]:
    """Return a matrix in steps of one unit: ``digits`` decimals, or fewer where the largest value needs more room.

    Rows of int16, the lower bytes of all before the higher ones; of a symmetric matrix the lower triangle.
    """
    finite = np.isfinite(values)
    largest = float(np.abs(values[finite]).max()) if finite.any() else 0.0
    unit = max(10.0**-digits, largest / _LARGEST)
    steps = np.where(finite, np.rint(np.where(finite, values, 0) / unit), _MISSING).astype("<i2")
    is_symmetric = steps.shape[0] == steps.shape[1] and bool((steps == steps.T).all())
    kept = steps[np.tril_indices(len(steps))] if is_symmetric else steps.ravel()
    planes = kept.view(np.uint8).reshape(-1, 2).T
    return {"unit": unit, "columns": values.shape[1], "symmetric": is_symmetric, "steps": squeezed(planes)}


def packed_if_any(values: np.ndarray, digits: int = 3) -> dict[str, Any] | None:
    """Return a packed matrix, None where no value of it is finite."""
    return packed(values, digits) if np.isfinite(values).any() else None


def packed_bytes(values: np.ndarray) -> dict[str, Any]:
    """Return an array in which each entry of the first dimension has 127 steps to its largest absolute value."""
    largest = np.nan_to_num(np.abs(values)).reshape(len(values), -1).max(axis=1, initial=0.0)
    units = np.where(largest > 0, largest / 127, 1.0)
    scaled = np.nan_to_num(values) / units.reshape(-1, *[1] * (values.ndim - 1))
    return {"units": [float(f"{unit:.4g}") for unit in units], "steps": squeezed(np.rint(scaled).astype(np.int8))}


def squeezed(array: np.ndarray) -> str:
    """Return the bytes of an array, deflated (zlib), as base64."""
    return base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), 6)).decode()
