"""Pooling: from tokens or feature maps to one row of features a point."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from lfm_tasks.errors import DataError
from lfm_tasks.sources.files.stored_array import StoredArray

Tokens = Shaped[np.ndarray, "batch tokens features"]
Valid = Bool[np.ndarray, "batch tokens"]


def pool_rows(
    rows: Shaped[np.ndarray, "batch ..."],
    pooling: str,
    *,
    shape: str | None = None,
    mask: Valid | None = None,
    prefix_tokens: int = 0,
) -> Float[np.ndarray, "batch features"]:
    """Return ``rows`` as (batch, features) in float16, float32 or float64: the stored type, unless something is summed.

    Rows are points; what follows is features (2-D, left as it is), tokens × features (3-D) or maps (4-D), of which
    ``shape`` says where the channels are: ``nchw`` or ``nhwc``. ``mean`` and ``max`` run over the tokens or the
    pixels, ``cls`` and ``last`` take the first and the last token, ``cls+mean`` both side by side, ``flatten`` keeps
    everything. Of tokens, only those count whose ``mask`` is true; ``mean`` and ``max`` leave out the first
    ``prefix_tokens`` of these. Half precision is cast up before anything is summed.

    Raises
    ------
    DataError
        ``wrong_shape``, if the pooling does not fit the shape.
    """
    pooled_features(rows.shape[1:], pooling, shape=shape)
    if rows.ndim == 2:
        return np.ascontiguousarray(rows, dtype=stored_dtype(rows.dtype))
    if pooling == "flatten":
        return np.ascontiguousarray(rows.reshape(len(rows), -1), dtype=stored_dtype(rows.dtype))
    if rows.ndim == 4:
        is_last = (shape or _only_shape(rows.shape[1:])) == "nhwc"
        flat = rows if is_last else np.moveaxis(rows, 1, 3)
        rows, mask, prefix_tokens = flat.reshape(len(rows), -1, flat.shape[3]), None, 0
    valid = np.ones(rows.shape[:2], bool) if mask is None else mask
    pooled = _POOL[pooling](rows, valid, valid & (np.cumsum(valid, axis=1) > prefix_tokens))
    return np.ascontiguousarray(pooled, dtype=stored_dtype(pooled.dtype))


def pooled_features(shape_of_point: Sequence[int], pooling: str, *, shape: str | None = None) -> int:
    """Return how many features a point of this shape has after ``pooling``; DataError if the two do not fit."""
    n_dims = len(shape_of_point) + 1
    if shape is not None and n_dims not in (2, len(shape)):
        problem = f"got a {n_dims}-D array, each point {tuple(shape_of_point)}, with shape: {shape}"
        raise DataError("wrong_shape", f"{problem}, expected {len(shape)} dimensions. Correct shape, or leave it out")
    fitting = _FITTING.get(n_dims, ("flatten",) if n_dims > 4 else ())
    if pooling not in fitting:
        advice = f"Write pool: {' or '.join(fitting)}" if fitting else "Store one row a point"
        problem = f"got a {n_dims}-D array, each point {tuple(shape_of_point)}, with pool: {pooling}"
        raise DataError("wrong_shape", f"{problem}, expected (points, features). {advice}")
    if n_dims == 2 or pooling == "flatten":
        return prod(shape_of_point)
    if n_dims == 4:
        known = shape or _only_shape(shape_of_point)
        if known is None:
            raise DataError("wrong_shape", _ask_for_shape(shape_of_point))
        return shape_of_point[2] if known == "nhwc" else shape_of_point[0]
    return shape_of_point[-1] * (2 if pooling == "cls+mean" else 1)


def _only_shape(shape_of_point: Sequence[int]) -> str | None:
    """Return where the channels of a map are, if only one way makes sense: beside a single pixel."""
    first, second, third = shape_of_point
    if second == third == 1:
        return "nchw"
    return "nhwc" if first == second == 1 else None


def _ask_for_shape(shape_of_point: Sequence[int]) -> str:
    first, second, third = shape_of_point
    found = f"got a 4-D array, each point {tuple(shape_of_point)}, without shape, which may be channels first or last"
    ways = f"shape: nchw for {first} channels of {second} × {third}, shape: nhwc for {third} of {first} × {second}"
    tokens = f", shape: ntd for {second} tokens of {third} features" if first == 1 else ""
    return f"{found}. Write {ways}{tokens}"


def stored_dtype(dtype: np.dtype) -> np.dtype:
    """Return the float type that holds every value of ``dtype``: float16 stays; else float32, or float64 if needed."""
    return np.dtype(np.float16) if (dtype.kind, dtype.itemsize) == ("f", 2) else wide_dtype(dtype)


def check_finite(
    pooled: Float[np.ndarray, "batch features"],
    rows: Int[np.ndarray, " batch"],
    ids: Shaped[np.ndarray, " points"],
    *,
    name: str,
    advice: str,
) -> None:
    """Raise DataError ``not_finite`` at the first value of ``rows`` that is none; ``ids`` are those of all points."""
    finite = np.isfinite(pooled)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        where = f"first in row {rows[row]} (id {ids[rows[row]]!s}), column {column}"
        problem = f"got {np.count_nonzero(~finite)} NaN or infinite values among {len(rows)} rows, {where}"
        raise DataError("not_finite", f"{name}: {problem}, expected finite numbers. {advice}")


def wide_dtype(dtype: np.dtype) -> np.dtype:
    """Return float32, or float64 if float32 cannot hold every value of ``dtype``; in the machine's byte order."""
    return np.dtype(np.float32) if np.can_cast(dtype, np.float32, casting="safe") else np.dtype(np.float64)


