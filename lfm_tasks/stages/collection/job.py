"""One collection of spaces on a worker: the basis that they share, and how far the cycles of their maps close."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped

from lfm_tasks.config import CollectionConfig
from lfm_tasks.errors import DataError
from lfm_tasks.spectral.bases.full_map import full_map, whitened_rows
from lfm_tasks.spectral.maps.collection import (
    Collection,
    SharedBasis,
    fit_new_space,
    fit_shared_basis,
    residuals_through,
)
from lfm_tasks.stages.collection.cost import CYCLES_SIDE
from lfm_tasks.stages.inventory.correspondence import common_ids, same_ids
from lfm_tasks.stages.scores.full_maps import forget_bases
from lfm_tasks.stores.units.store import UnitStore, digest

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


class CyclesPart(NamedTuple):
    """The unit of the residuals of some spaces with some others, and their places in the collection."""

    key: str
    sources: range
    targets: range


@dataclass(frozen=True)
class CollectionJob:
    """Bases of one dataset that maps connect, and where these maps lie.

    The bases determine the map of a pair in ``full``, the lower place as the row; ``refined`` says where that of
    (source, target) lies. The first ``n_core`` of ``bases`` are fitted together. Within the core, and after it, bases
    are in the order of the contents of their spaces: what is chosen by it does not depend on names or keys.
    ``cycles`` says where the cycle residuals lie; empty: this job computes them.
    """

    store: UnitStore
    key: str
    bases: tuple[str, ...]
    n_core: int
    full: Bool[np.ndarray, "spaces spaces"]
    refined: Mapping[tuple[int, int], MapPlace]
    config: CollectionConfig
    min_overlap: float
    cycles: tuple[CyclesPart, ...] = ()


@dataclass(frozen=True)
class CyclesJob:
    """Spaces of a collection, and the places among them of those whose cycles are closed through ``thirds``."""

    key: str
    spaces: CollectionJob
    sources: tuple[int, ...]
    targets: tuple[int, ...]
    thirds: tuple[int, ...]


def cycles_job(job: CollectionJob, part: CyclesPart) -> CyclesJob:
    """Return the job of a part of the residuals of a collection; it knows no more spaces than it needs."""
    thirds = third_spaces(job)
    places = sorted({*part.sources, *part.targets, *thirds})
    place_of = {place: at for at, place in enumerate(places)}
    full = (job.full | job.full.T)[np.ix_(places, places)]
    refined = {
        (place_of[source], place_of[target]): job.refined[source, target]
        for source in (places if job.refined else ())
        for target in places
        if (source, target) in job.refined
    }
    keys = tuple(job.bases[place] for place in places)
    spaces = replace(job, bases=keys, n_core=0, full=np.triu(full), refined=refined, cycles=())
    ends = (tuple(place_of[place] for place in side) for side in (part.sources, part.targets, thirds))
    return CyclesJob(part.key, spaces, *ends)


def cycles_parts(job: CollectionJob) -> tuple[CyclesPart, ...]:
    """Return the parts that the residuals of a collection are computed in by several workers; none of few spaces."""
    n_spaces = len(job.bases)
    if n_spaces <= 2 * CYCLES_SIDE:
        return ()
    groups = [range(first, min(first + CYCLES_SIDE, n_spaces)) for first in range(0, n_spaces, CYCLES_SIDE)]
    return tuple(
        CyclesPart(
            digest({"kind": "cycles", "of": job.key, "sources": [*sources], "targets": [*targets]}), sources, targets
        )
        for sources in groups
        for targets in groups
        # The cycle backwards is the transpose where the bases determine the maps.
        if job.refined or targets[0] >= sources[0]
    )


def store_cycles(job: CyclesJob) -> None:
    """Close the cycles through some pairs of spaces; commit how far they are from closed."""
    forget_bases()
    residuals = _cycle_residuals(_Maps(job.spaces), job.sources, job.targets, job.thirds)
    with job.spaces.store.commit("cycles", job.key) as unit_writer:
        unit_writer.arrays.write("cycle_residual", residuals)


def third_spaces(job: CollectionJob) -> list[int]:
    """Return the spaces that close cycles: the first of the core that have different bases, two more than a pair needs.

    Spaces are in the order of their contents, which is a drawing of lots: a space that arrives changes few cycles.
    """
    wanted = _MOST_THIRDS * job.config.max_spaces // len(job.bases)
    first_places = np.sort(np.unique(job.bases[: job.n_core], return_index=True)[1])
    return [int(place) for place in first_places[: max(_FEWEST_THIRDS, min(_MOST_THIRDS, wanted)) + 2]]


def store_collection(job: CollectionJob) -> None:
    """Fit the shared basis, close the cycles, compare the spaces in their shared coordinates; commit the results."""
    forget_bases()
    maps = _Maps(job)
    shared = _shared_basis(job, maps)
    residuals = _all_residuals(job, maps)
    with job.store.commit("collections", job.key) as unit_writer:
        unit_writer.arrays.write("coefficients", shared.coefficients)
        unit_writer.arrays.write("cycle_residual", residuals)
        unit_writer.arrays.write("shared_distance", _shared_distances(maps, shared))
        unit_writer.facts |= {"bases": list(job.bases), "core": job.n_core}


@dataclass
class _Maps:
    """The low modes of the maps of a job, computed or read on request, in single precision.

    Products of all pairs are most of the work. Residuals and distances that are made of them are right to 1e-6.
    """

    job: CollectionJob
    _rows: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    _blocks: dict[str, np.ndarray] = field(default_factory=dict)
    _lists: list[np.ndarray] = field(default_factory=list)

    @cached_property
    def _full(self) -> Bool[np.ndarray, "spaces spaces"]:
        return np.asarray(self.job.full | self.job.full.T)

    def between(
        self, sources: Sequence[int], targets: Sequence[int]
    ) -> Float[np.ndarray, "sources targets target source"]:
        """Return the map from each of the job's ``sources`` to each of its ``targets``; NaN where there is none."""
        n_modes = self.job.config.n_eigenpairs
        maps = np.full((len(sources), len(targets), n_modes, n_modes), np.nan, dtype=np.float32)
        of_list = {space: id(self.rows(space)[1]) for space in {*sources, *targets}}
        full = self._full[np.ix_(sources, targets)]
        for ids in {of_list[space] for space in sources} if full.any() else ():
            rows, columns = (np.flatnonzero([of_list[space] == ids for space in side]) for side in (sources, targets))
            if len(columns):
                wide, others = (
                    np.hstack([self.rows(side[place])[0] for place in places.tolist()])
                    for side, places in ((sources, rows), (targets, columns))
                )
                products = (others.T @ wide).reshape(len(columns), n_modes, len(rows), n_modes)
                maps[np.ix_(rows, columns)] = products.transpose(2, 0, 1, 3)
        maps[~full] = np.nan
        lists = [np.array([of_list[space] for space in side]) for side in (sources, targets)]
        for row, column in np.argwhere(full & (lists[0][:, None] != lists[1])).tolist():
            maps[row, column] = self._map_on_common_points(sources[row], targets[column])
        for row, source in enumerate(sources if self.job.refined else ()):
            for column, target in enumerate(targets):
                if (source, target) in self.job.refined:
                    maps[row, column] = self._refined_map(source, target)
        return maps

    def rows(self, space: int) -> tuple[Float[np.ndarray, "points eigenpairs"], Shaped[np.ndarray, " points"]]:
        """Return the low eigenvectors of a space, and its ids."""
        if space not in self._rows:
            with self.job.store.open("bases", self.job.bases[space]) as unit:
                vectors, ids = unit.read_all("eigenvectors", "ids")
            low = np.ascontiguousarray(vectors[:, : self.job.config.n_eigenpairs], dtype=np.float32)
            self._rows[space] = low, self._as_known(ids)
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

    def _refined_map(self, source: int, target: int) -> Float[np.ndarray, "target source"]:
        """Return the map as it is stored: NaN where it could not be fitted."""
        _, block, row, direction = self.job.refined[source, target]
        if block not in self._blocks:
            n_modes = self.job.config.n_eigenpairs
            with self.job.store.open("scores", block) as unit:
                self._blocks[block] = unit.read("maps")[:, :, :n_modes, :n_modes].copy()
            while len(self._blocks) > 1 and sum(maps.nbytes for maps in self._blocks.values()) > _MOST_REFINED_BYTES:
                del self._blocks[next(iter(self._blocks))]
        functional_map = self._blocks[block][row, direction]
        return np.asarray(functional_map if np.isfinite(functional_map).all() else np.nan * functional_map)

    def _map_on_common_points(self, source: int, target: int) -> Float[np.ndarray, "target source"]:
        """Return the map of spaces on unlike points: NaN where they share too few; their scores say so."""
        (source_vectors, source_ids), (target_vectors, target_ids) = self.rows(source), self.rows(target)
        none = np.full((target_vectors.shape[1], source_vectors.shape[1]), np.nan)
        common, source_rows, target_rows = common_ids(source_ids, target_ids)
        if len(common) < self.job.min_overlap * min(len(source_ids), len(target_ids)):
            return none
        try:
            return full_map(whitened_rows(source_vectors[source_rows]), whitened_rows(target_vectors[target_rows]))
        except DataError:  # the common points do not tell the eigenvectors apart
            return none


