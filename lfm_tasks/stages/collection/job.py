"""One collection of spaces on a worker: the basis that they share, and how far the cycles of their maps close."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from lfm_tasks.config import CollectionConfig
from lfm_tasks.errors import DataError
from lfm_tasks.spectral.bases.full_map import full_map, whitened_rows
from lfm_tasks.spectral.maps.collection import (
    Collection,
    SharedBasis,
    fit_new_space,
    fit_shared_basis,
    residual_through,
)
from lfm_tasks.stages.inventory.correspondence import common_ids, same_ids
from lfm_tasks.stores.units.store import UnitStore

# The third spaces in the cycles of a pair: with more of them the decile moves little. Among very many spaces there are
# fewer, so that each pair costs few products.
_MOST_THIRDS, _FEWEST_THIRDS = 24, 4
# Spaces on a side of a block of pairs, and the bytes of bases and of refined maps that are in memory at a time: all
# refined maps of 300 spaces fit.
_BLOCK_SIDE = 32
_MOST_BASIS_BYTES = 1 << 30
_MOST_REFINED_BYTES = 1 << 29
# Points that stand for a dataset where spaces are compared in their shared coordinates.
_N_POINTS = 500
# Rounds of reweighting where refined maps may be wrong; full maps differ only as their spaces do.
_N_ROUNDS = 10


class MapPlace(NamedTuple):
    """A refined map: the digest of how it was refined, and where it lies."""

    refined_by: str
    block: str
    row: int
    direction: int


@dataclass(frozen=True)
class CollectionJob:
    """Bases of one dataset that maps connect, and where these maps lie.

    The bases determine the map of a pair in ``full`` (lower, higher); ``refined`` says where that of (source, target)
    lies. The first ``n_core`` of ``bases`` are fitted together.
    """

    store: UnitStore
    key: str
    bases: tuple[str, ...]
    n_core: int
    full: frozenset[tuple[int, int]]
    refined: Mapping[tuple[int, int], MapPlace]
    config: CollectionConfig
    min_overlap: float


def store_collection(job: CollectionJob) -> None:
    """Fit the shared basis, close the cycles, compare the spaces in their shared coordinates; commit the results."""
    maps = _Maps(job)
    shared = _shared_basis(job, maps)
    residuals = _cycle_residuals(job, maps)
    with job.store.commit("collections", job.key) as unit_writer:
        unit_writer.arrays.write("coefficients", shared.coefficients)
        unit_writer.arrays.write("cycle_residual", residuals)
        unit_writer.arrays.write("shared_distance", _shared_distances(maps, shared))
        unit_writer.facts |= {"bases": list(job.bases), "core": job.n_core}


@dataclass
class _Maps:
    """The maps of a job, computed or read on request; refined ones are float32 in the store."""

    job: CollectionJob
    _rows: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    _blocks: dict[str, np.ndarray] = field(default_factory=dict)
    _full: dict[tuple[int, int], np.ndarray | None] = field(default_factory=dict)
    _lists: list[np.ndarray] = field(default_factory=list)

    @cached_property
    def thirds(self) -> list[int]:
        """The spaces, spread evenly over the core, that close cycles; two more than a pair needs."""
        core, wanted = self.job.n_core, _MOST_THIRDS * self.job.config.max_spaces // len(self.job.bases)
        n_thirds = min(core, max(_FEWEST_THIRDS, min(_MOST_THIRDS, wanted)) + 2)
        return np.unique(np.linspace(0, core - 1, n_thirds).astype(int)).tolist()

    def of(self, source: int, target: int) -> Float[np.ndarray, "target source"] | None:
        """Return the low modes of the map between two of the job's spaces; None where there is none."""
        if (source, target) in self.job.refined:
            return self._refined_map(source, target)
        lower, higher = min(source, target), max(source, target)
        if (lower, higher) not in self.job.full:
            return None
        functional_map = self._full[lower, higher] if (lower, higher) in self._full else self._full_map(lower, higher)
        if lower in self.thirds or higher in self.thirds:  # met again and again
            self._full[lower, higher] = functional_map
        return functional_map if functional_map is None or source == lower else functional_map.T

    def rows(self, space: int) -> tuple[Float[np.ndarray, "points eigenpairs"], Shaped[np.ndarray, " points"]]:
        """Return the low eigenvectors of a space, and its ids."""
        if space not in self._rows:
            with self.job.store.open("bases", self.job.bases[space]) as unit:
                vectors = unit.read("eigenvectors")[:, : self.job.config.n_eigenpairs]
                self._rows[space] = np.ascontiguousarray(vectors), self._as_known(unit.read("ids"))
            while len(self._rows) > 2 * _BLOCK_SIDE and (
                sum(rows.nbytes for rows, _ in self._rows.values()) > _MOST_BASIS_BYTES
            ):
                del self._rows[next(iter(self._rows))]
        return self._rows[space]

    def _as_known(self, ids: Shaped[np.ndarray, " points"]) -> Shaped[np.ndarray, " points"]:
        """Return a list of ids as the one array that all equal ones are: to compare two takes as long as their map."""
        for known in self._lists:
            if same_ids(known, ids):
                return known
        self._lists.append(ids)
        return ids

    def _refined_map(self, source: int, target: int) -> Float[np.ndarray, "target source"] | None:
        _, block, row, direction = self.job.refined[source, target]
        if block not in self._blocks:
            n_modes = self.job.config.n_eigenpairs
            with self.job.store.open("scores", block) as unit:
                self._blocks[block] = unit.read("maps")[:, :, :n_modes, :n_modes].copy()
            while len(self._blocks) > 1 and sum(maps.nbytes for maps in self._blocks.values()) > _MOST_REFINED_BYTES:
                del self._blocks[next(iter(self._blocks))]
        functional_map = self._blocks[block][row, direction].astype(np.float64)
        return functional_map if np.isfinite(functional_map).all() else None

    def _full_map(self, source: int, target: int) -> Float[np.ndarray, "target source"] | None:
        (source_vectors, source_ids), (target_vectors, target_ids) = self.rows(source), self.rows(target)
        if source_ids is target_ids:
            return full_map(source_vectors, target_vectors)
        common, source_rows, target_rows = common_ids(source_ids, target_ids)
        if len(common) < self.job.min_overlap * min(len(source_ids), len(target_ids)):
            return None
        try:
            return full_map(whitened_rows(source_vectors[source_rows]), whitened_rows(target_vectors[target_rows]))
        except DataError:  # too few common points to tell the eigenvectors apart: the pair's scores say so
            return None


