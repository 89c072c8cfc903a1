"""The memory of a worker: what a run would take of it is told, and refused, before any work starts."""

from collections.abc import Iterator
from dataclasses import replace

from lfm_tasks.reasons import TooLargeError
from lfm_tasks.stages.asked import Asked, spaces_now
from lfm_tasks.stages.cost_table import WORKER_BYTES
from lfm_tasks.stages.costs import Load
from lfm_tasks.stages.missing import Outlook, missing_activations, missing_bases, pair_work
from lfm_tasks.stages.pair_costs import block_load
from lfm_tasks.stages.run import Run
from lfm_tasks.stages.scores import BLOCK_SIDE
from lfm_tasks.stages.validate import Zoo

# Of its limit; a worker with more is ended.
USABLE = 0.95
_WAYS_OUT = {
    "activations": "store its file uncompressed and in C order, record fewer layers of the model",
    "bases": "set atlas.graph.landmarks to a number of points, lower atlas.max_points",
    "scores": "lower atlas.max_points, ask for fewer measures or compare fewer spaces",
}


def refuse_oversized(run: Run, zoo: Zoo) -> None:
    """Raise `TooLargeError` if a task of this run would take more memory than a worker may.

    What is there already takes none. Pairs are not counted out: 32 of the largest spaces that have any new partner.
    """
    now = spaces_now(zoo.parts, run.scope)
    outlook = Outlook(run.catalog, replace(zoo, spaces=tuple(own for own in zoo.spaces if own.space in now)), run.store)
    limit = run.workers.memory_limit
    stays = 0
    for stage, load in _loads(outlook):
        needed = WORKER_BYTES + load.peak_bytes + max(0, stays - load.staying_bytes)
        stays = max(stays, load.staying_bytes)
        if limit is not None and needed > USABLE * limit:
            found = f"{stage} of {load.peak_of} would take {_mib(needed)} of a worker's {_mib(limit)}"
            most = f"needs at most {USABLE:.0%} of it"
            ways = f"{_WAYS_OUT[stage]}, or raise cluster.memory_limit (fewer cluster.n_workers leave more to each)"
            raise TooLargeError(f"{found}, {most}: {ways}; nothing was computed")


def _loads(outlook: Outlook) -> Iterator[tuple[str, Load]]:
    yield "activations", missing_activations(outlook).load
    bases = missing_bases(outlook)
    yield "bases", bases.load
    for part in outlook.zoo.parts if bases.n_missing else ():
        sizes = [outlook.sizes[space] for space in part.spaces() if space in outlook.sizes]
        largest = sorted(sizes, key=lambda size: size.n_points * (size.n_features + 50))[-2 * BLOCK_SIDE :]
        if largest:
            how = pair_work(outlook.catalog, Asked(frozenset(part.measures), part.knowledge))
            yield "scores", block_load(largest, BLOCK_SIDE**2, how)


def _mib(n_bytes: float) -> str:
    return f"{n_bytes / 2**20:,.0f} MiB"
