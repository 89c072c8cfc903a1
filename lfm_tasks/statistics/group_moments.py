"""Exact mean and variance of Σ A_ij B_π(i)π(j) over permutations of groups of equal size: no permutation is drawn.

A and B are symmetric. Groups g and h of m points have a block A_gh of m × m numbers, and Σ A_ij B_π(i)π(j) =
Σ ⟨A_gh, B_π(g)π(h)⟩ over groups. As single numbers within a stratum do, blocks consist of a mean, effects of the groups
of their rows and columns, and a rest without either (see `strata_moments`); these are uncorrelated under permutations.
The third moment is that of the rests, and of the effects with the rests, to leading order in the number of groups.
What one space contributes is computed once, as three vectors of some 6 m⁶ numbers; a pair takes their inner products.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations_with_replacement, pairwise

import numpy as np
from jaxtyping import Float, Int

from lfm_tasks.statistics.permutation_moments import (
    GraphSums,
    arrangements,
    concentration,
    moment_sums,
    set_partitions,
)
from lfm_tasks.statistics.strata_moments import MOST_CUBED, ExchangeSums

# Points of a group beyond which the numbers of a space, about their sixth power, take more time and memory than
# permutations: 25,000 for groups of 4, 290,000 for groups of 6.
MOST_IN_GROUP = 4
# Groups below which few of them often have most of the energy: of 20, in half of the pairs of spaces.
FEWEST_GROUPS = 30
# Points of a run whose blocks are in memory at a time.
_RUN = 512

# Of two runs of points, in the order of groups: that part of a symmetric matrix.
Tile = Callable[[slice, slice], Float[np.ndarray, "rows columns"]]


def in_order_of_groups(groups: Int[np.ndarray, "groups members"]) -> Int[np.ndarray, "groups members"]:
    """Return the groups in random order, always the same one, so that the first of them are a sample."""
    return groups[np.random.default_rng(0).permutation(len(groups))]


@dataclass(frozen=True)
class GroupBlocks:
    """Sums over the blocks A_gh of different groups of a symmetric matrix, each block as m² numbers.

    Parameters
    ----------
    size
        m, points of a group.
    rows
        Σ_h A_gh.
    squares
        Σ A_gh A_ghᵀ over all g and h, blocks as vectors.
    diagonal
        A_gg.
    energies
        Σ_h ‖A_gh‖², that of the diagonal included.
    """

    size: int
    rows: Float[np.ndarray, "groups numbers"]
    squares: Float[np.ndarray, "numbers numbers"]
    diagonal: Float[np.ndarray, "groups numbers"]
    energies: Float[np.ndarray, " groups"]

    @property
    def back(self) -> Int[np.ndarray, " numbers"]:
        """The places of the numbers of a block in its transpose."""
        return np.arange(self.size**2).reshape(self.size, self.size).T.ravel()

    @property
    def norm(self) -> float:
        """‖A‖."""
        return float(np.sqrt(self.energies.sum()))


def group_blocks(tile: Tile, n_groups: int, size: int) -> GroupBlocks:
    """Return the sums of a symmetric matrix, from parts of it; ``size``: points of a group."""
    n_numbers = size * size
    rows, diagonal = np.zeros((2, n_groups, n_numbers))
    squares, energies = np.zeros((n_numbers, n_numbers)), np.zeros(n_groups)
    sums = GroupBlocks(size, rows, squares, diagonal, energies)
    step, back = max(1, _RUN // size), sums.back
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
    return sums


def _blocks(tile: Tile, first: slice, second: slice, size: int) -> Float[np.ndarray, "first second numbers"]:
    values = tile(*(slice(size * run.start, size * run.stop) for run in (first, second)))
    shape = first.stop - first.start, size, second.stop - second.start, size
    return np.ascontiguousarray(values.reshape(shape).transpose(0, 2, 1, 3)).reshape(shape[0], shape[2], size * size)


@dataclass(frozen=True)
class _Effects:
    """The mean of the blocks, and the effects of the groups of their rows and columns, which sum to zero.

    ``features``: what of each group inner products count of: sum and difference of its effects, its own block.
    """

    mean: Float[np.ndarray, " numbers"]
    of_rows: Float[np.ndarray, "groups numbers"]
    of_columns: Float[np.ndarray, "groups numbers"]
    features: Float[np.ndarray, "groups features"]


def _effects(blocks: GroupBlocks) -> _Effects:
    n, size = len(blocks.rows), blocks.size
    mean = blocks.rows.sum(axis=0) / (n * (n - 1))
    rows, columns = blocks.rows - (n - 1) * mean, blocks.rows[:, blocks.back] - (n - 1) * mean
    both, apart = (rows + columns) / (n - 2), (rows - columns) / n
    # Of a symmetric matrix half of their numbers repeat the others: each counts twice.
    is_upper = np.triu(np.ones((size, size), dtype=bool)).ravel()
    weights = np.where(np.eye(size, dtype=bool).ravel(), 1.0, np.sqrt(2))
    sides = (
        (both * np.sqrt((n - 2) / 2), is_upper),
        (apart * np.sqrt(n / 2), is_upper & (weights > 1)),
        (blocks.diagonal - blocks.diagonal.mean(axis=0), is_upper),
    )
    features = np.concatenate([(weights * side)[:, kept] for side, kept in sides], axis=1)
    return _Effects(mean, (both + apart) / 2, (both - apart) / 2, features)


def group_sums(blocks: GroupBlocks, tile: Tile) -> ExchangeSums:
    """Return the vectors of a matrix whose inner products are the moments over permutations of six or more groups.

    ``tile``: parts of the matrix, of which up to 768 points determine the third moment.
    """
    n, effects, back = len(blocks.rows), _effects(blocks), blocks.back
    of_rows, of_columns = effects.of_rows, effects.of_columns
    means = n * (n - 1) * np.outer(effects.mean, effects.mean)
    rows, columns, mixed = of_rows.T @ of_rows, of_columns.T @ of_columns, of_rows.T @ of_columns
    squares = blocks.squares - means - (n - 1) * (rows + columns) + mixed + mixed.T
    crossed = blocks.squares[:, back] - means - (n - 1) * (mixed + mixed.T) + rows + columns
    of_effects = (effects.features.T @ effects.features).ravel() / np.sqrt(n - 1)
    of_rest = np.concatenate(
        [
            (squares + crossed).ravel() / np.sqrt(2 * n * (n - 3)),
            (squares - crossed).ravel() / np.sqrt(2 * (n - 1) * (n - 2)),
        ]
    )
    mean = np.concatenate([effects.mean * np.sqrt(n * (n - 1)), blocks.diagonal.mean(axis=0) * np.sqrt(n)])
    # Effects of few groups: in how many permutations these meet, no moment says. They count by their share.
    sizes = float(np.linalg.norm(of_effects)), float(np.linalg.norm(of_rest))
    share = sizes[0] / sum(sizes) if sizes[0] > 0 else 0.0
    of_few = share * concentration(np.vecdot(effects.features, effects.features))
    spread = max(concentration(blocks.energies), of_few)
    third = _third(effects, tile, blocks.size)
    return ExchangeSums(mean, np.concatenate([of_effects, of_rest]), third, spread)


def _third(effects: _Effects, tile: Tile, size: int) -> Float[np.ndarray, " triples"]:
    """Return the contribution of a symmetric matrix to the third moment, from up to 768 points of the first groups.

    The third moment of the rest E follows from Σ E_gh³ and Σ E_gh E_hk E_kg; that of the effects f with it, to leading
    order, from Σ f_g E_gh f_h and Σ f_g E_gh². Each is a tensor over the numbers of blocks. Of 54 pairs of matrices of
    600 points, in groups of 2 to 6 like or unlike ones, the skewness differed from that of 1,500 permutations (.2 to
    1.8, known to some .1) by .10 on average.
    """
    n = len(effects.of_rows)
    n_some, n_numbers = min(n, MOST_CUBED // size), size * size
    rest = _blocks(tile, slice(0, n_some), slice(0, n_some), size)
    rest -= effects.mean + effects.of_rows[:n_some, None] + effects.of_columns[:n_some]
    rest[np.arange(n_some), np.arange(n_some)] = 0
    by_number = np.ascontiguousarray(rest.transpose(2, 0, 1))
    flat = by_number.reshape(n_numbers, -1)
    back = by_number.transpose(0, 2, 1).reshape(n_numbers, -1).T.copy()
    triangles = np.stack([(one @ by_number).reshape(n_numbers, -1) @ back for one in by_number])
    cubes = np.stack([(one * flat) @ flat.T for one in flat])
    features = effects.features[:n_some]
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


def _third_factors(n_groups: int) -> tuple[float, float, float]:
    """Return L of the third moment (c, t) L Lᵀ (c', t')ᵀ from cubes c and triangles t of two matrices without effects.

    Its sums over partitions of six indices are those of single numbers.
    """
    zeros, order = np.zeros(n_groups), len(set_partitions(2)) + len(set_partitions(4))
    units = [GraphSums(zeros, zeros, zeros, 0.0, 0.0, 0.0, cubes, 1.0 - cubes) for cubes in (1.0, 0.0)]
    sums = np.stack([moment_sums(unit)[order:] for unit in units]) / np.sqrt(arrangements(3, n_groups))
    factor = np.linalg.cholesky(sums @ sums.T)
    return float(factor[0, 0]), float(factor[1, 0]), float(factor[1, 1])
