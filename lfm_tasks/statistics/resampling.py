"""Chance and uncertainty of a score by resampling points: permutation nulls, p-values, intervals from halves."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from math import exp, lgamma
from typing import Literal

import numpy as np
import scipy  # its parts are imported when they are first used
from jaxtyping import Bool, Float, Int, Shaped

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
    tails = np.where(steep > 0, scipy.special.gammaincc(shape, places), scipy.special.gammainc(shape, places))
    return np.asarray(np.where(is_normal, scipy.special.ndtr(-values), tails))


def values_below(share: float, skewness: Float[np.ndarray, "*pairs"]) -> Float[np.ndarray, "*pairs"]:
    """Return the values that a ``share`` of the curves of `upper_shares` lies below."""
    is_normal = np.abs(skewness) < _SMALLEST_SKEWNESS
    steep = np.where(is_normal, 1.0, skewness)
    shape = 4 / steep**2
    places = np.where(steep > 0, scipy.special.gammaincinv(shape, share), scipy.special.gammainccinv(shape, share))
    return np.asarray(np.where(is_normal, scipy.special.ndtri(share), (places - shape) * steep / 2))


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

    @property
    def strata(self) -> Int[np.ndarray, " points"] | None:
        """The stratum of each row, numbered from 0; None where rows do not move within strata."""
        if not self.sets or self.moves != "rows":
            return None
        numbers = np.empty(self.n_points, dtype=np.int64)
        for number, rows in enumerate(self.sets):
            numbers[rows] = number
        return numbers

    @property
    def equal_groups(self) -> Int[np.ndarray, "groups members"] | None:
        """The rows of each group; None where rows move alone, or groups differ in size."""
        if self.moves != "sets" or len({len(rows) for rows in self.sets}) != 1:
            return None
        return np.stack(self.sets)

    @cached_property
    def digest(self) -> bytes:
        """A digest of all that an exchange is."""
        rows = np.concatenate([*self.sets, np.array([self.n_points])])
        sizes = np.array([len(rows) for rows in self.sets], dtype=np.int64)
        parts = (self.moves.encode(), sizes.tobytes(), rows.astype(np.int64).tobytes())
        return blake2b(b"|".join(parts), digest_size=16).digest()

    @property
    def n_units(self) -> int:
        """How many units change places: rows, or groups."""
        return len(self.sets) if self.moves == "sets" else self.n_points

    def by_unit(self, energies: Float[np.ndarray, " points"]) -> Float[np.ndarray, " units"]:
        """Return the sum over the rows of each unit."""
        return np.array([energies[rows].sum() for rows in self.sets]) if self.moves == "sets" else energies

    @property
    def least_p(self) -> float:
        """One over the number of permutations, one of which is the identity: no p-value is smaller."""
        if not self.sets:
            counts = [self.n_points]
        elif self.moves == "rows":
            counts = [len(rows) for rows in self.sets]
        else:
            counts = [*Counter(len(rows) for rows in self.sets).values()]
        return exp(-sum(lgamma(count + 1) for count in counts))

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
        raise ValueError(f"got {len(sets)} strata of one row each, expected some with more to change places")
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
        raise ValueError(f"got {len(sets)} groups that all differ in size, expected some of equal size to exchange")
    return Exchange(len(groups), sets, "sets")


def p_value(score: float, chance: Float[np.ndarray, " permutations"], *, is_distance: bool = False) -> float:
    """Return (1 + #{chance ≥ score})/(1 + permutations), or ≤ for a distance: never 0."""
    reached = chance <= score if is_distance else chance >= score
    return float((1 + np.count_nonzero(reached)) / (1 + len(chance)))


Tail = Literal["curve", "stopped", "counted"]


def tail_p_value(
    score: float, chance: Float[np.ndarray, " permutations"], *, is_distance: bool = False, tail: Tail = "curve"
) -> float:
    """Return `p_value`, and beyond what few permutations resolve, that of a Pearson III curve with their moments.

    The curve takes over where fewer than 10 of at least 50 permutations reach the score. Its skewness is the
    permutations' plus one standard error √(6/permutations): the estimate is rough, this is its safe side.

    Parameters
    ----------
    tail
        "stopped": the permutations are the first of at least 50, and `are_far` ended them; the curve is a Student's t.
        "counted": no curve, since none of the permutations may have brought together the few points that the score
        depends on.

    References
    ----------
    Winkler et al. (2016), "Faster permutation inference in brain imaging", section 2.5 (gamma approximation).
    """
    plain = p_value(score, chance, is_distance=is_distance)
    n_reached = round(plain * (1 + len(chance))) - 1
    is_few = len(chance) < FEWEST_FOR_TAIL and tail != "stopped"
    if tail == "counted" or is_few or n_reached >= _ENOUGH_REACHED:
        return plain
    signed = -chance if is_distance else chance
    mean, deviation, raised = raised_moments(signed)
    # All permutations alike but for rounding (of two equal spaces, say): no curve goes through a point.
    if deviation <= 1e-9 * max(1.0, float(np.abs(signed).max())):
        return plain
    standardized = ((-score if is_distance else score) - mean) / deviation
    if tail == "stopped":
        n_draws = len(chance)
        return float(few_draws_shares(np.array(standardized * np.sqrt(n_draws / (n_draws - 1))), np.array(n_draws)))
    return max(upper_share(standardized, raised), float(np.finfo(np.float64).tiny))


# Of fewer permutations a curve may give a p-value below that of the only one that is the identity.
FEWEST_PERMUTATIONS = 1000
# A score that lies so many deviations beyond so few draws needs no more: p is tiny, and no more is known of it.
FEW_DRAWS, FAR = 10, 10.0


def can_stop(exchange: Exchange, n_permutations: int) -> bool:
    """Return whether few of so many permutations may speak for all: of at least 50, and 1,000 different ones."""
    return n_permutations >= FEWEST_FOR_TAIL and exchange.least_p <= 1 / FEWEST_PERMUTATIONS


def tail_of(n_drawn: int, n_permutations: int, *, on_few_units: bool) -> Tail:
    """Return how the p-value of a score follows from so many of the wanted permutations; see `tail_p_value`."""
    if on_few_units:
        return "counted"
    return "stopped" if n_drawn < n_permutations else "curve"


def are_far(
    scores: Float[np.ndarray, "*sides"], chance: Float[np.ndarray, "draws *sides"], *, is_distance: bool = False
) -> Bool[np.ndarray, "*sides"]:
    """Return which scores are better than the mean of some draws by more than ten of their deviations.

    None where all draws are alike but for rounding.
    """
    beyond = (chance.mean(axis=0) - scores) if is_distance else scores - chance.mean(axis=0)
    deviations = chance.std(axis=0)
    return np.asarray((deviations > 1e-9 * np.maximum(1.0, np.abs(chance).max(axis=0))) & (beyond > FAR * deviations))


def few_draws_shares(
    standardized: Float[np.ndarray, "*scores"], n_draws: Int[np.ndarray, "*scores"]
) -> Float[np.ndarray, "*scores"]:
    """Return the share of draws beyond scores, in deviations (by n) from the mean of few draws: a Student's t.

    A curve with the moments of ten draws would claim far more than they know: their deviation is off by a quarter.
    """
    beyond = standardized * np.sqrt((n_draws - 1) / (n_draws + 1))
    tiny = float(np.finfo(np.float64).tiny)
    return np.asarray(np.maximum(scipy.special.stdtr(n_draws - 1, -beyond), tiny))


def raised_moments(chance: Float[np.ndarray, " permutations"]) -> tuple[float, float, float]:
    """Return mean, deviation, and skewness plus its standard error √(6/permutations); 0 where there is no deviation."""
    mean, deviation = float(chance.mean()), float(chance.std(ddof=1))
    if deviation <= 1e-9 * max(1.0, float(np.abs(chance).max())):
        return mean, deviation, 0.0
    return mean, deviation, _skewness(chance) + float(np.sqrt(6 / len(chance)))


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


def calibrated_halves(
    halves: Float[np.ndarray, "*scores halves"], null_mean: Float[np.ndarray, "*scores"], *, is_distance: bool
) -> Float[np.ndarray, "*scores halves"]:
    """Return the scores of halves as `calibrated`, by the chance level of all points."""
    chance = null_mean[..., None]
    span = (0.0 if is_distance else 1.0) - chance
    is_open = np.abs(span) > 1e-12
    return np.asarray(np.where(is_open, (halves - chance) / np.where(is_open, span, 1.0), np.nan))


# Points are split into two halves so many times.
N_SPLITS = 2
N_HALVES = 2 * N_SPLITS
# Below so many points (or groups of points) a half says little of how a score varies.
FEWEST_IN_HALF = 10


def halves_of(names: Iterable[str], n_splits: int = N_SPLITS, *, seed: int = 0) -> Bool[np.ndarray, "splits names"]:
    """Return for each split of the points which of them are in its second half; by name, whatever others there are.

    ``names``: of the points, or of groups of points that belong together (frames of one film). Two spaces that share
    some of their points have these in the same halves.
    """
    salt = seed.to_bytes(8, "big")
    digests = (blake2b(name.encode(), digest_size=8, salt=salt).digest() for name in names)
    bits = np.fromiter((int.from_bytes(one, "big") for one in digests), dtype=np.uint64)
    return (bits >> np.arange(n_splits, dtype=np.uint64)[:, None] & np.uint64(1)).astype(bool)


def interval_reach(
    halves: Float[np.ndarray, "*scores halves"], confidence: float = 0.95
) -> Float[np.ndarray, "*scores"]:
    """Return how far an interval reaches to each side of a score: t s, from the scores of the halves, split by split.

    s is the root of their mean squared deviation, t Student's with a degree of freedom a split: of the two halves of a
    split, a mean deviates to either side by what the mean of all points does among samples. Everything that the score
    depends on is computed again on each half: what is kept varies less. No row is repeated, for repeated rows become
    each other's nearest neighbors. For the difference of two scores, give the differences of the scores of the halves.

    References
    ----------
    McCarthy (1969), "Pseudo-replication: half samples"; Politis, Romano, Wolf (1999), "Subsampling", section 2.
    """
    return np.asarray(scipy.special.stdtrit(halves.shape[-1] // 2, (1 + confidence) / 2) * _deviation(halves))


def _deviation(halves: Float[np.ndarray, "*scores halves"]) -> Float[np.ndarray, "*scores"]:
    n_halves = halves.shape[-1]
    # Halves of a score lie together, or the order of a sum would depend on how many scores there are.
    apart = np.moveaxis(np.ascontiguousarray(halves), -1, 0)
    return np.asarray(np.sqrt(np.square(apart - apart.sum(axis=0) / n_halves).sum(axis=0) / n_halves))


@dataclass(frozen=True)
class Margin:
    """By how much one score is ahead of another on the same points, its 95 % interval, and the p-value of no lead."""

    value: float
    low: float
    high: float
    p_value: float


def margin(value: float, halves: Float[np.ndarray, " halves"]) -> Margin:
    """Return the margin of one score over another; NaN for all but its value without halves.

    Parameters
    ----------
    value
        The difference of the scores of all points.
    halves
        The difference of the scores on each half, split by split.

    Notes
    -----
    The p-value is two-sided: how often Student's t with a degree of freedom a split lies as far from 0. With two splits
    it is below .05 for margins beyond 4.3 deviations.
    """
    if not len(halves) or not np.isfinite(halves).all() or not np.isfinite(value):
        return Margin(value, np.nan, np.nan, np.nan)
    deviation, reach = float(_deviation(halves)), float(interval_reach(halves))
    if deviation == 0 and abs(float(halves[0]) - value) > 1e-6:
        # Halves have one value whatever the points, and tell nothing.
        return Margin(value, np.nan, np.nan, np.nan)
    # No half differs from the others: a copy beside a copy.
    ratio = abs(value) / deviation if deviation > 0 else (np.inf if value else 0.0)
    return Margin(value, value - reach, value + reach, float(2 * scipy.special.stdtr(len(halves) // 2, -ratio)))


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
