"""Cosines of centered n × n matrices for all pairs of spaces, whole and in halves: one pass over tiles.

⟨K, L⟩ is a sum over tiles, and what centering takes off follows from sums of rows. So one product of all tiles of all
spaces gives every pair, and its sums over the tiles of a set give the same on that set: exactly, but for bandwidths
(by a derivative). No matrix is held.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from lfm_tasks.measures.point_matrices import Centering, MatrixForm, PointSets, TiledMatrix
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


def self_products(rows: Float[np.ndarray, "rows numbers"], n_terms: int = 1) -> Float[np.ndarray, "spaces terms terms"]:
    """Return the inner products of each space's rows, ``n_terms`` in a row, of the same bits as `pair_products`."""
    step = n_terms * -(-_least_rows(rows.shape[1]) // n_terms)
    own = []
    for start in range(0, len(rows), step):
        some = rows[start : start + step]
        products = pair_products(some, some.copy())
        own += [products[one : one + n_terms, one : one + n_terms] for one in range(0, len(some), n_terms)]
    return np.stack(own)


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

    Returns
    -------
    In [-1, 1]; NaN where a matrix is constant, or a set has too few points to be centered.
    """
    needed = np.ones(tuple(map(len, sides)), dtype=bool) if wanted is None else wanted
    precision = narrow_type() if form.precision is np.float32 else form.precision
    sums = _pass_over_tiles(matrices, sides, sets, needed, precision)
    centering = form.centering
    shifts = np.array([np.zeros(sets.n_sets) if matrix.shifts is None else matrix.shifts for matrix in matrices])
    diagonals = np.array([matrix.diagonal for matrix in matrices]) if centering == "zero_diagonal" else None
    cosines = np.full((sets.n_sets, len(sides[0]), len(sides[1])), np.nan)
    for place, points in enumerate(sets.points):
        if points.sum() < _FEWEST_POINTS[centering]:
            continue
        of_set = sums.of_set(place, shifts[:, place], sides)
        diagonal = None if diagonals is None else diagonals[:, points]
        cross, own = of_set.products, of_set.own
        for factor, effects in _effects(of_set.row_sums, diagonal, centering):
            cross = cross + factor * pair_products(effects[sides[0]], effects[sides[1]])
            own = own + factor * self_products(effects)[:, 0, 0]
        least = np.maximum(_NO_ENERGY * of_set.own, form.least_energy * points.sum() ** 2)
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
class _SetSums:
    """On one set of points, before centering: ⟨K, L⟩ of the pairs, ‖K‖² and row sums of the spaces."""

    products: Float[np.ndarray, "sources targets"]
    own: Float[np.ndarray, " spaces"]
    row_sums: Float[np.ndarray, "spaces points"]


@dataclass
class _Sums:
    """Sums over tiles, filled in tile by tile; a row a space and term.

    ``of_pairs`` and ``of_spaces``: of each set of points, over the tiles inside it: a difference of sums would lose the
    digits of all points but a far one. ``by_class``: row sums over the points of each class of cells.
    """

    sets: PointSets
    n_terms: int
    of_pairs: Float[np.ndarray, "sums source_rows target_rows"]
    of_spaces: Float[np.ndarray, "sums spaces terms terms"]
    by_class: Float[np.ndarray, "rows points classes"]

    def _places(self, cells: tuple[int, int]) -> list[int]:
        """Return the sets of points that have both cells."""
        return [int(place) for place in np.flatnonzero(self.sets.cells[:, cells].all(axis=1))]

    def add_pairs(
        self,
        cells: tuple[int, int],
        block: tuple[slice, slice],
        products: Float[np.ndarray, "some_sources some_targets"],
    ) -> None:
        """Add the products of tiles of two cells; a tile off the diagonal stands for two."""
        if cells[0] != cells[1]:
            products *= 2
        for place in self._places(cells):
            self.of_pairs[place][block] += products

    def add_own(self, cells: tuple[int, int], products: Float[np.ndarray, "spaces terms terms"]) -> None:
        """Add the products of the tiles of each space with its own."""
        for place in self._places(cells):
            self.of_spaces[place] += products * (1 if cells[0] == cells[1] else 2)

    def add_rows(
        self,
        cell: int,
        cells: slice,
        by_cell: Float[np.ndarray, "rows tile_rows run_cells"],
        by_column: Float[np.ndarray, "rows tile_columns"],
    ) -> None:
        """Add the sums of the tiles of one cell and a run of cells to those of their rows, and of their columns."""
        bounds, classes = self.sets.bounds, self.sets.classes
        rows = slice(int(bounds[cell]), int(bounds[cell + 1]))
        for place, other in enumerate(range(cells.start, cells.stop)):
            columns = slice(int(bounds[other]), int(bounds[other + 1]))
            self.by_class[:, rows, classes[other]] += by_cell[:, :, place]
            if other != cell:
                start = int(bounds[cells.start])
                of_columns = by_column[:, columns.start - start : columns.stop - start]
                self.by_class[:, columns, classes[cell]] += of_columns

    def of_set(
        self,
        place: int,
        shifts: Float[np.ndarray, " spaces"],
        sides: Sides,
    ) -> _SetSums:
        """Return the sums of one set of points; matrices are K + shift K', by their terms."""
        points, n_terms = self.sets.points[place], self.n_terms
        of_pairs, of_spaces = self.of_pairs[place], self.of_spaces[place]
        inside = np.unique(self.sets.classes[self.sets.cells[place]])
        row_sums = self.by_class[:, points][:, :, inside].sum(axis=2)
        if n_terms == 1:
            return _SetSums(of_pairs, of_spaces[:, 0, 0].copy(), row_sums)
        # A pair has the same bits whichever of its spaces is the source: both mixed terms are added first.
        terms = [[of_pairs[first::2, second::2] for second in range(2)] for first in range(2)]
        of_source, of_target = shifts[sides[0], None], shifts[sides[1]]
        mixed = of_source * terms[1][0] + of_target * terms[0][1]
        products = terms[0][0] + mixed + of_source * of_target * terms[1][1]
        own = of_spaces[:, 0, 0] + 2 * shifts * of_spaces[:, 0, 1] + shifts**2 * of_spaces[:, 1, 1]
        return _SetSums(products, own, row_sums[::n_terms] + shifts[:, None] * row_sums[1::n_terms])


def _no_sums(n_spaces: int, n_terms: int, sides: Sides, sets: PointSets) -> _Sums:
    n_points, n_sums = len(sets.order), sets.n_sets
    return _Sums(
        sets,
        n_terms,
        np.zeros((n_sums, len(sides[0]) * n_terms, len(sides[1]) * n_terms)),
        np.zeros((n_sums, n_spaces, n_terms, n_terms)),
        np.zeros((n_spaces * n_terms, n_points, int(sets.classes.max()) + 1)),
    )


def _pass_over_tiles(
    matrices: Sequence[TiledMatrix],
    sides: Sides,
    sets: PointSets,
    wanted: Bool[np.ndarray, "sources targets"],
    precision: type[np.floating[Any]],
) -> _Sums:
    """Return the sums over all tiles; each tile of each space is made once."""
    n_terms, bounds = matrices[0].n_terms, sets.bounds
    sums = _no_sums(len(matrices), n_terms, sides, sets)
    n_rows = len(matrices) * n_terms
    blocks = list(_blocks(wanted, n_terms))
    sources, targets = ((side[:, None] * n_terms + np.arange(n_terms)).ravel() for side in sides)
    for cell in range(len(bounds) - 1):
        rows = slice(int(bounds[cell]), int(bounds[cell + 1]))
        n_tile_rows = rows.stop - rows.start
        for cells, columns in sets.runs(cell):
            edges = (bounds[cells.start : cells.stop + 1] - columns.start).tolist()
            inside = [slice(*edge) for edge in pairwise(edges)]
            flat = [np.empty((n_rows, n_tile_rows * (one.stop - one.start)), dtype=precision) for one in inside]
            by_cell = np.empty((n_rows, n_tile_rows, len(inside)))
            by_column = np.empty((n_rows, columns.stop - columns.start))
            members = sets.cells_of(cells)
            for place, term in enumerate(term for matrix in matrices for term in matrix.tile(rows, columns)):
                for one, of_cell in zip(inside, flat, strict=True):
                    of_cell[place].reshape(n_tile_rows, -1)[:] = term[:, one]
                by_cell[place], by_column[place] = term @ members, term.sum(axis=0)
            sums.add_rows(cell, cells, by_cell, by_column)
            for other, of_cell in zip(range(cells.start, cells.stop), flat, strict=True):
                sums.add_own((cell, other), self_products(of_cell, n_terms))
                of_targets = of_cell[targets]
                for block, reach in blocks:
                    sums.add_pairs(
                        (cell, other), (block, reach), pair_products(of_cell[sources[block]], of_targets[reach])
                    )
    return sums


def _blocks(wanted: Bool[np.ndarray, "sources targets"], n_terms: int) -> Iterator[tuple[slice, slice]]:
    """Yield the rows and columns of products that hold all wanted pairs, 96 sources at a time."""
    step = max(1, 96 // n_terms)
    for start in range(0, len(wanted), step):
        columns = np.flatnonzero(wanted[start : start + step].any(axis=0))
        if len(columns):
            yield (
                slice(start * n_terms, min(start + step, len(wanted)) * n_terms),
                slice(int(columns[0]) * n_terms, (int(columns[-1]) + 1) * n_terms),
            )
