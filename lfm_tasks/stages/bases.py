"""Stage bases: for every space a neighbour graph and the low eigenvectors of its Laplacian, checked, a task a space."""

from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

from lfm_tasks.config import AtlasConfig, GraphConfig
from lfm_tasks.measures.permutation_moments import pack, permutation_profile
from lfm_tasks.reasons import ReasonError
from lfm_tasks.spaces import Space
from lfm_tasks.spectral.basis import Basis, BasisQuality, basis_quality, spectral_basis
from lfm_tasks.spectral.graph import affinity_graph, join_components
from lfm_tasks.spectral.neighbour_methods import TABLE_VERSION, choose_method
from lfm_tasks.spectral.neighbours import Method, find_neighbours, neighbour_recall
from lfm_tasks.stages.activations import RecordedSpace, read_activations
from lfm_tasks.stages.asked import spaces_now
from lfm_tasks.stages.run import Failure, Run
from lfm_tasks.stages.validate import Zoo
from lfm_tasks.stages.workers import Trouble
from lfm_tasks.stores.digests import digest
from lfm_tasks.stores.units import UnitStore

# Below this recall the graph is not the one asked for: overlaps move by more than .2 (measured at .85).
LOWEST_RECALL = 0.90
# Largest residual |Lv - λv| and deviation from orthonormality of a basis that counts as solved (float64).
LARGEST_RESIDUAL = 1e-8
LARGEST_DEVIATION = 1e-8


@dataclass(frozen=True)
class BasedSpace:
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
    graph: GraphConfig
    method: Method
    n_eigenpairs: int


def build_bases(
    run: Run, zoo: Zoo, recorded: tuple[RecordedSpace, ...], failures: tuple[Failure, ...]
) -> tuple[tuple[BasedSpace, ...], tuple[Failure, ...]]:
    """Compute the bases that are missing; spaces of the same content share one."""
    now = spaces_now(zoo.parts, run.scope)
    planned = [basis_job(run.store, run.catalog.atlas, space) for space in recorded]
    absent = {job.key: job for job in planned if run.store.find("bases", job.key) is None}
    wanted = {job.key for space, job in zip(recorded, planned, strict=True) if space.space in now}
    missing = {key: job for key, job in absent.items() if key in wanted}
    left_out = absent.keys() - missing.keys()
    jobs = list(missing.values())
    troubles: dict[str, Trouble] = {}
    run.announce("bases", 0, len(jobs))
    for done, (number, result) in enumerate(run.workers.run(store_basis, jobs), start=1):
        if isinstance(result, Trouble):
            troubles[jobs[number].key] = result
        run.announce("bases", done, len(jobs))
    run.tally.count("bases", len(jobs) - len(troubles), len({job.key for job in planned} - left_out) - len(jobs))
    based, failed = [], list(failures)
    for recorded_space, job in zip(recorded, planned, strict=True):
        space = recorded_space.space
        if job.key in left_out:
            continue
        if trouble := troubles.get(job.key):
            failed.append(Failure(space.dataset, space.model, space.layer, "bases", trouble.reason, trouble.message))
            continue
        facts = dict(run.store.receipt("bases", job.key).facts)
        based.append(
            BasedSpace(
                space, job.key, recorded_space.depth, recorded_space.content, recorded_space.ids,
                recorded_space.n_points, recorded_space.n_features, facts, recorded_space.key,
            )
        )  # fmt: skip
    return tuple(based), tuple(failed)


def basis_job(store: UnitStore, atlas: AtlasConfig, recorded: RecordedSpace) -> BasisJob:
    """Return what it takes to compute a space's basis; its key holds everything that can change the result."""
    method = atlas.graph.method
    if method == "auto":
        method = choose_method(recorded.n_points, recorded.n_features, atlas.graph.n_neighbors)
    ingredients: dict[str, Any] = {
        "kind": "bases",
        "content": recorded.content,
        "graph": atlas.graph.model_dump() | {"method": method},
        "n_eigenpairs": atlas.n_eigenpairs,
    }
    if method == "pynndescent":
        ingredients["versions"] = {name: version(name) for name in ("pynndescent", "numba")}
    return BasisJob(store, recorded.key, digest(ingredients), atlas.graph, method, atlas.n_eigenpairs)


def store_basis(job: BasisJob) -> None:
    """Read a space's activations, build its graph and basis, check them, commit them."""
    with job.store.open("activations", job.activations) as unit:
        activations, ids = read_activations(unit), unit.read("ids")
    metric = job.graph.metric
    neighbours = find_neighbours(activations, job.graph.n_neighbors, metric=metric, method=job.method)
    recall = 1.0 if job.method == "exact" else neighbour_recall(neighbours, activations, metric=metric)
    if recall < LOWEST_RECALL:
        raise ReasonError(
            "inaccurate",
            f"the approximate neighbours have a recall of {recall:.3f}, at least {LOWEST_RECALL} is needed: "
            "set atlas.graph.method to exact",
        )
    graph, n_components = join_components(
        affinity_graph(neighbours, kernel=job.graph.kernel), activations, metric=metric
    )
    basis = spectral_basis(graph, job.n_eigenpairs)
    quality = basis_quality(graph, basis)
    _refuse_inaccurate(quality)
    with job.store.commit("bases", job.key) as unit_writer:
        arrays = unit_writer.arrays
        arrays.write("neighbours", neighbours.indices)
        arrays.write("distances", neighbours.distances.astype(np.float32))
        arrays.write("eigenvalues", basis.eigenvalues)
        arrays.write("eigenvectors", basis.eigenvectors)
        arrays.write("overlap_profile", pack(permutation_profile(basis.eigenvectors[:, 1:])))
        arrays.write("ids", ids)
        unit_writer.facts |= _facts(job, basis, quality) | {"n_components": n_components, "recall": recall}


def _refuse_inaccurate(quality: BasisQuality) -> None:
    if quality.n_zero_eigenvalues != 1:
        raise ReasonError(
            "inaccurate",
            f"{quality.n_zero_eigenvalues} eigenvalues are 0, a connected graph has exactly 1: "
            "raise atlas.graph.n_neighbors",
        )
    if quality.residual > LARGEST_RESIDUAL or quality.orthonormality > LARGEST_DEVIATION:
        raise ReasonError(
            "inaccurate",
            f"the eigenpairs have a residual of {quality.residual:.1e} and deviate from orthonormality by "
            f"{quality.orthonormality:.1e}, {LARGEST_RESIDUAL:.0e} is allowed: lower atlas.n_eigenpairs",
        )


def _facts(job: BasisJob, basis: Basis, quality: BasisQuality) -> dict[str, Any]:
    return {
        "method": job.method,
        "table_version": TABLE_VERSION,
        "n_eigenpairs": len(basis.eigenvalues),
        "solver": basis.solver,
        "residual": float(quality.residual),
        "orthonormality": float(quality.orthonormality),
        "n_zero_eigenvalues": int(quality.n_zero_eigenvalues),
        "eigengap": float(quality.eigengap),
    }
