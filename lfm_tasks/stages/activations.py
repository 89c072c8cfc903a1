"""Stage activations: record every space into the store, in batches, rows in the order of their ids."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from lfm_tasks.catalog import Catalog
from lfm_tasks.reasons import ReasonError
from lfm_tasks.sources.datasets import read_dataset
from lfm_tasks.sources.opening import open_source
from lfm_tasks.sources.source import Source
from lfm_tasks.spaces import Space
from lfm_tasks.stages.asked import spaces_now
from lfm_tasks.stages.run import Failure, Run
from lfm_tasks.stages.validate import PlannedSpace, Zoo, selected_rows
from lfm_tasks.stages.workers import Trouble
from lfm_tasks.stores.digests import RowsDigest, ids_digest
from lfm_tasks.stores.layouts import LAYOUTS
from lfm_tasks.stores.units import UnitStore


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


def record_activations(run: Run, zoo: Zoo) -> tuple[tuple[RecordedSpace, ...], tuple[Failure, ...]]:
    """Record what is missing, a task for each model; return the recorded spaces and all failures so far."""
    now = spaces_now(zoo.parts, run.scope)
    missing = [planned for planned in zoo.spaces if run.store.find("activations", planned.key) is None]
    left_out = {planned.space for planned in missing if planned.space not in now}
    missing = [planned for planned in missing if planned.space in now]
    by_model = groupby(missing, key=lambda planned: planned.space.model)
    jobs = [
        RecordJob(run.store, run.catalog, model, {planned.space.layer: planned.key for planned in group})
        for model, group in by_model
    ]
    troubles: dict[tuple[str, str], Trouble] = {}
    run.announce("activations", 0, len(jobs))
    for done, (number, result) in enumerate(run.workers.run(record_model, jobs), start=1):
        job = jobs[number]
        found = dict.fromkeys(job.wanted, result) if isinstance(result, Trouble) else result
        troubles |= {(job.model, layer): trouble for layer, trouble in found.items()}
        run.announce("activations", done, len(jobs))
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
    run.tally.count("activations", len(missing) - len(failures), len(zoo.spaces) - len(left_out) - len(missing))
    return recorded, (*zoo.failures, *failures)


def recorded_space(store: UnitStore, planned: PlannedSpace) -> RecordedSpace:
    """Return what the receipt of a recorded space says."""
    return RecordedSpace(planned.space, planned.key, planned.depth, **store.receipt("activations", planned.key).facts)


def record_model(job: RecordJob) -> dict[str, Trouble]:
    """Record the wanted layers of one model in one pass; return the layers that could not be."""
    model = job.catalog.models[job.model]
    source = open_source(job.model, model, job.catalog, read_dataset(model.dataset, job.catalog))
    layers = list(job.wanted)
    try:
        _record_layers(job, source, layers)
    except ReasonError:
        # One bad layer must not take the others with it: each once more, alone.
        return _record_one_by_one(job, source, layers)
    return {}


def _record_one_by_one(job: RecordJob, source: Source, layers: Sequence[str]) -> dict[str, Trouble]:
    troubles = {}
    for layer in layers:
        try:
            _record_layers(job, source, [layer])
        except ReasonError as error:
            troubles[layer] = Trouble(error.reason, str(error))
    return troubles


def _record_layers(job: RecordJob, source: Source, layers: Sequence[str]) -> None:
    """Write the layers as their batches come, then commit them."""
    from contextlib import ExitStack

    rows = selected_rows(source.ids, job.catalog)
    ids = source.ids[rows]
    with ExitStack() as stack:
        recordings = {
            layer: _Recording(stack.enter_context(job.store.commit("activations", job.wanted[layer])), ids)
            for layer in layers
        }
        for batch in source.batches(layers, rows):
            for layer, values in batch.items():
                recordings[layer].add(values)
        for recording in recordings.values():
            recording.finish()


class _Recording:
    """One layer on its way into the store: whole chunks go out, the rest waits."""

    def __init__(self, writer: Any, ids: np.ndarray) -> None:
        self._writer = writer
        self._ids = ids
        self._digest = RowsDigest(ids)
        self._array: Any = None
        self._waiting: list[np.ndarray] = []
        self._n_waiting = 0
        self._n_written = 0
        self._chunk_rows = LAYOUTS["activations"]["activations"].chunk_rows

    def add(self, values: np.ndarray) -> None:
        self._digest.update(values)
        if self._array is None:
            shape = (len(self._ids), values.shape[1])
            self._array = self._writer.arrays.lay_out("activations", shape, values.dtype)
        self._waiting.append(values)
        self._n_waiting += len(values)
        if self._n_waiting >= self._chunk_rows:
            self._flush(self._n_waiting - self._n_waiting % self._chunk_rows)

    def finish(self) -> None:
        if self._array is None:
            raise ReasonError("too_few_points", "the source gave no rows: at least 3 points are needed")
        self._flush(self._n_waiting)
        if self._n_written != len(self._ids):
            raise ReasonError("wrong_shape", f"the source gave {self._n_written} rows for {len(self._ids)} ids")
        self._writer.arrays.write("ids", self._ids)
        self._writer.facts |= {
            "content": self._digest.hexdigest(),
            "ids": ids_digest(self._ids),
            "n_points": len(self._ids),
            "n_features": int(self._array.shape[1]),
        }

    def _flush(self, n_rows: int) -> None:
        if not n_rows:
            return
        rows = np.concatenate(self._waiting) if len(self._waiting) > 1 else self._waiting[0]
        self._array[self._n_written : self._n_written + n_rows] = rows[:n_rows]
        self._n_written += n_rows
        self._waiting = [rows[n_rows:]] if n_rows < len(rows) else []
        self._n_waiting = len(rows) - n_rows
