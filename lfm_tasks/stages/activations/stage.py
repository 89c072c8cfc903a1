"""Stage activations: record every space into the store, in batches, rows in the order of their ids."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from lfm_tasks.runtime.load import worker_bytes
from lfm_tasks.runtime.run import Failure, Run
from lfm_tasks.spaces import Space
from lfm_tasks.stages.activations.cost import record_load
from lfm_tasks.stages.activations.job import RecordJob, record_model
from lfm_tasks.stages.inventory.cost import likely
from lfm_tasks.stages.inventory.requests import spaces_now
from lfm_tasks.stages.inventory.stage import PlannedSpace, Zoo
from lfm_tasks.stores.units.store import UnitStore
from lfm_tasks.workers.pool import JobFailure


@dataclass(frozen=True)
class RecordedSpace:
    """A space whose activations lie in the store: the unit's key, and a digest of its content."""

    space: Space
    key: str
    depth: float
    content: str
    ids: str
    n_points: int
    n_features: int


def record_activations(run: Run, zoo: Zoo) -> tuple[RecordedSpace, ...]:
    """Record what is missing, a job for each model on each dataset; return the recorded spaces."""
    in_scope = spaces_now(zoo.all_parts, run.scope)
    absent = [planned for planned in zoo.spaces if run.store.find("activations", planned.key) is None]
    missing = [planned for planned in absent if planned.space in in_scope]
    left_out = {planned.space for planned in absent} - in_scope
    failures = _record(run, missing)
    n_new = len({planned.key for planned in missing if planned.space not in failures})
    lacking = {planned.key for planned in absent}
    n_reused = len({planned.key for planned in zoo.spaces} - lacking)
    run.stage_counts.add("activations", n_new, n_reused)
    run.add_failures(zoo.failures)
    run.add_failures(
        Failure.of_space(planned.space, "activations", failures[planned.space])
        for planned in zoo.spaces
        if planned.space in failures
    )
    return tuple(
        recorded_space(run.store, planned)
        for planned in zoo.spaces
        if planned.space not in left_out and planned.space not in failures
    )


def _record(run: Run, missing: Sequence[PlannedSpace]) -> dict[Space, JobFailure]:
    """Record spaces, those of a model one after the other, equal ones once; return the ones that fail."""
    first_of: dict[str, PlannedSpace] = {}
    for planned in missing:
        first_of.setdefault(planned.key, planned)
    firsts = [planned for planned in missing if first_of[planned.key] is planned]
    by_model = [list(spaces) for _, spaces in groupby(firsts, key=lambda planned: planned.space[:2])]
    jobs = [
        RecordJob(
            run.store,
            run.catalog,
            spaces[0].space.model,
            {one.space.layer: one.key for one in spaces},
            spaces[0].space.dataset,
        )
        for spaces in by_model
    ]
    needs = [worker_bytes(record_load([likely(planned.size) for planned in spaces])) for spaces in by_model]
    devices = [spaces[0].size.device for spaces in by_model]
    failures: dict[str, JobFailure] = {}
    run.store.remove_partial("activations", keep=[planned.key for planned in missing])
    notes: dict[str, tuple[str, ...]] = {}
    for job, result in run.results("activations", record_model, jobs, needs, devices):
        if isinstance(result, JobFailure):
            failures |= dict.fromkeys(job.layer_keys.values(), result)
        else:
            failures |= {job.layer_keys[layer]: failure for layer, failure in result.failures.items()}
            notes[job.model] = (*notes.get(job.model, ()), *result.notes)
    run.notes["recorded"] = [f"{model}: {note}" for model in sorted(notes) for note in notes[model]]
    run.store.remove_partial("activations")
    return {planned.space: failures[planned.key] for planned in missing if planned.key in failures}


def recorded_space(store: UnitStore, planned: PlannedSpace) -> RecordedSpace:
    """Return the content of the receipt of a recorded space."""
    return RecordedSpace(planned.space, planned.key, planned.depth, **store.receipt("activations", planned.key).facts)
