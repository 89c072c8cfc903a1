"""Intervals for a mean over networks, pairs or draws: the percentile bootstrap over what was drawn independently."""

import numpy as np
from jaxtyping import Float

N_DRAWS = 2000


def mean_interval(
    values: Float[np.ndarray, " units"], *, seed: int = 0, confidence: float = 0.95
) -> tuple[float, float]:
    """Return the interval of the mean over units that were drawn independently; NaN for fewer than two."""
    present = values[np.isfinite(values)]
    if len(present) < 2:
        return float("nan"), float("nan")
    counts = _counts(len(present), seed)
    return _between(counts @ present / len(present), confidence)


def pair_interval(
    values: Float[np.ndarray, "networks networks"], *, seed: int = 0, confidence: float = 0.95
) -> tuple[float, float]:
    """Return the interval of the mean over pairs of different networks, the networks drawn, not the pairs.

    Pairs share networks, so they are not independent: an interval over them would be too narrow. Pairs of a network
    with itself take no part. NaN for fewer than three networks, of which draws would hold one pair only.

    References
    ----------
    Owen (2007), "The pigeonhole bootstrap".
    """
    if len(values) < 3 or not np.isfinite(values[~np.eye(len(values), dtype=bool)]).all():
        return float("nan"), float("nan")
    between = values.copy()
    np.fill_diagonal(between, 0)
    counts = _counts(len(values), seed)
    weights = counts.sum(axis=1) ** 2 - np.square(counts).sum(axis=1)
    means = np.einsum("di,ij,dj->d", counts, between, counts)[weights > 0] / weights[weights > 0]
    return _between(means, confidence)


def _counts(n_units: int, seed: int) -> Float[np.ndarray, "draws units"]:
    """Return how often each unit is in each draw."""
    return np.random.default_rng(seed).multinomial(n_units, np.full(n_units, 1 / n_units), N_DRAWS).astype(float)


def _between(means: Float[np.ndarray, " draws"], confidence: float) -> tuple[float, float]:
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
