"""Workers as SLURM jobs: the only module that imports dask-jobqueue.

The scheduler runs in the process of the run, with new certificates each time.
"""

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
from dask.distributed import Security
from dask_jobqueue import SLURMCluster

from lfm_tasks.catalog import Catalog
from lfm_tasks.catalog.cluster import SlurmCluster
from lfm_tasks.workers.dask_config import write_settings
from lfm_tasks.workers.local_cluster import ClosedScheduler, scratch_folder

# On each node a folder for Dask's files that only this user can enter: see `scratch_folder`.
PRIVATE_SCRATCH = (
    'export DASK_TEMPORARY_DIRECTORY="$(mktemp -d)"',
    "trap 'rm -rf \"$DASK_TEMPORARY_DIRECTORY\"' EXIT",
)
# Jobs get the variables of the run: those of Dask would win over our settings. In any shell that a job may have.
NO_SETTINGS = "unset $(env | sed -n 's/^\\(DASK_[A-Za-z0-9_]*\\)=.*/\\1/p')"
# Jobs start where the run was, and there Python and numba would find modules and settings.
SAFE_PATH = 'export PYTHONSAFEPATH=1 NUMBA_CACHE_DIR="${NUMBA_CACHE_DIR-}"'


@contextmanager
def open_cluster(catalog: Catalog) -> Iterator[Mapping[str, Any]]:
    """Give the arguments of its client; its jobs are cancelled when the block ends."""
    cluster = catalog.cluster
    assert isinstance(cluster, SlurmCluster)  # noqa: S101 - for mypy
    folder = (catalog.root / catalog.atlas.store / "slurm").absolute()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # keys of the certificates lie in it
    with dask.config.set(scheduler_settings(cluster)), SLURMCluster(**options(cluster, folder)) as started:
        minimum, maximum = cluster.bounds
        # Adapt even to a fixed number: that brings back a worker whose job was cancelled, which scale does not.
        started.adapt(minimum=minimum, maximum=maximum, interval="5s")
        yield {"address": started}


def scheduler_settings(cluster: SlurmCluster) -> dict[str, Any]:
    """Return the scheduler's settings that differ from `DASK_SETTINGS`: jobs may wait in the queue for long."""
    return {"distributed.scheduler.no-workers-timeout": f"{cluster.wait_seconds}s"}


def options(cluster: SlurmCluster, folder: Path) -> dict[str, Any]:
    """Return the arguments of ``SLURMCluster``; ``folder``, which all nodes see, holds settings and logs."""
    return {
        "interface": cluster.interface,
        "security": Security.temporary(),
        "protocol": "tls://",
        "shared_temp_directory": str(folder),
        "scheduler_cls": ClosedScheduler,
        "scheduler_options": {"dashboard": False, "local_directory": str(scratch_folder())},
        "cores": cluster.workers_per_job,
        "processes": cluster.workers_per_job,
        "memory": cluster.memory,
        "walltime": cluster.walltime,
        "queue": cluster.partition,
        "account": cluster.account,
        "job_name": "lfm-atlas",
        "log_directory": str(folder),
        "death_timeout": 120,
        "job_extra_directives": list(cluster.directives),
        # Modules to load, for example, stand in the user's jobqueue.yaml.
        "job_script_prologue": [
            NO_SETTINGS,
            *(dask.config.get("jobqueue.slurm.job-script-prologue", None) or []),
            f"export DASK_CONFIG={shlex.quote(str(write_settings(folder, _settings_of_workers())))}",
            *PRIVATE_SCRATCH,
            SAFE_PATH,
        ],
        "silence_logs": "ERROR",
    }


def _settings_of_workers() -> Mapping[str, Any]:
    """Return all of distributed's settings that hold in this process, so that no file on a node says otherwise."""
    return {f"distributed.{name}": value for name, value in dask.config.get("distributed").items()}
