"""Exact mean and variance of Σ A_ij B_π(i)π(j) over permutations within strata: no permutation is drawn.

Between two strata, and inside one, a matrix is a mean, effects of rows and columns, and a rest without either. These
are uncorrelated under permutations, so the variance is a sum over strata and pairs of strata. What one space
contributes to it is computed once, as two vectors; a pair takes their inner products.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from lfm_tasks.statistics.permutation_moments import MomentArrays

# Strata beyond which the numbers of a space, about their third power, cost more than permutations.
MOST_STRATA = 32


@dataclass(frozen=True)
class StrataSums:
    """What one matrix contributes: the inner products of two spaces' vectors are the mean, and the variance."""

    mean: Float[np.ndarray, " means"]
    variance: Float[np.ndarray, " variances"]


@dataclass(frozen=True)
class BlockSums:
    """Sums of a matrix over the columns, or both sides, of each stratum; its diagonal belongs to none of them.

    Parameters
    ----------
    rows, columns
        Σ_j A_ij and Σ_j A_ji over the points j of each stratum.
    squares, crossed
        Σ A_ij² and Σ A_ij A_ji over the points i and j of each pair of strata.
    diagonal
        A_ii.
    """

    rows: Float[np.ndarray, "points strata"]
    columns: Float[np.ndarray, "points strata"]
    squares: Float[np.ndarray, "strata strata"]
    crossed: Float[np.ndarray, "strata strata"]
    diagonal: Float[np.ndarray, " points"]

    @property
    def is_symmetric(self) -> bool:
        """Whether rows and columns are the same."""
        return self.rows is self.columns


def block_sums(matrix: csr_array, members: Float[np.ndarray, "points strata"]) -> BlockSums:
    """Return the sums of a sparse matrix with an empty diagonal; ``members``: 1 for the stratum of each point."""
    reverse = matrix.T.tocsr()
    return BlockSums(
        matrix @ members,
        reverse @ members,
        members.T @ (matrix.multiply(matrix).tocsr() @ members),
        members.T @ (matrix.multiply(reverse).tocsr() @ members),
        np.zeros(matrix.shape[0]),
    )


def gram_sums(rows: Float[np.ndarray, "points features"], members: Float[np.ndarray, "points strata"]) -> BlockSums:
    """Return the sums of A = F Fᵀ; ``members``: 1 for the stratum of each point."""
    diagonal = np.vecdot(rows, rows)
    grams = np.stack([(rows * inside[:, None]).T @ rows for inside in members.T])
    squares = np.einsum("sij,tij->st", grams, grams) - np.diag(members.T @ diagonal**2)
    of_rows = rows @ (rows.T @ members) - diagonal[:, None] * members
    return BlockSums(of_rows, of_rows, squares, squares, diagonal)


def strata_sums(blocks: BlockSums, strata: Int[np.ndarray, " points"]) -> StrataSums:
    """Return what a matrix contributes; ``strata``: of each point, numbered from 0 without gaps."""
    sizes = np.bincount(strata)
    means, variances = [], []
    effects = _Effects(blocks, strata, sizes)
    for s, n in enumerate(sizes):
        inside = strata == s
        on = blocks.diagonal[inside]
        means += [effects.mean[s, s] * np.sqrt(n * (n - 1)), on.mean() * np.sqrt(n)]
        means += [effects.mean[s, t] * np.sqrt(n * sizes[t]) for t in range(len(sizes)) if t != s]
        if n > 1:
            features = np.stack([*effects.of_points(s), on - on.mean()], axis=1)
            variances.append((features.T @ features).ravel() / np.sqrt(n - 1))
    for s, n in enumerate(sizes):
        variances.append(effects.rest_inside(s))
        for t in range(s):
            if n > 1 and sizes[t] > 1:
                variances.append(effects.rest_between(s, t) / np.sqrt((n - 1) * (sizes[t] - 1)))
    return StrataSums(np.array(means), np.concatenate(variances))


def moments_in_strata(
    sources: Float[np.ndarray, "sources numbers"], targets: Float[np.ndarray, "targets numbers"]
) -> Float[np.ndarray, "sources targets"]:
    """Return the inner products of the vectors of every source with every target, of the same bits for any companions.

    Sum by sum: the last bits of a matrix product depend on how many rows it has.
    """
    return np.stack([(source * targets).sum(axis=1) for source in sources])


