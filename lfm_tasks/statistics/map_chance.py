"""Chance values of ``lfm`` for all pairs at once, without drawing permutations.

``lfm`` is the ratio ‖diag CᵀC‖²/‖CᵀC‖² of C = Φ_yᵀ P Φ_x, trivial modes dropped. Its two energies have exact
expectations over permutations P, from sums that each space contributes once. What the ratio of expectations does not
tell (its bias, deviation and skewness) is that of a random rotation in place of P: the same for all spaces of one size,
as long as not both bases are localized on a few points.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Bool, Float, Int

from lfm_tasks.statistics.permutation_moments import (
    MomentArrays,
    Partition,
    arrangements,
    distinct_from_free,
    set_partitions,
)

# Four indices: the energies of CᵀC are of second order in Φ_yᵀ P Φ_x ⊗ Φ_yᵀ P Φ_x.
_N_PARTITIONS = len(set_partitions(4))
# Below this product of localizations over n the deviation of a random rotation is within 5 % of that of permutations.
_MOST_LOCALIZED = 0.3


def localization(functions: Float[np.ndarray, "points functions"]) -> float:
    """Return n Σ φ⁴ of the mean function φ: 1 for ± 1/√n everywhere, 3 for normal values, n for one point alone."""
    return float((functions**4).sum()) * len(functions) / functions.shape[1]


def are_localized(
    first: Float[np.ndarray, "*pairs"], second: Float[np.ndarray, "*pairs"], n_points: Int[np.ndarray, "*#pairs"]
) -> Bool[np.ndarray, "*pairs"]:
    """Return whether two bases, by their `localization`, are both too localized for the chance of ``lfm`` here."""
    return np.asarray(first * second > _MOST_LOCALIZED * n_points)


def map_sums(functions: Float[np.ndarray, "points functions"]) -> Float[np.ndarray, " numbers"]:
    """Return the sums over a basis without its trivial mode for the chance of ``lfm``; O(points × functions²).

    Sums over distinct indices by their 15 partitions: as a source, of the diagonal and of the whole; as a target.
    """
    gram, totals = functions.T @ functions, functions.sum(axis=0)
    squares, products = functions**2, functions @ totals
    leverages = squares.sum(axis=1)
    of_diagonal = {
        (4,): float((squares**2).sum()),
        (1, 3): float((squares * functions).sum(axis=0) @ totals),
        (2, 2): float((squares.sum(axis=0) ** 2).sum()),
        (1, 1, 2): float(squares.sum(axis=0) @ totals**2),
        (1, 1, 1, 1): float((totals**4).sum()),
    }
    sizes = [tuple(sorted(np.bincount(partition).tolist())) for partition in set_partitions(4)]
    edges = _EdgeSums(
        float(leverages.sum()), float(leverages @ leverages), float(leverages @ products), float(products.sum()),
        float(products @ products), float((gram**2).sum()),
    )  # fmt: skip
    free = (
        [of_diagonal[size] for size in sizes],
        [edges.of(partition[0::2], partition[1::2]) for partition in set_partitions(4)],
        [edges.of(partition[:2], partition[2:]) for partition in set_partitions(4)],
    )
    return np.concatenate([distinct_from_free(2) @ np.array(sums) for sums in free])


@dataclass(frozen=True)
class _EdgeSums:
    """Sums of products of two entries of A = F Fᵀ: leverages h (its diagonal), its row sums r, ‖A‖²."""

    h: float
    h_h: float
    h_r: float
    r: float
    r_r: float
    squares: float

    def of(self, first: Partition, second: Partition) -> float:
        """Return Σ A[first] A[second] over all values of the indices; equal numbers are the same index."""
        n_loops = (first[0] == first[1]) + (second[0] == second[1])
        n_shared = len(set(first) & set(second))
        if n_loops == 2:
            return self.h_h if n_shared else self.h**2
        if n_loops == 1:
            return self.h_r if n_shared else self.h * self.r
        return (self.r**2, self.r_r, self.squares)[n_shared]


def chance_of_lfm(
    sources: Float[np.ndarray, "pairs numbers"],
    targets: Float[np.ndarray, "pairs numbers"],
    n_points: int,
    n_functions: tuple[int, int],
) -> MomentArrays:
    """Return the moments of ``lfm`` over permutations from each source to the target beside it.

    Parameters
    ----------
    sources, targets
        Their `map_sums`.
    n_points
        How many points both are on; at least 4.
    n_functions
        How many functions each source and each target have, without the trivial mode.

    Returns
    -------
    MomentArrays
        For at least 20 functions on 300 points, where not both bases `are_localized`: the mean within .02 deviations
        of that of permutations, the deviation within 5 %.
    """
    n = _N_PARTITIONS
    weights = targets[:, 2 * n :] / arrangements(2, n_points)
    # Sum by sum, not as a matrix product: its last bits would depend on how many pairs there are.
    diagonal, whole = ((sources[:, start : start + n] * weights).sum(axis=1) for start in (0, n))
    spread = _spread_of_rotations(n_points, *n_functions)
    return MomentArrays(
        diagonal / whole + spread.bias,
        np.full(len(sources), spread.deviation),
        np.full(len(sources), spread.skewness),
    )


@dataclass(frozen=True)
class RotationSpread:
    """How the ratio of energies of a rotation's corner spreads: its mean beyond that of the energies, and its shape."""

    bias: float
    deviation: float
    skewness: float


