"""The arrays of one unit, as a Zarr group: which arrays each kind has, and how they are written and read.

Kinds of small arrays are packed into one file: a basis would be thirteen files, thousands of bases most of the files
of a store.
"""

import asyncio
import atexit
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import numpy as np

from lfm_tasks.errors import CorruptUnitError

if TYPE_CHECKING:
    import zarr

Result = TypeVar("Result")

# How long a process waits at its exit for what zarr still does (seconds).
EXIT_SECONDS = 30.0


@dataclass(frozen=True)
class ArrayLayout:
    """How one array lies in a unit: names of its dimensions, dtype, meaning, and chunks.

    A chunk holds ``chunk_rows`` of the first dimension and all of the others; fewer rows if they would take more than
    ``chunk_bytes``, because a chunk is in memory several times while it is encoded.
    """

    dims: tuple[str, ...]
    dtype: str
    meaning: str
    chunk_rows: int = 1 << 16
    chunk_bytes: int | None = None

    def rows_a_chunk(self, row_bytes: int) -> int:
        """Return how many rows of so many bytes a chunk holds."""
        if self.chunk_bytes is None:
            return self.chunk_rows
        return max(1, min(self.chunk_rows, self.chunk_bytes // max(1, row_bytes)))


_IDS = ArrayLayout(("point",), "str", "sample ids, in ascending order; every other array has its rows in this order")

LAYOUTS: dict[str, dict[str, ArrayLayout]] = {
    "activations": {
        "activations": ArrayLayout(
            ("point", "feature"), "source", "pooled activations, as the source gives them", 2048, 8 << 20
        ),
        "ids": _IDS,
    },
    "designs": {
        "ids": _IDS,
        "sets": ArrayLayout(("point",), "int32", "the group or stratum of each id, numbered"),
    },
    "labels": {
        "ids": _IDS,
        "classes": ArrayLayout(("point",), "int32", "the class of each id, numbered in the order of the labels"),
    },
    "bases": {
        "neighbors": ArrayLayout(("point", "neighbor"), "int32", "row numbers, nearest first, without the point"),
        "distances": ArrayLayout(("point", "neighbor"), "float32", "distances to them, in the metric of the graph"),
        "landmarks": ArrayLayout(
            ("landmark",), "int32", "rows whose graph it is; neighbors are numbered among these; absent: all rows"
        ),
        "center": ArrayLayout(("feature",), "float64", "where angles are seen from; absent: the origin"),
        "eigenvalues": ArrayLayout(("eigenpair",), "float64", "of the normalized Laplacian, ascending, in [0, 2]"),
        "eigenvectors": ArrayLayout(("point", "eigenpair"), "float64", "unit length, largest entry positive"),
        "overlap_sums": ArrayLayout(("number",), "float64", "sums that give the permutation moments of overlap"),
        "lfm_sums": ArrayLayout(("number",), "float64", "sums that give the permutation moments of lfm"),
        "ids": _IDS,
    },
    "halves": {
        "eigenvectors": ArrayLayout(
            ("split", "point", "eigenpair"),
            "float32",
            "of a basis of the half of the points that a point is in; absent: halves have none, the receipt says why",
        ),
    },
    "collections": {
        "coefficients": ArrayLayout(
            ("space", "eigenpair", "mode"), "float64", "Y of each space, orthonormal: its basis times Y is shared"
        ),
        "cycle_residual": ArrayLayout(("source", "target"), "float64", "0: consistent with others, 1: unrelated; NaN"),
        "shared_distance": ArrayLayout(("source", "target"), "float64", "RMS distance of shared coordinates, >= 0"),
    },
    "cycles": {
        "cycle_residual": ArrayLayout(("source", "target"), "float64", "of some of the spaces of a collection; NaN"),
    },
    "maps": {
        "source_mean": ArrayLayout(("source_feature",), "float64", "x0 of x -> (x - x0) W + y0"),
        "matrix": ArrayLayout(("source_feature", "target_feature"), "float64", "W of x -> (x - x0) W + y0", 1024),
        "target_mean": ArrayLayout(("target_feature",), "float64", "y0 of x -> (x - x0) W + y0"),
        "functional_map": ArrayLayout(
            ("target_eigenpair", "source_eigenpair"), "float64", "the spectral fit; absent where there is none"
        ),
    },
    "scores": {
        "values": ArrayLayout(
            ("pair", "direction", "measure", "statistic"),
            "float64",
            "direction 0 is side 0 -> side 1, 1 the other way; NaN where the receipt says why",
        ),
        "n_common": ArrayLayout(("pair",), "int32", "points that both spaces have, refused pairs too"),
        "diagnostics": ArrayLayout(
            ("pair", "direction", "diagnostic"), "float64", "of each map; NaN where it has none"
        ),
        "maps": ArrayLayout(
            ("pair", "direction", "target_eigenpair", "source_eigenpair"), "float32", "maps grown by ZoomOut, else none"
        ),
    },
    "across_datasets": {
        "values": ArrayLayout(
            ("pair", "direction", "measure", "statistic"),
            "float64",
            "direction 0 is source -> target, 1 back; NaN where the receipt says why",
        ),
        "diagnostics": ArrayLayout(
            ("pair", "direction", "diagnostic"), "float64", "of each map; NaN where it has none"
        ),
    },
    "kept_maps": {
        "functional_maps": ArrayLayout(
            ("pair", "second_eigenpair", "first_eigenpair"),
            "float32",
            "from the first base of a pair to the second",
            64,
        ),
        "distortions": ArrayLayout(
            ("pair", "side", "point"), "float32", "where a base is not reached by the other; side 0 is the first", 64
        ),
        "ids": _IDS,
    },
    "embedded_points": {
        "ids": _IDS,
        "labels": ArrayLayout(("point",), "str", "the class of each point; empty where there is none"),
        "folds": ArrayLayout(("point",), "int32", "in which fold a probe is tested on the point; -1: in none"),
    },
    "embeddings": {
        "coordinates": ArrayLayout(("point", "axis"), "float32", "t-SNE of one space"),
        "ids": _IDS,
    },
    "probes": {
        "accuracies": ArrayLayout(("source",), "float64", "of the probe of one target, by source, in [0, 1]"),
    },
}

# Kinds whose arrays lie in one file. Not activations: they come in batches, outlive kills and may not fit in memory.
PACKED_KINDS = LAYOUTS.keys() - {"activations"}


PACKED = "arrays.zip"
# The time of every entry, as early as ZIP can say: the same arrays are the same bytes.
_NO_TIME = (1980, 1, 1, 0, 0, 0)
# The metadata of the group: Zarr looks for it before each new array, so it is moved last.
_GROUP_METADATA = "zarr.json"


@cache
def _zarr() -> ModuleType:
    """Return Zarr, imported when the first array is written or read: code that only looks for units does without it."""
    import zarr

    # Runs before zarr's own, which was registered earlier.
    atexit.register(_end_zarr_loop)
    return zarr


class PackedGroup:
    """A Zarr group that is written into an archive in parts: what is not moved there yet is in memory."""

    def __init__(self, folder: Path) -> None:
        self._archive = ZipFile(folder / PACKED, "x", ZIP_STORED)
        self._entries: dict[str, Any] = {}
        self.group = _zarr().create_group(_zarr().storage.MemoryStore(self._entries), zarr_format=3)

    def move(self) -> None:
        """Move what was written to ``group`` into the archive."""
        for name in sorted(self._entries.keys() - {_GROUP_METADATA}):
            self._move(name)

    def close(self) -> None:
        """Write the rest; nothing can be added after that."""
        try:
            self.move()
            self._move(_GROUP_METADATA)
        finally:
            self._archive.close()

    def _move(self, name: str) -> None:
        self._archive.writestr(ZipInfo(name, _NO_TIME), self._entries.pop(name).as_numpy_array().data)


class ArrayWriter:
    """Lays out and fills the arrays that `LAYOUTS` names for one kind of unit; in most kinds in one file."""

    def __init__(self, folder: Path, kind: str) -> None:
        self._packed = PackedGroup(folder) if kind in PACKED_KINDS else None
        self._group = _zarr().create_group(folder, zarr_format=3) if self._packed is None else self._packed.group
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
        self._archive = _zarr().storage.ZipStore(packed, mode="r") if packed.is_file() else None
        self._folder, self._kind = folder, kind
        self._group = _wait(_zarr().api.asynchronous.open_group(self._archive or folder, mode="r", zarr_format=3))

    def close(self) -> None:
        """Close the file that the arrays are packed in; what was read stays."""
        if self._archive is not None:
            self._archive.close()

    def read(self, name: str) -> np.ndarray:
        """Return a whole array; strings come as numpy's variable-width strings."""
        return self.read_all(name)[0]

    def read_all(self, *names: str) -> list[np.ndarray]:
        """Return whole arrays, read at once: zarr takes longer to start than to read a small one."""

        async def read() -> list[np.ndarray]:
            return await asyncio.gather(*(self._read(name) for name in names))

        return _wait(read())

    def batches(self, name: str) -> Iterator[np.ndarray]:
        """Yield an array in its own chunks of rows."""
        array = _zarr().Array(_wait(self._array(name)))
        for start in range(0, array.shape[0], array.chunks[0]):
            yield np.asarray(array[start : start + array.chunks[0]])

    async def _read(self, name: str) -> np.ndarray:
        return np.asarray(await (await self._array(name)).getitem(...))

    async def _array(self, name: str) -> "zarr.AsyncArray[Any]":
        if name not in LAYOUTS[self._kind]:
            raise KeyError(name)
        array = await self._group.get(name)
        if not isinstance(array, _zarr().AsyncArray):
            # Every file is as committed, so this is no damage: kinds had other arrays when the unit was written.
            present = ", ".join(sorted([key async for key in self._group.array_keys()])) or "none"
            raise CorruptUnitError(
                f"got a unit without the array {name} ({self._kind}/{self._folder.name} has {present}): it was written "
                f"by another version of lfm-atlas; remove the store {self._folder.parents[2]} and run again"
            )
        return array


def _wait(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Return the result of the coroutine: zarr runs it in the thread that does all its work."""
    from zarr.core.sync import sync

    return sync(coroutine)


def _create(
    group: "zarr.Group", name: str, layout: ArrayLayout, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> "zarr.Array[Any]":
    from zarr.codecs import BytesCodec, Crc32cCodec

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


def _end_zarr_loop() -> None:
    """Wait for the end of zarr's event loop: on a busy machine zarr closes it while it runs, and prints a traceback."""
    from zarr.core import sync as zarr_sync

    loop, thread = zarr_sync.loop[0], zarr_sync.iothread[0]
    if loop is None or thread is None or not thread.is_alive():
        return
    loop.call_soon_threadsafe(loop.stop)
    thread.join(EXIT_SECONDS)
    if thread.is_alive():
        zarr_sync.loop[0] = None  # it ends with this process, unclosed
