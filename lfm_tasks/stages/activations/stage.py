"""Stage activations: record every space into the store, in batches, rows in the order of their ids."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby

from lfm_tasks.catalog import Catalog
from lfm_tasks.errors import DataError
from lfm_tasks.runtime.load import worker_bytes
from lfm_tasks.runtime.run import Failure, Run
from lfm_tasks.sources.networks.recording import RecordedSource
from lfm_tasks.sources.opening import open_source, read_dataset
from lfm_tasks.sources.source import Source
from lfm_tasks.spaces import Space
from lfm_tasks.stages.activations.cost import record_load
from lfm_tasks.stages.inventory.cost import likely
from lfm_tasks.stages.inventory.requests import spaces_now
from lfm_tasks.stages.inventory.stage import PlannedSpace, Zoo, selected_rows
from lfm_tasks.stores.units.recordings import Recording
from lfm_tasks.stores.units.store import UnitStore
from lfm_tasks.workers.pool import JobFailure


@dataclass(frozen=True)
class RecordedSpace:
    """A space whose activations lie in the store: the unit's key, and a digest of what is in it."""

    space: Space
    key: str
    depth: float
    content: str
    ids: str
    n_points: int
    n_features: int


@dataclass(frozen=True)
class RecordJob:
    """One model to run or read: the layers that are missing, with their keys."""

    store: UnitStore
    catalog: Catalog
    model: str
    wanted: Mapping[str, str]


def record_activations(run: Run, zoo: Zoo) -> tuple[RecordedSpace, ...]:
    """Record what is missing, a task for each model; return the recorded spaces."""
    now = spaces_now(zoo.parts, run.scope)
    missing = [planned for planned in zoo.spaces if run.store.find("activations", planned.key) is None]
    left_out = {planned.space for planned in missing if planned.space not in now}
    missing = [planned for planned in missing if planned.space in now]
    by_model = groupby(missing, key=lambda planned: planned.space.model)
    jobs = [
        RecordJob(run.store, run.catalog, model, {planned.space.layer: planned.key for planned in group})
        for model, group in by_model
    ]
    needs = [
        worker_bytes(record_load([likely(planned.size) for planned in group]))
        for _, group in groupby(missing, key=lambda planned: planned.space.model)
    ]
    troubles: dict[tuple[str, str], JobFailure] = {}
    run.store.forget_partial("activations", but=[planned.key for planned in missing])
    run.announce("activations", 0, len(jobs))
    for done, (number, result) in enumerate(run.workers.run(record_model, jobs, needs), start=1):
        job = jobs[number]
        found = dict.fromkeys(job.wanted, result) if isinstance(result, JobFailure) else result
        troubles |= {(job.model, layer): trouble for layer, trouble in found.items()}
        run.announce("activations", done, len(jobs))
    run.store.forget_partial("activations")
    failures = [
        Failure(p.space.dataset, p.space.model, p.space.layer, "activations", trouble.reason, trouble.message)
        for p in zoo.spaces
        if (trouble := troubles.get((p.space.model, p.space.layer))) is not None
    ]
    recorded = tuple(
        recorded_space(run.store, p)
        for p in zoo.spaces
        if p.space not in left_out and (p.space.model, p.space.layer) not in troubles
    )
    run.stage_counts.count("activations", len(missing) - len(failures), len(zoo.spaces) - len(left_out) - len(missing))
    run.failures.extend([*zoo.failures, *failures])
    return recorded


def recorded_space(store: UnitStore, planned: PlannedSpace) -> RecordedSpace:
    """Return what the receipt of a recorded space says."""
    return RecordedSpace(planned.space, planned.key, planned.depth, **store.receipt("activations", planned.key).facts)


def record_model(job: RecordJob) -> dict[str, JobFailure]:
    """Record the wanted layers of one model in one pass; return the layers that could not be."""
    model = job.catalog.models[job.model]
    source = open_source(job.model, model, job.catalog, read_dataset(model.dataset, job.catalog))
    layers = list(job.wanted)
    try:
        _record_layers(job, source, layers)
    except DataError:
        # One bad layer must not take the others with it: each once more, alone.
        return _record_one_by_one(job, source, layers)
    return {}


def _record_one_by_one(job: RecordJob, source: Source, layers: Sequence[str]) -> dict[str, JobFailure]:
    troubles = {}
    for layer in layers:
        try:
            _record_layers(job, source, [layer])
        except DataError as error:
            troubles[layer] = JobFailure(error.reason, str(error))
    return troubles


def _record_layers(job: RecordJob, source: Source, layers: Sequence[str]) -> None:
    """Write the layers as their batches come, then commit them; a network goes on where a kill stopped it."""
    rows = selected_rows(source.ids, job.catalog)
    ids = source.ids[rows]
    batch_rows = source.batch_rows if isinstance(source, RecordedSource) else 0
    commit = job.store.resume if batch_rows else job.store.commit
    with ExitStack() as stack:
        recordings = {
            layer: Recording(stack.enter_context(commit("activations", job.wanted[layer])), ids) for layer in layers
        }
        start = min(recording.n_rows for recording in recordings.values())
        if batch_rows and start < len(rows):
            start -= start % batch_rows  # the same rows together: the same bits
        for recording in recordings.values():
            recording.skip(recording.n_rows - start)
        for batch in source.batches(layers, rows[start:]) if start < len(rows) else ():
            for layer, values in batch.items():
                recordings[layer].add(values)
        for recording in recordings.values():
            recording.finish()
