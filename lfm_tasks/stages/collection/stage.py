"""Stage collection: one basis for all spaces of a dataset, and how far the cycles of their maps close, a job each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from heapq import heappop, heappush

import numpy as np
import xarray as xr
from jaxtyping import Bool
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from lfm_tasks.runtime.run import Failure, Run
from lfm_tasks.spectral.bases.full_map import MAP_SCORES
from lfm_tasks.stages.bases.stage import SpaceBasis
from lfm_tasks.stages.collection.job import (
    CollectionJob,
    MapPlace,
    cycles_job,
    cycles_parts,
    store_collection,
    store_cycles,
)
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
    # By content: keys change with the convention and all settings, names with the catalog.
    in_order = sorted(spaces, key=lambda basis: (basis.content, basis.key))
    for dataset in sorted({basis.space.dataset for basis in spaces}):
        bases = [basis for basis in in_order if basis.space.dataset == dataset]
        if job_and_names := collection_job(run, bases, scored):
            planned.append((dataset, *job_and_names))
    jobs = [job for _, job, _ in planned if run.store.find("collections", job.key) is None]
    failures = _close_cycles(run, jobs)
    whole = [replace(job, cycles=cycles_parts(job)) for job in jobs if job.key not in failures]
    for job, result in run.results("collection", store_collection, whole):
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


def _close_cycles(run: Run, jobs: Sequence[CollectionJob]) -> dict[str, JobFailure]:
    """Compute the cycle residuals of large collections part by part; return the failures by collection."""
    missing = [
        (job.key, cycles_job(job, part))
        for job in jobs
        for part in cycles_parts(job)
        if run.store.find("cycles", part.key) is None
    ]
    collection_of = {part.key: key for key, part in missing}
    results = run.results("collection", store_cycles, [part for _, part in missing]) if missing else ()
    return {collection_of[part.key]: result for part, result in results if isinstance(result, JobFailure)}


def collection_job(
    run: Run, bases: list[SpaceBasis], scored: ScoredPairs
) -> tuple[CollectionJob, tuple[str, ...]] | None:
    """Return a job for the largest set of a dataset's spaces that maps connect, and their names; None below three.

    The core is chosen by the order of ``bases``, that of their contents: it depends on nothing but the spaces.
    """
    config = run.catalog.atlas.collection
    if config is None:
        return None
    full, grown = _maps(bases, scored)
    known = full | full.T
    for a, b in grown:
        known[a, b] = known[b, a] = True
    members = _largest_component(known)
    if len(members) < 3:
        return None
    members = _core_first(members, known, config.max_spaces)
    # As many of all: spaces of few points have fewer.
    n_eigenpairs = min(config.n_eigenpairs, *(int(bases[member].facts["n_eigenpairs"]) for member in members))
    config = config.model_copy(update={"n_eigenpairs": n_eigenpairs, "n_modes": min(config.n_modes, n_eigenpairs)})
    position = {member: index for index, member in enumerate(members)}
    keys = tuple(bases[member].key for member in members)
    refined = {(position[a], position[b]): place for (a, b), place in grown.items() if a in position}
    full = np.triu((full | full.T)[np.ix_(members, members)])
    ingredients = {
        "kind": "collections",
        "bases": keys,
        "thirds": "first by content",
        "known": blake2b(np.packbits(full).tobytes(), digest_size=16).hexdigest(),
        # Not where they lie: that depends on the order in which the zoo was computed, and says nothing of the maps.
        "grown": sorted([*pair, place.refined_by] for pair, place in refined.items()),
        "config": config.model_dump(),
        "min_overlap": run.catalog.atlas.min_overlap,
    }
    n_core = min(len(members), config.max_spaces)
    min_overlap = run.catalog.atlas.min_overlap
    job = CollectionJob(run.store, digest(ingredients), keys, n_core, full, refined, config, min_overlap)
    return job, tuple(bases[member].space.name for member in members)


def _maps(
    bases: list[SpaceBasis], scored: ScoredPairs
) -> tuple[Bool[np.ndarray, "bases bases"], dict[tuple[int, int], MapPlace]]:
    """Return the pairs whose map the bases determine, the lower place as the row; and where refined maps lie."""
    full, grown = np.zeros((len(bases), len(bases)), dtype=bool), dict[tuple[int, int], MapPlace]()
    for cells in scored.with_scores(bases):
        if not cells.request.measures & MAP_SCORES.keys():
            continue
        if cells.request.correspondence.regime == "full":
            full[cells.first, cells.others] = True
            continue
        for other in cells.others.tolist():
            both = bases[cells.first], bases[other]
            place, refined_by = scored.place(*both), scored.grown_by(*both)
            if place is None or not refined_by or any(name in MAP_SCORES for name, _ in place.codes):
                continue
            for pair in ((cells.first, other), (other, cells.first)):
                direction = int(bases[pair[0]].key > bases[pair[1]].key)
                grown[pair] = MapPlace(refined_by, place.block, place.row, direction)
    return full, grown


def _largest_component(known: Bool[np.ndarray, "spaces spaces"]) -> list[int]:
    """Return the spaces of the largest component that maps connect; of several as large, the first."""
    if not len(known):
        return []
    _, component = connected_components(csr_array(known), directed=False)
    return np.flatnonzero(component == np.bincount(component).argmax()).tolist()


def _core_first(members: list[int], known: Bool[np.ndarray, "spaces spaces"], n_core: int) -> list[int]:
    """Return the members, a connected core of ``n_core`` first: the first member, then always the first neighbor.

    ``known``: which spaces a map connects, in both directions.
    """
    if len(members) <= n_core:
        return members
    core: list[int] = []
    reached, queue = {members[0]}, [members[0]]
    while len(core) < n_core:
        core.append(heappop(queue))
        for member in np.flatnonzero(known[core[-1]]).tolist():
            if member not in reached:
                reached.add(member)
                heappush(queue, member)
    return [*sorted(core), *sorted(set(members) - set(core))]