def rotation_energies(n_points: int, n_source: int, n_target: int) -> tuple[float, float]:
    """Return E‖diag CᵀC‖² and E‖CᵀC‖² of the corner (target, source) of a random rotation in n − 1 dimensions."""
    q, p, n = n_source, n_target, n_points - 1
    diagonal = q * p * (p + 2) / (n * (n + 2))
    if n == 1:
        return diagonal, diagonal
    return diagonal, diagonal + q * (q - 1) * p * (n - p) / (n * (n - 1) * (n + 2))


# Draws of q × q matrices: 10,000 of 10 take .1 s, 2,000 of 50 take .4 s; the deviation is then known to 1.6 %.
_FEWEST_ROTATIONS, _MOST_ROTATIONS, _ROTATIONS_AT_ONCE = 2_000, 10_000, 500
# Numbers of points that share a sample differ by at most this factor, and deviations by less than 1 %.
_STEP_OF_POINTS = 1.1


def _spread_of_rotations(n_points: int, n_source: int, n_target: int) -> RotationSpread:
    """Return the spread for so many points, or a few more or less where they are many beside the functions."""
    if n_points > 4 * max(n_source, n_target):
        steps = round(np.log(n_points) / np.log(_STEP_OF_POINTS))
        n_points = round(_STEP_OF_POINTS**steps)
    return sampled_spread(n_points, n_source, n_target)


@cache
def sampled_spread(n_points: int, n_source: int, n_target: int) -> RotationSpread:
    """Return the spread of the ratio over thousands of random rotations, always the same ones.

    CᵀC of a rotation's corner is matrix-beta: R⁻¹ W₁ R⁻ᵀ with W₁ + W₂ = R Rᵀ, Wishart matrices of as many degrees of
    freedom as the target has functions and as are left. Nothing of the size of the points is made.

    References
    ----------
    Muirhead (1982), "Aspects of Multivariate Statistical Theory", theorem 3.3.1.
    """
    generator = np.random.Generator(np.random.Philox(key=[n_source, n_target]))
    n_left = n_points - 1 - n_target
    n_draws = min(max(100_000 // n_source, _FEWEST_ROTATIONS), _MOST_ROTATIONS)
    drawn = []
    for _ in range(n_draws // _ROTATIONS_AT_ONCE):
        inside = _wishart(generator, n_target, n_source)
        factor = np.linalg.cholesky(inside + _wishart(generator, n_left, n_source))
        half = np.linalg.solve(factor, inside)
        corner = np.linalg.solve(factor, np.swapaxes(half, 1, 2))
        diagonal = np.einsum("...ii->...i", corner)
        drawn.append(np.stack([(diagonal**2).sum(axis=1), (corner**2).sum(axis=(1, 2))]))
    diagonals, wholes = np.concatenate(drawn, axis=1)
    values = diagonals / wholes
    # The mean is that of what the ratio deviates from its tangent by, since the energies are known exactly.
    expected, whole = rotation_energies(n_points, n_source, n_target)
    tangent = (diagonals - expected) / whole - expected / whole**2 * (wholes - whole)
    bias = float((values - expected / whole - tangent).mean())
    steps = values - values.mean()
    deviation = float(np.sqrt((steps**2).mean()))
    # Where the target has all functions, or the source one, the ratio is 1 but for rounding.
    skewness = float((steps**3).mean()) / deviation**3 if deviation > 1e-9 else 0.0
    return RotationSpread(bias, deviation, skewness)


def _wishart(generator: np.random.Generator, n_degrees: int, size: int) -> Float[np.ndarray, "draws size size"]:
    factors = wishart_factors(generator, n_degrees, size, _ROTATIONS_AT_ONCE)
    return factors @ np.swapaxes(factors, 1, 2)


def wishart_factors(
    generator: np.random.Generator, n_degrees: int, size: int, n_draws: int
) -> Float[np.ndarray, "draws size columns"]:
    """Return F with F Fᵀ = AᵀA for normal A (degrees, size): Bartlett's triangles where there are enough degrees."""
    if n_degrees < size:
        return np.swapaxes(generator.standard_normal((n_draws, n_degrees, size)), 1, 2)
    triangles = np.tril(generator.standard_normal((n_draws, size, size)), -1)
    places = np.arange(size)
    triangles[:, places, places] = np.sqrt(generator.chisquare(n_degrees - places, (n_draws, size)))
    return triangles
