"""A run from start to end: the store's lock, the leftovers of killed runs, the workers, the log."""

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lfm_tasks.catalog import Catalog
from lfm_tasks.catalog.cluster import LocalCluster
from lfm_tasks.runtime.folders import (
    ATLAS,
    RUN_PURPOSE,
    STORE,
    folder_of,
    refuse_folders,
    refuse_read_only,
)
from lfm_tasks.runtime.run import ProgressCallback, Run, Scope, remotely_locked, unit_store, versions
from lfm_tasks.stores.atlas.publication import locked_atlas, published_convention, sweep
from lfm_tasks.stores.units.durable import atomic_write
from lfm_tasks.stores.units.integrity import quarantine_corrupt, quarantine_unfinished
from lfm_tasks.stores.units.marker import held_store
from lfm_tasks.stores.units.store import CONVENTION
from lfm_tasks.variables import HiddenValues, hiding_logs, hiding_values
from lfm_tasks.workers.dask_config import import_dask
from lfm_tasks.workers.pool import InProcess, LocalDask, Workers
from lfm_tasks.workers.resources import cores, memory, memory_limit, n_workers

LOG_VERSION = 1
_ORCHESTRATION = ("dask", "distributed", "prefect", "pyarrow", "xarray", "zarr")


@contextmanager
def open_run(
    catalog: Catalog,
    report_progress: ProgressCallback,
    *,
    in_process: bool = False,
    scope: Scope | None = None,
    announce: Callable[[str], None] | None = None,
) -> Iterator[Run]:
    """Give a run that alone writes to the catalog's store, and stop its workers at the end.

    Parameters
    ----------
    catalog
        Names the store, the workers and the atlas.
    report_progress
        Called as the jobs of a stage finish.
    in_process
        Whether jobs run in this process, without Dask: for tests and debugging.
    scope
        The part of the catalog to compute; None: all of it.
    announce
        Called with the address of Dask's dashboard when the workers start; None: there is no dashboard.

    Raises
    ------
    StoreBusyError
        If another run holds the store, or publishes at the place of the atlas.
    FolderError
        If a folder that the run would write holds what is not ours; see `refused_folders`.
    OSError
        If a folder cannot be written to; see `read_only_folders`.
    """
    hidden = catalog.hidden
    opened = _open_run(catalog, report_progress, partial(_workers, catalog, in_process, announce), scope or Scope())
    with hiding_logs(hidden), hiding_values(hidden), opened as run:
        yield run


@contextmanager
def _open_run(
    catalog: Catalog, report_progress: ProgressCallback, start_workers: Callable[[], Workers], scope: Scope
) -> Iterator[Run]:
    import_dask()  # xarray imports it, too
    refuse_folders(catalog, ATLAS, STORE)
    refuse_read_only(catalog, ATLAS, STORE)
    with held_store(folder_of(catalog, STORE), RUN_PURPOSE), remotely_locked(catalog, RUN_PURPOSE) as token:
        store = unit_store(catalog, token)
        store.sweep()
        with locked_atlas(folder_of(catalog, ATLAS), RUN_PURPOSE):
            sweep(folder_of(catalog, ATLAS))
        workers = start_workers()
        try:
            with logged(Run(catalog, store, workers, report_progress, scope=scope)) as run:
                # Copies of remote units are checked, and fetched again, when they are read.
                quarantined = () if catalog.atlas.remote else quarantine_corrupt(store)
                run.notes["quarantined"] = [f"{one.place}: {one.description}" for one in quarantined]
                before = published_convention(folder_of(catalog, ATLAS))
                if before not in (None, CONVENTION):
                    conventions = f"published atlas: convention {before}, this version: {CONVENTION}"
                    run.notes["convention"] = [f"{conventions}. Everything is computed again."]
                yield run
                if not catalog.atlas.remote:
                    quarantine_unfinished(store)
        finally:
            workers.close()


def _workers(catalog: Catalog, in_process: bool, announce: Callable[[str], None] | None) -> Workers:
    if in_process:
        return InProcess(memory_limit(catalog, among=1))
    if isinstance(catalog.cluster, LocalCluster):
        return LocalDask(n_workers(catalog), memory_limit(catalog), announce)
    # Its client takes a second to import: with nothing to do no run needs it.
    from lfm_tasks.workers.remote import RemoteDask

    return RemoteDask(catalog, announce)


@contextmanager
def logged(run: Run) -> Iterator[Run]:
    """Give the run while its log, ``runs/<time>.json`` in the store, records the stages and how the run ends.

    The outcome in the log is ``unfinished`` until the run ends; a run that is killed stays unfinished.
    """
    started_at, start = datetime.now(UTC), time.monotonic()
    # No colons: some file systems do not take them in a name.
    path = run.store.root / "runs" / f"{started_at:%Y%m%dT%H%M%S.%fZ}.json"
    facts: dict[str, Any] = {"version": LOG_VERSION, "started": started_at.isoformat(), "ended": None}
    facts |= {"outcome": "unfinished"} | _settings(run)
    facts |= {"versions": versions() | {name: version(name) for name in _ORCHESTRATION}, "host": _host()}
    _write(path, facts)
    stages: dict[str, tuple[float, float]] = {}
    peaks: dict[str, int] = {}

    def report_progress(stage: str, n_done: int, n_jobs: int) -> None:
        now = time.monotonic()
        stages[stage] = (stages.get(stage, (now, now))[0], now)
        peaks[stage] = run.workers.peak_bytes
        run.report_progress(stage, n_done, n_jobs)

    def end(outcome: str, **more: str) -> None:
        facts["ended"], facts["seconds"] = datetime.now(UTC).isoformat(), round(time.monotonic() - start, 3)
        # Of each stage the highest so far of any worker: it never falls from one stage to the next.
        facts["worker_peak_bytes"] = peaks
        facts["stages"] = {stage: round(last - first, 3) for stage, (first, last) in stages.items()}
        notes = {name: _hide_values(note, run.catalog.hidden) for name, note in (run.notes | more).items()}
        _write(path, facts | asdict(run.stage_counts) | notes | {"outcome": outcome})

    try:
        yield replace(run, report_progress=report_progress)
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt | SystemExit)
        # The error that ended the run must come through, not that of a full disk that its log meets as well.
        with suppress(OSError):
            end("stopped" if stopped else "failed", error=f"{type(error).__name__}: {error}")
        raise
    end("done")


def _hide_values(note: Any, hidden: HiddenValues) -> Any:
    """Return a note for the log with values of the environment hidden in all its texts."""
    if isinstance(note, str):
        return hidden(note)
    if isinstance(note, dict):
        return {name: _hide_values(part, hidden) for name, part in note.items()}
    return [_hide_values(part, hidden) for part in note] if isinstance(note, list | tuple) else note


def _settings(run: Run) -> dict[str, Any]:
    return {
        "folder": str(run.catalog.root.absolute()),
        "atlas": run.catalog.hide_values(str(run.atlas_folder.absolute())),
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
        # What control groups leave of these, and who says so.
        "usable_cores": asdict(cores()),
        "usable_memory_bytes": asdict(memory()),
    }


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):  # not every system says
        return None


def _write(path: Path, facts: Mapping[str, Any]) -> None:
    atomic_write(path, json.dumps(facts, indent=1, ensure_ascii=False).encode())
