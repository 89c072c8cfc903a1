"""The memory of a worker: what a run would take of it is told, and refused, before any work starts."""

from collections.abc import Iterator
from dataclasses import replace

from lfm_tasks.planning.estimate import Outlook, missing_activations, missing_bases
from lfm_tasks.reasons import TooLargeError
from lfm_tasks.runtime.load import USABLE, Load, worker_bytes
from lfm_tasks.runtime.run import Run
from lfm_tasks.stages.inventory.requests import Asked, spaces_now
from lfm_tasks.stages.inventory.stage import Zoo
from lfm_tasks.stages.scores.block import PART_SIDE
from lfm_tasks.stages.scores.cost import pair_work, part_load

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
