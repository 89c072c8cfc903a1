"""A block of kept maps on a worker: the maps of pairs of bases, and where on the points they lose functions."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lfm_tasks.spectral.bases.eigenbasis import Basis
from lfm_tasks.spectral.bases.full_map import full_map
from lfm_tasks.spectral.maps.decoding import source_distortion, target_distortion
from lfm_tasks.stages.inventory.correspondence import common_ids
from lfm_tasks.stages.scores.full_maps import common_rows
from lfm_tasks.stores.units.store import UnitStore

# Keys of two bases, the lower one first, and the digest of how their map was refined; empty: the bases determine it.
KeptKey = tuple[str, str, str]
# A block of scores, and a row in it.
ScorePlace = tuple[str, int]
BasisOnIds = tuple[Basis, np.ndarray]
# The map, its source and target distortion at each common point, and the ids of these points.
MapOnPoints = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class KeepJob:
    """Pairs of bases to keep the maps of, all with the same two lists of ids.

    ``refined``: where the refined maps among them lie, stored with their scores.
    """

    store: UnitStore
    key: str
    pairs: tuple[KeptKey, ...]
    refined: Mapping[KeptKey, ScorePlace]


def store_maps(job: KeepJob) -> None:
    """Read the bases of a block once, compute or read the map of each pair and its distortions, and commit them."""
    bases: dict[str, BasisOnIds] = {}
    for key in sorted({key for *pair, _ in job.pairs for key in pair}):
        with job.store.open("bases", key) as unit:
            bases[key] = Basis(unit.read("eigenvalues"), unit.read("eigenvectors"), np.nan), unit.read("ids")
    refined = _refined_maps(job, {key: len(basis.eigenvalues) for key, (basis, _) in bases.items()})
    maps, distortions, common = [], [], np.empty(0, dtype=str)
    for pair in job.pairs:
        source, target = bases[pair[0]], bases[pair[1]]
        of_pair = _refined_on_points(refined[pair], source, target) if pair[2] else _full_on_points(source, target)
        functional_map, lost, missed, common = of_pair
        maps.append(functional_map)
        distortions.append((lost, missed))
    with job.store.commit("kept_maps", job.key) as unit_writer:
        unit_writer.arrays.write("functional_maps", np.stack(maps))
        unit_writer.arrays.write("distortions", np.array(distortions))
        unit_writer.arrays.write("ids", common)
        unit_writer.facts |= {"pairs": [list(pair) for pair in job.pairs]}


def _refined_maps(job: KeepJob, n_eigenpairs: Mapping[str, int]) -> dict[KeptKey, np.ndarray]:
    """Return the refined maps of a job, from their blocks of scores; each block is read once."""
    refined: dict[KeptKey, np.ndarray] = {}
    for block in sorted({block for block, _ in job.refined.values()}):
        with job.store.open("scores", block) as unit:
            maps = unit.read("maps")
        in_block = {pair: row for pair, (its_block, row) in job.refined.items() if its_block == block}
        refined |= {
            pair: maps[row, 0, : n_eigenpairs[pair[1]], : n_eigenpairs[pair[0]]].astype(np.float64)
            for pair, row in in_block.items()
        }
    return refined


def _refined_on_points(functional_map: np.ndarray, source: BasisOnIds, target: BasisOnIds) -> MapOnPoints:
    """Return a refined map and its distortions at the common points; each basis is on all of its own points."""
    (source_basis, source_ids), (target_basis, target_ids) = source, target
    common, source_rows, target_rows = common_ids(source_ids, target_ids)
    lost = source_distortion(functional_map, source_basis)[source_rows]
    return functional_map, lost, target_distortion(functional_map, target_basis)[target_rows], common


def _full_on_points(source: BasisOnIds, target: BasisOnIds) -> MapOnPoints:
    """Return the map between points whose ids correspond, and its distortions at the common points."""
    (source_basis, source_ids), (target_basis, target_ids) = source, target
    rows, target_rows, common = source_basis.eigenvectors, target_basis.eigenvectors, source_ids
    if len(source_ids) != len(target_ids) or (source_ids != target_ids).any():
        # Without a smallest overlap: the pair has scores, so it has enough common ids.
        (rows, target_rows), common = common_rows((rows, source_ids), (target_rows, target_ids), 0.0)
    functional_map = full_map(rows, target_rows)
    lost, missed = (
        distortion(functional_map, Basis(basis.eigenvalues[: of_points.shape[1]], of_points, np.nan))
        for distortion, basis, of_points in (
            (source_distortion, source_basis, rows),
            (target_distortion, target_basis, target_rows),
        )
    )
    return functional_map, lost, missed, common
