"""Stage scores: functional maps, scores and their nulls for all pairs, a task a block of pairs.

A stored block lists its pairs, so any blocks that cover all pairs do: a new model costs the pairs that it is part of.
Every pair is multiplied in shapes that depend on its two spaces only, so its numbers do not depend on its block.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby

from lfm_tasks.config import AtlasConfig, NullConfig
from lfm_tasks.spaces import Space
from lfm_tasks.stages.asked import Asked, AskedPair, Scope, asked_pairs
from lfm_tasks.stages.bases import BasedSpace
from lfm_tasks.stages.blocks import BlockJob, ScoreSettings, part_side, reads_activations
from lfm_tasks.stages.costs import worker_bytes
from lfm_tasks.stages.designs import store_designs
from lfm_tasks.stages.knowledge import EVERY_POINT, Knowledge, store_labels
from lfm_tasks.stages.map_scores import MAP_SCORES
from lfm_tasks.stages.pair_costs import pair_work, part_load
from lfm_tasks.stages.run import Run
from lfm_tasks.stages.score_blocks import store_block
from lfm_tasks.stages.space_sizes import SpaceSize
from lfm_tasks.stages.validate import Zoo
from lfm_tasks.stages.workers import Trouble
from lfm_tasks.stores.digests import digest
from lfm_tasks.stores.units import Receipt, UnitStore

# Bases on a side of a block. Among many spaces more, so that the blocks are 528 at most, and so are their files; not
# where maps are grown, which takes a second each: a task that dies would take half an hour with it.
BLOCK_SIDE = 16
_MOST_GROUPS = 32
# Settings of the scores, lower and higher key of the two bases.
ScoredPair = tuple[ScoreSettings, str, str]


@dataclass(frozen=True)
class PairScores:
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
class Scored:
    """Scores of all pairs of bases: their place, or what kept them from being made; which are those of two spaces.

    Settings differ between datasets that resample their rows in different ways.
    """

    places: Mapping[ScoredPair, PairScores]
    troubles: Mapping[ScoredPair, Trouble]
    pairs: Mapping[AskedPair, ScoredPair]
    asked: Mapping[AskedPair, Asked]

    @property
    def n_not_computed(self) -> int:
        """How many pairs of bases were asked for and not yet tried."""
        return len(set(self.pairs.values()) - self.places.keys() - self.troubles.keys())

    @property
    def settings(self) -> list[ScoreSettings]:
        """The settings that there are, in order."""
        return sorted({settings for settings, *_ in self.pairs.values()})

    def measures(self, first: BasedSpace, second: BasedSpace) -> tuple[str, ...]:
        """Return the measures asked of two spaces, in order; none: not asked."""
        asked = self.asked_of(first, second)
        return () if asked is None else tuple(sorted(asked.measures))

    def asked_of(self, first: BasedSpace, second: BasedSpace) -> Asked | None:
        """Return what is asked of two spaces, in any order; None: nothing."""
        return self.asked.get(_in_order(first, second))

    def place(self, first: BasedSpace, second: BasedSpace) -> PairScores | None:
        """Return where the scores of two spaces lie, in any order; None for a pair that is not computed."""
        pair = self.pairs.get(_in_order(first, second))
        return None if pair is None else self.places.get(pair)

    def refusal(self, first: BasedSpace, second: BasedSpace) -> Trouble | None:
        """Return why two spaces that were asked for have no scores; None if they have, or are not computed."""
        pair = self.pairs.get(_in_order(first, second))
        if pair is None:
            return None
        place = self.places.get(pair)
        return self.troubles.get(pair) or (None if place is None else place.refusal)

    def unmapped(self, first: BasedSpace, second: BasedSpace) -> Trouble | None:
        """Return why no map of two spaces could be fitted that was asked for; None if there is one."""
        asked, place = self.asked_of(first, second), self.place(first, second)
        return place.unmapped if asked and place and asked.measures & MAP_SCORES.keys() else None

    def grown_by(self, first: BasedSpace, second: BasedSpace) -> str:
        """Return the digest of what the map of two spaces was grown by; empty: it is not kept with their scores."""
        asked, place = self.asked_of(first, second), self.place(first, second)
        if asked is None or place is None or not asked.measures & MAP_SCORES.keys():
            return ""
        knows_little = asked.knowledge.regime != "full" and asked.knowledge.refine == "zoomout"
        return self.pairs[_in_order(first, second)][0].rest if knows_little else ""


def _in_order(first: BasedSpace, second: BasedSpace) -> AskedPair:
    return (first.space, second.space) if first.space < second.space else (second.space, first.space)


def score_pairs(run: Run, zoo: Zoo, spaces: tuple[BasedSpace, ...]) -> Scored:
    """Score all pairs within each dataset that no stored block holds yet."""
    designs, labels = store_designs(run.store, zoo.designs), store_labels(run.store, zoo.labels)
    keys = {based.space: based.key for based in spaces}
    asked = asked_pairs(zoo.parts, keys)
    settings = all_settings(run.catalog.atlas, asked, designs, labels)
    pairs = scored_pairs(asked, settings, keys)
    places = stored_pairs(run.store, set(settings.values()))
    everything = wanted = set(pairs.values())
    if run.scope != Scope():
        wanted = {pairs[pair] for pair in asked_pairs(zoo.parts, keys, run.scope)}
    based_on = {based.key: based for based in spaces}
    ways = {
        own: Way(_maps_from(wish), designs.get(dataset, ""), labels.get(dataset, ""))
        for (dataset, wish), own in settings.items()
    }
    jobs = list(block_jobs(run, sorted(wanted - places.keys()), based_on, ways))
    sizes = {own.space: own.size for own in zoo.spaces}
    size_of = {
        based.key: replace(sizes[based.space], n_points=based.n_points, n_features=based.n_features) for based in spaces
    }
    needs = [_needed(job, size_of) for job in jobs]
    troubles: dict[ScoredPair, Trouble] = {}
    run.announce("scores", 0, len(jobs))
    for done, (number, result) in enumerate(run.workers.run(store_block, jobs, needs), start=1):
        job = jobs[number]
        if isinstance(result, Trouble):
            troubles |= dict.fromkeys(((job.settings, *pair) for pair in job.pairs), result)
        else:
            places |= _block_places(run.store.receipt("scores", job.key), job.settings)
        run.announce("scores", done, len(jobs))
    n_new = sum(len(job.pairs) for job in jobs) - len(troubles)
    run.tally.count("scores", n_new, len(wanted) - n_new - len(troubles))
    return Scored({pair: places[pair] for pair in everything if pair in places}, troubles, pairs, asked)


def _needed(job: BlockJob, size_of: Mapping[str, SpaceSize]) -> int:
    how = pair_work(job.atlas, Asked(frozenset(job.settings.measures), job.knowledge))
    return worker_bytes(part_load([size_of[key] for key in job.activations], len(job.pairs), how))


@dataclass(frozen=True)
class Way:
    """How pairs under one setting are scored: their knowledge, and the units of their design and labels, or empty."""

    knowledge: Knowledge
    design: str
    labels: str


def all_settings(
    atlas: AtlasConfig, asked: Mapping[AskedPair, Asked], designs: Mapping[str, str], labels: Mapping[str, str]
) -> dict[tuple[str, Asked], ScoreSettings]:
    """Return the settings of every dataset and wish that pairs are asked for by."""
    # Pairs share their wishes, which take a while to compare: each is looked at once.
    kinds = {(space.dataset, id(wish)): wish for (space, _), wish in asked.items()}
    return {
        (dataset, wish): score_settings(atlas, wish, designs.get(dataset, ""), labels.get(dataset, ""))
        for (dataset, _), wish in kinds.items()
    }


def scored_pairs(
    asked: Mapping[AskedPair, Asked], settings: Mapping[tuple[str, Asked], ScoreSettings], keys: Mapping[Space, str]
) -> dict[AskedPair, ScoredPair]:
    """Return the pairs as blocks name them: by the keys of their bases."""
    found: dict[AskedPair, ScoredPair] = {}
    own: dict[tuple[str, int], ScoreSettings] = {}
    for (source, target), wish in asked.items():
        first, second = keys[source], keys[target]
        kind = (source.dataset, id(wish))
        if kind not in own:
            own[kind] = settings[source.dataset, wish]
        found[source, target] = (own[kind], min(first, second), max(first, second))
    return found


def _maps_from(asked: Asked) -> Knowledge:
    """Return what maps are fitted from; where none are asked for, the same for all."""
    return asked.knowledge if asked.measures & MAP_SCORES.keys() else EVERY_POINT


def with_measures(atlas: AtlasConfig, names: Iterable[str]) -> AtlasConfig:
    """Return the same settings with other measures."""
    return atlas.model_copy(update={"measures": tuple(sorted(names))})


def score_settings(atlas: AtlasConfig, asked: Asked, design: str, labels: str) -> ScoreSettings:
    """Return everything but the two bases that can change a score."""
    maps = _maps_from(asked)
    rest = digest(
        {
            "kind": "scores",
            "maps": maps.ingredients(),
            "labels": labels if maps.regime == "labels" else "",
            "graph": [] if maps.regime == "full" else [atlas.graph.metric, atlas.graph.kernel],
            "null": _null(atlas.null, maps),
            "intervals": atlas.intervals.model_dump(),
            "min_overlap": atlas.min_overlap,
            "design": design,
        }
    )
    return ScoreSettings(rest, tuple(sorted(asked.measures)))


def _null(null: NullConfig, maps: Knowledge) -> dict[str, int]:
    """Return what chance is sampled by: only maps that are grown from something known are grown from random pairs."""
    is_grown = maps.regime in ("anchors", "labels") and maps.refine == "zoomout"
    return null.model_dump(exclude=set() if is_grown else {"n_refined"})


def stored_pairs(store: UnitStore, settings: Collection[ScoreSettings]) -> dict[ScoredPair, PairScores]:
    """Return the place of every pair that was scored by these measures, or more, in whichever block."""
    places: dict[ScoredPair, PairScores] = {}
    for receipt in store.receipts("scores"):
        held = ScoreSettings.of(receipt)
        for wanted in settings:
            if held.hold(wanted):
                places |= _block_places(receipt, wanted)
    return places


def _block_places(receipt: Receipt, settings: ScoreSettings) -> dict[ScoredPair, PairScores]:
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


def block_jobs(
    run: Run, missing: list[ScoredPair], spaces: Mapping[str, BasedSpace], ways: Mapping[ScoreSettings, Way]
) -> Iterator[BlockJob]:
    """Yield the missing pairs in blocks of bases on either side, one setting (a design and measures) each."""
    keys = sorted({key for _, *pair in missing for key in pair})
    wide = BLOCK_SIDE * -(-len(keys) // (BLOCK_SIDE * _MOST_GROUPS))
    sides = {settings: BLOCK_SIDE if way.knowledge.grows else wide for settings, way in ways.items()}
    place = {key: position for position, key in enumerate(keys)}

    def block_of(pair: ScoredPair) -> tuple[ScoreSettings, int, int]:
        side = sides[pair[0]]
        return pair[0], place[pair[1]] // side, place[pair[2]] // side

    for (settings, *_), pairs in groupby(sorted(missing, key=lambda pair: (block_of(pair), pair)), key=block_of):
        block = tuple((first, second) for _, first, second in pairs)
        key = digest({"kind": "scores", "settings": settings, "pairs": block})
        own = {base: spaces[base] for pair in block for base in pair}
        activations = {base: based.activations for base, based in own.items()}
        way, atlas = ways[settings], with_measures(run.catalog.atlas, settings.measures)
        n_features = max(based.n_features for based in own.values())
        part = part_side(
            max(based.n_points for based in own.values()),
            atlas.n_eigenpairs,
            n_features if reads_activations(way.knowledge, settings.measures) else 0,
        )
        yield BlockJob(run.store, key, settings, block, atlas, activations, way.knowledge, way.design, way.labels, part)
