"""Stage scores: functional maps, scores and their nulls for all pairs, a task a block of pairs.

A stored block lists its pairs, so any blocks that cover all pairs do: a new model costs the pairs that it is part of.
Every pair is multiplied in shapes that depend on its two spaces only, so its numbers do not depend on its block.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations_with_replacement, groupby

from lfm_tasks.config import AtlasConfig
from lfm_tasks.stages.bases import BasedSpace
from lfm_tasks.stages.run import Run
from lfm_tasks.stages.score_blocks import BlockJob, store_block
from lfm_tasks.stages.workers import Trouble
from lfm_tasks.stores.digests import digest
from lfm_tasks.stores.units import Receipt, UnitStore

# Bases on a side of a block: a task reads at most twice as many, and takes seconds.
BLOCK_SIDE = 16


@dataclass(frozen=True)
class PairScores:
    """Where the scores of a pair of bases lie: key of the block, row in it; ``refusal``: why there are none.

    ``codes`` are (measure, reason) of single measures that have no value, or one with a reservation.
    """

    block: str
    row: int
    refusal: Trouble | None = None
    codes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Scored:
    """Scores of all pairs: (lower key, higher key) of two bases → their place; or what kept them from being made."""

    places: Mapping[tuple[str, str], PairScores]
    troubles: Mapping[tuple[str, str], Trouble]

    def refusal(self, pair: tuple[str, str]) -> Trouble | None:
        """Return why a pair has no scores; None if it has."""
        return self.troubles.get(pair) or self.places[pair].refusal


def score_pairs(run: Run, spaces: tuple[BasedSpace, ...]) -> Scored:
    """Score all pairs within each dataset that no stored block holds yet."""
    settings = score_settings(run.catalog.atlas)
    places = stored_pairs(run.store, settings)
    wanted = wanted_pairs((based.space.dataset, based.key) for based in spaces)
    activations = {based.key: based.activations for based in spaces}
    jobs = list(block_jobs(run, settings, sorted(wanted - places.keys()), activations))
    troubles: dict[tuple[str, str], Trouble] = {}
    run.announce("scores", 0, len(jobs))
    for done, (number, result) in enumerate(run.workers.run(store_block, jobs), start=1):
        job = jobs[number]
        if isinstance(result, Trouble):
            troubles |= dict.fromkeys(job.pairs, result)
        else:
            places |= _block_places(run.store.receipt("scores", job.key))
        run.announce("scores", done, len(jobs))
    n_new = sum(len(job.pairs) for job in jobs) - len(troubles)
    run.tally.count("scores", n_new, len(wanted) - n_new - len(troubles))
    return Scored({pair: places[pair] for pair in wanted if pair in places}, troubles)


def wanted_pairs(bases: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """Return the pairs of bases, lower key first, of all (dataset, key) that share a dataset."""
    pairs: set[tuple[str, str]] = set()
    for _, group in groupby(sorted(set(bases)), key=lambda base: base[0]):
        pairs.update(combinations_with_replacement([key for _, key in group], 2))
    return pairs


def score_settings(atlas: AtlasConfig) -> str:
    """Return the digest of every setting that can change a score of two given bases."""
    return digest(
        {
            "kind": "scores",
            "maps": atlas.maps.model_dump(),
            "measures": sorted(atlas.measures),
            "null": atlas.null.model_dump(),
            "min_overlap": atlas.min_overlap,
        }
    )


def stored_pairs(store: UnitStore, settings: str) -> dict[tuple[str, str], PairScores]:
    """Return the place of every pair that was scored under these settings, in whichever block."""
    places: dict[tuple[str, str], PairScores] = {}
    for receipt in store.receipts("scores"):
        if receipt.facts["settings"] == settings:
            places |= _block_places(receipt)
    return places


def _block_places(receipt: Receipt) -> dict[tuple[str, str], PairScores]:
    refusals = {row: Trouble(*why) for row, *why in receipt.facts["refusals"]}
    codes: dict[int, list[tuple[str, str]]] = {}
    for row, measure, reason in receipt.facts["codes"]:
        codes.setdefault(row, []).append((measure, reason))
    pairs = enumerate(receipt.facts["pairs"])
    return {
        (first, second): PairScores(receipt.key, row, refusals.get(row), tuple(codes.get(row, ())))
        for row, (first, second) in pairs
    }


def block_jobs(
    run: Run, settings: str, missing: list[tuple[str, str]], activations: Mapping[str, str]
) -> Iterator[BlockJob]:
    """Yield the missing pairs in blocks of up to 16 × 16 bases."""
    keys = sorted({key for pair in missing for key in pair})
    group = {key: position // BLOCK_SIDE for position, key in enumerate(keys)}

    def block_of(pair: tuple[str, str]) -> tuple[int, int]:
        return group[pair[0]], group[pair[1]]

    for _, pairs in groupby(sorted(missing, key=lambda pair: (block_of(pair), pair)), key=block_of):
        block = tuple(pairs)
        key = digest({"kind": "scores", "settings": settings, "pairs": block})
        own = {base: activations[base] for pair in block for base in pair}
        yield BlockJob(run.store, key, settings, block, run.catalog.atlas, own)
