"""Stage scores: functional maps, scores and their nulls for all pairs, a task a block of pairs.

A stored block lists its pairs, so any blocks that cover all pairs do: a new model costs the pairs that it is part of.
Every pair is multiplied in shapes that depend on its two spaces only, so its numbers do not depend on its block.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from lfm_tasks.stages.asked import Asked, AskedPair, Scope, asked_pairs
from lfm_tasks.stages.bases import BasedSpace
from lfm_tasks.stages.block_jobs import block_jobs
from lfm_tasks.stages.blocks import BlockJob, ScoreSettings
from lfm_tasks.stages.costs import worker_bytes
from lfm_tasks.stages.designs import store_designs
from lfm_tasks.stages.knowledge import store_labels
from lfm_tasks.stages.map_scores import MAP_SCORES
from lfm_tasks.stages.pair_costs import pair_work, part_load
from lfm_tasks.stages.pair_places import PairScores, ScoredPair, block_places, stored_pairs
from lfm_tasks.stages.run import Run
from lfm_tasks.stages.score_blocks import store_block
from lfm_tasks.stages.score_settings import Way, all_settings, maps_from, scored_pairs
from lfm_tasks.stages.space_sizes import SpaceSize
from lfm_tasks.stages.validate import Zoo
from lfm_tasks.stages.workers import Trouble


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
        own: Way(maps_from(wish), designs.get(dataset, ""), labels.get(dataset, ""))
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
            places |= block_places(run.store.receipt("scores", job.key), job.settings)
        run.announce("scores", done, len(jobs))
    n_new = sum(len(job.pairs) for job in jobs) - len(troubles)
    run.tally.count("scores", n_new, len(wanted) - n_new - len(troubles))
    return Scored({pair: place for pair, place in places.items() if pair in everything}, troubles, pairs, asked)


def _needed(job: BlockJob, size_of: Mapping[str, SpaceSize]) -> int:
    how = pair_work(job.atlas, Asked(frozenset(job.settings.measures), job.knowledge))
    return worker_bytes(part_load([size_of[key] for key in job.activations], len(job.pairs), how))
