"""Correspondence of the points of two spaces, and labels and exchangeability of the points of a dataset."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Int, Shaped

from lfm_tasks.catalog import Catalog
from lfm_tasks.catalog.datasets import DatasetFile
from lfm_tasks.config import AtlasConfig, IntervalsConfig, MapsConfig
from lfm_tasks.errors import DataError
from lfm_tasks.sources.files.ids import near_join
from lfm_tasks.sources.opening import DatasetRows, read_ids
from lfm_tasks.spectral.maps.closed_form import Mask
from lfm_tasks.spectral.maps.descriptors import Anchors
from lfm_tasks.statistics.exchange_moments import has_moments
from lfm_tasks.statistics.resampling import FEWEST_IN_HALF, Exchange, halves_of, of_groups, within_strata
from lfm_tasks.stores.units.store import UnitStore, digest, ids_digest


@dataclass(frozen=True)
class Correspondence:
    """The data and method of map fits; ``anchor_ids`` are known pairs, or ``n_anchors`` common ids are drawn."""

    regime: Literal["full", "anchors", "labels", "unsupervised"] = "full"
    mask: Mask = "resolvent"
    refine: Literal["zoomout", "none"] = "zoomout"
    n_samples: int = 1000
    anchor_ids: tuple[str, ...] = ()
    n_anchors: int = 0
    seed: int = 0

    @property
    def uses_zoomout(self) -> bool:
        """Whether maps are grown by ZoomOut, one by one."""
        return self.regime != "full" and self.refine == "zoomout"

    def ingredients(self) -> dict[str, Any]:
        """Return the settings that can change a map, for its digest."""
        return {"regime": "full"} if self.regime == "full" else asdict(self)


FULL_CORRESPONDENCE = Correspondence()


@dataclass(frozen=True)
class Labels:
    """The class, numbered, of each id of a dataset; ids in order."""

    ids: Shaped[np.ndarray, " points"]
    classes: Int[np.ndarray, " points"]

    @property
    def key(self) -> str:
        """The content address."""
        return digest({"kind": "labels", "ids": ids_digest(self.ids), "classes": self.classes.tolist()})

    def of(self, ids: Shaped[np.ndarray, " some"]) -> Int[np.ndarray, " some"]:
        """Return the classes of some ids; DataError ``bad_ids`` for ids that have none."""
        return self.classes[_rows_of(ids, self.ids, "bad_ids", "a label", "Label every id of the dataset")]


def _rows_of(
    ids: Shaped[np.ndarray, " some"], known: Shaped[np.ndarray, " points"], reason: str, missing: str, remedy: str
) -> Int[np.ndarray, " some"]:
    """Return the rows of ids among ``known``, which ascend; DataError ``reason`` naming the first that is not there."""
    rows = np.minimum(np.searchsorted(known, ids), len(known) - 1)
    unknown = known[rows] != ids
    if unknown.any():
        problem = f"got {int(unknown.sum())} ids without {missing}, first {ascii(str(ids[unknown][0]))[:60]}"
        raise DataError(reason, f"{problem}. {remedy}")
    return rows


def load_correspondence(maps: MapsConfig, dataset: str, rows: DatasetRows, catalog: Catalog) -> Correspondence:
    """Return the correspondence that the catalog describes; the file of anchors is read.

    Raises
    ------
    DataError
        ``missing_source`` for labels that the dataset does not have, or a file that is not there; ``bad_ids`` for
        what is no list of ids; ``few_anchors`` and ``bad_anchors`` for too few, or ids that the dataset lacks;
        ``too_few_points`` for samples that do not determine a map.
    """
    n_eigenpairs = catalog.atlas.numbers(len(rows.ids if rows.points is None else rows.points)).n_eigenpairs
    if maps.regime != "full" and maps.refine == "zoomout" and maps.n_samples < n_eigenpairs:
        found = f"got n_samples {maps.n_samples} and n_eigenpairs {n_eigenpairs}, expected as many samples"
        raise DataError("too_few_points", f"{found}. Raise n_samples, or lower n_eigenpairs")
    if maps.regime == "labels" and rows.labels is None:
        found = f"got regime labels, and no labels in the dataset {dataset}"
        raise DataError("missing_source", f"{found}. Add labels: {{path: labels.npy}} to it, or choose another regime")
    if maps.anchors is None:
        return FULL_CORRESPONDENCE if maps.regime == "full" else _correspondence(maps)
    if maps.anchors.ids is None:
        return _correspondence(maps, n_anchors=maps.anchors.count or 0, seed=maps.anchors.seed)
    file = DatasetFile(path=maps.anchors.ids.path, key=maps.anchors.ids.key)
    ids = read_ids(file, catalog, dataset=dataset)
    if len(ids) < 2:
        raise DataError("few_anchors", f"{file.path}: got {len(ids)} anchors, expected at least 2. Give more ids")
    unknown = np.setdiff1d(ids, rows.ids)
    if len(unknown):
        found = f"got {len(unknown)} anchors that the dataset {dataset} lacks"
        hint = near_join(unknown, rows.ids, "its ids", "the dataset's ids")
        raise DataError("bad_anchors", f"{file.path}: {found}, {hint}. Give ids of the dataset")
    return _correspondence(maps, anchor_ids=tuple(sorted(map(str, ids))))


def anchors_of_pair(
    correspondence: Correspondence,
    source_ids: Shaped[np.ndarray, " source_points"],
    target_ids: Shaped[np.ndarray, " target_points"],
) -> Anchors:
    """Return the rows of both spaces that are known to belong together.

    Drawn anchors are the common ids with the smallest seeded digests: spaces that lack some ids keep the others.

    Raises
    ------
    DataError
        ``few_anchors`` if fewer than two of them are in both spaces.
    """
    common, of_source, of_target = common_ids(source_ids, target_ids)
    if correspondence.anchor_ids:
        _, known, _ = common_ids(common, np.asarray(correspondence.anchor_ids, dtype=common.dtype))
        common, of_source, of_target = common[known], of_source[known], of_target[known]
    if correspondence.n_anchors and len(common) > correspondence.n_anchors:
        drawn = drawn_ids(common, correspondence.n_anchors, correspondence.seed)
        common, of_source, of_target = common[drawn], of_source[drawn], of_target[drawn]
    if len(common) < 2:
        needs = "expected at least 2. Name ids that both spaces have"
        raise DataError("few_anchors", f"got {len(common)} anchors that are in both spaces, {needs}")
    return Anchors(of_source, of_target)


def drawn_ids(ids: Shaped[np.ndarray, " points"], count: int, seed: int) -> Int[np.ndarray, " drawn"]:
    """Return the rows, in order, of the ids with the smallest seeded digests: lists that lack some keep the others."""
    ranks = [blake2b(f"{seed}:{name}".encode(), digest_size=16).digest() for name in ids.tolist()]
    return np.sort(np.argsort(np.asarray(ranks), kind="stable")[:count])


def common_ids(
    first: Shaped[np.ndarray, " some"], second: Shaped[np.ndarray, " others"]
) -> tuple[Shaped[np.ndarray, " common"], Int[np.ndarray, " common"], Int[np.ndarray, " common"]]:
    """Return the ids that both lists have, in order, and their rows in each.

    With indices always: without them numpy 2.4's intersect1d sorts variable-width strings in place and may crash.
    """
    common, of_first, of_second = np.intersect1d(first, second, assume_unique=True, return_indices=True)
    return common, of_first, of_second


def same_ids(first: Shaped[np.ndarray, " some"], second: Shaped[np.ndarray, " others"]) -> bool:
    """Return whether both lists are the same."""
    return len(first) == len(second) and bool((first == second).all())


def store_labels(store: UnitStore, labels: Mapping[str, Labels]) -> dict[str, str]:
    """Commit the labels that are new; return dataset → key."""
    keys = {dataset: of_dataset.key for dataset, of_dataset in labels.items()}
    for dataset, key in keys.items():
        if store.find("labels", key) is None:
            with store.commit("labels", key) as unit_writer:
                unit_writer.arrays.write("ids", labels[dataset].ids)
                unit_writer.arrays.write("classes", labels[dataset].classes)
    return keys


def read_labels(store: UnitStore, key: str) -> Labels | None:
    """Return committed labels; None for the empty key."""
    if not key:
        return None
    with store.open("labels", key) as unit:
        return Labels(unit.read("ids"), unit.read("classes"))


def dataset_labels(rows: DatasetRows) -> Labels | None:
    """Return the classes of a dataset's ids, ids in order; None where it has no labels."""
    if rows.labels is None:
        return None
    order = np.argsort(rows.ids, kind="stable")
    return Labels(rows.ids[order], np.unique(rows.labels[order], return_inverse=True)[1].astype(np.int32))


