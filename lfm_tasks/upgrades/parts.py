"""Carries a store on workers: each worker writes its part of the rows into its place in the result.

Workers see the store and the folder of the output at the same paths: those of this machine do, those of others where a
file system is shared. A worker holds one chunk of rows at a time. What it has written is on the disk before that is
noted, so that an interrupted command goes on with the parts that are missing.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lfm_tasks.errors import DataError
from lfm_tasks.sources.files.paths import Fingerprint
from lfm_tasks.sources.files.stored_array import StoredArray
from lfm_tasks.upgrades.adapters import Adapter
from lfm_tasks.upgrades.bulk import (
    ADDED_FILE,
    VECTORS_FILE,
    CarryPlan,
    CarryRows,
    Progress,
    carry_chunk,
    make_files,
    note_done,
    open_rows,
    places_of,
)
from lfm_tasks.upgrades.stores import open_large_store
from lfm_tasks.workers.pool import ClusterError, JobFailure, Workers, run_jobs

# Rows of a part: so many bytes of carried vectors, which a worker does in seconds.
_PART_BYTES = 2**29
# Parts that are sent at a time: each takes the map along, ten megabytes with the rows for confidence.
_PARTS_AT_ONCE = 32


@dataclass(frozen=True)
class Part:
    """Rows of a store that one worker carries: from ``start`` up to, without, ``stop``.

    ``plan`` is without its store, whose arrays a worker opens by itself: they must be the file ``fingerprint`` names.
    """

    plan: CarryPlan
    store: str
    ids_file: str | None
    fingerprint: Fingerprint
    adapter: Adapter
    start: int
    stop: int
    header_bytes: int


def on_workers(workers: Workers) -> CarryRows:
    """Return a function for `carry` that has the rows carried by workers; raises as `carry` does."""

    def carry_rows(plan: CarryPlan, adapter: Adapter, report_progress: Progress) -> None:
        header_bytes = make_files(plan)
        _extend(plan, header_bytes)
        parts = list(_parts(plan, adapter, header_bytes))
        done = list(plan.done)
        for first in range(0, len(parts), _PARTS_AT_ONCE):
            some = parts[first : first + _PARTS_AT_ONCE]
            for index, result in workers.run(carry_part, some, [plan.memory_bytes] * len(some)):
                if isinstance(result, JobFailure):
                    if result.reason == "failed":
                        raise RuntimeError(result.message)
                    raise DataError(result.reason, result.message)
                done.append((some[index].start, some[index].stop))
                note_done(plan, done)
                report_progress("rows", sum(stop - start for start, stop in done), plan.n_rows)

    return carry_rows


def _extend(plan: CarryPlan, header_bytes: int) -> None:
    """Give the files their full lengths: each part has its place."""
    names = (VECTORS_FILE, ADDED_FILE)
    for name, n_bytes in zip(names, places_of(plan, plan.n_rows, header_bytes), strict=True):
        os.truncate(plan.partial / name, n_bytes)


def _parts(plan: CarryPlan, adapter: Adapter, header_bytes: int) -> Iterator[Part]:
    """Yield the parts that are missing."""
    vectors = plan.store.vectors
    if not isinstance(vectors, StoredArray):
        raise TypeError("got a store in memory, expected one in a file: only files can be opened by workers")
    path = vectors.path.absolute()
    store = str(path) if plan.store.key is None else f"{path}#{plan.store.key}"
    ids_file = None if plan.store.ids_file is None else os.path.abspath(plan.store.ids_file)
    bare = replace(
        plan,
        store=replace(plan.store, vectors=np.empty((0, 0)), ids=None, labels=None, scale=None, id_column=None),
        output=plan.output.absolute(),
    )
    row_bytes = plan.n_results * np.dtype(plan.dtype).itemsize
    n_rows = max(1, _PART_BYTES // row_bytes // plan.chunk_rows) * plan.chunk_rows
    for start in range(0, plan.n_rows, n_rows):
        stop = min(start + n_rows, plan.n_rows)
        if not any(first <= start and stop <= last for first, last in plan.done):
            yield Part(bare, store, ids_file, vectors.fingerprint, adapter, start, stop, header_bytes)


def carry_part(part: Part) -> None:
    """Carry the rows of a part, chunk by chunk, and wait until they are on the disk.

    Raises
    ------
    DataError
        As `carry` does.
    """
    store = open_large_store(part.store, part.ids_file, most_ids=0)
    vectors = store.vectors
    assert isinstance(vectors, StoredArray)  # noqa: S101 - for mypy
    if vectors.fingerprint != part.fingerprint:
        raise DataError("missing_source", f"{vectors.name}: the file changed while it was read. Start again")
    plan = replace(part.plan, store=store)
    with ExitStack() as stack:
        read = open_rows(store, stack)
        files = [stack.enter_context((plan.partial / name).open("r+b")) for name in (VECTORS_FILE, ADDED_FILE)]
        for file, place in zip(files, places_of(plan, part.start, part.header_bytes), strict=True):
            file.seek(place)
        for start in range(part.start, part.stop, plan.chunk_rows):
            blocks = carry_chunk(plan, part.adapter, read(start, min(start + plan.chunk_rows, part.stop)), start)
            for file, block in zip(files, blocks, strict=True):
                if block is not None:
                    file.write(np.ascontiguousarray(block).data)
        for file in files:
            file.flush()
            os.fsync(file.fileno())
    vectors.check_unchanged()


class SchedulerWorkers:
    """The workers of a Dask scheduler that runs already, at an address or by its file."""

    # A scheduler without workers is waited for so long (seconds).
    wait_seconds = 60

    def __init__(self, scheduler: str) -> None:
        if "://" not in scheduler and not Path(scheduler).is_file():
            start = f"Start dask scheduler --scheduler-file {scheduler}, then workers"
            raise ClusterError(f"got no scheduler file {scheduler}, expected one. {start}")
        self._arguments: Mapping[str, Any] = (
            {"address": scheduler} if "://" in scheduler else {"scheduler_file": str(Path(scheduler).absolute())}
        )
        self.memory_limit: int | None = None
        self.peak_bytes = 0

    def run(self, function, jobs, needs=(), devices=()):  # type: ignore[no-untyped-def]
        """Yield the results of jobs as they finish; see `Workers.run`."""
        if not jobs:
            return
        for index, (result, peak) in run_jobs(self._connect, function, jobs, needs, devices):
            self.peak_bytes = max(self.peak_bytes, peak)
            yield index, result

    def close(self) -> None:
        """Do nothing: the cluster goes on."""

    @contextmanager
    def _connect(self) -> Iterator[Any]:
        from lfm_tasks.workers.remote import connect

        with connect(self._arguments, self.wait_seconds) as client:
            yield client
