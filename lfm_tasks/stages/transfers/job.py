"""One fitted map: two recorded spaces are read, a map is chosen and judged, and committed with its table."""

import csv
import math
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int, Shaped

from lfm_tasks.catalog import Catalog
from lfm_tasks.catalog.names import did_you_mean
from lfm_tasks.errors import DataError
from lfm_tasks.sources.files.formats import open_array
from lfm_tasks.sources.files.stored_array import check_memory_size
from lfm_tasks.spaces import Space
from lfm_tasks.spectral.bases.space import SpectralSpace, spectral_space
from lfm_tasks.spectral.maps.descriptors import Anchors
from lfm_tasks.spectral.transfer.alignment import Alignment, direct_map, partner_ranks, transfer_coordinates
from lfm_tasks.spectral.transfer.selection import (
    Choice,
    choose_alignment,
    choose_from_all_pairs,
    choose_from_labels,
    choose_unsupervised,
)
from lfm_tasks.stages.activations.job import read_rows
from lfm_tasks.stages.inventory.correspondence import common_ids, drawn_ids
from lfm_tasks.stages.transfers.apply import ClassLabels, open_stitching, space_labels, stitching_ingredients
from lfm_tasks.stores.units.arrays import ArrayReader
from lfm_tasks.stores.units.store import UnitStore, digest

Regime = Literal["anchors", "labels", "unsupervised", "full"]
REGIMES: tuple[Regime, ...] = ("anchors", "labels", "unsupervised", "full")
LEAST_ANCHORS = 3  # one is held out, and two remain


@dataclass(frozen=True)
class AnchorSpec:
    """What is known; with regime anchors ``pairs`` of source and target ids, or ``n_anchors`` drawn by ``seed``."""

    regime: Regime = "anchors"
    n_anchors: int = 10
    seed: int = 0
    pairs: tuple[tuple[str, str], ...] = ()

    def ingredients(self) -> dict[str, Any]:
        """Return what can change a map, for its digest."""
        if self.regime != "anchors":
            return {"regime": self.regime, "seed": self.seed}
        return asdict(self) | ({"n_anchors": len(self.pairs)} if self.pairs else {})


def read_pairs(path: Path) -> tuple[tuple[str, str], ...]:
    """Return the pairs of ids in a file: a column (the same id in both spaces), or two (source, target).

    Text has an id a line, .csv one or two columns without a head, .npy one or two columns.

    Raises
    ------
    ReasonError
        ``missing_source``, ``wrong_shape`` or ``wrong_dtype`` for the file; ``bad_anchors`` for empty or repeated ids;
        ``few_anchors`` below three.
    """
    rows = _csv_rows(path) if path.suffix == ".csv" else _array_rows(path)
    pairs = tuple((row[0], row[-1]) for row in rows)
    for side, ids in zip(("source", "target"), zip(*pairs, strict=True), strict=False):
        if "" in ids:
            needed = "needs an id in every line: remove the empty ones"
            raise DataError("bad_anchors", f"{path}: found an empty {side} id in row {ids.index('') + 1}, {needed}")
        if repeated := sorted({name for name in ids if ids.count(name) > 1}):
            found = f"found the {side} id {_shown(repeated[0])} more than once among {len(ids)}"
            raise DataError("bad_anchors", f"{path}: {found}, needs each once: give each point one partner")
    if len(pairs) < LEAST_ANCHORS:
        raise DataError(
            "few_anchors", f"{path}: found {len(pairs)} anchors, needs at least {LEAST_ANCHORS}: give more ids"
        )
    return tuple(sorted(pairs))


def choose_anchors(
    known: AnchorSpec,
    source_ids: Shaped[np.ndarray, " source_points"],
    target_ids: Shaped[np.ndarray, " target_points"],
) -> Anchors:
    """Return the rows of both spaces that are known to belong together; ids are in ascending order.

    Drawn anchors are the common ids with the smallest seeded digests, so that spaces that lack some keep the others.

    Raises
    ------
    ReasonError
        ``bad_anchors`` for an id that a space does not have, ``few_anchors`` for fewer than three common ids.
    """
    if known.pairs:
        names = zip(*known.pairs, strict=True)
        sides = zip(("source", "target"), names, (source_ids, target_ids), strict=True)
        return Anchors(*(_rows_of(side, wanted, ids) for side, wanted, ids in sides))
    common = common_points(source_ids, target_ids)
    if len(common) < known.n_anchors:
        found = f"found {len(common)} common ids, and {known.n_anchors} anchors were asked for"
        raise DataError("few_anchors", f"{found}: ask for fewer, or record both spaces on the same samples")
    return common.take(drawn_ids(source_ids[common.source], known.n_anchors, known.seed))


def common_points(
    source_ids: Shaped[np.ndarray, " source_points"], target_ids: Shaped[np.ndarray, " target_points"]
) -> Anchors:
    """Return the rows of all ids that both spaces have."""
    _, source, target = common_ids(source_ids, target_ids)
    return Anchors(source, target)


