"""Maps by name: one map between two spaces that a user names is fitted, and kept under a name."""

import csv
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from lfm_tasks.catalog import Catalog
from lfm_tasks.catalog.names import did_you_mean
from lfm_tasks.errors import DataError
from lfm_tasks.runtime.run import Run
from lfm_tasks.sources.files.formats import open_array
from lfm_tasks.sources.files.stored_array import check_memory_size
from lfm_tasks.sources.opening import read_dataset
from lfm_tasks.spectral.transfer.alignment import Alignment
from lfm_tasks.stages.activations.job import read_rows
from lfm_tasks.stages.activations.stage import record_activations
from lfm_tasks.stages.inventory.requests import PairSelection
from lfm_tasks.stages.inventory.stage import PlannedSpace, Zoo, plan_model
from lfm_tasks.stages.transfers.job import (
    LEAST_ANCHORS,
    AnchorSpec,
    MapSide,
    choose_anchors,
    class_labels,
    common_points,
    map_job,
    store_map,
)
from lfm_tasks.stores.named_maps import NamedMap, check_map_name, write_named_map
from lfm_tasks.stores.units.arrays import ArrayReader
from lfm_tasks.stores.units.store import UnitStore
from lfm_tasks.workers.pool import JobFailure

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]")
_COLUMNS = {
    "held_out": "held out",
    "typical_rank": "rank",
    "round_trip": "round trip",
    "accuracy": "accuracy",
    "mrr": "MRR",
    "stitched_accuracy": "stitched",
}


@dataclass(frozen=True)
class FittedNamedMap:
    """A named map, the facts of its receipt, and whether this run fitted it."""

    named: NamedMap
    facts: Mapping[str, Any]
    is_new: bool


def fit_named_map(
    run: Run,
    source: str,
    target: str,
    anchor_spec: AnchorSpec,
    name: str | None = None,
    *,
    dataset: str | None = None,
) -> FittedNamedMap:
    """Record two spaces where they are missing, fit their map if the store lacks it, and name it.

    Parameters
    ----------
    run
        The run.
    source, target
        The two spaces, as ``model/layer``.
    anchor_spec
        Which of their points are known to correspond.
    name
        The name of the map; None: `default_name`.
    dataset
        The dataset of both; None: the only one that both models are on.

    Raises
    ------
    DataError
        For a space that is not there or cannot be used, for anchors that do not fit it, for a name that is taken.
    """
    dataset = common_dataset(run.catalog, source, target, dataset)
    planned = [find_space(run.catalog, side, dataset) for side in (source, target)]
    several = [side for side in (source, target) if len(run.catalog.models[side.partition("/")[0]].datasets) > 1]
    usual = default_name(source, target, dataset if several else "")
    named = NamedMap(name or usual, dataset, source, target, anchor_spec.regime, 0, "")
    check_map_name(run.store.root, named)
    key, facts, is_new = _fit(run, _record(run, planned), anchor_spec)
    named = NamedMap(named.name, dataset, source, target, anchor_spec.regime, facts["n_anchors"], key)
    write_named_map(run.store.root, named)
    return FittedNamedMap(named, facts, is_new)


def _fit(run: Run, sides: Sequence[MapSide], anchor_spec: AnchorSpec) -> tuple[str, Mapping[str, Any], bool]:
    """Fit the map between two sides if the store lacks it; return its key, its facts, and whether it is new."""
    labels = class_labels(read_dataset(sides[0].space.dataset, run.catalog))
    job = map_job(run.store, sides[0], sides[1], anchor_spec, run.catalog, labels)
    receipt = run.store.find("maps", job.key)
    is_new = receipt is None
    if receipt is None:
        for _, result in run.workers.run(store_map, [job]):
            if isinstance(result, JobFailure):
                if result.reason == "failed":
                    raise RuntimeError(result.message)  # no fault of the catalog or the arguments
                raise DataError(result.reason, result.message)
        receipt = run.store.receipt("maps", job.key)
    run.stage_counts.add("maps", int(is_new), int(not is_new))
    return job.key, receipt.facts, is_new


