"""What tasks cost, before they run: what their time is made of, their memory, the bytes that they write.

Time is a sum of amounts (`Load.work`) by the coefficients of `cost_table`, which tests/benchmarks/bench_costs.py fits.
Memory is written out: what stands highest in a task, beside what every worker takes. Bytes are counted.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import ceil

from lfm_tasks.runtime.cost_table import WORKER_BYTES
from lfm_tasks.runtime.sizes import SpaceSize
from lfm_tasks.stores.units.layouts import LAYOUTS

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


def together(loads: Iterable[Load]) -> Load:
    """Return the sum of loads; its peak is that of the largest."""
    found, work = list(loads), Counter[str]()
    for load in found:
        work.update(load.work)
    largest = max(found, key=lambda load: load.peak_bytes, default=Load())
    written = sum(load.written_bytes for load in found)
    staying = max((load.staying_bytes for load in found), default=0)
    return Load(sum(load.tasks for load in found), dict(work), largest.peak_bytes, largest.peak_of, written, staying)


def worker_bytes(load: Load, stays: int = 0) -> int:
    """Return the memory limit (bytes) that a worker needs for a task; ``stays``: compiled code of earlier tasks."""
    return ceil((WORKER_BYTES + load.peak_bytes + max(0, stays - load.staying_bytes)) / USABLE)












def _chunk_rows(size: SpaceSize) -> int:
    return min(size.n_points, ACTIVATIONS.rows_a_chunk(size.n_features * size.itemsize))


def _chunk_bytes(size: SpaceSize) -> int:
    return _chunk_rows(size) * size.n_features * size.itemsize


def id_array(size: SpaceSize) -> tuple[int, int, int]:
    """Return the bytes of a space's ids, its rows, and how many of them a chunk holds."""
    return size.n_points * (4 + size.id_bytes), size.n_points, 1 << 16


def unit_bytes(*arrays: tuple[int, int, int]) -> int:
    """Return the bytes of a unit of arrays given as (bytes, rows, rows a chunk): a checksum a chunk, and metadata."""
    return UNIT_BYTES + sum(n_bytes + 140 * ceil(rows / chunk) + ARRAY_BYTES for n_bytes, rows, chunk in arrays)
