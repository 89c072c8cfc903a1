"""Stage bases: for every space a neighbor graph and the low eigenvectors of its Laplacian, checked, a task a space."""

from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np

from lfm_tasks.config import AtlasConfig
from lfm_tasks.runtime.load import SpaceSize, worker_bytes
from lfm_tasks.runtime.run import Failure, Run
from lfm_tasks.spaces import Space
from lfm_tasks.stages.activations.stage import RecordedSpace
from lfm_tasks.stages.bases.cost import basis_load
from lfm_tasks.stages.bases.job import BasisMethod, basis_method, check_accuracy, compute_basis
from lfm_tasks.stages.inventory.requests import spaces_now
from lfm_tasks.stages.inventory.stage import Zoo
from lfm_tasks.statistics.permutation_moments import pack, permutation_profile
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


@dataclass(frozen=True)
class BasisJob:
    """One basis to compute."""

    store: UnitStore
    activations: str
    key: str
    way: BasisMethod


def build_bases(run: Run, zoo: Zoo, recorded: tuple[RecordedSpace, ...]) -> tuple[SpaceBasis, ...]:
    """Compute the bases that are missing; spaces of the same content share one."""
    now = spaces_now(zoo.parts, run.scope)
    planned = [basis_job(run.store, run.catalog.atlas, space) for space in recorded]
    absent = {job.key: job for job in planned if run.store.find("bases", job.key) is None}
    wanted = {job.key for space, job in zip(recorded, planned, strict=True) if space.space in now}
    missing = {key: job for key, job in absent.items() if key in wanted}
    left_out = absent.keys() - missing.keys()
    jobs = list(missing.values())
    sizes = {own.space: own.size for own in zoo.spaces}
    needs = {job.key: _needed(sizes[own.space], own, job.way) for own, job in zip(recorded, planned, strict=True)}
    troubles: dict[str, JobFailure] = {}
    run.announce("bases", 0, len(jobs))
    for done, (number, result) in enumerate(
        run.workers.run(store_basis, jobs, [needs[job.key] for job in jobs]), start=1
    ):
        if isinstance(result, JobFailure):
            troubles[jobs[number].key] = result
        run.announce("bases", done, len(jobs))
    run.stage_counts.count("bases", len(jobs) - len(troubles), len({job.key for job in planned} - left_out) - len(jobs))
    based: list[SpaceBasis] = []
    failed: list[Failure] = []
    for recorded_space, job in zip(recorded, planned, strict=True):
        space = recorded_space.space
        if job.key in left_out:
            continue
        if trouble := troubles.get(job.key):
            failed.append(Failure(space.dataset, space.model, space.layer, "bases", trouble.reason, trouble.message))
            continue
        facts = dict(run.store.receipt("bases", job.key).facts)
        based.append(
            SpaceBasis(
                space, job.key, recorded_space.depth, recorded_space.content, recorded_space.ids,
                recorded_space.n_points, recorded_space.n_features, facts, recorded_space.key,
            )
        )  # fmt: skip
    run.failures.extend(failed)
    return tuple(based)


def _needed(size: SpaceSize, recorded: RecordedSpace, way: BasisMethod) -> int:
    known = replace(size, n_points=recorded.n_points, n_features=recorded.n_features)
    return worker_bytes(basis_load(known, way))


def basis_job(store: UnitStore, atlas: AtlasConfig, recorded: RecordedSpace) -> BasisJob:
    """Return what it takes to compute a space's basis; its key holds everything that can change the result."""
    way = basis_method(atlas, recorded.n_points, recorded.n_features)
    ingredients: dict[str, Any] = {
        "kind": "bases",
        "content": recorded.content,
        "graph": atlas.graph.model_dump(exclude={"landmarks"}) | {"method": way.method},
        "n_eigenpairs": atlas.n_eigenpairs,
    }
    if way.n_landmarks is not None:
        ingredients["landmarks"] = [way.n_landmarks, way.seed]
    if way.method == "pynndescent":
        ingredients["versions"] = {name: version(name) for name in ("pynndescent", "numba")}
    return BasisJob(store, recorded.key, digest(ingredients), way)


def store_basis(job: BasisJob) -> None:
    """Read a space's activations, build its graph and basis, check them, commit them."""
    with job.store.open("activations", job.activations) as unit:
        ids = unit.read("ids")
        found = compute_basis(lambda: unit.batches("activations"), ids, job.way)
    check_accuracy(found)
    with job.store.commit("bases", job.key) as unit_writer:
        arrays = unit_writer.arrays
        arrays.write("neighbors", found.neighbors.indices)
        arrays.write("distances", found.neighbors.distances.astype(np.float32))
        if found.landmarks is not None:
            arrays.write("landmarks", found.landmarks.astype(np.int32))
        arrays.write("eigenvalues", found.eigenvalues)
        arrays.write("eigenvectors", found.eigenvectors)
        arrays.write("overlap_profile", pack(permutation_profile(found.eigenvectors[:, 1:])))
        arrays.write("ids", ids)
        unit_writer.facts |= found.facts


def not_computed(run: Run, zoo: Zoo, spaces: tuple[SpaceBasis, ...]) -> tuple[Space, ...]:
    """Return the spaces that no run has tried yet: this one computes a part of the catalog."""
    there = {based.space for based in spaces}
    failed = {(failure.dataset, failure.model, failure.layer) for failure in run.failures}
    absent = [planned.space for planned in zoo.spaces if planned.space not in there]
    return tuple(space for space in absent if (space.dataset, space.model, space.layer) not in failed)
