"""What a run would do, in words: what is there, what is missing, how long it takes, how much memory and disk."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from threadpoolctl import threadpool_limits

from lfm_tasks.catalog import Catalog
from lfm_tasks.planning.estimate import Missing, Outlook, missing, missing_activations, missing_bases
from lfm_tasks.reasons import TooLargeError
from lfm_tasks.runtime.load import PRODUCT_SECONDS, SECONDS, USABLE, WORKER_BYTES, Load, worker_bytes
from lfm_tasks.runtime.run import Run
from lfm_tasks.stages.inventory.requests import Asked, spaces_now
from lfm_tasks.stages.inventory.stage import Zoo
from lfm_tasks.stages.scores.block import PART_SIDE
from lfm_tasks.stages.scores.cost import pair_work, part_load
from lfm_tasks.workers.resources import memory_limit, n_workers

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


_WAYS_OUT = {
    "activations": "store its file uncompressed and in C order, record fewer layers of the model",
    "bases": "set atlas.graph.landmarks to a number of points, lower atlas.max_points",
    "scores": "lower atlas.max_points, ask for fewer measures or compare fewer spaces",
}

MORE_MEMORY = {
    "local": "raise cluster.memory_limit (fewer cluster.n_workers leave more to each)",
    "slurm": "raise cluster.memory, or lower cluster.workers_per_job",
    "kubernetes": "raise cluster.memory",
    "gateway": "ask for larger workers in cluster.options",
    "address": "start a larger worker (dask worker --memory-limit)",
}


def refuse_oversized(run: Run, zoo: Zoo) -> None:
    """Raise `TooLargeError` if a task of this run would take more memory than a worker may.

    What is there already takes none. Pairs are not counted out: 32 of the largest spaces that have any new partner.
    """
    now = spaces_now(zoo.parts, run.scope)
    outlook = Outlook(run.catalog, replace(zoo, spaces=tuple(own for own in zoo.spaces if own.space in now)), run.store)
    stays = 0
    for stage, load in _loads(outlook):
        if not load.tasks:
            continue
        limit = run.workers.memory_limit  # asks a cluster that runs already, which a run without news leaves alone
        needed = worker_bytes(load, stays)
        stays = max(stays, load.staying_bytes)
        if limit is not None and needed > limit:
            found = f"{stage} of {load.peak_of} would take {_mib(USABLE * needed)} of a worker's {_mib(limit)}"
            most = f"needs at most {USABLE:.0%} of it"
            ways = f"{_WAYS_OUT[stage]}, or {MORE_MEMORY[run.catalog.cluster.type]}"
            raise TooLargeError(f"{found}, {most}: {ways}; nothing was computed")


def _loads(outlook: Outlook) -> Iterator[tuple[str, Load]]:
    yield "activations", missing_activations(outlook).load
    bases = missing_bases(outlook)
    yield "bases", bases.load
    for part in outlook.zoo.parts if bases.n_missing else ():
        sizes = [outlook.sizes[space] for space in part.spaces() if space in outlook.sizes]
        if sizes:
            how = pair_work(outlook.catalog.atlas, Asked(frozenset(part.measures), part.knowledge))
            yield "scores", part_load(sizes, PART_SIDE**2, how)


def _mib(n_bytes: float) -> str:
    return f"{n_bytes / 2**20:,.0f} MiB"