def _csv_rows(path: Path) -> list[list[str]]:
    try:
        check_memory_size(str(path), path.stat().st_size)
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except OSError as error:
        raise DataError("missing_source", f"{path}: cannot be read ({error.strerror}): check the path") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError("wrong_dtype", f"{path}: found no UTF-8 text with commas: save it as CSV") from error
    widths = {len(row) for row in rows}
    if len(widths) > 1 or max(widths, default=1) > 2:
        found = f"found rows of {', '.join(map(str, sorted(widths)))} columns"
        raise DataError("wrong_shape", f"{path}: {found}, needs one column of ids, or two (source, target) throughout")
    return [[cell.strip() for cell in row] for row in rows]


def _array_rows(path: Path) -> list[list[str]]:
    values = open_array(path, str(path)).load()
    if values.dtype.kind not in "Uiu":
        raise DataError("wrong_dtype", f"{path}: found {values.dtype}, needs ids: text or whole numbers")
    if values.ndim == 1:
        values = values[:, None]
    if values.ndim != 2 or values.shape[1] not in (1, 2):
        found = f"found the shape {values.shape}"
        raise DataError("wrong_shape", f"{path}: {found}, needs one column of ids, or two (source, target)")
    rows: list[list[str]] = values.astype(str).tolist()
    return rows


def _rows_of(side: str, wanted: tuple[str, ...], ids: Shaped[np.ndarray, " points"]) -> Int[np.ndarray, " anchors"]:
    place = {str(name): row for row, name in enumerate(ids.tolist())}
    if missing := [name for name in wanted if name not in place]:
        found = f"found {len(missing)} of {len(wanted)} anchors that the {side} space does not have"
        hint = did_you_mean(missing[0], place)
        raise DataError("bad_anchors", f"{found}, first {_shown(missing[0])}{hint}")
    return np.array([place[name] for name in wanted], dtype=np.int64)


def _shown(name: str) -> str:
    return ascii(name)[:60]


# Part of every key. Raise it when the same spaces and anchors give other numbers.
FIT_VERSION = "1"
# A fit compares all points with all points, many times: larger spaces are represented by so many of theirs.
MAX_POINTS = 4000


@dataclass(frozen=True)
class MapSide:
    """A space of a map: its recorded activations' unit, and the digest of what is in it."""

    space: Space
    activations: str
    content: str


@dataclass(frozen=True)
class MapJob:
    """One map to fit."""

    store: UnitStore
    key: str
    source: MapSide
    target: MapSide
    known: AnchorSpec
    catalog: Catalog


@dataclass(frozen=True)
class _Rows:
    """Points of a space, ids in ascending order."""

    ids: Shaped[np.ndarray, " points"]
    activations: Float[np.ndarray, "points features"]


def map_job(
    store: UnitStore, source: MapSide, target: MapSide, known: AnchorSpec, catalog: Catalog, labels: ClassLabels | None
) -> MapJob:
    """Return what it takes to fit a map; its key holds everything that can change the result."""
    ingredients: dict[str, Any] = {
        "kind": "maps",
        "version": FIT_VERSION,
        "source": source.content,
        "target": target.content,
        "known": known.ingredients(),
        "metric": catalog.atlas.graph.metric,
        "n_eigenpairs": catalog.atlas.n_eigenpairs,
        "labels": "" if labels is None else labels.key,
        "head": stitching_ingredients(target.space, catalog),
        "versions": {name: version(name) for name in ("numpy", "scipy", "onnxruntime")},
    }
    return MapJob(store, digest(ingredients), source, target, known, catalog)


