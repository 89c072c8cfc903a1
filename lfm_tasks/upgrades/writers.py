"""Writers of the file formats for carried vectors, each made from the parts that `bulk` has written.

A further kind is a function and a row of `WRITERS`.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Float, Shaped

from lfm_tasks.errors import DataError
from lfm_tasks.sources.files.formats import open_array
from lfm_tasks.sources.files.paths import readable
from lfm_tasks.sources.files.stored_array import StoredArray
from lfm_tasks.upgrades.stores import SCALE, VectorStore

_PART_ROWS = 1 << 16
_TABLES = (".parquet", ".pq", ".arrow", ".feather")
VECTORS = "vectors"


@dataclass(frozen=True)
class Carried:
    """The output: carried vectors, added columns, and the columns that the store had beside them."""

    path: Path
    store: VectorStore
    names: tuple[str, ...]
    added: Float[np.ndarray, "points added"] | None
    columns: tuple[str, ...]

    @property
    def vectors(self) -> Shaped[np.ndarray, "points features"]:
        """The carried rows, on the disk."""
        mapped: np.ndarray = np.load(self.path, mmap_mode="r")
        return mapped

    @property
    def key(self) -> str:
        """The name of the vectors in the output: that which they have in the store."""
        return self.store.key or VECTORS

    def kept(self) -> Iterator[tuple[str, StoredArray | np.ndarray]]:
        """Yield the columns that the store had, by name; ids and labels from elsewhere are among them."""
        for name in self.columns:
            if name in self.names:
                continue
            if name in self.store.keys and self.store.path is not None:
                yield name, open_array(self.store.path, self.store.name, name)
            elif (ids := self.store.ids if self.store.ids is not None else self.store.id_column) is not None:
                yield name, ids


def columns_beside(store: VectorStore, output: Path, added: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the columns of the output beside the vectors, and notes about those of the store that it leaves out."""
    suffix = output.suffix.lower()
    # What a scale was of is carried, and the scale with it.
    others = [key for key in store.keys if key != store.key and (store.scale is None or key != SCALE)]
    has_ids = store.ids is not None or store.id_column is not None
    if has_ids and not {"ids", "id"} & set(others):
        others = ["ids", *others]
    clash = sorted({*others, store.key or VECTORS} & set(added))
    if clash:
        problem = f"got a store that has a column {clash[0]!r} already"
        raise DataError("bad_name", f"{output}: {problem}, expected a free name. Rename it in the store.")
    if suffix == ".npy":
        note = f"a .npy holds nothing but vectors, left out: {', '.join(others)}"
        return (), (note,) if others else ()
    kept: list[str] = []
    left_out: list[str] = []
    for name in others:
        (kept if _fits(store, name, suffix) else left_out).append(name)
    notes = (f"{suffix} cannot hold these columns, left out: {', '.join(left_out)}",) if left_out else ()
    if store.id_column is not None:
        notes = (*notes, f"ids of {store.shape[0]:,} rows are carried along, and not checked for repeats")
    return (*kept, *added), notes


def _fits(store: VectorStore, name: str, suffix: str) -> bool:
    """Return whether the output can hold a column: tables of tables any, others arrays with a row a vector."""
    if name not in store.keys or store.path is None:
        return suffix != ".safetensors"
    if suffix in _TABLES and store.path.suffix.lower() in _TABLES:
        return True
    try:
        array = open_array(store.path, store.name, name)
    except DataError:
        return False
    is_text = array.dtype.kind in "US"
    fits = array.shape[0] == store.shape[0] and len(array.shape) <= 2 and not (is_text and len(array.shape) == 2)
    return fits and not (is_text and suffix == ".safetensors")


def write_npy_header(path: Path, shape: tuple[int, int], dtype: np.dtype, *, keep: bool) -> int:
    """Write the header of a .npy unless it is there (``keep``); return its length in bytes."""
    if not keep:
        with path.open("wb") as file:
            header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        return file.tell()


def _write_npy(carried: Carried, folder: Path) -> Path:
    return carried.path


def _write_parquet(carried: Carried, folder: Path) -> Path:
    import pyarrow.parquet as pq

    path = folder / "whole.parquet"
    writer: Any = None
    try:
        for table in _tables(carried):
            # Numbers of vectors hardly repeat: a dictionary of them costs time and room.
            repeated = [name for name in table.column_names if name not in (carried.key, *carried.names)]
            writer = writer or pq.ParquetWriter(path, table.schema, use_dictionary=repeated)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()
    return path


def _write_arrow(carried: Carried, folder: Path) -> Path:
    import pyarrow as pa

    path = folder / "whole.arrow"
    writer: Any = None
    with pa.OSFile(str(path), "wb") as file:
        try:
            for table in _tables(carried):
                writer = writer or pa.ipc.new_file(file, table.schema)
                writer.write_table(table)
        finally:
            if writer is not None:
                writer.close()
    return path


def _tables(carried: Carried) -> Iterator[Any]:
    """Yield the columns, some rows at a time, as tables of pyarrow: those of a table in their places and types."""
    import pyarrow as pa

    vectors, start = carried.vectors, 0
    for kept, n_rows in _kept_parts(carried, len(vectors)):
        stop = start + n_rows
        flat = pa.array(np.ascontiguousarray(vectors[start:stop]).reshape(-1))
        columns = kept | {carried.key: pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])}
        for index, name in enumerate(carried.names):
            columns[name] = pa.array(np.ascontiguousarray(carried.added[start:stop, index]))  # type: ignore[index]
        places = [key for key in carried.store.keys if key in columns]
        names = [*(name for name in kept if name not in places), *places, carried.key, *carried.names]
        yield pa.table({name: columns[name] for name in dict.fromkeys(names)})
        start = stop


