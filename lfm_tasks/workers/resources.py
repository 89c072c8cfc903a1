"""Which workers a job may go to, where they differ in size: Dask's resource ``MEMORY``, in bytes.

A worker has one job at a time, which gets all of it. Jobs that every worker can hold ask for nothing: Dask hands such
out one by one, while those that ask for something wait at their worker, and are blamed with it if it dies.
"""

from collections.abc import Iterator, Sequence
from typing import Any

MEMORY = "MEMORY"


def declare_memory(worker: Any) -> None:
    """Let a worker that has not reported to its scheduler yet say what it may take, if it was told no other size."""
    if limit := worker.memory_manager.memory_limit:
        for resources in (worker.state.total_resources, worker.state.available_resources):
            resources.setdefault(MEMORY, limit)


def by_demand(
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
