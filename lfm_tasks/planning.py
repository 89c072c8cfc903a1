"""The plan of a run: its missing units, their time, memory and disk, by the ``cost.py`` of each stage."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from statistics import median
from typing import Any

from lfm_tasks.catalog import Catalog
from lfm_tasks.errors import TooLargeError, number_of
from lfm_tasks.measures.registry import MEASURES
from lfm_tasks.runtime.load import (
    USABLE,
    WORKER_BYTES,
    Load,
    SpaceSize,
    total_load,
    worker_bytes,
)
from lfm_tasks.runtime.rates import RATES, load_seconds, measured_rates
from lfm_tasks.runtime.run import Run, unit_store
from lfm_tasks.spaces import Space
from lfm_tasks.spectral.bases.automatic import BasisNumbers
from lfm_tasks.stages.across_datasets.cost import part_load_across
from lfm_tasks.stages.across_datasets.stage import across_settings, part_labels, stored_pairs
from lfm_tasks.stages.activations.cost import record_load
from lfm_tasks.stages.activations.stage import RecordedSpace, recorded_space
from lfm_tasks.stages.bases.cost import basis_load, halves_load
from lfm_tasks.stages.bases.job import basis_method, halves_key
from lfm_tasks.stages.bases.stage import basis_job, spaces_with_halves
from lfm_tasks.stages.collection.cost import collection_load
from lfm_tasks.stages.embeddings.cost import embeddings_load
from lfm_tasks.stages.inventory.cost import likely, n_kept_maps, spaces_by_dataset
from lfm_tasks.stages.inventory.requests import PairRequest, embedded_spaces, requested_measures, spaces_now
from lfm_tasks.stages.inventory.stage import Zoo
from lfm_tasks.stages.kept_maps.cost import kept_maps_load
from lfm_tasks.stages.publish.cost import atlas_load
from lfm_tasks.stages.scores.cost import block_load, pair_work, part_load
from lfm_tasks.stages.scores.measure_cost import is_counted, time_measure
from lfm_tasks.stages.scores.planned_blocks import count_pairs
from lfm_tasks.stages.transfers.cost import transfers_load
from lfm_tasks.stages.transfers.job import MAX_POINTS, MapSide
from lfm_tasks.stages.transfers.stage import transfer_jobs, transfer_pairs
from lfm_tasks.stores.units.store import UnitStore
from lfm_tasks.workers.resources import memory_limit, n_workers, what_limits


@dataclass(frozen=True)
class MissingWork:
    """One stage: how many units are to compute, how many are stored, and what the missing ones cost."""

    stage: str
    n_missing: int
    n_there: int
    load: Load


class WorkEstimate:
    """The sizes and keys of spaces before a run: recorded ones by their receipts, all others by their headers."""

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
        self.keys |= {space: self._basis_key(recorded) for space, recorded in self.recorded.items()}

    def numbers(self, space: Space) -> BasisNumbers:
        """Return how many neighbors and eigenpairs a space has."""
        return self.catalog.atlas.numbers(self.sizes[space].n_points)

    def _basis_key(self, recorded: RecordedSpace) -> str:
        return basis_job(self.store, self.catalog.atlas, recorded, self.numbers(recorded.space)).key

    def _size(self, space: Space, size: SpaceSize) -> SpaceSize:
        if recorded := self.recorded.get(space):
            return replace(size, n_points=recorded.n_points, n_features=recorded.n_features)
        return likely(size)


def missing_work(catalog: Catalog, zoo: Zoo) -> list[MissingWork]:
    """Return every stage in order.

    What is recorded is known by its content, and so is all that follows from it. What is still to be recorded counts
    as new, although it may turn out to equal something that is there.
    """
    estimate = WorkEstimate(catalog, zoo, unit_store(catalog))
    stages = [missing_activations(estimate), missing_bases(estimate), _scores(estimate)]
    is_new = any(stage.n_missing for stage in stages)
    stages += [
        _collection(estimate, is_new),
        _kept_maps(estimate, is_new),
        _across_datasets(estimate),
        _transfers(estimate),
        _embeddings(estimate, is_new),
    ]
    is_new |= any(stage.n_missing for stage in stages) or not _is_published(catalog)
    n_kept = stages[4].n_missing + stages[4].n_there
    n_points = max((size.n_points for size in estimate.sizes.values()), default=0)
    n_eigenpairs = max((estimate.numbers(space).n_eigenpairs for space in estimate.sizes), default=0)
    kept_bytes = n_kept * (4 * n_eigenpairs**2 + 8 * n_points)
    n_models = len({space.model for space in estimate.sizes})
    load = atlas_load(len(estimate.sizes), n_models, len(requested_measures(catalog)), kept_bytes)
    return [*stages, MissingWork("atlas", int(is_new), int(not is_new), load if is_new else Load())]


def _is_published(catalog: Catalog) -> bool:
    from lfm_tasks.stores.atlas.files import published_key  # xarray, which half of a plan's time would go to

    return published_key(catalog.root / catalog.atlas.path) is not None


def missing_activations(estimate: WorkEstimate) -> MissingWork:
    """Return the layers to record, a task a model and dataset; of equal weights and inputs, such as a copy's, once."""
    unrecorded: dict[str, Space] = {}
    for planned in estimate.zoo.spaces:
        if planned.space not in estimate.recorded:
            unrecorded.setdefault(planned.key, planned.space)
    by_model = groupby(sorted(unrecorded.values()), key=lambda space: (space.dataset, space.model))
    load = total_load(record_load([estimate.sizes[space] for space in of_model]) for _, of_model in by_model)
    n_recorded = len({one.key for one in estimate.zoo.spaces if one.space in estimate.recorded})
    return MissingWork("activations", len(unrecorded), n_recorded, load)


