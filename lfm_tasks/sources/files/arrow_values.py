"""Turns columns of pyarrow into arrays: numbers, text, nested lists of one length, several columns side by side."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from typing import Any

import numpy as np
from jaxtyping import Shaped

from lfm_tasks.errors import DataError
from lfm_tasks.sources.files.stored_array import ReadRows, check_memory_size, text_array

ReadBatch = Callable[[int], Any]  # from the index of a batch to a pyarrow.Array


@dataclass(frozen=True)
class Column:
    """One column in batches of ``batch_rows``; ``open`` returns a context whose value reads one of them."""

    name: str
    batch_rows: tuple[int, ...]
    open: Callable[[], AbstractContextManager[ReadBatch]]

    @contextmanager
    def rows(self) -> Iterator[ReadRows]:
        """Yield a reader of rows; the batch it read last stays in memory."""
        ends = list(accumulate(self.batch_rows, initial=0))
        kept: dict[int, Shaped[np.ndarray, "rows ..."]] = {}
        with self.open() as read_batch:

            def batch(index: int) -> Shaped[np.ndarray, "rows ..."]:
                if index not in kept:
                    kept.clear()
                    kept[index] = to_numpy(read_batch(index), self.name)
                return kept[index]

            def read(start: int, stop: int) -> Shaped[np.ndarray, "rows ..."]:
                first, last = np.searchsorted(ends, [start, stop - 1], side="right") - 1
                parts = [
                    batch(index)[max(0, start - ends[index]) : stop - ends[index]] for index in range(first, last + 1)
                ]
                self._check_alike(parts)
                return parts[0] if len(parts) == 1 else np.concatenate(parts)

            yield read

    def header(self, first: Any = None) -> tuple[tuple[int, ...], np.dtype]:
        """Return shape and dtype, taken from the first row: ``first``, a pyarrow.Array, or else that of the batches."""
        filled = [index for index, n_rows in enumerate(self.batch_rows) if n_rows]
        if not filled:
            raise DataError("wrong_shape", f"{self.name}: got no rows, expected at least one. Write it again")
        if first is None:
            with self.open() as read_batch:
                first = read_batch(filled[0])[:1]
        row = to_numpy(first, self.name)
        dtype = np.dtype("U") if row.dtype.kind == "U" else row.dtype
        return (sum(self.batch_rows), *row.shape[1:]), dtype

    def _check_alike(self, parts: Sequence[Shaped[np.ndarray, "rows ..."]]) -> None:
        if len({part.shape[1:] for part in parts}) > 1:
            raise _ragged(self.name)


def to_numpy(array: Any, name: str) -> Shaped[np.ndarray, "rows ..."]:
    """Return a pyarrow array of numbers, text, or nested lists of numbers as (rows, ...)."""
    import pyarrow as pa

    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    array.validate(full=True)  # offsets that lead out of the values would crash the process
    lengths = [len(array)]
    while True:
        kind = array.type
        if not pa.types.is_null(kind):  # whose values are refused below, as of no kind
            _refuse_nulls(array, name)
        if isinstance(array, pa.ExtensionArray):
            if isinstance(kind, pa.FixedShapeTensorType) and kind.permutation not in (None, [*range(len(kind.shape))]):
                raise DataError("wrong_dtype", f"{name}: got tensors with permuted dimensions. Store them in order")
            if isinstance(kind, pa.FixedShapeTensorType):
                lengths += kind.shape[:-1]
                array, shape = array.storage, kind.shape
                _refuse_nulls(array.flatten(), name)
                return _numbers(array.flatten(), name).reshape(lengths[0], *shape)
            array = array.storage
        elif pa.types.is_fixed_size_list(kind):
            lengths.append(kind.list_size)
            array = array.flatten()
        elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
            lengths.append(_one_length(array, name))
            array = array.flatten()
        elif pa.types.is_dictionary(kind):
            array = _decoded(array, name)
        else:
            break
    values = _text(array, name) if _is_text(array.type) else _numbers(array, name)
    if values.size != prod(lengths):
        raise _ragged(name)
    return values.reshape(lengths)


def _refuse_nulls(array: Any, name: str) -> None:
    if array.null_count:
        problem = f"got {array.null_count:,} null values among {len(array):,}, expected none"
        raise DataError("not_finite", f"{name}: {problem}. Leave these rows out, or fill them")


def _one_length(array: Any, name: str) -> int:
    lengths = np.unique(array.value_lengths().to_numpy(zero_copy_only=False)) if len(array) else np.zeros(1, int)
    if len(lengths) > 1:
        raise _ragged(name, f"lists of {lengths[0]} to {lengths[-1]} values")
    return int(lengths[0])


def _ragged(name: str, content: str = "lists of several lengths") -> DataError:
    return DataError("wrong_shape", f"{name}: got {content}, expected all of one length. Pad them, and give a mask")


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _text(array: Any, name: str) -> Shaped[np.ndarray, " values"]:
    return text_array(name, len(array), lambda start, stop: array[start:stop].to_pylist())


def _decoded(array: Any, name: str) -> Any:
    """Return the values of a dictionary array: a long text is stored once and may stand in every row."""
    import pyarrow as pa

    longest = max((len(value.as_buffer() or b"") for value in array.dictionary if _is_text(value.type)), default=8)
    check_memory_size(name, len(array) * longest)
    if pa.types.is_string_view(array.dictionary.type):  # of which pyarrow takes no values
        values = array.dictionary.cast(pa.large_string())
        array = pa.DictionaryArray.from_arrays(array.indices, values)
    return array.dictionary_decode()


def _numbers(array: Any, name: str, *, may_be_null: bool = False) -> Shaped[np.ndarray, " values"]:
    import pyarrow as pa

    if may_be_null:
        array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
        array.validate(full=True)  # as in `to_numpy`
    kind = array.type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        advice = "Save ids and labels as text" if pa.types.is_temporal(kind) else "Convert it"
        raise DataError("wrong_dtype", f"{name}: got values of type {kind}, expected real numbers or text. {advice}")
    if array.null_count and may_be_null:
        array = array.cast(pa.float64()).fill_null(float("nan"))
    return array.to_numpy(zero_copy_only=False)


def side_by_side(table: Any, columns: Sequence[str], name: str) -> Any:
    """Return columns of numbers as one column of lists of one length; NaN for null."""
    import pyarrow as pa

    found = [_numbers(table.column(key), f"{name}#{key}", may_be_null=True) for key in columns]
    values = np.stack(found, axis=1)
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).reshape(-1)), len(columns))
