"""Stage scores: functional maps, scores and their nulls for all pairs, a task a block of pairs.

A stored block names its pairs, so any blocks that cover all pairs do: a new model costs the pairs that it is part of.
Every pair is multiplied in shapes that depend on its two spaces only, so its numbers do not depend on its block.
"""

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations, combinations_with_replacement, product
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from lfm_tasks.config import AtlasConfig, NullConfig
from lfm_tasks.errors import REASONS, RESERVATIONS, number_of
from lfm_tasks.measures.registry import MEASURES
from lfm_tasks.runtime.load import SpaceSize, worker_bytes
from lfm_tasks.runtime.run import Run, Scope
from lfm_tasks.spaces import Space
from lfm_tasks.spectral.bases.full_map import MAP_SCORES
from lfm_tasks.stages.bases.stage import SpaceBasis
from lfm_tasks.stages.inventory.correspondence import Correspondence, store_exchangeability, store_labels
from lfm_tasks.stages.inventory.requests import PairRequest
from lfm_tasks.stages.inventory.stage import Zoo
from lfm_tasks.stages.scores.block import BlockJob, ScoreSettings, part_side, reads_activations, tile_side
from lfm_tasks.stages.scores.cost import pair_work, part_load
from lfm_tasks.stages.scores.job import keep_spaces, store_block
from lfm_tasks.stages.scores.pair_index import (
    PairIndex,
    PairScores,
    RequestedPairs,
    ScoringInputs,
    StoredBlock,
    all_settings,
    correspondence_of_maps,
    find_stored,
    pair_indexes,
    pairs_in_scope,
    requested_pairs,
)
from lfm_tasks.stages.scores.pair_runs import runs_of_pairs
from lfm_tasks.stages.scores.point_pair_measures import travel_bytes
from lfm_tasks.stores.units.store import array_digest, digest
from lfm_tasks.workers.pool import JobFailure

# Bases on a side of a block, and groups of them at most: among many spaces sides grow, so that blocks, and their files,
# are 300 at most among 6,000 spaces, and preparing spaces takes less of their time: for 2,000 × 64 as long as 5 pairs.
# Maps between known points take 1 ms a pair, closed forms without chance 20 µs: few and large blocks, else storing them
# takes longer.
# Where maps are grown a pair takes a second: no more in a block, a task that dies would take half an hour with it.
BLOCK_SIDE = 16
_MOST_GROUPS, _MOST_GROUPS_OF_CLOSED_FORMS = 24, 16
# Where measures of matrices are requested beside others: 78 blocks, so that matrices are made 13 times, and not 25.
_GROUPS_OF_BOTH = 12
# Four groups make ten blocks, which is enough for workers to share.
_FEWEST_GROUPS, _LARGEST_SIDE = 4, 256
# Of spaces that are compared by all pairs of points: below the `tile_side` of 2,000 × 64, so that no matrix is made
# twice in a block.
_LARGEST_SIDE_TOGETHER = 304


@dataclass(frozen=True)
class Block:
    """Pairs to score together: ``bases``, in order, and their places among these, lower first."""

    settings: ScoreSettings
    bases: tuple[str, ...]
    sides: Int[np.ndarray, "pairs 2"]


def block_jobs(
    run: Run,
    tables: Iterable[PairIndex],
    bases: Mapping[str, SpaceBasis],
    inputs: Mapping[ScoreSettings, ScoringInputs],
) -> Iterator[BlockJob]:
    """Yield the missing pairs in blocks, one setting (exchangeability and measures) each."""
    for table in tables:
        given, atlas = inputs[table.settings], with_measures(run.catalog.atlas, table.settings.measures)
        for block in blocks(table, given, atlas.null):
            of_block = [bases[key] for key in block.bases]
            n_features = max(basis.n_features for basis in of_block)
            part = part_side(
                max(basis.n_points for basis in of_block),
                max(basis.facts["n_eigenpairs"] for basis in of_block),
                n_features if reads_activations(given.correspondence, table.settings.measures) else 0,
            )
            yield BlockJob(
                run.store, _key(block), table.settings, block.bases, runs_of_pairs(block.sides), atlas,
                {basis.key: basis.activations for basis in of_block},
                given.correspondence, given.exchangeability, given.labels, part,
                tile_side(max(basis.n_points for basis in of_block), n_features),
            )  # fmt: skip


