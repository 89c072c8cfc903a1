"""Matrices of all pairs of points of one space, made tile by tile: of many points none is held whole.

A `MatrixForm` says how a measure is the cosine of two such matrices after centering. `matrix_pairs` computes all pairs
of spaces from them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from lfm_tasks.errors import DataError, number_of
from lfm_tasks.measures.order_statistics import RankTable, medians_of_sets, rank_table
from lfm_tasks.measures.point_sets import NO_SPREAD, KeptTiles, PointSets, SpaceRows, Tile, TileFunction

# Runs of points, and points of a run, whose columns estimate the effects of rows that are taken off before tiles become
# float32. The estimate may be rough: centering is completed exactly, from sums of rows.
_SAMPLE_RUNS, _SAMPLE_RUN = 8, 32

# Change of log σ² up to which a derivative has no effects that cost its sum with the matrix digits in float32.
_SMALL_SHIFT = 0.1

# ‖K‖²/n² below which a kernel of order 1 is rounding.
_LEAST_ENERGY = 1e-26

Centering = Literal["double", "unbiased", "zero_diagonal", "pairs"]


@dataclass(frozen=True)
class MatrixConstants:
    """Numbers of a matrix that are computed once: given to its form again, they spare passes over pairs of points.

    Parameters
    ----------
    effects
        What is taken off rows and columns before tiles become float32, where that is more than a number.
    effects_of_derivative
        The same for the derivative by log σ², where shifts are large.
    variance
        σ², where there is a bandwidth.
    shifts
        The change of log σ² in each set of points.
    table
        Where ranks are taken.
    """

    effects: Float[np.ndarray, " points"] | None = None
    effects_of_derivative: Float[np.ndarray, " points"] | None = None
    variance: float | None = None
    shifts: Float[np.ndarray, " sets"] | None = None
    table: RankTable | None = None

    def at(self, points: Int[np.ndarray, " some"]) -> "MatrixConstants":
        """Return the constants of the matrix of some of the points, or of all in another order, as one set."""
        effects = None if self.effects is None else self.effects[points]
        return MatrixConstants(effects, variance=self.variance, table=self.table)


@dataclass(frozen=True)
class TiledMatrix:
    """A symmetric matrix of all pairs of points, roughly centered.

    Parameters
    ----------
    tile
        Returns the matrix of two runs of points.
    with_derivative
        Returns with it its derivative by log σ²; None where it has no bandwidth, or no set of points but all.
    diagonal
        The diagonal, where centering asks for it.
    constants
        None of a matrix that has none.
    """

    tile: TileFunction
    with_derivative: Callable[[slice, slice], tuple[Tile, Tile]] | None = None
    diagonal: Float[np.ndarray, " points"] | None = None
    constants: MatrixConstants | None = None

    @property
    def shifts(self) -> Float[np.ndarray, " sets"] | None:
        """The change of log σ² in each set of points; None without a derivative."""
        return None if self.with_derivative is None or self.constants is None else self.constants.shifts

    def constants_at(self, points: Int[np.ndarray, " some"]) -> MatrixConstants | None:
        """Return the constants of the matrix of some of the points, or of all in another order; None without any."""
        return None if self.constants is None else self.constants.at(points)


@dataclass(frozen=True)
class MatrixForm:
    """A measure as the cosine ⟨K, L⟩/(‖K‖‖L‖) of two centered n × n matrices, each of one space.

    Parameters
    ----------
    of_rows
        Returns the matrix of a space; constants of an earlier call are taken where they are given.
    centering
        *double*: HKH. *unbiased*: diagonal out, centered without it (HSIC₁). *zero_diagonal*: HKH, then the diagonal
        out. *pairs*: diagonal out, the mean of all pairs taken off.
    of_cosine
        The value from the cosine, elementwise and monotone.
    has_bandwidth
        Whether it depends on a number that is computed over all pairs of points.
    has_table
        Whether each space has a table of ranks, of some 250 kB (1.6 MB for 1,000 points and fewer).
    precision
        Of the products inside a tile. Float32 is right to some 1e-8, of which an angle near 0 is the root.
    least_energy
        ‖K‖²/n² below which K is rounding: kernels are of order 1 before they are centered.
    """

    of_rows: Callable[[SpaceRows, PointSets, MatrixConstants | None], TiledMatrix]
    centering: Centering = "double"
    of_cosine: Callable[[Float[np.ndarray, "*pairs"]], Float[np.ndarray, "*pairs"]] | None = None
    has_bandwidth: bool = False
    has_table: bool = False
    precision: type[np.floating[Any]] = np.float32
    least_energy: float = _LEAST_ENERGY


def linear_matrix(centering: Centering) -> MatrixForm:
    """Return the form of inner products of centered rows."""

    def of_rows(space: SpaceRows, sets: PointSets, constants: object = None) -> TiledMatrix:
        def tile(rows: slice, columns: slice) -> Tile:
            return _without_diagonal(_products(space.rows, rows, columns), rows, columns, centering)

        return TiledMatrix(tile, diagonal=_squares(space.rows))

    return MatrixForm(of_rows, centering, least_energy=0.0)


def radial_matrix(
    bandwidth: Callable[[float, float], float], centering: Centering, *, fixed: bool = False
) -> MatrixForm:
    """Return the form of exp(−d²/(2σ²)); ``bandwidth``: σ² from the median of all n² d², and from the unit.

    The kernel of a set of points is that of all points plus its derivative by log σ², unless σ² is ``fixed``.
    """

    def of_rows(space: SpaceRows, sets: PointSets, constants: MatrixConstants | None = None) -> TiledMatrix:
        has_shifts, squared = not fixed and sets.n_sets > 1, _squared_distances(space)
        # Distances that were computed for their median, each of which is looked at once more.
        kept = KeptTiles(len(sets.order))
        if constants is not None and constants.variance is not None:
            variance = constants.variance
        else:
            medians = np.zeros(1 + sets.n_sets) if fixed else medians_of_sets(squared, sets, kept)
            variance, constants = bandwidth(float(medians[0]), space.unit), None
        # A bandwidth of 0, of a space most of whose points are equal: every kernel is 1, as its definition says.
        factor = -1 / (2 * variance) if variance > 0 else 0.0

        def exponents(rows: slice, columns: slice) -> Tile:
            values = kept.take(rows, columns)
            values = squared(rows, columns) if values is None else values
            values *= factor
            return values

        # Less 1, which centering takes off, where σ² may be so large that all digits would be in that 1.
        exponential = np.expm1 if fixed else np.exp

        def kernel(rows: slice, columns: slice) -> Tile:
            values = exponents(rows, columns)
            return np.asarray(exponential(values, out=values))

        def terms(rows: slice, columns: slice) -> tuple[Tile, Tile]:
            values = exponents(rows, columns)
            made = np.exp(values)
            values *= made
            return made, np.negative(values, out=values)

        if constants is None:
            effects = _rough_effects(kernel, len(sets.order))
            constants = MatrixConstants(effects, variance=variance)
            if has_shifts:
                is_far = np.nanmax(np.abs(medians[1:])) > _SMALL_SHIFT
                slopes = _rough_effects(lambda *runs: terms(*runs)[1], len(sets.order)) if is_far else None
                constants = replace(constants, effects_of_derivative=slopes, shifts=medians[1:])
        less_effects = _less_effects(constants.effects, centering)
        less_slopes = _less_effects(constants.effects_of_derivative, centering)

        def with_derivative(rows: slice, columns: slice) -> tuple[Tile, Tile]:
            made, slopes = terms(rows, columns)
            return less_effects(made, rows, columns), less_slopes(slopes, rows, columns)

        def tile(rows: slice, columns: slice) -> Tile:
            return less_effects(kernel(rows, columns), rows, columns)

        return TiledMatrix(tile, with_derivative if has_shifts else None, constants=constants)

    # Numbers less 1 have digits down to those whose squares leave the range of float32.
    return MatrixForm(of_rows, centering, has_bandwidth=not fixed, least_energy=1e-32 if fixed else _LEAST_ENERGY)


def distance_matrix() -> MatrixForm:
    """Return the form of euclidean distances, centered."""

    def of_rows(space: SpaceRows, sets: PointSets, constants: MatrixConstants | None = None) -> TiledMatrix:
        squared = _squared_distances(space)

        def distances(rows: slice, columns: slice) -> Tile:
            values = squared(rows, columns)
            return np.asarray(np.sqrt(values, out=values))

        constants = constants or MatrixConstants(_rough_effects(distances, len(sets.order)))
        less_effects = _less_effects(constants.effects, "double")

        def tile(rows: slice, columns: slice) -> Tile:
            return less_effects(distances(rows, columns), rows, columns)

        return TiledMatrix(tile, constants=constants)

    return MatrixForm(of_rows, "double", lambda cosines: np.sqrt(np.maximum(cosines, 0)))


def correlation_matrix() -> MatrixForm:
    """Return the form of 1 − Pearson correlations of rows, all but the diagonal.

    The sign of both matrices, and the 1, drop out of the cosine.
    """

    def of_rows(space: SpaceRows, sets: PointSets, constants: object = None) -> TiledMatrix:
        units = _standardized(space)
        n_points = len(units)
        total = units.sum(axis=0, dtype=np.float64)
        mean = float((total @ total - n_points) / (n_points * (n_points - 1)))

        def tile(rows: slice, columns: slice) -> Tile:
            correlations = _products(units, rows, columns)
            correlations -= mean
            return _fill_diagonal(correlations, rows, columns)

        return TiledMatrix(tile)

    return MatrixForm(of_rows, "pairs")


def rank_matrix() -> MatrixForm:
    """Return the form of the ranks of 1 − Pearson correlations of rows, as shares of all pairs of rows.

    Ranks are counted, not sorted: see `RankTable`. In halves they are those among all points.
    """

    def of_rows(space: SpaceRows, sets: PointSets, constants: MatrixConstants | None = None) -> TiledMatrix:
        units = _standardized(space)
        # Correlations that were computed for the table, each of which is looked at once more.
        kept = KeptTiles(len(sets.order))
        table = (constants and constants.table) or rank_table(partial(_products, units), sets, kept)

        def tile(rows: slice, columns: slice) -> Tile:
            correlations = kept.take(rows, columns)
            correlations = _products(units, rows, columns) if correlations is None else correlations
            return _fill_diagonal(table.shares_below(correlations) - 0.5, rows, columns)

        return TiledMatrix(tile, constants=MatrixConstants(table=table))

    return MatrixForm(of_rows, "pairs", has_table=True)


def _standardized(space: SpaceRows) -> Float[np.ndarray, "points features"]:
    """Return each row less its own mean over features, at length 1."""
    wide = space.rows + space.origin
    wide -= wide.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    # What is left of a constant row is rounding.
    rounding = np.finfo(np.float64).eps * np.linalg.norm(space.rows, axis=1, keepdims=True)
    n_constant = int((lengths <= 4 * rounding + NO_SPREAD).sum())
    if n_constant:
        found = f"got {number_of(n_constant, 'row')} whose features are all the same"
        what = "Drop the measure, or record a layer of several features."
        raise DataError("constant_rows", f"{found}, expected rows that correlate with others. {what}")
    return np.asarray(wide / lengths)


def _products(of_rows: Float[np.ndarray, "points features"], rows: slice, columns: slice) -> Tile:
    """Return inner products of two runs of rows, in float64."""
    return np.asarray(of_rows[rows] @ of_rows[columns].T)


def _squares(rows: Float[np.ndarray, "points features"]) -> Float[np.ndarray, " points"]:
    return np.asarray(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))


def _fill_diagonal(tile: Tile, rows: slice, columns: slice) -> Tile:
    """Return the tile with 0 where a point meets itself."""
    same = np.arange(max(rows.start, columns.start), min(rows.stop, columns.stop))
    tile[same - rows.start, same - columns.start] = 0
    return tile


def _without_diagonal(tile: Tile, rows: slice, columns: slice, centering: Centering) -> Tile:
    return _fill_diagonal(tile, rows, columns) if centering in ("unbiased", "pairs") else tile


def _squared_distances(space: SpaceRows) -> TileFunction:
    """Return a function to tiles of squared distances; in float64, since near points lose digits in the difference.

    One product gives them: of rows beside their squares and 1.
    """
    values, squares = space.rows, _squares(space.rows)

    def tile(rows: slice, columns: slice) -> Tile:
        left, right = _beside(-2 * values[rows], squares[rows], 1.0), _beside(values[columns], 1.0, squares[columns])
        products = left @ right.T
        return _fill_diagonal(np.maximum(products, 0, out=products), rows, columns)

    return tile


def _beside(
    rows: Float[np.ndarray, "some features"],
    first: Float[np.ndarray, " some"] | float,
    second: Float[np.ndarray, " some"] | float,
) -> Float[np.ndarray, "some features+2"]:
    """Return rows with two more columns."""
    wider = np.empty((len(rows), rows.shape[1] + 2))
    wider[:, :-2], wider[:, -2], wider[:, -1] = rows, first, second
    return wider


def _rough_effects(tile: TileFunction, n_points: int) -> Float[np.ndarray, " points"]:
    """Return rough row effects from some columns: an entry is about the sum of those of its row and its column.

    The median of the means of eight runs of columns: a far point, and the diagonal, are in one of them.
    """
    width = min(_SAMPLE_RUN, -(-n_points // _SAMPLE_RUNS))
    starts = np.linspace(0, n_points - width, _SAMPLE_RUNS).astype(int).tolist()
    means = [tile(slice(0, n_points), slice(start, start + width)).mean(axis=1) for start in starts]
    effects = np.median(means, axis=0)
    return np.asarray(effects - np.median(effects) / 2, dtype=np.float32)


def _less_effects(
    effects: Float[np.ndarray, " points"] | None, centering: Centering
) -> Callable[[Tile, slice, slice], Tile]:
    """Return a function that takes row and column effects, where there are any, off a tile, in place.

    Centering takes effects off exactly. What is left of them before is small, so that float32 loses nothing.
    """

    def less_effects(tile: Tile, rows: slice, columns: slice) -> Tile:
        if effects is not None:
            tile -= effects[rows, None]
            tile -= effects[columns]
        return _without_diagonal(tile, rows, columns, centering)

    return less_effects
