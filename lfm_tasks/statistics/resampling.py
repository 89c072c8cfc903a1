"""Chance and uncertainty of a score by resampling points: permutation nulls, p-values, jackknife intervals."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy.special import gammainc, gammaincc, gammainccinv, gammaincinv, ndtr, ndtri, stdtrit

# Below this skewness the curve is a normal one to all digits that matter; scipy.stats draws the line here as well.
_SMALLEST_SKEWNESS = 1.6e-5


def upper_share(value: float, skewness: float) -> float:
    """Return P(X > ``value``) for the curve of mean 0, deviation 1 and this skewness."""
    return float(upper_shares(np.array(value), np.array(skewness)))


def value_below(share: float, skewness: float) -> float:
    """Return the value that a ``share`` of the curve of mean 0, deviation 1 and this skewness lies below."""
    return float(values_below(share, np.array(skewness)))


def upper_shares(
    values: Float[np.ndarray, "*pairs"], skewness: Float[np.ndarray, "*pairs"]
) -> Float[np.ndarray, "*pairs"]:
    """Return P(X > value) for curves of mean 0, deviation 1 and a skewness each (Pearson type III).

    With a = 4/s² and x = a + 2z/s it is Q(a, x) for s > 0, and P(a, x) for s < 0: incomplete gamma functions.
    """
    is_normal = np.abs(skewness) < _SMALLEST_SKEWNESS
    steep = np.where(is_normal, 1.0, skewness)
    shape = 4 / steep**2
    places = np.maximum(shape + 2 * values / steep, 0.0)
    tails = np.where(steep > 0, gammaincc(shape, places), gammainc(shape, places))
    return np.asarray(np.where(is_normal, ndtr(-values), tails))


def values_below(share: float, skewness: Float[np.ndarray, "*pairs"]) -> Float[np.ndarray, "*pairs"]:
    """Return the values that a ``share`` of the curves of `upper_shares` lies below."""
    is_normal = np.abs(skewness) < _SMALLEST_SKEWNESS
    steep = np.where(is_normal, 1.0, skewness)
    shape = 4 / steep**2
    places = np.where(steep > 0, gammaincinv(shape, share), gammainccinv(shape, share))
    return np.asarray(np.where(is_normal, ndtri(share), (places - shape) * steep / 2))


def rows_by_value(values: Shaped[np.ndarray, " rows"]) -> tuple[Int[np.ndarray, " _"], ...]:
    """Return the rows that have each value: values ascending, rows in their order; nothing for no rows."""
    order = np.argsort(values, kind="stable")
    _, starts = np.unique(values[order], return_index=True)
    return tuple(np.split(order, starts[1:])) if len(order) else ()


# From so many permutations on, their moments determine the tail; a tail that so many of them reach needs no curve.
FEWEST_FOR_TAIL = 50
_ENOUGH_REACHED = 10


@dataclass(frozen=True)
class Exchange:
    """Which of ``n_points`` rows may change places: all (no ``sets``), or as `within_strata`, `of_groups` say.

    Under ``moves`` "rows" each set is permuted inside; under "sets" sets of equal size change places as a whole.
    """

    n_points: int
    sets: tuple[Int[np.ndarray, " _"], ...] = ()
    moves: str = "rows"

    def permutation(self, index: int, *, seed: int = 0) -> Int[np.ndarray, " points"]:
        """Return permutation ``index``: the same for every pair, worker and order of work."""
        generator = np.random.Generator(np.random.Philox(key=[seed, index]))
        if not self.sets:
            return generator.permutation(self.n_points)
        order = np.arange(self.n_points)
        if self.moves == "rows":
            for rows in self.sets:
                order[rows] = rows[generator.permutation(len(rows))]
            return order
        sizes = np.array([len(rows) for rows in self.sets])
        for size in np.unique(sizes):
            alike = [rows for rows, n in zip(self.sets, sizes, strict=True) if n == size]
            for place, other in zip(alike, generator.permutation(len(alike)), strict=True):
                order[place] = alike[other]
        return order


def within_strata(strata: Shaped[np.ndarray, " points"]) -> Exchange:
    """Return the exchange of rows within their stratum only, to ask if two spaces are alike beyond class.

    Raises
    ------
    ValueError
        If every stratum is a single row, so that none can move.
    """
    sets = rows_by_value(strata)
    if all(len(rows) == 1 for rows in sets):
        raise ValueError(f"found {len(sets)} strata of one row each, needs some with more to change places")
    return Exchange(len(strata), sets)


def of_groups(groups: Shaped[np.ndarray, " points"]) -> Exchange:
    """Return the exchange of whole groups of equal size, the order inside kept.

    For rows that are not exchangeable alone: frames of one film, tokens of one text, augmentations of one image.

    Raises
    ------
    ValueError
        If every group has a size of its own, so that none can move.
    """
    sets = rows_by_value(groups)
    if len({len(rows) for rows in sets}) == len(sets):
        raise ValueError(f"found {len(sets)} groups that all differ in size, needs some of equal size to change places")
    return Exchange(len(groups), sets, "sets")


def p_value(score: float, chance: Float[np.ndarray, " permutations"], *, is_distance: bool = False) -> float:
    """Return (1 + #{chance ≥ score})/(1 + permutations), or ≤ for a distance: never 0."""
    reached = chance <= score if is_distance else chance >= score
    return float((1 + np.count_nonzero(reached)) / (1 + len(chance)))


def tail_p_value(score: float, chance: Float[np.ndarray, " permutations"], *, is_distance: bool = False) -> float:
    """Return `p_value`, and beyond what few permutations resolve, that of a Pearson III curve with their moments.

    The curve takes over where fewer than 10 of at least 50 permutations reach the score. Its skewness is the
    permutations' plus one standard error √(6/permutations): the estimate is rough, this is its safe side.

    References
    ----------
    Winkler et al. (2016), "Faster permutation inference in brain imaging", section 2.5 (gamma approximation).
    """
    plain = p_value(score, chance, is_distance=is_distance)
    n_reached = round(plain * (1 + len(chance))) - 1
    if len(chance) < FEWEST_FOR_TAIL or n_reached >= _ENOUGH_REACHED:
        return plain
    signed = -chance if is_distance else chance
    deviation = float(signed.std(ddof=1))
    # All permutations alike but for rounding (of two equal spaces, say): no curve goes through a point.
    if deviation <= 1e-9 * max(1.0, float(np.abs(signed).max())):
        return plain
    raised = _skewness(signed) + float(np.sqrt(6 / len(chance)))
    standardized = ((-score if is_distance else score) - float(signed.mean())) / deviation
    return max(upper_share(standardized, raised), float(np.finfo(np.float64).tiny))


def _skewness(values: Float[np.ndarray, " values"]) -> float:
    """Return the skewness without bias: √(n (n − 1))/(n − 2) times the third moment in deviations."""
    n_values, steps = len(values), values - values.mean()
    return float(np.sqrt(n_values * (n_values - 1)) / (n_values - 2) * (steps**3).mean() / (steps**2).mean() ** 1.5)


def calibrated(score: float, null_mean: float, *, best: float = 1.0) -> float:
    """Return (score − null mean)/(best − null mean): 0 is chance, 1 the best there is. For distances ``best`` is 0.

    NaN where chance is as good as it gets.
    """
    span = best - null_mean
    return (score - null_mean) / span if abs(span) > 1e-12 else float("nan")


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
