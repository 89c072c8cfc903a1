"""Reads columns of tables as Python values, some rows at a time: JSON lines, CSV, Parquet, Arrow, saved datasets, text.

A further kind of table is a row of `TABLES`, or of `_by_folder` where it is a folder.
"""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from glob import glob
from io import TextIOWrapper
from pathlib import Path, PurePath
from typing import Any

from lfm_tasks.catalog.names import did_you_mean, has_wildcard
from lfm_tasks.errors import DataError
from lfm_tasks.sources.files.arrow_files import DATASET_MARKERS, find_column
from lfm_tasks.sources.files.paths import is_file, is_remote, nearest, open_bytes, readable

_BATCH_ROWS = 256
_CSV_BLOCK_BYTES = 1 << 26


@dataclass(frozen=True)
class TableRows:
    """Some rows: the values of the requested columns, and how messages call the place of each row."""

    places: Sequence[str]
    columns: tuple[Sequence[Any], ...]


ReadTable = Callable[[Path, str, Sequence[str]], Iterator[TableRows]]


def fixed_folder(path: str) -> PurePath:
    """Return the folder above the first wildcard of a path.

    Examples
    --------
    >>> fixed_folder("data/images/*/*.png").as_posix()
    'data/images'
    """
    parts = PurePath(path).parts
    return PurePath(*parts[: next(index for index, part in enumerate(parts) if has_wildcard(part))])


def matching_files(root: Path, pattern: str, homes: Sequence[Path] = ()) -> list[str]:
    """Return the files that a glob matches, relative to `fixed_folder`, in the order of their names.

    Hidden ones are passed over; ``**`` stands for any folders. ``homes``: folders that links may lead into.

    Raises
    ------
    DataError
        ``missing_source`` if there is none, or one is a link that leads out of the folder and out of ``root``.
    """
    fixed = fixed_folder(pattern)
    folder = root / fixed
    below = PurePath(pattern).relative_to(fixed).as_posix()
    with readable(pattern):
        found = sorted(name for name in glob(below, root_dir=folder, recursive=True) if (folder / name).is_file())
    if not found:
        where = "" if folder.is_dir() else f", and there is no folder {fixed.as_posix()!r}"
        raise DataError("missing_source", f"{pattern}: got no file that matches{where}, expected one. Check the path")
    real_homes = [home.resolve() for home in (folder, root, *homes)]
    real_folders: dict[Path, Path] = {}
    for name in found:
        path = folder / name
        if path.parent not in real_folders:
            real_folders[path.parent] = path.parent.resolve()
        real = path.resolve() if path.is_symlink() else real_folders[path.parent]
        if not any(real.is_relative_to(home) for home in real_homes):
            problem = f"got the link {name!r}, which leads out of the folder, expected files inside"
            advice = "Copy the file there, or allow the folder that it leads to by links: [...] in the catalog"
            raise DataError("missing_source", f"{pattern}: {problem}. {advice}")
    return found


def find_table(path: Path, name: str) -> ReadTable:
    """Return how the table at ``path`` is read; DataError ``missing_source`` if it is not there or of no known kind."""
    with readable(name):
        if path.suffix.lower() in TABLES:
            if is_file(path):
                return TABLES[path.suffix.lower()]
            if not path.is_dir():
                raise DataError("missing_source", f"{name}: no such file{nearest(path, name)}")
        if any(is_file(path / marker) for marker in DATASET_MARKERS):
            return _arrow_rows
        if not is_file(path) and not path.is_dir():
            raise DataError("missing_source", f"{name}: no such file{nearest(path, name)}")
    kind = "folder that is no saved dataset" if path.is_dir() else f"{path.suffix or 'nameless'} file"
    raise DataError("missing_source", f"{name}: got a {kind}, expected one of {', '.join(TABLES)}. Convert it")


def read_table(path: Path, name: str, columns: Sequence[str]) -> Iterator[TableRows]:
    """Yield the rows of a table, some at a time.

    Parameters
    ----------
    path, name
        The table, and how messages call it.
    columns
        The columns to read; of a .txt file the only one is the line.

    Raises
    ------
    DataError
        ``missing_source`` for a table that cannot be read or lacks a column; ``bad_inputs`` for a line that is no row.
    """
    rows = find_table(path, name)(path, name, columns)
    while True:
        with readable(name):
            batch = next(rows, None)
        if batch is None:
            return
        yield batch


def _arrow_rows(path: Path, name: str, columns: Sequence[str]) -> Iterator[TableRows]:
    found = [find_column(path, name, column) for column in columns]
    first = 0
    with ExitStack() as stack:
        readers = [stack.enter_context(column.open()) for column in found]
        for index, n_rows in enumerate(found[0].batch_rows):
            arrays = [read(index) for read in readers]
            for array in arrays:
                array.validate(full=True)  # offsets that lead out of the values would crash the process
            for start in range(0, n_rows, _BATCH_ROWS):
                values = tuple(array[start : start + _BATCH_ROWS].to_pylist() for array in arrays)
                yield TableRows([_row_place(name, first + start + row) for row in range(len(values[0]))], values)
            first += n_rows


def _row_place(name: str, row: int) -> str:
    """Return how messages call a row of a table without lines, or whose values may hold line breaks."""
    return f"{name}: row {row} (counted from 0)"


def _json_lines(path: Path, name: str, columns: Sequence[str]) -> Iterator[TableRows]:
    places: list[str] = []
    values: tuple[list[Any], ...] = tuple([] for _ in columns)
    with open_bytes(path) as file:
        for number, line in enumerate(file, start=1):
            place = f"{name}:{number}"
            text = _decoded(line, place, is_first=number == 1)
            if not text.strip():
                continue
            row = _json_object(text, place)
            for column, of_column in zip(columns, values, strict=True):
                if column not in row:
                    hint = did_you_mean(column, row)
                    raise DataError("bad_inputs", f"{place}: got an object without the key {column[:100]!r}{hint}")
                of_column.append(row[column])
            places.append(place)
            if len(places) == _BATCH_ROWS:
                yield TableRows(places, values)
                places, values = [], tuple([] for _ in columns)
    if places:
        yield TableRows(places, values)