def _shared_basis(job: CollectionJob, maps: _Maps) -> SharedBasis:
    """Return the basis shared by the core, and Y of every other space from its maps out of the core."""
    core = range(job.n_core)
    edges, edge_maps = [], []
    for some in _in_parts(core):
        for source, of_source in zip(some, maps.between(some, core), strict=True):
            for target in core:
                # Both directions of full maps, too: the basis would depend on the order of spaces.
                if source != target and np.isfinite(of_source[target, 0, 0]):
                    edges.append((source, target))
                    edge_maps.append(of_source[target])
    collection = Collection(job.n_core, np.array(edges), np.stack(edge_maps))
    shared = fit_shared_basis(collection, job.config.n_modes, n_rounds=_N_ROUNDS if job.refined else 0)
    coefficients = [*shared.coefficients]
    for some in _in_parts(range(job.n_core, len(job.bases))):
        for arriving in np.concatenate([maps.between(part, some) for part in _in_parts(core)]).swapaxes(0, 1):
            known = np.flatnonzero(np.isfinite(arriving[:, 0, 0]))
            lacking = np.full_like(coefficients[0], np.nan)
            coefficients.append(fit_new_space(shared, arriving[known], known) if len(known) else lacking)
    return SharedBasis(np.stack(coefficients), shared.weights)