def _correspondence(
    maps: MapsConfig, *, anchor_ids: tuple[str, ...] = (), n_anchors: int = 0, seed: int = 0
) -> Correspondence:
    return Correspondence(maps.regime, maps.mask, maps.refine, maps.n_samples, anchor_ids, n_anchors, seed)


def joint_labels(source: DatasetRows, target: DatasetRows) -> tuple[Labels, Labels]:
    """Return the classes of the ids of two datasets: the same label, as text, is the same class in both.

    Ids without a label are left out.
    """
    texts = [text_labels(rows) for rows in (source, target)]
    names = np.unique([label for of_side in texts for label in of_side.values()])

    def numbered(of_side: Mapping[str, str]) -> Labels:
        ids = sorted(of_side)
        classes = np.searchsorted(names, [of_side[name] for name in ids])
        return Labels(np.array(ids, dtype=str), classes.astype(np.int32))

    return numbered(texts[0]), numbered(texts[1])


@dataclass(frozen=True)
class ExchangeabilityGroups:
    """The set that each id is in: rows of a group stay together, rows of a stratum change places among themselves."""

    kind: Literal["groups", "strata"]
    ids: Shaped[np.ndarray, " points"]
    sets: Int[np.ndarray, " points"]

    @property
    def key(self) -> str:
        """The content address."""
        return digest({"kind": self.kind, "ids": ids_digest(self.ids), "sets": self.sets.tolist()})

    @property
    def has_moments(self) -> bool:
        """Whether chance over their permutations has a closed form where one is known; see `has_moments`."""
        return has_moments(_exchange(self, self.sets))

    def of(self, ids: Shaped[np.ndarray, " some"]) -> Int[np.ndarray, " some"]:
        """Return the sets of some ids; DataError ``bad_groups`` for ids that the dataset does not name."""
        remedy = f"Name the {self.kind} of every id in the dataset"
        return self.sets[_rows_of(ids, self.ids, "bad_groups", self.kind, remedy)]


