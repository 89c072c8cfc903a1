"""Dask's settings on every cluster that a run starts; ``deploy/dask.yaml`` has them for clusters started by hand."""

import json
from pathlib import Path
from typing import Any

from lfm_tasks.stores.units.durable import atomic_write

# One thread a worker: sums in another order would change the last bits.
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")

DASK_SETTINGS: dict[str, Any] = {
    "distributed.comm.timeouts.connect": "60s",
    "distributed.comm.timeouts.tcp": "120s",
    # Each try to fetch a result from a worker that has just died may take as long as a connection: one is enough, since
    # the job runs again.
    "distributed.comm.retry.count": 0,
    "distributed.scheduler.allowed-failures": 3,
    # Without this, a cluster whose workers are all gone waits for ever.
    "distributed.scheduler.no-workers-timeout": "60s",
    "distributed.scheduler.worker-saturation": 1.0,
    "distributed.worker.memory.target": 0.6,
    "distributed.worker.memory.spill": 0.7,
    # A worker has one task at a time and keeps no results: paused with much memory in use it would wait for ever.
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
    "distributed.worker.preload": ["lfm_tasks.workers.pool"],
    "distributed.nanny.pre-spawn-environ": THREADS | {"MALLOC_TRIM_THRESHOLD_": "65536"},
    # No dashboard: nothing listens that no user started.
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
}


def as_variables(*prefixes: str) -> dict[str, str]:
    """Return the settings whose names start with one of the prefixes, as environment variables.

    Examples
    --------
    >>> as_variables("distributed.worker.memory.pause")
    {'DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE': 'False'}
    """
    return {
        f"DASK_{name.upper().replace('.', '__').replace('-', '_')}": str(value)
        for name, value in DASK_SETTINGS.items()
        if name.startswith(prefixes)
    }


def write_settings(folder: Path) -> Path:
    """Write the settings as a file for ``DASK_CONFIG`` and return its path."""
    nested: dict[str, Any] = {}
    for name, value in DASK_SETTINGS.items():
        *groups, last = name.split(".")
        level = nested
        for group in groups:
            level = level.setdefault(group, {})
        level[last] = value
    path = folder / "dask.json"
    atomic_write(path, json.dumps(nested, indent=1).encode())
    return path
