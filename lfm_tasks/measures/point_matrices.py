"""Matrices of all pairs of points of one space, made tile by tile: of many points none is held whole.

A `MatrixForm` says how a measure is the cosine of two such matrices after centering. `matrix_pairs` computes all pairs
of spaces from them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int, UInt

from lfm_tasks.errors import DataError

# Rows of a tile: products over tiles of 16,384 numbers stay exact to 1e-8 in float32, and fit caches.
_MOST_TILE_ROWS = 128
# Runs of points, and points of a run, whose columns estimate the effects of rows that are taken off before tiles become
# float32. The estimate may be rough: centering is completed exactly, from sums of rows.
_SAMPLE_RUNS, _SAMPLE_RUN = 8, 32
# Squared distances that are kept for a second look, in float32: those of 4,096 points.
_MOST_KEPT = 1 << 24
# By how many bits the bins of sets of points are wider than those of all: .1 % wide, and interpolated.
_COARSER = 2
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
        """Return (cells, points) of runs of cells from the ``first`` on, of at most 512 points: widths of tiles."""
        runs, start = [], first
        for cell in range(first + 1, self.n_cells + 1):
            is_last = cell == self.n_cells
            if is_last or self.bounds[cell + 1] - self.bounds[start] > 4 * _MOST_TILE_ROWS:
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


# Of two runs of points: one array, or an array and its derivative.
TileFunction = Callable[[slice, slice], tuple[Float[np.ndarray, "rows columns"], ...]]


@dataclass(frozen=True)
class TiledMatrix:
    """A symmetric matrix of all pairs of points, roughly centered.

    Parameters
    ----------
    tile
        Returns, of two runs of points, the matrix, and its derivative by log σ² where it has a bandwidth.
    diagonal
        The diagonal, where centering asks for it.
    shifts
        The change of log σ² in each set of points; None without a bandwidth.
    constants
        σ², then the shifts: given to the form once more, they spare two passes over all pairs of points.
    """

    tile: TileFunction
    diagonal: Float[np.ndarray, " points"] | None = None
    shifts: Float[np.ndarray, " sets"] | None = None
    constants: Float[np.ndarray, " constants"] | None = None

    @property
    def n_terms(self) -> int:
        """How many arrays a tile has."""
        return 1 if self.shifts is None else 2


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

    of_rows: Callable[[SpaceRows, PointSets, Float[np.ndarray, " constants"] | None], TiledMatrix]
    centering: Centering = "double"
    of_cosine: Callable[[Float[np.ndarray, "*pairs"]], Float[np.ndarray, "*pairs"]] | None = None
    has_bandwidth: bool = False
    has_table: bool = False
    precision: type[np.floating[Any]] = np.float32
    least_energy: float = 1e-26


def linear_matrix(centering: Centering) -> MatrixForm:
    """Return the form of inner products of centered rows."""

    def of_rows(space: SpaceRows, sets: PointSets, constants: object = None) -> TiledMatrix:
        def tile(rows: slice, columns: slice) -> tuple[Float[np.ndarray, "rows columns"]]:
            return (_without_diagonal(_products(space.rows, rows, columns), rows, columns, centering),)

        return TiledMatrix(tile, _squares(space.rows))

    return MatrixForm(of_rows, centering, least_energy=0.0)


def radial_matrix(
    bandwidth: Callable[[float, float], float], centering: Centering, *, fixed: bool = False
) -> MatrixForm:
    """Return the form of exp(−d²/(2σ²)); ``bandwidth``: σ² from the median of all n² d², and from the unit.

    The kernel of a set of points is that of all points plus its derivative by log σ², unless σ² is ``fixed``.
    """

    def of_rows(
        space: SpaceRows, sets: PointSets, constants: Float[np.ndarray, " constants"] | None = None
    ) -> TiledMatrix:
        squared = _squared_distances(space)
        if constants is None:
            medians = np.zeros(1 + sets.n_sets) if fixed else _medians(squared, sets)
            constants = np.concatenate([[bandwidth(float(medians[0]), space.unit)], medians[1:]])
        variance = float(constants[0])

        def radial(rows: slice, columns: slice) -> tuple[Float[np.ndarray, "rows columns"], ...]:
            exponents = squared(rows, columns)
            # A bandwidth of 0, of a space most of whose points are equal: every kernel is 1, as its definition says.
            exponents *= -1 / (2 * variance) if variance > 0 else 0.0
            kernel = np.exp(exponents)
            return (kernel,) if fixed else (kernel, np.multiply(kernel, -exponents, out=exponents))

        matrix = _roughly_centered(radial, sets, centering)
        return TiledMatrix(matrix, None, None if fixed else constants[1:], constants)

    return MatrixForm(of_rows, centering, has_bandwidth=not fixed)


def distance_matrix() -> MatrixForm:
    """Return the form of euclidean distances, centered."""

    def of_rows(space: SpaceRows, sets: PointSets, constants: object = None) -> TiledMatrix:
        squared = _squared_distances(space)

        def distances(rows: slice, columns: slice) -> tuple[Float[np.ndarray, "rows columns"]]:
            tile = squared(rows, columns)
            return (np.sqrt(tile, out=tile),)

        return TiledMatrix(_roughly_centered(distances, sets, "double"))

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

        def tile(rows: slice, columns: slice) -> tuple[Float[np.ndarray, "rows columns"]]:
            correlations = _products(units, rows, columns)
            correlations -= mean
            return (_fill_diagonal(correlations, rows, columns),)

        return TiledMatrix(tile)

    return MatrixForm(of_rows, "pairs")


def rank_matrix() -> MatrixForm:
    """Return the form of the ranks of 1 − Pearson correlations of rows, as shares of all pairs of rows.

    Ranks are counted, not sorted: see `_RankTable`. In halves they are those among all points.
    """

    def of_rows(space: SpaceRows, sets: PointSets, constants: object = None) -> TiledMatrix:
        units = _standardized(space)

        def dissimilarities(rows: slice, columns: slice) -> Float[np.ndarray, "rows columns"]:
            correlations = _products(units, rows, columns)
            np.subtract(1, correlations, out=correlations)
            correlations[correlations < _NO_DISSIMILARITY] = 0
            return _fill_diagonal(correlations, rows, columns)

        table = _rank_table(dissimilarities, sets)

        def tile(rows: slice, columns: slice) -> tuple[Float[np.ndarray, "rows columns"]]:
            return (_fill_diagonal(table.shares_below(dissimilarities(rows, columns)) - 0.5, rows, columns),)

        return TiledMatrix(tile)

    return MatrixForm(of_rows, "pairs", has_table=True)


# 1 − r of two equal rows, but for rounding.
_NO_DISSIMILARITY = 1e-12


@dataclass(frozen=True)
class _RankTable:
    """The distribution of numbers in bins, each bin as a uniform distribution of its mean and deviation.

    A bin: a power of two, in 2,048 steps, of the distance from ``center``, which most numbers are near. Ties have their
    mean rank: alone in a bin, they have no deviation. ``index``: of the bins from ``first`` on, which row of the others
    they are.
    """

    center: float
    first: int
    index: Int[np.ndarray, " bins"]
    below: Float[np.ndarray, " present"]
    shares: Float[np.ndarray, " present"]
    middles: Float[np.ndarray, " present"]
    widths: Float[np.ndarray, " present"]

    def shares_below(self, values: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "rows columns"]:
        """Return the share of numbers below each of them, half of its equals counted."""
        keys = _rising_keys(values, self.center)
        rows = self.index[np.clip((keys >> 12).astype(np.int64) - self.first, 0, len(self.index) - 1)]
        inside = ((keys & np.uint32(4095)) - self.middles[rows]) / self.widths[rows] + 0.5
        return np.asarray(self.below[rows] + self.shares[rows] * np.clip(inside, 0, 1))


def _rising_keys(values: Float[np.ndarray, "rows columns"], center: float) -> UInt[np.ndarray, "rows columns"]:
    """Return whole numbers that rise with the numbers: the bits of their difference to the center in float32."""
    bits = (values - center).astype(np.float32).view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


def _rank_table(values: Callable[[slice, slice], Float[np.ndarray, "rows columns"]], sets: PointSets) -> _RankTable:
    runs = sets.runs()
    n_points = len(sets.order)
    sample = values(runs[0][1], runs[-1][1])
    center = float(np.median(sample))
    counts, sums, squares = (np.zeros(1 << 20) for _ in range(3))
    for place, (_, rows) in enumerate(runs):
        for _, columns in runs[place:]:
            keys = _rising_keys(values(rows, columns), center)
            # Tiles off the diagonal stand for two; a point is no pair with itself.
            weight = 1 if rows == columns else 2
            if rows == columns:
                keys = keys[~np.eye(len(keys), dtype=bool)]
            bins, places = (keys >> 12).ravel(), (keys & np.uint32(4095)).ravel().astype(np.float64)
            for total, weights in ((counts, None), (sums, places), (squares, places * places)):
                total += weight * np.bincount(bins, weights, minlength=len(total))
    # The diagonal is computed, too, and then left out.
    counts[int(_rising_keys(np.zeros((1, 1)), center)[0, 0] >> 12)] += 1e-300
    present = np.flatnonzero(counts)
    # A product of another shape may differ in its last bit and lie in a bin that was empty: it is in the next one then.
    first = int(present[0])
    index = np.searchsorted(present, np.arange(first, int(present[-1]) + 1)).astype(np.int32)
    counts, sums, squares = counts[present], sums[present], squares[present]
    middles = sums / counts
    deviations = np.sqrt(np.maximum(squares / counts - middles**2, 0))
    # Places are whole numbers: within rounding of one there is only one.
    widths = np.where(deviations > 1e-3, np.sqrt(12) * deviations, np.inf)
    n_pairs = n_points * (n_points - 1)
    return _RankTable(center, first, index, (counts.cumsum() - counts) / n_pairs, counts / n_pairs, middles, widths)


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


def _products(
    of_rows: Float[np.ndarray, "points features"], rows: slice, columns: slice
) -> Float[np.ndarray, "rows columns"]:
    """Return inner products of two runs of rows, in float64."""
    return np.asarray(of_rows[rows] @ of_rows[columns].T)


def _squares(rows: Float[np.ndarray, "points features"]) -> Float[np.ndarray, " points"]:
    return np.asarray(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))


def _fill_diagonal(
    tile: Float[np.ndarray, "rows columns"], rows: slice, columns: slice
) -> Float[np.ndarray, "rows columns"]:
    """Return the tile with 0 where a point meets itself."""
    same = np.arange(max(rows.start, columns.start), min(rows.stop, columns.stop))
    tile[same - rows.start, same - columns.start] = 0
    return tile


def _without_diagonal(
    tile: Float[np.ndarray, "rows columns"], rows: slice, columns: slice, centering: Centering
) -> Float[np.ndarray, "rows columns"]:
    return _fill_diagonal(tile, rows, columns) if centering in ("unbiased", "pairs") else tile


def _squared_distances(space: SpaceRows) -> Callable[[slice, slice], Float[np.ndarray, "rows columns"]]:
    """Return a function to tiles of squared distances; in float64, since near points lose digits in the difference."""
    squares = _squares(space.rows)

    def tile(rows: slice, columns: slice) -> Float[np.ndarray, "rows columns"]:
        products = _products(space.rows, rows, columns)
        products *= -2
        products += squares[rows, None]
        products += squares[columns]
        return _fill_diagonal(np.maximum(products, 0, out=products), rows, columns)

    return tile


def _roughly_centered(tile: TileFunction, sets: PointSets, centering: Centering) -> TileFunction:
    """Return tiles less row and column effects that some columns estimate.

    Centering takes these effects off exactly. What is left of them before is small, so that float32 loses nothing.
    """
    n_points = len(sets.order)
    starts = np.linspace(0, max(n_points - _SAMPLE_RUN, 0), _SAMPLE_RUNS).astype(int).tolist()
    sampled = [tile(slice(0, n_points), slice(start, min(start + _SAMPLE_RUN, n_points))) for start in starts]
    means = [np.median(np.concatenate(columns, axis=1), axis=1) for columns in zip(*sampled, strict=True)]
    effects = [mean - np.median(mean) / 2 for mean in means]

    def centered(rows: slice, columns: slice) -> tuple[Float[np.ndarray, "rows columns"], ...]:
        terms = tile(rows, columns)
        for term, effect in zip(terms, effects, strict=True):
            term -= effect[rows, None]
            term -= effect[columns]
            _without_diagonal(term, rows, columns, centering)
        return terms

    return centered


def _medians(
    squared: Callable[[slice, slice], Float[np.ndarray, "rows columns"]], sets: PointSets
) -> Float[np.ndarray, " numbers"]:
    """Return the median of all n² squared distances; and by how much its logarithm differs in each set of points."""
    runs = sets.runs()
    places = [(one, other) for one in range(len(runs)) for other in range(one, len(runs))]
    is_kept = len(sets.order) ** 2 <= _MOST_KEPT
    kept = {place: _narrow(squared, runs, place) for place in places} if is_kept else {}

    def tile(place: tuple[int, int]) -> Float[np.ndarray, "rows columns"]:
        return kept[place] if is_kept else _narrow(squared, runs, place)

    counts = np.zeros(1 << 20, dtype=np.int64)
    for place in places:
        # Tiles off the diagonal stand for two.
        counts += (1 + (place[0] != place[1])) * np.bincount(_bins(tile(place)).ravel(), minlength=len(counts))
    n_below = counts.cumsum()
    ranks = [(int(n_below[-1]) - 1) // 2, int(n_below[-1]) // 2]
    first, last = np.searchsorted(n_below, ranks, side="right")
    near = []
    for place in places:
        values = tile(place)
        bins = _bins(values)
        near.append(np.repeat(values[(bins >= first) & (bins <= last)], 1 + (place[0] != place[1])))
    ordered = np.sort(np.concatenate(near))
    n_before = int(n_below[first - 1]) if first else 0
    median = float(ordered[[rank - n_before for rank in ranks]].astype(np.float64).mean())
    shifts = _log_changes(median, tile, places, sets) if median > 0 else np.zeros(sets.n_sets)
    return np.concatenate([[median], shifts])


def _narrow(
    squared: Callable[[slice, slice], Float[np.ndarray, "rows columns"]],
    runs: list[tuple[slice, slice]],
    place: tuple[int, int],
) -> Float[np.ndarray, "rows columns"]:
    return squared(runs[place[0]][1], runs[place[1]][1]).astype(np.float32)


def _bins(values: Float[np.ndarray, "rows columns"]) -> UInt[np.ndarray, "rows columns"]:
    """Return numbers of at least 0 as their upper bits: these order as the numbers do, 4,096 to a power of two."""
    return values.view(np.uint32) >> 11


def _log_changes(
    median: float,
    tile: Callable[[tuple[int, int]], Float[np.ndarray, "rows columns"]],
    places: list[tuple[int, int]],
    sets: PointSets,
) -> Float[np.ndarray, " sets"]:
    """Return log(median of a set/median of all) of squared distances; NaN beyond a factor 4, where no step leads to."""
    first = int(_bins(np.array([[median / 4]], dtype=np.float32))[0, 0] >> _COARSER)
    # Four powers of 2, and what lies below and above them.
    counts = np.zeros((sets.n_sets, 4 * (1 << (12 - _COARSER)) + 2), dtype=np.int64)
    runs, bounds = sets.runs(), sets.bounds
    for one, other in places:
        (cells, rows), (others, columns) = runs[one], runs[other]
        bins = (_bins(tile((one, other))) >> _COARSER).astype(np.int64) - first + 1
        np.clip(bins, 0, counts.shape[1] - 1, out=bins)
        for cell in range(cells.start, cells.stop):
            of_cell = bins[bounds[cell] - rows.start : bounds[cell + 1] - rows.start]
            for partner in range(max(cell, others.start), others.stop):
                inside = of_cell[:, bounds[partner] - columns.start : bounds[partner + 1] - columns.start]
                found = np.bincount(inside.ravel(), minlength=counts.shape[1])
                counts[sets.cells[:, cell] & sets.cells[:, partner]] += found * (1 if cell == partner else 2)
    n_below = counts.cumsum(axis=1)
    middles = np.full(sets.n_sets, np.nan)
    for place, (of_set, below) in enumerate(zip(counts, n_below, strict=True)):
        middle = int(np.searchsorted(below, below[-1] / 2))
        if 0 < middle < counts.shape[1] - 1:
            edges = np.array([(first - 1 + middle) << (11 + _COARSER), (first + middle) << (11 + _COARSER)])
            low, high = edges.astype(np.uint32).view(np.float32).astype(np.float64)
            middles[place] = low + (high - low) * (below[-1] / 2 - below[middle - 1]) / of_set[middle]
    return np.log(middles / middles[0])