# How files begin that are not UTF-8; of the other bytes of their texts every second is 0.
_BEGINNINGS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


def _decoded(line: bytes, place: str, *, is_first: bool) -> str:
    """Return a line as text; DataError ``bad_inputs`` if it is not UTF-8."""
    found = next((kind for start, kind in _BEGINNINGS.items() if line.startswith(start)), None) if is_first else None
    if found is None and is_first and b"\0" in line[:4]:
        found = "UTF-16 or UTF-32"
    if found is not None:
        problem = f"got text in {found}, expected UTF-8"
        raise DataError("bad_inputs", f"{place}: {problem}. Save the file as UTF-8")
    try:
        return line.decode("utf-8-sig" if is_first else "utf-8")
    except UnicodeDecodeError as error:
        byte = f"0x{line[error.start]:02x} after {error.start} bytes"
        problem = f"got text that is not UTF-8 ({byte}; Latin-1 and Windows-1252 have such bytes), expected UTF-8"
        raise DataError("bad_inputs", f"{place}: {problem}. Save the file as UTF-8") from error


def _json_object(line: str, place: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:120]
        if isinstance(error, json.JSONDecodeError):
            reason = f"{error.msg} at {f'column {error.pos + 1}' if line[error.pos :].strip() else 'its end'}"
        problem = f"got a line that is no JSON ({reason}), expected an object a line"
        raise DataError("bad_inputs", f"{place}: {problem}. Fix the line, or write the file again") from error
    if not isinstance(row, dict):
        problem = f"got a JSON {type(row).__name__}, expected an object with the columns as keys"
        raise DataError("bad_inputs", f"{place}: {problem}. Write one object a line")
    return row


def _separated(path: Path, name: str, columns: Sequence[str]) -> Iterator[TableRows]:
    import pyarrow as pa
    import pyarrow.csv

    delimiter, header = _delimiter(path), _header(path, name)
    for column in columns:
        if header.count(column) != 1:
            what = f"no column {column[:100]!r}" if column not in header else f"several columns {column[:100]!r}"
            raise DataError("missing_source", f"{name}: got {what}, expected one{did_you_mean(column, header)}")
    kinds = {column: pa.string() for column in columns}
    with (
        _naming_lines(path, name),
        open_bytes(path) as content,
        pa.csv.open_csv(
            content,
            pa.csv.ReadOptions(use_threads=False, block_size=_CSV_BLOCK_BYTES),
            pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            pa.csv.ConvertOptions(
                column_types=kinds, include_columns=list(columns), strings_can_be_null=False, check_utf8=True
            ),
        ) as reader,
    ):
        first = 0
        for block in reader:
            for start in range(0, block.num_rows, _BATCH_ROWS):
                part = block.slice(start, _BATCH_ROWS)
                places = [_row_place(name, first + start + row) for row in range(part.num_rows)]
                yield TableRows(places, tuple(column.to_pylist() for column in part.columns))
            first += block.num_rows


def _delimiter(path: Path) -> str:
    return "\t" if path.suffix.lower() == ".tsv" else ","


def _header(path: Path, name: str) -> list[str]:
    """Return the names of the columns that the first line of a CSV file gives."""
    with open_bytes(path) as content:
        _decoded(content.readline(), f"{name}:1", is_first=True)
        content.seek(0)
        with TextIOWrapper(content, encoding="utf-8-sig", errors="replace", newline="") as lines:
            return next(csv.reader(lines, delimiter=_delimiter(path)), [])


def table_columns(path: Path, name: str) -> tuple[str, ...]:
    """Return the names of the columns of a CSV file, or the keys of the first row of JSON lines."""
    if path.suffix.lower() in (".csv", ".tsv"):
        return tuple(_header(path, name))
    with open_bytes(path) as file:
        for number, line in enumerate(file, start=1):
            text = _decoded(line, f"{name}:{number}", is_first=number == 1)
            if text.strip():
                return tuple(_json_object(text, f"{name}:{number}"))
    return ()


@contextmanager
def _naming_lines(path: Path, name: str) -> Iterator[None]:
    """Say in which line a table holds text that is not UTF-8, where its reader only says that it does."""
    try:
        yield
    except ValueError as error:
        if "UTF8" in str(error):
            with open_bytes(path) as content:
                for number, line in enumerate(content, start=1):
                    _decoded(line, f"{name}:{number}", is_first=number == 1)
        raise


def _lines(path: Path, name: str, columns: Sequence[str]) -> Iterator[TableRows]:
    places: list[str] = []
    texts: list[str] = []
    with open_bytes(path) as file:
        for number, line in enumerate(file, start=1):
            places.append(f"{name}:{number}")
            texts.append(_decoded(line, places[-1], is_first=number == 1).rstrip("\r\n"))
            if len(places) == _BATCH_ROWS:
                yield TableRows(places, (texts,))
                places, texts = [], []
    if places:
        yield TableRows(places, (texts,))


# By suffix.
TABLES: dict[str, ReadTable] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".csv": _separated,
    ".tsv": _separated,
    ".parquet": _arrow_rows,
    ".pq": _arrow_rows,
    ".arrow": _arrow_rows,
    ".feather": _arrow_rows,
    ".txt": _lines,
}


def table_bytes(path: Path) -> int:
    """Return the size of a table's files on this machine; 0 for remote ones."""
    if is_remote(path):
        return 0
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)