def missing_bases(estimate: WorkEstimate) -> MissingWork:
    """Return the bases to compute; spaces of the same content share one."""
    space_of = {estimate.keys[space]: space for space in estimate.sizes}
    with_halves = spaces_with_halves(estimate.zoo.parts, estimate.catalog.atlas)
    loads = {
        key: load
        for key, space in sorted(space_of.items())
        if (load := _basis_load(estimate, space, has_halves=space in with_halves)).work
    }
    n_missing = sum(not estimate.store.has("bases", key) for key in space_of)
    return MissingWork("bases", n_missing, len(space_of) - n_missing, total_load(loads.values()))


def _basis_load(estimate: WorkEstimate, space: Space, *, has_halves: bool) -> Load:
    """Return the cost of what is missing of a basis and of those of its halves; of nothing: no work."""
    size, atlas, key = estimate.sizes[space], estimate.catalog.atlas, estimate.keys[space]
    method = basis_method(atlas, estimate.numbers(space), size.n_points, size.n_features)
    loads = [] if estimate.store.has("bases", key) else [basis_load(size, method)]
    groups = estimate.zoo.exchangeability.get(space.dataset)
    of_halves = halves_key(key, atlas.intervals, "" if groups is None else groups.key)
    if has_halves and of_halves is not None and not estimate.store.has("halves", of_halves):
        loads.append(halves_load(size, method))
    return replace(total_load(loads), tasks=min(len(loads), 1))


def _scores(estimate: WorkEstimate) -> MissingWork:
    zoo, atlas = estimate.zoo, estimate.catalog.atlas
    size_of = {estimate.keys[space]: size for space, size in estimate.sizes.items()}
    counted = count_pairs(estimate.catalog, zoo, estimate.keys, estimate.store)
    load = total_load(
        block_load(
            [size_of[key] for key in bases],
            n_pairs,
            pair_work(atlas, pairs.request, is_grouped=pairs.is_grouped, has_moments=pairs.has_moments),
        )
        for pairs in counted
        for bases, n_pairs in pairs.blocks(atlas.null)
    )
    return MissingWork(
        "scores", sum(pairs.n_missing for pairs in counted), sum(len(pairs.stored) for pairs in counted), load
    )


def _collection(estimate: WorkEstimate, is_new: bool) -> MissingWork:
    config, loads, n_there = estimate.catalog.atlas.collection, [], 0
    stored = [] if is_new else [set(receipt.facts["bases"]) for receipt in estimate.store.receipts("collections")]
    for spaces in spaces_by_dataset(estimate.sizes).values() if config is not None else ():
        if config is None or len(spaces) < 3:
            continue
        if any(bases <= {estimate.keys[space] for space in spaces} for bases in stored):
            n_there += 1
            continue
        sizes = [estimate.sizes[space] for space in spaces]
        n_eigenpairs = min(config.n_eigenpairs, min(estimate.numbers(space).n_eigenpairs for space in spaces))
        loads.append(collection_load(sizes, config.n_modes, n_eigenpairs, config.max_spaces))
    return MissingWork("collection", len(loads), n_there, total_load(loads))


