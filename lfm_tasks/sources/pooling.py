"""Pooling: from tokens or feature maps to one row of features a point."""

from collections.abc import Callable, Sequence
from math import prod

import numpy as np
from jaxtyping import Float, Shaped

from lfm_tasks.reasons import ReasonError


def pool_rows(rows: Shaped[np.ndarray, "batch ..."], pooling: str) -> Float[np.ndarray, "batch features"]:
    """Return ``rows`` as (batch, features) in float32, or float64 where float32 would round the stored type.

    Rows are points; what follows is features (2-D, left as it is), tokens × features (3-D) or channels × height ×
    width (4-D). ``mean`` and ``max`` run over the tokens or the pixels, ``cls`` and ``last`` take the first and the
    last token, ``flatten`` keeps everything. Half precision is cast up before anything is summed.

    Raises
    ------
    ReasonError
        ``wrong_shape``, if the pooling does not fit the shape.
    """
    pooled_features(rows.shape[1:], pooling)
    if rows.dtype != (wide := wide_dtype(rows.dtype)):
        rows = rows.astype(wide)
    if rows.ndim == 2:
        return np.ascontiguousarray(rows)
    if rows.ndim == 4 and pooling != "flatten":
        rows = np.ascontiguousarray(rows).reshape(*rows.shape[:2], -1).swapaxes(1, 2)
    return np.ascontiguousarray(_POOL[pooling](rows), dtype=wide)


def pooled_features(shape: Sequence[int], pooling: str) -> int:
    """Return how many features a point of ``shape`` has after ``pooling``; ReasonError if the two do not fit."""
    n_dims = len(shape) + 1
    fitting = _FITTING.get(n_dims, ("flatten",) if n_dims > 4 else ())
    if pooling not in fitting:
        advice = f"write pool: {' or '.join(fitting)}" if fitting else "store one row a point"
        found = f"found a {n_dims}-D array, each point {tuple(shape)}, with pool: {pooling}"
        raise ReasonError("wrong_shape", f"{found}, needs (points, features): {advice}")
    if n_dims == 2 or pooling == "flatten":
        return prod(shape)
    return shape[-1] if n_dims == 3 else shape[0]


def wide_dtype(dtype: np.dtype) -> np.dtype:
    """Return float32, or float64 if float32 cannot hold every value of ``dtype``; in the machine's byte order."""
    return np.dtype(np.float32) if np.can_cast(dtype, np.float32, casting="safe") else np.dtype(np.float64)


_FITTING: dict[int, tuple[str, ...]] = {
    # A pooling that a catalog's defaults give to all layers leaves those alone that are rows already.
    2: ("none", "flatten", "mean", "max", "cls", "last"),
    3: ("mean", "max", "cls", "last", "flatten"),
    4: ("mean", "max", "flatten"),
}

_POOL: dict[str, Callable[[Shaped[np.ndarray, "batch tokens features"]], Shaped[np.ndarray, "..."]]] = {
    "mean": lambda rows: rows.mean(axis=1, dtype=np.float64),
    "max": lambda rows: rows.max(axis=1),
    "cls": lambda rows: rows[:, 0],
    "last": lambda rows: rows[:, -1],
    "flatten": lambda rows: rows.reshape(rows.shape[0], -1),
}
