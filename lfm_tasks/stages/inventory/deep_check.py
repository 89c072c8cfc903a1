"""Reads the values of every space before a run does: what can be used, and how far the ids of models overlap."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped

from lfm_tasks.catalog import Catalog, Model, expand_layers
from lfm_tasks.reasons import ReasonError
from lfm_tasks.runtime.run import Announce
from lfm_tasks.sources.datasets import DatasetRows, read_dataset
from lfm_tasks.sources.networks.recording import RecordedSource
from lfm_tasks.sources.opening import open_source
from lfm_tasks.sources.source import Source
from lfm_tasks.spaces import Space
from lfm_tasks.stages.inventory.id_overlaps import Overlap, id_overlaps
from lfm_tasks.stages.inventory.sampling import selected_rows
from lfm_tasks.stages.inventory.stage import Zoo


@dataclass(frozen=True)
class ReadSpace:
    """What the values of a space are like: ``read`` of its points were read, in which ``dead`` features never change.

    ``reason`` and ``error`` are empty if every value is finite and can be used.
    """

    dataset: str
    model: str
    layer: str
    points: int
    read: int
    features: int | None = None
    dtype: str | None = None
    dead: int | None = None
    reason: str = ""
    error: str = ""


@dataclass(frozen=True)
class DeepReport:
    """Every space that could be opened, the overlaps on each dataset, and all that cannot be used."""

    spaces: tuple[ReadSpace, ...]
    overlaps: tuple[Overlap, ...]
    problems: tuple[str, ...]


def read_zoo(catalog: Catalog, zoo: Zoo, announce: Announce) -> DeepReport:
    """Return what reading all rows that a run would read has found; one batch is in memory at a time.

    Of a model that has to be run (ONNX, PyTorch) one batch is read: all rows would be the recording itself.
    """
    refused = {(failure.model, failure.layer) for failure in zoo.failures if failure.stage == "validate"}
    problems = [f"{'/'.join(filter(None, (f.model, f.layer)))}: {f.message} [{f.reason}]" for f in zoo.failures]
    spaces: list[ReadSpace] = []
    ids: dict[str, Shaped[np.ndarray, " points"]] = {}
    datasets: dict[str, DatasetRows] = {}
    for done, (name, model) in enumerate(catalog.models.items()):
        announce("reading", done, len(catalog.models))
        if (name, "") in refused:
            continue
        try:
            source = _open(name, model, catalog, datasets)
            layers = expand_layers(model.layers, source.layer_names())
        except ReasonError as error:  # it could be opened a moment ago
            problems.append(f"{name}: {error} [{error.reason}]")
            continue
        rows = np.sort(selected_rows(source.ids, catalog))
        ids[name] = source.ids[rows]
        own = [Space(model.dataset, name, layer) for layer in layers if (name, layer) not in refused]
        spaces += _read_spaces(source, own, rows)
    announce("reading", len(catalog.models), len(catalog.models))
    problems += [f"{space.model}/{space.layer}: {space.error} [{space.reason}]" for space in spaces if space.reason]
    overlaps, too_little = id_overlaps(zoo, ids, catalog.atlas.min_overlap)
    return DeepReport(tuple(spaces), overlaps, (*problems, *too_little))


def as_lines(report: DeepReport) -> list[str]:
    """Return an aligned line for each space, then one for the overlaps on each dataset."""
    cells = [
        (
            space.dataset,
            f"{space.model}/{space.layer}",
            f"{space.points} points",
            "?" if space.features is None else f"{space.features} features",
            space.dtype or "?",
            "?" if space.dead is None else f"{space.dead} dead",
            _verdict(space),
        )
        for space in report.spaces
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    rights = (2, 3, 5)  # columns of numbers
    lines = [
        "  ".join(
            f"{text:>{width}}" if column in rights else f"{text:<{width}}"
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    return [*lines, *map(str, report.overlaps)]


def as_json(report: DeepReport) -> str:
    """Return the same, and the problems, as one JSON object."""
    return json.dumps(asdict(report), indent=1, ensure_ascii=False, allow_nan=False)


def _open(name: str, model: Model, catalog: Catalog, datasets: dict[str, DatasetRows]) -> Source:
    if model.dataset not in datasets:
        datasets[model.dataset] = read_dataset(model.dataset, catalog)
    return open_source(name, model, catalog, datasets[model.dataset])


def _read_spaces(source: Source, spaces: Sequence[Space], rows: Int[np.ndarray, " selected"]) -> Iterator[ReadSpace]:
    """Yield what is in each space; layers of a network are run together, and alone if one of them has an error."""
    if not isinstance(source, RecordedSource):
        for space in spaces:
            yield from _read_together(source, [space], rows, len(rows))
        return
    if not spaces:
        return
    first = rows[: source.batch_rows]
    found = list(_read_together(source, spaces, first, len(rows)))
    if any(space.reason for space in found) and len(spaces) > 1:
        found = [read for space in spaces for read in _read_together(source, [space], first, len(rows))]
    yield from found


def _read_together(
    source: Source, spaces: Sequence[Space], rows: Int[np.ndarray, " read"], n_points: int
) -> Iterator[ReadSpace]:
    columns: dict[str, Columns] = {}
    try:
        for batch in source.batches([space.layer for space in spaces], rows):
            for layer, values in batch.items():
                columns[layer] = columns[layer].and_then(values) if layer in columns else Columns.of(values)
    except ReasonError as error:
        for space in spaces:
            names = (space.dataset, space.model, space.layer)
            yield ReadSpace(*names, n_points, 0, reason=error.reason, error=str(error))
        return
    for space in spaces:
        seen = columns[space.layer]
        dead, features = int(seen.dead.sum()), len(seen.dead)
        facts = (n_points, len(rows), features, str(seen.first.dtype), dead)
        # One batch cannot tell that all points are alike.
        constant = dead == features and len(rows) == n_points
        trouble = ("constant", "found the same activations for every point: drop the layer, it says nothing")
        yield ReadSpace(space.dataset, space.model, space.layer, *facts, *(trouble if constant else ()))


@dataclass(frozen=True)
class Columns:
    """The features of the rows seen so far: those of the first, and which have been the same in all others."""

    first: Float[np.ndarray, " features"]
    dead: Shaped[np.ndarray, " features"]

    @classmethod
    def of(cls, batch: Float[np.ndarray, "batch features"]) -> "Columns":
        """Return the columns of the first batch."""
        return cls(batch[0].copy(), np.ones(batch.shape[1], dtype=bool)).and_then(batch)

    def and_then(self, batch: Float[np.ndarray, "batch features"]) -> "Columns":
        """Return the columns after one batch more."""
        return Columns(self.first, self.dead & (batch == self.first).all(axis=0))


def _verdict(space: ReadSpace) -> str:
    if space.reason:
        return f"{space.reason}, see below"
    return "finite" if space.read == space.points else f"finite (the first {space.read} points were read)"