def blocks(table: PairIndex, given: ScoringInputs, null: NullConfig) -> Iterator[Block]:
    """Yield the missing pairs of bases block by block; ``given``: what they are scored with."""
    missing = table.missing
    bases = np.flatnonzero(missing.any(axis=0) | missing.any(axis=1))
    if not len(bases):
        return
    side = block_side(
        len(bases), table.settings, given.correspondence, null,
        is_grouped=bool(given.exchangeability), has_moments=given.has_moments,
    )  # fmt: skip
    n_missing = missing.sum(axis=0) + missing.sum(axis=1) - missing.diagonal()
    ordered = new_first(bases, n_missing[bases])
    groups = [ordered[start : start + side] for start in range(0, len(bases), side)]
    place = np.zeros(len(table.keys), dtype=np.int32)
    for low, high in combinations_with_replacement(groups, 2):
        # One block at a time: arrays of all pairs take gigabytes.
        cells = missing[np.ix_(low, high)]
        if low is not high:
            cells = cells | missing[np.ix_(high, low)].T
        used = np.union1d(low[cells.any(axis=1)], high[cells.any(axis=0)])
        if len(used):
            place[used] = np.arange(len(used))
            rows, columns = np.nonzero(cells)
            sides = np.sort(np.stack([place[low[rows]], place[high[columns]]], axis=1), axis=1)
            sides = sides[np.lexsort(sides.T[::-1])]
            yield Block(table.settings, tuple(table.keys[base] for base in used.tolist()), sides)


def new_first(bases: Int[np.ndarray, " bases"], n_missing: Int[np.ndarray, " bases"]) -> Int[np.ndarray, " bases"]:
    """Return bases in the order of groups: those without scores with most others first, all else as it is.

    Spaces that arrive are then in one group or few, so that each other space is in one block with them or few.
    """
    is_new = n_missing > len(bases) / 2
    return np.concatenate([bases[is_new], bases[~is_new]])


def _key(block: Block) -> str:
    pairs = array_digest(runs_of_pairs(block.sides))
    return digest({"kind": "scores", "settings": block.settings, "bases": block.bases, "pairs": pairs})


