"""The number of workers of a run, the memory of each, and the assignment of jobs to them.

Where workers differ in size, each declares its memory as Dask's resource ``MEMORY``, in bytes. A worker has one job at
a time, which gets all of it. A job that every worker can hold requests none: Dask hands out such jobs one by one,
while jobs with a request wait at their worker, and are suspects with it if it dies. A worker that has a GPU to itself
offers ``GPU``, and on a local cluster also its name, such as ``cuda:1``: a job on a GPU requests them.
"""

import os
import re
import resource
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lfm_tasks.catalog import Catalog
from lfm_tasks.catalog.cluster import AddressCluster, KubernetesCluster, LocalCluster, SlurmCluster
from lfm_tasks.workers.cgroups import Limit, cpu_quota, group_memory

MEMORY, GPU = "MEMORY", "GPU"
# Of a worker of this machine: what it takes before any task, and as much again.
LEAST_BYTES = 400 << 20


def declare_memory(worker: Any) -> None:
    """Have a worker, before it reports to its scheduler, declare its memory limit, unless it declares another size."""
    if limit := worker.memory_manager.memory_limit:
        for resources in (worker.state.total_resources, worker.state.available_resources):
            resources.setdefault(MEMORY, limit)


def offered_gpus(worker: int, n_workers: int, n_gpus: int) -> dict[str, int]:
    """Return the resources of one worker of a local cluster: the GPUs are dealt to the workers in turn.

    Parameters
    ----------
    worker
        Its number, from 0.
    n_workers, n_gpus
        How many of each the machine has.

    Examples
    --------
    >>> offered_gpus(1, n_workers=2, n_gpus=4)
    {'GPU': 1, 'cuda:1': 1, 'cuda:3': 1}
    >>> offered_gpus(1, n_workers=2, n_gpus=1)
    {}
    """
    own = [f"cuda:{gpu}" for gpu in range(worker, n_gpus, n_workers)]
    return dict.fromkeys((GPU, *own), 1) if own else {}


def group_by_request(
    client: Any, indices: Sequence[int], needs: Sequence[int], devices: Sequence[str] = ()
) -> Iterator[tuple[dict[str, int] | None, list[int]]]:
    """Yield the resources that jobs request, and the indices of these jobs.

    A job requests its GPU, and the smallest declared memory that holds it. It requests no memory where every worker
    that has its GPU is large enough, and where none is: a job whose request nobody meets would wait for ever.

    Parameters
    ----------
    client
        Knows the workers.
    indices
        The jobs.
    needs
        The memory (bytes) that each job needs, by index; empty if unknown.
    devices
        The device of each job, by index; empty if all run on CPUs.

    Raises
    ------
    LookupError
        If a job runs on a GPU and no worker offers one.
    """
    offers = _offers(client)
    groups: dict[tuple[int, tuple[str, ...]], list[int]] = {}
    for index in indices:
        gpus = _requested_gpus(devices[index], offers) if devices else ()
        fit = [offer for offer in offers if all(offer.get(gpu) for gpu in gpus)]
        sizes = sorted({int(offer[MEMORY]) for offer in fit if MEMORY in offer} if needs else ())
        fitting = [size for size in sizes if size >= needs[index]]
        size = fitting[0] if 0 < len(fitting) < len(sizes) else 0
        groups.setdefault((size, gpus), []).append(index)
    for (size, gpus), members in sorted(groups.items(), reverse=True):
        yield dict.fromkeys(gpus, 1) | ({MEMORY: size} if size else {}) or None, members


def _requested_gpus(device: str, offers: Sequence[Mapping[str, float]]) -> tuple[str, ...]:
    """Return the resources that a job on ``device`` requests; ``cuda:1`` by its name only where workers offer names."""
    if device == "cpu":
        return ()
    named = {name for offer in offers for name in offer}
    if GPU not in named:
        problem = f"got recordings on device: {device} and no worker that offers a GPU, expected at least one"
        raise LookupError(f"{problem}. Start the workers that have one with --resources GPU=1, or set device: cpu")
    return (GPU, device) if device in named else (GPU,)


def worker_sizes(client: Any) -> list[int | None]:
    """Return the memory (bytes) that each worker has declared, None for one that has not."""
    return [int(offer[MEMORY]) if MEMORY in offer else None for offer in _offers(client)]


def _offers(client: Any) -> list[Mapping[str, float]]:
    return [worker["resources"] for worker in client.scheduler_info(n_workers=-1)["workers"].values()]


def n_workers(catalog: Catalog) -> int:
    """Return how many workers a run has at most; 1 where only the scheduler at an address knows."""
    cluster = catalog.cluster
    if isinstance(cluster, LocalCluster):
        return cluster.n_workers or int(_local_workers().value)
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
            share = machine_bytes() // (among or n_workers(catalog))
            return min(share, int(process_memory().value))
        return _bytes(limit)
    if isinstance(cluster, SlurmCluster):
        return _bytes(cluster.memory) // cluster.workers_per_job
    return _bytes(cluster.memory) if isinstance(cluster, KubernetesCluster) else None


def what_limits(catalog: Catalog) -> tuple[str, str]:
    """Return, for local workers, what sets their number and their memory below the machine's; "" where nothing does."""
    cluster = catalog.cluster
    if not isinstance(cluster, LocalCluster):
        return "", ""
    of_workers = _local_workers().said_by if cluster.n_workers is None else ""
    if cluster.memory_limit not in (None, "auto"):
        return of_workers, ""
    alone, shared = process_memory(), memory()
    return of_workers, alone.said_by if alone.value < shared.value // n_workers(catalog) else shared.said_by


def _local_workers() -> Limit:
    """Return how many workers this machine holds: one a core, but none with less than `LEAST_BYTES`."""
    by_cores, shared = cores(), memory()
    most = max(1, shared.value // LEAST_BYTES)
    if most < by_cores.value:
        return Limit(most, f"{shared.said_by or 'the memory of this machine'}: {LEAST_BYTES >> 20} MiB a worker")
    return Limit(max(1, int(by_cores.value)), by_cores.said_by)


def cores() -> Limit:
    """Return how many cores this process may keep busy: those that it may run on, or fewer by a CPU quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    return Limit(allowed, "") if quota is None or quota.value >= allowed else quota


def memory() -> Limit:
    """Return the bytes that all processes of a run may take together: the machine's, or fewer by a control group."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    group = group_memory()
    return Limit(whole, "") if group is None or group.value >= whole else group


def process_memory() -> Limit:
    """Return the bytes that one process may take: infinite, or by ``ulimit -v`` or ``ulimit -d``."""
    limits = (("-v", resource.RLIMIT_AS), ("-d", resource.RLIMIT_DATA))
    found = [Limit(soft, f"ulimit {option}") for option, which in limits if (soft := resource.getrlimit(which)[0]) >= 0]
    return min(found, key=lambda limit: limit.value, default=Limit(sys.maxsize, ""))


def machine_bytes() -> int:
    """Return the memory of this machine, or what a control group (a container, a SLURM job) leaves of it."""
    return int(memory().value)


def peak_bytes() -> int:
    """Return the highest memory that this process has had, in bytes.

    ``ru_maxrss`` is useless for that on Linux: a new process starts with that of its parent.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak << 10
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) << 10


def _bytes(size: str) -> int:
    number, unit = re.fullmatch(r"([\d.]+) ?(.*)", size).groups()  # type: ignore[union-attr] # the catalog checked it
    power = " KMGT".index(unit[0]) if unit != "B" else 0
    return int(float(number) * (1024 if "i" in unit else 1000) ** power)
