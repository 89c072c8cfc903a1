"""What a run would do, in words: what is there, what is missing, how long it takes, how much memory and disk."""

import time
from collections.abc import Mapping, Sequence

import numpy as np
from threadpoolctl import threadpool_limits

from lfm_tasks.catalog import Catalog
from lfm_tasks.planning.estimate import Missing, missing
from lfm_tasks.runtime.cost_table import PRODUCT_SECONDS, SECONDS, WORKER_BYTES
from lfm_tasks.runtime.load import Load
from lfm_tasks.stages.inventory.stage import Zoo
from lfm_tasks.workers.memory import memory_limit, n_workers

# Of one process, whatever there is to do: starting, reading the catalog.
_IN_THE_RUN = "atlas"
_WORDS = {
    "activations": "{missing} to record, {there} kept",
    "bases": "{missing} to compute, {there} kept",
    "scores": "{missing} pairs to compute, {there} kept, each in both directions",
    "collection": "{missing} to fit, {there} kept",
    "maps": "{missing} to keep of the most alike, {there} kept",
    "transfers": "{missing} maps to fit, {there} kept",
    "embeddings": "{missing} pictures to draw, {there} kept",
    "atlas": "{missing} to publish, {there} as it is",
}


def plan_run(catalog: Catalog, zoo: Zoo) -> list[str]:
    """Return the plan in lines; nothing is computed or written, and one short product is timed."""
    stages = [own for own in missing(catalog, zoo) if own.n_missing or own.n_there]
    speed = machine_speed()
    lines = [
        *catalog.warnings(),
        f"spaces       {len(zoo.spaces)} ({len(zoo.failures)} models or layers cannot be used: see lfm-atlas validate)",
    ]
    for own in stages:
        said = _WORDS[own.stage].format(missing=own.n_missing, there=own.n_there)
        lines.append(f"{own.stage:<12} {said}{_costs(own, speed) if own.n_missing else ''}")
    workers = n_workers(catalog)
    ceiling, what = worker_ceiling(stages)
    limit = memory_limit(catalog)
    written = sum(own.load.written_bytes for own in stages)
    needed = _time(predicted_seconds(stages, workers, speed))
    lines.append(f"time         about {needed} with {workers} worker{'s' if workers > 1 else ''}")
    of = f" ({what})" if what else ""
    lines.append(f"memory       at most {_size(ceiling)} a worker{of}{f', of {_size(limit)}' if limit else ''}")
    lines.append(f"written      {_size(written)}")
    return lines


def predicted_seconds(stages: Sequence[Missing], workers: int, speed: float = 1.0) -> float:
    """Return the seconds of a whole run by some workers: tasks side by side, the atlas in the run's own process."""
    total = SECONDS.get("run", 0.0)
    for own in stages:
        at_once = 1 if own.stage == _IN_THE_RUN else max(1, min(workers, own.load.tasks))
        total += load_seconds(own.load) / at_once
    has_tasks = any(own.load.tasks for own in stages if own.stage != _IN_THE_RUN)
    return speed * (total + (SECONDS.get("workers", 0.0) if has_tasks else 0.0))


def load_seconds(load: Load, seconds: Mapping[str, float] = SECONDS) -> float:
    """Return the CPU seconds of a load on the machine of the table."""
    return sum(seconds.get(name, 0.0) * amount for name, amount in load.work.items())


def worker_ceiling(stages: Sequence[Missing]) -> tuple[int, str]:
    """Return the most bytes that a worker takes, and what it is doing then."""
    highest, what, stays = WORKER_BYTES, "", 0
    for own in stages:
        if own.stage == _IN_THE_RUN or not own.load.tasks:
            continue
        needed = WORKER_BYTES + own.load.peak_bytes + max(0, stays - own.load.staying_bytes)
        stays = max(stays, own.load.staying_bytes)
        if needed > highest:
            highest, what = needed, f"{own.stage}: {own.load.peak_of}"
    return highest, what


def machine_speed() -> float:
    """Return how much slower this machine is than that of the table, by one product."""
    return product_seconds() / PRODUCT_SECONDS


def product_seconds() -> float:
    """Return the CPU seconds of a product of 1024 x 1024 float32 on one thread, best of 5: other work hardly counts."""
    rows = np.ones((1024, 1024), dtype=np.float32)
    spent = []
    with threadpool_limits(1):
        for _ in range(5):
            start = time.thread_time()
            rows @ rows
            spent.append(time.thread_time() - start)
    return min(spent)


def _costs(own: Missing, speed: float) -> str:
    load = own.load
    tasks = f"{load.tasks} task{'s' if load.tasks != 1 else ''}"
    return f": {tasks}, {_time(speed * load_seconds(load))}, {_size(load.written_bytes)}"


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{max(seconds, 0.1):.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _size(n_bytes: float) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}"
        n_bytes /= 1024
    return f"{n_bytes:.1f} GiB"
