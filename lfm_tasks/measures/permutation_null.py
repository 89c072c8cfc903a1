"""Scores of permuted rows: what chance gives, by permutations that depend on nothing but a seed and a number."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int, Shaped


def permutation(
    number: int,
    n_points: int,
    *,
    seed: int = 0,
    groups: Shaped[np.ndarray, " points"] | None = None,
    strata: Shaped[np.ndarray, " points"] | None = None,
) -> Int[np.ndarray, " points"]:
    """Return permutation ``number`` of ``n_points`` rows: the same for every pair, worker and order of work.

    ``strata``: rows change places within their stratum only (alike beyond class?). ``groups``: rows that are not
    exchangeable (frames of one film, tokens of one text) move together; whole groups of equal size change places, the
    order inside stays.

    Raises
    ------
    ValueError
        If both are given, or every group has a size of its own, so that none can move.
    """
    generator = np.random.Generator(np.random.Philox(key=[seed, number]))
    if groups is not None and strata is not None:
        raise ValueError("found groups and strata, needs one of them: whole groups move, or rows within strata")
    order = np.arange(n_points)
    if strata is not None:
        for stratum in np.unique(strata):
            rows = np.flatnonzero(strata == stratum)
            order[rows] = rows[generator.permutation(len(rows))]
        return order
    if groups is None:
        return generator.permutation(n_points)
    members = [np.flatnonzero(groups == name) for name in np.unique(groups)]
    sizes = np.array([len(rows) for rows in members])
    if np.unique(sizes).size == len(sizes):
        raise ValueError("found groups that all differ in size, needs some of equal size to change places")
    for size in np.unique(sizes):
        alike = [rows for rows, n in zip(members, sizes, strict=True) if n == size]
        for place, other in zip(alike, generator.permutation(len(alike)), strict=True):
            order[place] = alike[other]
    return order


def permutation_scores(
    score_of_permuted: Callable[[Int[np.ndarray, " points"]], float],
    permutations: list[Int[np.ndarray, " points"]],
) -> Float[np.ndarray, " permutations"]:
    """Return the score under every permutation of the target's rows; statistics know no measure."""
    return np.array([score_of_permuted(order) for order in permutations])


def p_value(score: float, chance: Float[np.ndarray, " permutations"], *, is_distance: bool = False) -> float:
    """Return (1 + #{chance ≥ score})/(1 + permutations), or ≤ for a distance: never 0."""
    reached = chance <= score if is_distance else chance >= score
    return float((1 + np.count_nonzero(reached)) / (1 + len(chance)))


def calibrated(score: float, null_mean: float, *, best: float = 1.0) -> float:
    """Return (score − null mean)/(best − null mean): 0 is chance, 1 the best there is; the same for distances, best 0.

    NaN where chance is as good as it gets.
    """
    span = best - null_mean
    return (score - null_mean) / span if abs(span) > 1e-12 else float("nan")
