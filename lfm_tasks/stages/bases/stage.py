"""Stage bases: for every space a neighbor graph and the low eigenvectors of its Laplacian, a job for each basis."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

from lfm_tasks.config import AtlasConfig
from lfm_tasks.runtime.load import SpaceSize, worker_bytes
from lfm_tasks.runtime.run import Failure, Run
from lfm_tasks.spaces import Space
from lfm_tasks.spectral.bases.automatic import BasisNumbers
from lfm_tasks.spectral.bases.full_map import MAP_SCORES
from lfm_tasks.stages.activations.stage import RecordedSpace
from lfm_tasks.stages.bases.cost import basis_load, halves_load
from lfm_tasks.stages.bases.job import BasisJob, basis_method, halves_key, store_basis
from lfm_tasks.stages.inventory.correspondence import store_exchangeability
from lfm_tasks.stages.inventory.requests import PairSelection, spaces_now
from lfm_tasks.stages.inventory.stage import Zoo
from lfm_tasks.stores.units.store import UnitStore, digest
from lfm_tasks.workers.pool import JobFailure


@dataclass(frozen=True)
class SpaceBasis:
    """A space whose basis lies in the store; ``halves``: the key of the bases of halves of its points, if any."""

    space: Space
    key: str
    depth: float
    content: str
    ids: str
    n_points: int
    n_features: int
    facts: dict[str, Any]
    activations: str
    halves: str | None = None


def build_bases(run: Run, zoo: Zoo, recorded: tuple[RecordedSpace, ...]) -> tuple[SpaceBasis, ...]:
    """Compute the bases that are missing; spaces of the same content share one."""
    atlas = run.catalog.atlas
    planned = [(space, basis_job(run.store, atlas, space, atlas.numbers(space.n_points))) for space in recorded]
    in_scope = spaces_now(zoo.all_parts, run.scope)
    wanted = {job.key for space, job in planned if space.space in in_scope}
    exchangeability = store_exchangeability(run.store, zoo.exchangeability)
    with_halves = spaces_with_halves(zoo.parts, atlas)
    groups = {space.space: exchangeability.get(space.space.dataset, "") for space in recorded}
    halves_of: dict[str, set[str]] = {}
    for space, job in planned:
        if space.space in with_halves & in_scope:
            halves_of.setdefault(job.key, set()).add(groups[space.space])
    absent: dict[str, BasisJob] = {}
    for _, job in planned:
        if job.key not in absent and (incomplete := _incomplete(job, sorted(halves_of.get(job.key, ())))) is not None:
            absent[job.key] = incomplete
    missing = [job for key, job in absent.items() if key in wanted]
    left_out = {key for key, job in absent.items() if job.is_missing} - wanted
    sizes = {planned_space.space: planned_space.size for planned_space in zoo.spaces}
    needs = {job.key: _needed_bytes(sizes[space.space], space, job) for space, job in planned}
    failures = _compute(run, missing, [needs[job.key] for job in missing])
    new = {job.key for job in missing if job.is_missing}
    n_reused = len({job.key for _, job in planned} - left_out) - len(new)
    run.stage_counts.add("bases", len(new - failures.keys()), n_reused)
    run.add_failures(
        Failure.of_space(space.space, "bases", failures[job.key]) for space, job in planned if job.key in failures
    )
    return tuple(
        _space_basis(
            run.store,
            space,
            job.key,
            halves_key(job.key, atlas.intervals, groups[space.space]) if space.space in with_halves else None,
        )
        for space, job in planned
        if job.key not in left_out and job.key not in failures
    )


def spaces_with_halves(parts: Iterable[PairSelection], atlas: AtlasConfig) -> set[Space]:
    """Return the spaces whose scores need bases of halves of their points: of maps between points known by ids."""
    if not atlas.intervals.n_splits:
        return set()
    by_ids = (part for part in parts if part.correspondence.regime == "full" and MAP_SCORES.keys() & set(part.measures))
    return {space for part in by_ids for space in part.spaces()}


def _incomplete(job: BasisJob, exchangeabilities: Sequence[str]) -> BasisJob | None:
    """Return the job of what is missing of a basis and of those of its halves; None: nothing."""
    is_missing = job.store.find("bases", job.key) is None
    absent = [
        one
        for one in exchangeabilities
        if (key := halves_key(job.key, job.intervals, one)) is not None and job.store.find("halves", key) is None
    ]
    return replace(job, is_missing=is_missing, exchangeabilities=tuple(absent)) if is_missing or absent else None


def basis_job(store: UnitStore, atlas: AtlasConfig, recorded: RecordedSpace, numbers: BasisNumbers) -> BasisJob:
    """Return the job that computes a space's basis; its key digests everything that can change the result.

    ``numbers``: of neighbors and eigenpairs, by the points of the space.
    """
    method = basis_method(atlas, numbers, recorded.n_points, recorded.n_features)
    graph = atlas.graph.model_dump(exclude={"landmarks"})
    if atlas.graph.metric == "euclidean":  # which no center changes
        del graph["center"]
    ingredients: dict[str, Any] = {
        "kind": "bases",
        "content": recorded.content,
        "graph": graph | {"method": method.search, "n_neighbors": method.n_neighbors},
        "n_eigenpairs": method.n_eigenpairs,
    }
    if method.n_landmarks is not None:
        ingredients["landmarks"] = [method.n_landmarks, method.seed]
    if method.search == "pynndescent":
        ingredients["versions"] = {name: version(name) for name in ("pynndescent", "numba")}
    return BasisJob(store, recorded.key, digest(ingredients), method, atlas.intervals)


def _needed_bytes(size: SpaceSize, recorded: RecordedSpace, job: BasisJob) -> int:
    recorded_size = replace(size, n_points=recorded.n_points, n_features=recorded.n_features)
    loads = [basis_load(recorded_size, job.method), halves_load(recorded_size, job.method)]
    return max(worker_bytes(load) for load in loads[: 1 if not job.intervals.n_splits else 2])


def _compute(run: Run, jobs: Sequence[BasisJob], needs: Sequence[int]) -> dict[str, JobFailure]:
    """Compute bases; return the failures by key."""
    failures: dict[str, JobFailure] = {}
    for job, result in run.results("bases", store_basis, jobs, needs):
        if isinstance(result, JobFailure):
            failures[job.key] = result
    return failures


def _space_basis(store: UnitStore, recorded: RecordedSpace, key: str, halves: str | None) -> SpaceBasis:
    return SpaceBasis(
        recorded.space,
        key,
        recorded.depth,
        recorded.content,
        recorded.ids,
        recorded.n_points,
        recorded.n_features,
        dict(store.receipt("bases", key).facts),
        recorded.key,
        halves,
    )


def not_computed(run: Run, zoo: Zoo, spaces: tuple[SpaceBasis, ...]) -> tuple[Space, ...]:
    """Return the spaces without a basis that have not failed: they are outside the scope of this run and all before."""
    computed = {basis.space for basis in spaces}
    failed = {(failure.dataset, failure.model, failure.layer) for failure in run.failures}
    absent = [planned.space for planned in zoo.spaces if planned.space not in computed]
    return tuple(space for space in absent if (space.dataset, space.model, space.layer) not in failed)