def _kept_maps(estimate: WorkEstimate, is_new: bool) -> MissingWork:
    catalog, loads, n_missing, n_there = estimate.catalog, [], 0, 0
    stored = {tuple(pair[:2]) for receipt in estimate.store.receipts("kept_maps") for pair in receipt.facts["pairs"]}
    for dataset, spaces in spaces_by_dataset(estimate.sizes).items():
        parts = [part for part in estimate.zoo.parts if part.dataset == dataset]
        n_maps, keys = n_kept_maps(catalog, parts, spaces), {estimate.keys[space] for space in spaces}
        # Which pairs are most alike is only known afterwards: those that stay are there already.
        n_stored = sum(keys.issuperset(pair) for pair in stored)
        n_new = max(0, n_maps - n_stored) if is_new else 0
        n_missing, n_there = n_missing + n_new, n_there + n_maps - n_new
        n_eigenpairs = max(estimate.numbers(space).n_eigenpairs for space in spaces)
        loads.append(kept_maps_load(n_new, [estimate.sizes[space] for space in spaces], n_eigenpairs))
    return MissingWork("maps", n_missing, n_there, total_load(loads))


def _across_datasets(estimate: WorkEstimate) -> MissingWork:
    """Return the pairs of spaces of two datasets that are still to be mapped."""
    atlas, loads, n_missing, n_there = estimate.catalog.atlas, [], 0, 0
    for part in estimate.zoo.across:
        labels = {side: of_side.key for side, of_side in part_labels(estimate.zoo, part).items()}
        settings = across_settings(atlas, part, (labels.get("source", ""), labels.get("target", "")))
        sides = [[space for space in side if space in estimate.sizes] for side in (part.sources, part.targets)]
        pairs = {(estimate.keys[source], estimate.keys[target]) for source in sides[0] for target in sides[1]}
        n_stored = len(pairs & dict(stored_pairs(estimate.store, settings)).keys())
        n_missing, n_there = n_missing + len(pairs) - n_stored, n_there + n_stored
        sizes = [[estimate.sizes[space] for space in side] for side in sides]
        loads.append(part_load_across(sizes[0], sizes[1], len(pairs) - n_stored, atlas, part))
    return MissingWork("across", n_missing, n_there, total_load(loads))


def _transfers(estimate: WorkEstimate) -> MissingWork:
    catalog, store = estimate.catalog, estimate.store
    requested = transfer_pairs(catalog, estimate.zoo.parts)
    if not requested:
        return MissingWork("transfers", 0, 0, Load())
    sides = {space: MapSide(space, side.key, side.content) for space, side in estimate.recorded.items()}
    fitted = {job.key: pair for pair, job in transfer_jobs(store, catalog, requested, sides)}
    absent = [pair for pair in requested if pair.source not in sides or pair.target not in sides]
    absent += [pair for key, pair in fitted.items() if not store.has("maps", key)]
    sizes = [(estimate.sizes[pair.source], estimate.sizes[pair.target]) for pair in absent]
    return MissingWork("transfers", len(absent), len(requested) - len(absent), transfers_load(sizes, MAX_POINTS))


def _embeddings(estimate: WorkEstimate, is_new: bool) -> MissingWork:
    settings, sizes = estimate.catalog.atlas.embeddings, estimate.sizes
    chosen = embedded_spaces(estimate.catalog, sizes)
    n_there = 0 if is_new else min(len(chosen), len(estimate.store.receipts("embeddings")))
    if settings is None or n_there == len(chosen):
        return MissingWork("embeddings", 0, n_there, Load())
    has_labels = any(estimate.zoo.rows[space.dataset].labels is not None for space in chosen)
    n_pairs = len(chosen) * (len(chosen) - 1) // 2 if has_labels else 0
    load = embeddings_load([sizes[space] for space in chosen], settings.max_points, n_pairs)
    return MissingWork("embeddings", len(chosen) - n_there, n_there, load)


class _Count(int):
    """A number whose format is the noun of what it counts: ``f"{_Count(1):pair}"`` is ``1 pair``."""

    def __format__(self, noun: str) -> str:
        return number_of(int(self), noun) if noun else str(int(self))


# Of one process, whatever there is to do: starting, reading the catalog.
_IN_THE_RUN = "atlas"
_WORDS = {
    "activations": "{missing} to record, {there} kept",
    "bases": "{missing} to compute, {there} kept",
    "scores": "{missing:pair} to compute, {there} kept, each in both directions",
    "collection": "{missing} to fit, {there} kept",
    "maps": "{missing} to keep of the most alike, {there} kept",
    "across": "{missing:pair} of two datasets to compute, {there} kept, each in both directions",
    "transfers": "{missing:map} to fit, {there} kept",
    "embeddings": "{missing:picture} to draw, {there} kept",
    "atlas": "{missing} to publish, {there} as it is",
}


