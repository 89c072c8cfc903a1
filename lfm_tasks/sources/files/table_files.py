"""Reads columns of CSV and JSON lines as arrays: ids and labels as they are written, numbers and lists of numbers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lfm_tasks.catalog.names import did_you_mean, shorten
from lfm_tasks.errors import DataError
from lfm_tasks.sources.files.paths import fingerprint
from lfm_tasks.sources.files.stored_array import ReadRows, StoredArray, check_memory_size, text_array
from lfm_tasks.sources.files.tables import read_table, table_columns

_BYTES = 8


def open_table(path: Path, name: str, key: str | None) -> StoredArray:
    """Return the column ``key``: text of a CSV file; text, numbers or lists of numbers of JSON lines."""
    if key is None:
        offer = did_you_mean("", table_columns(path, name))
        raise DataError("missing_source", f"{name}: got no key, expected key: with the name of a column{offer}")
    seen = fingerprint(path)
    values: list[Any] = []
    for rows in read_table(path, name, [key]):
        values += rows.columns[0]
        _check_values(rows.columns[0], rows.places, values[0])
    if values and isinstance(values[0], str):
        return _whole(
            text_array(name, len(values), lambda start, stop: values[start:stop]), path, f"{name}#{key}", seen
        )
    try:
        return _whole(np.array(values), path, f"{name}#{key}", seen)
    except ValueError as error:
        problem = "got lists of several lengths, expected all of one length"
        raise DataError("wrong_shape", f"{name}#{key}: {problem}. Pad them, and give a mask") from error


def open_table_columns(path: Path, name: str, columns: Sequence[str]) -> StoredArray:
    """Return columns of numbers side by side, a feature each; NaN for an empty cell."""
    seen = fingerprint(path)
    parts = []
    for rows in read_table(path, name, columns):
        parts.append(np.empty((len(rows.places), len(columns))))
        for index, values in enumerate(rows.columns):
            parts[-1][:, index] = _numbers(values, rows.places, columns[index])
        check_memory_size(name, sum(part.nbytes for part in parts))
    whole = np.concatenate(parts) if parts else np.empty((0, len(columns)))
    return _whole(whole, path, name, seen)


def table_keys(path: Path, name: str) -> tuple[str, ...]:
    """Return the names of the columns."""
    return table_columns(path, name)


def _check_values(values: Sequence[Any], places: Sequence[str], first: Any) -> None:
    """Raise DataError for values of several kinds, or of another kind than text, numbers and lists of numbers."""
    kind = _kind(first)
    needed = kind or "text, a number or a list of numbers"
    for value, place in zip(values, places, strict=True):
        if not kind or _kind(value) != kind:
            problem = f"got {shorten(str(value))}, expected {needed} in each row"
            raise DataError("wrong_dtype", f"{place}: {problem}. Leave the row out, or write all alike")


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return "text"
    if isinstance(value, bool | int | float):
        return "numbers"
    return "lists" if isinstance(value, list) and value else ""


def _numbers(values: Sequence[Any], places: Sequence[str], column: str) -> np.ndarray:
    try:
        return np.array([value if value not in ("", None) else "nan" for value in values], dtype=np.float64)
    except (ValueError, TypeError):
        pass
    for value, place in zip(values, places, strict=True):
        try:
            float(value if value not in ("", None) else "nan")
        except (ValueError, TypeError) as error:
            problem = f"got {shorten(str(value))} in the column {column[:100]!r}, expected a number"
            raise DataError("wrong_dtype", f"{place}: {problem}. Name columns of numbers alone") from error
    raise DataError("wrong_dtype", f"{places[0]}: got values that are no numbers. Name columns of numbers alone")


def _whole(values: np.ndarray, path: Path, name: str, seen: Any) -> StoredArray:
    if values.dtype.kind not in "iufbU":
        raise DataError(
            "wrong_dtype", f"{name}: got values of type {values.dtype}, expected numbers or text. Convert it"
        )

    @contextmanager
    def rows() -> Iterator[ReadRows]:
        yield lambda start, stop: values[start:stop]

    return StoredArray(name, path, seen, values.shape, values.dtype, rows, is_read_whole=True)
