"""One array made of several: concatenated shards, stacked rows, one layer of a stack, bfloat16 as floats."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import accumulate
from math import prod

import numpy as np

from lfm_tasks.errors import DataError
from lfm_tasks.sources.files.stored_array import ReadRows, StoredArray, check_memory_size

# Files that are open at once: a process may have a thousand.
_MOST_OPEN = 16


def concatenated(parts: Sequence[StoredArray], name: str) -> StoredArray:
    """Return the rows of several arrays, one after another.

    Parameters
    ----------
    parts
        The arrays, in the order of their rows.
    name
        How messages call them together.

    Raises
    ------
    DataError
        ``wrong_shape`` or ``wrong_dtype`` for arrays that do not fit together.
    """
    first = parts[0]
    for part in parts[1:]:
        if part.shape[1:] != first.shape[1:]:
            problem = f"got rows of shape {first.shape[1:]} in {first.name} and {part.shape[1:]} in {part.name}"
            raise DataError("wrong_shape", f"{name}: {problem}, expected one shape. Name the files of one array")
    if len(parts) == 1:
        return replace(first, name=name)
    dtype = _common_dtype(parts, name)
    ends = list(accumulate((part.shape[0] for part in parts), initial=0))

    @contextmanager
    def opened() -> Iterator[ReadRows]:
        with _Readers(parts) as readers:

            def read(start: int, stop: int) -> np.ndarray:
                touched = [index for index in range(len(parts)) if ends[index] < stop and start < ends[index + 1]]
                pieces = [
                    readers[index](max(0, start - ends[index]), min(stop, ends[index + 1]) - ends[index])
                    for index in touched
                ]
                if not pieces:
                    return np.empty((0, *first.shape[1:]), dtype)
                joined = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
                return joined if joined.dtype.kind == "U" else joined.astype(dtype, copy=False)

            yield read

    blocks = [part.shape[0] if part.is_read_whole else part.block_rows for part in parts]
    shape = (ends[-1], *first.shape[1:])
    return StoredArray(name, first.path, first.fingerprint, shape, dtype, opened, max(blocks), parts=tuple(parts))


def stacked(parts: Sequence[StoredArray], name: str) -> StoredArray:
    """Return an array with a row for each of ``parts``, which are arrays of one shape; see `concatenated`."""
    first = parts[0]
    for part in parts[1:]:
        if part.shape != first.shape:
            problem = f"got arrays of shape {first.shape} ({first.name}) and {part.shape} ({part.name})"
            raise DataError("wrong_shape", f"{name}: {problem}, expected one shape. Pad them, or pool them before")
    dtype = _common_dtype(parts, name)

    @contextmanager
    def opened() -> Iterator[ReadRows]:
        def read(start: int, stop: int) -> np.ndarray:
            rows = np.empty((stop - start, *first.shape), dtype)
            for row, part in zip(rows, parts[start:stop], strict=True):
                with part.open() as read_part:
                    row[...] = read_part(0, part.shape[0])
            return rows

        yield read

    shape = (len(parts), *first.shape)
    return StoredArray(name, first.path, first.fingerprint, shape, dtype, opened, parts=tuple(parts))


def along_axis(array: StoredArray, axis: int, index: int) -> StoredArray:
    """Return one layer of a stack: (layers, points, ...) with ``axis`` 0, or (points, layers, ...) with ``axis`` 1."""
    if len(array.shape) < 3 or index >= array.shape[axis]:
        problem = f"got the shape {array.shape} and the index {index}"
        needed = "(layers, points, ...)" if axis == 0 else "(points, layers, ...)"
        raise DataError("wrong_shape", f"{array.name}: {problem}, expected {needed}. Name another one")
    shape = (array.shape[1 - axis], *array.shape[2:])
    if axis == 0:
        check_memory_size(array.name, prod(shape) * array.dtype.itemsize)

    @contextmanager
    def opened() -> Iterator[ReadRows]:
        with array.open() as read:
            if axis == 1:
                yield lambda start, stop: read(start, stop)[:, index]
                return
            layer = read(index, index + 1)[0]
            yield lambda start, stop: layer[start:stop]

    name = f"{array.name}[{index},:]" if axis == 0 else f"{array.name}[{index}]"
    return replace(array, name=name, shape=shape, open=opened, is_read_whole=axis == 0 or array.is_read_whole)


def without_axis(array: StoredArray) -> StoredArray:
    """Return hidden states that were stacked behind an axis of length 1, (points, 1, tokens, features), without it."""
    if len(array.shape) != 4 or array.shape[1] != 1:
        return array

    @contextmanager
    def opened() -> Iterator[ReadRows]:
        with array.open() as read:
            yield lambda start, stop: read(start, stop)[:, 0]

    return replace(array, shape=(array.shape[0], *array.shape[2:]), open=opened)


def as_bfloat16(array: StoredArray) -> StoredArray:
    """Return an array of 16 bits as the float32 numbers that they are the first half of.

    Raises
    ------
    DataError
        ``wrong_dtype`` for values of another size.
    """
    if array.dtype.itemsize != 2 or array.dtype.kind not in "Vui":
        problem = f"got {array.dtype} and read_as: bfloat16"
        raise DataError("wrong_dtype", f"{array.name}: {problem}, expected values of 16 bits. Remove read_as")
    order = array.dtype.byteorder

    @contextmanager
    def opened() -> Iterator[ReadRows]:
        bits = np.dtype(np.uint16).newbyteorder(order if order in "<>" else "<")
        with array.open() as read:
            yield lambda start, stop: widened(np.ascontiguousarray(read(start, stop)).view(bits))

    return replace(array, dtype=np.dtype(np.float32), open=opened)


def widened(bits: np.ndarray) -> np.ndarray:
    """Return bfloat16 values as float32, which holds each of them: their 16 bits in front of 16 zeros."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _common_dtype(parts: Sequence[StoredArray], name: str) -> np.dtype:
    kinds = {part.dtype for part in parts}
    if {kind.kind for kind in kinds} & set("US"):
        if all(kind.kind in "US" for kind in kinds):
            return np.dtype("U")
        raise DataError("wrong_dtype", f"{name}: got text in some files and numbers in others, expected one kind")
    return np.result_type(*kinds) if len(kinds) > 1 else next(iter(kinds))


class _Readers:
    """The readers of several arrays, of which few are open at once."""

    def __init__(self, parts: Sequence[StoredArray]) -> None:
        self._parts = parts
        self._open: OrderedDict[int, tuple[ExitStack, ReadRows]] = OrderedDict()

    def __enter__(self) -> "_Readers":
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            self._open.popitem()[1][0].close()

    def __getitem__(self, index: int) -> ReadRows:
        if index not in self._open:
            if len(self._open) >= _MOST_OPEN:
                self._open.popitem(last=False)[1][0].close()
            stack = ExitStack()
            self._open[index] = stack, stack.enter_context(self._parts[index].open())
        self._open.move_to_end(index)
        return self._open[index][1]
