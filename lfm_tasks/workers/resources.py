"""Which workers a job may go to, where they differ in size: Dask's resource ``MEMORY``, in bytes.

A worker has one job at a time, which gets all of it. Jobs that every worker can hold ask for nothing: Dask hands such
out one by one, while those that ask for something wait at their worker, and are blamed with it if it dies.
"""

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lfm_tasks.catalog import Catalog
from lfm_tasks.catalog.cluster import AddressCluster, KubernetesCluster, LocalCluster, SlurmCluster

MEMORY = "MEMORY"


def declare_memory(worker: Any) -> None:
    """Let a worker that has not reported to its scheduler yet say what it may take, if it was told no other size."""
    if limit := worker.memory_manager.memory_limit:
        for resources in (worker.state.total_resources, worker.state.available_resources):
            resources.setdefault(MEMORY, limit)


def group_by_memory(
    client: Any, numbers: Sequence[int], needs: Sequence[int]
) -> Iterator[tuple[dict[str, int] | None, list[int]]]:
    """Yield numbers of jobs by what their workers have to have: nothing where no worker says that it is too small.

    Nothing, too, where none says that it is large enough: a task that asks for what nobody has would wait for ever.
    """
    steps = sorted({size for size in worker_sizes(client) if size is not None} if needs else ())
    groups: dict[int, list[int]] = {}
    for number in numbers:
        fitting = [size for size in steps if size >= needs[number]]
        groups.setdefault(fitting[0] if 0 < len(fitting) < len(steps) else 0, []).append(number)
    for size, own in sorted(groups.items(), reverse=True):
        yield {MEMORY: size} if size else None, own


def worker_sizes(client: Any) -> list[int | None]:
    """Return the memory (bytes) that each worker has declared, None for one that has not."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    declared = [own["resources"].get(MEMORY) for own in workers]
    return [None if size is None else int(size) for size in declared]


def n_workers(catalog: Catalog) -> int:
    """Return how many workers a run has at most; 1 where only the scheduler at an address knows."""
    cluster = catalog.cluster
    if isinstance(cluster, LocalCluster):
        return cluster.n_workers or len(os.sched_getaffinity(0))
    return 1 if isinstance(cluster, AddressCluster) else cluster.bounds[1]


def memory_limit(catalog: Catalog, among: int | None = None) -> int | None:
    """Return the bytes that a worker may take: as the catalog says, or the machine's memory by the workers.

    None where others say it: the owners of a Gateway, or of workers that run already.
    """
    cluster = catalog.cluster
    if isinstance(cluster, LocalCluster):
        said = cluster.memory_limit
        if said is None or said == "auto":
            return machine_bytes() // (among or n_workers(catalog))
        return _bytes(said)
    if isinstance(cluster, SlurmCluster):
        return _bytes(cluster.memory) // cluster.workers_per_job
    return _bytes(cluster.memory) if isinstance(cluster, KubernetesCluster) else None


def machine_bytes() -> int:
    """Return the memory of this machine, or what its container may take."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            found = min(found, int((Path("/sys/fs/cgroup") / name).read_text()))
    return found


def peak_bytes() -> int:
    """Return the highest memory that this process had, in bytes.

    ``ru_maxrss`` is no good for that on Linux: a new process starts with what its parent had.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most << 10
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) << 10


def _bytes(said: str) -> int:
    number, unit = re.fullmatch(r"([\d.]+) ?(.*)", said).groups()  # type: ignore[union-attr] # the catalog checked it
    power = " KMGT".index(unit[0]) if unit != "B" else 0
    return int(float(number) * (1024 if "i" in unit else 1000) ** power)
