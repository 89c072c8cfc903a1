"""Scores of functional maps, with the level of chance (exact for overlap if all rows are exchangeable), intervals."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from lfm_tasks.config import NullConfig
from lfm_tasks.spectral.bases import full_map
from lfm_tasks.spectral.bases.full_map import (
    DIAGNOSTICS,
    MAP_SCORES,
    MapScore,
    PartedRows,
    maps_without_each_part,
    parted_rows,
    permutations_per_product,
    permuted_maps,
    permuted_rows,
)
from lfm_tasks.stages.inventory.correspondence import Resampling
from lfm_tasks.statistics.intervals import interval_reach, jackknife_error
from lfm_tasks.statistics.permutation_moments import Profile, permutation_moments, upper_quantile, upper_tail
from lfm_tasks.statistics.permutation_null import Exchange, calibrated, tail_p_value

# What a block stores of each score. half_1 and half_2: the score from each half of the points alone.
STATISTICS = ("score", "null_mean", "null_q95", "calibrated", "p_value", "ci_low", "ci_high", "half_1", "half_2")


def against_chance(
    score: float, chance: Float[np.ndarray, " permutations"], *, is_distance: bool = False
) -> tuple[float, float, float, float]:
    """Return null mean, the quantile that 1 in 20 permutations beats, calibrated score, p-value; NaN without chance."""
    if not len(chance) or not np.isfinite(score) or not np.isfinite(chance).all():
        return (np.nan,) * 4
    mean = float(chance.mean())
    edge = float(np.quantile(chance, 0.05 if is_distance else 0.95))
    p = tail_p_value(score, chance, is_distance=is_distance)
    return mean, edge, calibrated(score, mean, best=0.0 if is_distance else 1.0), p


def resampled(
    scores: Float[np.ndarray, "*pairs"],
    without_parts: Float[np.ndarray, "*pairs parts"],
    halves: Float[np.ndarray, "*pairs halves"],
    value_range: tuple[float, float] = (0.0, 1.0),
) -> Float[np.ndarray, "*pairs 4"]:
    """Return the 95 % jackknife interval, inside the measure's range, and the score of each half; NaN without them."""
    found = np.full((*scores.shape, 4), np.nan)
    n_parts = without_parts.shape[-1]
    if n_parts:
        # Parts of a pair lie together, or the order of a sum would depend on how many pairs there are.
        left = np.moveaxis(np.ascontiguousarray(without_parts), -1, 0)
        reach = interval_reach(n_parts) * jackknife_error(left)
        # A score may leave its range by rounding: the interval holds it all the same.
        found[..., 0] = np.minimum(np.maximum(scores - reach, value_range[0]), scores)
        found[..., 1] = np.maximum(np.minimum(scores + reach, value_range[1]), scores)
        found[~(np.isfinite(scores) & np.isfinite(left).all(axis=0)), :2] = np.nan
    if halves.shape[-1]:
        found[..., 2:] = halves
    return found


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
    n_parts = sum(len(own.rows) for own in (target.parts, target.halves) if own is not None)
    step = max(1, _MOST_BYTES // (8 * (n_parts + 1) * target.rows.shape[1] ** 2))
    for start in range(0, len(sources), step):
        some = slice(start, start + step)
        _score_maps(sources[some], target, measures, values[some], diagnostics[some])
    # The chance level of overlap is known where all rows are exchangeable: then only others need permutations.
    if any(MAP_SCORES[name].has_null and not _is_exact(name, exchange) for name in measures):
        drawn = _null_maps([source.rows for source, _ in sources], target.rows, null, exchange)
    else:
        drawn = [_NO_MAPS] * len(sources)
    for (source, _), null_maps, both in zip(sources, drawn, values, strict=True):
        for direction, chance in enumerate((null_maps, np.swapaxes(null_maps, 1, 2))):
            for column, name in enumerate(measures):
                measure, row = MAP_SCORES[name], both[direction, column]
                if null.n_permutations and _is_exact(name, exchange):
                    row[1:5] = _against_exact_chance(float(row[0]), source, target)
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
    maps = np.stack([own for _, own in sources])
    left = [
        _without_parts([source.parts for source, _ in sources], target.parts),
        _without_parts([source.halves for source, _ in sources], target.halves),
    ]
    spectra = np.stack([source.eigenvalues for source, _ in sources]), target.eigenvalues
    for direction in range(2):
        if direction:
            maps, left, spectra = np.swapaxes(maps, -1, -2), [np.swapaxes(own, -1, -2) for own in left], spectra[::-1]
        diagnostics[:, direction, 0], diagnostics[:, direction, 1] = map_errors(maps, *spectra)
        for column, name in enumerate(measures):
            measure = MAP_SCORES[name]
            scores = measure.function(maps)
            values[:, direction, column, 0] = scores
            parts, halves = (_scores(measure, own) for own in left)
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
    commutes = full_map.commutativity_error(maps, source_eigenvalues, target_eigenvalues)
    return full_map.orthogonality_error(maps), commutes


def _is_exact(name: str, exchange: Exchange) -> bool:
    return name == "overlap" and not exchange.sets


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
        numbers = range(start, min(start + step, n_permutations))
        wide = permuted_rows(target, np.stack([exchange.permutation(r, seed=null.seed) for r in numbers]))
        for source, filled in zip(sources, maps, strict=True):
            filled[start : start + len(numbers)] = permuted_maps(source, wide, len(numbers))
    return maps


def _against_exact_chance(score: float, source: BasisRows, target: BasisRows) -> tuple[float, float, float, float]:
    """Return the same as `against_chance` for overlap over all permutations, from their moments."""
    n_modes = min(source.rows.shape[1], target.rows.shape[1]) - 1
    moments = permutation_moments(source.profile, target.profile)
    mean = moments.mean / n_modes
    quantile, p = upper_quantile(moments, 0.95) / n_modes, upper_tail(moments, score * n_modes)
    return mean, quantile, calibrated(score, mean), p
