"""How the rows of a dataset are resampled: which may change places, which are left out together."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int, Shaped

from lfm_tasks.config import AtlasConfig
from lfm_tasks.reasons import ReasonError
from lfm_tasks.sources.datasets import DatasetRows
from lfm_tasks.statistics.intervals import random_parts
from lfm_tasks.statistics.permutation_null import Exchange, of_groups, within_strata
from lfm_tasks.stores.units.digests import digest, ids_digest
from lfm_tasks.stores.units.store import UnitStore


@dataclass(frozen=True)
class Design:
    """The set that each id is in: rows of a group stay together, rows of a stratum change places among themselves."""

    kind: Literal["groups", "strata"]
    ids: Shaped[np.ndarray, " points"]
    sets: Int[np.ndarray, " points"]

    @property
    def key(self) -> str:
        """The content address."""
        return digest({"kind": self.kind, "ids": ids_digest(self.ids), "sets": self.sets.tolist()})

    def of(self, ids: Shaped[np.ndarray, " some"]) -> Int[np.ndarray, " some"]:
        """Return the sets of some ids; ReasonError ``bad_groups`` for ids that the dataset does not name."""
        places = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        unknown = self.ids[places] != ids
        if unknown.any():
            found = f"found {int(unknown.sum())} ids without {self.kind}, first {ascii(str(ids[unknown][0]))[:60]}"
            raise ReasonError("bad_groups", f"{found}: name the {self.kind} of every id in the dataset")
        return self.sets[places]


@dataclass(frozen=True)
class Resampling:
    """For one list of ids: the exchange under chance; the part of each row that is left out, and its half, if any."""

    exchange: Exchange
    parts: Int[np.ndarray, " points"] | None
    halves: Int[np.ndarray, " points"] | None
    n_parts: int


def dataset_design(rows: DatasetRows) -> Design | None:
    """Return what a dataset says about its rows, ids in order; None: every row may change places with every other."""
    sets = rows.groups if rows.strata is None else rows.strata
    if sets is None:
        return None
    order = np.argsort(rows.ids, kind="stable")
    codes = np.unique(sets[order], return_inverse=True)[1]
    design = Design("groups" if rows.strata is None else "strata", rows.ids[order], codes.astype(np.int32))
    _exchange(design, design.sets)
    return design


def resampling(ids: Shaped[np.ndarray, " points"], design: Design | None, atlas: AtlasConfig) -> Resampling:
    """Return how rows with these ids are resampled.

    There are no parts where ``atlas.intervals.n_groups`` is 0 or there are too few rows (or groups of rows) for them.
    """
    sets = None if design is None else design.of(ids)
    exchange = Exchange(len(ids)) if design is None or sets is None else _exchange(design, sets)
    together = sets if design is not None and design.kind == "groups" else None
    wanted = atlas.intervals.n_groups

    def parts(n_parts: int) -> Int[np.ndarray, " points"] | None:
        n_units = len(ids) if together is None else len(np.unique(together))
        if not wanted or n_units < 2 * wanted:
            return None
        return random_parts(len(ids), n_parts, seed=atlas.intervals.seed, groups=together)

    return Resampling(exchange, parts(wanted), parts(2), wanted)


def store_designs(store: UnitStore, designs: Mapping[str, Design]) -> dict[str, str]:
    """Commit the designs that are new; return dataset → key."""
    keys = {dataset: design.key for dataset, design in designs.items()}
    for dataset, key in keys.items():
        if store.find("designs", key) is None:
            with store.commit("designs", key) as unit_writer:
                unit_writer.arrays.write("ids", designs[dataset].ids)
                unit_writer.arrays.write("sets", designs[dataset].sets)
                unit_writer.facts |= {"kind": designs[dataset].kind}
    return keys


def read_design(store: UnitStore, key: str) -> Design | None:
    """Return a committed design; None for the empty key."""
    if not key:
        return None
    kind = store.receipt("designs", key).facts["kind"]
    with store.open("designs", key) as unit:
        return Design(kind, unit.read("ids"), unit.read("sets"))


def _exchange(design: Design, sets: Int[np.ndarray, " points"]) -> Exchange:
    try:
        return of_groups(sets) if design.kind == "groups" else within_strata(sets)
    except ValueError as error:
        raise ReasonError("bad_groups", f"{error}: give other {design.kind}, or none") from error
