"""One map between two spaces on a worker: candidates are fitted and evaluated, the best one is committed."""

import math
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int, Shaped

from lfm_tasks.catalog import Catalog
from lfm_tasks.catalog.names import did_you_mean
from lfm_tasks.config import AtlasConfig
from lfm_tasks.errors import DataError
from lfm_tasks.sources.networks.onnx_file import onnx_digest
from lfm_tasks.sources.networks.onnx_heads import Head, open_head
from lfm_tasks.sources.networks.onnx_models import onnx_path
from lfm_tasks.sources.opening import DatasetRows, read_dataset
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
from lfm_tasks.stores.units.arrays import ArrayReader
from lfm_tasks.stores.units.store import UnitStore, digest, ids_digest

Regime = Literal["anchors", "labels", "unsupervised", "full"]
LEAST_ANCHORS = 3  # one is held out, and two remain
# Part of every key. Raise it when the same spaces and anchors give other numbers.
FIT_VERSION = "2"
# A fit compares all points with all points, many times: so many of its points represent a larger space.
MAX_POINTS = 4000


@dataclass(frozen=True)
class AnchorSpec:
    """Which points of two spaces are known to correspond, by regime.

    With regime anchors they are ``pairs`` of source and target ids, or ``n_anchors`` common ids drawn by ``seed``.
    """

    regime: Regime = "anchors"
    n_anchors: int = 10
    seed: int = 0
    pairs: tuple[tuple[str, str], ...] = ()

    def ingredients(self) -> dict[str, Any]:
        """Return the ingredients of a map, for its digest."""
        if self.regime != "anchors":
            return {"regime": self.regime, "seed": self.seed}
        return asdict(self) | ({"n_anchors": len(self.pairs)} if self.pairs else {})


@dataclass(frozen=True)
class MapSide:
    """A space of a map: the unit of its activations, and the digest of their content."""

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
    anchor_spec: AnchorSpec
    catalog: Catalog


@dataclass(frozen=True)
class ClassLabels:
    """The class of each id of a dataset, as an index into ``names``; ids and names are in ascending order."""

    ids: Shaped[np.ndarray, " points"]
    classes: Int[np.ndarray, " points"]
    names: Shaped[np.ndarray, " classes"]

    def of(self, ids: Shaped[np.ndarray, " some"]) -> Int[np.ndarray, " some"]:
        """Return the classes of some ids; −1 for ids without a label."""
        class_of = dict(zip(self.ids.tolist(), self.classes.tolist(), strict=True))
        return np.array([class_of.get(name, -1) for name in ids.tolist()], dtype=np.int64)

    @property
    def key(self) -> str:
        """The content address."""
        names = self.names.astype(str).tolist()
        content = {"ids": ids_digest(self.ids), "classes": self.classes.tolist(), "names": names}
        return digest({"kind": "labels", **content})


@dataclass(frozen=True)
class _Rows:
    """Some points of a space, ids in ascending order."""

    ids: Shaped[np.ndarray, " points"]
    activations: Float[np.ndarray, "points features"]


def map_job(
    store: UnitStore,
    source: MapSide,
    target: MapSide,
    anchor_spec: AnchorSpec,
    catalog: Catalog,
    labels: ClassLabels | None,
) -> MapJob:
    """Return the job that fits a map; its key digests everything that can change the result."""
    ingredients: dict[str, Any] = {
        "kind": "maps",
        "version": FIT_VERSION,
        "source": source.content,
        "target": target.content,
        "known": anchor_spec.ingredients(),
        **few_anchor_settings(catalog.atlas),
        "labels": "" if labels is None else labels.key,
        "head": stitching_ingredients(target.space, catalog),
        "versions": {name: version(name) for name in ("numpy", "scipy", "onnxruntime")},
    }
    return MapJob(store, digest(ingredients), source, target, anchor_spec, catalog)


