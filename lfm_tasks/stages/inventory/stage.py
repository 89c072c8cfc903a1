"""Stage validate: open every source, expand the layers, and give each space its key, before anything is computed."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeGuard

import numpy as np
from jaxtyping import Int, Shaped

from lfm_tasks.catalog import Catalog, ModelOnDataset
from lfm_tasks.catalog.comparisons import comparison_dataset, layer_misses, space_misses, unrequested_globs
from lfm_tasks.catalog.names import did_you_mean
from lfm_tasks.config import AtlasConfig
from lfm_tasks.errors import DataError
from lfm_tasks.runtime.folding import N_NAMED, says_the_same
from lfm_tasks.runtime.load import SpaceSize
from lfm_tasks.runtime.run import Failure, ProgressCallback, Run, refused_arrivals
from lfm_tasks.sources.files.digests import DigestMemory
from lfm_tasks.sources.networks.onnx_heads import open_head
from lfm_tasks.sources.opening import DIGESTS, DatasetRows, known_digests, open_source, read_dataset
from lfm_tasks.sources.source import FileSource, Source, choose_layers
from lfm_tasks.spaces import Space
from lfm_tasks.spectral.bases.automatic import BasisNumbers
from lfm_tasks.stages.inventory.correspondence import (
    Correspondence,
    ExchangeabilityGroups,
    Labels,
    dataset_exchangeability,
    dataset_labels,
    load_correspondence,
    text_labels,
)
from lfm_tasks.stages.inventory.cost import KEEP_MAPS, model_size, oversized_maps, with_layer
from lfm_tasks.stages.inventory.requests import PairSelection, across_selections, clashes, pair_selections
from lfm_tasks.stores.units.durable import atomic_write
from lfm_tasks.stores.units.store import digest, ids_digest


def selected_rows(
    ids: Shaped[np.ndarray, " points"], catalog: Catalog, points: Shaped[np.ndarray, " kept"] | None = None
) -> Int[np.ndarray, " selected"]:
    """Return the indices of the rows to record, in the order of their ids.

    With a cap (``atlas.max_points``), the ids with the smallest seeded digests stay: every source keeps the same ones,
    whatever else it holds. ``points``: the only ids that are compared; None: all.
    """
    order = np.argsort(ids, kind="stable")
    if points is not None:
        order = order[np.isin(ids[order], points)]
    cap = catalog.atlas.max_points
    if cap is None or len(order) <= cap:
        return order
    return order[drawn_rows(ids[order], cap, kind="cap", seed=catalog.atlas.seed)]


def drawn_rows(
    ids: Shaped[np.ndarray, " points"], n_drawn: int, *, kind: str, seed: int
) -> Int[np.ndarray, " selected"]:
    """Return the rows whose ids have the smallest seeded digests, ascending; ``kind`` makes draws independent."""
    digests = (digest({"kind": kind, "seed": seed, "id": str(name)}).encode() for name in ids)
    ranks = np.fromiter(digests, dtype="S64", count=len(ids))
    return np.sort(np.argsort(ranks, kind="stable")[:n_drawn])


def lacks_rows(source: Source, layer: str) -> TypeGuard[FileSource]:
    """Return whether a source has no values for some of its points in one layer."""
    return isinstance(source, FileSource) and source.lacks_rows(layer)


def layer_rows(
    source: Source, layer: str, catalog: Catalog, points: Shaped[np.ndarray, " kept"] | None
) -> Int[np.ndarray, " selected"]:
    """Return the indices of the rows of one layer to record: `selected_rows` of those that it has values for."""
    if not lacks_rows(source, layer):
        return selected_rows(source.ids, catalog, points)
    usable = source.usable(layer)
    return usable[selected_rows(source.ids[usable], catalog, points)]


@dataclass(frozen=True)
class PlannedSpace:
    """A space that can be recorded: its key in the store, its relative depth in the model, in [0, 1], its size."""

    space: Space
    key: str
    depth: float
    size: SpaceSize


@dataclass(frozen=True)
class Zoo:
    """All spaces that the catalog requests, and those that cannot be used.

    ``parts`` are comparisons within a dataset, ``across`` those of two datasets.
    By dataset: ``exchangeability`` says how rows are resampled, where the dataset does; ``rows`` holds ids and labels.
    ``n_chosen``: how many spaces can be used, whether a comparison requests them or not. ``notes``: sentences for
    people on what was left out.
    """

    spaces: tuple[PlannedSpace, ...]
    failures: tuple[Failure, ...]
    exchangeability: Mapping[str, ExchangeabilityGroups] = field(default_factory=dict)
    parts: tuple[PairSelection, ...] = ()
    labels: Mapping[str, Labels] = field(default_factory=dict)
    rows: Mapping[str, DatasetRows] = field(default_factory=dict)
    n_chosen: int = 0
    notes: tuple[str, ...] = ()
    across: tuple[PairSelection, ...] = ()

    @property
    def all_parts(self) -> tuple[PairSelection, ...]:
        """The comparisons within a dataset, and those across."""
        return *self.parts, *self.across

    def numbers(self, dataset: str, atlas: AtlasConfig) -> BasisNumbers:
        """Return how many neighbors and eigenpairs the spaces on all points of a dataset have."""
        return atlas.numbers(n_compared(self.rows[dataset]))


def n_compared(rows: DatasetRows) -> int:
    """Return how many points of a dataset are compared, before a cap."""
    return len(rows.ids if rows.points is None else rows.points)


# If none of the first models can be opened, and all of them for one reason, the others are not tried.
MOST_EQUAL_FAILURES = 300


def validate(run: Run) -> Zoo:
    """Open every source of the run's catalog; what cannot be used becomes a failure, the rest goes on."""
    path = run.store.root / DIGESTS
    memory = DigestMemory.read(path)
    zoo = validate_catalog(run.catalog, run.report_progress, memory)
    if memory.is_changed:
        atomic_write(path, memory.as_json())
    if run.catalog.unclaimed:
        run.notes["unclaimed"] = list(run.catalog.unclaimed)
    if zoo.notes:
        run.notes["left_out"] = list(zoo.notes)
    return zoo


