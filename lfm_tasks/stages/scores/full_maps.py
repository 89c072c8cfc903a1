"""Scores of maps between points that are all known by their ids: a product for a tile of pairs, chance, intervals."""

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from cachetools import LRUCache
from jaxtyping import Float, Shaped

from lfm_tasks.config import NullConfig
from lfm_tasks.errors import DataError
from lfm_tasks.spectral.bases.full_map import (
    DIAGNOSTICS,
    MAP_SCORES,
    TILE_SIDE,
    MapScore,
    PartedRows,
    commutativity_error,
    full_map,
    full_maps,
    maps_without_each_part,
    orthogonality_error,
    parted_rows,
    permutations_per_product,
    permuted_maps,
    permuted_rows,
    whitened_rows,
)
from lfm_tasks.stages.inventory.correspondence import Resampling, common_ids
from lfm_tasks.stages.scores.block import (
    STATISTICS,
    BlockJob,
    BlockScores,
    Resamplings,
    against_chance,
    resampled,
)
from lfm_tasks.statistics.permutation_moments import (
    Profile,
    permutation_moments,
    permutation_profile,
    unpack,
    upper_quantile,
    upper_tail,
)
from lfm_tasks.statistics.resampling import Exchange, calibrated

_NO_MAPS = np.empty((0, 1, 1), dtype=np.float32)
# Maps without parts of the points that are scored at once.
_MOST_BYTES = 32 << 20


FullMap = Float[np.ndarray, "target source"]


@dataclass(frozen=True)
class BasisRows:
    """A basis on a list of points, in parts and halves (where there are such), and its overlap by chance."""

    eigenvalues: Float[np.ndarray, " eigenpairs"]
    rows: Float[np.ndarray, "points eigenpairs"]
    profile: Profile
    parts: PartedRows | None
    halves: PartedRows | None


def basis_rows(
    eigenvalues: Float[np.ndarray, " eigenpairs"],
    rows: Float[np.ndarray, "points eigenpairs"],
    profile: Profile,
    resampling: Resampling,
) -> BasisRows:
    """Return a basis with what its resampled scores need."""
    parts = None if resampling.parts is None else parted_rows(rows, resampling.parts, resampling.n_parts)
    halves = None if resampling.halves is None else parted_rows(rows, resampling.halves, 2)
    return BasisRows(eigenvalues, rows, profile, parts, halves)