def plan_run(catalog: Catalog, zoo: Zoo) -> list[str]:
    """Return the plan in lines; nothing is written. One short product, and measures without a known cost, are timed."""
    plan = _plan_of(catalog, zoo)
    lines = [
        *catalog.warnings(),
        *zoo.notes,
        *_not_estimated(zoo),
        f"spaces       {len(zoo.spaces)} ({_unusable(len(zoo.failures))} cannot be used: see lfm-atlas validate)",
    ]
    for stage in plan.stages:
        counts = _WORDS[stage.stage].format(missing=_Count(stage.n_missing), there=stage.n_there)
        lines.append(f"{stage.stage:<12} {counts}{_costs(stage, plan) if stage.n_missing else ''}")
    ceiling, what = worker_ceiling(plan.stages)
    limit, (by_cores, by_memory) = memory_limit(catalog), what_limits(catalog)
    why = f" ({by_cores})" if by_cores else ""
    lines.append(f"time         about {_time(plan.total_seconds)} with {number_of(plan.n_workers, 'worker')}{why}")
    of, why = (f" ({text})" if text else "" for text in (what, by_memory))
    lines.append(f"memory       at most {_size(ceiling)} a worker{of}{f', of {_size(limit)}{why}' if limit else ''}")
    lines.append(f"written      {_size(plan.written_bytes)}")
    if plan.timed:
        timed = ", ".join(plan.timed)
        lines.append(f"measured     {timed}: timed here on random rows")
    return lines


def _not_estimated(zoo: Zoo) -> list[str]:
    """Return notes on times that this machine cannot measure."""
    devices = sorted({planned.size.device for planned in zoo.spaces} - {"cpu"})
    return [f"recording on {device} is planned at the speed of this machine's CPU: it takes less" for device in devices]


def plan_as_json(catalog: Catalog, zoo: Zoo) -> dict[str, Any]:
    """Return the plan for programs: of each stage what is missing, there, and its cost; time (s), memory (bytes)."""
    plan = _plan_of(catalog, zoo)
    return {
        "spaces": len(zoo.spaces),
        "unusable": len(zoo.failures),
        "stages": [
            {
                "stage": stage.stage,
                "missing": stage.n_missing,
                "there": stage.n_there,
                "tasks": stage.load.tasks,
                "seconds": plan.seconds_of(stage),
                "written_bytes": stage.load.written_bytes,
            }
            for stage in plan.stages
        ],
        "workers": plan.n_workers,
        "seconds": plan.total_seconds,
        "worker_bytes": worker_ceiling(plan.stages)[0],
        "worker_limit_bytes": memory_limit(catalog),
        "written_bytes": plan.written_bytes,
        "notes": [*catalog.warnings(), *zoo.notes, *_not_estimated(zoo)],
    }


@dataclass(frozen=True)
class _Plan:
    """The stages of a run that have anything to do with it, and how fast this machine does their work.

    ``timed``: see `timed_measures`. ``rates``: the seconds of an operation of each kind.
    """

    stages: list[MissingWork]
    n_workers: int
    rates: Mapping[str, float]
    timed: Mapping[str, Mapping[str, float]]

    def seconds_of(self, stage: MissingWork) -> float:
        """Return the seconds of all tasks of a stage together."""
        return load_seconds(stage.load, self.rates)

    @property
    def total_seconds(self) -> float:
        """How long the run takes."""
        return predicted_seconds(self.stages, self.n_workers, self.rates)

    @property
    def written_bytes(self) -> int:
        """How many bytes the run writes."""
        return sum(stage.load.written_bytes for stage in self.stages)


def _plan_of(catalog: Catalog, zoo: Zoo) -> _Plan:
    stages = [stage for stage in missing_work(catalog, zoo) if stage.n_missing or stage.n_there]
    # Not measured where there is nothing to say of time.
    rates = measured_rates() if any(stage.load.tasks for stage in stages) else dict(RATES)
    timed = timed_measures(catalog, zoo)
    for of_measure in timed.values():
        rates |= of_measure
    return _Plan(stages, n_workers(catalog), rates, timed)


def _unusable(count: int) -> str:
    return "1 model or layer" if count == 1 else f"{count} models or layers"


def timed_measures(catalog: Catalog, zoo: Zoo) -> dict[str, dict[str, float]]:
    """Return the CPU seconds of each measure whose operations are not counted: on this machine, timed just now."""
    n_features = int(median([planned.size.n_features for planned in zoo.spaces] or [1]))
    names = [name for name in requested_measures(catalog) if name in MEASURES and not is_counted(name)]
    return {name: time_measure(name, n_features) for name in names}


