"""Cosines of centered n × n matrices for all pairs of spaces, whole and in halves: one pass over tiles.

⟨K, L⟩ is a sum over tiles, and what centering takes off follows from sums of rows. So one product of all tiles of all
spaces gives every pair, and its sums over the tiles of a set give the same on that set: exactly, but for bandwidths
(by a derivative). No matrix is held.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, pairwise
from math import prod
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from lfm_tasks.measures.point_matrices import Centering, MatrixForm, TiledMatrix
from lfm_tasks.measures.point_sets import PointSets
from lfm_tasks.products import ROWS_OF_A_REGISTER, narrow_type

# The places of sources, and of targets, among spaces.
Sides = tuple[Int[np.ndarray, " sources"], Int[np.ndarray, " targets"]]
# An entry of a product has the same bits whatever else is multiplied with it (in the precision of `narrow_type`), but
# for products of one row or column and for small ones, which OpenBLAS computes in another way: products are made this
# large, with rows of zeros.
_FEWEST_ROWS, _FEWEST_PRODUCTS = 16, 2_000_000
# Share of ‖K‖² that is rounding, once centering has taken off the rest.
_NO_ENERGY = 1e-14


def pair_products(
    sources: Float[np.ndarray, "sources numbers"], targets: Float[np.ndarray, "targets numbers"]
) -> Float[np.ndarray, "sources targets"]:
    """Return inner products, each of the same bits for any companions and any order (one thread, one type of CPU).

    The two arrays must not share memory: NumPy multiplies an array with itself in another way.
    """
    least = _least_rows(sources.shape[1])
    padded = [_padded(side, least) for side in (sources, targets)]
    return (padded[0] @ padded[1].T)[: len(sources), : len(targets)].astype(np.float64)


def self_products(
    rows: Float[np.ndarray, "spaces numbers"], places: Int[np.ndarray, " some"] | None = None
) -> Float[np.ndarray, " some"]:
    """Return the inner product of each row, or of some, with itself, of the same bits as `pair_products`."""
    places, step = np.arange(len(rows)) if places is None else places, _least_rows(rows.shape[1])
    runs = (rows[places[start : start + step]] for start in range(0, len(places), step))
    return np.concatenate([np.diagonal(pair_products(run, run.copy())) for run in runs])


def _least_rows(n_numbers: int) -> int:
    return _filled(max(_FEWEST_ROWS, int(np.ceil(np.sqrt(_FEWEST_PRODUCTS / n_numbers)))))


def _filled(n_rows: int) -> int:
    """Return the next multiple of the rows that are computed together."""
    return -(-n_rows // ROWS_OF_A_REGISTER) * ROWS_OF_A_REGISTER


def _padded(rows: Float[np.ndarray, "some numbers"], least: int) -> Float[np.ndarray, "rows numbers"]:
    n_rows = _filled(max(least, len(rows)))
    if len(rows) == n_rows:
        return rows
    padded = np.zeros((n_rows, rows.shape[1]), dtype=rows.dtype)
    padded[: len(rows)] = rows
    return padded


def matrix_cosines(
    matrices: Sequence[TiledMatrix],
    sides: Sides,
    sets: PointSets,
    form: MatrixForm,
    wanted: Bool[np.ndarray, "sources targets"] | None = None,
    energies: Float[np.ndarray, "sets spaces"] | None = None,
) -> Float[np.ndarray, "sets sources targets"]:
    """Return the cosines of all sources with all targets on each set of points.

    Parameters
    ----------
    matrices
        Of all spaces, each once.
    sides
        The places of the sources and of the targets among them.
    sets
        The sets of points: all, halves.
    form
        How the matrices are centered, and in which precision their products are summed inside a tile.
    wanted
        The pairs that are needed: others may be left out. All by default.
    energies
        ‖K‖² of each space on each set, before it is centered, from an earlier call with the same ``sets``. NaN where it
        is not known: it is filled in.

    Returns
    -------
    In [-1, 1]; NaN where a matrix is constant, or a set has too few points to be centered.
    """
    needed = np.ones(tuple(map(len, sides)), dtype=bool) if wanted is None else wanted
    precision = narrow_type() if form.precision is np.float32 else form.precision
    energies = np.full((sets.n_sets, len(matrices)), np.nan) if energies is None else energies
    sums = _pass_over_tiles(matrices, sides, sets, needed, precision, energies)
    centering = form.centering
    diagonals = np.array([matrix.diagonal for matrix in matrices]) if centering == "zero_diagonal" else None
    cosines = np.full((sets.n_sets, len(sides[0]), len(sides[1])), np.nan)
    for place, points in enumerate(sets.points):
        if points.sum() < _FEWEST_POINTS[centering]:
            continue
        diagonal = None if diagonals is None else diagonals[:, points]
        cross, own = sums.of_pairs[place], energies[place].copy()
        for factor, effects in _effects(sums.of_rows[place][:, points], diagonal, centering):
            cross = cross + factor * pair_products(effects[sides[0]], effects[sides[1]])
            own = own + factor * self_products(effects)
        least = np.maximum(_NO_ENERGY * energies[place], form.least_energy * points.sum() ** 2)
        own[~(own > least)] = np.nan
        cosines[place] = np.clip(cross / np.sqrt(own[sides[0], None] * own[sides[1]]), -1, 1)
    return cosines


# Points below which a centered matrix is 0, or its centering divides by 0.
_FEWEST_POINTS: dict[Centering, int] = {"double": 2, "unbiased": 4, "zero_diagonal": 3, "pairs": 3}


def _effects(
    row_sums: Float[np.ndarray, "spaces points"],
    diagonals: Float[np.ndarray, "spaces points"] | None,
    centering: Centering,
) -> list[tuple[float, Float[np.ndarray, "spaces numbers"]]]:
    """Return the terms that centering adds to ⟨K, L⟩: factors, and the vectors whose inner products they multiply."""
    n, totals = row_sums.shape[1], row_sums.sum(axis=1, keepdims=True)
    if centering == "pairs":
        return [(-1 / (n * (n - 1)), totals)]
    if centering == "unbiased":
        return [(-2 / (n - 2), row_sums), (1 / ((n - 1) * (n - 2)), totals)]
    centered = [(-2 / n, row_sums), (1 / n**2, totals)]
    if diagonals is None:
        return centered
    return [*centered, (-1.0, diagonals - 2 / n * row_sums + totals / n**2)]


@dataclass(frozen=True)
class _Sums:
    """Sums over the tiles inside each set of points, before centering: ⟨K, L⟩ of pairs, and row sums of spaces.

    A difference of sums, all less one half, would lose the digits of all points but a far one.
    """

    of_pairs: Float[np.ndarray, "sets sources targets"]
    of_rows: Float[np.ndarray, "sets spaces points"]


def _pass_over_tiles(
    matrices: Sequence[TiledMatrix],
    sides: Sides,
    sets: PointSets,
    wanted: Bool[np.ndarray, "sources targets"],
    precision: type[np.floating[Any]],
    energies: Float[np.ndarray, "sets spaces"],
) -> _Sums:
    """Return the sums over all tiles, fill in ``energies`` that are not known; each tile of each space is made once.

    The matrix of a half, which has a bandwidth of its own, is K + shift K'. A tile is then multiplied once for all
    points and once for each half that has both its cells: on average twice, where terms one by one were four products.
    """
    n_spaces, n_points = len(matrices), len(sets.order)
    sums = _Sums(
        np.zeros((sets.n_sets, len(sides[0]), len(sides[1]))),
        np.zeros((sets.n_sets, n_spaces, n_points)),
    )
    blocks = list(_blocks(wanted))
    unknown = np.flatnonzero(np.isnan(energies).any(axis=0))
    energies[:, unknown] = 0
    memory = _Memory(n_spaces * int(np.diff(sets.bounds).max()) ** 2, np.dtype(precision))
    shifts = None if matrices[0].shifts is None else np.array([matrix.shifts for matrix in matrices])
    for cell in range(sets.n_cells):
        for cells, _ in sets.runs(cell):
            for other, places, tiles in _tiles(matrices, shifts, sets, cell, cells, memory, sums.of_rows):
                # A tile off the diagonal stands for two.
                weight = 1 if other == cell else 2
                if len(unknown):
                    energies[np.ix_(np.array(places), unknown)] += weight * self_products(tiles, unknown)
                of_sources, of_targets = _rows_of_sides(tiles, sides)
                for sources, targets in blocks:
                    products = pair_products(of_sources[sources], of_targets[targets])
                    products *= weight
                    for place in places:
                        sums.of_pairs[place, sources, targets] += products
    return sums


def _rows_of_sides(
    rows: Float[np.ndarray, "spaces numbers"], sides: Sides
) -> tuple[Float[np.ndarray, "sources numbers"], Float[np.ndarray, "targets numbers"]]:
    """Return the rows of sources and of targets: without a copy if these are two runs of different spaces."""
    runs = [range(int(side[0]), int(side[0]) + len(side)) for side in sides if len(side)]
    are_runs = len(runs) == len(sides) and all(map(np.array_equal, sides, runs))
    if are_runs and (runs[0].stop <= runs[1].start or runs[1].stop <= runs[0].start):
        return rows[runs[0].start : runs[0].stop], rows[runs[1].start : runs[1].stop]
    return rows[sides[0]], rows[sides[1]]


@dataclass
class _Memory:
    """Arrays of one size that are used again and again: new ones of 30 MB cost a page fault for each 4 kB."""

    size: int
    dtype: np.dtype[Any]
    _arrays: list[Float[np.ndarray, " size"]] = field(default_factory=list)

    def __iter__(self) -> Iterator[Float[np.ndarray, " size"]]:
        for index in count():
            if index == len(self._arrays):
                self._arrays.append(np.empty(self.size, dtype=self.dtype))
            yield self._arrays[index]


def _shaped(memory: Float[np.ndarray, " size"], shape: tuple[int, ...]) -> Float[np.ndarray, "spaces rows columns"]:
    """Return the beginning of an array in a shape of its own."""
    return memory[: prod(shape)].reshape(shape)


def _tiles(
    matrices: Sequence[TiledMatrix],
    shifts: Float[np.ndarray, "spaces sets"] | None,
    sets: PointSets,
    cell: int,
    cells: slice,
    memory: _Memory,
    row_sums: Float[np.ndarray, "sets spaces points"],
) -> Iterator[tuple[int, list[int], Float[np.ndarray, "spaces numbers"]]]:
    """Yield the tiles of a cell with each of some others: which one, the sets they count for, and a row a space.

    They lie in ``memory``. Adds the sums of rows and of columns to ``row_sums``.
    """
    precision = memory.dtype.type
    bounds = sets.bounds
    rows, columns = (slice(int(bounds[run.start]), int(bounds[run.stop])) for run in (slice(cell, cell + 1), cells))
    height, members = rows.stop - rows.start, sets.cells_of(cells)
    inside = [slice(*edges) for edges in pairwise((bounds[cells.start : cells.stop + 1] - columns.start).tolist())]
    others = range(cells.start, cells.stop)
    shared = [np.flatnonzero(sets.cells[:, [cell, other]].all(axis=1)).tolist() for other in others]
    # Without a bandwidth one tile counts for all sets; with one each has its own.
    of_sets = [[places] if shifts is None else [[place] for place in places] for places in shared]
    places_in_memory = iter(memory)
    tiles = [
        [_shaped(next(places_in_memory), (len(matrices), height, one.stop - one.start)) for _ in of_one]
        for one, of_one in zip(inside, of_sets, strict=True)
    ]
    n_terms = 1 if shifts is None else 2
    by_cell = np.empty((n_terms, len(matrices), height, len(inside)))
    by_column = np.empty((n_terms, len(matrices), columns.stop - columns.start))
    for space, matrix in enumerate(matrices):
        made = matrix.with_derivative(rows, columns) if matrix.with_derivative else (matrix.tile(rows, columns),)
        for term, values in enumerate(made):
            by_cell[term, space], by_column[term, space] = values @ members, values.sum(axis=0)
        whole, *derivative = (values.astype(precision, copy=False) for values in made)
        for one, of_one, some in zip(inside, of_sets, tiles, strict=True):
            for (place, *_), tile in zip(of_one, some, strict=True):
                if shifts is None or not place:
                    tile[space] = whole[:, one]
                else:
                    moved = derivative[0][:, one] * precision(shifts[space, place])
                    # The tiles of all spaces are in no cache: each number is written there once.
                    np.add(moved, whole[:, one], out=tile[space])
    for index, (other, one) in enumerate(zip(others, inside, strict=True)):
        for place in shared[index]:
            of_rows, of_columns = by_cell[0, :, :, index], by_column[0, :, one]
            if shifts is not None and place:
                of_rows = of_rows + shifts[:, place, None] * by_cell[1, :, :, index]
                of_columns = of_columns + shifts[:, place, None] * by_column[1, :, one]
            row_sums[place, :, rows] += of_rows
            if other != cell:
                row_sums[place, :, columns.start + one.start : columns.start + one.stop] += of_columns
        for places, tile in zip(of_sets[index], tiles[index], strict=True):
            yield other, places, tile.reshape(len(matrices), -1)


# Sources that are multiplied at a time: products of fewer rows take longer by a tenth, but where some pairs are wanted
# only, such as half of a square, fewer others are computed with them.
_SOURCES_AT_ONCE, _SOURCES_OF_SOME_PAIRS = 320, 96


def _blocks(wanted: Bool[np.ndarray, "sources targets"]) -> Iterator[tuple[slice, slice]]:
    """Yield the rows and columns of products that hold all wanted pairs."""
    step = _SOURCES_AT_ONCE if wanted.all() else _SOURCES_OF_SOME_PAIRS
    for start in range(0, len(wanted), step):
        sources = slice(start, min(start + step, len(wanted)))
        columns = np.flatnonzero(wanted[sources].any(axis=0))
        if len(columns):
            yield sources, slice(int(columns[0]), int(columns[-1]) + 1)
