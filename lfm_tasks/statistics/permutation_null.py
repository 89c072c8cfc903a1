"""Permutations of rows, which depend on a seed and an index only, and p-values of scores against permuted rows."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy.special import gammainc, gammaincc, gammainccinv, gammaincinv, ndtr, ndtri

# Below this skewness the curve is a normal one to all digits that matter; scipy.stats draws the line here as well.
_SMALLEST_SKEWNESS = 1.6e-5


def upper_share(value: float, skewness: float) -> float:
    """Return P(X > ``value``) for the curve of mean 0, deviation 1 and this skewness.

    With a = 4/s² and x = a + 2z/s it is Q(a, x) for s > 0, and P(a, x) for s < 0: incomplete gamma functions.
    """
    if abs(skewness) < _SMALLEST_SKEWNESS:
        return float(ndtr(-value))
    shape = 4 / skewness**2
    place = np.maximum(shape + 2 * value / skewness, 0.0)
    return float(gammaincc(shape, place) if skewness > 0 else gammainc(shape, place))


def value_below(share: float, skewness: float) -> float:
    """Return the value that a ``share`` of the curve of mean 0, deviation 1 and this skewness lies below."""
    if abs(skewness) < _SMALLEST_SKEWNESS:
        return float(ndtri(share))
    shape = 4 / skewness**2
    place = gammaincinv(shape, share) if skewness > 0 else gammainccinv(shape, share)
    return float((place - shape) * skewness / 2)


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