def validate_catalog(catalog: Catalog, report_progress: ProgressCallback, memory: DigestMemory | None = None) -> Zoo:
    """Open every source of a catalog, as `validate` does, without a store: nothing is computed or written.

    ``memory`` knows digests of files; by default what the last run noted.
    """
    memory = memory or known_digests(catalog)
    spaces: list[PlannedSpace] = []
    failures: list[Failure] = []
    datasets: dict[str, DatasetRows | DataError] = {}
    exchangeability: dict[str, ExchangeabilityGroups] = {}
    notes: dict[str, list[str]] = {}
    n_equal = 0
    models = list(catalog.models_on_datasets())
    for done, (name, model) in enumerate(models):
        report_progress("validate", done, len(models))
        if n_equal >= MOST_EQUAL_FAILURES:
            failures.append(_not_opened(name, model, failures[0]))
            continue
        try:
            rows = _dataset_rows(model.dataset, catalog, datasets, exchangeability, memory)
            usable, unusable, said = plan_model(name, model, catalog, rows, memory)
            for sentence in said:
                notes.setdefault(sentence, []).append(_as_said(name, model.dataset, catalog))
        except DataError as error:
            usable, unusable = [], [Failure(model.dataset, name, "", "validate", error.reason, str(error))]
        if len(catalog.models[name].datasets) > 1:
            unusable = [replace(one, message=f"on {model.dataset}: {one.message}") for one in unusable]
        spaces += usable
        failures += unusable
        n_equal += n_equal == done and not usable and all(says_the_same(failures[0], one) for one in unusable)
    report_progress("validate", len(models), len(models))
    failures += list(_choice_failures(catalog, [planned.space for planned in spaces], failures))
    failures += refused_arrivals(catalog)
    spaces.sort(key=lambda planned: planned.space)
    correspondences, unusable = _load_correspondences(catalog, datasets)
    failures += unusable
    parts = pair_selections(catalog, [planned.space for planned in spaces], correspondences)
    clashing = {failure.model: failure for failure in _clashes(parts)}
    failures += clashing.values()
    parts = tuple(part for part in parts if f"comparisons.{part.name}.maps" not in clashing)
    across = across_selections(catalog, [planned.space for planned in spaces], correspondences)
    requested = {space for part in (*parts, *across) for space in part.spaces()}
    failures += _unrequested_embeddings(catalog, [planned.space for planned in spaces], requested)
    wanted = tuple(planned for planned in spaces if planned.space in requested)
    sizes = {space.space: space.size.n_points for space in wanted}
    for dataset, message in oversized_maps(catalog, parts, sizes).items():
        failures.append(Failure(dataset, KEEP_MAPS, "", "validate", "too_large", message))
    opened = {
        name: DatasetRows(rows.ids, rows.labels, points=rows.points)
        for name, rows in datasets.items()
        if isinstance(rows, DatasetRows)
    }
    # Libraries may name paths as they are used.
    told = tuple(replace(failure, message=catalog.hide_values(failure.message)) for failure in failures)
    left_out = tuple(catalog.hide_values(note) for note in (*_dataset_notes(datasets), *_as_sentences(notes)))
    labels = _labels(parts, datasets)
    return Zoo(wanted, told, exchangeability, parts, labels, opened, len(spaces), left_out, across)