@dataclass(frozen=True)
class BothWays:
    """A named map, the map in the other direction, and rows of both spaces for the points that are known in both.

    ``known``: None where the regime knows no pairs.
    """

    there: Alignment
    back: Alignment
    known: tuple[Float[np.ndarray, "known source_features"], Float[np.ndarray, "known target_features"]] | None


def map_both_ways(run: Run, named: NamedMap, anchor_spec: AnchorSpec, most_known: int) -> BothWays:
    """Return a named map with the one that leads back, which is fitted if the store lacks it.

    Parameters
    ----------
    run
        The run.
    named
        The map, as `fit_named_map` stored it from ``anchor_spec``.
    anchor_spec
        Which points are known.
    most_known
        Rows of so many known points at most are returned, evenly spread.
    """
    planned = [find_space(run.catalog, side, named.dataset) for side in (named.source, named.target)]
    sides = _record(run, planned)
    turned = replace(anchor_spec, pairs=tuple((target, source) for source, target in anchor_spec.pairs))
    key, _, _ = _fit(run, sides[::-1], turned)
    back = read_map(run.store, replace(named, source=named.target, target=named.source, key=key))
    known = None
    if anchor_spec.regime in ("anchors", "full"):
        with ExitStack() as stack:
            units = [stack.enter_context(run.store.open("activations", side.activations)) for side in sides]
            ids = [unit.read("ids") for unit in units]
            pairs = choose_anchors(anchor_spec, *ids) if anchor_spec.regime == "anchors" else common_points(*ids)
            pairs = pairs.take(np.unique(np.linspace(0, len(pairs) - 1, min(len(pairs), most_known)).astype(np.int64)))
            source, target = (
                _rows_of(unit, rows) for unit, rows in zip(units, (pairs.source, pairs.target), strict=True)
            )
        known = source, target
    return BothWays(read_map(run.store, named), back, known)


def _rows_of(unit: ArrayReader, rows: Int[np.ndarray, " some"]) -> Float[np.ndarray, "some features"]:
    """Return rows of a space in the requested order; units are read in ascending order."""
    distinct, places = np.unique(rows, return_inverse=True)
    return read_rows(unit, distinct).astype(np.float64)[places]


def read_map(store: UnitStore, named: NamedMap) -> Alignment:
    """Return the stored map.

    Raises
    ------
    DataError
        ``missing_source`` if its unit is not in the store any more.
    CorruptUnitError
        If it is damaged.
    """
    if not store.has("maps", named.key):
        problem = f"got the name {named.name!r} and not its map, which was removed from the store"
        raise DataError("missing_source", f"{problem}: lfm-atlas map {named.source} {named.target} fits it again")
    with store.open("maps", named.key) as unit:
        return Alignment(unit.read("source_mean"), unit.read("target_mean"), unit.read("matrix"))


def default_name(source: str, target: str, dataset: str = "") -> str:
    """Return the name of a map for which the user chooses none; ``dataset``: where a model is on several.

    Examples
    --------
    >>> default_name("mlp_s0/relu4", "mlp_s1/relu4")
    'mlp_s0.relu4--mlp_s1.relu4'
    >>> default_name("mlp_s0/relu4", "mlp_s1/relu4", "digits")
    'mlp_s0.relu4--mlp_s1.relu4--digits'
    """
    sides = [side.replace("/", ".", 1) for side in (source, target)]
    return "--".join(_NOT_IN_NAMES.sub("-", part) for part in (*sides, dataset) if part)


