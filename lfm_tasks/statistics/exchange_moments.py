"""Moments of Σ A_ij B_π(i)π(j) by the exchange of points: where they have a closed form, and the sums of one space."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from lfm_tasks.statistics.group_moments import (
    FEWEST_GROUPS,
    MOST_IN_GROUP,
    group_blocks,
    group_sums,
    in_order_of_groups,
)
from lfm_tasks.statistics.permutation_moments import (
    FEWEST_POINTS,
    GraphSums,
    MomentArrays,
    concentration,
    moment_sums,
    moments_of_aligned,
    permutation_profile,
    row_energies,
)
from lfm_tasks.statistics.resampling import FEWEST_PERMUTATIONS, Exchange
from lfm_tasks.statistics.strata_moments import (
    ExchangeSums,
    aligned_moments,
    gram_sums,
    gram_triangles,
    strata_sums,
)

# Strata beyond which the numbers of a space, about their third power, cost more than permutations.
MOST_STRATA = 32


def has_moments(exchange: Exchange) -> bool:
    """Return whether moments speak for all permutations: of free rows, within strata, or of groups.

    At least 6 rows and 1,000 permutations; at most 32 strata (what a space contributes grows with the third power of
    their number); at least 30 groups, all of the same size of at most 4 rows.
    """
    if exchange.n_points < FEWEST_POINTS:
        return False
    if not exchange.sets:
        return True
    if exchange.strata is not None:
        return len(exchange.sets) <= MOST_STRATA and exchange.least_p <= 1 / FEWEST_PERMUTATIONS
    groups = exchange.equal_groups
    return groups is not None and len(groups) >= FEWEST_GROUPS and groups.shape[1] <= MOST_IN_GROUP


def sums_of_factor(factor: Float[np.ndarray, "points features"], exchange: Exchange) -> ExchangeSums:
    """Return the sums of A = F Fᵀ for an exchange in strata or groups of which `has_moments` holds."""
    strata, groups = exchange.strata, exchange.equal_groups
    if strata is not None:
        members = np.eye(len(exchange.sets))[strata]
        return strata_sums(gram_sums(factor, members), strata, gram_triangles(factor, strata))
    if groups is None:
        raise ValueError("got an exchange of free rows, or of unequal groups, expected strata or equal groups")
    rows = factor[in_order_of_groups(groups).ravel()]

    def tile(first: slice, second: slice) -> Float[np.ndarray, "first second"]:
        return np.asarray(rows[first] @ rows[second].T)

    return group_sums(group_blocks(tile, *groups.shape), tile)


@dataclass(frozen=True)
class TraceSums:
    """Contribution of a symmetric matrix to the moments of Σ A_ij B_π(i)π(j), and the `concentration` of its rows."""

    sums: Float[np.ndarray, " partitions"] | ExchangeSums
    concentration: float


def trace_sums_of_factor(factor: Float[np.ndarray, "points features"], exchange: Exchange) -> TraceSums:
    """Return the sums of A = F Fᵀ, columns of F centered, for an exchange of which `has_moments` holds."""
    spread = concentration(exchange.by_unit(row_energies(factor)))
    if not exchange.sets:
        return TraceSums(permutation_profile(factor).sums, spread)
    sums = sums_of_factor(factor, exchange)
    return TraceSums(sums, max(spread, sums.concentration))


def trace_sums_of_matrix(matrix: Float[np.ndarray, "points points"], exchange: Exchange) -> TraceSums:
    """Return the sums of a symmetric matrix that is held whole, for free rows or equal groups."""
    squares, d = matrix * matrix, np.diag(matrix).copy()
    spread = concentration(exchange.by_unit(squares.sum(axis=1)))
    groups = exchange.equal_groups
    if groups is not None:
        order = in_order_of_groups(groups).ravel()

        def tile(first: slice, second: slice) -> Float[np.ndarray, "first second"]:
            return matrix[np.ix_(order[first], order[second])]

        sums = group_sums(group_blocks(tile, *groups.shape), tile)
        return TraceSums(sums, max(spread, sums.concentration))
    r, q = matrix.sum(axis=1), squares.sum(axis=1)
    of_rows = matrix @ np.stack([d, r], axis=1)
    cubes, of_three = float(np.vdot(squares, matrix)), float(np.vdot(matrix @ matrix.copy(), matrix))
    d_d, d_r, r_r = float(d @ of_rows[:, 0]), float(d @ of_rows[:, 1]), float(r @ of_rows[:, 1])
    return TraceSums(moment_sums(GraphSums(d, r, q, d_d, d_r, r_r, cubes, of_three)), spread)


def aligned_trace_moments(sources: Sequence[TraceSums], targets: Sequence[TraceSums], n_points: int) -> MomentArrays:
    """Return the moments of each source with the target beside it."""
    free = [[one.sums for one in side if isinstance(one.sums, np.ndarray)] for side in (sources, targets)]
    if free[0]:
        return moments_of_aligned(np.stack(free[0]), np.stack(free[1]), n_points)
    in_sets = [[one.sums for one in side if isinstance(one.sums, ExchangeSums)] for side in (sources, targets)]
    return aligned_moments(in_sets[0], in_sets[1])
