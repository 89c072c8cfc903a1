"""Pairs of bases under one setting of the scores: which are asked for, and where their scores lie."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from lfm_tasks.spaces import Space
from lfm_tasks.stages.scores.block import ScoreSettings
from lfm_tasks.stages.scores.requested_pairs import AskedPairs
from lfm_tasks.stores.units.store import Receipt, UnitStore
from lfm_tasks.workers.pool import Trouble


class PairScores(NamedTuple):
    """Where the scores of a pair of bases lie: key of the block, row in it; ``refusal``: why there are none.

    ``unmapped``: why no map could be fitted; measures of activations have their scores all the same.
    ``measures`` are those of the block, in its order, perhaps more than are asked for.
    ``codes`` are (measure, reason) of single measures that have no value, or one with a reservation.
    """

    block: str
    row: int
    measures: tuple[str, ...]
    refusal: Trouble | None = None
    unmapped: Trouble | None = None
    codes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class StoredBlock:
    """What the receipt of a block of scores says, by row."""

    key: str
    measures: tuple[str, ...]
    refusals: Mapping[int, Trouble]
    unmapped: Mapping[int, Trouble]
    codes: Mapping[int, tuple[tuple[str, str], ...]]

    @classmethod
    def of(cls, receipt: Receipt) -> "StoredBlock":
        """Return that of a receipt."""
        refusals, unmapped = (
            {row: Trouble(*why) for row, *why in receipt.facts.get(name, ())} for name in ("refusals", "unmapped")
        )
        codes: dict[int, tuple[tuple[str, str], ...]] = {}
        for row, measure, reason in receipt.facts["codes"]:
            codes[row] = (*codes.get(row, ()), (measure, reason))
        return cls(receipt.key, ScoreSettings.of(receipt).measures, refusals, unmapped, codes)


@dataclass(frozen=True)
class BasePairs:
    """Pairs of the bases ``keys``, which are in order; of a pair, the lower key is the row.

    ``asked``: by the catalog; ``now``: by this run. ``block``: the number of its block in ``blocks``, -1 where it is
    not scored; ``row``: its row there. Both, and ``blocks``, are filled in as blocks are found or made.
    """

    settings: ScoreSettings
    keys: tuple[str, ...]
    asked: Bool[np.ndarray, "bases bases"]
    now: Bool[np.ndarray, "bases bases"]
    block: Int[np.ndarray, "bases bases"]
    row: Int[np.ndarray, "bases bases"]
    blocks: list[StoredBlock] = field(default_factory=list)

    @cached_property
    def positions(self) -> dict[str, int]:
        """The place of each key."""
        return {key: position for position, key in enumerate(self.keys)}

    @property
    def missing(self) -> Bool[np.ndarray, "bases bases"]:
        """Which pairs this run has to score."""
        return self.now & (self.block < 0)

    @property
    def n_unscored(self) -> int:
        """How many pairs that are asked for have no block."""
        return int((self.asked & (self.block < 0)).sum())

    @property
    def used(self) -> list[StoredBlock]:
        """The blocks that hold pairs that are asked for."""
        numbers = np.unique(self.block[self.asked & (self.block >= 0)])
        return [self.blocks[number] for number in numbers]

    def add(self, receipt: Receipt) -> None:
        """Note where the pairs of a block lie; bases that are none of these are passed over."""
        where = np.array([self.positions.get(key, -1) for key in receipt.facts["bases"]], dtype=np.intp)
        sides = where[np.array(receipt.facts["pairs"], dtype=np.intp).reshape(-1, 2)]
        rows = np.flatnonzero((sides >= 0).all(axis=1))
        if not len(rows):
            return
        first, second = sides[rows].T
        self.block[first, second], self.row[first, second] = len(self.blocks), rows
        self.blocks.append(StoredBlock.of(receipt))

    def place(self, first: str, second: str) -> PairScores | None:
        """Return where the scores of two bases lie, in any order; None: nowhere."""
        row, column = self.positions[min(first, second)], self.positions[max(first, second)]
        if (number := self.block.item(row, column)) < 0:
            return None
        block, place = self.blocks[number], self.row.item(row, column)
        return PairScores(
            block.key, place, block.measures,
            block.refusals.get(place), block.unmapped.get(place), block.codes.get(place, ()),
        )  # fmt: skip


def base_pairs(
    pairs: AskedPairs,
    settings: Mapping[tuple[str, int], ScoreSettings],
    keys: Mapping[Space, str],
    now: Bool[np.ndarray, "spaces spaces"] | None = None,
) -> dict[ScoreSettings, BasePairs]:
    """Return the pairs of spaces as pairs of their bases, by the settings of their dataset and wish.

    ``now``: which pairs of spaces this run computes; all where it is not given.
    """
    cells: dict[ScoreSettings, list[tuple[np.ndarray, np.ndarray]]] = {}
    for dataset, number, places in pairs.by_dataset():
        cells.setdefault(settings[dataset, number], []).append(places)
    key_of = np.array([keys[space] for space in pairs.spaces], dtype=object)
    found = {}
    for own, parts in sorted(cells.items()):
        first, second = (np.concatenate([part[side] for part in parts]) for side in range(2))
        used = np.unique(np.concatenate([first, second]))
        names, of_used = np.unique(key_of[used].astype(str), return_inverse=True)
        position = np.zeros(len(key_of), dtype=np.intp)
        position[used] = of_used
        low, high = np.minimum(position[first], position[second]), np.maximum(position[first], position[second])
        asked, chosen = np.zeros((2, len(names), len(names)), dtype=bool)
        asked[low, high] = True
        is_now = slice(None) if now is None else now[first, second]
        chosen[low[is_now], high[is_now]] = True
        nowhere = np.full((2, len(names), len(names)), -1, dtype=np.int32)
        found[own] = BasePairs(own, tuple(names.tolist()), asked, chosen, *nowhere)
    return found


def find_stored(store: UnitStore, tables: Iterable[BasePairs]) -> None:
    """Note the places of all pairs that were scored by these measures, or more, in whichever block."""
    own = list(tables)
    for receipt in store.receipts("scores"):
        held = ScoreSettings.of(receipt)
        for table in own:
            if held.hold(table.settings):
                table.add(receipt)