# The process with what it imports, and the start of its workers.
_STARTING, _STARTING_WORKERS = 1.2, 3.5


def predicted_seconds(stages: Sequence[MissingWork], workers: int, rates: Mapping[str, float] = RATES) -> float:
    """Return the seconds of a whole run by some workers: tasks side by side, the atlas in the run's own process."""
    total = rates["seconds"] * _STARTING
    for stage in stages:
        at_once = 1 if stage.stage == _IN_THE_RUN else max(1, min(workers, stage.load.tasks))
        total += load_seconds(stage.load, rates) / at_once + rates["seconds"] * stage.load.starting_seconds
    has_tasks = any(stage.load.tasks for stage in stages if stage.stage != _IN_THE_RUN)
    return total + (rates["seconds"] * _STARTING_WORKERS if has_tasks else 0.0)


def worker_ceiling(stages: Sequence[MissingWork]) -> tuple[int, str]:
    """Return the most bytes that a worker takes, and what it is doing then."""
    highest, what, stays = WORKER_BYTES, "", 0
    for stage in stages:
        if stage.stage == _IN_THE_RUN or not stage.load.tasks:
            continue
        needed = WORKER_BYTES + stage.load.peak_bytes + max(0, stays - stage.load.staying_bytes)
        stays = max(stays, stage.load.staying_bytes)
        if needed > highest:
            highest, what = needed, f"{stage.stage}: {stage.load.peak_of}"
    return highest, what


def _costs(stage: MissingWork, plan: _Plan) -> str:
    tasks, needed = number_of(stage.load.tasks, "task"), _time(plan.seconds_of(stage))
    return f": {tasks}, {needed}, {_size(stage.load.written_bytes)}"


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
    "checkpoints": "lower its batch_size or max_tokens, set dtype: bfloat16 if its weights are wider, leave it out",
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
    now = spaces_now(zoo.all_parts, run.scope)
    asked = replace(zoo, spaces=tuple(planned for planned in zoo.spaces if planned.space in now))
    estimate = WorkEstimate(run.catalog, asked, run.store)
    # Asks a cluster that runs already, which a run without news leaves alone.
    if message := _too_large(estimate, lambda: run.workers.memory_limit):
        raise TooLargeError(f"{message}; nothing was computed")


def plan_refusal(catalog: Catalog, zoo: Zoo) -> str:
    """Return why a run would be refused for want of memory, and the ways out; empty if it would not."""
    return _too_large(WorkEstimate(catalog, zoo, unit_store(catalog)), lambda: memory_limit(catalog))


def _too_large(estimate: WorkEstimate, memory_limit_of: Callable[[], int | None]) -> str:
    catalog, stays = estimate.catalog, 0
    for stage, load in _loads(estimate):
        if not load.tasks:
            continue
        limit = memory_limit_of()
        needed = worker_bytes(load, stays)
        stays = max(stays, load.staying_bytes)
        if limit is not None and needed > limit:
            by_memory = what_limits(catalog)[1]
            why = f" ({by_memory})" if by_memory else ""
            found = f"{stage} of {load.peak_of} would take {_mib(USABLE * needed)} of a worker's {_mib(limit)}{why}"
            is_checkpoint = any(size.run_bytes and size.name == load.peak_of for size in estimate.sizes.values())
            ways = _WAYS_OUT["checkpoints" if stage == "activations" and is_checkpoint else stage]
            most = f"expected at most {USABLE:.0%} of it"
            return f"{found}, {most}: {ways}, or {MORE_MEMORY[catalog.cluster.type]}"
    return ""


def _loads(estimate: WorkEstimate) -> Iterator[tuple[str, Load]]:
    yield "activations", missing_activations(estimate).load
    bases = missing_bases(estimate)
    yield "bases", bases.load
    for part in estimate.zoo.all_parts if bases.n_missing else ():
        sizes = [estimate.sizes[space] for space in part.spaces() if space in estimate.sizes]
        if sizes:
            request = PairRequest(frozenset(part.measures), part.correspondence)
            groups = estimate.zoo.exchangeability.get(part.dataset)
            in_closed_form = groups is None or groups.has_moments
            how = pair_work(estimate.catalog.atlas, request, is_grouped=groups is not None, has_moments=in_closed_form)
            yield "scores", part_load(sizes, len(sizes) ** 2, how)


def _mib(n_bytes: float) -> str:
    return f"{n_bytes / 2**20:,.0f} MiB"
