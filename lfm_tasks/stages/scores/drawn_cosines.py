"""Drawn chance of the measures of matrices, where none is known in closed form: a permuted space is one more space."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise, product

import numpy as np
from jaxtyping import Float, Int

from lfm_tasks.config import NullConfig
from lfm_tasks.measures.diffusion import MOST_WHOLE
from lfm_tasks.measures.matrix_pairs import matrix_cosines
from lfm_tasks.measures.measure import Measure
from lfm_tasks.measures.point_matrices import TiledMatrix
from lfm_tasks.measures.point_sets import PointSets, SpaceRows, point_sets, space_rows
from lfm_tasks.stages.scores.block import against_chance, tile_side
from lfm_tasks.statistics.resampling import FEW_DRAWS, Exchange, are_far, can_stop, tail_of

# Values of tiles in single precision that differ by less are the same.
_ROUNDING = 1e-6


class MatrixSpaces:
    """Spaces on the same points as tiled matrices of one measure, each made once."""

    def __init__(self, measure: Measure, rows: Mapping[str, Float[np.ndarray, "points features"]]) -> None:
        if measure.matrix is None:
            raise ValueError("got a measure that is not one of matrices, expected one")
        self.measure, self.form, self.sets = measure, measure.matrix, point_sets(len(next(iter(rows.values()))))
        self._rows = rows
        self._made: dict[str, tuple[SpaceRows, TiledMatrix]] = {}

    def of(self, key: str) -> tuple[SpaceRows, TiledMatrix]:
        """Return the rows and the matrix of a space."""
        if key not in self._made:
            moved = space_rows(self._rows[key], self.sets.order)
            # A matrix that computed its constants holds tiles: this one does not.
            constants = self.form.of_rows(moved, self.sets, None).constants
            self._made[key] = moved, self.form.of_rows(moved, self.sets, constants)
        return self._made[key]

    def reordered(self, key: str) -> Callable[[Int[np.ndarray, " points"]], TiledMatrix]:
        """Return the function to the matrix of a space whose points are in another order.

        Up to 3,000 points entries are looked up in the whole matrix, made once: they are not computed again.
        """
        moved, matrix = self.of(key)
        if len(moved.rows) > MOST_WHOLE:
            return lambda order: self.form.of_rows(
                replace(moved, rows=moved.rows[order]), self.sets, matrix.constants_at(order)
            )
        whole = _whole(matrix, self.sets)

        def in_order(order: Int[np.ndarray, " points"]) -> TiledMatrix:
            def tile(rows: slice, columns: slice) -> Float[np.ndarray, "rows columns"]:
                return whole[order[rows]][:, order[columns]]

            return replace(matrix, tile=tile, diagonal=None if matrix.diagonal is None else matrix.diagonal[order])

        return in_order


def _whole(matrix: TiledMatrix, sets: PointSets) -> Float[np.ndarray, "points points"]:
    """Return a matrix, made tile by tile: a tile takes several times its size while it is made."""
    whole = np.empty((len(sets.order),) * 2)
    for (_, rows), (_, columns) in product(sets.runs(), repeat=2):
        whole[rows, columns] = matrix.tile(rows, columns)
    return whole


def drawn_chance(
    spaces: MatrixSpaces,
    sides: tuple[Sequence[str], str],
    scores: Float[np.ndarray, " sources"],
    on_few_points: Sequence[bool],
    exchange: Exchange,
    null: NullConfig,
) -> Float[np.ndarray, "sources 4"]:
    """Return the chance of sources with one target, from its permutations, which all of them share.

    Up to ten permutations at a time are as many spaces in a pass over tiles: no n × n matrix is held. Sources far
    beyond the first ten take no part in the others.

    Parameters
    ----------
    spaces
        Of one measure, on the same points in one order.
    sides
        The sources, and the target.
    scores
        Of each source with the target, as its rows are.
    on_few_points
        Which sources live on few points with the target: theirs are counted.
    """
    form, (sources, target), sets = spaces.form, sides, spaces.sets
    moved, _ = spaces.of(target)
    matrices, in_order = [spaces.of(source)[1] for source in sources], spaces.reordered(target)
    of_value = form.of_cosine or np.asarray

    def values(left: list[int], draws: list[int]) -> Float[np.ndarray, "some draws"]:
        """Return the values of some sources with permutations of the target."""
        permuted = [in_order(exchange.permutation(draw, seed=null.seed)) for draw in draws]
        places = np.arange(len(left)), len(left) + np.arange(len(draws))
        cosines = matrix_cosines([*(matrices[place] for place in left), *permuted], places, sets, form)
        return np.asarray(of_value(cosines[0]))

    chance = np.full((len(sources), null.n_permutations), np.nan)
    left, is_distance = list(range(len(sources))), spaces.measure.kind == "distance"
    # As many permutations at a time as spaces of a side are in memory together; a batch ends with the tenth.
    n_at_once = min(FEW_DRAWS, tile_side(exchange.n_points, moved.rows.shape[1]))
    starts = sorted({*range(0, FEW_DRAWS, n_at_once), *range(FEW_DRAWS, null.n_permutations, n_at_once)})
    for start, end in pairwise([*(place for place in starts if place < null.n_permutations), null.n_permutations]):
        draws = list(range(start, end))
        chance[np.ix_(left, draws)] = values(left, draws)
        if end == FEW_DRAWS and can_stop(exchange, null.n_permutations):
            far = are_far(scores, chance[:, :FEW_DRAWS].T, is_distance=is_distance)
            left = [place for place in left if on_few_points[place] or not far[place]]
        if not left:
            break
    found = np.empty((len(sources), 4))
    for place, score in enumerate(scores.tolist()):
        made = chance[place] if place in left else chance[place, :FEW_DRAWS]
        tail = tail_of(len(made), null.n_permutations, on_few_units=on_few_points[place])
        found[place] = against_chance(score, made, is_distance=is_distance, tail=tail, rounding=_ROUNDING)
    return found
