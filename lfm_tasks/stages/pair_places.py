"""Where the scores of pairs lie: rows of stored blocks, found by their receipts alone."""

from collections.abc import Collection
from typing import NamedTuple

from lfm_tasks.stages.blocks import ScoreSettings
from lfm_tasks.stages.workers import Trouble
from lfm_tasks.stores.units import Receipt, UnitStore

# Settings of the scores, lower and higher key of the two bases.
ScoredPair = tuple[ScoreSettings, str, str]


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


def stored_pairs(store: UnitStore, settings: Collection[ScoreSettings]) -> dict[ScoredPair, PairScores]:
    """Return the place of every pair that was scored by these measures, or more, in whichever block."""
    places: dict[ScoredPair, PairScores] = {}
    for receipt in store.receipts("scores"):
        held = ScoreSettings.of(receipt)
        for wanted in settings:
            if held.hold(wanted):
                places |= block_places(receipt, wanted)
    return places


def block_places(receipt: Receipt, settings: ScoreSettings) -> dict[ScoredPair, PairScores]:
    """Return the places of a block's pairs, as pairs under settings that those of the block hold."""
    refusals, unmapped = (
        {row: Trouble(*why) for row, *why in receipt.facts.get(name, ())} for name in ("refusals", "unmapped")
    )
    codes: dict[int, list[tuple[str, str]]] = {}
    for row, measure, reason in receipt.facts["codes"]:
        codes.setdefault(row, []).append((measure, reason))
    held = ScoreSettings.of(receipt).measures
    bases = receipt.facts["bases"]
    return {
        (settings, bases[first], bases[second]): PairScores(
            receipt.key, row, held, refusals.get(row), unmapped.get(row), tuple(codes.get(row, ()))
        )
        for row, (first, second) in enumerate(receipt.facts["pairs"])
    }