def common_dataset(catalog: Catalog, source: str, target: str, dataset: str | None) -> str:
    """Return the dataset of two spaces: the one that is named, or the only one that both models are on.

    Raises
    ------
    DataError
        ``missing_source`` for a model that is not there, or is not on the dataset, or if there are several to choose
        from; ``no_overlap`` if the two have none in common.
    """
    datasets = []
    for name in (source, target):
        model = name.partition("/")[0]
        if dataset is not None or model not in catalog.models:
            try:
                catalog.model_on(model, dataset)
            except LookupError as error:
                raise DataError("missing_source", str(error)) from error
        datasets.append(catalog.models[model].datasets)
    if dataset is not None:
        return dataset
    common = [one for one in datasets[0] if one in datasets[1]]
    if len(common) > 1:
        found = f"got {source} and {target} on the datasets {', '.join(common)}"
        raise DataError("missing_source", f"{found}, expected one of them. Name one: --dataset {common[0]}")
    if not common:
        ours, theirs = (" and ".join(of_model) for of_model in datasets)
        problem = f"got {source} on the dataset {ours} and {target} on {theirs}"
        raise DataError("no_overlap", f"{problem}, expected one dataset. Record both on the same inputs")
    return common[0]


def find_space(catalog: Catalog, name: str, dataset: str | None = None) -> PlannedSpace:
    """Return the space ``model/layer`` of the catalog on a dataset (None: its only one); only its model is opened.

    Raises
    ------
    DataError
        ``missing_source`` for a name without a layer, or a model that is not there, or not on the dataset;
        ``unknown_layer`` for a layer that the catalog does not choose; and as opening the model does.
    """
    model_name, _, layer = name.partition("/")
    try:
        model = catalog.model_on(model_name, dataset)
    except LookupError as error:
        raise DataError("missing_source", str(error)) from error
    spaces, failures, _ = plan_model(model_name, model, catalog, read_dataset(model.dataset, catalog))
    by_name = {planned.space.name: planned for planned in spaces}
    if name in by_name:
        return by_name[name]
    for failure in failures:
        if failure.layer == layer:
            raise DataError(failure.reason, failure.message)
    needs = f"got no space {name[:100]!r}, expected model/layer with a layer that the catalog chooses"
    raise DataError("unknown_layer", f"{needs}{did_you_mean(name, by_name)}")


def _record(run: Run, planned: list[PlannedSpace]) -> list[MapSide]:
    """Record spaces where they are missing; return them as sides of a map."""
    spaces = tuple(sorted({side.space for side in planned}))
    part = PairSelection("", spaces[0].dataset, (), spaces, spaces)
    zoo = Zoo(tuple({side.space: side for side in planned}[space] for space in spaces), (), {}, (part,))
    recorded = record_activations(run, zoo)
    for failure in run.failures:
        raise DataError(failure.reason, f"{failure.model}/{failure.layer}: {failure.message}")
    by_space = {side.space: MapSide(side.space, side.key, side.content) for side in recorded}
    return [by_space[side.space] for side in planned]


def read_pairs(path: Path) -> tuple[tuple[str, str], ...]:
    """Return the pairs of ids in a file: a column (the same id in both spaces), or two (source, target).

    Text has an id a line, .csv one or two columns without a head, .npy one or two columns.

    Raises
    ------
    DataError
        ``missing_source``, ``wrong_shape`` or ``wrong_dtype`` for the file; ``bad_anchors`` for empty or repeated ids;
        ``few_anchors`` below three.
    """
    rows = _csv_rows(path) if path.suffix == ".csv" else _array_rows(path)
    pairs = tuple((row[0], row[-1]) for row in rows)
    for side, ids in zip(("source", "target"), zip(*pairs, strict=True), strict=False):
        if "" in ids:
            needed = "expected an id in every line. Remove the empty ones"
            raise DataError("bad_anchors", f"{path}: got an empty {side} id in row {ids.index('') + 1}, {needed}")
        if repeated := sorted({name for name in ids if ids.count(name) > 1}):
            problem = f"got the {side} id {ascii(repeated[0])[:60]} more than once among {len(ids)}"
            raise DataError("bad_anchors", f"{path}: {problem}, expected each once. Give each point one partner")
    if len(pairs) < LEAST_ANCHORS:
        raise DataError(
            "few_anchors", f"{path}: got {len(pairs)} anchors, expected at least {LEAST_ANCHORS}. Give more ids"
        )
    return tuple(sorted(pairs))


