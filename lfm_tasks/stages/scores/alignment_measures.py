"""Scores of the measures that align directions or features: a space prepared once, all sets from one product."""

from collections.abc import Callable, Hashable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
from jaxtyping import Float, Int

from lfm_tasks.config import NullConfig
from lfm_tasks.errors import DataError
from lfm_tasks.measures.alignments import AlignedSpace, AlignmentForm, Corners, permuted_products
from lfm_tasks.measures.cross_covariances import (
    NARROW,
    common_factor,
    cross_products,
    may_meet,
    moments_by_rotations,
    most_rotations,
)
from lfm_tasks.measures.measure import Measure, of_order_one
from lfm_tasks.measures.point_sets import PointSets, point_sets
from lfm_tasks.stages.inventory.correspondence import Resampling
from lfm_tasks.stages.scores.block import OF_CHANCE, STATISTICS, against_chance
from lfm_tasks.stages.scores.cache import kept_space
from lfm_tasks.stages.scores.point_pair_measures import HeldSpaces, SpacesOnPoints, pair_statistics
from lfm_tasks.statistics.permutation_moments import MomentArrays, live_on_few_units
from lfm_tasks.statistics.resampling import FAR, FEW_DRAWS, Exchange, are_far, can_stop, tail_of


def score_alignments(
    measure: Measure,
    form: AlignmentForm,
    spaces: SpacesOnPoints,
    pairs: list[tuple[str, str]],
    resampling: Resampling,
    null: NullConfig,
) -> tuple[Float[np.ndarray, "pairs 2 statistics"], dict[str, DataError]]:
    """Return the statistics of each (source, target), and back, and why a space has none, by key.

    Chance comes from permutations where points are in groups or strata, or where rotations are distributed otherwise
    (few points, skewed features, rows that stand out in both spaces). Without it there if the form has no permutations.
    """
    sets = point_sets(resampling.exchange.n_points, resampling.halves)
    values = np.full((len(pairs), 2, len(STATISTICS)), np.nan)
    # One order of both, so that a pair has the same bits whichever is the source.
    ordered = [(min(pair), max(pair)) for pair in pairs]
    permutations = _Permutations(resampling.exchange, null, sets)
    is_scaled = "scaling" in measure.invariances

    def prepare(key: str) -> AlignedSpace:
        # What prepares a plug-in's spaces may be an object that cannot be part of an address.
        is_kept = spaces.address is not None and isinstance(form.prepare, Hashable)
        address = (*(spaces.address or ()), "aligned", form.prepare, is_scaled, key) if is_kept else None
        rows = spaces.rows[key]
        return kept_space(address, lambda: form.prepare(of_order_one(rows) if is_scaled else rows, sets))

    width = max(spaces.rows[key].shape[1] for pair in pairs for key in pair)
    bytes_of_one = width * (12 * len(sets.order) + 16 * sets.n_sets * width)
    prepared = HeldSpaces(prepare)
    for indices in prepared.pairs_by_tile(ordered, bytes_of_one):
        usable = dict[int, tuple[AlignedSpace, AlignedSpace]]()
        for index in indices:
            with suppress(DataError):
                usable[index] = prepared.of(ordered[index][0]), prepared.of(ordered[index][1])
        found = {index: _align(form, *usable[index], permutations) for index in _in_turn(form, ordered, usable)}
        if found:
            least = spaces.least_points(measure, [pairs[index] for index in found])
            values[list(found)] = _statistics(measure, sets, list(found.values()), least)
    is_turned = [first != pair[0] for (first, _), pair in zip(ordered, pairs, strict=True)]
    values[is_turned] = values[is_turned][:, ::-1]
    return values, prepared.refused


def _in_turn(
    form: AlignmentForm, ordered: list[tuple[str, str]], usable: dict[int, tuple[AlignedSpace, AlignedSpace]]
) -> list[int]:
    """Return the pairs in the order in which what one draws serves the next."""
    if form.by_permutations is not None:
        # Where permutations may be drawn, those with one target in turn: its permutations serve all of them.
        return sorted(usable, key=lambda index: ordered[index][::-1])
    # Singular vectors of rotations of wide spaces are kept of one size only.
    ranks = {index: tuple(space.rank for space in both) for index, both in usable.items()}
    return sorted(usable, key=lambda index: ranks[index] if max(ranks[index]) > NARROW else ())


@dataclass(frozen=True)
class _Aligned:
    """The values of a pair on each set of points, and its chance: moments, or drawn (the same both ways)."""

    by_set: Float[np.ndarray, "sets 2"]
    moments: MomentArrays | None
    drawn: Float[np.ndarray, " 4"] | None = None


def _align(form: AlignmentForm, source: AlignedSpace, target: AlignedSpace, permutations: "_Permutations") -> _Aligned:
    sets, exchange = permutations.sets, permutations.exchange
    by_set = form.compare(cross_products(source.columns, target.columns, sets), source, target, range(sets.n_sets))
    moments = None if exchange.sets else _moments(form, source, target, by_set[0])
    if moments is not None or form.by_permutations is None or not permutations.null.n_permutations:
        return _Aligned(by_set, moments)
    return _Aligned(by_set, None, _by_permutations(form.by_permutations, (source, target), by_set[0, 0], permutations))


