"""Stage collection: one basis for all spaces of a dataset, and how far the cycles of their maps close."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import combinations

import numpy as np
import xarray as xr
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lfm_tasks.runtime.run import Failure, Run
from lfm_tasks.spectral.bases.full_map import MAP_SCORES
from lfm_tasks.stages.bases.stage import SpaceBasis
from lfm_tasks.stages.collection.job import CollectionJob, MapPlace, store_collection
from lfm_tasks.stages.scores.stage import ScoredPairs
from lfm_tasks.stores.units.store import digest
from lfm_tasks.workers.pool import JobFailure

_RESIDUAL = "lower decile, over third spaces, of |C_ki C_jk C_ij - I|^2/(2K): 0 consistent, 1 unrelated"
_DISTANCE = "RMS distance of the points in the basis that all spaces share: 0 alike, 1.41 nothing in common"


@dataclass(frozen=True)
class FittedCollection:
    """The unit of a dataset's collection, and which spaces its rows are."""

    dataset: str
    key: str
    spaces: tuple[str, ...]


@dataclass(frozen=True)
class Collections:
    """The section of the atlas that holds the collections."""

    fitted: tuple[FittedCollection, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """The units."""
        return tuple(own.key for own in self.fitted)

    @property
    def made_of(self) -> dict[str, tuple[str, ...]]:
        """The units."""
        return {"collections": self.keys}

    def groups(self, run: Run) -> Mapping[str, xr.Dataset]:
        """Return residuals and distances for the pairs, and the coefficients of each space beside them."""
        groups: dict[str, xr.Dataset] = {}
        pairs = []
        for own in self.fitted:
            with run.store.open("collections", own.key) as unit:
                found = {name: unit.read(name) for name in ("coefficients", "cycle_residual", "shared_distance")}
            labels = {"dataset": [own.dataset], "source": list(own.spaces), "target": list(own.spaces)}
            variables = {
                name: (("dataset", "source", "target"), found[name][None], {"long_name": meaning})
                for name, meaning in (("cycle_residual", _RESIDUAL), ("shared_distance", _DISTANCE))
            }
            pairs.append(xr.Dataset(variables, labels))
            meaning = "Y: eigenvectors times Y are the same functions in every space, up to what the space lacks"
            groups[f"collection/{own.dataset}"] = xr.Dataset(
                {"coefficients": (("space", "eigenpair", "mode"), found["coefficients"], {"long_name": meaning})},
                {"space": np.array(own.spaces, dtype=object)},
                {"key": own.key, "core": int(run.store.receipt("collections", own.key).facts["core"])},
            )
        if pairs:
            groups[""] = xr.merge(pairs, join="outer", compat="no_conflicts")
        return groups


def fit_collections(run: Run, spaces: tuple[SpaceBasis, ...], scored: ScoredPairs) -> Collections:
    """Fit what is missing, a task for each dataset of three spaces or more whose maps hang together."""
    config = run.catalog.atlas.collection
    if config is None or scored.n_not_computed:
        return Collections(())
    planned = []
    for dataset in sorted({based.space.dataset for based in spaces}):
        own = sorted((based for based in spaces if based.space.dataset == dataset), key=lambda based: based.key)
        if found := collection_job(run, own, scored):
            planned.append((dataset, *found))
    jobs = [job for _, job, _ in planned if run.store.find("collections", job.key) is None]
    troubles: dict[str, JobFailure] = {}
    run.announce("collection", 0, len(jobs))
    for done, (number, result) in enumerate(run.workers.run(store_collection, jobs), start=1):
        if isinstance(result, JobFailure):
            troubles[jobs[number].key] = result
        run.announce("collection", done, len(jobs))
    run.stage_counts.count("collection", len(jobs) - len(troubles), len(planned) - len(jobs))
    fitted = tuple(
        FittedCollection(dataset, job.key, names) for dataset, job, names in planned if job.key not in troubles
    )
    run.failures.extend(
        Failure(dataset, "collection", "", "collection", troubles[job.key].reason, troubles[job.key].message)
        for dataset, job, _ in planned
        if job.key in troubles
    )
    return Collections(fitted)


def collection_job(
    run: Run, spaces: list[SpaceBasis], scored: ScoredPairs
) -> tuple[CollectionJob, tuple[str, ...]] | None:
    """Return the largest part of a dataset's spaces that maps lead through, as a job, and their names.

    The core are those with the smallest keys: which they are depends on nothing but the spaces.
    """
    config = run.catalog.atlas.collection
    if config is None:
        return None
    maps = _maps(spaces, scored)
    members = _largest_part(len(spaces), maps)
    if len(members) < 3:
        return None
    members = _core_first(members, maps, config.max_spaces)
    place = {member: position for position, member in enumerate(members)}
    inside = {(place[a], place[b]): found for (a, b), found in maps.items() if a in place}
    keys = tuple(spaces[member].key for member in members)
    grown = {pair: found for pair, found in inside.items() if found is not None}
    known = frozenset((min(pair), max(pair)) for pair, found in inside.items() if found is None)
    ingredients = {
        "kind": "collections",
        "bases": keys,
        "known": sorted(known),
        # Not where they lie: that tells in which parts the zoo was computed, and nothing of the maps.
        "grown": sorted([*pair, found.grown_by] for pair, found in grown.items()),
        "config": config.model_dump(),
        "min_overlap": run.catalog.atlas.min_overlap,
    }
    core = min(len(members), config.max_spaces)
    job = CollectionJob(run.store, digest(ingredients), keys, core, known, grown, config, run.catalog.atlas.min_overlap)
    return job, tuple(spaces[member].space.name for member in members)


def _maps(spaces: list[SpaceBasis], scored: ScoredPairs) -> dict[tuple[int, int], MapPlace | None]:
    """Return the pairs that have a map: where it lies if it was grown, None if the bases give it."""
    found: dict[tuple[int, int], MapPlace | None] = {}
    for first, second in combinations(range(len(spaces)), 2):
        both = spaces[first], spaces[second]
        asked, place = scored.request_of(*both), scored.place(*both)
        if asked is None or place is None or place.refusal or not asked.measures & MAP_SCORES.keys():
            continue
        if asked.correspondence.regime == "full":
            found[first, second] = None
        elif (grown_by := scored.grown_by(*both)) and not any(name in MAP_SCORES for name, _ in place.codes):
            for pair in ((first, second), (second, first)):
                direction = int(spaces[pair[0]].key > spaces[pair[1]].key)
                found[pair] = MapPlace(grown_by, place.block, place.row, direction)
    return found


def _largest_part(n_spaces: int, maps: Collection[tuple[int, int]]) -> list[int]:
    """Return the spaces of the largest part that maps lead through, the first of those that are as large."""
    ends = np.array(sorted(maps)).reshape(-1, 2)
    graph = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(n_spaces, n_spaces))
    _, part = connected_components(graph, directed=False)
    return np.flatnonzero(part == np.bincount(part).argmax()).tolist() if n_spaces else []


def _core_first(members: list[int], maps: Collection[tuple[int, int]], size: int) -> list[int]:
    """Return the members, first so many that hang together: from the first on always the first that can be reached."""
    if len(members) <= size:
        return members
    near: dict[int, set[int]] = {member: set() for member in members}
    for a, b in maps:
        if a in near:
            near[a].add(b)
            near[b].add(a)
    core: list[int] = []
    reached, queue = {members[0]}, [members[0]]
    while len(core) < size:
        core.append(heappop(queue))
        for member in near[core[-1]] - reached:
            reached.add(member)
            heappush(queue, member)
    return [*sorted(core), *sorted(set(members) - set(core))]
