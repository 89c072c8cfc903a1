"""Which exchanges of points have moments of Σ A_ij B_π(i)π(j) in closed form, and the sums of one space for them."""

import numpy as np
from jaxtyping import Float
from scipy.sparse import csr_array

from lfm_tasks.statistics.group_moments import (
    MOST_IN_GROUP,
    dense_blocks,
    group_sums,
    in_order_of_groups,
    leading_third,
    sparse_blocks,
)
from lfm_tasks.statistics.permutation_moments import FEWEST_POINTS
from lfm_tasks.statistics.resampling import FEWEST_PERMUTATIONS, Exchange
from lfm_tasks.statistics.strata_moments import ExchangeSums, block_sums, gram_sums, gram_triangles, strata_sums

# Strata beyond which the numbers of a space, about their third power, cost more than permutations.
MOST_STRATA = 32


def has_moments(exchange: Exchange) -> bool:
    """Return whether moments speak for all permutations: of free rows, within strata, or of groups.

    At least 6 rows and 1,000 permutations; at most 32 strata (what a space contributes grows with the third power of
    their number), or groups of equal size, of at most 6 rows.
    """
    if exchange.n_points < FEWEST_POINTS:
        return False
    if not exchange.sets:
        return True
    if exchange.least_p > 1 / FEWEST_PERMUTATIONS:
        return False
    if exchange.strata is not None:
        return len(exchange.sets) <= MOST_STRATA
    return exchange.equal_groups is not None and len(exchange.sets[0]) <= MOST_IN_GROUP


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

    n_groups, size = groups.shape
    blocks = dense_blocks(tile, n_groups, size)
    return group_sums(blocks, leading_third(blocks, tile, size))


def sums_of_graph(matrix: csr_array, exchange: Exchange) -> ExchangeSums:
    """Return the sums of a sparse matrix with an empty diagonal, for an exchange as in `sums_of_factor`."""
    strata, groups = exchange.strata, exchange.equal_groups
    if strata is not None:
        return strata_sums(block_sums(matrix, np.eye(len(exchange.sets))[strata]), strata)
    if groups is None:
        raise ValueError("got an exchange of free rows, or of unequal groups, expected strata or equal groups")
    return group_sums(sparse_blocks(matrix, groups))
