"""Reads columns of Parquet, Arrow IPC and Feather files and of ``datasets.save_to_disk`` folders, by pyarrow alone."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from lfm_tasks.catalog.names import did_you_mean
from lfm_tasks.errors import DataError
from lfm_tasks.sources.files.arrow_messages import FILE_MAGIC, file_messages, stream_messages
from lfm_tasks.sources.files.arrow_values import Column, ReadBatch, side_by_side
from lfm_tasks.sources.files.joined_arrays import concatenated
from lfm_tasks.sources.files.paths import fingerprint, is_remote, natural_order, open_bytes
from lfm_tasks.sources.files.stored_array import (
    StoredArray,
    check_compression_ratio,
    check_memory_size,
)

DATASET_MARKERS = ("state.json", "dataset_dict.json")
_HEADER_BYTES = 4096  # of a record batch: a few hundred a column


def open_parquet(path: Path, name: str, key: str | None) -> StoredArray:
    """Return the column ``key``, read a row group at a time."""
    seen = fingerprint(path)
    column, first = _parquet_column(path, name, key)
    return _stored(column, path, seen, *first)


def find_column(path: Path, name: str, key: str) -> Column:
    """Return a column of any type in a Parquet, Arrow IPC or Feather file or a ``save_to_disk`` folder."""
    if path.suffix.lower() in (".parquet", ".pq"):
        return _parquet_column(path, name, key)[0]
    is_file = path.suffix.lower() in (".arrow", ".feather")
    return _ipc_column([path] if is_file else _data_files(path, name), name, key)


def _parquet_column(path: Path, name: str, key: str | None) -> tuple[Column, list[Any]]:
    """Return a column, and a list of its first row, if there is one."""
    with _plain(path, name) as file:
        _check_column(file.schema_arrow, key, name)
        n_rows = sum(file.metadata.row_group(index).num_rows for index in range(file.num_row_groups))
        if n_rows != file.metadata.num_rows:
            problem = f"got row groups of {n_rows:,} rows in a file of {file.metadata.num_rows:,}"
            raise DataError("damaged_source", f"{name}: cannot be read ({problem}). Save it again")
        # Where the column is encrypted that is an error here; to ask for its size first would abort the process.
        filled_first = sorted(range(file.num_row_groups), key=lambda n: file.metadata.row_group(n).num_rows == 0)
        rows = file.iter_batches(batch_size=1, row_groups=filled_first[:1], columns=[key], use_threads=False)
        first = [batch.column(key) for batch in islice(rows, 1) if len(batch)]
        groups = [file.metadata.row_group(index) for index in range(file.num_row_groups)]
        paths = [file.schema.column(index).path for index in range(len(file.schema))]
    leaves = [index for index, leaf in enumerate(paths) if f"{leaf}.".startswith(f"{key}.")]
    for group, column in ((group, group.column(index)) for group in groups for index in leaves):
        if group.num_rows > column.num_values:
            # Every row has a value, be it that there is none.
            problem = f"got {group.num_rows:,} rows of {column.num_values:,} values"
            raise DataError("damaged_source", f"{name}#{key}: cannot be read ({problem}). Save it again")
        # A value that repeats is stored once, and 8 bytes are what one takes.
        check_memory_size(f"{name}#{key}", max(column.total_uncompressed_size, 8 * column.num_values))
    texts = tuple(paths[index] for index in leaves if file.schema.column(index).physical_type == "BYTE_ARRAY")
    row_groups = partial(_row_groups, path, str(key), texts)
    return Column(f"{name}#{key}", tuple(group.num_rows for group in groups), row_groups), first


def open_parquet_columns(path: Path, name: str, columns: Sequence[str]) -> StoredArray:
    """Return columns of numbers of a Parquet file side by side, a feature each; NaN for null."""
    seen = fingerprint(path)
    for key in columns:
        _parquet_column(path, name, key)  # which checks it

    @contextmanager
    def groups() -> Iterator[ReadBatch]:
        with _parquet(path) as file:
            yield lambda index: side_by_side(
                file.read_row_group(index, columns=list(columns), use_threads=False), columns, name
            )

    with _parquet(path) as file:
        n_rows = tuple(file.metadata.row_group(index).num_rows for index in range(file.num_row_groups))
    return _stored(Column(name, n_rows, groups), path, seen)


def open_parquet_folder(path: Path, name: str, key: str | None) -> StoredArray:
    """Return the column ``key`` of the Parquet files of a folder, in the order of the numbers in their names."""
    found = [open_parquet(file, f"{name}/{file.name}", key) for file in _filled_files(path)]
    return concatenated(found, f"{name}#{key}")


def open_parquet_folder_columns(path: Path, name: str, columns: Sequence[str]) -> StoredArray:
    """Return columns of numbers of the Parquet files of a folder side by side."""
    found = [open_parquet_columns(file, f"{name}/{file.name}", columns) for file in _filled_files(path)]
    return concatenated(found, name)


def parquet_folder_keys(path: Path, name: str) -> tuple[str, ...]:
    """Return the names of the columns."""
    return parquet_keys(parquet_files(path)[0], name)


def parquet_files(path: Path) -> list[Path]:
    """Return the Parquet files of a folder in the order of the numbers in their names; none if it holds none."""
    if not path.is_dir():
        return []
    found = [file for file in path.iterdir() if file.name.lower().endswith((".parquet", ".pq"))]
    return sorted((file for file in found if file.name[0] not in "._"), key=lambda file: natural_order(file.name))


def _filled_files(path: Path) -> list[Path]:
    """Return the Parquet files of a folder that hold rows; all if none does."""
    files = parquet_files(path)
    filled = []
    for file in files:
        with _parquet(file) as content:
            filled += [file] if content.metadata.num_rows else []
    return filled or files


def open_arrow_columns(path: Path, name: str, columns: Sequence[str]) -> StoredArray:
    """Return columns of numbers of an Arrow IPC or Feather file side by side, a feature each; NaN for null."""
    return _stored(_ipc_columns([path], name, columns), path, fingerprint(path))


def open_saved_dataset_columns(path: Path, name: str, columns: Sequence[str]) -> StoredArray:
    """Return columns of numbers of a folder that ``save_to_disk`` wrote side by side."""
    return _stored(_ipc_columns(_data_files(path, name), name, columns), path, fingerprint(path))


def _ipc_columns(paths: Sequence[Path], name: str, columns: Sequence[str]) -> Column:
    indices = [_index(path) for path in paths]
    for index in indices:
        for key in columns:
            _check_column(index.schema, key, name)

    @contextmanager
    def batches() -> Iterator[ReadBatch]:
        with _record_batches(indices, columns) as read:
            yield lambda index: side_by_side(read(index), columns, name)

    return Column(name, tuple(n_rows for index in indices for n_rows in index.batch_rows), batches)


def open_arrow(path: Path, name: str, key: str | None) -> StoredArray:
    """Return the column ``key`` of an Arrow IPC or Feather file, read a record batch at a time."""
    return _stored(_ipc_column([path], name, key), path, fingerprint(path))


def open_saved_dataset(path: Path, name: str, key: str | None) -> StoredArray:
    """Return the column ``key`` of a folder that ``datasets.Dataset.save_to_disk`` wrote."""
    return _stored(_ipc_column(_data_files(path, name), name, key), path, fingerprint(path))


def parquet_keys(path: Path, name: str) -> tuple[str, ...]:
    """Return the names of the columns."""
    with _parquet(path) as file:
        return tuple(file.schema_arrow.names)


def arrow_keys(path: Path, name: str) -> tuple[str, ...]:
    """Return the names of the columns."""
    return tuple(_index(path).schema.names)


def saved_dataset_keys(path: Path, name: str) -> tuple[str, ...]:
    """Return the names of the columns."""
    return arrow_keys(_data_files(path, name)[0], name)


def _stored(column: Column, path: Path, seen: Any, first: Any = None) -> StoredArray:
    shape, dtype = column.header(first)
    return StoredArray(column.name, path, seen, shape, dtype, column.rows, max(column.batch_rows))


def _check_column(schema: Any, key: str | None, name: str) -> None:
    n_columns = schema.names.count(key)
    if key is None or not n_columns:
        what = "got no key, expected key: with the name of a column" if key is None else f"got no column {key[:100]!r}"
        raise DataError("missing_source", f"{name}: {what}{did_you_mean(key or '', schema.names)}")
    if n_columns > 1:
        raise DataError("missing_source", f"{name}: got {n_columns} columns {key[:100]!r}, expected one. Rename them")


@contextmanager
def _parquet(path: Path, texts: Sequence[str] = ()) -> Iterator[Any]:
    """Yield a Parquet file; the columns at ``texts`` come as dictionaries, each different text once."""
    import pyarrow.parquet

    with open_bytes(path) as content, pyarrow.parquet.ParquetFile(content, read_dictionary=list(texts)) as file:
        yield file


@contextmanager
def _plain(path: Path, name: str) -> Iterator[Any]:
    """Yield a Parquet file; DataError if any part of it is encrypted."""
    try:
        with _parquet(path) as file:
            yield file
    except OSError as error:
        if "crypt" not in str(error):
            raise
        problem = f"{name}: got encrypted values, expected plain ones"
        raise DataError("missing_source", f"{problem}. Write it without encryption") from error


@contextmanager
def _row_groups(path: Path, key: str, texts: Sequence[str]) -> Iterator[ReadBatch]:
    with _parquet(path, texts) as file:
        # ``columns`` takes whatever begins with the name, so the column is picked once more.
        yield lambda index: file.read_row_group(index, columns=[key], use_threads=False).column(key)


@dataclass(frozen=True)
class _Index:
    """Where the record batches of an IPC file lie: byte offsets in a stream, None where the file has a footer."""

    path: Path
    schema: Any
    batch_rows: tuple[int, ...]
    offsets: tuple[int, ...] | None


def _ipc_column(paths: Sequence[Path], name: str, key: str | None) -> Column:
    indices = [_index(path) for path in paths]
    for index in indices:
        _check_column(index.schema, key, name)
    batch_rows = tuple(n_rows for index in indices for n_rows in index.batch_rows)

    @contextmanager
    def batches() -> Iterator[ReadBatch]:
        with _record_batches(indices, [str(key)]) as read:
            yield lambda index: read(index).column(key)

    return Column(f"{name}#{key}", batch_rows, batches)


@contextmanager
def _source(path: Path) -> Iterator[Any]:
    """Yield a pyarrow file; not memory-mapped, because a mapped file that shrinks kills the process."""
    import pyarrow as pa

    if not is_remote(path):
        with pa.OSFile(str(path), "rb") as file:
            yield file
        return
    with open_bytes(path) as content, pa.PythonFile(content, mode="r") as file:
        yield file


def _index(path: Path) -> _Index:
    import pyarrow as pa

    with open_bytes(path, _HEADER_BYTES) as file:
        is_file = file.read(len(FILE_MAGIC)) == FILE_MAGIC
        messages = file_messages(file) if is_file else list(stream_messages(file))
        batches = [message for message in messages if message.kind == "record batch"]
        for message in messages:
            check_memory_size(path.name, message.unpacked_bytes)
            check_compression_ratio(path.name, message.unpacked_bytes, message.value_bytes)
        # Files may hold dictionaries: their reader knows what belongs to what.
        beside = {message.kind for message in messages if not is_file} - {"schema", "record batch"}
        for kind in sorted(beside):
            advice = "expected plain columns. Write text without dictionaries"
            raise DataError("wrong_dtype", f"{path.name}: got a {kind} in a stream of record batches, {advice}")
    n_rows = tuple(message.n_rows for message in batches)
    with _source(path) as source:
        if not is_file:
            return _Index(path, pa.ipc.read_schema(source), n_rows, tuple(message.offset for message in batches))
        reader = pa.ipc.open_file(source)
        if reader.num_record_batches != len(batches):
            raise ValueError(f"{reader.num_record_batches} record batches listed and {len(batches)} there")
        return _Index(path, reader.schema, n_rows, None)


@contextmanager
def _record_batches(indices: Sequence[_Index], keys: Sequence[str]) -> Iterator[ReadBatch]:
    """Yield a reader of record batches, of files with these columns only."""
    with ExitStack() as stack:
        batches: list[Callable[[], Any]] = []
        for index in indices:
            file = stack.enter_context(_source(index.path))
            batches += _batch_readers(index, file, keys)
        yield lambda index: batches[index]()


def _batch_readers(index: _Index, file: Any, keys: Sequence[str]) -> list[Callable[[], Any]]:
    import pyarrow as pa

    if index.offsets is None:
        fields = [index.schema.get_field_index(key) for key in keys]
        alone = pa.ipc.IpcReadOptions(included_fields=fields, use_threads=False)
        reader = pa.ipc.open_file(file, options=alone)
        return [partial(reader.get_batch, batch) for batch in range(reader.num_record_batches)]

    def read_at(offset: int) -> Any:
        file.seek(offset)
        return pa.ipc.read_record_batch(pa.ipc.read_message(file), index.schema)

    return [partial(read_at, offset) for offset in index.offsets]


def _data_files(path: Path, name: str) -> list[Path]:
    if (path / "dataset_dict.json").is_file():
        splits = _read_description(path / "dataset_dict.json", name).get("splits", [])
        problem = f"got a dataset of the splits {', '.join(map(str, splits))[:200]}, expected one of them"
        raise DataError("missing_source", f"{name}: {problem}. Add its name to the path")
    state = _read_description(path / "state.json", name)
    if state.get("_indices_data_files") or state.get("_indices_files"):
        problem = "got rows that are chosen by an index, expected the rows themselves"
        raise DataError("missing_source", f"{name}: {problem}. Call flatten_indices() before save_to_disk()")
    names = [entry["filename"] for entry in state["_data_files"]]
    for file_name in names:
        if file_name in {"", ".", ".."} or set(file_name) & set("/\\\x00"):
            problem = f"got the data file {file_name[:100]!r}, expected names inside the folder"
            raise DataError("missing_source", f"{name}: {problem}. Save the dataset again")
    if not names:
        raise DataError("wrong_shape", f"{name}: got a dataset without data files, expected rows. Save it again")
    return [path / file_name for file_name in names]


def _read_description(path: Path, name: str) -> dict[str, Any]:
    description = json.loads(path.read_bytes())
    if not isinstance(description, dict):
        kind = type(description).__name__
        raise DataError(
            "missing_source", f"{name}: got {kind} in {path.name}, expected an object. Save the dataset again"
        )
    return description
