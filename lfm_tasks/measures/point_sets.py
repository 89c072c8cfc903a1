"""Sets of points that a score is computed on, and the rows of a space on them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float, Int

from lfm_tasks.errors import DataError

# Rows of a tile: products over tiles of 16,384 numbers stay exact to 1e-8 in float32, and fit caches.
_MOST_TILE_ROWS = 128
# Spread of a space, relative to its largest number, below which it is rounding.
NO_SPREAD = 1e-13

Tile = Float[np.ndarray, "rows columns"]
# Of two runs of points: their part of a matrix of all pairs.
TileFunction = Callable[[slice, slice], Tile]


class KeptTiles:
    """Tiles that are looked at twice: the second look takes them. Of more than ``most_points`` none is kept."""

    most_points: ClassVar[int] = 4096

    def __init__(self, n_points: int) -> None:
        self.is_on = n_points <= self.most_points
        self._tiles: dict[tuple[int, int, int, int], Tile] = {}

    def keep(self, rows: slice, columns: slice, tile: Tile) -> None:
        """Keep a tile, unless there are too many points."""
        if self.is_on:
            self._tiles[rows.start, rows.stop, columns.start, columns.stop] = tile

    def take(self, rows: slice, columns: slice) -> Tile | None:
        """Return a tile, which is no longer kept; None if it is not kept."""
        return self._tiles.pop((rows.start, rows.stop, columns.start, columns.stop), None)


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
    # Of features that lie side by side in memory: half the time.
    origin = np.median(np.ascontiguousarray(wide.T), axis=1)
    wide -= origin
    length = float(np.sqrt(np.square(wide).sum(axis=1).mean()))
    if length <= NO_SPREAD:
        found = "got a space whose rows are all the same, expected rows that differ"
        raise DataError("constant", f"{found}. Remove it, or record another layer.")
    wide /= length
    return SpaceRows(wide, largest * length, origin / length)


# Spread of the rows of a set, relative to that of all, that is rounding; and one that is not, whatever others are.
_NO_SPREAD_OF_SET, _A_SPREAD = 1e-13, 1e-6


def constant_sets(space: SpaceRows, sets: PointSets) -> Bool[np.ndarray, " sets"]:
    """Return on which sets of points all rows are the same but for rounding."""
    classes = [space.rows[run] for run in sets.runs_of_classes]
    lowest, highest = (np.stack([extreme(rows, axis=0) for rows in classes]) for extreme in (np.min, np.max))
    is_constant = np.zeros(sets.n_sets, dtype=bool)
    for place, (points, some) in enumerate(zip(sets.points, sets.sets_of_classes, strict=True)):
        if not some.any() or (highest[some].max(axis=0) - lowest[some].min(axis=0)).max() <= _A_SPREAD:
            spread = np.linalg.norm(centered(space.rows[points])) if points.any() else 0.0
            is_constant[place] = spread <= _NO_SPREAD_OF_SET * np.linalg.norm(centered(space.rows))
    return is_constant
