"""Stage scores: functional maps, scores and their nulls for all pairs, a task a block of pairs.

A stored block lists its pairs, so any blocks that cover all pairs do: a new model costs the pairs that it is part of.
Every pair is multiplied in shapes that depend on its two spaces only, so its numbers do not depend on its block.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int

from lfm_tasks.config import AtlasConfig, NullConfig
from lfm_tasks.runtime.load import SpaceSize, worker_bytes
from lfm_tasks.runtime.run import Run, Scope
from lfm_tasks.spectral.bases.full_map import MAP_SCORES
from lfm_tasks.stages.bases.stage import SpaceBasis
from lfm_tasks.stages.inventory.correspondence import Correspondence, store_exchangeability, store_labels
from lfm_tasks.stages.inventory.requests import PairRequest
from lfm_tasks.stages.inventory.stage import Zoo
from lfm_tasks.stages.scores.block import BlockJob, ScoreSettings, part_side, reads_activations
from lfm_tasks.stages.scores.cost import pair_work, part_load
from lfm_tasks.stages.scores.job import store_block
from lfm_tasks.stages.scores.pair_index import (
    PairIndex,
    PairScores,
    RequestedPairs,
    ScoringInputs,
    all_settings,
    correspondence_of_maps,
    find_stored,
    pair_indexes,
    pairs_in_scope,
    requested_pairs,
)
from lfm_tasks.statistics.permutation_null import rows_by_value
from lfm_tasks.stores.units.store import digest
from lfm_tasks.workers.pool import JobFailure

# Bases on a side of a block, and groups of them at most: among many spaces sides grow, so that blocks, and their files,
# are 528 at most. Closed forms without chance take 20 µs a pair: few and large blocks, else storing them takes longer.
# Where maps are grown a pair takes a second: no more in a block, a task that dies would take half an hour with it.
BLOCK_SIDE = 16
_MOST_GROUPS, _MOST_GROUPS_OF_CLOSED_FORMS = 32, 16


@dataclass(frozen=True)
class Block:
    """Pairs to score together: ``bases``, in order, and their places among these, lower first."""

    settings: ScoreSettings
    bases: tuple[str, ...]
    sides: Int[np.ndarray, "pairs 2"]


def block_jobs(
    run: Run, tables: Iterable[PairIndex], spaces: Mapping[str, SpaceBasis], ways: Mapping[ScoreSettings, ScoringInputs]
) -> Iterator[BlockJob]:
    """Yield the missing pairs in blocks, one setting (a design and measures) each."""
    for table in tables:
        way, atlas = ways[table.settings], with_measures(run.catalog.atlas, table.settings.measures)
        for block in blocks(table, way.correspondence, atlas.null):
            own = [spaces[base] for base in block.bases]
            n_features = max(based.n_features for based in own)
            part = part_side(
                max(based.n_points for based in own),
                atlas.n_eigenpairs,
                n_features if reads_activations(way.correspondence, table.settings.measures) else 0,
            )
            yield BlockJob(
                run.store, _key(block), table.settings, block.bases, block.sides, atlas,
                {based.key: based.activations for based in own}, way.correspondence, way.design, way.labels, part,
            )  # fmt: skip


def blocks(table: PairIndex, correspondence: Correspondence, null: NullConfig) -> Iterator[Block]:
    """Yield the missing pairs of bases block by block; ``correspondence``: what their maps are fitted from."""
    pairs = np.argwhere(table.missing)
    if not len(pairs):
        return
    keys, places = np.unique(pairs, return_inverse=True)
    side = _block_side(len(keys), table.settings, correspondence, null)
    groups = places.reshape(-1, 2) // side
    codes = groups @ [len(keys) // side + 1, 1]
    for rows in rows_by_value(codes):
        own, sides = np.unique(pairs[rows], return_inverse=True)
        yield Block(table.settings, tuple(table.keys[base] for base in own), sides.reshape(-1, 2))


def _key(block: Block) -> str:
    pairs = block.sides.tolist()
    return digest({"kind": "scores", "settings": block.settings, "bases": block.bases, "pairs": pairs})


def _block_side(n_bases: int, settings: ScoreSettings, correspondence: Correspondence, null: NullConfig) -> int:
    if correspondence.uses_zoomout:
        return BLOCK_SIDE
    is_closed = correspondence.regime == "unsupervised" or (
        correspondence.regime == "anchors" and not null.n_permutations
    )
    is_quick = is_closed and not reads_activations(correspondence, settings.measures)
    n_groups = _MOST_GROUPS_OF_CLOSED_FORMS if is_quick else _MOST_GROUPS
    return BLOCK_SIDE * -(-n_bases // (BLOCK_SIDE * n_groups))


def with_measures(atlas: AtlasConfig, names: Collection[str]) -> AtlasConfig:
    """Return the same settings with other measures."""
    return atlas.model_copy(update={"measures": tuple(sorted(names))})


# Settings of the scores, lower and higher key of the two bases.
ScoredPairKey = tuple[ScoreSettings, str, str]


@dataclass(frozen=True)
class ScoredPairs:
    """Scores of all pairs of spaces: what is asked of them, where it lies, or what kept it from being made.

    ``settings_of``: those of a dataset and (numbered) wish; they differ between datasets that resample their rows in
    different ways.
    """

    pairs: RequestedPairs
    settings_of: Mapping[tuple[str, int], ScoreSettings]
    tables: Mapping[ScoreSettings, PairIndex]
    troubles: Mapping[ScoredPairKey, JobFailure]

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

    def measures(self, first: SpaceBasis, second: SpaceBasis) -> tuple[str, ...]:
        """Return the measures asked of two spaces, in order; none: not asked."""
        asked = self.request_of(first, second)
        return () if asked is None else tuple(sorted(asked.measures))

    def request_of(self, first: SpaceBasis, second: SpaceBasis) -> PairRequest | None:
        """Return what is asked of two spaces, in any order; None: nothing."""
        number = self.pairs.request_index(first.space, second.space)
        return None if number < 0 else self.pairs.requests[number]

    def place(self, first: SpaceBasis, second: SpaceBasis) -> PairScores | None:
        """Return where the scores of two spaces lie, in any order; None for a pair that is not computed."""
        settings = self._settings(first, second)
        return None if settings is None else self.tables[settings].place(first.key, second.key)

    def refusal(self, first: SpaceBasis, second: SpaceBasis) -> JobFailure | None:
        """Return why two spaces that were asked for have no scores; None if they have, or are not computed."""
        settings = self._settings(first, second)
        if settings is None:
            return None
        trouble = self.troubles.get((settings, min(first.key, second.key), max(first.key, second.key)))
        place = self.tables[settings].place(first.key, second.key)
        return trouble or (None if place is None else place.refusal)

    def unmapped(self, first: SpaceBasis, second: SpaceBasis) -> JobFailure | None:
        """Return why no map of two spaces could be fitted that was asked for; None if there is one."""
        asked, place = self.request_of(first, second), self.place(first, second)
        return place.unmapped if asked and place and asked.measures & MAP_SCORES.keys() else None

    def grown_by(self, first: SpaceBasis, second: SpaceBasis) -> str:
        """Return the digest of what the map of two spaces was grown by; empty: it is not kept with their scores."""
        asked, settings = self.request_of(first, second), self._settings(first, second)
        if asked is None or settings is None or not asked.measures & MAP_SCORES.keys():
            return ""
        knows_little = asked.correspondence.regime != "full" and asked.correspondence.refine == "zoomout"
        return settings.rest if knows_little and self.place(first, second) is not None else ""

    def _settings(self, first: SpaceBasis, second: SpaceBasis) -> ScoreSettings | None:
        number = self.pairs.request_index(first.space, second.space)
        return None if number < 0 else self.settings_of[first.space.dataset, number]


def score_pairs(run: Run, zoo: Zoo, spaces: tuple[SpaceBasis, ...]) -> ScoredPairs:
    """Score all pairs within each dataset that no stored block holds yet."""
    designs, labels = store_exchangeability(run.store, zoo.designs), store_labels(run.store, zoo.labels)
    keys = {based.space: based.key for based in spaces}
    pairs = requested_pairs(zoo.parts, keys)
    settings = all_settings(run.catalog.atlas, pairs, designs, labels)
    now = None if run.scope == Scope() else pairs_in_scope(zoo.parts, keys, run.scope)
    tables = pair_indexes(pairs, settings, keys, now)
    find_stored(run.store, tables.values())
    ways = {
        own: ScoringInputs(
            correspondence_of_maps(pairs.requests[number]), designs.get(dataset, ""), labels.get(dataset, "")
        )
        for (dataset, number), own in settings.items()
    }
    jobs = list(block_jobs(run, tables.values(), {based.key: based for based in spaces}, ways))
    sizes = {own.space: own.size for own in zoo.spaces}
    size_of = {
        based.key: replace(sizes[based.space], n_points=based.n_points, n_features=based.n_features) for based in spaces
    }
    needs = [_needed(job, size_of) for job in jobs]
    troubles: dict[ScoredPairKey, JobFailure] = {}
    run.announce("scores", 0, len(jobs))
    for done, (number, result) in enumerate(run.workers.run(store_block, jobs, needs), start=1):
        job = jobs[number]
        if isinstance(result, JobFailure):
            troubles |= dict.fromkeys(((job.settings, *pair) for pair in job.pairs), result)
        else:
            tables[job.settings].add(run.store.receipt("scores", job.key))
        run.announce("scores", done, len(jobs))
    n_asked, n_tried = sum(int(table.now.sum()) for table in tables.values()), sum(len(job.sides) for job in jobs)
    run.stage_counts.count("scores", n_tried - len(troubles), n_asked - n_tried)
    return ScoredPairs(pairs, settings, tables, troubles)


def _needed(job: BlockJob, size_of: Mapping[str, SpaceSize]) -> int:
    how = pair_work(job.atlas, PairRequest(frozenset(job.settings.measures), job.correspondence))
    return worker_bytes(part_load([size_of[key] for key in job.bases], len(job.sides), how))


@dataclass(frozen=True)
class UnscoredPairs:
    """Directed pairs that have no scores for one reason: how many, and the first of them with its message."""

    dataset: str
    reason: str
    count: int
    source: str
    target: str
    message: str


def unscored_pairs(spaces: tuple[SpaceBasis, ...], scored: ScoredPairs) -> tuple[UnscoredPairs, ...]:
    """Return the pairs without scores, or without a map that was to be fitted, by dataset and reason."""
    if not scored.has_refusals:
        return ()
    found: dict[tuple[str, str], UnscoredPairs] = {}
    for source in spaces:
        for target in spaces:
            if source.space.dataset != target.space.dataset or source.space == target.space:
                continue
            refusal = scored.refusal(source, target) or scored.unmapped(source, target)
            if refusal is None:
                continue
            place = (source.space.dataset, refusal.reason)
            first = UnscoredPairs(*place, 0, source.space.name, target.space.name, refusal.message)
            known = found.get(place, first)
            found[place] = replace(known, count=known.count + 1)
    return tuple(found[place] for place in sorted(found))
