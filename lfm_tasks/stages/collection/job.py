"""One collection of spaces: the basis that they share, and how far the cycles of their maps close."""

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
from lfm_tasks.stages.inventory.correspondence import common_ids
from lfm_tasks.stores.units.store import UnitStore

# The third spaces that the maps of a pair are led through: with more of them the decile moves little. Of very many
# spaces fewer, so that the products stay some for each pair.
_MOST_THIRDS, _FEWEST_THIRDS = 24, 4
# Spaces on a side of a block of pairs, and bytes of bases and of grown maps that are held at a time: all grown
# maps of 300 spaces fit.
_BLOCK_SIDE = 32
_MOST_BYTES = 1 << 30
_MOST_GROWN_BYTES = 1 << 29
# Points that stand for a dataset where spaces are compared in their shared coordinates.
_N_POINTS = 500
# Rounds of reweighting where maps may be wrong; between known points only the spaces differ.
_N_ROUNDS = 10


class MapPlace(NamedTuple):
    """A grown map: the digest of what it was grown by, and where it lies."""

    grown_by: str
    block: str
    row: int
    direction: int


@dataclass(frozen=True)
class CollectionJob:
    """Bases of one dataset that hang together, and where their maps lie.

    Of ``known`` pairs (lower, higher) the bases give the map; ``grown`` (source, target) says where it lies. ``core``:
    how many of ``bases``, which stand first, are fitted together.
    """

    store: UnitStore
    key: str
    bases: tuple[str, ...]
    core: int
    known: frozenset[tuple[int, int]]
    grown: Mapping[tuple[int, int], MapPlace]
    config: CollectionConfig
    min_overlap: float


def store_collection(job: CollectionJob) -> None:
    """Fit the shared basis, close the cycles, compare the spaces in their shared coordinates, and commit that."""
    maps = _Maps(job)
    shared = _shared_basis(job, maps)
    residuals = _cycle_residuals(job, maps)
    with job.store.commit("collections", job.key) as unit_writer:
        unit_writer.arrays.write("coefficients", shared.coefficients)
        unit_writer.arrays.write("cycle_residual", residuals)
        unit_writer.arrays.write("shared_distance", _shared_distances(maps, shared))
        unit_writer.facts |= {"bases": list(job.bases), "core": job.core}


@dataclass
class _Maps:
    """The maps of a job, made or read when they are asked for; grown ones are float32 in the store."""

    job: CollectionJob
    _rows: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    _blocks: dict[str, np.ndarray] = field(default_factory=dict)
    _full: dict[tuple[int, int], np.ndarray | None] = field(default_factory=dict)

    @cached_property
    def thirds(self) -> list[int]:
        """The spaces, spread evenly over the core, that cycles lead through; two more than a pair needs."""
        core, wanted = self.job.core, _MOST_THIRDS * self.job.config.max_spaces // len(self.job.bases)
        n_thirds = min(core, max(_FEWEST_THIRDS, min(_MOST_THIRDS, wanted)) + 2)
        return np.unique(np.linspace(0, core - 1, n_thirds).astype(int)).tolist()

    def of(self, source: int, target: int) -> Float[np.ndarray, "target source"] | None:
        """Return the low modes of the map between two of the job's spaces; None where there is none."""
        if (source, target) in self.job.grown:
            return self._grown(source, target)
        lower, higher = min(source, target), max(source, target)
        if (lower, higher) not in self.job.known:
            return None
        found = self._full[lower, higher] if (lower, higher) in self._full else self._known(lower, higher)
        if lower in self.thirds or higher in self.thirds:  # met again and again
            self._full[lower, higher] = found
        return found if found is None or source == lower else found.T

    def rows(self, space: int) -> tuple[Float[np.ndarray, "points eigenpairs"], Shaped[np.ndarray, " points"]]:
        """Return the low eigenvectors of a space, and its ids."""
        if space not in self._rows:
            with self.job.store.open("bases", self.job.bases[space]) as unit:
                vectors = unit.read("eigenvectors")[:, : self.job.config.n_eigenpairs]
                self._rows[space] = np.ascontiguousarray(vectors), unit.read("ids")
            while (
                len(self._rows) > 2 * _BLOCK_SIDE and sum(rows.nbytes for rows, _ in self._rows.values()) > _MOST_BYTES
            ):
                del self._rows[next(iter(self._rows))]
        return self._rows[space]

    def _grown(self, source: int, target: int) -> Float[np.ndarray, "target source"] | None:
        _, block, row, direction = self.job.grown[source, target]
        if block not in self._blocks:
            n_modes = self.job.config.n_eigenpairs
            with self.job.store.open("scores", block) as unit:
                self._blocks[block] = unit.read("maps")[:, :, :n_modes, :n_modes].copy()
            while len(self._blocks) > 1 and sum(maps.nbytes for maps in self._blocks.values()) > _MOST_GROWN_BYTES:
                del self._blocks[next(iter(self._blocks))]
        found = self._blocks[block][row, direction].astype(np.float64)
        return found if np.isfinite(found).all() else None

    def _known(self, source: int, target: int) -> Float[np.ndarray, "target source"] | None:
        (ours, our_ids), (theirs, their_ids) = self.rows(source), self.rows(target)
        if len(our_ids) == len(their_ids) and (our_ids == their_ids).all():
            return full_map(ours, theirs)
        common, of_ours, of_theirs = common_ids(our_ids, their_ids)
        if len(common) < self.job.min_overlap * min(len(our_ids), len(their_ids)):
            return None
        try:
            return full_map(whitened_rows(ours[of_ours]), whitened_rows(theirs[of_theirs]))
        except DataError:  # too few common points to tell the eigenvectors apart: told with the pair's scores
            return None


