"""Scores of functional maps, with the level of chance (exact for overlap if all rows are exchangeable), intervals."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from lfm_tasks.config import NullConfig
from lfm_tasks.measures.permutation_moments import (
    Profile,
    permutation_moments,
    upper_quantile,
    upper_tail,
)
from lfm_tasks.measures.permutation_null import Exchange, calibrated
from lfm_tasks.spectral import scores as map_scores
from lfm_tasks.spectral.kept_maps import PartedRows, maps_without_each_part, parted_rows
from lfm_tasks.spectral.null_maps import permutations_per_product, permuted_maps, permuted_rows
from lfm_tasks.stages.designs import Resampling
from lfm_tasks.stages.statistics import STATISTICS, against_chance, resampled

_NO_MAPS = np.empty((0, 1, 1), dtype=np.float32)


FullMap = Float[np.ndarray, "target source"]
ScoreFunction = Callable[[Float[np.ndarray, "*stack target source"]], Float[np.ndarray, "*stack"]]

# What stands beside the scores of each map; the last two only where a map was grown by ZoomOut.
DIAGNOSTICS = {
    "orthogonality_error": "|C'C - I|^2/K: 0 for an isometry",
    "commutativity_error": "|L_y C - C L_x|^2/|C|^2: 0 for an isometry",
    "map_residual": "mean distance of target rows to their images, in units of the scaled bases: 0 for an isometry",
    "points_found": "share of the target's points that the map leads to, where their ids tell",
}


@dataclass(frozen=True)
class MapScore:
    """A similarity computed from a functional map; ``has_null``: chance levels mean something for it.

    ``of_fitted`` is used where the map is fitted: its singular values may be larger than 1.
    """

    function: ScoreFunction
    has_null: bool
    convention: str
    of_fitted: ScoreFunction


def _score(
    function: ScoreFunction, has_null: bool, convention: str, of_fitted: ScoreFunction | None = None
) -> MapScore:
    return MapScore(function, has_null, convention, of_fitted or function)


MAP_SCORES: Mapping[str, MapScore] = {
    "lfm": _score(map_scores.lfm, True, "1 - |off(C'C)|^2/|C'C|^2, trivial mode dropped; asymmetric, in [0, 1]"),
    "lfm_raw": _score(map_scores.lfm_raw, False, "the same, trivial mode kept (the paper's); chance is close to 1"),
    "lfm_unsquared": _score(map_scores.lfm_unsquared, False, "unsquared norms, trivial mode kept (the paper's code)"),
    "overlap": _score(
        map_scores.overlap,
        True,
        "|C|^2/(K-1), trivial modes dropped; symmetric, in [0, 1]; of fitted maps singular values count up to 1",
        map_scores.capped_overlap,
    ),
}


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
) -> list[tuple[Float[np.ndarray, "2 measures statistics"], Float[np.ndarray, "2 diagnostics"]]]:
    """Return, for each source and its map, statistics and diagnostics of both directions.

    The map back is the transpose.
    """
    found = []
    # The chance level of overlap is known where all rows are exchangeable: then only others need permutations.
    drawn = any(MAP_SCORES[name].has_null and not _is_exact(name, exchange) for name in measures)
    rows = [source.rows for source, _ in sources]
    nulls = _null_maps(rows, target.rows, null, exchange) if drawn else [_NO_MAPS] * len(sources)
    for (source, maps), null_maps in zip(sources, nulls, strict=True):
        left = [
            _NO_MAPS if ours is None or theirs is None else maps_without_each_part(ours, theirs)
            for ours, theirs in ((source.parts, target.parts), (source.halves, target.halves))
        ]
        values = np.full((2, len(measures), len(STATISTICS)), np.nan)
        diagnostics = np.full((2, len(DIAGNOSTICS)), np.nan)
        spectra = (source.eigenvalues, target.eigenvalues)
        for direction in range(2):
            if direction:
                spectra = spectra[::-1]
                maps, null_maps = maps.T, np.swapaxes(null_maps, 1, 2)
                left = [np.swapaxes(stack, 1, 2) for stack in left]
            diagnostics[direction, :2] = map_errors(maps, *spectra)
            for column, name in enumerate(measures):
                measure = MAP_SCORES[name]
                score = float(measure.function(maps))
                values[direction, column, 0] = score
                if null.n_permutations and _is_exact(name, exchange):
                    values[direction, column, 1:5] = _against_exact_chance(score, source, target)
                elif len(null_maps) and measure.has_null:
                    chance = measure.function(null_maps).astype(np.float64)
                    values[direction, column, 1:5] = against_chance(score, chance)
                parts, halves = (_scores(measure, stack) for stack in left)
                values[direction, column, 5:9] = resampled(score, parts, halves)
        found.append((values, diagnostics))
    return found


def map_errors(
    maps: Float[np.ndarray, "target source"],
    source_eigenvalues: Float[np.ndarray, " source"],
    target_eigenvalues: Float[np.ndarray, " target"],
) -> tuple[float, float]:
    """Return the first two of `DIAGNOSTICS`."""
    commutes = map_scores.commutativity_error(maps, source_eigenvalues, target_eigenvalues)
    return float(map_scores.orthogonality_error(maps)), float(commutes)


def _is_exact(name: str, exchange: Exchange) -> bool:
    return name == "overlap" and not exchange.sets


def _scores(measure: MapScore, maps: Float[np.ndarray, "stack target source"]) -> Float[np.ndarray, " stack"]:
    """Return the scores of maps of which some may be NaN: bases that too few points were left to tell."""
    usable = np.isfinite(maps).all(axis=(1, 2))
    scores = np.full(len(maps), np.nan)
    if usable.any():
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
