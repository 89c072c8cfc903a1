"""Intervals for a score of one pair: the delete-a-group jackknife."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import t as student

N_GROUPS = 20


@dataclass(frozen=True)
class Interval:
    """A score with its jackknife standard error and interval."""

    score: float
    standard_error: float
    low: float
    high: float


def jackknife_interval(
    score_of_rows: Callable[[Int[np.ndarray, " kept"]], float],
    n_points: int,
    *,
    n_groups: int = N_GROUPS,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return the score of all points and its interval by leaving out one of ``n_groups`` random groups at a time.

    se² = (g − 1)/g Σ (s_(−j) − mean)², the interval is score ± t_(g − 1) se. Rows are never repeated: a bootstrap's
    repeated rows become each other's nearest neighbours, and its interval can miss its own estimate. What the score
    keeps fixed (a basis, say) is part of what the interval means.

    References
    ----------
    Efron, Tibshirani (1993), "An introduction to the bootstrap", section 11.5.
    """
    if n_points < 2 * n_groups:
        raise ValueError(f"found {n_points} points, {n_groups} groups need at least {2 * n_groups}")
    order = np.random.default_rng(seed).permutation(n_points)
    everything = float(score_of_rows(np.arange(n_points)))
    left: Float[np.ndarray, " groups"] = np.array(
        [score_of_rows(np.setdiff1d(order, group)) for group in np.array_split(order, n_groups)]
    )
    error = float(np.sqrt((n_groups - 1) / n_groups * np.square(left - left.mean()).sum()))
    reach = float(student.ppf((1 + confidence) / 2, n_groups - 1)) * error
    return Interval(everything, error, everything - reach, everything + reach)