def _kept_parts(carried: Carried, n_rows: int) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield the columns that are kept as arrays of pyarrow, and of how many rows each part is."""
    path = carried.store.path
    kept = [name for name in carried.columns if name in carried.store.keys]
    if path is not None and kept and path.suffix.lower() in _TABLES:
        start = 0
        for batch in _batches(path, kept):
            part = {name: batch.column(name) for name in kept}
            if "ids" in carried.columns and "ids" not in kept:
                part["ids"] = _as_arrow(_rows(dict(carried.kept())["ids"], start, start + len(batch)))
            start += len(batch)
            yield part, len(batch)
        return
    columns = dict(carried.kept())
    for start in range(0, max(1, n_rows), _PART_ROWS):
        stop = min(start + _PART_ROWS, n_rows)
        yield {name: _as_arrow(_rows(values, start, stop)) for name, values in columns.items()}, stop - start


def _batches(path: Path, columns: Sequence[str]) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.suffix.lower() in (".parquet", ".pq"):
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(batch_size=_PART_ROWS, columns=list(columns), use_threads=False)
        return
    with pa.OSFile(str(path), "rb") as file:
        reader = pa.ipc.open_file(file)
        for index in range(reader.num_record_batches):
            yield reader.get_batch(index).select(list(columns))


def _rows(values: StoredArray | np.ndarray, start: int, stop: int) -> np.ndarray:
    if isinstance(values, np.ndarray):
        return values[start:stop]
    with readable(values.name), values.open() as read:
        return read(start, stop)


def _as_arrow(rows: np.ndarray) -> Any:
    import pyarrow as pa

    if rows.ndim == 2:
        flat = pa.array(np.ascontiguousarray(rows).reshape(-1))
        return pa.FixedSizeListArray.from_arrays(flat, rows.shape[1])
    return pa.array(rows.astype(str).tolist() if rows.dtype.kind in "US" else rows)


def _write_hdf5(carried: Carried, folder: Path) -> Path:
    import h5py

    path = folder / "whole.h5"
    with h5py.File(path, "w") as file:
        for name, values in _arrays(carried):
            is_text = values.dtype.kind in "US"
            data = file.create_dataset(name, values.shape, h5py.string_dtype() if is_text else values.dtype)
            for start in range(0, values.shape[0], _PART_ROWS):
                stop = min(start + _PART_ROWS, values.shape[0])
                rows = _rows(values, start, stop)
                data[start:stop] = rows.astype(str).astype(object) if is_text else rows
    return path


def _write_zarr(carried: Carried, folder: Path) -> Path:
    import zarr

    path = folder / "whole.zarr"
    group = zarr.open_group(path, mode="w")
    for name, values in _arrays(carried):
        dtype = values.dtype if values.dtype.kind not in "US" else str
        chunks = (max(1, min(_PART_ROWS, values.shape[0])), *values.shape[1:])
        array = group.create_array(name, shape=values.shape, dtype=dtype, chunks=chunks)
        for start in range(0, values.shape[0], _PART_ROWS):
            stop = min(start + _PART_ROWS, values.shape[0])
            array[start:stop] = _rows(values, start, stop)
    return path


_SAFETENSORS_TYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "int8": "I8", "int64": "I64",
                      "int32": "I32", "int16": "I16", "uint8": "U8", "uint16": "U16", "uint32": "U32",
                      "uint64": "U64", "bool": "BOOL"}  # fmt: skip


def _write_safetensors(carried: Carried, folder: Path) -> Path:
    path = folder / "whole.safetensors"
    arrays = dict(_arrays(carried))
    with path.open("wb") as file:
        write_safetensors(file, arrays, {"written_by": "lfm-atlas"})
    return path


def write_safetensors(file: BinaryIO, arrays: dict[str, Any], metadata: dict[str, str]) -> None:
    """Write arrays as .safetensors, some rows at a time: eight bytes of length, that much JSON, then the values."""
    header: dict[str, Any] = {"__metadata__": metadata}
    place = 0
    for name, values in arrays.items():
        n_bytes = int(np.prod(values.shape)) * values.dtype.itemsize
        kind = _SAFETENSORS_TYPES[values.dtype.name]
        header[name] = {"dtype": kind, "shape": list(values.shape), "data_offsets": [place, place + n_bytes]}
        place += n_bytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for values in arrays.values():
        for start in range(0, max(1, values.shape[0]), _PART_ROWS):
            rows = _rows(values, start, min(start + _PART_ROWS, values.shape[0]))
            file.write(np.ascontiguousarray(rows, rows.dtype.newbyteorder("<")).data)


def _arrays(carried: Carried) -> Iterator[tuple[str, StoredArray | np.ndarray]]:
    yield carried.key, carried.vectors
    yield from carried.kept()
    for index, name in enumerate(carried.names):
        yield name, carried.added[:, index]  # type: ignore[index]


# By the suffix of the output. Each returns the path of a whole file, or folder, inside the hidden folder.
WRITERS: dict[str, Callable[[Carried, Path], Path]] = {
    ".parquet": _write_parquet,
    ".arrow": _write_arrow,
    ".safetensors": _write_safetensors,
    ".h5": _write_hdf5,
    ".hdf5": _write_hdf5,
    ".zarr": _write_zarr,
    ".npy": _write_npy,
}
