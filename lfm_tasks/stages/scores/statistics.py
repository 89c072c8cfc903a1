"""The statistics that stand beside every score, one row of numbers a score."""

import numpy as np
from jaxtyping import Float

from lfm_tasks.statistics.intervals import interval_reach, jackknife_error
from lfm_tasks.statistics.permutation_null import calibrated, tail_p_value

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
