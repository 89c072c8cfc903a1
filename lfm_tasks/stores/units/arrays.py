"""The arrays of one unit, as a Zarr group: the one door to Zarr below the atlas."""

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec
from zarr.storage import ZipStore

from lfm_tasks.stores.units.layouts import LAYOUTS, PACKED_KINDS, ArrayLayout
from lfm_tasks.stores.units.packing import PACKED, PackedGroup


class ArrayWriter:
    """Lays out and fills the arrays that `LAYOUTS` names for one kind of unit; in most kinds in one file."""

    def __init__(self, folder: Path, kind: str) -> None:
        self._packed = PackedGroup(folder) if kind in PACKED_KINDS else None
        self._group = zarr.create_group(folder, zarr_format=3) if self._packed is None else self._packed.group
        self._layouts = LAYOUTS[kind]

    def write(self, name: str, values: np.ndarray) -> None:
        """Store a whole array."""
        array = self.lay_out(name, values.shape, values.dtype)
        if self._packed is None:
            array[...] = values
            return
        for start in range(0, len(values), array.chunks[0]):
            array[start : start + array.chunks[0]] = values[start : start + array.chunks[0]]
            self._packed.move()
        self._packed.move()

    def lay_out(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> "zarr.Array[Any]":
        """Return an empty array (NaN where nothing is written yet) to fill in whole chunks of rows."""
        return _create(self._group, name, self._layouts[name], shape, dtype)

    def close(self) -> None:
        """End the one file, if there is one."""
        if self._packed is not None:
            self._packed.close()


class ArrayReader:
    """Reads the arrays of one unit."""

    def __init__(self, folder: Path, kind: str) -> None:
        packed = folder / PACKED
        self._archive = ZipStore(packed, mode="r") if packed.is_file() else None
        self._group = zarr.open_group(self._archive or folder, mode="r", zarr_format=3)
        self._layouts = LAYOUTS[kind]

    def close(self) -> None:
        """Close the file that the arrays are packed in; what was read stays."""
        if self._archive is not None:
            self._archive.close()

    def read(self, name: str) -> np.ndarray:
        """Return a whole array; strings come as numpy's variable-width strings."""
        self._layouts[name]
        return np.asarray(self._array(name)[...])

    def batches(self, name: str) -> Iterator[np.ndarray]:
        """Yield an array in its own chunks of rows."""
        array = self._array(name)
        for start in range(0, array.shape[0], array.chunks[0]):
            yield np.asarray(array[start : start + array.chunks[0]])

    def _array(self, name: str) -> "zarr.Array[Any]":
        array = self._group[name]
        if not isinstance(array, zarr.Array):
            raise TypeError(f"{name} is not an array")
        return array


def _create(
    group: zarr.Group, name: str, layout: ArrayLayout, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> "zarr.Array[Any]":
    text = layout.dtype == "str"
    stored: Any = str if text else dtype if layout.dtype == "source" else np.dtype(layout.dtype)
    row_bytes = 0 if text else prod(shape[1:]) * stored.itemsize
    floating = not text and np.issubdtype(stored, np.floating)
    return group.create_array(
        name,
        shape=shape,
        dtype=stored,
        chunks=(max(1, min(shape[0], layout.rows_a_chunk(row_bytes))), *(max(1, size) for size in shape[1:])),
        # Measured, one thread: of ReLU activations (tests/benchmarks/bench_sources.py) lz4 leaves .87 at 0.4 to 1 GB/s,
        # zstd .62 at under 0.1 GB/s; of layers of Fashion networks in float16 lz4 leaves .70 to 1.00, zstd .43 to .80
        # at under 0.05 GB/s. crc32c alone runs at 2 to 9 GB/s: compressing costs more time than it saves bytes.
        compressors=[Crc32cCodec()],
        serializer="auto" if text else BytesCodec(endian="little"),
        fill_value=np.nan if floating else "" if text else 0,
        dimension_names=layout.dims,
        attributes={"meaning": layout.meaning},
        config={"write_empty_chunks": True},
    )
