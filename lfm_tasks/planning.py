"""What a run would do, in words: what is there, what is missing, how long it takes, how much memory and disk."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
from threadpoolctl import threadpool_limits

from lfm_tasks.catalog import Catalog
from lfm_tasks.errors import TooLargeError
from lfm_tasks.runtime.load import (
    PRODUCT_SECONDS,
    SECONDS,
    USABLE,
    WORKER_BYTES,
    Load,
    SpaceSize,
    total_load,
    worker_bytes,
)
from lfm_tasks.runtime.run import Run, unit_store
from lfm_tasks.spaces import Space
from lfm_tasks.stages.activations.cost import record_load
from lfm_tasks.stages.activations.stage import RecordedSpace, recorded_space
from lfm_tasks.stages.bases.cost import basis_load
from lfm_tasks.stages.bases.job import basis_method
from lfm_tasks.stages.bases.stage import basis_job
from lfm_tasks.stages.collection.cost import collection_load
from lfm_tasks.stages.embeddings.cost import embeddings_load
from lfm_tasks.stages.inventory.cost import likely, n_kept_maps
from lfm_tasks.stages.inventory.requests import PairRequest, embedded_spaces, requested_measures, spaces_now
from lfm_tasks.stages.inventory.stage import Zoo
from lfm_tasks.stages.kept_maps.cost import kept_maps_load
from lfm_tasks.stages.publish.cost import atlas_load
from lfm_tasks.stages.scores.block import PART_SIDE
from lfm_tasks.stages.scores.cost import block_load, pair_work, part_load
from lfm_tasks.stages.scores.pair_index import (
    all_settings,
    correspondence_of_maps,
    find_stored,
    pair_indexes,
    requested_pairs,
)
from lfm_tasks.stages.scores.stage import blocks
from lfm_tasks.stages.transfers.cost import transfers_load
from lfm_tasks.stages.transfers.job import MAX_POINTS, MapSide
from lfm_tasks.stages.transfers.stage import transfer_jobs, transfer_pairs
from lfm_tasks.stores.atlas.files import published_key
from lfm_tasks.stores.units.store import UnitStore
from lfm_tasks.workers.resources import memory_limit, n_workers


@dataclass(frozen=True)
class MissingWork:
    """One stage: how many of what are to be made, how many are there, and what the missing ones cost."""

    stage: str
    n_missing: int
    n_there: int
    load: Load


class WorkEstimate:
    """What is known before a run: recorded spaces by their receipts, all others by their headers."""

    def __init__(self, catalog: Catalog, zoo: Zoo, store: UnitStore) -> None:
        self.catalog, self.zoo, self.store = catalog, zoo, store
        self.recorded: dict[Space, RecordedSpace] = {
            planned.space: recorded_space(store, planned)
            for planned in zoo.spaces
            if store.has("activations", planned.key)
        }
        self.sizes: dict[Space, SpaceSize] = {
            planned.space: self._size(planned.space, planned.size) for planned in zoo.spaces
        }
        # What is not recorded yet has no basis: it goes by the key of its activations.
        self.keys: dict[Space, str] = {planned.space: planned.key for planned in zoo.spaces}
        self.keys |= {space: basis_job(store, catalog.atlas, own).key for space, own in self.recorded.items()}

    def _size(self, space: Space, size: SpaceSize) -> SpaceSize:
        if own := self.recorded.get(space):
            return replace(size, n_points=own.n_points, n_features=own.n_features)
        return likely(size)


def missing_work(catalog: Catalog, zoo: Zoo) -> list[MissingWork]:
    """Return every stage in order.

    What is recorded is known by its content, and so is all that follows from it. What is still to be recorded counts
    as new, although it may turn out to equal something that is there.
    """
    outlook = WorkEstimate(catalog, zoo, unit_store(catalog))
    found = [missing_activations(outlook), missing_bases(outlook), _scores(outlook)]
    is_new = any(own.n_missing for own in found)
    found += [
        _collection(outlook, is_new),
        _kept_maps(outlook, is_new),
        _transfers(outlook),
        _embeddings(outlook, is_new),
    ]
    is_new |= any(own.n_missing for own in found) or published_key(catalog.root / catalog.atlas.path) is None
    n_kept = found[4].n_missing + found[4].n_there
    n_points = max((size.n_points for size in outlook.sizes.values()), default=0)
    kept_bytes = n_kept * (4 * catalog.atlas.n_eigenpairs**2 + 8 * n_points)
    n_models = len({space.model for space in outlook.sizes})
    load = atlas_load(len(outlook.sizes), n_models, len(requested_measures(catalog)), kept_bytes)
    return [*found, MissingWork("atlas", int(is_new), int(not is_new), load if is_new else Load())]


def missing_activations(outlook: WorkEstimate) -> MissingWork:
    """Return the layers to record, a task a model."""
    unrecorded = [planned.space for planned in outlook.zoo.spaces if planned.space not in outlook.recorded]
    by_model = groupby(sorted(unrecorded, key=lambda space: space.model), key=lambda space: space.model)
    load = total_load(record_load([outlook.sizes[space] for space in own]) for _, own in by_model)
    return MissingWork("activations", len(unrecorded), len(outlook.recorded), load)


def missing_bases(outlook: WorkEstimate) -> MissingWork:
    """Return the bases to compute; spaces of the same content share one."""
    size_of = {outlook.keys[space]: outlook.sizes[space] for space in outlook.sizes}
    absent = {key: size for key, size in size_of.items() if not outlook.store.has("bases", key)}
    atlas = outlook.catalog.atlas
    load = total_load(
        basis_load(size, basis_method(atlas, size.n_points, size.n_features)) for _, size in sorted(absent.items())
    )
    return MissingWork("bases", len(absent), len(size_of) - len(absent), load)


def _scores(outlook: WorkEstimate) -> MissingWork:
    zoo, atlas = outlook.zoo, outlook.catalog.atlas
    pairs = requested_pairs(zoo.parts, outlook.keys)
    designs = {dataset: design.key for dataset, design in zoo.designs.items()}
    labels = {dataset: own.key for dataset, own in zoo.labels.items()}
    settings = all_settings(atlas, pairs, designs, labels)
    requests = {own: pairs.requests[number] for (_, number), own in settings.items()}
    tables = pair_indexes(pairs, settings, outlook.keys)
    find_stored(outlook.store, tables.values())
    size_of = {outlook.keys[space]: size for space, size in outlook.sizes.items()}
    load = total_load(
        block_load([size_of[key] for key in block.bases], len(block.sides), pair_work(atlas, requests[own]))
        for own, table in tables.items()
        for block in blocks(table, correspondence_of_maps(requests[own]), atlas.null)
    )
    n_absent = sum(int(table.missing.sum()) for table in tables.values())
    n_asked = sum(int(table.asked.sum()) for table in tables.values())
    return MissingWork("scores", n_absent, n_asked - n_absent, load)


def _collection(outlook: WorkEstimate, is_new: bool) -> MissingWork:
    config, loads, n_there = outlook.catalog.atlas.collection, [], 0
    stored = [] if is_new else [set(receipt.facts["bases"]) for receipt in outlook.store.receipts("collections")]
    for own in _by_dataset(outlook.sizes).values() if config is not None else ():
        if config is None or len(own) < 3:
            continue
        if any(bases <= {outlook.keys[space] for space in own} for bases in stored):
            n_there += 1
            continue
        spaces = [outlook.sizes[space] for space in own]
        n_eigenpairs = min(config.n_eigenpairs, outlook.catalog.atlas.n_eigenpairs)
        loads.append(collection_load(spaces, config.n_modes, n_eigenpairs, config.max_spaces))
    return MissingWork("collection", len(loads), n_there, total_load(loads))


def _kept_maps(outlook: WorkEstimate, is_new: bool) -> MissingWork:
    catalog, loads, n_missing, n_there = outlook.catalog, [], 0, 0
    stored = {tuple(pair[:2]) for receipt in outlook.store.receipts("kept_maps") for pair in receipt.facts["pairs"]}
    for dataset, own in _by_dataset(outlook.sizes).items():
        parts = [part for part in outlook.zoo.parts if part.dataset == dataset]
        n_maps, keys = n_kept_maps(catalog, parts, own), {outlook.keys[space] for space in own}
        # Which pairs are most alike is only known afterwards: those that stay are there already.
        n_stored = sum(keys.issuperset(pair) for pair in stored)
        n_new = max(0, n_maps - n_stored) if is_new else 0
        n_missing, n_there = n_missing + n_new, n_there + n_maps - n_new
        loads.append(kept_maps_load(n_new, [outlook.sizes[space] for space in own], catalog.atlas.n_eigenpairs))
    return MissingWork("maps", n_missing, n_there, total_load(loads))


def _transfers(outlook: WorkEstimate) -> MissingWork:
    catalog, store = outlook.catalog, outlook.store
    carried = transfer_pairs(catalog, outlook.zoo.parts)
    if not carried:
        return MissingWork("transfers", 0, 0, Load())
    sides = {space: MapSide(space, own.key, own.content) for space, own in outlook.recorded.items()}
    fitted = {job.key: pair for pair, job in transfer_jobs(store, catalog, carried, sides)}
    absent = [pair for pair in carried if pair.source not in sides or pair.target not in sides]
    absent += [pair for key, pair in fitted.items() if not store.has("maps", key)]
    sizes = [(outlook.sizes[pair.source], outlook.sizes[pair.target]) for pair in absent]
    return MissingWork("transfers", len(absent), len(carried) - len(absent), transfers_load(sizes, MAX_POINTS))


def _embeddings(outlook: WorkEstimate, is_new: bool) -> MissingWork:
    settings, sizes = outlook.catalog.atlas.embeddings, outlook.sizes
    chosen = embedded_spaces(outlook.catalog, sizes)
    n_there = 0 if is_new else min(len(chosen), len(outlook.store.receipts("embeddings")))
    if settings is None or n_there == len(chosen):
        return MissingWork("embeddings", 0, n_there, Load())
    has_labels = any(outlook.zoo.rows[space.dataset].labels is not None for space in chosen)
    n_pairs = len(chosen) * (len(chosen) - 1) // 2 if has_labels else 0
    load = embeddings_load([sizes[space] for space in chosen], settings.max_points, n_pairs)
    return MissingWork("embeddings", len(chosen) - n_there, n_there, load)


def _by_dataset(sizes: Mapping[Space, SpaceSize]) -> dict[str, list[Space]]:
    found: dict[str, list[Space]] = {}
    for space in sorted(sizes):
        found.setdefault(space.dataset, []).append(space)
    return found


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
    stages = [own for own in missing_work(catalog, zoo) if own.n_missing or own.n_there]
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


def predicted_seconds(stages: Sequence[MissingWork], workers: int, speed: float = 1.0) -> float:
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


def worker_ceiling(stages: Sequence[MissingWork]) -> tuple[int, str]:
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


def _costs(own: MissingWork, speed: float) -> str:
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


def check_memory(run: Run, zoo: Zoo) -> None:
    """Raise `TooLargeError` if a task of this run would take more memory than a worker may.

    What is there already takes none. Pairs are not counted out: 32 of the largest spaces that have any new partner.
    """
    now = spaces_now(zoo.parts, run.scope)
    outlook = WorkEstimate(
        run.catalog, replace(zoo, spaces=tuple(own for own in zoo.spaces if own.space in now)), run.store
    )
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


def _loads(outlook: WorkEstimate) -> Iterator[tuple[str, Load]]:
    yield "activations", missing_activations(outlook).load
    bases = missing_bases(outlook)
    yield "bases", bases.load
    for part in outlook.zoo.parts if bases.n_missing else ():
        sizes = [outlook.sizes[space] for space in part.spaces() if space in outlook.sizes]
        if sizes:
            how = pair_work(outlook.catalog.atlas, PairRequest(frozenset(part.measures), part.correspondence))
            yield "scores", part_load(sizes, PART_SIDE**2, how)


def _mib(n_bytes: float) -> str:
    return f"{n_bytes / 2**20:,.0f} MiB"
