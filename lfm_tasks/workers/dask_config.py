"""Dask's settings on every cluster that a run starts; ``deploy/dask.yaml`` holds them for other clusters.

The user's own settings of Dask (``~/.config/dask``, ``/etc/dask``, ``DASK_...``) are made for other programs: one line
of them lets workers end after seconds, or demands certificates of a cluster that has others. Local clusters ignore
them; clusters of the user get what stands in `HONORED`.
"""

import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

from lfm_tasks.stores.units.durable import atomic_write

# One thread a worker: sums in another order would change the last bits.
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
# Dask's own 64 KiB give every array back to the system as soon as it is freed: the page faults of the next one cost
# more than a third of the CPU time of a basis. These are the values that glibc reaches by itself where none are set.
MALLOC = {"MALLOC_TRIM_THRESHOLD_": str(64 << 20), "MALLOC_MMAP_THRESHOLD_": str(32 << 20)}

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
    # Blocks list their pairs, 15 bytes each: Dask warns of 10 MB, with advice for arrays.
    "distributed.admin.large-graph-warning-threshold": "1TB",
    "distributed.worker.memory.target": 0.6,
    "distributed.worker.memory.spill": 0.7,
    # A worker has one task at a time and keeps no results: paused with much memory in use it would wait for ever.
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
    "distributed.worker.preload": ["lfm_tasks.workers.pool"],
    "distributed.nanny.pre-spawn-environ": THREADS | MALLOC,
    # Nobody sees it, and it takes 2 % of a worker's time.
    "distributed.worker.profile.enabled": False,
    # No dashboard: nothing listens that no user started.
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
}


# What counts of the user's settings where the cluster is not ours alone: how to get in, and how long to wait.
HONORED = (
    "distributed.comm.tls",
    "distributed.comm.require-encryption",
    "distributed.comm.timeouts",
    "gateway",
    "jobqueue.slurm",
    "temporary-directory",
)


# What the scheduler of a run with a dashboard serves: pages to look at, nothing that changes or forwards anything.
DASHBOARD_SETTINGS: Mapping[str, Any] = {
    "distributed.scheduler.http.routes": [
        "distributed.http.scheduler.info",
        "distributed.http.health",
        "distributed.http.statics",
    ]
}


class DaskSettingsError(RuntimeError):
    """Settings of Dask that the user wrote cannot be read."""


def import_dask() -> None:
    """Import Dask without the user's settings: it reads them when it is imported, and ends if one is no YAML.

    Call it before the first import of ``dask`` or ``distributed`` in a process; later it does nothing.
    """
    if "dask" in sys.modules:
        return
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith("DASK_")]:
        del os.environ[name]
    os.environ |= {"HOME": os.devnull, "DASK_ROOT_CONFIG": os.devnull}
    try:
        import dask.config
    except ValueError as error:  # in the folder of this Python, which no variable hides
        raise DaskSettingsError(_sentence(error)) from error
    finally:
        for name in ("HOME", "DASK_ROOT_CONFIG"):
            os.environ.pop(name)
        os.environ |= before
    dask.config.PATH = os.path.join(os.path.expanduser("~"), ".config", "dask")  # libraries write templates there
    # Other parts of Dask that read its files again, such as a worker that starts, find none.
    dask.config.paths.clear()
    dask.config.refresh(env={})


@contextmanager
def dask_settings(of_the_user: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Have this process follow Dask's defaults, `DASK_SETTINGS` and ``of_the_user``, and nothing else, in the block.

    The lines of a scheduler in this process stay out of its log.
    """
    import_dask()
    import dask

    before = deepcopy(dask.config.config)
    settings = _defaults()
    # A copy: where Bokeh is missing, Dask's scheduler adds a route to the very list that it gets.
    dask.config.set(deepcopy(DASK_SETTINGS), config=settings)
    dask.config.set(dict(of_the_user or {}), config=settings)
    _replace_settings(settings)
    # Prefect's logging setup would let every line of the scheduler through.
    logging.getLogger("distributed").setLevel(logging.ERROR)
    try:
        yield
    finally:
        # With the defaults of libraries that were imported in the block.
        settings = _defaults()
        dask.config.update(settings, before)
        _replace_settings(settings)


def _defaults() -> dict[str, Any]:
    """Return the default settings of Dask and its libraries."""
    import dask

    settings: dict[str, Any] = {}
    dask.config.refresh(config=settings, paths=[], env={})
    return settings


def _replace_settings(settings: Mapping[str, Any]) -> None:
    """Give this process other settings of Dask, a section at a time.

    ``dask.config.refresh`` empties them first: a scheduler or worker in another thread of this process that looks for
    one at that moment stops with a KeyError, and its work is waited for without end.
    """
    import dask

    current = dask.config.config
    current.update(settings)
    for name in current.keys() - settings.keys():
        del current[name]


def honored_settings() -> dict[str, Any]:
    """Return the settings in `HONORED` that the user's files and variables set, by their dotted names.

    Raises
    ------
    DaskSettingsError
        If a file is no YAML, or a time is none.
    """
    import_dask()
    import dask
    from dask.utils import parse_timedelta

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old names of other settings
            collected = dask.config.collect(paths=dask.config._get_paths())
    except ValueError as error:
        raise DaskSettingsError(_sentence(error)) from error
    found = {name: value for name, value in _leaves(collected) if _is_honored(name)}
    for name, value in found.items():
        if name.startswith("distributed.comm.timeouts"):
            try:
                parse_timedelta(value)
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                problem = f"got {value!r} as Dask's setting {name}, expected a time such as 30s"
                raise DaskSettingsError(f"{problem}. Correct it in ~/.config/dask or its DASK_... variable.") from error
    return found


def _leaves(settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{name}.")
        else:
            yield name, value


def _is_honored(name: str) -> bool:
    plain = name.replace("_", "-")
    return any(plain == honored or plain.startswith(f"{honored}.") for honored in HONORED)


def _sentence(error: Exception) -> str:
    return f"got settings that Dask cannot read ({' '.join(str(error).split())}). Correct that file, or move it away."


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


def write_settings(folder: Path, settings: Mapping[str, Any] = DASK_SETTINGS) -> Path:
    """Write settings, by their dotted names, as a file for ``DASK_CONFIG`` and return its path."""
    nested: dict[str, Any] = {}
    for name, value in settings.items():
        *groups, last = name.split(".")
        level = nested
        for group in groups:
            level = level.setdefault(group, {})
        level[last] = value
    path = folder / "dask.json"
    atomic_write(path, json.dumps(nested, indent=1).encode())
    return path