def _all_residuals(job: CollectionJob, maps: _Maps) -> Float[np.ndarray, "source target"]:
    """Return how far cycles through each pair of spaces close; NaN for pairs without a map."""
    spaces = range(len(job.bases))
    residuals = np.full((len(spaces), len(spaces)), np.nan)
    for part in job.cycles:
        with job.store.open("cycles", part.key) as unit:
            residuals[np.ix_(part.sources, part.targets)] = unit.read("cycle_residual")
    if not job.cycles:
        residuals = _cycle_residuals(maps, spaces, spaces, third_spaces(job))
    np.fill_diagonal(residuals, np.nan)
    lower, higher = np.nonzero(job.full)
    residuals[higher, lower] = residuals[lower, higher]
    return residuals


def _cycle_residuals(
    maps: _Maps, sources: Sequence[int], targets: Sequence[int], thirds: Sequence[int]
) -> Float[np.ndarray, "sources targets"]:
    """Return how far cycles through spaces close; of full maps NaN where the source stands after the target."""
    is_refined, onward = bool(maps.job.refined), _maps_to_thirds(maps, targets, thirds)
    if is_refined:
        back = np.concatenate([maps.between(thirds, some).swapaxes(0, 1) for some in _in_parts(sources)])
    else:  # of full maps the map back is the transpose
        to_thirds = onward if sources == targets else _maps_to_thirds(maps, sources, thirds)
        back = np.swapaxes(to_thirds, -1, -2)
    residuals = np.full((len(sources), len(targets)), np.nan)
    at_source = 0
    for some in _in_parts(sources):
        at_target = 0
        for others in _in_parts(targets):
            columns = slice(at_target, at_target + len(others))
            at_target += len(others)
            if not is_refined and others[-1] < some[0]:  # the cycle backwards is the transpose, and nearly as long
                continue
            for row, direct in enumerate(maps.between(some, others), start=at_source):
                residuals[row, columns] = residuals_through(direct, onward[columns], back[row])
        at_source += len(some)
    return residuals


def _maps_to_thirds(
    maps: _Maps, spaces: Sequence[int], thirds: Sequence[int]
) -> Float[np.ndarray, "spaces thirds target source"]:
    """Return the map from each space to each third one; none from a space to itself, nor to a copy."""
    keys = np.array(maps.job.bases)
    found = np.concatenate([maps.between(some, thirds) for some in _in_parts(spaces)])
    found[keys[list(spaces)][:, None] == keys[list(thirds)]] = np.nan
    return found


def _in_parts(spaces: Sequence[int]) -> list[Sequence[int]]:
    """Return spaces in parts, so that the bases of a part are read once for a row of products."""
    return [spaces[first : first + _BLOCK_SIDE] for first in range(0, len(spaces), _BLOCK_SIDE)]


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
