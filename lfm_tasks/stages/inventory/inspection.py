"""Findings of `validate --deep` and `layers`: values, ids and layers of every source."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product

import numpy as np
from jaxtyping import Float, Int, Shaped

from lfm_tasks.catalog import Catalog, ModelOnDataset
from lfm_tasks.errors import DataError
from lfm_tasks.runtime.folding import fold_failures
from lfm_tasks.runtime.run import Failure, ProgressCallback
from lfm_tasks.sources.networks.recording import OF_THE_NETWORK, RecordedSource
from lfm_tasks.sources.opening import DatasetRows, open_source, read_dataset
from lfm_tasks.sources.source import FileSource, Source, choose_layers
from lfm_tasks.spaces import Space
from lfm_tasks.stages.inventory.stage import Zoo, lacks_rows, layer_rows, selected_rows
from lfm_tasks.stores.units.store import ids_digest

Ids = Shaped[np.ndarray, " points"]


@dataclass(frozen=True)
class Overlap:
    """Common ids of the models that are compared, in percent of the smaller one's: the worst pair, and the median."""

    dataset: str
    pairs: int
    min: float
    worst: tuple[str, str]
    median: float

    def __str__(self) -> str:
        """One line for people."""
        least = f"{self.min:.1f} % ({' and '.join(self.worst)}) of their ids or more, median {self.median:.1f} %"
        return f"{self.dataset}: {self.pairs} pairs of models share {least}"


def id_overlaps(zoo: Zoo, ids: Mapping[tuple[str, str], Ids], least: float) -> tuple[tuple[Overlap, ...], list[str]]:
    """Return the overlaps on each dataset, and a sentence where pairs share too few ids to be scored.

    ``ids``: by dataset and model.
    """
    requested: dict[str, set[tuple[str, str]]] = {}
    for part in zoo.parts:
        of_part = [{space.model for space in side if space[:2] in ids} for side in (part.sources, part.targets)]
        pairs = {(min(pair), max(pair)) for pair in product(*of_part) if pair[0] != pair[1]}
        requested.setdefault(part.dataset, set()).update(pairs)
    digests = {name: ids_digest(np.sort(of_model)) for name, of_model in ids.items()}  # most models have the same ids
    known: dict[frozenset[str], float] = {}
    overlaps, problems = [], []
    for dataset, pairs in requested.items():
        shares = {}
        for first, second in sorted(pairs):
            places = (dataset, first), (dataset, second)
            both = frozenset(digests[place] for place in places)
            if both not in known:
                known[both] = _share(*(ids[place] for place in places)) if len(both) > 1 else 1.0
            shares[first, second] = known[both]
        if not shares:
            continue
        worst = min(shares, key=shares.__getitem__)
        median = float(np.median(list(shares.values())))
        overlaps.append(Overlap(dataset, len(shares), 100 * shares[worst], worst, 100 * median))
        if too_few := sum(share < least or share == 0 for share in shares.values()):
            found = f"got {too_few} pairs of models with fewer common ids than atlas.min_overlap ({least}), worst "
            advice = "Record both on the same samples, or lower it [little_overlap]"
            problems.append(f"dataset {dataset}: {found}{worst[0]} and {worst[1]}. {advice}")
    return tuple(overlaps), problems


def _share(first: Ids, second: Ids) -> float:
    """Return the share of the smaller set of ids that is in the other one, in [0, 1]."""
    return len(np.intersect1d(first, second, assume_unique=True)) / min(len(first), len(second))


