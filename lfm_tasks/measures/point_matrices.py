"""Matrices of all pairs of points of one space, made tile by tile: of many points none is held whole.

A `MatrixForm` says how a measure is the cosine of two such matrices after centering. `matrix_pairs` computes all pairs
of spaces from them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from lfm_tasks.errors import DataError

# Rows of a tile: products over tiles of 16,384 numbers stay exact to 1e-8 in float32, and fit caches.
_MOST_TILE_ROWS = 128
# Runs of points, and points of a run, whose columns estimate the effects of rows that are taken off before tiles become
# float32. The estimate may be rough: centering is completed exactly, from sums of rows.
_SAMPLE_RUNS, _SAMPLE_RUN = 8, 32
# Entries of a matrix that are kept for a second look: those of 4,096 points.
MOST_KEPT = 1 << 24
# Spread of a space, relative to its largest number, below which it is rounding.
_NO_SPREAD = 1e-13

Centering = Literal["double", "unbiased", "zero_diagonal", "pairs"]


def centered(rows: Float[np.ndarray, "points features"]) -> Float[np.ndarray, "points features"]:
    """Return float64 rows less their mean; features that are constant but for rounding are zeros.

    The mean of equal numbers is not always that number: .1, .1, … would leave a direction of rounding, which measures
    that divide lengths out would take for one.
    """
    wide = rows.astype(np.float64)
    moved = wide - wide.mean(axis=0)
    rounding = len(wide) * np.finfo(float).eps * np.abs(wide).max(axis=0, initial=0.0)
    moved[:, np.abs(moved).max(axis=0, initial=0.0) <= rounding] = 0
    return np.asarray(moved)


@dataclass(frozen=True)
class PointSets:
    """The sets of points that a score is computed on: all, and both halves of each split; from sums over cells.

    A cell is a run of at most 128 points, in the given ``order``, that lie in one half of each split. ``halves``: which
    cells are in the second one.
    """

    order: Int[np.ndarray, " points"]
    bounds: Int[np.ndarray, " edges"]
    halves: Bool[np.ndarray, "splits cells"]

    @property
    def n_sets(self) -> int:
        """How many sets there are: the whole, and the halves."""
        return 1 + 2 * len(self.halves)

    @property
    def n_cells(self) -> int:
        """How many cells there are."""
        return self.halves.shape[1]

    @cached_property
    def cells(self) -> Bool[np.ndarray, "sets cells"]:
        """Which cells each set has; of each split the first half first."""
        by_split = [half for second in self.halves for half in (~second, second)]
        return np.stack([np.ones(self.n_cells, dtype=bool), *by_split])

    @cached_property
    def classes(self) -> Int[np.ndarray, " cells"]:
        """The class of each cell: cells of one are in the same sets."""
        return np.unique(self.cells.T, axis=0, return_inverse=True)[1].ravel()

    @cached_property
    def points(self) -> Bool[np.ndarray, "sets points"]:
        """Which points, in the order of cells, each set has."""
        return np.repeat(self.cells, np.diff(self.bounds), axis=1)

    @cached_property
    def runs_of_classes(self) -> list[slice]:
        """The points of each class of cells, which lie together."""
        starts = [0, *(np.flatnonzero(np.diff(self.classes)) + 1).tolist(), self.n_cells]
        return [slice(int(self.bounds[start]), int(self.bounds[stop])) for start, stop in pairwise(starts)]

    @cached_property
    def sets_of_classes(self) -> Bool[np.ndarray, "sets runs"]:
        """Which of `runs_of_classes` each set has."""
        return self.points[:, [run.start for run in self.runs_of_classes]]

    def cells_of(self, cells: slice) -> Float[np.ndarray, "run_points run_cells"]:
        """Return 1 where a point of a run of cells is in a cell of it."""
        sizes = np.diff(self.bounds)[cells]
        return np.repeat(np.eye(len(sizes)), sizes, axis=0)

    def runs(self, first: int = 0) -> list[tuple[slice, slice]]:
        """Return (cells, points) of runs of cells from the ``first`` on, of at most 256 points: widths of tiles."""
        runs, start = [], first
        for cell in range(first + 1, self.n_cells + 1):
            is_last = cell == self.n_cells
            if is_last or self.bounds[cell + 1] - self.bounds[start] > 2 * _MOST_TILE_ROWS:
                runs.append((slice(start, cell), slice(int(self.bounds[start]), int(self.bounds[cell]))))
                start = cell
        return runs


def point_sets(n_points: int, halves: Bool[np.ndarray, "splits points"] | None = None) -> PointSets:
    """Return the sets of ``n_points``; ``halves``: by split, which are in the second half."""
    second = np.zeros((0, n_points), dtype=bool) if halves is None else halves
    order = np.lexsort(second) if len(second) else np.arange(n_points)
    changes = np.flatnonzero(np.diff(second[:, order], axis=1).any(axis=0)) + 1
    bounds = [0]
    for start, end in zip([0, *changes.tolist()], [*changes.tolist(), n_points], strict=True):
        n_cells = -(-(end - start) // _MOST_TILE_ROWS)
        bounds += [start + (end - start) * cell // n_cells for cell in range(1, n_cells + 1)]
    return PointSets(order, np.array(bounds), second[:, order[np.array(bounds[:-1])]])


@dataclass(frozen=True)
class SpaceRows:
    """Rows of a space in the order of cells, less the median of each feature, at root mean square length 1.

    The median, since one far point would take the mean with it. ``unit``: what 1 stands for. ``origin``: the medians,
    in that unit.
    """

    rows: Float[np.ndarray, "points features"]
    unit: float
    origin: Float[np.ndarray, " features"]


def space_rows(rows: Float[np.ndarray, "points features"], order: Int[np.ndarray, " points"]) -> SpaceRows:
    """Return rows in a given order, ready to be squared whatever their units are.

    Raises
    ------
    DataError
        ``constant`` if all rows are the same.
    """
    wide = rows[order].astype(np.float64)
    largest = float(np.abs(wide).max())
    if largest > 0:
        wide /= largest
    origin = np.median(wide, axis=0)
    wide -= origin
    length = float(np.sqrt(np.square(wide).sum(axis=1).mean()))
    if length <= _NO_SPREAD:
        found = "got a space whose rows are all the same, expected rows that differ"
        raise DataError("constant", f"{found}. Remove it, or record another layer.")
    wide /= length
    return SpaceRows(wide, largest * length, origin / length)


# Spread of the rows of a set, relative to that of all, that is rounding.
_NO_SPREAD_OF_SET = 1e-13


def constant_sets(space: SpaceRows, sets: PointSets) -> Bool[np.ndarray, " sets"]:
    """Return on which sets of points all rows are the same but for rounding."""
    spreads = [np.linalg.norm(centered(space.rows[points])) if points.any() else 0.0 for points in sets.points]
    return np.array(spreads) <= _NO_SPREAD_OF_SET * spreads[0]


Tile = Float[np.ndarray, "rows columns"]
# Of two runs of points: their part of a matrix.
TileFunction = Callable[[slice, slice], Tile]


@dataclass(frozen=True)
class MatrixConstants:
    """What is computed once of a matrix: given to its form once more, it spares passes over pairs of points.

    Parameters
    ----------
    effects
        What is taken off rows and columns before tiles become float32, where that is more than a number.
    variance
        σ², where there is a bandwidth.
    shifts
        The change of log σ² in each set of points.
    table
        Where ranks are taken.
    """

    effects: Float[np.ndarray, " points"] | None = None
    variance: float | None = None
    shifts: Float[np.ndarray, " sets"] | None = None
    table: "RankTable | None" = None

    @property
    def effects_of_rows(self) -> Float[np.ndarray, " points"]:
        """The effects of a matrix that has them."""
        if self.effects is None:
            raise ValueError("got constants without effects of rows, expected those of the same form")
        return self.effects

    def at(self, points: Int[np.ndarray, " some"]) -> "MatrixConstants":
        """Return the constants of the matrix of some of the points, or of all in another order, as one set."""
        effects = None if self.effects is None else self.effects[points]
        return MatrixConstants(effects, self.variance, None, self.table)


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
        Whether each space has a table of ranks, of up to 2 MiB.
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
    least_energy: float = 1e-26


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
        has_shifts = not fixed and sets.n_sets > 1
        if constants is not None and constants.variance is not None:
            variance = constants.variance
        else:
            medians = np.zeros(1 + sets.n_sets) if fixed else _medians(_squared_distances(space), sets)
            variance, constants = bandwidth(float(medians[0]), space.unit), None
        # A bandwidth of 0, of a space most of whose points are equal: every kernel is 1, as its definition says.
        exponents = _squared_distances(space, -1 / (2 * variance) if variance > 0 else 0.0)

        def kernel(rows: slice, columns: slice) -> Tile:
            values = exponents(rows, columns)
            return np.asarray(np.exp(values, out=values))

        if constants is None:
            effects = _rough_effects(kernel, len(sets.order))
            constants = MatrixConstants(effects, variance, medians[1:] if has_shifts else None)
        less_effects = _less_effects(constants.effects_of_rows, centering)

        def with_derivative(rows: slice, columns: slice) -> tuple[Tile, Tile]:
            values = exponents(rows, columns)
            made = np.exp(values)
            values *= made
            return less_effects(made, rows, columns), np.negative(values, out=values)

        def tile(rows: slice, columns: slice) -> Tile:
            return less_effects(kernel(rows, columns), rows, columns)

        return TiledMatrix(tile, with_derivative if has_shifts else None, constants=constants)

    return MatrixForm(of_rows, centering, has_bandwidth=not fixed)


def distance_matrix() -> MatrixForm:
    """Return the form of euclidean distances, centered."""

    def of_rows(space: SpaceRows, sets: PointSets, constants: MatrixConstants | None = None) -> TiledMatrix:
        squared = _squared_distances(space)

        def distances(rows: slice, columns: slice) -> Tile:
            values = squared(rows, columns)
            return np.asarray(np.sqrt(values, out=values))

        constants = constants or MatrixConstants(_rough_effects(distances, len(sets.order)))
        less_effects = _less_effects(constants.effects_of_rows, "double")

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

    Ranks are counted, not sorted: see `_RankTable`. In halves they are those among all points.
    """

    def of_rows(space: SpaceRows, sets: PointSets, constants: MatrixConstants | None = None) -> TiledMatrix:
        units = _standardized(space)
        table = (constants and constants.table) or _rank_table(units, sets)

        def tile(rows: slice, columns: slice) -> Tile:
            return _fill_diagonal(table.shares_below(_products(units, rows, columns)) - 0.5, rows, columns)

        return TiledMatrix(tile, constants=MatrixConstants(table=table))

    return MatrixForm(of_rows, "pairs", has_table=True)


