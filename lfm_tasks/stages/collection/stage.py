"""Stage collection: one basis for all spaces of a dataset, and how far the cycles of their maps close, a job each."""

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
_COEFFICIENTS = "Y: eigenvectors times Y are the same functions in every space, up to what the space lacks"


@dataclass(frozen=True)
class FittedCollection:
    """The unit of a dataset's collection, and the names of the spaces in its rows."""

    dataset: str
    key: str
    spaces: tuple[str, ...]


@dataclass(frozen=True)
class Collections:
    """The section of the atlas that holds the collections."""

    fitted: tuple[FittedCollection, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of its units."""
        return tuple(collection.key for collection in self.fitted)

    @property
    def unit_keys(self) -> dict[str, tuple[str, ...]]:
        """The keys of its units by kind."""
        return {"collections": self.keys}

    def groups(self, run: Run) -> Mapping[str, xr.Dataset]:
        """Return residuals and distances for the pairs, and the coefficients of each space beside them."""
        groups: dict[str, xr.Dataset] = {}
        pairs = []
        for collection in self.fitted:
            with run.store.open("collections", collection.key) as unit:
                stored = {name: unit.read(name) for name in ("coefficients", "cycle_residual", "shared_distance")}
            names = list(collection.spaces)
            variables = {
                name: (("dataset", "source", "target"), stored[name][None], {"long_name": meaning})
                for name, meaning in (("cycle_residual", _RESIDUAL), ("shared_distance", _DISTANCE))
            }
            pairs.append(xr.Dataset(variables, {"dataset": [collection.dataset], "source": names, "target": names}))
            groups[f"collection/{collection.dataset}"] = xr.Dataset(
                {
                    "coefficients": (
                        ("space", "eigenpair", "mode"),
                        stored["coefficients"],
                        {"long_name": _COEFFICIENTS},
                    )
                },
                {"space": np.array(names, dtype=object)},
                {
                    "key": collection.key,
                    "core": int(run.store.receipt("collections", collection.key).facts["core"]),
                },
            )
        if pairs:
            groups[""] = xr.merge(pairs, join="outer", compat="no_conflicts")
        return groups


def fit_collections(run: Run, spaces: tuple[SpaceBasis, ...], scored: ScoredPairs) -> Collections:
    """Fit what is missing, for each dataset with three or more spaces that maps connect."""
    config = run.catalog.atlas.collection
    if config is None or scored.n_not_computed:
        return Collections(())
    planned = []
    for dataset in sorted({basis.space.dataset for basis in spaces}):
        bases = sorted((basis for basis in spaces if basis.space.dataset == dataset), key=lambda basis: basis.key)
        if job_and_names := collection_job(run, bases, scored):
            planned.append((dataset, *job_and_names))
    jobs = [job for _, job, _ in planned if run.store.find("collections", job.key) is None]
    failures: dict[str, JobFailure] = {}
    for job, result in run.results("collection", store_collection, jobs):
        if isinstance(result, JobFailure):
            failures[job.key] = result
    run.stage_counts.add("collection", len(jobs) - len(failures), len(planned) - len(jobs))
    run.add_failures(
        Failure(dataset, "collection", "", "collection", failures[job.key].reason, failures[job.key].message)
        for dataset, job, _ in planned
        if job.key in failures
    )
    return Collections(
        tuple(FittedCollection(dataset, job.key, names) for dataset, job, names in planned if job.key not in failures)
    )


def collection_job(
    run: Run, bases: list[SpaceBasis], scored: ScoredPairs
) -> tuple[CollectionJob, tuple[str, ...]] | None:
    """Return a job for the largest set of a dataset's spaces that maps connect, and their names; None below three.

    The core is chosen by the keys of the bases: it depends on nothing but the spaces.
    """
    config = run.catalog.atlas.collection
    if config is None:
        return None
    maps = _maps(bases, scored)
    members = _largest_component(len(bases), maps)
    if len(members) < 3:
        return None
    members = _core_first(members, maps, config.max_spaces)
    # As many of all: spaces of few points have fewer.
    n_eigenpairs = min(config.n_eigenpairs, *(int(bases[member].facts["n_eigenpairs"]) for member in members))
    config = config.model_copy(update={"n_eigenpairs": n_eigenpairs, "n_modes": min(config.n_modes, n_eigenpairs)})
    position = {member: index for index, member in enumerate(members)}
    inside = {(position[a], position[b]): place for (a, b), place in maps.items() if a in position}
    keys = tuple(bases[member].key for member in members)
    refined = {pair: place for pair, place in inside.items() if place is not None}
    full = frozenset((min(pair), max(pair)) for pair, place in inside.items() if place is None)
    ingredients = {
        "kind": "collections",
        "bases": keys,
        "known": sorted(full),
        # Not where they lie: that depends on the order in which the zoo was computed, and says nothing of the maps.
        "grown": sorted([*pair, place.refined_by] for pair, place in refined.items()),
        "config": config.model_dump(),
        "min_overlap": run.catalog.atlas.min_overlap,
    }
    n_core = min(len(members), config.max_spaces)
    min_overlap = run.catalog.atlas.min_overlap
    job = CollectionJob(run.store, digest(ingredients), keys, n_core, full, refined, config, min_overlap)
    return job, tuple(bases[member].space.name for member in members)


def _maps(bases: list[SpaceBasis], scored: ScoredPairs) -> dict[tuple[int, int], MapPlace | None]:
    """Return the pairs that have a map: where it lies if it was refined, None if the bases determine it."""
    maps: dict[tuple[int, int], MapPlace | None] = {}
    for first, second in combinations(range(len(bases)), 2):
        both = bases[first], bases[second]
        request, place = scored.request_of(*both), scored.place(*both)
        if request is None or place is None or place.refusal or not request.measures & MAP_SCORES.keys():
            continue
        if request.correspondence.regime == "full":
            maps[first, second] = None
        elif (refined_by := scored.grown_by(*both)) and not any(name in MAP_SCORES for name, _ in place.codes):
            for pair in ((first, second), (second, first)):
                direction = int(bases[pair[0]].key > bases[pair[1]].key)
                maps[pair] = MapPlace(refined_by, place.block, place.row, direction)
    return maps


def _largest_component(n_spaces: int, maps: Collection[tuple[int, int]]) -> list[int]:
    """Return the spaces of the largest component that maps connect; of several as large, the first."""
    ends = np.array(sorted(maps)).reshape(-1, 2)
    graph = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(n_spaces, n_spaces))
    _, component = connected_components(graph, directed=False)
    return np.flatnonzero(component == np.bincount(component).argmax()).tolist() if n_spaces else []


def _core_first(members: list[int], maps: Collection[tuple[int, int]], n_core: int) -> list[int]:
    """Return the members, a connected core of ``n_core`` first: the first member, then always the first neighbor."""
    if len(members) <= n_core:
        return members
    neighbors: dict[int, set[int]] = {member: set() for member in members}
    for a, b in maps:
        if a in neighbors:
            neighbors[a].add(b)
            neighbors[b].add(a)
    core: list[int] = []
    reached, queue = {members[0]}, [members[0]]
    while len(core) < n_core:
        core.append(heappop(queue))
        for member in neighbors[core[-1]] - reached:
            reached.add(member)
            heappush(queue, member)
    return [*sorted(core), *sorted(set(members) - set(core))]