def moments_of_strata(sources: list[StrataSums], targets: list[StrataSums]) -> MomentArrays:
    """Return mean and deviation for every source with every target; skewness 0.

    Between strata the effects of rows have 86 to 100 % of the variance of kernels: a sum over points, which is near
    normal. Drawn skewness .02 to .13, and the quantile that 1 in 20 exceeds within .05 deviations of a normal curve's.
    Beyond z = 3 the curve is an order of magnitude.
    """
    mean, variance = (
        moments_in_strata(*(np.stack([getattr(one, name) for one in side]) for side in (sources, targets)))
        for name in ("mean", "variance")
    )
    return MomentArrays(mean, np.sqrt(np.maximum(variance, 0)), np.zeros(mean.shape))


class _Effects:
    """Means of the blocks, effects of their rows and columns, and sums of squares of what these leave."""

    def __init__(
        self, blocks: BlockSums, strata: Int[np.ndarray, " points"], sizes: Int[np.ndarray, " strata"]
    ) -> None:
        n_strata = len(sizes)
        self._blocks, self._sizes = blocks, sizes
        self._inside = [np.flatnonzero(strata == s) for s in range(n_strata)]
        totals = np.stack([blocks.rows[inside].sum(axis=0) for inside in self._inside])
        counts = np.outer(sizes, sizes) - np.diag(sizes)
        self.mean: Float[np.ndarray, "strata strata"] = totals / np.maximum(counts, 1)

    def _between(self, s: int, t: int) -> tuple[Float[np.ndarray, " of_s"], Float[np.ndarray, " of_t"]]:
        """Return the effects of rows and columns of the block of strata s and t."""
        of_rows = self._blocks.rows[self._inside[s], t] / self._sizes[t] - self.mean[s, t]
        return of_rows, self._blocks.columns[self._inside[t], s] / self._sizes[s] - self.mean[s, t]

    def _within(self, s: int) -> tuple[Float[np.ndarray, " of_s"], Float[np.ndarray, " of_s"]]:
        """Return sum and difference of the effects of rows and columns inside a stratum, off the diagonal."""
        n, inside = self._sizes[s], self._inside[s]
        rows, columns = (
            side[inside, s] - (n - 1) * self.mean[s, s] for side in (self._blocks.rows, self._blocks.columns)
        )
        return (rows + columns) / max(n - 2, 1), (rows - columns) / n

    def of_points(self, s: int) -> list[Float[np.ndarray, " of_s"]]:
        """Return the effects of the points of a stratum, weighted so that their inner products count."""
        n = self._sizes[s]
        both, apart = self._within(s)
        features = [both * np.sqrt(max(n - 2, 0) / 2)]
        if not self._blocks.is_symmetric:
            features.append(apart * np.sqrt(n / 2))
        for t, size in enumerate(self._sizes):
            if t == s:
                continue
            if self._blocks.is_symmetric:  # the block of t and s says the same once more
                features.append(self._between(s, t)[0] * np.sqrt(2 * size))
            else:
                features += [self._between(s, t)[0] * np.sqrt(size), self._between(t, s)[1] * np.sqrt(size)]
        return features

    def rest_inside(self, s: int) -> Float[np.ndarray, " 2"]:
        """Return what is left inside a stratum: its symmetric and its antisymmetric part."""
        n, blocks = self._sizes[s], self._blocks
        both, apart = self._within(s)
        total, mean = n * (n - 1), self.mean[s, s]
        of_both, of_apart = both @ both * (n - 2) / 2, apart @ apart * n / 2
        symmetric = (blocks.squares[s, s] + blocks.crossed[s, s]) / 2 - total * mean**2 - of_both
        antisymmetric = (blocks.squares[s, s] - blocks.crossed[s, s]) / 2 - of_apart
        return np.array(
            [
                symmetric * np.sqrt(2 / (n * (n - 3))) if n > 3 else 0.0,
                antisymmetric * np.sqrt(2 / ((n - 1) * (n - 2))) if n > 2 else 0.0,
            ]
        )

    def rest_between(self, s: int, t: int) -> Float[np.ndarray, " 3"]:
        """Return what is left of the blocks of s and t, and of t and s, and their inner product."""
        (rows, columns), (columns_back, rows_back) = self._between(s, t), self._between(t, s)
        n, m, mean, mean_back = self._sizes[s], self._sizes[t], self.mean[s, t], self.mean[t, s]
        there = self._blocks.squares[s, t] - n * m * mean**2 - m * rows @ rows - n * columns @ columns
        back = self._blocks.squares[t, s] - n * m * mean_back**2 - m * rows_back @ rows_back
        back -= n * columns_back @ columns_back
        both = self._blocks.crossed[s, t] - n * m * mean * mean_back - m * rows @ rows_back - n * columns @ columns_back
        return np.array([there, back, np.sqrt(2) * both])