# 1 − r of two equal rows, but for rounding.
_NO_DISSIMILARITY = 1e-12


@dataclass(frozen=True)
class RankTable:
    """The distribution of 1 − r in bins, each bin as a uniform distribution of its mean and deviation.

    A bin: a power of two, in 256 steps, of the distance from ``center``, which most numbers are near. Ties have their
    mean rank: alone in a bin, they have no deviation. ``index``: of the bins from ``first`` on, which row of ``shares``
    they are. ``shares``: see `point_loops.shares_below`.
    """

    center: float
    first: int
    index: Shaped[np.ndarray, " bins"]
    shares: Float[np.ndarray, "present 4"]

    def shares_below(self, correlations: Tile) -> Tile:
        """Return the share of numbers below each 1 − r, half of its equals counted."""
        from lfm_tasks.measures.point_loops import shares_below  # numba, which takes .3 s to import

        return np.asarray(
            shares_below(correlations, self.center, _NO_DISSIMILARITY, self.first, self.index, self.shares)
        )


def _rank_table(units: Float[np.ndarray, "points features"], sets: PointSets) -> RankTable:
    from lfm_tasks.measures.point_loops import BITS_IN_BIN, count_keys  # numba, which takes .3 s to import

    runs, n_points = sets.runs(), len(units)
    center = float(np.median(1 - _products(units, runs[0][1], runs[-1][1])))
    counts, sums, squares = np.zeros((3, 1 << (32 - BITS_IN_BIN)), dtype=np.int64)
    for place, (_, rows) in enumerate(runs):
        for _, columns in runs[place:]:
            correlations = _products(units, rows, columns)
            count_keys(correlations, center, _NO_DISSIMILARITY, rows == columns, counts, sums, squares)
    # A product of another shape may differ in its last bit and lie in a bin that was empty: it is in the next one then.
    present = np.flatnonzero(counts)
    first = int(present[0])
    # As small as it can be: a table is kept of each space.
    narrow = np.uint16 if len(present) < 1 << 16 else np.int32
    index = np.searchsorted(present, np.arange(first, int(present[-1]) + 1)).astype(narrow)
    of_bins, middles = counts[present], sums[present] / counts[present]
    deviations = np.sqrt(np.maximum(squares[present] / of_bins - middles**2, 0))
    n_pairs = n_points * (n_points - 1)
    shares, upper = of_bins / n_pairs, of_bins.cumsum() / n_pairs
    # Places are whole numbers: within rounding of one there is only one.
    slopes = np.where(deviations > 1e-3, shares / (np.sqrt(12) * np.maximum(deviations, 1e-3)), 0.0)
    offsets = upper - shares / 2 - slopes * middles
    table = np.stack([upper - shares, upper, offsets, slopes], axis=1).astype(np.float32)
    return RankTable(center, first, index, table)


