"""Scores of the measures that compare all pairs of points: many pairs of spaces from a few large products.

Two families: cosines of n × n matrices (CKA, RSA, distance correlation), and shared nearest neighbors. Whole and in
halves from the same pass; chance in closed form.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from typing import Any, Generic, TypeVar

import numpy as np
from jaxtyping import Bool, Float, Int

from lfm_tasks.errors import DataError
from lfm_tasks.measures.matrix_moments import (
    MatrixChance,
    MatrixSums,
    cosines_in_sets,
    matrix_chance,
    matrix_sums,
    moments_of_cosines,
)
from lfm_tasks.measures.matrix_pairs import Sides, matrix_cosines
from lfm_tasks.measures.measure import Measure, of_order_one
from lfm_tasks.measures.neighbor_chance import EntrySums, count_sums, moments_of_values, value_of_counts
from lfm_tasks.measures.neighbor_pairs import NeighborLists, neighbor_lists, neighbor_shares, neighbors_in_set
from lfm_tasks.measures.neighborhoods import N_NEIGHBORS, Metric
from lfm_tasks.measures.point_matrices import MatrixConstants, MatrixForm, TiledMatrix
from lfm_tasks.measures.point_sets import PointSets, SpaceRows, constant_sets, point_sets, space_rows
from lfm_tasks.measures.registry import MEASURES
from lfm_tasks.stages.inventory.correspondence import Resampling
from lfm_tasks.stages.scores.block import OF_CHANCE, OF_HALVES, STATISTICS, against_moments, resampled
from lfm_tasks.stages.scores.cache import LARGEST_SHARED, is_small, keep
from lfm_tasks.stages.scores.cache import kept as kept_for_later
from lfm_tasks.statistics.exchange_moments import has_moments
from lfm_tasks.statistics.permutation_moments import (
    MomentArrays,
    are_concentrated,
    moments_of_pairs,
)
from lfm_tasks.statistics.resampling import Exchange
from lfm_tasks.statistics.strata_moments import ExchangeSums, moments_of_sums


@dataclass(frozen=True)
class SpacesOnPoints:
    """Spaces on one list of points, in one order.

    Parameters
    ----------
    rows
        Activations by key.
    neighbors
        The nearest points by cosine, of spaces of which they are known.
    address
        Identifies the points, their exchange and their halves: what is computed of one space is kept under it for later
        pairs. None: nothing is kept.
    """

    rows: Mapping[str, Float[np.ndarray, "points features"]]
    neighbors: Mapping[str, Int[np.ndarray, "points neighbors"]]
    address: tuple[Hashable, ...] | None = None

    def address_of(self, name: str, key: str, *, has_moments: bool) -> Hashable | None:
        """Return the key under which the sums of one space for one measure are kept; None: they are not kept."""
        return None if self.address is None else (*self.address, name, key, has_moments)

    def least_points(self, measure: Measure, pairs: Iterable[tuple[str, str]]) -> Int[np.ndarray, " pairs"]:
        """Return the points that a half needs for each pair; see `Measure.least_points`."""
        widths = [max(self.rows[key].shape[1] for key in pair) for pair in pairs]
        return np.array([measure.least_points(width) for width in widths], dtype=int)


@dataclass(frozen=True)
class FamilyScores:
    """Scores of pairs of spaces that are the same both ways; ``refused``: why a space has none, by key.

    ``has_chance``: whether the statistics of chance are filled in, too; ``concentrated``: of which pairs the tail is
    not known for all that, see `are_concentrated`.
    """

    values: Float[np.ndarray, "pairs statistics"]
    refused: Mapping[str, DataError]
    has_chance: bool
    concentrated: Bool[np.ndarray, " pairs"]


def _points_of(measure: Measure, resampling: Resampling) -> "_Points":
    sets = point_sets(resampling.exchange.n_points, resampling.halves)
    return _Points(sets, resampling.exchange, knows_chance(measure, resampling.exchange))


def score_family(
    name: str, measure: Measure, spaces: SpacesOnPoints, pairs: list[tuple[str, str]], resampling: Resampling
) -> FamilyScores:
    """Return the statistics of each pair of spaces by one measure.

    Chance is in closed form where `knows_chance` says so; it is NaN elsewhere.
    """
    points = _points_of(measure, resampling)
    sets = points.sets
    of_value = None
    if measure.matrix is not None:
        scored, of_value = _score_matrices(name, measure.matrix, spaces, points, pairs), measure.matrix.of_cosine
    elif measure.of_shared_neighbors is not None:
        scored = _score_neighbors(measure.of_shared_neighbors, spaces, points, pairs)
    else:
        raise ValueError(f"got {name}, expected a measure of matrices or of shared neighbors")
    values = np.full((len(pairs), len(STATISTICS)), np.nan)
    usable = [index for index, pair in enumerate(pairs) if not set(pair) & scored.refused.keys()]
    of_value = of_value or np.asarray
    least = spaces.least_points(measure, [pairs[index] for index in usable])
    values[usable] = pair_statistics(
        of_value(scored.values), scored.values[0], scored.moments, of_value, measure, sets, least
    )
    concentrated = np.zeros(len(pairs), dtype=bool)
    if scored.concentrated is not None:
        concentrated[usable] = scored.concentrated
    values[concentrated] = without_tail(values[concentrated])
    return FamilyScores(values, scored.refused, points.has_moments, concentrated)


# Prepared spaces that are held at a time, in bytes. One that is not held is prepared again for each tile of a block.
# This is enough for 2 × 16 spaces of 2,000 × 768, the block of a zoo of up to 512 spaces.
MOST_PREPARED = 2 << 30


# Spaces on a side of the pairs that follow each other: 2,000 × 64 stay in a processor's cache meanwhile (16 MB).
_CACHED_SIDE = 8


def tiles_of_pairs(pairs: list[tuple[str, str]], bytes_of_one: int) -> Iterator[list[int]]:
    """Yield the numbers of pairs whose spaces, of so many bytes each once prepared, fit into memory together.

    Pairs of a few spaces follow each other.
    """
    places = {key: index for index, key in enumerate(sorted({key for pair in pairs for key in pair}))}
    side = max(1, MOST_PREPARED // (2 * bytes_of_one))
    ends = [(places[first], places[second]) for first, second in pairs]

    def cells(index: int) -> tuple[int, ...]:
        first, second = ends[index]
        return first // side, second // side, first // _CACHED_SIDE, second // _CACHED_SIDE

    order = sorted(range(len(pairs)), key=cells)
    for _, indices in groupby(order, key=lambda index: cells(index)[:2]):
        yield list(indices)


Prepared = TypeVar("Prepared")


@dataclass
class HeldSpaces(Generic[Prepared]):
    """Spaces as a measure needs them, those of a tile of pairs; ``refused``: why one cannot be prepared, by key."""

    prepare: Callable[[str], Prepared]
    refused: dict[str, DataError] = field(default_factory=dict)
    _made: dict[str, Prepared] = field(default_factory=dict)

    def pairs_by_tile(self, pairs: list[tuple[str, str]], bytes_of_one: int) -> Iterator[list[int]]:
        """Yield the numbers of the pairs of each tile; ``bytes_of_one``: of a prepared space, see `tiles_of_pairs`."""
        for indices in tiles_of_pairs(pairs, bytes_of_one):
            for key in self._made.keys() - {key for index in indices for key in pairs[index]}:
                del self._made[key]
            yield indices

    def of(self, key: str) -> Prepared:
        """Return one space; DataError if it cannot be prepared."""
        if key in self.refused:
            raise self.refused[key]
        if key not in self._made:
            try:
                self._made[key] = self.prepare(key)
            except DataError as error:
                self.refused[key] = error
                raise
        return self._made[key]


def without_tail(statistics: Float[np.ndarray, "pairs statistics"]) -> Float[np.ndarray, "pairs statistics"]:
    """Return statistics without the quantile of chance and the p-value; its mean, which is exact, stays."""
    return np.where(np.isin(np.arange(len(STATISTICS)), _OF_TAIL), np.nan, statistics)


_OF_TAIL = [STATISTICS.index(name) for name in ("null_q95", "p_value")]


def knows_chance(measure: Measure, exchange: Exchange) -> bool:
    """Return whether the chance of a measure of all pairs of points is known: where `has_moments` says so.

    Within strata, numbers of shared neighbors follow no known law: then only their mean has known moments. In groups of
    like points even that has a skewness, of 1 and more, and the third moment of directed graphs in groups is not known.
    Weights and ranks of neighbors have skewed sums within strata, too.
    """
    if not measure.compares_point_pairs or exchange.n_points < measure.smallest_n or not has_moments(exchange):
        return False
    of_count, form = measure.of_shared_neighbors, measure.lists
    if form is not None:
        return exchange.n_points >= form.fewest_points and not exchange.sets
    if of_count is None or not exchange.sets:
        return True
    is_linear = bool(np.allclose(np.diff(of_count), of_count[1] - of_count[0]))
    return is_linear and exchange.strata is not None


@dataclass(frozen=True)
class _PairLayout:
    """Pairs of spaces as places in a matrix of sources x targets that is as small as it can be.

    ``sides``: the places of sources and targets among ``keys``; ``places``: of each pair in the matrix.
    """

    keys: list[str]
    sides: Sides
    places: tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"]]

    @property
    def wanted(self) -> Bool[np.ndarray, "sources targets"]:
        """Which places of the matrix are pairs."""
        wanted = np.zeros((len(self.sides[0]), len(self.sides[1])), dtype=bool)
        wanted[self.places] = True
        return wanted


def _layout(pairs: list[tuple[str, str]]) -> _PairLayout:
    """Return the layout of pairs: a space of many pairs is a source, so that few new spaces meet many old ones."""
    counts: dict[str, int] = {}
    for pair in pairs:
        for key in set(pair):
            counts[key] = counts.get(key, 0) + 1
    keys = sorted(counts, key=lambda key: (-counts[key], key))
    place = {key: index for index, key in enumerate(keys)}
    ordered = np.array([sorted((place[first], place[second])) for first, second in pairs])
    (sources, rows), (targets, columns) = (np.unique(side, return_inverse=True) for side in ordered.T)
    return _PairLayout(keys, (sources, targets), (rows, columns))


@dataclass(frozen=True)
class _KeptMatrix:
    """The costly parts of the matrix of one space: its bandwidth, effects of rows, and sums for chance.

    ``is_constant``: on which sets all rows are the same, so that the centered matrix is rounding. ``energies``: ‖K‖² on
    each set before centering, NaN until a pair of the space is compared.
    """

    constants: MatrixConstants | None
    chance: MatrixChance | MatrixSums | None
    is_constant: Bool[np.ndarray, " sets"]
    energies: Float[np.ndarray, " sets"]


def travel_bytes(name: str, n_points: int) -> int:
    """Return the bytes of what a measure of matrices keeps of a space, where it is small enough to travel; else 0.

    Row effects of a matrix, and of its derivative, in single precision; sums for chance.
    """
    form = MEASURES[name].matrix if name in MEASURES else None
    if form is None or form.has_table:
        return 0
    n_bytes = 4 * n_points * (2 if form.has_bandwidth else 1) + 4096
    return n_bytes if n_bytes <= LARGEST_SHARED else 0


def measures_that_travel(names: Iterable[str], n_points: int) -> list[str]:
    """Return the measures of matrices of which what is kept of a space is small enough to travel."""
    return sorted(name for name in names if travel_bytes(name, n_points))


def kept_of_space(name: str, spaces: SpacesOnPoints, key: str, resampling: Resampling) -> dict[Hashable, Any] | None:
    """Return the constants and sums of a space for a measure of matrices, by their address in the cache.

    Empty where the measure cannot compare the space; None where these are too large to travel.
    """
    measure = MEASURES[name]
    points = _points_of(measure, resampling)
    address = spaces.address_of(name, key, has_moments=points.has_moments)
    if measure.matrix is None or address is None:
        return {}
    try:
        with np.errstate(all="ignore"):  # as where pairs are scored: what is no number ends as "undefined"
            made = _kept_matrix(address, measure.matrix, space_rows(spaces.rows[key], points.sets.order), points)
    except DataError:  # the pairs of the space say so
        return {}
    return {address: made} if is_small(made) else None


def _score_matrices(
    name: str, form: MatrixForm, spaces: SpacesOnPoints, points: "_Points", pairs: list[tuple[str, str]]
) -> "_Scored":
    """Return the scores of pairs by a measure of matrices."""
    sets = points.sets
    made: dict[str, TiledMatrix] = {}
    kept: dict[str, _KeptMatrix] = {}
    refused: dict[str, DataError] = {}
    for key in sorted({key for pair in pairs for key in pair}):
        try:
            rows = space_rows(spaces.rows[key], sets.order)
            address = spaces.address_of(name, key, has_moments=points.has_moments)
            kept[key] = _kept_matrix(address, form, rows, points)
            made[key] = form.of_rows(rows, sets, kept[key].constants)
        except DataError as error:
            refused[key] = error
    usable = [pair for pair in pairs if not set(pair) & refused.keys()]
    if not usable:
        return _Scored(np.empty((sets.n_sets, 0)), None, refused)
    layout = _layout(usable)
    matrices = [made[key] for key in layout.keys]
    energies = np.stack([kept[key].energies for key in layout.keys], axis=1)
    cosines = matrix_cosines(matrices, layout.sides, sets, form, layout.wanted, energies)[:, *layout.places]
    for place, key in enumerate(layout.keys):
        if np.isnan(kept[key].energies).any():
            address = spaces.address_of(name, key, has_moments=points.has_moments)
            keep(address, replace(kept[key], energies=energies[:, place].copy()))
    is_constant = np.array([kept[key].is_constant for key in layout.keys])
    sources, targets = (is_constant[np.asarray(side)] for side in layout.sides)
    cosines[(sources[layout.places[0]] | targets[layout.places[1]]).T] = np.nan
    if not points.has_moments:
        return _Scored(cosines, None, refused)
    of_sources, of_targets = ([kept[layout.keys[place]].chance for place in side] for side in layout.sides)
    if not points.exchange.sets:
        free = _of_kind(MatrixChance, of_sources), _of_kind(MatrixChance, of_targets)
        moments = moments_of_cosines(free[0], free[1], len(sets.order))
    else:
        moments = cosines_in_sets(_of_kind(MatrixSums, of_sources), _of_kind(MatrixSums, of_targets))
    first, second = (
        np.array([1.0 if one is None else one.concentration for one in side])[places]
        for side, places in zip((of_sources, of_targets), layout.places, strict=True)
    )
    concentrated = are_concentrated(first, second, points.exchange.n_units, is_exact=not points.exchange.sets)
    return _Scored(cosines, moments.of(layout.places), refused, concentrated)


Kind = TypeVar("Kind")


def _of_kind(kind: type[Kind], sums: Sequence[object]) -> list[Kind]:
    """Return the contributions of spaces to chance, in the form that the exchange of their points requires."""
    alike = [one for one in sums if isinstance(one, kind)]
    if len(alike) < len(sums):
        raise TypeError(f"got {len(sums) - len(alike)} of {len(sums)} spaces without {kind.__name__}, expected none")
    return alike


def _kept_matrix(address: Hashable | None, form: MatrixForm, rows: SpaceRows, points: "_Points") -> _KeptMatrix:
    def compute() -> _KeptMatrix:
        matrix = form.of_rows(rows, points.sets, None)
        chance: MatrixChance | MatrixSums | None = None
        if points.has_moments and not points.exchange.sets:
            chance = matrix_chance(rows, matrix, points.sets, form)
        elif points.has_moments:
            chance = matrix_sums(rows, matrix, points.sets, form, points.exchange)
        energies = np.full(points.sets.n_sets, np.nan)
        return _KeptMatrix(matrix.constants, chance, constant_sets(rows, points.sets), energies)

    return kept_for_later(address, compute)


def lists_of(spaces: SpacesOnPoints, key: str, sets: PointSets, neighbors: tuple[int, Metric]) -> NeighborLists:
    """Return the lists of neighbors of a space, by direction or by distance: all measures of so many have the same."""
    known = spaces.neighbors.get(key) if neighbors[1] == "angular" else None
    address = None if spaces.address is None else (*spaces.address, "lists of neighbors", *neighbors, key)
    rows = spaces.rows[key]
    return kept_for_later(address, lambda: neighbor_lists(of_order_one(rows), sets, known, *neighbors))


def list_sums(spaces: SpacesOnPoints, key: str, of_space: Callable[[], Any], kind: Hashable) -> Any:
    """Return the contribution of a space to the moments of a measure of lists; ``kind``: what names such sums."""
    return kept_for_later(None if spaces.address is None else (*spaces.address, kind, key), of_space)


def _count_sums(lists: NeighborLists, points: "_Points") -> EntrySums:
    return count_sums(neighbors_in_set(lists, np.arange(len(points.sets.order)), 0), points.exchange)


def _score_neighbors(
    value_of_count: Float[np.ndarray, " counts"],
    spaces: SpacesOnPoints,
    points: "_Points",
    pairs: list[tuple[str, str]],
) -> "_Scored":
    """Return the scores of pairs by shared neighbors."""
    layout, n_points = _layout(pairs), len(points.sets.order)
    kept = [lists_of(spaces, key, points.sets, (N_NEIGHBORS, "angular")) for key in layout.keys]
    sources, targets = ([kept[place] for place in side] for side in layout.sides)
    shares = neighbor_shares(sources, targets, points.sets, value_of_count, layout.wanted)[:, *layout.places]
    if not points.has_moments:
        return _Scored(shares, None, {})
    sums = [
        list_sums(spaces, key, partial(_count_sums, lists, points), "counts of neighbors")
        for key, lists in zip(layout.keys, kept, strict=True)
    ]
    of_sources, of_targets = ([sums[place] for place in side] for side in layout.sides)
    if points.exchange.sets:
        in_sets = moments_of_sums(_of_kind(ExchangeSums, of_sources), _of_kind(ExchangeSums, of_targets))
        line = value_of_count[1] - value_of_count[0]
        return _Scored(shares, in_sets.of(layout.places).scaled(line / n_points), {})
    free = np.stack(_of_kind(np.ndarray, of_sources)), np.stack(_of_kind(np.ndarray, of_targets))
    counts = moments_of_pairs(free[0], free[1], n_points).of(layout.places)
    value = value_of_counts(value_of_count, n_points)
    return _Scored(shares, moments_of_values(counts, value, n_points), {})


@dataclass(frozen=True)
class _Points:
    """The sets of points, which of these may change places, and whether the moments of chance are known."""

    sets: PointSets
    exchange: Exchange
    has_moments: bool


@dataclass(frozen=True)
class _Scored:
    """Values of the pairs that are not refused on every set of points, and the moments of the first by chance."""

    values: Float[np.ndarray, "sets pairs"]
    moments: MomentArrays | None
    refused: Mapping[str, DataError]
    concentrated: Bool[np.ndarray, " pairs"] | None = None


def pair_statistics(
    values: Float[np.ndarray, "sets pairs"],
    whole: Float[np.ndarray, " pairs"],
    moments: MomentArrays | None,
    of_value: Callable[[Float[np.ndarray, " pairs"]], Float[np.ndarray, " pairs"]],
    measure: Measure,
    sets: PointSets,
    least_points: Int[np.ndarray, " pairs"],
) -> Float[np.ndarray, "pairs statistics"]:
    """Return the stored statistics of each pair.

    Parameters
    ----------
    values
        The stored value on each set of points.
    whole, moments
        The statistic that chance is known of (a cosine, a sum of singular values) on all points; its moments.
    of_value
        The stored value on all points of such a statistic, monotone.
    least_points
        Points that a half needs for each pair; see `Measure.least_points`.
    """
    values = np.array(values)
    counts = sets.points.sum(axis=1)
    # What any two spaces would have on a half tells nothing of how the score varies; of all points a status says so.
    values[1:][counts[1:, None] < least_points] = np.nan
    values[0, counts[0] < measure.smallest_n] = np.nan
    statistics = np.full((values.shape[1], len(STATISTICS)), np.nan)
    statistics[:, 0] = values[0]
    if moments is not None:
        best = 0.0 if measure.kind == "distance" else 1.0
        chance = against_moments(values[0], moments, statistic=whole, of_statistic=of_value, best=best)
        statistics[:, OF_CHANCE] = chance
    statistics[:, OF_HALVES] = resampled(values[0], values[1:].T, measure.value_range)
    return statistics
