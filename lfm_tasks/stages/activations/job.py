"""Activations on a worker: the layers of one model are recorded in one pass, and later read, whole or by rows."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped

from lfm_tasks.catalog import Catalog
from lfm_tasks.errors import DataError
from lfm_tasks.sources.networks.recording import OF_THE_NETWORK, RecordedSource, ScatteredSource
from lfm_tasks.sources.opening import open_source, read_dataset
from lfm_tasks.sources.source import Source
from lfm_tasks.stages.inventory.stage import activations_keys, lacks_rows, layer_rows
from lfm_tasks.stores.units.arrays import ArrayReader
from lfm_tasks.stores.units.recordings import Recording, ScatteredRecording
from lfm_tasks.stores.units.store import UnitStore
from lfm_tasks.workers.pool import JobFailure


@dataclass(frozen=True)
class RecordJob:
    """One model to run or read on a dataset; ``layer_keys`` are the units of the missing layers."""

    store: UnitStore
    catalog: Catalog
    model: str
    layer_keys: Mapping[str, str]
    dataset: str | None = None


@dataclass(frozen=True)
class RecordedModel:
    """The layers of a model that failed, and what people should know of the others, such as texts that were cut."""

    failures: Mapping[str, JobFailure]
    notes: tuple[str, ...] = ()


def record_model(job: RecordJob) -> RecordedModel:
    """Record the missing layers of one model in one pass."""
    model = job.catalog.model_on(job.model, job.dataset)
    dataset = read_dataset(model.dataset, job.catalog)
    source = open_source(job.model, model, job.catalog, dataset)
    layers = list(job.layer_keys)
    _check_unchanged(job, source, layers, dataset.points)
    try:
        for together in _of_the_same_rows(job, source, layers, dataset.points):
            _record_layers(job, source, together, dataset.points)
    except DataError as error:
        if isinstance(source, RecordedSource) and error.reason in OF_THE_NETWORK:
            raise
        # One bad layer must not take the others with it: each is tried once more, alone.
        failures = _record_one_by_one(job, source, layers, dataset.points)
    else:
        failures = {}
    return RecordedModel(failures, source.notes() if isinstance(source, ScatteredSource) else ())


def _of_the_same_rows(
    job: RecordJob, source: Source, layers: Sequence[str], points: Shaped[np.ndarray, " kept"] | None
) -> list[list[str]]:
    """Return the layers that are recorded together: those of files may have rows left out, each others."""
    if isinstance(source, RecordedSource):
        return [list(layers)]
    together: dict[bytes, list[str]] = {}
    for layer in layers:
        rows = layer_rows(source, layer, job.catalog, points).tobytes() if lacks_rows(source, layer) else b""
        together.setdefault(rows, []).append(layer)
    return list(together.values())


def _record_one_by_one(
    job: RecordJob, source: Source, layers: Sequence[str], points: Shaped[np.ndarray, " kept"] | None
) -> dict[str, JobFailure]:
    failures = {}
    for layer in layers:
        if job.store.find("activations", job.layer_keys[layer]) is not None:
            continue
        try:
            _record_layers(job, source, [layer], points)
        except DataError as error:
            failures[layer] = JobFailure(error.reason, str(error))
    return failures


def _record_layers(
    job: RecordJob, source: Source, layers: Sequence[str], points: Shaped[np.ndarray, " kept"] | None = None
) -> None:
    """Write the layers batch by batch, then commit them; a network goes on where a kill stopped it."""
    rows = layer_rows(source, layers[0], job.catalog, points)
    ids = source.ids[rows]
    if isinstance(source, ScatteredSource):
        _record_scattered(job, source, layers, rows)
        return
    batch_rows = source.batch_rows if isinstance(source, RecordedSource) else 0
    commit = job.store.resume if batch_rows else job.store.commit
    with ExitStack() as stack:
        recordings = {
            layer: Recording(stack.enter_context(commit("activations", job.layer_keys[layer])), ids) for layer in layers
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


def _record_scattered(
    job: RecordJob, source: ScatteredSource, layers: Sequence[str], rows: Int[np.ndarray, " selected"]
) -> None:
    """Write the layers of a network whose batches come in an order of their own, then commit them."""
    with ExitStack() as stack:
        units = {layer: stack.enter_context(job.store.resume("activations", job.layer_keys[layer])) for layer in layers}
        recordings = {layer: ScatteredRecording(unit, source.ids[rows]) for layer, unit in units.items()}
        start = min(recording.n_batches for recording in recordings.values())
        for recording in recordings.values():
            recording.keep(start)
        if start * source.batch_rows < len(rows):
            for positions, values in source.scattered_batches(layers, rows, start):
                for layer, recording in recordings.items():
                    recording.add(positions, values[layer])
            source.check_unchanged()
        for recording in recordings.values():
            recording.finish()


def _check_unchanged(
    job: RecordJob, source: Source, layers: Sequence[str], points: Shaped[np.ndarray, " kept"] | None
) -> None:
    """Raise DataError if a network or its dataset is another one than when the keys of the layers were made."""
    if not isinstance(source, ScatteredSource):
        return  # other sources look at their files themselves
    key_of = activations_keys(source, job.catalog, points)
    changed = [layer for layer in layers if key_of(layer) != job.layer_keys[layer]]
    if changed:
        problem = f"model {job.model}: its files or those of its dataset changed while the run was going on"
        advice = "Run again, what was finished is kept"
        chosen = job.catalog.model_on(job.model, job.dataset).checkpoint
        if chosen is not None and chosen[1].device == "auto":
            advice += "; or device: auto stands for another device on this worker than where the run began. Set device"
        raise DataError("missing_source", f"{problem}. {advice}")


def read_activations(unit: ArrayReader) -> Float[np.ndarray, "points features"]:
    """Return a space's activations; half precision becomes single (`as_floats`) before anything is squared."""
    return as_floats(unit.read("activations"))


def read_rows(unit: ArrayReader, rows: Int[np.ndarray, " chosen"]) -> Float[np.ndarray, "chosen features"]:
    """Return some rows of a space's activations; beside them only one chunk is in memory.

    Parameters
    ----------
    unit
        The stored activations.
    rows
        Which rows, in ascending order.
    """
    return gather_rows(unit.batches("activations"), rows)


def gather_rows(
    chunks: Iterable[Shaped[np.ndarray, "rows features"]], rows: Int[np.ndarray, " chosen"]
) -> Float[np.ndarray, "chosen features"]:
    """Return some rows, in ascending order, of a matrix that comes in chunks of rows."""
    gathered, start, n_gathered = np.empty((0, 0)), 0, 0
    for chunk in chunks:
        in_chunk = rows[np.searchsorted(rows, start) : np.searchsorted(rows, start + len(chunk))] - start
        if not start:
            gathered = np.empty((len(rows), chunk.shape[1]), dtype=as_floats(chunk[:0]).dtype)
        place = slice(n_gathered, n_gathered + len(in_chunk))
        gathered[place] = chunk if len(in_chunk) == len(chunk) else chunk[in_chunk]
        start, n_gathered = start + len(chunk), n_gathered + len(in_chunk)
    return gathered


def as_floats(rows: Shaped[np.ndarray, "rows features"]) -> Float[np.ndarray, "rows features"]:
    """Return rows in the precision that computations use: half precision becomes single."""
    return rows.astype(np.float32) if rows.dtype == np.float16 else rows
