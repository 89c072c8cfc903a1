"""Arrays of NumPy, PyTorch, pandas, xarray, ``__array__`` or DLPack, converted to rows."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lfm_tasks.catalog.names import shorten
from lfm_tasks.errors import DataError

# What a value of a mapping may be instead of an array: the layers of a model, by name.
Layers = Mapping[str, Any]


def rows_of(value: Any, name: str) -> np.ndarray:
    """Return an array as finite rows (points, features) of real numbers; of what type they are stays as it is.

    Parameters
    ----------
    value
        A NumPy array, a PyTorch tensor on any device, a pandas data frame, an xarray data array, nested lists, or
        whatever has ``__array__`` or ``__dlpack__``. PyTorch's bfloat16, which NumPy lacks, becomes float32.
    name
        How messages call it.

    Raises
    ------
    TypeError
        If it is no array.
    DataError
        ``wrong_dtype``, ``wrong_shape`` or ``not_finite``; the message names the first row that is wrong.
    """
    rows = _as_numpy(value, name)
    if rows.dtype.kind == "O":
        raise DataError(
            "wrong_dtype", f"{name}: got {_culprit(value)}, expected real numbers. Select the columns of numbers."
        )
    if rows.dtype.kind not in "fiu":
        raise DataError("wrong_dtype", f"{name}: got values of type {rows.dtype}, expected real numbers. Convert them.")
    if rows.ndim != 2 or 0 in rows.shape:
        advice = (
            "Pool or flatten all dims but the first" if rows.ndim > 2 else "A row is a point, a column is a feature"
        )
        raise DataError(
            "wrong_shape", f"{name}: got an array of shape {rows.shape}, expected (points, features). {advice}."
        )
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        n_wrong, first = int((~finite).sum()), int(np.flatnonzero(~finite)[0])
        counted = "1 row" if n_wrong == 1 else f"{n_wrong:,} rows"
        raise DataError(
            "not_finite",
            f"{name}: got {counted} with NaN or infinite values, the first is row {first}, expected finite numbers. "
            "Leave these points out of all arrays.",
        )
    return rows


def _as_numpy(value: Any, name: str) -> np.ndarray:
    if isinstance(value, str | bytes) or not (
        isinstance(value, Sequence) or hasattr(value, "__array__") or hasattr(value, "__dlpack__")
    ):
        kind = type(value).__name__
        raise TypeError(f"{name}: got {kind}, expected an array of (points, features). Give it as a NumPy array.")
    if hasattr(value, "detach"):  # a tensor of PyTorch, which NumPy does not read where gradients flow or from a GPU
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":
            value = value.float()
    try:
        read = np.asarray if isinstance(value, Sequence) or hasattr(value, "__array__") else np.from_dlpack
        return np.asarray(read(value))
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        reason = " ".join(str(error).split())
        raise TypeError(
            f"{name}: got {type(value).__name__} that NumPy cannot read ({reason}), expected an array of (points, "
            "features). Move it to the CPU and give it as a NumPy array."
        ) from error


def _culprit(value: Any) -> str:
    """Return the part of an input that is not numeric, in words; of a data frame its columns by name."""
    if hasattr(value, "iloc"):
        columns = [str(name) for name, dtype in value.dtypes.items() if getattr(dtype, "kind", "O") not in "fiub"]
        if columns:
            shown = ", ".join(map(shorten, columns[:5])) + (" and more" if len(columns) > 5 else "")
            return f"the {'column' if len(columns) == 1 else 'columns'} {shown}"
    return "objects"


def row_labels(value: Any) -> np.ndarray | None:
    """Return the labels of the rows: the index of a data frame, the coordinate of a data array; None without any.

    The index 0, 1, 2, … that pandas gives a data frame by itself is none.
    """
    if hasattr(value, "iloc"):
        index = value.index
        is_default = type(index).__name__ == "RangeIndex" and index.start == 0 and index.step == 1
        return None if is_default else index.to_numpy()
    if hasattr(value, "dims") and hasattr(value, "coords"):
        rows = value.dims[0] if value.dims else None
        return np.asarray(value.coords[rows]) if rows in value.coords else None
    return None


def ids_of(values: Any, n_rows: int, name: str) -> np.ndarray:
    """Return ids, one for each row, as whole numbers or text.

    Raises
    ------
    DataError
        ``bad_ids`` if there are not as many as rows, one is there twice, or they are neither numbers nor text.
    """
    ids = np.asarray(values)
    if ids.dtype.kind == "T" or (ids.dtype.kind == "O" and all(isinstance(one, str) for one in ids.flat)):
        ids = ids.astype(str)
    if ids.dtype.kind not in "iuU" or ids.ndim != 1:
        found = f"{name}: got ids of type {ids.dtype} and shape {ids.shape}"
        raise DataError("bad_ids", f"{found}, expected a list of whole numbers or texts. Convert each with str.")
    if len(ids) != n_rows:
        raise DataError("bad_ids", f"{name}: got {len(ids):,} ids for {n_rows:,} rows, expected one for each row.")
    distinct, counts = np.unique(ids, return_counts=True)
    if len(distinct) < len(ids):
        repeated = shorten(str(distinct[counts.argmax()]))
        raise DataError(
            "bad_ids", f"{name}: got the id {repeated} {counts.max()} times, expected each once. Make them unique."
        )
    return ids
