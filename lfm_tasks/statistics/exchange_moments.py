"""Moments of Σ A_ij B_π(i)π(j) by the exchange of points: where they have a closed form, and the sums of one space."""

import numpy as np
from jaxtyping import Float

from lfm_tasks.statistics.group_moments import (
    FEWEST_GROUPS,
    MOST_IN_GROUP,
    group_blocks,
    group_sums,
    in_order_of_groups,
)
from lfm_tasks.statistics.permutation_moments import FEWEST_POINTS
from lfm_tasks.statistics.resampling import FEWEST_PERMUTATIONS, Exchange
from lfm_tasks.statistics.strata_moments import ExchangeSums, gram_sums, gram_triangles, strata_sums

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
