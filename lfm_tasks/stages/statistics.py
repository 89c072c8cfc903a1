"""The statistics that stand beside every score, one row of numbers a score."""

import numpy as np
from jaxtyping import Float

from lfm_tasks.measures.intervals import interval_reach, jackknife_error
from lfm_tasks.measures.permutation_null import calibrated, tail_p_value

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
    score: float,
    without_parts: Float[np.ndarray, " parts"],
    halves: Float[np.ndarray, " halves"],
    value_range: tuple[float, float] = (0.0, 1.0),
) -> tuple[float, float, float, float]:
    """Return the 95 % jackknife interval, inside the measure's range, and the score of each half; NaN without them."""
    low, high = np.nan, np.nan
    if len(without_parts) and np.isfinite(score) and np.isfinite(without_parts).all():
        reach = interval_reach(len(without_parts)) * float(jackknife_error(without_parts))
        # A score may leave its range by rounding: the interval holds it all the same.
        low, high = min(max(score - reach, value_range[0]), score), max(min(score + reach, value_range[1]), score)
    first, second = halves if len(halves) else (np.nan, np.nan)
    return low, high, float(first), float(second)