def store_map(job: MapJob) -> None:
    """Read both spaces, choose a map, judge all candidates, commit the chosen one and the table.

    The graphs are those for few anchors (`spectral_space`), not the atlas's sparse ones, on which such fits fail.
    """
    anchors = Anchors(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
    opened = (job.store.open("activations", side.activations) for side in (job.source, job.target))
    with ExitStack() as stack:
        units = [stack.enter_context(unit) for unit in opened]
        ids = [unit.read("ids") for unit in units]
        if job.known.regime == "anchors":
            anchors = choose_anchors(job.known, *ids)
        n_common = len(common_points(*ids).source)
        source, own = _represented(units[0], ids[0], anchors.source)
        target, theirs = _represented(units[1], ids[1], anchors.target)
    anchors = Anchors(own, theirs)
    labels = space_labels(job.target.space, job.catalog)
    choice = _choose(job, source, target, anchors, labels)
    facts = {
        "chosen": choice.name,
        "why": choice.why,
        "regime": job.known.regime,
        "n_anchors": len(anchors.source) if job.known.regime == "anchors" else 0,
        "n_common": n_common,
        "n_points": [len(source.ids), len(target.ids)],
        "n_features": [source.activations.shape[1], target.activations.shape[1]],
        "fit": _fit_facts(choice),
        **_judged(job, choice, (source, target), anchors, labels),
    }
    with job.store.commit("maps", job.key) as unit_writer:
        matrix = direct_map(choice.alignment)
        unit_writer.arrays.write("source_mean", matrix.source_mean.astype(np.float64))
        unit_writer.arrays.write("matrix", matrix.source_matrix.astype(np.float64))
        unit_writer.arrays.write("target_mean", matrix.target_mean.astype(np.float64))
        if choice.fit is not None:
            unit_writer.arrays.write("functional_map", choice.fit.functional_map)
        unit_writer.facts |= facts


def _represented(
    unit: ArrayReader, ids: Shaped[np.ndarray, " points"], anchors: Int[np.ndarray, " anchors"]
) -> tuple[_Rows, Int[np.ndarray, " anchors"]]:
    """Return the points that represent a space, its anchors and evenly spread others, and the anchors' rows there."""
    kept = np.arange(len(ids))
    if len(ids) > MAX_POINTS:
        kept = np.union1d(np.linspace(0, len(ids) - 1, MAX_POINTS).astype(np.int64), anchors)
    return _Rows(ids[kept], read_rows(unit, kept).astype(np.float64)), np.searchsorted(kept, anchors)


def _choose(job: MapJob, source: _Rows, target: _Rows, anchors: Anchors, labels: ClassLabels | None) -> Choice:
    if job.known.regime == "full":
        common = common_points(source.ids, target.ids)
        x, y = source.activations[common.source], target.activations[common.target]
        return choose_from_all_pairs(x, y, seed=job.known.seed)
    spaces = [_space(rows, side, job) for rows, side in ((source, job.source), (target, job.target))]
    if job.known.regime == "anchors":
        return choose_alignment(spaces[0], spaces[1], anchors, seed=job.known.seed)
    if job.known.regime == "unsupervised":
        return choose_unsupervised(spaces[0], spaces[1])
    if labels is None:
        found = f"found no labels in the dataset {job.target.space.dataset}, a fit from labels needs them"
        raise DataError("missing_source", f"{found}: add labels to it, or choose another regime")
    classes = [labels.of(rows.ids) for rows in (source, target)]
    if any((one < 0).any() for one in classes):
        raise DataError("bad_ids", "found ids without a label, a fit from labels needs one for each: label all ids")
    return choose_from_labels(spaces[0], spaces[1], classes[0], classes[1])


def _space(rows: _Rows, side: MapSide, job: MapJob) -> SpectralSpace:
    atlas = job.catalog.atlas
    try:
        return spectral_space(rows.activations, n_eigenpairs=atlas.n_eigenpairs, metric=atlas.graph.metric)
    except DataError as error:
        raise DataError(error.reason, f"{side.space.name}: {error}") from error


def _judged(
    job: MapJob, choice: Choice, sides: tuple[_Rows, _Rows], anchors: Anchors, labels: ClassLabels | None
) -> dict[str, Any]:
    """Return the table of candidates, judged by known points that are no anchors and by the target's head."""
    source, target = sides
    common = common_points(source.ids, target.ids)
    unseen = common.take(~np.isin(common.source, anchors.source))
    table = [asdict(one) for one in choice.judged]
    for row in table:
        ranks = np.empty(0)
        if len(unseen.source):
            rows = target.activations[unseen.target]
            ranks = partner_ranks(choice.candidates[row["name"]], source.activations, rows, unseen.source)
        row |= {"accuracy": _mean(ranks == 1), "mrr": _mean(1 / ranks)}
    facts: dict[str, Any] = {"table": table, "own_accuracy": None, "all_pairs_accuracy": None, "no_stitching": ""}
    try:
        stitched = open_stitching(job.target.space, job.catalog, labels)
    except DataError as error:
        return facts | {"no_stitching": str(error), "table": _without_nan(table)}
    mine = np.setdiff1d(np.arange(len(source.ids)), anchors.source)
    theirs = np.setdiff1d(np.arange(len(target.ids)), anchors.target)

    def accuracy(alignment: Alignment) -> float:
        return stitched.accuracy(transfer_coordinates(alignment, source.activations[mine]), source.ids[mine])

    for row in table:
        row["stitched_accuracy"] = accuracy(choice.candidates[row["name"]])
    facts["own_accuracy"] = stitched.accuracy(target.activations[theirs], target.ids[theirs])
    try:
        pairs = choose_from_all_pairs(source.activations[common.source], target.activations[common.target])
        facts["all_pairs_accuracy"] = accuracy(pairs.alignment)
    except DataError:
        pass  # without common points there is nothing to hold the others against
    return facts | {"table": _without_nan(table)}


def _fit_facts(choice: Choice) -> dict[str, Any] | None:
    if choice.fit is None:
        return None
    kept = ("residual", "orthogonality_error", "commutativity_error")
    return {name: float(getattr(choice.fit, name)) for name in kept} | {"start": asdict(choice.fit.start)}


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan


def _without_nan(table: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the table as JSON holds it."""
    return [{key: None if value != value else value for key, value in row.items()} for row in table]