def _mean(rows: Tokens, counted: Valid) -> Float[np.ndarray, "batch features"]:
    # Not a product with the mask: what stands at padded places may be NaN.
    total = np.sum(rows, axis=1, dtype=np.float64, where=counted[:, :, None])
    return (total / counted.sum(axis=1)[:, None]).astype(wide_dtype(rows.dtype))


def _max(rows: Tokens, counted: Valid) -> Shaped[np.ndarray, "batch features"]:
    wide = rows.astype(stored_dtype(rows.dtype), copy=False)
    return np.max(wide, axis=1, initial=-np.inf, where=counted[:, :, None])


def _first(rows: Tokens, valid: Valid) -> Shaped[np.ndarray, "batch features"]:
    return rows[np.arange(len(rows)), valid.argmax(axis=1)]


def _last(rows: Tokens, valid: Valid) -> Shaped[np.ndarray, "batch features"]:
    return rows[np.arange(len(rows)), rows.shape[1] - 1 - valid[:, ::-1].argmax(axis=1)]


_FITTING: dict[int, tuple[str, ...]] = {
    # A pooling that a catalog's defaults give to all layers leaves those alone that are rows already.
    2: ("none", "flatten", "mean", "max", "cls", "last", "cls+mean"),
    3: ("mean", "max", "cls", "last", "cls+mean", "flatten"),
    4: ("mean", "max", "flatten"),
}

# Arguments: rows, the valid tokens, the valid tokens without the prefix.
_POOL: dict[str, Callable[[Tokens, Valid, Valid], Shaped[np.ndarray, "batch features"]]] = {
    "mean": lambda rows, valid, counted: _mean(rows, counted),
    "max": lambda rows, valid, counted: _max(rows, counted),
    "cls": lambda rows, valid, counted: _first(rows, valid),
    "last": lambda rows, valid, counted: _last(rows, valid),
    "cls+mean": lambda rows, valid, counted: np.concatenate([_first(rows, valid), _mean(rows, counted)], axis=1),
}


MaskReader = Callable[[Int[np.ndarray, " selected"]], Bool[np.ndarray, "selected tokens"]]


@dataclass(frozen=True)
class TokenMask:
    """A stored array (points, tokens) of 0 and 1."""

    array: StoredArray
    n_points: int

    def __post_init__(self) -> None:
        if len(self.array.shape) != 2 or self.array.dtype.kind not in "fiub":
            problem = f"got a mask of {self.array.dtype} and shape {self.array.shape}"
            raise DataError("wrong_shape", f"{self.array.name}: {problem}, expected (points, tokens) of 0 and 1")
        if self.array.shape[0] != self.n_points:
            problem = f"got a mask of {self.array.shape[0]} rows and {self.n_points} ids"
            raise DataError("bad_ids", f"{self.array.name}: {problem}, expected one row an id. Give that mask")

    def check_fits(self, array: StoredArray, pool: str) -> None:
        """Raise DataError if the mask cannot be that of ``array``, or the pooling has no use for one."""
        if pool == "flatten":
            problem = "got a mask and pool: flatten, which keeps padded tokens"
            raise DataError("wrong_shape", f"{array.name}: {problem}. Remove the mask, or pool the tokens")
        if array.shape[1] != self.array.shape[1]:
            problem = f"got {array.shape[1]} tokens and a mask of {self.array.shape[1]}"
            raise DataError("wrong_shape", f"{array.name}: {problem}, expected as many. Give the mask of these tokens")

    @contextmanager
    def rows(self, ids: Shaped[np.ndarray, " points"]) -> Iterator[MaskReader]:
        """Yield a function from row indices to which of their tokens are real."""
        with self.array.rows() as read:

            def valid(rows: Int[np.ndarray, " selected"]) -> Bool[np.ndarray, "selected tokens"]:
                values = read(rows)
                strange = ((values != 0) & (values != 1)).any(axis=1)
                if strange.any():
                    problem = f"got other values than 0 and 1 in the mask, first in id {ids[rows[strange.argmax()]]!s}"
                    raise DataError("wrong_dtype", f"{self.array.name}: {problem}. Give 1 for a token, 0 for padding")
                return values.astype(bool)

            yield valid
        self.array.check_unchanged()


def check_tokens(
    name: str,
    mask: Bool[np.ndarray, "batch tokens"],
    prefix_tokens: int,
    ids: Shaped[np.ndarray, " batch"],
) -> None:
    """Raise DataError for a point without a token that counts."""
    n_tokens = mask.sum(axis=1)
    short = n_tokens <= prefix_tokens
    if short.any():
        row = short.argmax()
        problem = f"got {n_tokens[row]} valid tokens in id {ids[row]!s}, expected more than {prefix_tokens} of prefix"
        raise DataError("wrong_shape", f"{name}: {problem}. Leave out such rows, or fix the mask")