def _dataset_notes(datasets: Mapping[str, DatasetRows | DataError]) -> Iterator[str]:
    """Yield a sentence for each dataset of which ids are left out, or have several rows."""
    for name, rows in datasets.items():
        if not isinstance(rows, DatasetRows):
            continue
        if rows.points is not None:
            yield f"dataset {name}: {len(rows.points)} of {len(rows.ids)} points are compared, as the catalog says"


def _as_said(name: str, dataset: str, catalog: Catalog) -> str:
    """Return how people call a model on a dataset: by its name, where that tells."""
    return name if len(catalog.models[name].datasets) == 1 else f"{name} on {dataset}"


def _as_sentences(notes: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yield each sentence once, with the models that it is about."""
    for sentence, models in notes.items():
        more = f" and {len(models) - N_NAMED} more models" if len(models) > N_NAMED else ""
        yield f"{', '.join(models[:N_NAMED])}{more}: {sentence}"


def plan_model(
    name: str, model: ModelOnDataset, catalog: Catalog, rows: DatasetRows, memory: DigestMemory | None = None
) -> tuple[list[PlannedSpace], list[Failure], list[str]]:
    """Return the spaces of one model, first layer first, the layers that cannot be read, and what was left out."""
    source = open_source(name, model, catalog, rows, memory)
    n_points = len(selected_rows(source.ids, catalog, rows.points))
    check_size(n_points, catalog)
    layers, notes = choose_layers(model.layers, source)
    _check_head(name, model, catalog, layers)
    last = max(1, len(layers) - 1)
    whole, pool = model_size(name, model, source, catalog, n_points), model.pool
    key_of = activations_keys(source, catalog, rows.points)
    spaces, failures = [], []
    for position, layer in enumerate(layers):
        space = Space(model.dataset, name, layer)
        try:
            n_left = n_points
            if lacks_rows(source, layer):
                n_left = len(layer_rows(source, layer, catalog, rows.points))
            check_size(n_left, catalog)
            size = replace(with_layer(whole, space, source, pool), n_points=n_left)
            key = key_of(layer)
            spaces.append(PlannedSpace(space, key, position / last, size))
        except DataError as error:
            failures.append(Failure(model.dataset, name, layer, "validate", error.reason, str(error)))
    if isinstance(source, FileSource):
        notes += source.notes(layers)
    if lacking := _lacking(source, rows):
        notes.append(lacking)
    return spaces, failures, notes


_N_IDS = 12  # that a sentence names


def _lacking(source: Source, rows: DatasetRows) -> str:
    """Return a sentence on the points of the dataset that a source has no rows for; "" if it has all."""
    wanted = rows.ids if rows.points is None else rows.points
    if source.ids is rows.ids:
        return ""
    lacking = np.setdiff1d(wanted, source.ids)
    if not len(lacking):
        return ""
    first = ", ".join(str(name) for name in lacking[:_N_IDS]) + (" ..." if len(lacking) > _N_IDS else "")
    return f"{len(lacking)} of {len(wanted)} points of the dataset are not there: {first}"


def _not_opened(name: str, model: ModelOnDataset, first: Failure) -> Failure:
    message = f"not opened: each of the first {MOST_EQUAL_FAILURES} models failed like {first.model}. Fix that first"
    return Failure(model.dataset, name, "", "validate", first.reason, message)


def _check_head(name: str, model: ModelOnDataset, catalog: Catalog, layers: Sequence[str]) -> None:
    """Raise DataError if the model's head cannot be cut out, or starts from a layer that is not recorded."""
    if model.head is None:
        return
    try:
        open_head(name, model, catalog)
    except DataError as error:
        raise DataError(error.reason, f"head: {error}") from error
    if model.head.layer not in layers:
        found = f"head: got {model.head.layer!r}, which layers leaves out, expected a layer that is recorded"
        raise DataError("unknown_layer", f"{found}. Add it to layers{did_you_mean(model.head.layer, layers)}")


def _choice_failures(catalog: Catalog, spaces: Sequence[Space], failures: Sequence[Failure]) -> Iterator[Failure]:
    """Yield the sides of comparisons, and the embeddings, of layers which no model has: only opened sources tell."""
    members = catalog.model_facts()
    known = [*spaces, *(Space(f.dataset, f.model, f.layer) for f in failures if f.layer)]
    unopened = [failure.model for failure in failures if not failure.layer]
    for name, comparison in catalog.comparisons.items():
        dataset = str(comparison_dataset(comparison, members))
        for key, of_side in (("sources", dataset), ("targets", comparison.target_dataset or dataset)):
            of_dataset = [space for space in known if space.dataset == of_side]
            closed = [failure.model for failure in failures if not failure.layer and failure.dataset == of_side]
            for message in layer_misses(getattr(comparison, key), of_dataset, closed, members):
                yield Failure(of_side, f"comparisons.{name}.{key}", "", "validate", "unknown_layer", message)
    if catalog.atlas.embeddings is not None:
        datasets = ", ".join(sorted({space.dataset for space in known}))
        for message in space_misses(catalog.atlas.embeddings.spaces, known, unopened, members):
            yield Failure(datasets, "atlas.embeddings.spaces", "", "validate", "unknown_layer", message)


def _unrequested_embeddings(
    catalog: Catalog, spaces: Sequence[Space], requested: Collection[Space]
) -> Iterator[Failure]:
    if catalog.atlas.embeddings is not None:
        for message in unrequested_globs(catalog.atlas.embeddings.spaces, spaces, requested, catalog.model_facts()):
            datasets = ", ".join(sorted({space.dataset for space in spaces}))
            yield Failure(datasets, "atlas.embeddings.spaces", "", "validate", "not_asked", message)


def _load_correspondences(
    catalog: Catalog, datasets: Mapping[str, DatasetRows | DataError]
) -> tuple[dict[tuple[str, str], Correspondence], list[Failure]]:
    """Return the correspondence of each comparison (the whole zoo: "") and dataset, and what is wrong with others."""
    wanted = [("", name, catalog.atlas.maps) for name in datasets]
    if catalog.comparisons:
        members = catalog.model_facts()
        wanted = [
            (name, str(dataset), comparison.maps or catalog.atlas.maps)
            for name, comparison in catalog.comparisons.items()
            for dataset in (comparison_dataset(comparison, members), comparison.target_dataset)
            if dataset is not None
        ]
    known, failures = {}, []
    for name, dataset, maps in wanted:
        rows = datasets.get(dataset)
        if not isinstance(rows, DatasetRows):  # reported with the models of that dataset
            continue
        try:
            known[name, dataset] = load_correspondence(maps, dataset, rows, catalog)
        except DataError as error:
            where = f"comparisons.{name}.maps" if name else "atlas.maps"
            failures.append(Failure(dataset, where, "", "validate", error.reason, str(error)))
    for name, message in _without_common_classes(catalog, datasets, known):
        dataset = str(catalog.comparisons[name].dataset)
        failures.append(Failure(dataset, f"comparisons.{name}.maps", "", "validate", "one_class", message))
        known.pop((name, dataset), None)
    return known, failures


def _without_common_classes(
    catalog: Catalog,
    datasets: Mapping[str, DatasetRows | DataError],
    known: Mapping[tuple[str, str], Correspondence],
) -> Iterator[tuple[str, str]]:
    """Yield each comparison from labels of two datasets that have fewer than two of them in common, and a sentence."""
    for name, comparison in catalog.comparisons.items():
        sides = [
            (str(dataset), datasets.get(str(dataset))) for dataset in (comparison.dataset, comparison.target_dataset)
        ]
        is_fitted = comparison.is_across and all((name, dataset) in known for dataset, _ in sides)
        if not is_fitted or known[name, sides[0][0]].regime != "labels":
            continue
        labels = [sorted(set(text_labels(rows).values())) for _, rows in sides if isinstance(rows, DatasetRows)]
        n_common = len(set(labels[0]) & set(labels[1]))
        if n_common < 2:
            first = " and ".join(
                f"{ascii(of_side[0])[:40]} first in {dataset}"
                for (dataset, _), of_side in zip(sides, labels, strict=True)
                if of_side
            )
            found = f"got {n_common} labels that both datasets have ({first}), expected at least 2"
            yield name, f"{found}. Call the same classes the same in both, or set regime: unsupervised"


def _clashes(parts: Sequence[PairSelection]) -> list[Failure]:
    """Return the comparisons that want maps of one pair from different correspondences: a cell holds one of them."""
    failures = []
    for earlier, part, source, target in clashes(parts):
        found = f"got {source.name} and {target.name} in comparisons.{earlier.name} too, with other maps"
        message = f"{found}: a pair has one map; give the two comparisons different spaces, or the same maps"
        failures.append(Failure(part.dataset, f"comparisons.{part.name}.maps", "", "validate", "bad_maps", message))
    return failures


def _labels(parts: Sequence[PairSelection], datasets: Mapping[str, DatasetRows | DataError]) -> dict[str, Labels]:
    """Return the labels of the datasets whose maps are fitted from them."""
    wanted = {part.dataset for part in parts if part.correspondence.regime == "labels"}
    opened = {name: rows for name, rows in datasets.items() if name in wanted and isinstance(rows, DatasetRows)}
    return {name: labels for name, rows in opened.items() if (labels := dataset_labels(rows)) is not None}


def _check_cap(groups: ExchangeabilityGroups, dataset: str, catalog: Catalog) -> None:
    if groups.kind == "groups" and catalog.atlas.max_points is not None:
        found = f"dataset {dataset}: got groups and atlas.max_points, which draws single rows and tears groups apart"
        raise DataError("bad_groups", f"{found}. Remove the cap, or give fewer whole groups")


def check_size(n_points: int, catalog: Catalog) -> None:
    """Raise DataError if spaces of ``n_points`` are too small for their numbers of neighbors and eigenpairs."""
    atlas = catalog.atlas
    n_used = n_points if atlas.max_points is None else min(n_points, atlas.max_points)
    numbers = atlas.numbers(n_points)
    for setting, needed in zip(numbers._fields, numbers, strict=True):
        if n_used <= needed:
            found = f"got {n_used} points, expected at least {needed + 1} for {setting} {needed}"
            raise DataError("too_few_points", f"{found}. Lower it in the catalog, or give more points")


def activations_keys(
    source: Source, catalog: Catalog, points: Shaped[np.ndarray, " kept"] | None = None
) -> Callable[[str], str]:
    """Return the function that gives the content address of the recorded activations of each layer of a source."""
    whole = selected_rows(source.ids, catalog, points)
    ids = ids_digest(source.ids)

    def key_of(layer: str) -> str:
        ingredients: Mapping[str, str] = source.identity(layer)
        rows = layer_rows(source, layer, catalog, points) if lacks_rows(source, layer) else whole
        of_rows = {"ids": ids, "rows": rows.tolist()}
        return digest({"kind": "activations", "source": dict(ingredients), **of_rows})

    return key_of


def _dataset_rows(
    name: str,
    catalog: Catalog,
    datasets: dict[str, DatasetRows | DataError],
    exchangeability: dict[str, ExchangeabilityGroups],
    memory: DigestMemory,
) -> DatasetRows:
    """Return the rows of a dataset, read once; DataError, the same one each time, if they cannot be used."""
    if name not in datasets:
        try:
            datasets[name] = rows = read_dataset(name, catalog, memory)
            if (groups := dataset_exchangeability(rows)) is not None:
                _check_cap(groups, name, catalog)
                exchangeability[name] = groups
        except DataError as error:
            datasets[name] = error
    rows_or_error = datasets[name]
    if isinstance(rows_or_error, DataError):
        raise rows_or_error
    return rows_or_error
