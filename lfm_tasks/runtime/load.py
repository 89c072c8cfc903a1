"""The cost of tasks before they run: operations counted from shapes, memory, and the bytes that they write.

Operations are of a few kinds (`KINDS`), whose rates `lfm_tasks.runtime.rates` measures. Memory is what stands highest
in a task, beside what every worker takes. Bytes are counted.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import ceil

from lfm_tasks.stores.units.arrays import LAYOUTS

# What a worker takes before any task, with all that the tasks import.
WORKER_BYTES = 200 << 20
KINDS: Mapping[str, str] = {
    "products": "multiply-adds of matrix products in single precision; one in double precision counts as two",
    "decompositions": "n³ for the eigenvectors of a symmetric n × n matrix; for the singular vectors of n × d 2 n d²",
    "entries": "numbers that are compared, gathered or put through a function, one by one",
    "calls": "calls of NumPy on a few numbers",
    "bytes": "bytes that are encoded and written, or read and checked",
    "units": "units of the store that are written",
    "tasks": "tasks of a worker",
    "seconds": "seconds that no size changes: imports, starts, compiling",
}


@dataclass(frozen=True)
class SpaceSize:
    """Points, features (0: only a run can tell) and bytes of a number; of an id on average; of what else it takes.

    ``held_bytes``: of its file, what must be in memory at once. ``weight_bytes``: of the network that is run for it.
    Of a checkpoint, instead: ``run_flops``, operations a point, ``run_bytes``, all that running it takes, and the
    ``device`` that it runs on.
    """

    name: str
    n_points: int
    n_features: int
    itemsize: int = 4
    id_bytes: int = 8
    held_bytes: int = 0
    weight_bytes: int = 0
    run_flops: float = 0.0
    run_bytes: int = 0
    device: str = "cpu"

    @property
    def n_bytes(self) -> int:
        """Bytes of its values as they are stored."""
        return self.n_points * self.n_features * self.itemsize


MIB = 1 << 20
# Of its limit; a worker with more is ended.
USABLE = 0.95
ACTIVATIONS = LAYOUTS["activations"]["activations"]
# Of the metadata of an array and of a unit, its receipt among them (measured).
ARRAY_BYTES, UNIT_BYTES = 810, 650


@dataclass(frozen=True)
class Load:
    """Some tasks: how many, their operations by kind, the most that one holds and what that is, bytes written.

    ``staying_bytes`` of its peak are there ever after: compiled code. ``starting_seconds``: what a worker does before
    the first of such tasks only, such as to compile.
    """

    tasks: int = 0
    work: Mapping[str, float] = field(default_factory=dict)
    peak_bytes: int = 0
    peak_of: str = ""
    written_bytes: int = 0
    staying_bytes: int = 0
    starting_seconds: float = 0.0


def total_work(*parts: Mapping[str, float]) -> dict[str, float]:
    """Return operations by kind, summed."""
    kinds = {kind for part in parts for kind in part}
    return {kind: sum(part.get(kind, 0.0) for part in parts) for kind in sorted(kinds)}


def total_load(loads: Iterable[Load]) -> Load:
    """Return the sum of loads; its peak is that of the largest."""
    parts = list(loads)
    largest = max(parts, key=lambda load: load.peak_bytes, default=Load())
    return Load(
        tasks=sum(load.tasks for load in parts),
        work=total_work(*(load.work for load in parts)),
        peak_bytes=largest.peak_bytes,
        peak_of=largest.peak_of,
        written_bytes=sum(load.written_bytes for load in parts),
        staying_bytes=max((load.staying_bytes for load in parts), default=0),
        starting_seconds=max((load.starting_seconds for load in parts), default=0.0),
    )


def worker_bytes(load: Load, stays: int = 0) -> int:
    """Return the memory limit (bytes) that a worker needs for a task; ``stays``: compiled code of earlier tasks."""
    return ceil((WORKER_BYTES + load.peak_bytes + max(0, stays - load.staying_bytes)) / USABLE)


def chunk_rows(size: SpaceSize) -> int:
    """Return how many rows of a space's activations a stored chunk holds."""
    return min(size.n_points, ACTIVATIONS.rows_a_chunk(size.n_features * size.itemsize))


def chunk_bytes(size: SpaceSize) -> int:
    """Return the bytes of a stored chunk of a space's activations."""
    return chunk_rows(size) * size.n_features * size.itemsize


def id_array(size: SpaceSize) -> tuple[int, int, int]:
    """Return the bytes of a space's ids, its rows, and how many of them a chunk holds."""
    return size.n_points * (4 + size.id_bytes), size.n_points, 1 << 16


def unit_bytes(*arrays: tuple[int, int, int]) -> int:
    """Return the bytes of a unit of arrays given as (bytes, rows, rows a chunk): a checksum a chunk, and metadata."""
    return UNIT_BYTES + sum(n_bytes + 140 * ceil(rows / chunk) + ARRAY_BYTES for n_bytes, rows, chunk in arrays)
