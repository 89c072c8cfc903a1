"""Exact mean and variance of Σ A_ij B_π(i)π(j) over permutations of groups of equal size: no permutation is drawn.

Groups g and h of m points have a block A_gh of m × m numbers, and Σ A_ij B_π(i)π(j) = Σ ⟨A_gh, B_π(g)π(h)⟩ over groups.
As single numbers within a stratum do, blocks consist of a mean, effects of the groups of their rows and columns, and a
rest without either (see `strata_moments`); these are uncorrelated under permutations. The third moment is that of the
rests, and of the effects with the rests, to leading order in the number of groups. What one space contributes is
computed once, as three vectors; a pair takes their inner products. They have some 6 m⁶ numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations_with_replacement, pairwise

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from lfm_tasks.statistics.permutation_moments import GraphSums, arrangements, moment_sums, set_partitions
from lfm_tasks.statistics.strata_moments import MOST_CUBED, ExchangeSums

# Points of a group beyond which the numbers of a space, about their sixth power, cost more than permutations.
MOST_IN_GROUP = 6
# Points of a run whose blocks are in memory at a time.
_RUN = 512

# Of two runs of points, in the order of groups: that part of a symmetric matrix.
Tile = Callable[[slice, slice], Float[np.ndarray, "rows columns"]]


def in_order_of_groups(groups: Int[np.ndarray, "groups members"]) -> Int[np.ndarray, "groups members"]:
    """Return the groups in an order, always the same, in which the first ones stand for all."""
    return groups[np.random.default_rng(0).permutation(len(groups))]


@dataclass(frozen=True)
class GroupBlocks:
    """Sums over the blocks A_gh of different groups, each as m² numbers.

    Parameters
    ----------
    rows, columns
        Σ_h A_gh and Σ_h A_hg.
    squares, crossed
        Σ A_gh A_ghᵀ and Σ A_gh A_hgᵀ over all g and h, blocks as vectors.
    diagonal
        A_gg.
    energies
        Σ_h ‖A_gh‖², that of the diagonal included.
    """

    rows: Float[np.ndarray, "groups numbers"]
    columns: Float[np.ndarray, "groups numbers"]
    squares: Float[np.ndarray, "numbers numbers"]
    crossed: Float[np.ndarray, "numbers numbers"]
    diagonal: Float[np.ndarray, "groups numbers"]
    energies: Float[np.ndarray, " groups"]


def _transposed(size: int) -> Int[np.ndarray, " numbers"]:
    """Return the places of the numbers of a block in its transpose."""
    return np.arange(size * size).reshape(size, size).T.ravel()


def dense_blocks(tile: Tile, n_groups: int, size: int) -> GroupBlocks:
    """Return the sums of a symmetric matrix, from parts of it; ``size``: points of a group."""
    n_numbers, back = size * size, _transposed(size)
    rows, diagonal = np.zeros((2, n_groups, n_numbers))
    squares, energies = np.zeros((n_numbers, n_numbers)), np.zeros(n_groups)
    step = max(1, _RUN // size)
    runs = [slice(*edges) for edges in pairwise([*range(0, n_groups, step), n_groups])]
    for first, second in combinations_with_replacement(runs, 2):
        blocks = _blocks(tile, first, second, size)
        if first == second:
            here = np.arange(first.stop - first.start)
            diagonal[first] = blocks[here, here]
            blocks[here, here] = 0
        flat = blocks.reshape(-1, n_numbers)
        of_run, sizes = flat.T @ flat, np.square(blocks).sum(axis=2)
        squares += of_run
        rows[first] += blocks.sum(axis=1)
        energies[first] += sizes.sum(axis=1)
        if first != second:
            squares += of_run[np.ix_(back, back)]
            rows[second] += blocks.sum(axis=0)[:, back]
            energies[second] += sizes.sum(axis=0)
    energies += np.square(diagonal).sum(axis=1)
    return GroupBlocks(rows, rows[:, back], squares, squares[:, back], diagonal, energies)


def _blocks(tile: Tile, first: slice, second: slice, size: int) -> Float[np.ndarray, "first second numbers"]:
    values = tile(*(slice(size * run.start, size * run.stop) for run in (first, second)))
    shape = first.stop - first.start, size, second.stop - second.start, size
    return np.ascontiguousarray(values.reshape(shape).transpose(0, 2, 1, 3)).reshape(shape[0], shape[2], size * size)


def sparse_blocks(matrix: csr_array, groups: Int[np.ndarray, "groups members"]) -> GroupBlocks:
    """Return the sums of a sparse matrix, which need not be symmetric."""
    n_groups, size = groups.shape
    number, place = np.empty((2, groups.size), dtype=np.int64)
    number[groups], place[groups] = np.arange(n_groups)[:, None], np.arange(size)
    entries = matrix.tocoo()
    row, column = entries.coords
    first, second, inside = number[row], number[column], place[row] * size + place[column]
    rows, columns, diagonal = np.zeros((3, n_groups, size * size))
    is_on = first == second
    np.add.at(diagonal, (first[is_on], inside[is_on]), entries.data[is_on])
    first, second, inside, values = (side[~is_on] for side in (first, second, inside, entries.data))
    np.add.at(rows, (first, inside), values)
    np.add.at(columns, (second, inside), values)
    present, block = np.unique(first * n_groups + second, return_inverse=True)
    blocks = csr_array((values, (block, inside)), shape=(len(present), size * size))
    reverse = present % n_groups * n_groups + present // n_groups
    partner = np.minimum(np.searchsorted(present, reverse), max(len(present) - 1, 0))
    has_partner = present[partner] == reverse
    squares = (blocks.T @ blocks).toarray()
    crossed = (blocks[has_partner].T @ blocks[partner[has_partner]]).toarray()
    energies = np.bincount(first, values**2, n_groups) + np.square(diagonal).sum(axis=1)
    return GroupBlocks(rows, columns, squares, crossed, diagonal, energies)


@dataclass(frozen=True)
class _Effects:
    """The mean of the blocks, and the effects of the groups of their rows and columns, which sum to zero."""

    mean: Float[np.ndarray, " numbers"]
    of_rows: Float[np.ndarray, "groups numbers"]
    of_columns: Float[np.ndarray, "groups numbers"]

    @property
    def features(self) -> tuple[Float[np.ndarray, "groups numbers"], Float[np.ndarray, "groups numbers"]]:
        """What of each group its inner products count of: sum and difference of its effects."""
        n_groups = len(self.of_rows)
        both, apart = self.of_rows + self.of_columns, self.of_rows - self.of_columns
        return both * np.sqrt((n_groups - 2) / 2), apart * np.sqrt(n_groups / 2)


def _effects(blocks: GroupBlocks) -> _Effects:
    n = len(blocks.rows)
    mean = blocks.rows.sum(axis=0) / (n * (n - 1))
    rows, columns = blocks.rows - (n - 1) * mean, blocks.columns - (n - 1) * mean
    both, apart = (rows + columns) / (n - 2), (rows - columns) / n
    return _Effects(mean, (both + apart) / 2, (both - apart) / 2)


def group_sums(blocks: GroupBlocks, third: Float[np.ndarray, " triples"] | None = None) -> ExchangeSums:
    """Return the vectors of a matrix whose inner products are the moments over permutations of four or more groups.

    ``third``: what `leading_third` returns; None: nothing, as for graphs of neighbors, whose moments are near normal.
    """
    n, effects = len(blocks.rows), _effects(blocks)
    of_rows, of_columns = effects.of_rows, effects.of_columns
    means = n * (n - 1) * np.outer(effects.mean, effects.mean)
    rows, columns, mixed = of_rows.T @ of_rows, of_columns.T @ of_columns, of_rows.T @ of_columns
    squares = blocks.squares - means - (n - 1) * (rows + columns) + mixed + mixed.T
    crossed = blocks.crossed - means - (n - 1) * (mixed + mixed.T) + rows + columns
    on = blocks.diagonal.mean(axis=0)
    features = np.concatenate([*effects.features, blocks.diagonal - on], axis=1)
    variances = [
        (features.T @ features).ravel() / np.sqrt(n - 1),
        (squares + crossed).ravel() / np.sqrt(2 * n * (n - 3)),
        (squares - crossed).ravel() / np.sqrt(2 * (n - 1) * (n - 2)),
    ]
    mean = np.concatenate([effects.mean * np.sqrt(n * (n - 1)), on * np.sqrt(n)])
    return ExchangeSums(mean, np.concatenate(variances), np.zeros(1) if third is None else third)


def leading_third(blocks: GroupBlocks, tile: Tile, size: int) -> Float[np.ndarray, " triples"]:
    """Return the contribution of a symmetric matrix to the third moment, from up to 768 points of the first groups.

    The third moment of the rest E follows from Σ E_gh³ and Σ E_gh E_hk E_kg; that of the effects f with it, to leading
    order, from Σ f_g E_gh f_h and Σ f_g E_gh². Each is a tensor over the numbers of blocks. Of 54 pairs of matrices of
    600 points, in groups of 2 to 6 like or unlike ones, the skewness differed from that of 1,500 permutations (.2 to
    1.8, known to some .1) by .10 on average.
    """
    n = len(blocks.rows)
    n_some, n_numbers = min(n, MOST_CUBED // size), size * size
    effects = _effects(blocks)
    rest = _blocks(tile, slice(0, n_some), slice(0, n_some), size)
    rest -= effects.mean + effects.of_rows[:n_some, None] + effects.of_columns[:n_some]
    rest[np.arange(n_some), np.arange(n_some)] = 0
    by_number = np.ascontiguousarray(rest.transpose(2, 0, 1))
    flat = by_number.reshape(n_numbers, -1)
    back = by_number.transpose(0, 2, 1).reshape(n_numbers, -1).T.copy()
    triangles = np.stack([(one @ by_number).reshape(n_numbers, -1) @ back for one in by_number])
    cubes = np.stack([(one * flat) @ flat.T for one in flat])
    features = _symmetric_features(blocks, effects, size)[:n_some]
    crossed = np.stack([features.T @ one @ features for one in by_number])
    squares = features.T @ (rest.transpose(0, 2, 1) @ rest).reshape(n_some, -1)
    share, (of_cubes, mixed, of_triangles) = n / n_some, _third_factors(n)
    return np.concatenate(
        [
            (of_cubes * share**2 * cubes + mixed * share**3 * triangles).ravel(),
            (of_triangles * share**3 * triangles).ravel(),
            (np.sqrt(6 / (n * (n - 1)) * (1 + 2 / (n - 2))) * share**2 * crossed).ravel(),
            (np.sqrt(12 / (n * (n - 1))) * share**2 * squares).ravel(),
        ]
    )


def _symmetric_features(blocks: GroupBlocks, effects: _Effects, size: int) -> Float[np.ndarray, "groups features"]:
    """Return the effects of a symmetric matrix without the half of their numbers that repeats the others."""
    is_upper = np.triu(np.ones((size, size), dtype=bool)).ravel()
    weights = np.where(np.eye(size, dtype=bool).ravel(), 1.0, np.sqrt(2))
    both, apart = effects.features
    of_diagonal = blocks.diagonal - blocks.diagonal.mean(axis=0)
    sides = ((both, is_upper), (apart, is_upper & (weights > 1)), (of_diagonal, is_upper))
    return np.concatenate([(weights * side)[:, kept] for side, kept in sides], axis=1)


def _third_factors(n_groups: int) -> tuple[float, float, float]:
    """Return L of the third moment (c, t) L Lᵀ (c', t')ᵀ from cubes c and triangles t of two matrices without effects.

    Its sums over partitions of six indices are those of single numbers.
    """
    zeros, order = np.zeros(n_groups), len(set_partitions(2)) + len(set_partitions(4))
    units = [GraphSums(zeros, zeros, zeros, 0.0, 0.0, 0.0, cubes, 1.0 - cubes) for cubes in (1.0, 0.0)]
    sums = np.stack([moment_sums(unit)[order:] for unit in units]) / np.sqrt(arrangements(3, n_groups))
    factor = np.linalg.cholesky(sums @ sums.T)
    return float(factor[0, 0]), float(factor[1, 0]), float(factor[1, 1])
