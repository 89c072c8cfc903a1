"""The log of a run, beside the atlas and never in it: when, how long, with what, on what machine, how it ended."""

import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lfm_tasks.runtime.run import Run
from lfm_tasks.runtime.versions import versions
from lfm_tasks.stores.units.durable import write_durably

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
        _write(path, facts | asdict(run.tally) | run.notes | more | {"outcome": outcome})

    try:
        yield Run(run.catalog, run.store, run.workers, announce, run.tally, run.scope, run.notes)
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
    write_durably(path, json.dumps(facts, indent=1, ensure_ascii=False).encode())