@dataclass(frozen=True)
class Resampling:
    """For one list of ids: the exchange under chance; by split, which rows are in the second half; None: no halves."""

    exchange: Exchange
    halves: Bool[np.ndarray, "splits points"] | None


def dataset_exchangeability(rows: DatasetRows) -> ExchangeabilityGroups | None:
    """Return the groups or strata of a dataset, ids in order; None: all its rows are exchangeable."""
    sets = rows.groups if rows.strata is None else rows.strata
    if sets is None:
        return None
    order = np.argsort(rows.ids, kind="stable")
    codes = np.unique(sets[order], return_inverse=True)[1]
    groups = ExchangeabilityGroups(
        "groups" if rows.strata is None else "strata", rows.ids[order], codes.astype(np.int32)
    )
    _exchange(groups, groups.sets)
    return groups


def resampling(
    ids: Shaped[np.ndarray, " points"], groups: ExchangeabilityGroups | None, atlas: AtlasConfig
) -> Resampling:
    """Return how rows with these ids are resampled.

    There are no halves where the settings want none, or one would have fewer than 10 rows (or groups of rows).
    """
    sets = None if groups is None else groups.of(ids)
    exchange = Exchange(len(ids)) if groups is None or sets is None else _exchange(groups, sets)
    return Resampling(exchange, halves_of_space(ids, groups, atlas.intervals))


def halves_of_space(
    ids: Shaped[np.ndarray, " points"], groups: ExchangeabilityGroups | None, intervals: IntervalsConfig
) -> Bool[np.ndarray, "splits points"] | None:
    """Return by split which rows are in the second half, where there are halves; see `resampling`.

    It depends on ids, not on rows: two spaces have the points that they share in the same halves. Rows of one group are
    in one half.
    """
    if not intervals.n_splits:
        return None
    if groups is not None and groups.kind == "groups":
        names, units = np.unique(groups.of(ids), return_inverse=True)
    else:
        names, units = ids, np.arange(len(ids))
    halves = halves_of(map(str, names), seed=intervals.seed)
    n_second = halves.sum(axis=1)
    is_enough = min(n_second.min(), len(names) - n_second.max()) >= FEWEST_IN_HALF
    return halves[:, units] if is_enough else None


def store_exchangeability(store: UnitStore, exchangeability: Mapping[str, ExchangeabilityGroups]) -> dict[str, str]:
    """Commit the exchangeability groups that are new; return dataset → key."""
    keys = {dataset: groups.key for dataset, groups in exchangeability.items()}
    for dataset, key in keys.items():
        if store.find("designs", key) is None:
            with store.commit("designs", key) as unit_writer:
                unit_writer.arrays.write("ids", exchangeability[dataset].ids)
                unit_writer.arrays.write("sets", exchangeability[dataset].sets)
                unit_writer.facts |= {"kind": exchangeability[dataset].kind}
    return keys


def read_exchangeability(store: UnitStore, key: str) -> ExchangeabilityGroups | None:
    """Return committed exchangeability groups; None for the empty key."""
    if not key:
        return None
    kind = store.receipt("designs", key).facts["kind"]
    with store.open("designs", key) as unit:
        return ExchangeabilityGroups(kind, unit.read("ids"), unit.read("sets"))


def _exchange(groups: ExchangeabilityGroups, sets: Int[np.ndarray, " points"]) -> Exchange:
    try:
        return of_groups(sets) if groups.kind == "groups" else within_strata(sets)
    except ValueError as error:
        raise DataError("bad_groups", f"{error}. Give other {groups.kind}, or none") from error


def text_labels(rows: DatasetRows) -> dict[str, str]:
    """Return id → label of a dataset; NaN is none, and so is the empty text."""
    if rows.labels is None:
        return {}
    texts = ("" if value != value else str(value) for value in rows.labels.tolist())
    return {str(name): text for name, text in zip(rows.ids, texts, strict=True) if text}


def labels_of(ids: Shaped[np.ndarray, " points"], labels: Mapping[str, str]) -> Shaped[np.ndarray, " points"]:
    """Return the label of each id, "" where there is none."""
    return np.array([labels.get(str(name), "") for name in ids], dtype=object)