def score_both_ways(
    sources: list[tuple[BasisRows, FullMap]],
    target: BasisRows,
    measures: list[str],
    null: NullConfig,
    exchange: Exchange,
) -> tuple[Float[np.ndarray, "sources 2 measures statistics"], Float[np.ndarray, "sources 2 diagnostics"]]:
    """Return, for each source and its map, statistics and diagnostics of both directions; all have equally many rows.

    The map back is the transpose.
    """
    values = np.full((len(sources), 2, len(measures), len(STATISTICS)), np.nan)
    diagnostics = np.full((len(sources), 2, len(DIAGNOSTICS)), np.nan)
    n_parts = sum(len(parted.rows) for parted in (target.parts, target.halves) if parted is not None)
    step = max(1, _MOST_BYTES // (8 * (n_parts + 1) * target.rows.shape[1] ** 2))
    for start in range(0, len(sources), step):
        some = slice(start, start + step)
        _score_maps(sources[some], target, measures, values[some], diagnostics[some])
    # The chance level of a trace is known where all rows are exchangeable: then only others need permutations.
    drawn_for = [name for name in measures if exchange.sets or MAP_SCORES[name].trace_scale is None]
    if any(MAP_SCORES[name].has_null for name in drawn_for):
        drawn = _null_maps([source.rows for source, _ in sources], target.rows, null, exchange)
    else:
        drawn = [_NO_MAPS] * len(sources)
    for (source, _), null_maps, both in zip(sources, drawn, values, strict=True):
        for direction, chance in enumerate((null_maps, np.swapaxes(null_maps, 1, 2))):
            for column, name in enumerate(measures):
                measure, row = MAP_SCORES[name], both[direction, column]
                if null.n_permutations and measure.trace_scale is not None and not exchange.sets:
                    scale = measure.trace_scale(source.rows.shape[1], target.rows.shape[1])
                    row[1:5] = _against_exact_chance(float(row[0]), source, target, scale)
                elif len(chance) and measure.has_null:
                    row[1:5] = against_chance(float(row[0]), measure.function(chance).astype(np.float64))
    return values, diagnostics


def _score_maps(
    sources: list[tuple[BasisRows, FullMap]],
    target: BasisRows,
    measures: list[str],
    values: Float[np.ndarray, "sources 2 measures statistics"],
    diagnostics: Float[np.ndarray, "sources 2 diagnostics"],
) -> None:
    """Fill in scores, intervals, halves and diagnostics, of all sources at once: calls cost more than their sums."""
    maps = np.stack([of_parts for _, of_parts in sources])
    left = [
        _without_parts([source.parts for source, _ in sources], target.parts),
        _without_parts([source.halves for source, _ in sources], target.halves),
    ]
    spectra = np.stack([source.eigenvalues for source, _ in sources]), target.eigenvalues
    for direction in range(2):
        if direction:
            maps, left, spectra = (
                np.swapaxes(maps, -1, -2),
                [np.swapaxes(of_parts, -1, -2) for of_parts in left],
                spectra[::-1],
            )
        diagnostics[:, direction, 0], diagnostics[:, direction, 1] = map_errors(maps, *spectra)
        for column, name in enumerate(measures):
            measure = MAP_SCORES[name]
            scores = measure.function(maps)
            values[:, direction, column, 0] = scores
            parts, halves = (_scores(measure, of_parts) for of_parts in left)
            values[:, direction, column, 5:9] = resampled(scores, parts, halves)


def _without_parts(
    sources: Sequence[PartedRows | None], target: PartedRows | None
) -> Float[np.ndarray, "sources parts target source"]:
    """Return the maps without each part of the points; empty where points are not parted."""
    if target is None:
        return np.empty((len(sources), 0, 1, 1))
    return np.stack([maps_without_each_part(source, target) for source in sources if source is not None])


def map_errors(
    maps: Float[np.ndarray, "*stack target source"],
    source_eigenvalues: Float[np.ndarray, "*#stack source"],
    target_eigenvalues: Float[np.ndarray, "*#stack target"],
) -> tuple[Float[np.ndarray, "*stack"], Float[np.ndarray, "*stack"]]:
    """Return the first two of `DIAGNOSTICS`."""
    commutes = commutativity_error(maps, source_eigenvalues, target_eigenvalues)
    return orthogonality_error(maps), commutes


def _scores(
    measure: MapScore, maps: Float[np.ndarray, "pairs parts target source"]
) -> Float[np.ndarray, "pairs parts"]:
    """Return the scores of maps of which some may be NaN: bases that too few points were left to tell."""
    if not maps.size:
        return np.empty(maps.shape[:2])
    usable = np.isfinite(maps).all(axis=(-2, -1))
    if usable.all():
        return measure.function(maps)
    scores = np.full(usable.shape, np.nan)
    scores[usable] = measure.function(maps[usable])
    return scores


def _null_maps(sources: list[np.ndarray], target: np.ndarray, null: NullConfig, exchange: Exchange) -> list[np.ndarray]:
    """Return, for each source, the maps (permutations, target, source) of permuted rows.

    Permutation r of n points is the same for every pair: its generator counts (seed, r), whoever asks.
    """
    n_points, n_permutations = len(target), null.n_permutations
    maps = [np.empty((n_permutations, target.shape[1], source.shape[1]), dtype=np.float32) for source in sources]
    step = permutations_per_product(n_points, target.shape[1])
    for start in range(0, n_permutations if sources else 0, step):
        draws = range(start, min(start + step, n_permutations))
        wide = permuted_rows(target, np.stack([exchange.permutation(r, seed=null.seed) for r in draws]))
        for source, filled in zip(sources, maps, strict=True):
            filled[start : start + len(draws)] = permuted_maps(source, wide, len(draws))
    return maps


def _against_exact_chance(
    score: float, source: BasisRows, target: BasisRows, scale: int
) -> tuple[float, float, float, float]:
    """Return what `against_chance` would over all permutations, from their moments, for a trace over its ``scale``."""
    moments = permutation_moments(source.profile, target.profile)
    mean = moments.mean / scale
    quantile, p = upper_quantile(moments, 0.95) / scale, upper_tail(moments, score * scale)
    return mean, quantile, calibrated(score, mean), p


# A basis is read by every block that it is part of, 33 times among 1,000 spaces. To read and part one of 300 points
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
        parted = [rows_by_part for rows_by_part in (self.rows.parts, self.rows.halves) if rows_by_part is not None]
        arrays = [
            self.rows.rows,
            *(rows_by_part.whiteners for rows_by_part in parted),
            *(rows for rows_by_part in parted for rows in rows_by_part.rows),
        ]
        return of_ids + sum(array.nbytes for array in arrays)


# Content addresses are part of the keys: no entry is ever out of date.
_BASES: LRUCache[Hashable, CachedBasis] = LRUCache(MOST_BASES, getsizeof=lambda basis: basis.nbytes)


def read_cached_basis(job: BlockJob, key: str, resamplings: Resamplings) -> CachedBasis:
    """Return a basis with its rows in the parts that its resampled scores need; a large one is not kept."""
    intervals = job.atlas.intervals
    address = job.store.root, key, job.exchangeability, intervals.n_groups, intervals.seed
    basis: CachedBasis | None = _BASES.get(address)
    if basis is None:
        basis = _read_basis(job, key, resamplings)
        if basis.nbytes <= LARGEST_BASE:
            _BASES[address] = basis
    return basis


def _read_basis(job: BlockJob, key: str, resamplings: Resamplings) -> CachedBasis:
    ids_key = str(job.store.receipt("activations", job.activations[key]).facts["ids"])
    with job.store.open("bases", key) as unit:
        eigenvalues, eigenvectors, ids = unit.read("eigenvalues"), unit.read("eigenvectors"), unit.read("ids")
        profile = unpack(unit.read("overlap_profile"), len(eigenvectors))
    try:
        rows = basis_rows(eigenvalues, eigenvectors, profile, resamplings.of(ids, ids_key))
    except DataError as error:
        return CachedBasis(error, ids, ids_key)
    return CachedBasis(rows, ids, ids_key)


def score_full_maps(
    job: BlockJob, keys: list[str], scores: BlockScores, resamplings: Resamplings
) -> dict[str, np.ndarray]:
    """Fill in the measures of maps between points that are all known by their ids; return the ids of each basis."""
    cached = {key: read_cached_basis(job, key, resamplings) for key in keys}
    ids, lists = (
        {key: basis.ids for key, basis in cached.items()},
        {key: basis.ids_key for key, basis in cached.items()},
    )
    bases = {key: basis.rows for key, basis in cached.items() if isinstance(basis.rows, BasisRows)}
    refused_spaces = {key: basis.rows for key, basis in cached.items() if isinstance(basis.rows, DataError)}
    scores.refusals.update(
        {index: refused_spaces[key] for index, pair in enumerate(job.pairs) for key in pair if key in refused_spaces}
    )
    names = list(scores.of_maps)
    maps = _known_maps(
        {index: pair for index, pair in enumerate(job.pairs) if index not in scores.refusals}, bases, lists
    )
    for second, indices in _by_target(job.pairs, scores.refusals).items():
        alike = [index for index in indices if index in maps]
        # Chance is sampled by permuting the target's rows: laid out once for all sources on the same points.
        sources = [(bases[job.pairs[index][0]], maps[index]) for index in alike]
        exchange = resamplings.of(ids[second], lists[second]).exchange
        if alike:
            values, diagnostics = score_both_ways(sources, bases[second], names, job.atlas.null, exchange)
            scores.n_common[alike], scores.diagnostics[alike] = len(ids[second]), diagnostics
            scores.values[np.ix_(alike, range(2), scores.columns)] = values
        for index in sorted(set(indices) - set(alike)):
            first = job.pairs[index][0]
            try:
                rows, common = common_rows(
                    (bases[first].rows, ids[first]), (bases[second].rows, ids[second]), job.atlas.min_overlap
                )
                chance = resamplings.of(common)
                source, target = (
                    basis_rows(bases[key].eigenvalues, basis, permutation_profile(basis[:, 1:]), chance)
                    for key, basis in zip((first, second), rows, strict=True)
                )
            except DataError as error:
                scores.refusals[index] = error
                continue
            scores.n_common[index] = len(common)
            (values,), (scores.diagnostics[index],) = score_both_ways(
                [(source, full_map(source.rows, target.rows))], target, names, job.atlas.null, chance.exchange
            )
            scores.values[index][:, scores.columns] = values
    for index in scores.refusals:
        first, second = job.pairs[index]
        scores.n_common[index] = len(common_ids(ids[first], ids[second])[0])
    return ids


def _by_target(pairs: tuple[tuple[str, str], ...], refused: Collection[int]) -> dict[str, list[int]]:
    """Return the numbers of the pairs that are not refused by their second basis."""
    indices: dict[str, list[int]] = {}
    for index, (_, second) in enumerate(pairs):
        if index not in refused:
            indices.setdefault(second, []).append(index)
    return indices


def _known_maps(
    pairs: Mapping[int, tuple[str, str]], bases: Mapping[str, BasisRows], lists: Mapping[str, str]
) -> dict[int, np.ndarray]:
    """Return the maps of pairs on the same points, a tile of them at a time; ``lists``: digests of the ids of bases."""
    alike = {index: pair for index, pair in pairs.items() if lists[pair[0]] == lists[pair[1]]}
    keys = sorted({key for pair in alike.values() for key in pair}, key=lambda key: (lists[key], key))
    tiles: dict[tuple[str, int, int], list[int]] = {}
    place = {key: index // TILE_SIDE for index, key in enumerate(keys)}
    for index, (first, second) in alike.items():
        tiles.setdefault((lists[first], place[first], place[second]), []).append(index)
    known = {}
    for indices in tiles.values():
        sources, targets = (list(dict.fromkeys(alike[index][side] for index in indices)) for side in range(2))
        maps = full_maps([bases[key].rows for key in sources], [bases[key].rows for key in targets])
        for index in indices:
            first, second = alike[index]
            known[index] = maps[targets.index(second), sources.index(first)]
    return known


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
