"""Chance of the measures of shared nearest points, in closed form: the moments of each over permutations of points.

What two lists share under a permutation is Σ A_ij B_π(i)π(j), A and B the matrices of both, whose moments are exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array

from lfm_tasks.statistics.permutation_moments import (
    MomentArrays,
    directed_moment_sums,
    moments_of_aligned,
    symmetric_moment_sums,
)
from lfm_tasks.statistics.resampling import Exchange
from lfm_tasks.statistics.strata_moments import ExchangeSums, aligned_moments, block_sums, strata_sums

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


def entry_sums(matrix: csr_array, exchange: Exchange) -> EntrySums:
    """Return the sums of a directed matrix with an empty diagonal; of points in groups no closed form is known."""
    if (strata := exchange.strata) is None:
        return directed_moment_sums(matrix)
    return strata_sums(block_sums(matrix, np.eye(len(exchange.sets))[strata]), strata)


def entry_moments(sources: Sequence[EntrySums], targets: Sequence[EntrySums], n_points: int) -> MomentArrays:
    """Return the moments of Σ A_ij B_π(i)π(j) of each source with the target beside it."""
    free = [[one for one in side if isinstance(one, np.ndarray)] for side in (sources, targets)]
    if free[0]:
        return moments_of_aligned(np.stack(free[0]), np.stack(free[1]), n_points)
    in_strata = [[one for one in side if isinstance(one, ExchangeSums)] for side in (sources, targets)]
    return aligned_moments(in_strata[0], in_strata[1])


@dataclass(frozen=True)
class PointValue:
    """A value of each point by how many neighbors it shares by chance: k drawn of n − 1 points, k of them neighbors.

    Its mean; the slope of the best line through it; the variance that this line leaves; its third central moment.
    """

    mean: float
    slope: float
    left: float
    third: float


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
    return PointValue(mean, slope, max(left, 0.0), third - 3 * mean * second + 2 * mean**3)


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
    """Sums of the ranked neighbors of a space: `entry_sums` of its lists; pairs that list each other, by both ranks."""

    counts: EntrySums
    mutual: Float[np.ndarray, "neighbors neighbors"]


def rank_sums(indices: _Lists, exchange: Exchange) -> RankSums:
    """Return the sums of the lists of one space."""
    n_points, k = indices.shape
    ranks = matrix_of_lists(indices, np.tile(np.arange(1.0, k + 1), (n_points, 1)))
    back = ranks.T.tocsr()
    there, back = (both.tocsr() for both in (ranks * (back > 0), back * (ranks > 0)))
    there.sort_indices()
    back.sort_indices()
    mutual = np.zeros((k, k))
    np.add.at(mutual, (there.data.astype(int) - 1, back.data.astype(int) - 1), 1)
    return RankSums(entry_sums(matrix_of_lists(indices), exchange), mutual)


def rank_moments(
    sources: Sequence[RankSums],
    targets: Sequence[RankSums],
    weights: Float[np.ndarray, "neighbors neighbors"],
    most: Float[np.ndarray, " counts"],
    n_points: int,
) -> MomentArrays:
    """Return the moments of the mean over points of Σ weights[r, s] over shared neighbors, over most[their number].

    As `moments_of_values`, with what that leaves out of pairs of points that list each other: if they do in both
    spaces, two points share a neighbor at once, at ranks that have to do with each other. The third moment is that of
    points, as if they were independent, and of such pairs.
    """
    counts = entry_moments([one.counts for one in sources], [one.counts for one in targets], n_points)
    value = value_of_ranks(weights, most, n_points)
    found = moments_of_values(counts, value, n_points)
    first, second = (np.stack([one.mutual for one in side]) for side in (sources, targets))

    def of_pairs(here: Float[np.ndarray, "k k"], back: Float[np.ndarray, "k k"]) -> Float[np.ndarray, " pairs"]:
        """Return the mean over permutations of Σ here[r, r'] back[s, s'] over pairs that list each other in both."""
        crossed = (here @ second @ back.T).reshape(len(second), -1)
        return np.vecdot(first.reshape(len(first), -1), crossed) / (n_points * (n_points - 1))

    # One shared neighbor counts slope/mean times its weight.
    scale, alike = value.slope / weights.mean() / n_points, np.full_like(weights, weights.mean())
    variance = found.deviation**2 + scale**2 * (of_pairs(weights, weights) - of_pairs(alike, alike))
    deviation = np.sqrt(np.maximum(variance, 0.0))
    third = value.third / n_points**2 + 3 * scale**3 * of_pairs(weights**2, weights)
    return MomentArrays(found.mean, deviation, third / deviation**3)


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
    n_neighbors
        How many points each lists.
    """

    mutual: Float[np.ndarray, " partitions"]
    total: float
    mutual_total: float
    onward: float
    with_itself: float
    n_neighbors: int


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
    return MaskedSums(symmetric_moment_sums(matrix), float(kernel.sum()), float(of_pairs.sum()), onward, with_itself, k)


def masked_moments(sources: Sequence[MaskedSums], targets: Sequence[MaskedSums], n_points: int) -> MomentArrays:
    """Return the moments of HSIC₁ of two kernels on the pairs of points that both list, over √(of each with itself).

    HSIC₁ is (P + S S'/((n − 1)(n − 2)) − 2 Q/(n − 2))/(n (n − 3)) with P = Σ K_ij L_ji over pairs that list each other
    in both spaces, S and S' the sums of K and of L over shared entries, and Q the sum of all entries of K L there. The
    moments of P are exact. Q is P, and Σ K_ij L_jl over entries of three points, which has its mean here and no
    variance; so has S S', taken as the product of means. For 100 points and more, mean and deviation are within a
    hundredth of those of permutations.
    """
    n = n_points
    products = moments_of_aligned(
        np.stack([one.mutual for one in sources]), np.stack([one.mutual for one in targets]), n
    )
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
    return MomentArrays(mean, slope * products.deviation, products.skewness)


@dataclass(frozen=True)
class KernelSums:
    """Sums of a kernel K = I + W, over its norm once rows are centered: of the entries of W; 1; the row sum of K."""

    entries: EntrySums
    one: float
    row_sum: float


def kernel_sums(
    indices: _Lists,
    values: Float[np.ndarray, "points neighbors"],
    sums: Float[np.ndarray, " points"],
    norm: float,
    exchange: Exchange,
) -> KernelSums | None:
    """Return the sums of one kernel: entries beside the diagonal, and row sums with it.

    None where row sums differ (many points that are equally near): their products then differ by permutation.
    """
    if not norm > 0 or np.ptp(sums) > _SAME_SUMS * sums.max():
        return None
    of_entries = entry_sums(matrix_of_lists(indices, values / norm), exchange)
    return KernelSums(of_entries, 1 / norm, float(sums.mean()) / norm)


def kernel_moments(sources: Sequence[KernelSums], targets: Sequence[KernelSums], n_points: int) -> MomentArrays:
    """Return the moments of ⟨KH, LH⟩ over both norms: Σ W_ij V_ij, n for the diagonal, less row sums r r' n/n."""
    moments = entry_moments([one.entries for one in sources], [one.entries for one in targets], n_points)
    (ones, rows), (ones_of, rows_of) = (
        np.array([[one.one, one.row_sum] for one in side]).T for side in (sources, targets)
    )
    fixed = n_points * ones * ones_of - rows * rows_of
    return MomentArrays(moments.mean + fixed, moments.deviation, moments.skewness)
