"""Intervals for a score of one pair: the delete-a-group jackknife."""

import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy.special import stdtrit


def random_parts(
    n_points: int, n_parts: int, *, seed: int = 0, groups: Shaped[np.ndarray, " points"] | None = None
) -> Int[np.ndarray, " points"]:
    """Return for each row which of ``n_parts`` random parts of equal size it is in; two parts are two halves.

    ``groups``: rows that belong together (frames of one film) are in one part.

    Raises
    ------
    ValueError
        If there are fewer than two rows, or groups, a part.
    """
    if groups is None:
        n_units, unit = n_points, np.arange(n_points)
    else:
        names, unit = np.unique(groups, return_inverse=True)
        n_units = len(names)
    if n_units < 2 * n_parts:
        what = "points" if groups is None else "groups of points"
        raise ValueError(f"found {n_units} {what}, {n_parts} parts need at least {2 * n_parts}")
    part_of_unit = np.empty(n_units, dtype=np.int64)
    part_of_unit[np.random.default_rng(seed).permutation(n_units)] = np.arange(n_units) * n_parts // n_units
    return part_of_unit[unit]


def jackknife_error(left: Float[np.ndarray, "groups *scores"]) -> Float[np.ndarray, "*scores"]:
    """Return the standard error √((g − 1)/g Σ (s_(−j) − mean)²) of scores without one of g groups each.

    Rows are never repeated: a bootstrap's repeated rows become each other's nearest neighbors, and its interval can
    miss its own estimate. What the score keeps fixed (a basis, say) is part of what the interval means.

    References
    ----------
    Efron, Tibshirani (1993), "An introduction to the bootstrap", section 11.5.
    """
    n_groups = len(left)
    return np.asarray(np.sqrt((n_groups - 1) / n_groups * np.square(left - left.mean(axis=0)).sum(axis=0)))


def interval_reach(n_groups: int, confidence: float = 0.95) -> float:
    """Return how many standard errors an interval reaches to each side: Student's t of g − 1."""
    return float(stdtrit(n_groups - 1, (1 + confidence) / 2))


def split_half_reliability(first: Float[np.ndarray, " pairs"], second: Float[np.ndarray, " pairs"]) -> float:
    """Return 2r/(1 + r), r the correlation of scores from one half of the points and from the other, over pairs.

    The noise ceiling: what the scores of all points would correlate with those of as many new points; nothing can be
    expected to correlate more than its root with them. NaN for fewer than 3 pairs, or scores that do not vary.

    References
    ----------
    Spearman (1910), "Correlation calculated from faulty data"; Brown (1910), "Some experimental results".
    """
    both = np.isfinite(first) & np.isfinite(second)
    a, b = first[both], second[both]
    if len(a) < 3 or min(np.ptp(a), np.ptp(b)) <= 1e-12:
        return float("nan")
    r = float(np.corrcoef(a, b)[0, 1])
    return 2 * r / (1 + r) if r > -1 else float("nan")


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
