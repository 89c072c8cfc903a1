"""Stage scores: functional maps, scores and their nulls for all pairs, a task a block of pairs.

A stored block lists its pairs, so any blocks that cover all pairs do: a new model costs the pairs that it is part of.
Every pair is multiplied in shapes that depend on its two spaces only, so its numbers do not depend on its block.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations_with_replacement, groupby

from lfm_tasks.config import AtlasConfig
from lfm_tasks.stages.bases import BasedSpace
from lfm_tasks.stages.designs import store_designs
from lfm_tasks.stages.run import Run
from lfm_tasks.stages.score_blocks import BlockJob, store_block
from lfm_tasks.stages.validate import Zoo
from lfm_tasks.stages.workers import Trouble
from lfm_tasks.stores.digests import digest
from lfm_tasks.stores.units import Receipt, UnitStore

# Bases on a side of a block: a task reads at most twice as many, and takes seconds.
BLOCK_SIDE = 16
# Settings of the scores, lower and higher key of the two bases.
ScoredPair = tuple[str, str, str]


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
    """Scores of all pairs: (settings, lower key, higher key) → their place, or what kept them from being made.

    Settings differ between datasets that resample their rows in different ways.
    """

    places: Mapping[ScoredPair, PairScores]
    troubles: Mapping[ScoredPair, Trouble]
    settings: Mapping[str, str]

    def place(self, dataset: str, first: str, second: str) -> PairScores:
        """Return where the scores of two bases lie, in any order."""
        return self.places[self._pair(dataset, first, second)]

    def refusal(self, dataset: str, first: str, second: str) -> Trouble | None:
        """Return why two bases have no scores; None if they have."""
        pair = self._pair(dataset, first, second)
        return self.troubles.get(pair) or self.places[pair].refusal

    def _pair(self, dataset: str, first: str, second: str) -> ScoredPair:
        return self.settings[dataset], min(first, second), max(first, second)


def score_pairs(run: Run, zoo: Zoo, spaces: tuple[BasedSpace, ...]) -> Scored:
    """Score all pairs within each dataset that no stored block holds yet."""
    designs = store_designs(run.store, zoo.designs)
    settings = {based.space.dataset: designs.get(based.space.dataset, "") for based in spaces}
    settings = {dataset: score_settings(run.catalog.atlas, design) for dataset, design in settings.items()}
    places = stored_pairs(run.store, set(settings.values()))
    wanted = wanted_pairs((settings[based.space.dataset], based.space.dataset, based.key) for based in spaces)
    activations = {based.key: based.activations for based in spaces}
    design_of = {settings[dataset]: designs.get(dataset, "") for dataset in settings}
    jobs = list(block_jobs(run, sorted(wanted - places.keys()), activations, design_of))
    troubles: dict[ScoredPair, Trouble] = {}
    run.announce("scores", 0, len(jobs))
    for done, (number, result) in enumerate(run.workers.run(store_block, jobs), start=1):
        job = jobs[number]
        if isinstance(result, Trouble):
            troubles |= dict.fromkeys(((job.settings, *pair) for pair in job.pairs), result)
        else:
            places |= _block_places(run.store.receipt("scores", job.key))
        run.announce("scores", done, len(jobs))
    n_new = sum(len(job.pairs) for job in jobs) - len(troubles)
    run.tally.count("scores", n_new, len(wanted) - n_new - len(troubles))
    return Scored({pair: places[pair] for pair in wanted if pair in places}, troubles, settings)


def wanted_pairs(bases: Iterable[tuple[str, str, str]]) -> set[ScoredPair]:
    """Return the pairs of bases, lower key first, of all (settings, dataset, key) that share a dataset."""
    pairs: set[ScoredPair] = set()
    for (settings, _), group in groupby(sorted(set(bases)), key=lambda base: base[:2]):
        keys = [key for *_, key in group]
        pairs.update((settings, *pair) for pair in combinations_with_replacement(keys, 2))
    return pairs


def score_settings(atlas: AtlasConfig, design: str) -> str:
    """Return the digest of everything but the two bases that can change a score."""
    return digest(
        {
            "kind": "scores",
            "maps": atlas.maps.model_dump(),
            "measures": sorted(atlas.measures),
            "null": atlas.null.model_dump(),
            "intervals": atlas.intervals.model_dump(),
            "min_overlap": atlas.min_overlap,
            "design": design,
        }
    )


def stored_pairs(store: UnitStore, settings: Collection[str]) -> dict[ScoredPair, PairScores]:
    """Return the place of every pair that was scored under one of these settings, in whichever block."""
    places: dict[ScoredPair, PairScores] = {}
    for receipt in store.receipts("scores"):
        if receipt.facts["settings"] in settings:
            places |= _block_places(receipt)
    return places


def _block_places(receipt: Receipt) -> dict[ScoredPair, PairScores]:
    refusals = {row: Trouble(*why) for row, *why in receipt.facts["refusals"]}
    codes: dict[int, list[tuple[str, str]]] = {}
    for row, measure, reason in receipt.facts["codes"]:
        codes.setdefault(row, []).append((measure, reason))
    settings = receipt.facts["settings"]
    return {
        (settings, first, second): PairScores(receipt.key, row, refusals.get(row), tuple(codes.get(row, ())))
        for row, (first, second) in enumerate(receipt.facts["pairs"])
    }


def block_jobs(
    run: Run, missing: list[ScoredPair], activations: Mapping[str, str], design_of: Mapping[str, str]
) -> Iterator[BlockJob]:
    """Yield the missing pairs in blocks of up to 16 × 16 bases, one setting each."""
    keys = sorted({key for _, *pair in missing for key in pair})
    group = {key: position // BLOCK_SIDE for position, key in enumerate(keys)}

    def block_of(pair: ScoredPair) -> tuple[str, int, int]:
        return pair[0], group[pair[1]], group[pair[2]]

    for (settings, *_), pairs in groupby(sorted(missing, key=lambda pair: (block_of(pair), pair)), key=block_of):
        block = tuple((first, second) for _, first, second in pairs)
        key = digest({"kind": "scores", "settings": settings, "pairs": block})
        own = {base: activations[base] for pair in block for base in pair}
        yield BlockJob(run.store, key, settings, block, run.catalog.atlas, own, design_of[settings])
