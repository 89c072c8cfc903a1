"""The cost model of tasks: the parts of their time, their memory, and the bytes that they write.

Time is a sum of amounts (`Load.work`) by the coefficients `SECONDS`, which tests/benchmarks/bench_costs.py fits.
Memory is written out: what stands highest in a task, beside what every worker takes. Bytes are counted.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import ceil

from lfm_tasks.stores.units.arrays import LAYOUTS

# What the machine of the table took for the product that `plan` times, seconds; all times scale with it.
PRODUCT_SECONDS = 0.0218
# What a worker takes before any task, with all that the tasks import.
WORKER_BYTES = 200 << 20
SECONDS: Mapping[str, float] = {
    # Measured apart: the process with what it imports, and the start of its workers.
    "run": 1.3,
    "workers": 5.0,
    # What is for the largest spaces, from the sizes in docs/speed.md: 20,000 to 1,000,000 points.
    "search projection": 2.03e-11,
    "search projection rows": 9e-10,
    "search pynndescent": 2.3e-09,
    "search pynndescent pairs": 6.4e-07,
    "basis bytes": 4.7e-09,
    "basis center": 1.8e-07,
    "basis extension": 3.5e-11,
    "basis extension rows": 1.45e-08,
    "basis task": 0.02,
    "compile": 25.2,
    "dense": 6.14e-10,
    "filtered edges": 1.88e-08,
    "lanczos edges": 2.71e-08,
    "lanczos rows": 7.49e-09,
    "search exact": 4.06e-11,
    "search exact neighbors": 4.5e-07,
    "search tiles": 2.94e-09,
    "search tiles pairs": 2.49e-10,
    "search tiles rows": 3e-10,
    "base rows": 4.5e-08,
    "block base": 0.0001,
    "block task": 0.0337,
    "grown rows": 1.94e-09,
    # Measured apart: 12 spaces of 2,000 x 64, and 3 of 2,000 x 768.
    "aligned pair": 1.5e-3,
    "aligned rotations": 1e-9,
    "aligned vectors": 8e-10,
    "matched features": 3e-8,
    "matched pair": 1e-3,
    "matched products": 3e-11,
    "matched space": 1e-8,
    # Measured apart: 12 spaces of 2,000 x 64.
    "cross features": 1e-9,
    "cross pair": 5e-4,
    "cross products": 1e-10,
    "cross space": 0.003,
    "cross values": 5e-10,
    # Measured apart, by bench_point_pairs.py: 200 spaces of 2,000 x 64. Tiles cost half to twice as much by measure.
    "matrix entries": 5e-9,
    "matrix features": 2.7e-11,
    "matrix pair": 5e-5,
    "matrix products": 2e-11,
    "matrix space": 0.006,
    "neighbors features": 3e-11,
    "neighbors pair": 1.5e-7,
    "neighbors space": 2.6e-8,
    "null": 1.79e-05,
    "null rows": 3.11e-11,
    # Measured apart: tiles of 2,000 x 64 with 40 eigenpairs, bases of halves, chance in closed form.
    "pair": 1.3e-4,
    "pair maps": 9e-11,
    "pair rows": 5.4e-11,
    "solved base": 3.85e-09,
    "solved factor": 3e-09,
    "solved fit": 2e-06,
    "solved products": 1.45e-10,
    # Measured apart: 4 spaces of 2,000 x 64 and x 768.
    "trace features": 2.5e-10,
    "trace pair": 0.001,
    "trace products": 6e-11,
    "trace space": 0.004,
    "trace sums": 1.2e-10,
    "record bytes": 3.23e-09,
    "record layer": 0.00851,
    "record model": 0.0311,
    "record run": 1.16e-11,
    "record task": 0.00789,
    # Measured apart: BERT with 8 layers on 4,096 tokens, and the import of its library.
    "record flops": 1.2e-11,
    "record checkpoint": 4.0,
    "collection": 0.0315,
    "collection core": 1e-8,
    "collection cycles": 5e-11,
    "collection maps": 4.9e-11,
    "collection rows": 9e-08,
    "kept bases": 2.42e-08,
    "kept map": 0.000874,
    "kept task": 0.0201,
    "atlas": 0.879,
    "atlas bytes": 2.68e-07,
    "atlas cells": 8.1e-06,
    "atlas models": 1.6e-05,
    "picture points": 0.00294,
    "probe rows": 3.03e-08,
    "transfer products": 4.66e-10,
    "transfer rows": 1.93e-06,
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
    """Some tasks: how many, what their time is made of, the most that one holds and what that is, bytes written.

    ``staying_bytes`` of its peak are there ever after: compiled code.
    """

    tasks: int = 0
    work: Mapping[str, float] = field(default_factory=dict)
    peak_bytes: int = 0
    peak_of: str = ""
    written_bytes: int = 0
    staying_bytes: int = 0


def total_load(loads: Iterable[Load]) -> Load:
    """Return the sum of loads; its peak is that of the largest."""
    parts, work = list(loads), Counter[str]()
    for load in parts:
        work.update(load.work)
    largest = max(parts, key=lambda load: load.peak_bytes, default=Load())
    written = sum(load.written_bytes for load in parts)
    staying = max((load.staying_bytes for load in parts), default=0)
    return Load(sum(load.tasks for load in parts), dict(work), largest.peak_bytes, largest.peak_of, written, staying)


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
