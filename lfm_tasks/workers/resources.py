"""How many workers a run has, how much memory each may take, and which jobs go to which of them.

Where workers differ in size, each declares its memory as Dask's resource ``MEMORY``, in bytes. A worker has one job at
a time, which gets all of it. A job that every worker can hold requests none: Dask hands out such jobs one by one,
while jobs with a request wait at their worker, and are suspects with it if it dies.
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
    """Have a worker, before it reports to its scheduler, declare its memory limit, unless it declares another size."""
    if limit := worker.memory_manager.memory_limit:
        for resources in (worker.state.total_resources, worker.state.available_resources):
            resources.setdefault(MEMORY, limit)


def group_by_memory(
    client: Any, indices: Sequence[int], needs: Sequence[int]
) -> Iterator[tuple[dict[str, int] | None, list[int]]]:
    """Yield the resources that jobs request, and the indices of these jobs.

    A job requests the smallest declared size that holds it. It requests nothing (None) where every worker is large
    enough, and where none is: a job whose request nobody meets would wait for ever.

    Parameters
    ----------
    client
        Knows the workers.
    indices
        The jobs.
    needs
        The memory (bytes) that each job needs, by index; empty if unknown.
    """
    sizes = sorted({size for size in worker_sizes(client) if size is not None} if needs else ())
    groups: dict[int, list[int]] = {}
    for index in indices:
        fitting = [size for size in sizes if size >= needs[index]]
        groups.setdefault(fitting[0] if 0 < len(fitting) < len(sizes) else 0, []).append(index)
    for size, members in sorted(groups.items(), reverse=True):
        yield {MEMORY: size} if size else None, members


def worker_sizes(client: Any) -> list[int | None]:
    """Return the memory (bytes) that each worker has declared, None for one that has not."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    declared = [worker["resources"].get(MEMORY) for worker in workers]
    return [None if size is None else int(size) for size in declared]


def n_workers(catalog: Catalog) -> int:
    """Return how many workers a run has at most; 1 where only the scheduler at an address knows."""
    cluster = catalog.cluster
    if isinstance(cluster, LocalCluster):
        return cluster.n_workers or len(os.sched_getaffinity(0))
    return 1 if isinstance(cluster, AddressCluster) else cluster.bounds[1]


def memory_limit(catalog: Catalog, among: int | None = None) -> int | None:
    """Return the bytes that a worker may take: as the catalog says, or its share of the machine's memory.

    None where a Gateway, or the owner of workers that run already, decides.

    Parameters
    ----------
    catalog
        Says what kind of cluster works, and how large its workers are.
    among
        How many workers share the machine; None: as many as the run has.
    """
    cluster = catalog.cluster
    if isinstance(cluster, LocalCluster):
        limit = cluster.memory_limit
        if limit is None or limit == "auto":
            return machine_bytes() // (among or n_workers(catalog))
        return _bytes(limit)
    if isinstance(cluster, SlurmCluster):
        return _bytes(cluster.memory) // cluster.workers_per_job
    return _bytes(cluster.memory) if isinstance(cluster, KubernetesCluster) else None


def machine_bytes() -> int:
    """Return the memory of this machine, or the limit of its container."""
    n_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            n_bytes = min(n_bytes, int((Path("/sys/fs/cgroup") / name).read_text()))
    return n_bytes


def peak_bytes() -> int:
    """Return the highest memory that this process has had, in bytes.

    ``ru_maxrss`` is useless for that on Linux: a new process starts with that of its parent.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak << 10
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) << 10


def _bytes(size: str) -> int:
    number, unit = re.fullmatch(r"([\d.]+) ?(.*)", size).groups()  # type: ignore[union-attr] # the catalog checked it
    power = " KMGT".index(unit[0]) if unit != "B" else 0
    return int(float(number) * (1024 if "i" in unit else 1000) ** power)