@dataclass(frozen=True)
class ReadSpace:
    """Facts about the values of a space: ``read`` of its points were read, in which ``dead`` features never change.

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


def read_zoo(catalog: Catalog, zoo: Zoo, report_progress: ProgressCallback) -> DeepReport:
    """Read all rows that a run would read, report what they are like; one batch is in memory at a time.

    Of a model that has to be run (ONNX, PyTorch) one batch is read: all rows would be the recording itself.
    """
    unusable = {(one.dataset, one.model, one.layer) for one in zoo.failures if one.stage == "validate"}
    problems = _problems(zoo.failures)
    spaces: list[ReadSpace] = []
    ids: dict[tuple[str, str], Shaped[np.ndarray, " points"]] = {}
    datasets: dict[str, DatasetRows] = {}
    models = list(catalog.models_on_datasets())
    for done, (name, model) in enumerate(models):
        report_progress("reading", done, len(models))
        if (model.dataset, name, "") in unusable:
            continue
        try:
            source = _open(name, model, catalog, datasets)
            layers, _ = choose_layers(model.layers, source)
        except DataError as error:  # it could be opened a moment ago
            problems.append(f"{name}: {error} [{error.reason}]")
            continue
        points = datasets[model.dataset].points
        rows = np.sort(selected_rows(source.ids, catalog, points))
        ids[model.dataset, name] = source.ids[rows]
        usable = [space for layer in layers if (space := Space(model.dataset, name, layer)) not in unusable]
        spaces += _read_spaces(source, usable, rows, catalog, points)
    report_progress("reading", len(models), len(models))
    problems += _problems(
        Failure(space.dataset, space.model, space.layer, "validate", space.reason, space.error)
        for space in spaces
        if space.reason
    )
    overlaps, too_little = id_overlaps(zoo, ids, catalog.atlas.min_overlap)
    return DeepReport(tuple(spaces), overlaps, (*problems, *too_little))


def _problems(failures: Iterable[Failure]) -> list[str]:
    return [folded.line() for folded in fold_failures(failures)]


def report_as_lines(report: DeepReport) -> list[str]:
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


def report_as_json(report: DeepReport) -> str:
    """Return the report as one JSON object."""
    return json.dumps(asdict(report), indent=1, ensure_ascii=False, allow_nan=False)


def _open(name: str, model: ModelOnDataset, catalog: Catalog, datasets: dict[str, DatasetRows]) -> Source:
    if model.dataset not in datasets:
        datasets[model.dataset] = read_dataset(model.dataset, catalog)
    return open_source(name, model, catalog, datasets[model.dataset])


def _read_spaces(
    source: Source, spaces: Sequence[Space], rows: Int[np.ndarray, " selected"], catalog: Catalog, points: Ids | None
) -> Iterator[ReadSpace]:
    """Yield a report of each space; layers of a network are run together, and alone if one of them has an error."""
    if not isinstance(source, RecordedSource):
        for space in spaces:
            of_layer = rows
            if lacks_rows(source, space.layer):
                of_layer = np.sort(layer_rows(source, space.layer, catalog, points))
            yield from _read_together(source, [space], of_layer, len(of_layer))
        return
    if not spaces:
        return
    first = rows[: source.batch_rows]
    read = list(_read_together(source, spaces, first, len(rows)))
    if any(space.reason not in ("", *OF_THE_NETWORK) for space in read) and len(spaces) > 1:
        read = [alone for space in spaces for alone in _read_together(source, [space], first, len(rows))]
    yield from read


def _read_together(
    source: Source, spaces: Sequence[Space], rows: Int[np.ndarray, " read"], n_points: int
) -> Iterator[ReadSpace]:
    columns: dict[str, Columns] = {}
    try:
        for batch in source.batches([space.layer for space in spaces], rows):
            for layer, values in batch.items():
                columns[layer] = columns[layer].and_then(values) if layer in columns else Columns.of(values)
    except DataError as error:
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
        failure = ("constant", "got the same activations for every point. Drop the layer, it says nothing")
        yield ReadSpace(space.dataset, space.model, space.layer, *facts, *(failure if constant else ()))


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


@dataclass(frozen=True)
class ListedLayer:
    """A layer, the shape of one point in it (None: only a run can tell), and why it cannot be used, if so."""

    name: str
    shape: tuple[int | None, ...]
    chosen: bool
    problem: str = ""


def list_layers(catalog: Catalog, model_name: str, dataset: str | None = None) -> tuple[ListedLayer, ...]:
    """Return all layers of a model, in its order; a network is run on a few rows if nothing else tells.

    Raises
    ------
    DataError
        ``missing_source`` for a model that the catalog does not have, or a dataset that the model is not on (None: its
        only one); ``unknown_layer`` if its ``layers`` choose nothing; and as opening it does.
    """
    try:
        model = catalog.model_on(model_name, dataset)
    except LookupError as error:
        raise DataError("missing_source", str(error)) from error
    source = open_source(model_name, model, catalog, read_dataset(model.dataset, catalog))
    chosen = set(choose_layers(model.layers, source)[0])
    shapes = source.layer_shapes() if isinstance(source, RecordedSource) else {}
    listed = []
    for name in source.layer_names():
        shape: tuple[int | None, ...] = shapes.get(name, ())
        try:
            if isinstance(source, FileSource) and name not in chosen and (reason := source.passed_over(name)):
                listed.append(ListedLayer(name, (), False, f"no layer: {reason}"))
                continue
            # The header of a file says what it holds, already pooled.
            shape = source.shape(name)[1:] if isinstance(source, FileSource) else shape
            source.identity(name)
        except DataError as error:
            listed.append(ListedLayer(name, shape, name in chosen, str(error)))
        else:
            listed.append(ListedLayer(name, shape, name in chosen))
    return tuple(listed)


def layers_as_lines(layers: Sequence[ListedLayer]) -> str:
    """Return a line for each layer: ``*`` if it is chosen, its name, the shape of a point or why there is none."""
    width = max(len(layer.name) for layer in layers)
    return "\n".join(
        f"{'*' if layer.chosen else ' '} {layer.name:<{width}}  {layer.problem or _text(layer.shape)}"
        for layer in layers
    )


def layers_as_json(layers: Sequence[ListedLayer]) -> str:
    """Return the layers as a JSON list of objects."""
    return json.dumps([asdict(layer) for layer in layers], indent=1, ensure_ascii=False)


def _text(shape: tuple[int | None, ...]) -> str:
    return " × ".join("?" if length is None else str(length) for length in shape)
