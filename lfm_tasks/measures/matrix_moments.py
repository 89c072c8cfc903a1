"""Chance of ⟨K, PLPᵀ⟩ for all pairs of spaces, in closed form: what one space contributes, and the moments of pairs.

The exact moments over all permutations P of the points follow from 220 sums of each centered matrix. One of these, the
trace of its cube, is extrapolated from 768 points where there are more. Mean and variance over permutations within
strata, or of whole groups, follow from sums of its blocks.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from lfm_tasks.measures.point_matrices import Centering, MatrixForm, TiledMatrix
from lfm_tasks.measures.point_sets import KeptTiles, PointSets, SpaceRows, Tile, TileFunction, point_sets
from lfm_tasks.statistics.far_tails import N_EIGENVALUES, Spectra, largest_eigenvalues
from lfm_tasks.statistics.group_moments import group_blocks, group_sums, in_order_of_groups
from lfm_tasks.statistics.permutation_moments import (
    GraphSums,
    MomentArrays,
    concentration,
    moment_sums,
    moments_of_pairs,
)
from lfm_tasks.statistics.resampling import Exchange
from lfm_tasks.statistics.strata_moments import (
    BlockSums,
    ExchangeSums,
    moments_of_sums,
    some_points,
    strata_sums,
    triangles,
)


@dataclass(frozen=True)
class MatrixChance:
    """Sums over one centered matrix from which the permutation moments of its pairs follow.

    ``off`` and ``on``: the means off and on its diagonal. ``sums``: of the matrix less these, by set partition.
    ``norm``: ‖K‖. ``spectrum``: the largest eigenvalues of the matrix less its means. ``concentration``: of its rows.
    """

    off: float
    on: float
    norm: float
    sums: Float[np.ndarray, " partitions"]
    spectrum: Float[np.ndarray, " eigenvalues"]
    concentration: float


@dataclass(frozen=True)
class _Centered:
    """How tiles become those of the centered matrix less its means: effects of rows, a constant, the new diagonal."""

    effects: Float[np.ndarray, " points"]
    constant: float
    diagonal: Float[np.ndarray, " points"]
    row_sums: Float[np.ndarray, " points"]
    off: float
    on: float


def matrix_chance(space: SpaceRows, matrix: TiledMatrix, sets: PointSets, form: MatrixForm) -> MatrixChance:
    """Return the sums for the chance level of one space, from two passes over the tiles of its matrix.

    Parameters
    ----------
    space, sets, form
        What the matrix was made of.
    matrix
        The matrix of the space.
    """
    tile = _kept_tiles(matrix.tile, sets)
    centered = _centered(*_row_sums(tile, sets), form.centering)
    n_points, d, r = len(sets.order), centered.diagonal, centered.row_sums
    q, with_d, with_r, cubes = np.zeros(n_points), np.zeros(n_points), np.zeros(n_points), 0.0
    for rows, columns, values in _moved_tiles(tile, sets, centered):
        squares = values * values
        cubes += float(np.vdot(squares, values)) * (1 if rows == columns else 2)
        q[rows] += squares.sum(axis=1)
        with_d[rows] += values @ d[columns]
        with_r[rows] += values @ r[columns]
        if rows != columns:
            q[columns] += squares.sum(axis=0)
            with_d[columns] += d[rows] @ values
            with_r[columns] += r[rows] @ values
    triangles, spectrum = _spectrum(space, matrix, form, float(q.sum()))
    graphs = GraphSums(
        d, r, q, d_d=float(d @ with_d), d_r=float(d @ with_r), r_r=float(r @ with_r), cubes=cubes, triangles=triangles
    )
    energy = float(q.sum()) + n_points * (n_points - 1) * centered.off**2 + n_points * centered.on**2
    norm = float(np.sqrt(energy))
    return MatrixChance(centered.off, centered.on, norm, moment_sums(graphs), spectrum, concentration(q + d * d))


def moments_of_cosines(sources: Sequence[MatrixChance], targets: Sequence[MatrixChance], n_points: int) -> MomentArrays:
    """Return mean, deviation and skewness of the cosine of every source with every target, the points permuted."""
    of_sums = moments_of_pairs(
        np.stack([source.sums for source in sources]), np.stack([target.sums for target in targets]), n_points
    )
    off, on, norm = (
        np.multiply.outer([getattr(one, name) for one in sources], [getattr(one, name) for one in targets])
        for name in ("off", "on", "norm")
    )
    constant = n_points * (n_points - 1) * off + n_points * on
    norm = np.where(norm > 0, norm, np.nan)  # a matrix of zeros has no cosine
    of_sources, of_targets = (
        np.stack([one.spectrum / one.norm if one.norm > 0 else 0 * one.spectrum for one in side])
        for side in (sources, targets)
    )
    shape = (len(sources), len(targets), of_sources.shape[1])
    spectra = Spectra(np.broadcast_to(of_sources[:, None], shape), np.broadcast_to(of_targets[None], shape), n_points)
    return MomentArrays((of_sums.mean + constant) / norm, of_sums.deviation / norm, of_sums.skewness, spectra)


@dataclass(frozen=True)
class MatrixSums:
    """Sums over one centered matrix for moments within strata, or of groups; its norm ‖K‖.

    ``concentration``: of its rows, or of groups of them.
    """

    norm: float
    sums: ExchangeSums
    concentration: float


def matrix_sums(
    space: SpaceRows, matrix: TiledMatrix, sets: PointSets, form: MatrixForm, exchange: Exchange
) -> MatrixSums:
    """Return the sums for chance of one space within strata, or of equal groups: two passes over tiles of its matrix.

    For groups, the matrix is made once more, its points in the order of groups.

    Parameters
    ----------
    space, sets, form
        What the matrix was made of.
    matrix
        The matrix of the space.
    exchange
        Of the points in their given order, of which ``sets.order`` is the one of the space.
    """
    strata, groups = exchange.strata, exchange.equal_groups
    if strata is not None:
        return _in_strata(space, matrix, sets, form, strata[sets.order])
    if groups is None:
        raise ValueError("got an exchange of free rows, or of unequal groups, expected strata or equal groups")
    return _in_groups(space, matrix, form, in_order_of_groups(np.argsort(sets.order)[groups]))


def _in_groups(
    space: SpaceRows, matrix: TiledMatrix, form: MatrixForm, groups: Int[np.ndarray, "groups members"]
) -> MatrixSums:
    moved, sets = replace(space, rows=space.rows[groups.ravel()]), point_sets(groups.size)
    rough = form.of_rows(moved, sets, matrix.constants_at(groups.ravel())).tile
    centered = _centered(*_row_sums(rough, sets), form.centering)

    def tile(rows: slice, columns: slice) -> Float[np.ndarray, "rows columns"]:
        values = _moved_tile(rough(rows, columns), rows, columns, centered)
        values += centered.off
        if rows == columns:
            np.fill_diagonal(values, centered.diagonal[rows] + centered.on)
        return values

    blocks = group_blocks(tile, *groups.shape)
    sums = group_sums(blocks, tile)
    return MatrixSums(blocks.norm, sums, sums.concentration)


def _in_strata(
    space: SpaceRows, matrix: TiledMatrix, sets: PointSets, form: MatrixForm, strata: Int[np.ndarray, " points"]
) -> MatrixSums:
    """Return the sums for chance within strata; these are of each point in the order of ``sets``."""
    tile = _kept_tiles(matrix.tile, sets)
    centered = _centered(*_row_sums(tile, sets), form.centering)
    members = np.eye(int(strata.max()) + 1)[strata]
    rows_of, squares_of = np.zeros(members.shape), np.zeros((members.shape[1],) * 2)
    energies = np.zeros(len(members))
    for rows, columns, values in _moved_tiles(tile, sets, centered):
        values += centered.off
        if rows == columns:
            np.fill_diagonal(values, 0)
        squares = values * values
        squared = members[rows].T @ squares @ members[columns]
        squares_of += squared
        energies[rows] += squares.sum(axis=1)
        rows_of[rows] += values @ members[columns]
        if rows != columns:
            squares_of += squared.T
            energies[columns] += squares.sum(axis=0)
            rows_of[columns] += values.T @ members[rows]
    diagonal = centered.diagonal + centered.on
    norm = float(np.sqrt(squares_of.sum() + diagonal @ diagonal))
    third = triangles(_of_some_points(space, matrix, form), strata[some_points(len(strata))], np.bincount(strata))
    blocks = BlockSums(rows_of, rows_of, squares_of, squares_of, diagonal)
    return MatrixSums(norm, strata_sums(blocks, strata, third), concentration(energies + diagonal**2))


def cosines_in_sets(sources: Sequence[MatrixSums], targets: Sequence[MatrixSums]) -> MomentArrays:
    """Return mean, deviation and skewness of the cosine of every source with every target, in strata or groups."""
    moments = moments_of_sums([source.sums for source in sources], [target.sums for target in targets])
    norm = np.multiply.outer([source.norm for source in sources], [target.norm for target in targets])
    norm = np.where(norm > 0, norm, np.nan)  # a matrix of zeros has no cosine
    return MomentArrays(moments.mean / norm, moments.deviation / norm, moments.skewness)


def _kept_tiles(tile: TileFunction, sets: PointSets) -> TileFunction:
    """Return a function to tiles that keeps each, where it can, from the first look for the second."""
    tiles = KeptTiles(len(sets.order))

    def kept(rows: slice, columns: slice) -> Tile:
        values = tiles.take(rows, columns)
        if values is None:
            values = tile(rows, columns)
            tiles.keep(rows, columns, values)
        return values

    return kept


def _row_sums(tile: TileFunction, sets: PointSets) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]]:
    """Return the row sums and the diagonal."""
    n_points = len(sets.order)
    sums, diagonal = np.zeros(n_points), np.zeros(n_points)
    for place, (_, rows) in enumerate(runs := sets.runs()):
        for _, columns in runs[place:]:
            values = tile(rows, columns)
            sums[rows] += values.sum(axis=1)
            if rows == columns:
                diagonal[rows] = np.diagonal(values)
            else:
                sums[columns] += values.sum(axis=0)
    return sums, diagonal


def _centered(
    row_sums: Float[np.ndarray, " points"], diagonal: Float[np.ndarray, " points"], centering: Centering
) -> _Centered:
    n, total = len(row_sums), float(row_sums.sum())
    if centering == "pairs":
        effects, constant, of_diagonal = np.zeros(n), total / (n * (n - 1)), np.zeros(n)
    elif centering == "unbiased":
        effects, constant, of_diagonal = row_sums / (n - 2), -total / ((n - 1) * (n - 2)), np.zeros(n)
    else:
        effects, constant = row_sums / n, -total / n**2
        of_diagonal = diagonal - 2 * effects - constant
    sums = row_sums - diagonal - (n - 1) * constant - (n - 2) * effects - effects.sum()
    off, on = float(sums.sum() / (n * (n - 1))), 0.0
    if centering == "double":
        on = float(of_diagonal.mean())
        of_diagonal = of_diagonal - on
    elif centering == "zero_diagonal":
        of_diagonal = np.zeros(n)
    return _Centered(effects, constant + off, of_diagonal, sums - (n - 1) * off + of_diagonal, off, on)


def _moved_tiles(
    tile: TileFunction, sets: PointSets, centered: _Centered
) -> Iterator[tuple[slice, slice, Float[np.ndarray, "rows columns"]]]:
    """Yield (rows, columns, numbers) of the centered matrix: tiles on and above the diagonal."""
    runs = sets.runs()
    for place, (_, rows) in enumerate(runs):
        for _, columns in runs[place:]:
            yield rows, columns, _moved_tile(tile(rows, columns), rows, columns, centered)


def _moved_tile(
    values: Float[np.ndarray, "rows columns"], rows: slice, columns: slice, centered: _Centered
) -> Float[np.ndarray, "rows columns"]:
    """Return the numbers of the centered matrix less its means, in the array of those before."""
    values -= (centered.effects[rows] + centered.constant)[:, None]
    values -= centered.effects[columns]
    if rows == columns:
        np.fill_diagonal(values, centered.diagonal[rows])
    return values


def _spectrum(
    space: SpaceRows, matrix: TiledMatrix, form: MatrixForm, energy: float
) -> tuple[float, Float[np.ndarray, " eigenvalues"]]:
    """Return tr A³ and the largest eigenvalues, from some of the points where there are many.

    Eigenvalues over √(tr A²), and so tr A³/(tr A²)^1.5, hardly depend on how many.
    """
    values = _of_some_points(space, matrix, form)
    of_some = float(np.square(values).sum())
    if of_some == 0:
        return 0.0, np.zeros(N_EIGENVALUES)
    narrow = (values / np.sqrt(of_some)).astype(np.float32)
    # It is symmetric: NumPy computes half of the product of an array with its transpose.
    triangles = float(np.vdot(narrow @ narrow.T, narrow)) * energy**1.5
    return triangles, largest_eigenvalues(narrow) * np.sqrt(energy)


def _of_some_points(space: SpaceRows, matrix: TiledMatrix, form: MatrixForm) -> Float[np.ndarray, "some some"]:
    """Return the centered matrix less its means of up to 768 of the points: the skewness of more differs by about 2 %.

    Cells are random halves of the points, or the points by id: these are spread over all of them.
    """
    some = some_points(len(space.rows))
    if len(some) < len(space.rows):
        moved = replace(space, rows=space.rows[some])
        matrix = form.of_rows(moved, point_sets(len(some)), matrix.constants_at(some))
    everything = slice(0, len(some))
    values = matrix.tile(everything, everything)
    centered = _centered(values.sum(axis=1), np.diagonal(values).copy(), form.centering)
    return _moved_tile(values, everything, everything, centered)