def block_side(
    n_bases: int,
    settings: ScoreSettings,
    correspondence: Correspondence,
    null: NullConfig,
    *,
    is_grouped: bool,
    has_moments: bool,
) -> int:
    """Return how many of the bases that have missing pairs stand on a side of a block.

    ``is_grouped``: whether points are in groups or strata; ``has_moments``: of which chance is in closed form where one
    is known.
    """
    if correspondence.uses_zoomout:
        return BLOCK_SIDE
    is_in_sets = is_grouped and not _has_closed_form(settings.measures, has_moments=has_moments)
    is_drawn = null.n_permutations > 0 and (is_in_sets or correspondence.regime in ("anchors", "labels"))
    is_quick = not is_drawn and not reads_activations(correspondence, settings.measures)
    n_groups = _MOST_GROUPS_OF_CLOSED_FORMS if is_quick else _MOST_GROUPS
    measures = [MEASURES[name] for name in settings.measures if name in MEASURES]
    largest = _LARGEST_SIDE
    if measures and not is_drawn and all(measure.compares_point_pairs for measure in measures):
        # Matrices of points are computed again for each block, which takes as long as some hundred of its pairs.
        n_groups, largest = _FEWEST_GROUPS, _LARGEST_SIDE_TOGETHER
    elif not is_drawn and any(measure.matrix is not None for measure in measures):
        n_groups = _GROUPS_OF_BOTH
    n_groups = max(n_groups, -(-n_bases // largest))
    return BLOCK_SIDE * -(-n_bases // (BLOCK_SIDE * n_groups))


def _has_closed_form(measures: Iterable[str], *, has_moments: bool) -> bool:
    """Return whether the chance of all measures is in closed form for points in groups or strata.

    ``has_moments``: whether it is where one is known.
    """
    return has_moments and all(
        MAP_SCORES[name].trace_scale is not None
        if name in MAP_SCORES
        else name in MEASURES and MEASURES[name].matrix is not None
        for name in measures
    )


def with_measures(atlas: AtlasConfig, names: Collection[str]) -> AtlasConfig:
    """Return the settings of the atlas with these measures in place of its own."""
    return atlas.model_copy(update={"measures": tuple(sorted(names))})


# Settings of the scores, lower and higher key of the two bases.
ScoredPairKey = tuple[ScoreSettings, str, str]


@dataclass(frozen=True)
class ScoredCells:
    """Pairs of one space with later ones of a list, by their places in it, and where their scores lie in a table.

    ``blocks``: places among the blocks of the table; ``rows``: rows of these.
    """

    request: PairRequest
    table: PairIndex
    first: int
    others: Int[np.ndarray, " pairs"]
    blocks: Int[np.ndarray, " pairs"]
    rows: Int[np.ndarray, " pairs"]


@dataclass(frozen=True)
class ScoredPairs:
    """Scores of all pairs of spaces: what is requested of them, where it lies, or why it could not be computed.

    ``settings_of``: by dataset and index of a request; they differ between datasets that resample their rows in
    different ways.
    """

    pairs: RequestedPairs
    settings_of: Mapping[tuple[str, int], ScoreSettings]
    tables: Mapping[ScoreSettings, PairIndex]
    failures: Mapping[ScoredPairKey, JobFailure]

    @property
    def n_not_computed(self) -> int:
        """How many pairs of bases are requested and not yet tried."""
        return sum(table.n_unscored for table in self.tables.values()) - len(self.failures)

    @property
    def settings(self) -> list[ScoreSettings]:
        """The settings that there are, in order."""
        return sorted(self.tables)

    @property
    def blocks(self) -> set[str]:
        """The keys of the blocks that scores lie in."""
        return {block.key for table in self.tables.values() for block in table.used}

    def measures(self, first: SpaceBasis, second: SpaceBasis) -> tuple[str, ...]:
        """Return the measures requested of two spaces, in order; none: not requested."""
        request = self.request_of(first, second)
        return () if request is None else tuple(sorted(request.measures))

    def request_of(self, first: SpaceBasis, second: SpaceBasis) -> PairRequest | None:
        """Return the request for two spaces, in any order; None if there is none."""
        index = self.pairs.request_index(first.space, second.space)
        return None if index < 0 else self.pairs.requests[index]

    def place(self, first: SpaceBasis, second: SpaceBasis) -> PairScores | None:
        """Return where the scores of two spaces lie, in any order; None for a pair that is not computed."""
        settings = self._settings(first, second)
        return None if settings is None else self.tables[settings].place(first.key, second.key)

    def with_scores(self, bases: Sequence[SpaceBasis]) -> Iterator[ScoredCells]:
        """Yield the pairs of one dataset's spaces that have scores, space after space: there may be millions."""
        positions = np.array([self.pairs.positions.get(basis.space, -1) for basis in bases], dtype=np.intp)
        keys = [basis.key for basis in bases]
        in_tables = {
            settings: np.array([table.positions.get(key, -1) for key in keys], dtype=np.intp)
            for settings, table in self.tables.items()
        }
        for first in range(len(bases) - 1):
            others = first + 1 + np.flatnonzero((positions[first + 1 :] >= 0) & (positions[first] >= 0))
            low, high = np.minimum(positions[first], positions[others]), np.maximum(positions[first], positions[others])
            requested = self.pairs.request_indices[low, high]
            for index in np.unique(requested[requested >= 0]).tolist():
                settings = self.settings_of[bases[first].space.dataset, index]
                table, of_bases = self.tables[settings], in_tables[settings]
                chosen = others[requested == index]
                # Keys are in order: the lower position has the lower key.
                ends = np.sort(np.stack([np.full(len(chosen), of_bases[first]), of_bases[chosen]]), axis=0)
                blocks, rows = table.block[*ends], table.row[*ends]
                usable = (blocks >= 0) & ~table.are_refused(blocks, rows)
                if usable.any():
                    yield ScoredCells(
                        self.pairs.requests[index], table, first, chosen[usable], blocks[usable], rows[usable]
                    )

    def refusal(self, first: SpaceBasis, second: SpaceBasis) -> JobFailure | None:
        """Return why two spaces that were requested have no scores; None if they have, or are not computed."""
        settings = self._settings(first, second)
        if settings is None:
            return None
        failure = self.failures.get((settings, min(first.key, second.key), max(first.key, second.key)))
        place = self.tables[settings].place(first.key, second.key)
        return failure or (None if place is None else place.refusal)

    def unmapped(self, first: SpaceBasis, second: SpaceBasis) -> JobFailure | None:
        """Return why no map of two spaces could be fitted that was requested; None if there is one."""
        request, place = self.request_of(first, second), self.place(first, second)
        return place.unmapped if request and place and request.measures & MAP_SCORES.keys() else None

    def grown_by(self, first: SpaceBasis, second: SpaceBasis) -> str:
        """Return the digest of what the map of two spaces was grown by; empty: it is not kept with their scores."""
        request, settings = self.request_of(first, second), self._settings(first, second)
        if request is None or settings is None or not request.measures & MAP_SCORES.keys():
            return ""
        is_stored = request.correspondence.uses_zoomout
        return settings.rest if is_stored and self.place(first, second) is not None else ""

    def _settings(self, first: SpaceBasis, second: SpaceBasis) -> ScoreSettings | None:
        index = self.pairs.request_index(first.space, second.space)
        return None if index < 0 else self.settings_of[first.space.dataset, index]


def score_pairs(run: Run, zoo: Zoo, spaces: tuple[SpaceBasis, ...]) -> ScoredPairs:
    """Score all pairs within each dataset that no stored block holds yet."""
    exchangeability = store_exchangeability(run.store, zoo.exchangeability)
    labels = store_labels(run.store, zoo.labels)
    keys = {basis.space: basis.key for basis in spaces}
    pairs = requested_pairs(zoo.parts, keys)
    settings = all_settings(run.catalog.atlas, pairs, exchangeability, labels)
    in_scope = None if run.scope == Scope() else pairs_in_scope(zoo.parts, keys, run.scope)
    tables = pair_indexes(pairs, settings, keys, in_scope)
    find_stored(run.store, tables.values())
    inputs = {
        of_pairs: ScoringInputs(
            correspondence_of_maps(pairs.requests[index]),
            exchangeability.get(dataset, ""),
            labels.get(dataset, ""),
            has_moments=dataset not in zoo.exchangeability or zoo.exchangeability[dataset].has_moments,
        )
        for (dataset, index), of_pairs in settings.items()
    }
    jobs = list(block_jobs(run, tables.values(), {basis.key: basis for basis in spaces}, inputs))
    sizes = {planned.space: planned.size for planned in zoo.spaces}
    size_of = {
        basis.key: replace(sizes[basis.space], n_points=basis.n_points, n_features=basis.n_features) for basis in spaces
    }
    in_closed_form = {key: zoo.exchangeability[dataset].has_moments for dataset, key in exchangeability.items()}
    needs = [_worker_bytes(job, size_of, has_moments=in_closed_form.get(job.exchangeability, True)) for job in jobs]
    failures: dict[ScoredPairKey, JobFailure] = {}
    run.report_progress("scores", 0, len(jobs))
    jobs = _with_kept(run, jobs, {basis.key: basis.n_points for basis in spaces}, max(needs, default=0))
    for done, (index, result) in enumerate(run.workers.run(store_block, jobs, needs), start=1):
        job = jobs[index]
        if isinstance(result, JobFailure):
            failures |= dict.fromkeys(((job.settings, *pair) for pair in job.pairs), result)
        else:
            tables[job.settings].add(run.store.receipt("scores", job.key))
        run.report_progress("scores", done, len(jobs))
    n_requested = sum(int(table.in_scope.sum()) for table in tables.values())
    n_tried = sum(job.n_pairs for job in jobs)
    run.stage_counts.add("scores", n_tried - len(failures), n_requested - n_tried)
    return ScoredPairs(pairs, settings, tables, failures)


# Spaces of a job that computes what is kept of them, and bytes of that in the messages of all blocks together.
_SPACES_TOGETHER, _MANY_JOBS, _MOST_SHARED = 32, 64, 512 << 20
# Blocks from which on it is computed before: of fewer, one worker or two have most of them.
_FEWEST_BLOCKS = 6


def _with_kept(run: Run, jobs: list[BlockJob], n_points: Mapping[str, int], needs: int) -> list[BlockJob]:
    """Return the jobs with what measures of matrices need of each space (bandwidths, sums for chance).

    It takes as long as some hundred pairs, and each worker would compute it of nearly all spaces.
    """
    by_settings: dict[ScoreSettings, list[int]] = {}
    for index, job in enumerate(jobs):
        by_settings.setdefault(job.settings, []).append(index)
    parts: list[tuple[ScoreSettings, BlockJob]] = []
    n_bytes_left = _MOST_SHARED
    for settings, indices in by_settings.items():
        used = [jobs[index] for index in indices]
        if len(used) < _FEWEST_BLOCKS:
            continue
        # The smallest first: of many measures and spaces not all travel.
        n_bytes = {
            name: sum(travel_bytes(name, n_points[key]) for job in used for key in job.bases)
            for name in settings.measures
        }
        shared = []
        for name in sorted((name for name in n_bytes if n_bytes[name]), key=lambda name: (n_bytes[name], name)):
            if n_bytes[name] <= n_bytes_left:
                n_bytes_left -= n_bytes[name]
                shared.append(name)
        if not shared:
            continue
        of_shared = settings._replace(measures=tuple(sorted(shared)))
        keys = sorted({key for job in used for key in job.bases})
        activations = {key: job.activations[key] for job in used for key in job.bases}
        # Enough jobs for many workers, and few enough that a task takes longer than what handing it out takes.
        step = max(1, min(_SPACES_TOGETHER, len(keys) // _MANY_JOBS))
        for start in range(0, len(keys), step):
            some = tuple(keys[start : start + step])
            of_some = {key: activations[key] for key in some}
            no_pairs = runs_of_pairs(np.empty((0, 2), int))
            part = replace(used[0], settings=of_shared, bases=some, runs=no_pairs, activations=of_some)
            parts.append((settings, part))
    found: dict[ScoreSettings, dict[str, dict[Hashable, Any]]] = {}
    for index, result in run.workers.run(keep_spaces, [part for _, part in parts], [needs] * len(parts)):
        # A space whose job failed is computed, or refused, with its pairs.
        if not isinstance(result, JobFailure):
            found.setdefault(parts[index][0], {}).update(result)
    with_kept = []
    for job in jobs:
        known = found.get(job.settings, {})
        kept = {address: value for key in job.bases for address, value in known.get(key, {}).items()}
        with_kept.append(replace(job, kept=kept))
    return with_kept


def _worker_bytes(job: BlockJob, size_of: Mapping[str, SpaceSize], *, has_moments: bool) -> int:
    work = pair_work(
        job.atlas,
        PairRequest(frozenset(job.settings.measures), job.correspondence),
        is_grouped=bool(job.exchangeability),
        has_moments=has_moments,
    )
    return worker_bytes(part_load([size_of[key] for key in job.bases], job.n_pairs, work))


@dataclass(frozen=True)
class UnscoredPairs:
    """Directed pairs that lack scores for one reason: how many, and the first of them.

    Parameters
    ----------
    measures
        The measures that they have no value of; empty where they have no scores at all, or no map.
    has_none
        Whether they have no score by any measure.
    at_fault
        The first spaces that are the reason, where it is one of the two.
    message
        That of the first pair, or of the first space at fault.
    """

    dataset: str
    reason: str
    measures: tuple[str, ...]
    has_none: bool
    count: int
    source: str
    target: str
    message: str
    at_fault: tuple[str, ...] = ()

    def line(self) -> str:
        """Return a line for people: the missing score, of how many pairs and which first, why, and the reason code."""
        have = f"{number_of(self.count, 'directed pair')} {'has' if self.count == 1 else 'have'} no"
        first = f"{self.source} and {self.target} first"
        return f"{have} {', '.join(self.measures) or 'score'}, {first}: {self.why} [{self.reason}]"

    def as_json(self) -> dict[str, Any]:
        """Return all facts, and the message with the spaces at fault, as summaries have them."""
        return asdict(self) | {"why": self.why}

    @property
    def why(self) -> str:
        """The message, with the spaces at fault."""
        if not self.at_fault:
            return self.message
        first, *others = self.at_fault
        return f"{first}: {self.message.rstrip('.')}" + (f"; also {', '.join(others)}" if others else "")


# Spaces at fault that are named.
_MOST_NAMED = 5


def unscored_pairs(spaces: tuple[SpaceBasis, ...], scored: ScoredPairs) -> tuple[UnscoredPairs, ...]:
    """Return the pairs without scores, without a map that was to be fitted, or without the value of a measure."""
    unscored = _Unscored(spaces, scored)
    for (dataset, index), settings in sorted(scored.settings_of.items()):
        measures, table = scored.pairs.requests[index].measures, scored.tables[settings]
        for place, block in enumerate(table.blocks):
            if not (block.refusals or block.unmapped or block.codes):
                continue
            pairs, rows = table.pairs_in(place)
            told = block.refusals.keys() | block.unmapped.keys() | block.codes.keys()
            for is_told in np.flatnonzero(np.isin(rows, list(told))).tolist():
                first, second = (table.keys[end] for end in pairs[is_told].tolist())
                for missing in _missing(block, int(rows[is_told]), measures):
                    unscored.add(dataset, index, (first, second), missing)
        for (of_failure, first, second), failure in scored.failures.items():
            if of_failure == settings:
                missing = _Missing(failure.reason, (), {"": failure.message}, has_none=True)
                unscored.add(dataset, index, (first, second), missing)
    return unscored.found


class _Missing(NamedTuple):
    """Why one pair has no scores by some measures (none: by all), and the messages of the spaces at fault, by key."""

    reason: str
    measures: tuple[str, ...]
    messages: Mapping[str, str]
    has_none: bool


def _missing(block: StoredBlock, row: int, measures: Collection[str]) -> list[_Missing]:
    """Return the missing scores of one pair of a block by these measures."""
    if row in block.refusals:
        return [_Missing(block.refusals[row].reason, (), {"": block.refusals[row].message}, has_none=True)]
    is_unmapped = row in block.unmapped and bool(measures & MAP_SCORES.keys())
    of_maps = MAP_SCORES.keys() if is_unmapped else set[str]()
    by_reason: dict[str, list[str]] = {}
    for measure, reason in sorted(block.codes.get(row, ())):
        if measure in measures and reason not in RESERVATIONS and measure not in of_maps:
            by_reason.setdefault(reason, []).append(measure)
    missing = []
    if is_unmapped:
        missing.append(_Missing(block.unmapped[row].reason, (), {"": block.unmapped[row].message}, has_none=True))
    # The first reason of a pair without any score counts it, so that it is counted once.
    is_empty = sum(map(len, by_reason.values())) == len(measures)
    for reason, names in sorted(by_reason.items()):
        if is_empty:
            messages = block.causes.get((names[0], reason), {})
            missing.append(_Missing(reason, tuple(names), messages, has_none=not missing))
        else:
            missing += [
                _Missing(reason, (name,), block.causes.get((name, reason), {}), has_none=False) for name in names
            ]
    return missing


# Dataset, reason, measures, and whether there are no others.
_Place = tuple[str, str, tuple[str, ...], bool]


class _Unscored:
    """Pairs of spaces that lack something, gathered by dataset, reason and measures."""

    def __init__(self, spaces: Sequence[SpaceBasis], scored: ScoredPairs) -> None:
        self._pairs = scored.pairs
        self._of_key: dict[tuple[str, str], list[Space]] = {}
        for basis in spaces:
            self._of_key.setdefault((basis.space.dataset, basis.key), []).append(basis.space)
        self._key_of = {basis.space: basis.key for basis in spaces}
        self._counts: dict[_Place, int] = {}
        self._first: dict[_Place, tuple[Space, Space]] = {}
        self._messages: dict[_Place, str] = {}
        self._at_fault: dict[_Place, dict[Space, str]] = {}

    def add(self, dataset: str, index: int, keys: tuple[str, str], missing: _Missing) -> None:
        """Note the missing scores of all pairs of spaces that have these bases and this request."""
        sides = [self._of_key.get((dataset, key), []) for key in keys]
        chosen = product(*sides) if keys[0] != keys[1] else combinations(sides[0], 2)
        pairs = [(min(pair), max(pair)) for pair in chosen if self._pairs.request_index(*pair) == index]
        if not pairs:
            return
        place = dataset, missing.reason, missing.measures, missing.has_none
        self._counts[place] = self._counts.get(place, 0) + 2 * len(pairs)
        self._first[place] = min([*pairs, *([self._first[place]] if place in self._first else [])])
        if "" in missing.messages:
            self._messages.setdefault(place, missing.messages[""])
        for space in {space for pair in pairs for space in pair}:
            if message := missing.messages.get(self._key_of[space]):
                self._at_fault.setdefault(place, {})[space] = message

    @property
    def found(self) -> tuple[UnscoredPairs, ...]:
        """All pairs that lack scores, in order."""
        found = []
        for place in sorted(self._counts):
            dataset, reason, measures, has_none = place
            at_fault = self._at_fault.get(place, {})
            named = sorted(at_fault)[:_MOST_NAMED]
            message = at_fault[named[0]] if named else self._messages.get(place, REASONS[reason])
            source, target = (space.name for space in self._first[place])
            names, count = tuple(space.name for space in named), self._counts[place]
            found.append(UnscoredPairs(dataset, reason, measures, has_none, count, source, target, message, names))
        return tuple(found)
