"""Chance of the measures of shared nearest points, in closed form: the moments of each over permutations of points.

What two lists share under a permutation is Σ A_ij B_π(i)π(j), A and B the matrices of both, whose moments are exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array

from lfm_tasks.statistics.permutation_moments import (
    MomentArrays,
    concentration,
    directed_moment_sums,
    moments_of_aligned,
    symmetric_moment_sums,
)
from lfm_tasks.statistics.resampling import Exchange
from lfm_tasks.statistics.strata_moments import ExchangeSums, block_sums, strata_sums

# What a matrix contributes to the moments of its pairs: over all permutations, or within strata.
EntrySums = Float[np.ndarray, " partitions"] | ExchangeSums
_Lists = Int[np.ndarray, "points neighbors"]
# Spread of row sums, relative to the largest, that is rounding.
_SAME_SUMS = 1e-9


def matrix_of_lists(indices: _Lists, values: Float[np.ndarray, "points neighbors"] | None = None) -> csr_array:
    """Return lists as a sparse matrix of these values, or of ones."""
    n_points, n_neighbors = indices.shape
    rows = np.repeat(np.arange(n_points), n_neighbors)
    entries = np.ones(indices.size) if values is None else values.ravel()
    return csr_array((entries, (rows, indices.ravel())), shape=(n_points, n_points), dtype=np.float64)


def count_sums(indices: _Lists, exchange: Exchange) -> EntrySums:
    """Return the sums from which the moments of numbers of shared neighbors follow; those in groups are not known."""
    matrix = matrix_of_lists(indices)
    if (strata := exchange.strata) is None:
        return directed_moment_sums(matrix)
    return strata_sums(block_sums(matrix, np.eye(len(exchange.sets))[strata]), strata)


@dataclass(frozen=True)
class PointValue:
    """A value of each point by how many neighbors it shares by chance: k drawn of n − 1 points, k of them neighbors.

    Its mean; the slope of the best line through it; the variance and the third central moment that this line leaves.
    """

    mean: float
    slope: float
    left: float
    left_third: float


def _drawn(k: int, n_points: int) -> Float[np.ndarray, " counts"]:
    """Return the hypergeometric probability of 0, 1, … k shared neighbors."""
    return np.array([comb(k, c) * comb(n_points - 1 - k, k - c) / comb(n_points - 1, k) for c in range(k + 1)])


def value_of_counts(value_of_count: Float[np.ndarray, " counts"], n_points: int) -> PointValue:
    """Return the value of a measure that is a function of the number of shared neighbors."""
    return _point_value(np.stack([value_of_count**power for power in (1, 2, 3)]), n_points)


def _point_value(powers: Float[np.ndarray, "3 counts"], n_points: int) -> PointValue:
    """Return the value whose mean, and those of its second and third power, are given by number of neighbors."""
    means, counts = powers[0], np.arange(powers.shape[1])
    drawn = _drawn(len(counts) - 1, n_points)
    mean, second, third = (powers @ drawn).tolist()
    steps = counts - drawn @ counts
    slope = float(drawn @ (steps * means)) / float(drawn @ steps**2)
    left = second - mean**2 - slope**2 * float(drawn @ steps**2)
    left_third = third - 3 * mean * second + 2 * mean**3 - slope**3 * float(drawn @ steps**3)
    return PointValue(mean, slope, max(left, 0.0), left_third)


def value_of_ranks(
    weights: Float[np.ndarray, "neighbors neighbors"], most: Float[np.ndarray, " counts"], n_points: int
) -> PointValue:
    """Return the value of Σ weights[r, s] over shared neighbors, ranks r and s, over most[their number].

    By chance the ranks of c shared neighbors are drawn without repetition, in both spaces.
    """
    k, counts = len(weights), np.arange(len(most))

    def of_two(first: Float[np.ndarray, "k k"], second: Float[np.ndarray, "k k"]) -> float:
        """Return the mean of a product for two shared neighbors, which have two ranks each."""
        in_lines = sum(first.sum(axis=axis) @ second.sum(axis=axis) for axis in (0, 1))
        return float(first.sum() * second.sum() - in_lines + (first * second).sum()) / (k * (k - 1)) ** 2

    mean, twos = float(weights.mean()), counts * (counts - 1)
    squares = counts * float((weights**2).mean()) + twos * of_two(weights, weights)
    # Three are so rare that they may have ranks of their own.
    cubes = counts * float((weights**3).mean()) + 3 * twos * of_two(weights**2, weights)
    cubes = cubes + twos * (counts - 2) * mean**3
    return _point_value(np.stack([counts * mean / most, squares / most**2, cubes / most**3]), n_points)


def moments_of_values(counts: MomentArrays, value: PointValue, n_points: int) -> MomentArrays:
    """Return the moments of the mean over points of a value, from those of Σ c, c shared neighbors of a point.

    Exact where the value is linear in c. Else the mean is exact; the deviation is that of the best line, and what it
    leaves adds variance as if points were independent.
    """
    of_line = value.slope * counts.deviation / n_points
    deviation = np.sqrt(of_line**2 + value.left / n_points)
    return MomentArrays(np.full(deviation.shape, value.mean), deviation, counts.skewness * (of_line / deviation) ** 3)


@dataclass(frozen=True)
class RankSums:
    """Sums of the ranked neighbors of a space.

    Parameters
    ----------
    counts
        `directed_moment_sums` of its lists.
    mutual
        How many pairs of points list each other, by both ranks.
    together
        How many pairs of points list the same third one, by both ranks.
    hubness
        See `hubness`.
    """

    counts: Float[np.ndarray, " partitions"]
    mutual: Float[np.ndarray, "neighbors neighbors"]
    together: Float[np.ndarray, "neighbors neighbors"]
    hubness: float


def hubness(indices: _Lists) -> float:
    """Return n Σd²/(Σd)² of the numbers d of points that list each point: 1 for all alike, n for one point alone."""
    return concentration(np.bincount(indices.ravel(), minlength=len(indices)).astype(float))


def rank_sums(indices: _Lists) -> RankSums:
    """Return the sums of the lists of one space."""
    n_points, k = indices.shape
    ranks = matrix_of_lists(indices, np.tile(np.arange(1.0, k + 1), (n_points, 1)))
    back = ranks.T.tocsr()
    there, back = (both.tocsr() for both in (ranks * (back > 0), back * (ranks > 0)))
    there.sort_indices()
    back.sort_indices()
    mutual = np.zeros((k, k))
    np.add.at(mutual, (there.data.astype(int) - 1, back.data.astype(int) - 1), 1)
    listed = np.stack([np.bincount(indices[:, rank], minlength=n_points) for rank in range(k)]).astype(float)
    together = listed @ listed.T.copy() - n_points * np.eye(k)
    return RankSums(directed_moment_sums(matrix_of_lists(indices)), mutual, together, hubness(indices))


def rank_moments(
    sources: Sequence[RankSums],
    targets: Sequence[RankSums],
    weights: Float[np.ndarray, "neighbors neighbors"],
    most: Float[np.ndarray, " counts"],
    n_points: int,
) -> MomentArrays:
    """Return the moments of the mean over points of Σ weights[r, s] over shared neighbors, over most[their number].

    As `moments_of_values`, with what that leaves out of two entries of lists at once: where two points list each other
    in both spaces, or list one third point, ranks have to do with each other. NaN where few points are in most of the
    lists of both spaces, or the skewness is above 1.
    """
    counts = _moments_of("counts", sources, targets, n_points)
    value = value_of_ranks(weights, most, n_points)
    found = moments_of_values(counts, value, n_points)
    n_orders = {"mutual": n_points * (n_points - 1), "together": n_points * (n_points - 1) * (n_points - 2)}

    def beyond_counts(here: Float[np.ndarray, "k k"], back: Float[np.ndarray, "k k"]) -> Float[np.ndarray, " pairs"]:
        """Return the mean over permutations of Σ here[r, r'] back[s, s'] over such entries, beyond that of counts."""
        total = np.zeros(len(sources))
        for name, n_of_kind in n_orders.items():
            first, second = (np.stack([getattr(one, name) for one in side]) for side in (sources, targets))
            crossed = here @ second @ back.T - here.mean() * back.mean() * second.sum(axis=(1, 2))[:, None, None]
            total += np.vecdot(first.reshape(len(first), -1), crossed.reshape(len(second), -1)) / n_of_kind
        return total

    # One shared neighbor counts slope/mean times its weight.
    scale = value.slope / weights.mean() / n_points
    deviation = np.sqrt(np.maximum(found.deviation**2 + scale**2 * beyond_counts(weights, weights), 0.0))
    of_line = (value.slope * counts.deviation / n_points) ** 3 * counts.skewness
    third = of_line + value.left_third / n_points**2 + 3 * scale**3 * beyond_counts(weights**2, weights)
    return _unless_hubs(MomentArrays(found.mean, deviation, third / deviation**3), sources, targets, n_points)


@dataclass(frozen=True)
class MaskedSums:
    """Sums of a kernel K on the nearest points of each, for HSIC₁ on those that two spaces share.

    Parameters
    ----------
    mutual
        `symmetric_moment_sums` of K on pairs of points that list each other.
    total, mutual_total
        ΣK over all entries of the lists, and over those pairs.
    onward
        Σ_j d_j Σ_l K_jl, d_j the number of points that list j.
    with_itself
        HSIC₁ of the kernel with itself.
    n_neighbors, hubness
        How many points each lists; see `hubness`.
    """

    mutual: Float[np.ndarray, " partitions"]
    total: float
    mutual_total: float
    onward: float
    with_itself: float
    n_neighbors: int
    hubness: float


def masked_sums(
    indices: _Lists,
    kernel: Float[np.ndarray, "points neighbors"],
    are_mutual: Bool[np.ndarray, "points neighbors"],
    with_itself: float,
) -> MaskedSums:
    """Return the sums of one space."""
    of_pairs = np.where(are_mutual, kernel, 0.0)
    matrix = matrix_of_lists(indices, of_pairs)
    matrix.eliminate_zeros()
    n_points, k = indices.shape
    listed = np.bincount(indices.ravel(), minlength=n_points)
    onward = float(listed @ kernel.sum(axis=1))
    totals = float(kernel.sum()), float(of_pairs.sum()), onward
    return MaskedSums(symmetric_moment_sums(matrix), *totals, with_itself, k, hubness(indices))


def masked_moments(sources: Sequence[MaskedSums], targets: Sequence[MaskedSums], n_points: int) -> MomentArrays:
    """Return the moments of HSIC₁ of two kernels on the pairs of points that both list, over √(of each with itself).

    HSIC₁ is (P + S S'/((n − 1)(n − 2)) − 2 Q/(n − 2))/(n (n − 3)) with P = Σ K_ij L_ji over pairs that list each other
    in both spaces, S and S' the sums of K and of L over shared entries, and Q the sum of all entries of K L there. The
    moments of P are exact. Q is P, and Σ K_ij L_jl over entries of three points, which has its mean here (that of both
    directions) and no variance; so has S S', taken as the product of means. NaN where few points are in most of the
    lists of both spaces (Q then varies with P), or the skewness is above 1.
    """
    n = n_points
    products = _moments_of("mutual", sources, targets, n)
    (total, mutual, onward, itself), (total_of, mutual_of, onward_of, itself_of) = (
        np.array([[one.total, one.mutual_total, one.onward, one.with_itself] for one in side]).T
        for side in (sources, targets)
    )
    k = sources[0].n_neighbors
    # A shared entry is one of k of n − 1 others; three points that are all different, from either side.
    of_totals = total * total_of * (k / (n - 1)) ** 2 / ((n - 1) * (n - 2))
    both_ways = (k * total - mutual) * (onward_of - mutual_of), (k * total_of - mutual_of) * (onward - mutual)
    of_three = (both_ways[0] + both_ways[1]) / 2 / (n * (n - 1) * (n - 2))
    scale = n * (n - 3) * (np.sqrt(itself * itself_of) + 1e-6)
    slope = (1 - 2 / (n - 2)) / scale
    mean = slope * products.mean + (of_totals - 2 * of_three / (n - 2)) / scale
    return _unless_hubs(MomentArrays(mean, slope * products.deviation, products.skewness), sources, targets, n)


# Limits beyond which few points, or few pairs of points, decide how scores vary: of the product of the `hubness` of two
# spaces, each less 1, over the number of points; of the skewness of chance.
_MOST_HUBS, _MOST_SKEWED = 0.02, 1.0


def _unless_hubs(
    moments: MomentArrays, sources: Sequence[RankSums | MaskedSums], targets: Sequence[RankSums | MaskedSums], n: int
) -> MomentArrays:
    first, second = (np.array([one.hubness for one in side]) for side in (sources, targets))
    is_unknown = ((first - 1) * (second - 1) > _MOST_HUBS * n) | (moments.skewness > _MOST_SKEWED)
    return _where(~is_unknown, moments)


def _where(are_known: Bool[np.ndarray, " pairs"], moments: MomentArrays) -> MomentArrays:
    """Return moments, NaN for pairs of which they are not known."""
    mean, deviation, skewness = (
        np.where(are_known, one, np.nan) for one in (moments.mean, moments.deviation, moments.skewness)
    )
    return MomentArrays(mean, deviation, skewness)


def _moments_of(name: str, sources: Sequence[Any], targets: Sequence[Any], n_points: int) -> MomentArrays:
    """Return the moments of each source with the target beside it, from one of their fields."""
    first, second = (np.stack([getattr(one, name) for one in side]) for side in (sources, targets))
    return moments_of_aligned(first, second, n_points)


@dataclass(frozen=True)
class KernelSums:
    """Sums of a kernel K = I + W, over its norm once rows are centered.

    Of the entries of W; of 1; of the mean row of K. ``is_even``: whether all rows have that sum.
    """

    entries: Float[np.ndarray, " partitions"]
    one: float
    row_sum: float
    is_even: bool


def kernel_sums(
    indices: _Lists,
    values: Float[np.ndarray, "points neighbors"],
    sums: Float[np.ndarray, " points"],
    norm: float,
) -> KernelSums:
    """Return the sums of one kernel: entries beside the diagonal, and row sums with it."""
    with np.errstate(divide="ignore", invalid="ignore"):
        entries = directed_moment_sums(matrix_of_lists(indices, values / norm))
        is_even = bool(np.ptp(sums) <= _SAME_SUMS * sums.max())
        return KernelSums(entries, float(1 / np.float64(norm)), float(sums.mean() / norm), is_even)


def kernel_moments(sources: Sequence[KernelSums], targets: Sequence[KernelSums], n_points: int) -> MomentArrays:
    """Return the moments of ⟨KH, LH⟩ over both norms: Σ W_ij V_ij, n for the diagonal, less Σ r_i r'_i/n of row sums.

    NaN where row sums of both differ (many points that are equally near): their products then differ by permutation.
    """
    moments = _moments_of("entries", sources, targets, n_points)
    (ones, rows, even), (ones_of, rows_of, even_of) = (
        np.array([[one.one, one.row_sum, one.is_even] for one in side]).T for side in (sources, targets)
    )
    fixed = n_points * ones * ones_of - rows * rows_of
    found = MomentArrays(moments.mean + fixed, moments.deviation, moments.skewness)
    return _where((even + even_of) > 0, found)
