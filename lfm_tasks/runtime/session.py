"""Opens a run: takes the store's lock, clears what killed runs left, and stops the workers at the end."""

import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lfm_tasks.catalog import Catalog
from lfm_tasks.catalog.cluster import LocalCluster
from lfm_tasks.runtime.run import ProgressCallback, Run, Scope, remotely_locked, unit_store, versions
from lfm_tasks.stores.atlas.files import sweep
from lfm_tasks.stores.units.durable import atomic_write, locked
from lfm_tasks.stores.units.integrity import quarantine_corrupt, quarantine_unfinished
from lfm_tasks.workers.pool import InProcess, LocalDask, Workers
from lfm_tasks.workers.resources import memory_limit, n_workers

LOG_VERSION = 1
_ORCHESTRATION = ("dask", "distributed", "prefect", "pyarrow", "xarray", "zarr")


@contextmanager
def logged(run: Run) -> Iterator[Run]:
    """Give the run, timed; ``runs/<time>.json`` in its store says ``unfinished`` until it ends, then how it ended.

    A run that was killed stays unfinished.
    """
    now, start = datetime.now(UTC), time.monotonic()
    # No colons: the name has to be one on every file system.
    path = run.store.root / "runs" / f"{now:%Y%m%dT%H%M%S.%fZ}.json"
    facts: dict[str, Any] = {"version": LOG_VERSION, "started": now.isoformat(), "ended": None, "outcome": "unfinished"}
    facts |= _asked(run) | {"versions": versions() | {name: version(name) for name in _ORCHESTRATION}, "host": _host()}
    _write(path, facts)
    stages: dict[str, tuple[float, float]] = {}
    peaks: dict[str, int] = {}

    def announce(stage: str, done: int, total: int) -> None:
        moment = time.monotonic()
        stages[stage] = (stages.get(stage, (moment, moment))[0], moment)
        peaks[stage] = run.workers.peak_bytes
        run.announce(stage, done, total)

    def end(outcome: str, **more: str) -> None:
        facts["ended"], facts["seconds"] = datetime.now(UTC).isoformat(), round(time.monotonic() - start, 3)
        # The highest so far of any worker that answered: it never falls from one stage to the next.
        facts["worker_peak_bytes"] = peaks
        facts["stages"] = {stage: round(last - first, 3) for stage, (first, last) in stages.items()}
        _write(path, facts | asdict(run.stage_counts) | run.notes | more | {"outcome": outcome})

    try:
        yield replace(run, announce=announce)
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt | SystemExit)
        # What ended the run is told, not that a full disk took its log as well.
        with suppress(OSError):
            end("stopped" if stopped else "failed", error=f"{type(error).__name__}: {error}")
        raise
    end("done")


def _asked(run: Run) -> dict[str, Any]:
    return {
        "folder": str(run.catalog.root.absolute()),
        "atlas": str(run.atlas_folder.absolute()),
        "only": list(run.scope.only),
        "comparisons": list(run.scope.comparisons),
        "workers": type(run.workers).__name__,
    }


def _host() -> dict[str, Any]:
    return {
        "name": platform.node(),
        "system": platform.platform(),
        "machine": platform.machine(),
        "python": sys.version.split()[0],
        "cores": os.cpu_count(),
        "memory_bytes": _memory_bytes(),
    }


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):  # not every system says
        return None


def _write(path: Path, facts: Mapping[str, Any]) -> None:
    atomic_write(path, json.dumps(facts, indent=1, ensure_ascii=False).encode())


PURPOSE = "lfm-atlas run"


@contextmanager
def open_run(
    catalog: Catalog, announce: ProgressCallback, *, in_process: bool = False, scope: Scope | None = None
) -> Iterator[Run]:
    """Give a run that alone writes to the catalog's store. ``in_process``: no Dask, for tests and debugging."""
    root = catalog.root / catalog.atlas.store
    with locked(root, PURPOSE), remotely_locked(catalog, PURPOSE):
        store = unit_store(catalog)
        store.sweep()
        sweep(catalog.root / catalog.atlas.path)
        workers: Workers = _workers(catalog, in_process)
        try:
            with logged(Run(catalog, store, workers, announce, scope=scope or Scope())) as run:
                # Copies of remote units are checked, and fetched again, when they are read.
                found = () if catalog.atlas.remote else quarantine_corrupt(store)
                run.notes["put_aside"] = [f"{damage.place}: {damage.found}" for damage in found]
                yield run
                if not catalog.atlas.remote:
                    quarantine_unfinished(store)
        finally:
            workers.close()


def refuse_if_busy(catalog: Catalog) -> None:
    """Raise `StoreBusyError` if another run holds the store: for who would only learn it after seconds of starting."""
    root = catalog.root / catalog.atlas.store
    if root.is_dir():
        with locked(root, PURPOSE):
            pass


def _workers(catalog: Catalog, in_process: bool) -> Workers:
    if in_process:
        return InProcess(memory_limit(catalog, among=1))
    if isinstance(catalog.cluster, LocalCluster):
        return LocalDask(n_workers(catalog), memory_limit(catalog))
    from lfm_tasks.workers.clusters.remote import RemoteDask  # Dask takes a second: a run without news needs none

    return RemoteDask(catalog)
