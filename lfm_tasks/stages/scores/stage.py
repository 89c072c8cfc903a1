"""Stage scores: functional maps, scores and their nulls for all pairs, a task a block of pairs.

A stored block lists its pairs, so any blocks that cover all pairs do: a new model costs the pairs that it is part of.
Every pair is multiplied in shapes that depend on its two spaces only, so its numbers do not depend on its block.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from lfm_tasks.runtime.load import worker_bytes
from lfm_tasks.runtime.run import Run
from lfm_tasks.runtime.scope import Scope
from lfm_tasks.runtime.sizes import SpaceSize
from lfm_tasks.spectral.bases.map_measures import MAP_SCORES
from lfm_tasks.stages.bases.stage import BasedSpace
from lfm_tasks.stages.inventory.correspondence import store_labels
from lfm_tasks.stages.inventory.exchangeability import store_designs
from lfm_tasks.stages.inventory.requests import Asked
from lfm_tasks.stages.inventory.stage import Zoo
from lfm_tasks.stages.scores.block import BlockJob, ScoreSettings
from lfm_tasks.stages.scores.blocking import block_jobs
from lfm_tasks.stages.scores.cost import pair_work, part_load
from lfm_tasks.stages.scores.job import store_block
from lfm_tasks.stages.scores.pair_index import BasePairs, PairScores, base_pairs, find_stored
from lfm_tasks.stages.scores.requested_pairs import AskedPairs, asked_pairs, pairs_now
from lfm_tasks.stages.scores.settings import Way, all_settings, maps_from
from lfm_tasks.workers.pool import Trouble

# Settings of the scores, lower and higher key of the two bases.
ScoredPair = tuple[ScoreSettings, str, str]


@dataclass(frozen=True)
class Scored:
    """Scores of all pairs of spaces: what is asked of them, where it lies, or what kept it from being made.

    ``settings_of``: those of a dataset and (numbered) wish; they differ between datasets that resample their rows in
    different ways.
    """

    pairs: AskedPairs
    settings_of: Mapping[tuple[str, int], ScoreSettings]
    tables: Mapping[ScoreSettings, BasePairs]
    troubles: Mapping[ScoredPair, Trouble]

    @property
    def n_not_computed(self) -> int:
        """How many pairs of bases were asked for and not yet tried."""
        return sum(table.n_unscored for table in self.tables.values()) - len(self.troubles)

    @property
    def settings(self) -> list[ScoreSettings]:
        """The settings that there are, in order."""
        return sorted(self.tables)

    @property
    def blocks(self) -> set[str]:
        """The keys of the blocks that scores lie in."""
        return {block.key for table in self.tables.values() for block in table.used}

    @property
    def has_refusals(self) -> bool:
        """Whether any pair may have no scores, or no map."""
        used = [block for table in self.tables.values() for block in table.used]
        return bool(self.troubles) or any(block.refusals or block.unmapped for block in used)

    def measures(self, first: BasedSpace, second: BasedSpace) -> tuple[str, ...]:
        """Return the measures asked of two spaces, in order; none: not asked."""
        asked = self.asked_of(first, second)
        return () if asked is None else tuple(sorted(asked.measures))

    def asked_of(self, first: BasedSpace, second: BasedSpace) -> Asked | None:
        """Return what is asked of two spaces, in any order; None: nothing."""
        number = self.pairs.wish(first.space, second.space)
        return None if number < 0 else self.pairs.wishes[number]

    def place(self, first: BasedSpace, second: BasedSpace) -> PairScores | None:
        """Return where the scores of two spaces lie, in any order; None for a pair that is not computed."""
        settings = self._settings(first, second)
        return None if settings is None else self.tables[settings].place(first.key, second.key)

    def refusal(self, first: BasedSpace, second: BasedSpace) -> Trouble | None:
        """Return why two spaces that were asked for have no scores; None if they have, or are not computed."""
        settings = self._settings(first, second)
        if settings is None:
            return None
        trouble = self.troubles.get((settings, min(first.key, second.key), max(first.key, second.key)))
        place = self.tables[settings].place(first.key, second.key)
        return trouble or (None if place is None else place.refusal)

    def unmapped(self, first: BasedSpace, second: BasedSpace) -> Trouble | None:
        """Return why no map of two spaces could be fitted that was asked for; None if there is one."""
        asked, place = self.asked_of(first, second), self.place(first, second)
        return place.unmapped if asked and place and asked.measures & MAP_SCORES.keys() else None

    def grown_by(self, first: BasedSpace, second: BasedSpace) -> str:
        """Return the digest of what the map of two spaces was grown by; empty: it is not kept with their scores."""
        asked, settings = self.asked_of(first, second), self._settings(first, second)
        if asked is None or settings is None or not asked.measures & MAP_SCORES.keys():
            return ""
        knows_little = asked.knowledge.regime != "full" and asked.knowledge.refine == "zoomout"
        return settings.rest if knows_little and self.place(first, second) is not None else ""

    def _settings(self, first: BasedSpace, second: BasedSpace) -> ScoreSettings | None:
        number = self.pairs.wish(first.space, second.space)
        return None if number < 0 else self.settings_of[first.space.dataset, number]


def score_pairs(run: Run, zoo: Zoo, spaces: tuple[BasedSpace, ...]) -> Scored:
    """Score all pairs within each dataset that no stored block holds yet."""
    designs, labels = store_designs(run.store, zoo.designs), store_labels(run.store, zoo.labels)
    keys = {based.space: based.key for based in spaces}
    pairs = asked_pairs(zoo.parts, keys)
    settings = all_settings(run.catalog.atlas, pairs, designs, labels)
    now = None if run.scope == Scope() else pairs_now(zoo.parts, keys, run.scope)
    tables = base_pairs(pairs, settings, keys, now)
    find_stored(run.store, tables.values())
    ways = {
        own: Way(maps_from(pairs.wishes[number]), designs.get(dataset, ""), labels.get(dataset, ""))
        for (dataset, number), own in settings.items()
    }
    jobs = list(block_jobs(run, tables.values(), {based.key: based for based in spaces}, ways))
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
            tables[job.settings].add(run.store.receipt("scores", job.key))
        run.announce("scores", done, len(jobs))
    n_asked, n_tried = sum(int(table.now.sum()) for table in tables.values()), sum(len(job.sides) for job in jobs)
    run.tally.count("scores", n_tried - len(troubles), n_asked - n_tried)
    return Scored(pairs, settings, tables, troubles)


def _needed(job: BlockJob, size_of: Mapping[str, SpaceSize]) -> int:
    how = pair_work(job.atlas, Asked(frozenset(job.settings.measures), job.knowledge))
    return worker_bytes(part_load([size_of[key] for key in job.bases], len(job.sides), how))