def _standardized(space: SpaceRows) -> Float[np.ndarray, "points features"]:
    """Return each row less its own mean over features, at length 1."""
    wide = space.rows + space.origin
    wide -= wide.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    # What is left of a constant row is rounding.
    rounding = np.finfo(np.float64).eps * np.linalg.norm(space.rows, axis=1, keepdims=True)
    n_constant = int((lengths <= 4 * rounding + _NO_SPREAD).sum())
    if n_constant:
        found = f"got {n_constant} rows whose features are all the same, expected rows that correlate with others"
        raise DataError("constant_rows", f"{found}. Drop the measure, or record a layer of several features.")
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


def _squared_distances(space: SpaceRows, factor: float = 1.0) -> TileFunction:
    """Return a function to tiles of squared distances times a factor; in float64: near points lose digits.

    One product gives them: of rows beside their squares and 1.
    """
    values, squares = space.rows, _squares(space.rows)
    nearest = np.maximum if factor >= 0 else np.minimum

    def tile(rows: slice, columns: slice) -> Tile:
        left = _beside(-2 * factor * values[rows], factor * squares[rows], 1.0)
        products = left @ _beside(values[columns], 1.0, factor * squares[columns]).T
        return _fill_diagonal(nearest(products, 0, out=products), rows, columns)

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
    """Return what some columns tell of the mean of each row, such that those of rows and columns add up.

    The median of the means of eight runs of columns: a far point, and the diagonal, are in one of them.
    """
    width = min(_SAMPLE_RUN, -(-n_points // _SAMPLE_RUNS))
    starts = np.linspace(0, n_points - width, _SAMPLE_RUNS).astype(int).tolist()
    means = [tile(slice(0, n_points), slice(start, start + width)).mean(axis=1) for start in starts]
    effects = np.median(means, axis=0)
    return np.asarray(effects - np.median(effects) / 2, dtype=np.float32)


def _less_effects(effects: Float[np.ndarray, " points"], centering: Centering) -> Callable[[Tile, slice, slice], Tile]:
    """Return a function that takes row and column effects off a tile, in place.

    Centering takes effects off exactly. What is left of them before is small, so that float32 loses nothing.
    """

    def less_effects(tile: Tile, rows: slice, columns: slice) -> Tile:
        tile -= effects[rows, None]
        tile -= effects[columns]
        return _without_diagonal(tile, rows, columns, centering)

    return less_effects


# Numbers of at least 0 are counted by the upper bits of their float32, which order as they do: 32 bins to a power of 2.
_DROPPED_BITS = 18
_N_BINS = 1 << (31 - _DROPPED_BITS)
# Factor between medians beyond which no derivative leads from one to the other.
_LARGEST_CHANGE = 4


def _medians(squared: TileFunction, sets: PointSets) -> Float[np.ndarray, " numbers"]:
    """Return the median of all n² squared distances; and by how much its logarithm differs in each set of points.

    NaN where it differs too much. Numbers are counted in bins; then those in the bins of medians are put in order.
    """
    from lfm_tasks.measures.point_loops import count_in_bins, of_bins  # numba, which takes .3 s to import

    runs, bounds, classes = sets.runs(), sets.bounds, sets.classes.tolist()
    places = [(one, other) for place, one in enumerate(runs) for other in runs[place:]]
    is_kept = len(sets.order) ** 2 <= MOST_KEPT
    kept: list[Int[np.ndarray, "rows columns"]] = []

    def by_cells() -> Iterator[tuple[tuple[int, int], int, Int[np.ndarray, "rows columns"]]]:
        """Yield the classes of two cells, for how many tiles theirs stands, and its numbers as bits of float32."""
        for index, ((cells, rows), (others, columns)) in enumerate(places):
            if index < len(kept):
                values = kept[index]
            else:
                # 0 is added since the bits of −0 are not those of 0.
                values = (squared(rows, columns) + 0.0).astype(np.float32).view(np.int32)
                kept.extend([values] * is_kept)
            for cell in range(cells.start, cells.stop):
                of_cell = values[bounds[cell] - rows.start : bounds[cell + 1] - rows.start]
                for other in range(max(cell, others.start), others.stop):
                    inside = of_cell[:, bounds[other] - columns.start : bounds[other + 1] - columns.start]
                    yield (classes[cell], classes[other]), 1 + (cell != other), inside

    n_classes = max(classes) + 1
    counts = np.zeros((n_classes, n_classes, _N_BINS), dtype=np.int64)
    for pair, weight, bits in by_cells():
        count_in_bins(bits, _DROPPED_BITS, weight, counts[pair])
    members = np.zeros((sets.n_sets, n_classes), dtype=bool)
    members[:, classes] = sets.cells
    together = members[:, :, None] & members[:, None, :]
    n_below = np.tensordot(together.astype(np.int64), counts, 2).cumsum(axis=1)
    ranks = np.stack([np.maximum(n_below[:, -1] - 1, 0) // 2, n_below[:, -1] // 2], axis=1)
    bins = np.array([np.searchsorted(below, both, side="right") for below, both in zip(n_below, ranks, strict=True)])
    bins = np.minimum(bins, _N_BINS - 1)  # of a set without points
    is_near = np.zeros(_N_BINS, dtype=bool)
    is_near[bins] = True
    near: dict[tuple[int, int], list[Int[np.ndarray, " some"]]] = {}
    for pair, weight, bits in by_cells():
        near.setdefault(pair, []).append(np.repeat(of_bins(bits, _DROPPED_BITS, is_near), weight))
    medians = np.full(sets.n_sets, np.nan)
    for place, (first, last) in enumerate(bins.tolist()):
        if not n_below[place, -1]:
            continue
        found = np.concatenate([run for pair, some in near.items() if together[place][pair] for run in some])
        its_bins = found >> _DROPPED_BITS
        inside = ranks[place] - (int(n_below[place, first - 1]) if first else 0)
        ordered = np.partition(found[(its_bins == first) | (its_bins == last)], inside)
        medians[place] = ordered[inside].view(np.float32).astype(np.float64).mean()
    if not medians[0] > 0:
        return np.zeros(1 + sets.n_sets)
    with np.errstate(divide="ignore"):
        changes = np.log(medians / medians[0])
    changes[~(np.abs(changes) <= np.log(_LARGEST_CHANGE))] = np.nan
    return np.concatenate([medians[:1], changes])