def store_map(job: MapJob) -> None:
    """Read both spaces, fit the candidates and choose one, evaluate them all, commit the chosen one and the table.

    The graphs are dense ones for few anchors (`spectral_space`): on the atlas's sparse graphs such fits fail.
    """
    anchors = Anchors(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
    opened = (job.store.open("activations", side.activations) for side in (job.source, job.target))
    with ExitStack() as stack:
        units = [stack.enter_context(unit) for unit in opened]
        ids = [unit.read("ids") for unit in units]
        if job.anchor_spec.regime == "anchors":
            anchors = choose_anchors(job.anchor_spec, *ids)
        n_common = len(common_points(*ids).source)
        source, source_anchors = _read_some(units[0], ids[0], anchors.source)
        target, target_anchors = _read_some(units[1], ids[1], anchors.target)
    anchors = Anchors(source_anchors, target_anchors)
    labels = space_labels(job.target.space, job.catalog)
    choice = _choose(job, source, target, anchors, labels)
    facts = {
        "chosen": choice.name,
        "why": choice.why,
        "regime": job.anchor_spec.regime,
        "n_anchors": len(anchors.source) if job.anchor_spec.regime == "anchors" else 0,
        "n_common": n_common,
        "n_points": [len(source.ids), len(target.ids)],
        "n_features": [source.activations.shape[1], target.activations.shape[1]],
        "fit": _fit_facts(choice),
        **_evaluate(job, choice, (source, target), anchors, labels),
    }
    with job.store.commit("maps", job.key) as unit_writer:
        matrix = direct_map(choice.alignment)
        unit_writer.arrays.write("source_mean", matrix.source_mean.astype(np.float64))
        unit_writer.arrays.write("matrix", matrix.source_matrix.astype(np.float64))
        unit_writer.arrays.write("target_mean", matrix.target_mean.astype(np.float64))
        if choice.fit is not None:
            unit_writer.arrays.write("functional_map", choice.fit.functional_map)
        unit_writer.facts |= facts


def choose_anchors(
    anchor_spec: AnchorSpec,
    source_ids: Shaped[np.ndarray, " source_points"],
    target_ids: Shaped[np.ndarray, " target_points"],
) -> Anchors:
    """Return the rows of both spaces that are known to correspond; ids are in ascending order.

    Drawn anchors are the common ids with the smallest seeded digests, so that spaces that lack some keep the others.

    Raises
    ------
    DataError
        ``bad_anchors`` for an id that a space does not have, ``few_anchors`` for fewer than three common ids.
    """
    if anchor_spec.pairs:
        names = zip(*anchor_spec.pairs, strict=True)
        sides = zip(("source", "target"), names, (source_ids, target_ids), strict=True)
        return Anchors(*(_rows_of(side, wanted, ids) for side, wanted, ids in sides))
    common = common_points(source_ids, target_ids)
    if len(common) < anchor_spec.n_anchors:
        problem = f"got {len(common)} common ids, expected the {anchor_spec.n_anchors} requested anchors among them"
        raise DataError("few_anchors", f"{problem}. Ask for fewer, or record both spaces on the same samples")
    return common.take(drawn_ids(source_ids[common.source], anchor_spec.n_anchors, anchor_spec.seed))


def common_points(
    source_ids: Shaped[np.ndarray, " source_points"], target_ids: Shaped[np.ndarray, " target_points"]
) -> Anchors:
    """Return the rows of all ids that both spaces have."""
    _, source, target = common_ids(source_ids, target_ids)
    return Anchors(source, target)


def _rows_of(side: str, wanted: tuple[str, ...], ids: Shaped[np.ndarray, " points"]) -> Int[np.ndarray, " anchors"]:
    row_of = {str(name): row for row, name in enumerate(ids.tolist())}
    if missing := [name for name in wanted if name not in row_of]:
        problem = f"got {len(missing)} of {len(wanted)} anchors that the {side} space does not have"
        hint = did_you_mean(missing[0], row_of)
        raise DataError("bad_anchors", f"{problem}, first {ascii(missing[0])[:60]}{hint}")
    return np.array([row_of[name] for name in wanted], dtype=np.int64)


def _read_some(
    unit: ArrayReader, ids: Shaped[np.ndarray, " points"], anchors: Int[np.ndarray, " anchors"]
) -> tuple[_Rows, Int[np.ndarray, " anchors"]]:
    """Return the anchors of a space and evenly spread other points, and the rows of the anchors among them."""
    kept = np.arange(len(ids))
    if len(ids) > MAX_POINTS:
        kept = np.union1d(np.linspace(0, len(ids) - 1, MAX_POINTS).astype(np.int64), anchors)
    return _Rows(ids[kept], read_rows(unit, kept).astype(np.float64)), np.searchsorted(kept, anchors)


def _choose(job: MapJob, source: _Rows, target: _Rows, anchors: Anchors, labels: ClassLabels | None) -> Choice:
    if job.anchor_spec.regime == "full":
        common = common_points(source.ids, target.ids)
        x, y = source.activations[common.source], target.activations[common.target]
        return choose_from_all_pairs(x, y, seed=job.anchor_spec.seed)
    spaces = [_space(rows, side, job) for rows, side in ((source, job.source), (target, job.target))]
    if job.anchor_spec.regime == "anchors":
        return choose_alignment(spaces[0], spaces[1], anchors, seed=job.anchor_spec.seed)
    if job.anchor_spec.regime == "unsupervised":
        return choose_unsupervised(spaces[0], spaces[1])
    if labels is None:
        problem = f"got no labels in the dataset {job.target.space.dataset}, expected them for a fit from labels"
        raise DataError("missing_source", f"{problem}. Add labels to it, or choose another regime")
    classes = [labels.of(rows.ids) for rows in (source, target)]
    if any((codes < 0).any() for codes in classes):
        raise DataError("bad_ids", "got ids without a label, expected one for each. Label all ids")
    return choose_from_labels(spaces[0], spaces[1], classes[0], classes[1])


def _space(rows: _Rows, side: MapSide, job: MapJob) -> SpectralSpace:
    try:
        return spectral_space(rows.activations, **few_anchor_settings(job.catalog.atlas))
    except DataError as error:
        raise DataError(error.reason, f"{side.space.name}: {error}") from error


def few_anchor_settings(atlas: AtlasConfig) -> dict[str, Any]:
    """Return the settings of `spectral_space` for maps from few anchors; ``auto`` is its own number of eigenpairs."""
    n_eigenpairs = None if atlas.n_eigenpairs == "auto" else atlas.n_eigenpairs
    return {"n_eigenpairs": n_eigenpairs, "metric": atlas.graph.metric, "center": atlas.graph.center}


def _evaluate(
    job: MapJob, choice: Choice, sides: tuple[_Rows, _Rows], anchors: Anchors, labels: ClassLabels | None
) -> dict[str, Any]:
    """Return the table of candidates, scored on common points that are no anchors and by the target's head."""
    source, target = sides
    common = common_points(source.ids, target.ids)
    unseen = common.take(~np.isin(common.source, anchors.source))
    table = [asdict(candidate) for candidate in choice.candidate_scores]
    for row in table:
        ranks = np.empty(0)
        if len(unseen.source):
            rows = target.activations[unseen.target]
            ranks = partner_ranks(choice.candidates[row["name"]], source.activations, rows, unseen.source)
        row |= {"accuracy": _mean(ranks == 1), "mrr": _mean(1 / ranks)}
    facts: dict[str, Any] = {"table": table, "own_accuracy": None, "all_pairs_accuracy": None, "no_stitching": ""}
    try:
        head = open_stitching(job.target.space, job.catalog, labels)
    except DataError as error:
        return facts | {"no_stitching": str(error), "table": _without_nan(table)}
    source_rows = np.setdiff1d(np.arange(len(source.ids)), anchors.source)
    target_rows = np.setdiff1d(np.arange(len(target.ids)), anchors.target)

    def accuracy(alignment: Alignment) -> float:
        carried = transfer_coordinates(alignment, source.activations[source_rows])
        return head.accuracy(carried, source.ids[source_rows])

    for row in table:
        row["stitched_accuracy"] = accuracy(choice.candidates[row["name"]])
    facts["own_accuracy"] = head.accuracy(target.activations[target_rows], target.ids[target_rows])
    try:
        pairs = choose_from_all_pairs(source.activations[common.source], target.activations[common.target])
        facts["all_pairs_accuracy"] = accuracy(pairs.alignment)
    except DataError:
        pass  # without common points there is no map from all pairs to compare with
    return facts | {"table": _without_nan(table)}


def _fit_facts(choice: Choice) -> dict[str, Any] | None:
    if choice.fit is None:
        return None
    errors = ("residual", "orthogonality_error", "commutativity_error")
    return {name: float(getattr(choice.fit, name)) for name in errors} | {"start": asdict(choice.fit.start)}


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan


def _without_nan(table: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the table with None for NaN, which JSON lacks."""
    return [{key: None if value != value else value for key, value in row.items()} for row in table]


@dataclass(frozen=True)
class LabeledHead:
    """The head of a network, and the labels that it predicts: output c stands for the label c."""

    head: Head
    labels: ClassLabels

    def accuracy(self, rows: Float[np.ndarray, "points features"], ids: Shaped[np.ndarray, " points"]) -> float:
        """Return the share of rows that the head classifies correctly, among rows whose ids have a label."""
        classes = self.labels.of(ids)
        has_label = classes >= 0
        predicted = self.head.apply(rows[has_label].astype(np.float32)).argmax(axis=1)
        return float((predicted == self.labels.names[classes[has_label]]).mean()) if has_label.any() else np.nan


def stitching_ingredients(space: Space, catalog: Catalog) -> dict[str, Any]:
    """Return the ingredients of a stitched accuracy beside the activations, for a digest: the network's file."""
    model = catalog.model_on(space.model, space.dataset)
    if model.onnx is None:
        return {}
    path = onnx_path(space.model, model.onnx, catalog)
    output = model.head.output if model.head else None
    return {"head": onnx_digest(path), "layer": space.layer, "output": output, "pool": model.onnx.pool}


def open_stitching(space: Space, catalog: Catalog, labels: ClassLabels | None) -> LabeledHead:
    """Return the head that starts at ``space``.

    Raises
    ------
    DataError
        ``missing_source`` if there are no labels that count classes; and as `open_head`.
    """
    if labels is None:
        raise DataError("missing_source", f"got no labels in the dataset {space.dataset}. Add labels to it")
    if labels.names.dtype.kind not in "iu" or labels.names.min() < 0:
        problem = f"got labels of type {labels.names.dtype}, expected class numbers from 0, as the head's outputs are"
        raise DataError("wrong_dtype", f"dataset {space.dataset}: {problem}. Number them")
    return LabeledHead(
        open_head(space.model, catalog.model_on(space.model, space.dataset), catalog, space.layer), labels
    )


def space_labels(space: Space, catalog: Catalog) -> ClassLabels | None:
    """Return the classes of the dataset that a space is seen through."""
    return class_labels(read_dataset(space.dataset, catalog))


def class_labels(rows: DatasetRows) -> ClassLabels | None:
    """Return the classes of a dataset's ids; None where it has no labels."""
    if rows.labels is None:
        return None
    order = np.argsort(rows.ids, kind="stable")
    names, classes = np.unique(rows.labels[order], return_inverse=True)
    return ClassLabels(rows.ids[order], classes, names)
