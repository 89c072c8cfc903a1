"""Scores of functional maps, with the level of chance: exactly for overlap, by permuted rows for the others."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from lfm_tasks.config import AtlasConfig
from lfm_tasks.measures.permutation_moments import (
    Profile,
    permutation_moments,
    upper_quantile,
    upper_tail,
)
from lfm_tasks.measures.permutation_null import calibrated, permutation
from lfm_tasks.spectral import scores as map_scores
from lfm_tasks.spectral.full_map import full_map
from lfm_tasks.spectral.null_maps import permutations_per_product, permuted_maps, permuted_rows

STATISTICS = ("score", "null_mean", "null_q95", "calibrated", "p_value", "ci_low", "ci_high")
_NO_MAPS = np.empty((0, 1, 1), dtype=np.float32)


@dataclass(frozen=True)
class MapScore:
    """A similarity computed from a functional map; ``has_null``: chance levels mean something for it."""

    function: Callable[[Float[np.ndarray, "*stack target source"]], Float[np.ndarray, "*stack"]]
    has_null: bool
    convention: str


MAP_SCORES: Mapping[str, MapScore] = {
    "lfm": MapScore(map_scores.lfm, True, "1 - |off(C'C)|^2/|C'C|^2, trivial mode dropped; asymmetric, in [0, 1]"),
    "lfm_raw": MapScore(map_scores.lfm_raw, False, "the same, trivial mode kept (the paper's); chance is close to 1"),
    "lfm_unsquared": MapScore(map_scores.lfm_unsquared, False, "unsquared norms, trivial mode kept (the paper's code)"),
    "overlap": MapScore(map_scores.overlap, True, "|C|^2/(K-1), trivial modes dropped; symmetric, in [0, 1]"),
}


@dataclass(frozen=True)
class BasisRows:
    """Eigenvectors on a list of points, and what their overlap with others is by chance (without the trivial mode)."""

    rows: Float[np.ndarray, "points eigenpairs"]
    profile: Profile


def score_both_ways(
    sources: list[BasisRows], target: BasisRows, measures: list[str], atlas: AtlasConfig
) -> list[Float[np.ndarray, "2 measures statistics"]]:
    """Return, for each source, the statistics of both directions; the map back is the transpose."""
    found = []
    # The chance level of overlap is known; permutations are drawn only where something else needs them.
    drawn = any(MAP_SCORES[name].has_null and name != "overlap" for name in measures)
    rows = [source.rows for source in sources]
    nulls = _null_maps(rows, target.rows, atlas) if drawn else [_NO_MAPS] * len(sources)
    for source, null in zip(sources, nulls, strict=True):
        there = full_map(source.rows, target.rows)
        values = np.full((2, len(measures), len(STATISTICS)), np.nan)
        for direction, (maps, null_maps) in enumerate(((there, null), (there.T, np.swapaxes(null, 1, 2)))):
            for column, name in enumerate(measures):
                measure = MAP_SCORES[name]
                score = float(measure.function(maps))
                values[direction, column, 0] = score
                if name == "overlap" and atlas.null.n_permutations:
                    values[direction, column, 1:5] = _against_exact_chance(score, source, target)
                elif len(null_maps) and measure.has_null:
                    chance = measure.function(null_maps).astype(np.float64)
                    values[direction, column, 1:5] = _against_chance(score, chance)
        found.append(values)
    return found


def _null_maps(sources: list[np.ndarray], target: np.ndarray, atlas: AtlasConfig) -> list[np.ndarray]:
    """Return, for each source, the maps (permutations, target, source) of permuted rows.

    Permutation r of n points is the same for every pair: its generator counts (seed, r), whoever asks.
    """
    n_points, n_permutations = len(target), atlas.null.n_permutations
    maps = [np.empty((n_permutations, target.shape[1], source.shape[1]), dtype=np.float32) for source in sources]
    step = permutations_per_product(n_points, target.shape[1])
    for start in range(0, n_permutations if sources else 0, step):
        numbers = range(start, min(start + step, n_permutations))
        wide = permuted_rows(target, np.stack([permutation(r, n_points, seed=atlas.null.seed) for r in numbers]))
        for source, filled in zip(sources, maps, strict=True):
            filled[start : start + len(numbers)] = permuted_maps(source, wide, len(numbers))
    return maps


def _against_exact_chance(score: float, source: BasisRows, target: BasisRows) -> tuple[float, float, float, float]:
    """Return the same for overlap over all permutations, from their moments (Pearson III for quantile and p-value)."""
    n_modes = min(source.rows.shape[1], target.rows.shape[1]) - 1
    moments = permutation_moments(source.profile, target.profile)
    mean = moments.mean / n_modes
    quantile, p = upper_quantile(moments, 0.95) / n_modes, upper_tail(moments, score * n_modes)
    return mean, quantile, calibrated(score, mean), p


def _against_chance(score: float, chance: Float[np.ndarray, " permutations"]) -> tuple[float, float, float, float]:
    """Return null mean, its 95 % quantile, calibrated score (chance 0, best 1), and p = (1 + #{≥})/(1 + n)."""
    mean = float(chance.mean())
    calibrated = (score - mean) / (1 - mean)
    p_value = (1 + int(np.count_nonzero(chance >= score))) / (1 + len(chance))
    return mean, float(np.quantile(chance, 0.95)), calibrated, p_value
