"""Stage bases: for every space a neighbor graph and the low eigenvectors of its Laplacian, a job for each basis."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

from lfm_tasks.config import AtlasConfig
from lfm_tasks.runtime.load import SpaceSize, worker_bytes
from lfm_tasks.runtime.run import Failure, Run
from lfm_tasks.spaces import Space
from lfm_tasks.spectral.bases.automatic import BasisNumbers
from lfm_tasks.stages.activations.stage import RecordedSpace
from lfm_tasks.stages.bases.cost import basis_load
from lfm_tasks.stages.bases.job import BasisJob, BasisMethod, basis_method, store_basis
from lfm_tasks.stages.inventory.requests import spaces_now
from lfm_tasks.stages.inventory.stage import Zoo
from lfm_tasks.stores.units.store import UnitStore, digest
from lfm_tasks.workers.pool import JobFailure


@dataclass(frozen=True)
class SpaceBasis:
    """A space whose basis lies in the store."""

    space: Space
    key: str
    depth: float
    content: str
    ids: str
    n_points: int
    n_features: int
    facts: dict[str, Any]
    activations: str


def build_bases(run: Run, zoo: Zoo, recorded: tuple[RecordedSpace, ...]) -> tuple[SpaceBasis, ...]:
    """Compute the bases that are missing; spaces of the same content share one."""
    atlas = run.catalog.atlas
    numbers = {dataset: zoo.numbers(dataset, atlas) for dataset in {space.space.dataset for space in recorded}}
    planned = [(space, basis_job(run.store, atlas, space, numbers[space.space.dataset])) for space in recorded]
    in_scope = spaces_now(zoo.parts, run.scope)
    wanted = {job.key for space, job in planned if space.space in in_scope}
    absent = {job.key: job for _, job in planned if run.store.find("bases", job.key) is None}
    missing = [job for key, job in absent.items() if key in wanted]
    left_out = absent.keys() - wanted
    sizes = {planned_space.space: planned_space.size for planned_space in zoo.spaces}
    needs = {job.key: _needed_bytes(sizes[space.space], space, job.method) for space, job in planned}
    failures = _compute(run, missing, [needs[job.key] for job in missing])
    n_reused = len({job.key for _, job in planned} - left_out) - len(missing)
    run.stage_counts.add("bases", len(missing) - len(failures), n_reused)
    run.add_failures(
        Failure.of_space(space.space, "bases", failures[job.key]) for space, job in planned if job.key in failures
    )
    return tuple(
        _space_basis(run.store, space, job.key)
        for space, job in planned
        if job.key not in left_out and job.key not in failures
    )


def basis_job(store: UnitStore, atlas: AtlasConfig, recorded: RecordedSpace, numbers: BasisNumbers) -> BasisJob:
    """Return the job that computes a space's basis; its key digests everything that can change the result.

    ``numbers``: of neighbors and eigenpairs, the same for all spaces of a dataset.
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
    return BasisJob(store, recorded.key, digest(ingredients), method)


def _needed_bytes(size: SpaceSize, recorded: RecordedSpace, method: BasisMethod) -> int:
    recorded_size = replace(size, n_points=recorded.n_points, n_features=recorded.n_features)
    return worker_bytes(basis_load(recorded_size, method))


def _compute(run: Run, jobs: Sequence[BasisJob], needs: Sequence[int]) -> dict[str, JobFailure]:
    """Compute bases; return the failures by key."""
    failures: dict[str, JobFailure] = {}
    for job, result in run.results("bases", store_basis, jobs, needs):
        if isinstance(result, JobFailure):
            failures[job.key] = result
    return failures


def _space_basis(store: UnitStore, recorded: RecordedSpace, key: str) -> SpaceBasis:
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
    )


def not_computed(run: Run, zoo: Zoo, spaces: tuple[SpaceBasis, ...]) -> tuple[Space, ...]:
    """Return the spaces without a basis that have not failed: they are outside the scope of this run and all before."""
    computed = {basis.space for basis in spaces}
    failed = {(failure.dataset, failure.model, failure.layer) for failure in run.failures}
    absent = [planned.space for planned in zoo.spaces if planned.space not in computed]
    return tuple(space for space in absent if (space.dataset, space.model, space.layer) not in failed)