def _csv_rows(path: Path) -> list[list[str]]:
    try:
        check_memory_size(str(path), path.stat().st_size)
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except OSError as error:
        raise DataError("missing_source", f"{path}: cannot be read ({error.strerror}). Check the path") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError("wrong_dtype", f"{path}: got no UTF-8 text with commas. Save it as CSV") from error
    widths = {len(row) for row in rows}
    if len(widths) > 1 or max(widths, default=1) > 2:
        problem = f"got rows of {', '.join(map(str, sorted(widths)))} columns"
        raise DataError(
            "wrong_shape", f"{path}: {problem}, expected one column of ids, or two (source, target) throughout"
        )
    return [[cell.strip() for cell in row] for row in rows]


def _array_rows(path: Path) -> list[list[str]]:
    values = open_array(path, str(path)).load()
    if values.dtype.kind not in "Uiu":
        raise DataError("wrong_dtype", f"{path}: got {values.dtype}, expected ids: text or whole numbers")
    if values.ndim == 1:
        values = values[:, None]
    if values.ndim != 2 or values.shape[1] not in (1, 2):
        problem = f"got the shape {values.shape}"
        raise DataError("wrong_shape", f"{path}: {problem}, expected one column of ids, or two (source, target)")
    rows: list[list[str]] = values.astype(str).tolist()
    return rows


def fitted_map_as_lines(fitted: FittedNamedMap) -> str:
    """Return a report of a fitted map: how it was chosen, the scores of all candidates, and their context."""
    named, facts = fitted.named, fitted.facts
    correspondence = f"{facts['n_anchors']} anchors" if named.regime == "anchors" else f"regime {named.regime}"
    lines = [
        f"{named.source} -> {named.target}: {correspondence}, {facts['n_common']} common points",
        f"chosen: {facts['chosen']}",
        f"why: {facts['why']}",
        "",
        *_table(facts["table"], facts["chosen"]),
        "",
    ]
    if named.regime == "full":
        lines.append("accuracy and MRR are of points that the fit has seen; held out and rank are not")
    if facts["fit"] is not None:
        kinds = ("residual", "orthogonality_error", "commutativity_error")
        errors = ", ".join(f"{kind.replace('_', ' ')} {facts['fit'][kind]:.3f}" for kind in kinds)
        lines.append(f"functional map: {errors}")
    if facts["own_accuracy"] is not None:
        beside = f"{named.target}'s own {facts['own_accuracy']:.3f}"
        if facts["all_pairs_accuracy"] is not None:
            beside += f", all {facts['n_common']} pairs known {facts['all_pairs_accuracy']:.3f}"
        lines.append(f"stitched, beside: {beside}")
    else:
        lines.append(f"not stitched: {facts['no_stitching']}")
    state = "fitted" if fitted.is_new else "nothing to compute"
    lines.append(f"map {named.name} ({state}); next: lfm-atlas transfer {named.name} input.npy output.npy")
    return "\n".join(lines)


def _table(table: Sequence[Mapping[str, Any]], chosen: str) -> list[str]:
    columns = [key for key in _COLUMNS if any(row.get(key) is not None for row in table)]
    width = max(len(row["name"]) for row in table)
    lines = [" " * (width + 2) + "".join(f"{_COLUMNS[key]:>12}" for key in columns)]
    for row in table:
        cells = "".join(f"{_cell(key, row.get(key)):>12}" for key in columns)
        lines.append(f"{'*' if row['name'] == chosen else ' '} {row['name']:<{width}}{cells}")
    return lines


def _cell(key: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if key == "typical_rank" else f"{value:.3f}"


def fitted_map_as_json(fitted: FittedNamedMap) -> str:
    """Return a fitted map and its facts as JSON."""
    content = {**asdict(fitted.named), **fitted.facts, "is_new": fitted.is_new}
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)


def named_maps_as_lines(maps: Iterable[NamedMap]) -> str:
    """Return a line for each named map."""
    named_maps = list(maps)
    width = max((len(named.name) for named in named_maps), default=0)
    return "\n".join(
        f"{named.name:<{width}}  {named.source} -> {named.target}  "
        f"{f'{named.n_anchors} anchors' if named.regime == 'anchors' else named.regime}"
        for named in named_maps
    )