def _statistics(
    measure: Measure, sets: PointSets, found: list[_Aligned], least: Int[np.ndarray, " pairs"]
) -> Float[np.ndarray, "pairs 2 statistics"]:
    """Return the statistics from the first space to the second, and back, of all pairs at once."""
    none = MomentArrays.together([None, None])
    moments = MomentArrays.together([none if one.moments is None else one.moments for one in found])
    by_set = np.stack([one.by_set for one in found], axis=1)
    flat = by_set.reshape(len(by_set), -1)
    statistics = pair_statistics(flat, flat[0], moments, np.asarray, measure, sets, np.repeat(least, 2))
    values = statistics.reshape(len(found), 2, -1)
    for place, one in enumerate(found):
        if one.drawn is not None:
            values[place, :, OF_CHANCE] = one.drawn
    return values


def _moments(
    form: AlignmentForm, source: AlignedSpace, target: AlignedSpace, found: Float[np.ndarray, " 2"]
) -> MomentArrays | None:
    """Return the moments of both directions by rotations; None where these do not speak for permutations."""
    n_points = len(source.columns.inside)
    if not form.has_rotations(n_points, source, target):
        return None
    draw = partial(form.by_rotations, n_points, source, target)
    n_many = most_rotations(n_points, source.rank, target.rank)
    moments = moments_by_rotations(draw, n_many, found, common_factor(source.spread, target.spread, n_points))
    beyond = found - moments.mean - FAR * moments.deviation
    return None if _may_meet(source, target, n_points, beyond) else moments


def _may_meet(source: AlignedSpace, target: AlignedSpace, n_points: int, beyond: Float[np.ndarray, " 2"]) -> bool:
    """Return whether points with directions or features nearly to themselves decide how scores compare with chance."""
    weights = [source.weight_of_points, target.weight_of_points]
    return may_meet(source.spread, target.spread, n_points, float((beyond / weights).min()))


# Of a target, all first permutations of its points are in memory where they take no more bytes than this.
MOST_PERMUTED = 64 << 20


@dataclass
class _Permutations:
    """The permutations of points in the order of cells, which all pairs share, and the latest target under the first.

    Many sources in turn are multiplied with one target.
    """

    exchange: Exchange
    null: NullConfig
    sets: PointSets
    _made: dict[int, Int[np.ndarray, " points"]] = field(default_factory=dict)
    _latest: tuple[AlignedSpace, Float[np.ndarray, "points permuted_columns"]] | None = None

    @cached_property
    def place_of(self) -> Int[np.ndarray, " points"]:
        """The place of each point in the order of cells."""
        return np.argsort(self.sets.order)

    def of(self, draw: int) -> Int[np.ndarray, " points"]:
        """Return one of them."""
        if draw not in self._made:
            order = self.exchange.permutation(draw, seed=self.null.seed)
            self._made[draw] = self.place_of[order[self.sets.order]]
        return self._made[draw]

    def products(
        self, source: AlignedSpace, target: AlignedSpace
    ) -> Iterator[Float[np.ndarray, "permutations target_columns source_columns"]]:
        """Yield the products of two spaces under permutations of the points of the second, ten at a time.

        Where ten take too much memory, one after another.
        """
        n_together = FEW_DRAWS if FEW_DRAWS * target.narrow_rows.nbytes <= MOST_PERMUTED else 1
        for first in range(0, self.null.n_permutations, n_together):
            draws = range(first, min(first + n_together, self.null.n_permutations))
            permuted = self._first if first == 0 and n_together > 1 else self._permuted
            yield permuted_products(source.narrow_rows, permuted(target, draws), len(draws))

    def _permuted(self, target: AlignedSpace, draws: range) -> Float[np.ndarray, "points permuted_columns"]:
        """Return some permutations of a target, side by side."""
        n_points, width = target.narrow_rows.shape
        permuted = np.empty((n_points, len(draws), width), dtype=np.float32)
        for place, draw in enumerate(draws):
            permuted[:, place] = target.narrow_rows[self.of(draw)]
        return permuted.reshape(n_points, -1)

    def _first(self, target: AlignedSpace, draws: range) -> Float[np.ndarray, "points permuted_columns"]:
        """Return the first permutations of a target."""
        if self._latest is None or self._latest[0] is not target:
            self._latest = None
            self._latest = target, self._permuted(target, draws)
        return self._latest[1]


def _by_permutations(
    value: Callable[[Corners], Float[np.ndarray, " products"]],
    spaces: tuple[AlignedSpace, AlignedSpace],
    found: float,
    permutations: _Permutations,
) -> Float[np.ndarray, " 4"]:
    """Return the chance level of a symmetric score; where `are_far` holds after the first permutations, of these."""
    (source, target), exchange, null = spaces, permutations.exchange, permutations.null
    place_of = permutations.place_of
    is_few = live_on_few_units(source.energies[place_of], target.energies[place_of], exchange)
    drawn = np.empty(0)
    for products in permutations.products(source, target):
        drawn = np.concatenate([drawn, value(products)])
        if len(drawn) == FEW_DRAWS and not exchange.sets:
            beyond = np.full(2, found - drawn.mean() - FAR * drawn.std())
            is_few |= _may_meet(source, target, exchange.n_points, beyond)
        may_stop = not is_few and can_stop(exchange, null.n_permutations)
        if may_stop and len(drawn) == FEW_DRAWS and are_far(np.array(found), drawn):
            break
    tail = tail_of(len(drawn), null.n_permutations, on_few_units=is_few)
    return np.array(against_chance(found, drawn, tail=tail, rounding=1e-6))