def _shared_basis(job: CollectionJob, maps: _Maps) -> SharedBasis:
    """Return the basis shared by the core, and Y of every other space from its maps out of the core."""
    edges, found = [], []
    for source in range(job.core):
        for target in range(job.core):
            # Between known points the map back says the same once more.
            wanted = (source, target) in job.grown or source < target
            if source != target and wanted and (own := maps.of(source, target)) is not None:
                edges.append((source, target))
                found.append(own)
    collection = Collection(job.core, np.array(edges), np.stack(found))
    n_modes = min(job.config.n_modes, collection.maps.shape[1])
    core = fit_shared_basis(collection, n_modes, n_rounds=_N_ROUNDS if job.grown else 0)
    coefficients = [*core.coefficients]
    for space in range(job.core, len(job.bases)):
        arriving = [(known, own) for known in range(job.core) if (own := maps.of(known, space)) is not None]
        if not arriving:
            coefficients.append(np.full_like(coefficients[0], np.nan))
            continue
        known, own = zip(*arriving, strict=True)
        coefficients.append(fit_new_space(core, np.stack(own), np.array(known)))
    return SharedBasis(np.stack(coefficients), core.weights)


def _cycle_residuals(job: CollectionJob, maps: _Maps) -> Float[np.ndarray, "source target"]:
    residuals = np.full((len(job.bases), len(job.bases)), np.nan)
    for source, target in _in_blocks(len(job.bases)):
        # Between known points the way round backwards is the transpose, and as long.
        if source == target or (source > target and (source, target) not in job.grown):
            continue
        if (direct := maps.of(source, target)) is None:
            continue
        thirds = [third for third in maps.thirds if third not in (source, target)]
        legs = [(maps.of(target, third), maps.of(third, source)) for third in thirds]
        whole = [(onward, back) for onward, back in legs if onward is not None and back is not None]
        onward, back = (np.array([leg[side] for leg in whole]).reshape(-1, *direct.shape) for side in (0, 1))
        residuals[source, target] = residual_through(direct, onward, back)
    for source, target in job.known:
        residuals[target, source] = residuals[source, target]
    return residuals


def _in_blocks(n_spaces: int) -> Iterator[tuple[int, int]]:
    """Yield all pairs, those of few spaces together: their bases are read once a block."""
    starts = range(0, n_spaces, _BLOCK_SIDE)
    for first, second in product(starts, starts):
        sides = (range(start, min(start + _BLOCK_SIDE, n_spaces)) for start in (first, second))
        yield from product(*sides)


def _shared_distances(maps: _Maps, shared: SharedBasis) -> Float[np.ndarray, "source target"]:
    """Return, between all spaces, √ mean (√n Φ_i Y_i − √n Φ_j Y_j)² over points that all of them have.

    0: the same functions; √2: nothing in common. NaN where they have no points in common.
    """
    n_spaces = len(shared.coefficients)
    names = [maps.rows(space)[1] for space in range(n_spaces)]
    common = _in_all(names)
    if not len(common):
        return np.full((n_spaces, n_spaces), np.nan)
    common = common[np.unique(np.linspace(0, len(common) - 1, min(len(common), _N_POINTS)).astype(int))]
    coordinates = []
    for space in range(n_spaces):
        rows, ids = maps.rows(space)
        here = rows[common_ids(ids, common)[1]] * np.sqrt(len(rows))
        coordinates.append((here @ shared.coefficients[space]).ravel())
    flat = np.stack(coordinates)
    squares = np.einsum("ij,ij->i", flat, flat)
    squared = squares[:, None] + squares - 2 * (flat @ flat.T)
    np.fill_diagonal(squared, 0)
    return np.sqrt(np.maximum((squared + squared.T) / (2 * flat.shape[1]), 0))


def _in_all(names: Sequence[Shaped[np.ndarray, " points"]]) -> Shaped[np.ndarray, " common"]:
    common = names[0]
    for own in names[1:]:
        if len(own) != len(common) or not (own == common).all():
            common = common_ids(common, own)[0]
    return common
