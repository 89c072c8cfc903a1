"""Scores of maps between points that are all known by their ids: a product for a tile of pairs, chance, intervals."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped

from lfm_tasks.errors import DataError
from lfm_tasks.runtime.cache import Remembered
from lfm_tasks.spectral.bases.full_map import TILE_SIDE, full_map, full_maps, whitened_rows
from lfm_tasks.stages.inventory.correspondence import common_ids
from lfm_tasks.stages.scores.block import BlockJob, BlockScores, Resamplings
from lfm_tasks.stages.scores.map_measures import BasisRows, basis_rows, score_both_ways
from lfm_tasks.statistics.permutation_moments import permutation_profile, unpack

# A base is read by every block that it is part of, 33 times among 1,000 spaces. To read and part one of 300 points
# takes as long as to score eight pairs; of 10,000 points it is little beside their products.
LARGEST_BASE, MOST_BASES = 2 << 20, 128 << 20


@dataclass(frozen=True)
class CachedBasis:
    """A basis on its points, or why it cannot be parted; their ids, and the digest of these."""

    rows: BasisRows | DataError
    ids: Shaped[np.ndarray, " points"]
    ids_key: str

    @property
    def nbytes(self) -> int:
        """How much memory it takes: rows once more for each way they are parted, whiteners, ids."""
        of_ids = 64 * len(self.ids)
        if isinstance(self.rows, DataError):
            return of_ids
        parted = [own for own in (self.rows.parts, self.rows.halves) if own is not None]
        arrays = [self.rows.rows, *(own.whiteners for own in parted), *(rows for own in parted for rows in own.rows)]
        return of_ids + sum(array.nbytes for array in arrays)


_BASES: Remembered[CachedBasis] = Remembered(MOST_BASES, LARGEST_BASE)


def read_cached_basis(job: BlockJob, key: str, resamplings: Resamplings) -> CachedBasis:
    """Return a base with its rows in the parts that its resampled scores need."""

    def read() -> CachedBasis:
        ids_key = str(job.store.receipt("activations", job.activations[key]).facts["ids"])
        with job.store.open("bases", key) as unit:
            eigenvalues, eigenvectors, ids = unit.read("eigenvalues"), unit.read("eigenvectors"), unit.read("ids")
            profile = unpack(unit.read("overlap_profile"), len(eigenvectors))
        try:
            rows = basis_rows(eigenvalues, eigenvectors, profile, resamplings.of(ids, ids_key))
        except DataError as error:
            return CachedBasis(error, ids, ids_key)
        return CachedBasis(rows, ids, ids_key)

    intervals = job.atlas.intervals
    return _BASES.get((job.store.root, key, job.design, intervals.n_groups, intervals.seed), read)


def score_full_maps(
    job: BlockJob, keys: list[str], scores: BlockScores, resamplings: Resamplings
) -> dict[str, np.ndarray]:
    """Fill in the measures of maps between points that are all known by their ids; return the ids of each base."""
    known = {key: read_cached_basis(job, key, resamplings) for key in keys}
    ids, lists = {key: own.ids for key, own in known.items()}, {key: own.ids_key for key, own in known.items()}
    bases = {key: own.rows for key, own in known.items() if isinstance(own.rows, BasisRows)}
    refused_spaces = {key: own.rows for key, own in known.items() if isinstance(own.rows, DataError)}
    scores.refusals.update(
        {number: refused_spaces[key] for number, pair in enumerate(job.pairs) for key in pair if key in refused_spaces}
    )
    names = list(scores.of_maps)
    maps = _known_maps(
        {number: pair for number, pair in enumerate(job.pairs) if number not in scores.refusals}, bases, lists
    )
    for second, numbers in _by_target(job.pairs, scores.refusals).items():
        alike = [number for number in numbers if number in maps]
        # Chance is sampled by permuting the target's rows: laid out once for all sources on the same points.
        sources = [(bases[job.pairs[number][0]], maps[number]) for number in alike]
        exchange = resamplings.of(ids[second], lists[second]).exchange
        if alike:
            values, diagnostics = score_both_ways(sources, bases[second], names, job.atlas.null, exchange)
            scores.n_common[alike], scores.diagnostics[alike] = len(ids[second]), diagnostics
            scores.values[np.ix_(alike, range(2), scores.columns)] = values
        for number in sorted(set(numbers) - set(alike)):
            first = job.pairs[number][0]
            try:
                rows, common = common_rows(
                    (bases[first].rows, ids[first]), (bases[second].rows, ids[second]), job.atlas.min_overlap
                )
                chance = resamplings.of(common)
                source, target = (
                    basis_rows(bases[key].eigenvalues, own, permutation_profile(own[:, 1:]), chance)
                    for key, own in zip((first, second), rows, strict=True)
                )
            except DataError as error:
                scores.refusals[number] = error
                continue
            scores.n_common[number] = len(common)
            (values,), (scores.diagnostics[number],) = score_both_ways(
                [(source, full_map(source.rows, target.rows))], target, names, job.atlas.null, chance.exchange
            )
            scores.values[number][:, scores.columns] = values
    for number in scores.refusals:
        first, second = job.pairs[number]
        scores.n_common[number] = len(common_ids(ids[first], ids[second])[0])
    return ids


def _by_target(pairs: tuple[tuple[str, str], ...], refused: Collection[int]) -> dict[str, list[int]]:
    """Return the numbers of the pairs that are not refused by their second base."""
    numbers: dict[str, list[int]] = {}
    for number, (_, second) in enumerate(pairs):
        if number not in refused:
            numbers.setdefault(second, []).append(number)
    return numbers


def _known_maps(
    pairs: Mapping[int, tuple[str, str]], bases: Mapping[str, BasisRows], lists: Mapping[str, str]
) -> dict[int, np.ndarray]:
    """Return the maps of pairs on the same points, a tile of them at a time; ``lists``: digests of the ids of bases."""
    alike = {number: pair for number, pair in pairs.items() if lists[pair[0]] == lists[pair[1]]}
    keys = sorted({key for pair in alike.values() for key in pair}, key=lambda key: (lists[key], key))
    tiles: dict[tuple[str, int, int], list[int]] = {}
    place = {key: number // TILE_SIDE for number, key in enumerate(keys)}
    for number, (first, second) in alike.items():
        tiles.setdefault((lists[first], place[first], place[second]), []).append(number)
    found = {}
    for numbers in tiles.values():
        sources, targets = (list(dict.fromkeys(alike[number][side] for number in numbers)) for side in range(2))
        maps = full_maps([bases[key].rows for key in sources], [bases[key].rows for key in targets])
        for number in numbers:
            first, second = alike[number]
            found[number] = maps[targets.index(second), sources.index(first)]
    return found


def common_rows(
    source: tuple[np.ndarray, np.ndarray], target: tuple[np.ndarray, np.ndarray], min_overlap: float
) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Return both bases, given as (rows, ids), on the ids that they share, orthonormal there; and these, in order."""
    (first, first_ids), (second, second_ids) = source, target
    common, of_first, of_second = common_ids(first_ids, second_ids)
    smaller = min(len(first_ids), len(second_ids))
    if not len(of_first):
        found = f"found no common ids among {smaller}, needs the same samples"
        raise DataError("no_overlap", f"{found}: record both spaces on them")
    if len(of_first) < min_overlap * smaller:
        raise DataError(
            "little_overlap",
            f"found {len(of_first)} common ids of {smaller}, atlas.min_overlap needs a share of {min_overlap}: record "
            "both on the same samples, or lower it",
        )
    return (whitened_rows(first[of_first]), whitened_rows(second[of_second])), common