def _shared_basis(job: CollectionJob, maps: _Maps) -> SharedBasis:
    """Return the basis shared by the core, and Y of every other space from its maps out of the core."""
    edges, edge_maps = [], []
    for source in range(job.n_core):
        for target in range(job.n_core):
            # Of full maps one direction: the map back is the transpose.
            is_wanted = (source, target) in job.refined or source < target
            if source != target and is_wanted and (functional_map := maps.of(source, target)) is not None:
                edges.append((source, target))
                edge_maps.append(functional_map)
    collection = Collection(job.n_core, np.array(edges), np.stack(edge_maps))
    n_modes = job.config.n_modes
    core = fit_shared_basis(collection, n_modes, n_rounds=_N_ROUNDS if job.refined else 0)
    coefficients = [*core.coefficients]
    for space in range(job.n_core, len(job.bases)):
        arriving = [
            (source, its_map) for source in range(job.n_core) if (its_map := maps.of(source, space)) is not None
        ]
        if not arriving:
            coefficients.append(np.full_like(coefficients[0], np.nan))
            continue
        sources, arriving_maps = zip(*arriving, strict=True)
        coefficients.append(fit_new_space(core, np.stack(arriving_maps), np.array(sources)))
    return SharedBasis(np.stack(coefficients), core.weights)


def _cycle_residuals(job: CollectionJob, maps: _Maps) -> Float[np.ndarray, "source target"]:
    """Return how far cycles through each pair of spaces close; NaN for pairs without a map."""
    residuals = np.full((len(job.bases), len(job.bases)), np.nan)
    for source, target in _in_blocks(len(job.bases)):
        # Of full maps one direction: the cycle backwards is the transpose, and as long.
        if source == target or (source > target and (source, target) not in job.refined):
            continue
        if (direct := maps.of(source, target)) is None:
            continue
        thirds = [third for third in maps.thirds if third not in (source, target)]
        legs = [(maps.of(target, third), maps.of(third, source)) for third in thirds]
        complete = [(onward, back) for onward, back in legs if onward is not None and back is not None]
        onward, back = (np.array([leg[side] for leg in complete]).reshape(-1, *direct.shape) for side in (0, 1))
        residuals[source, target] = residual_through(direct, onward, back)
    for source, target in job.full:
        residuals[target, source] = residuals[source, target]
    return residuals


def _in_blocks(n_spaces: int) -> Iterator[tuple[int, int]]:
    """Yield all pairs block by block, so that the bases of a block are read once."""
    starts = range(0, n_spaces, _BLOCK_SIDE)
    for first, second in product(starts, starts):
        sides = (range(start, min(start + _BLOCK_SIDE, n_spaces)) for start in (first, second))
        yield from product(*sides)


def _shared_distances(maps: _Maps, shared: SharedBasis) -> Float[np.ndarray, "source target"]:
    """Return, between all spaces, √ mean (√n Φ_i Y_i − √n Φ_j Y_j)² over points that all of them have.

    0: the same functions; √2: nothing in common. NaN where they have no points in common.
    """
    n_spaces = len(shared.coefficients)
    common = _in_all([maps.rows(space)[1] for space in range(n_spaces)])
    if not len(common):
        return np.full((n_spaces, n_spaces), np.nan)
    common = common[np.unique(np.linspace(0, len(common) - 1, min(len(common), _N_POINTS)).astype(int))]
    coordinates = []
    for space in range(n_spaces):
        rows, ids = maps.rows(space)
        scaled = rows[common_ids(ids, common)[1]] * np.sqrt(len(rows))
        coordinates.append((scaled @ shared.coefficients[space]).ravel())
    flat = np.stack(coordinates)
    squares = np.einsum("ij,ij->i", flat, flat)
    squared = squares[:, None] + squares - 2 * (flat @ flat.T)
    np.fill_diagonal(squared, 0)
    return np.sqrt(np.maximum((squared + squared.T) / (2 * flat.shape[1]), 0))


def _in_all(lists: Sequence[Shaped[np.ndarray, " points"]]) -> Shaped[np.ndarray, " common"]:
    """Return the ids that are in all lists."""
    common = lists[0]
    for ids in lists[1:]:
        if len(ids) != len(common) or not (ids == common).all():
            common = common_ids(common, ids)[0]
    return common
