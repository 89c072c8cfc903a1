"""Scores that no family has: spaces prepared once, compared pair by pair; chance in closed form, or by permutations."""

from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from lfm_tasks.config import NullConfig
from lfm_tasks.measures.diffusion import LEADING, MOST_WHOLE
from lfm_tasks.measures.measure import Measure, TraceChance, of_order_one
from lfm_tasks.measures.neighborhoods import neighbors_among
from lfm_tasks.measures.side_by_side import SideBySide
from lfm_tasks.stages.inventory.correspondence import Resampling
from lfm_tasks.stages.scores.block import (
    OF_CHANCE,
    OF_HALVES,
    STATISTICS,
    against_chance,
    against_moments,
    resampled,
)
from lfm_tasks.stages.scores.cache import kept as kept_for_later
from lfm_tasks.stages.scores.point_pair_measures import MOST_PREPARED, SpacesOnPoints, tiles_of_pairs
from lfm_tasks.statistics.exchange_moments import TraceSums, aligned_trace_moments, has_moments
from lfm_tasks.statistics.permutation_moments import are_concentrated, live_on_few_units, row_energies
from lfm_tasks.statistics.resampling import FEW_DRAWS, N_HALVES, Exchange, are_far, can_stop, tail_of

# Measures that hold n² numbers a space, and no family has: at most this many points.
MOST_POINTS_SQUARED = MOST_WHOLE


def squared_bytes(n_points: int, *, is_factor: bool) -> int:
    """Return the bytes of a space of such a measure: a matrix, or its leading eigenvectors."""
    return 8 * n_points * (LEADING if is_factor else n_points)


@dataclass(frozen=True)
class Activations:
    """Activations by key, and the neighbors by cosine, nearest first, of spaces whose exact graph says them.

    ``address``: of spaces on all their points, what these points and their halves are known by; see `SpacesOnPoints`.
    """

    rows: Mapping[str, np.ndarray]
    neighbors: Mapping[str, np.ndarray]
    address: tuple[Hashable, ...] | None = None

    @property
    def on_points(self) -> SpacesOnPoints:
        """Return the function on chosen points, for measures of all pairs of points."""
        return SpacesOnPoints(self.rows, self.neighbors, self.address)

    def some(self, keys: Collection[str]) -> "Activations":
        """Return the activations of some spaces."""
        known = {key: self.neighbors[key] for key in keys if key in self.neighbors}
        return Activations({key: self.rows[key] for key in keys}, known, self.address)

    def among(self, kept: Mapping[str, np.ndarray]) -> "Activations":
        """Return the activations of the spaces in ``kept``, on these points of each."""
        known = {
            key: left
            for key, rows in kept.items()
            if key in self.neighbors and (left := neighbors_among(self.neighbors[key], rows)) is not None
        }
        return Activations({key: self.rows[key][rows] for key, rows in kept.items()}, known)

    def prepare(self, key: str, measure: Measure, kept: np.ndarray | None) -> Any:
        """Return one space as the measure wants it, of all points or some."""
        spaces = self if kept is None else self.among({key: kept})
        if measure.of_cosine_neighbors is not None and key in spaces.neighbors:
            return measure.of_cosine_neighbors(spaces.neighbors[key])
        return prepare_rows(measure, spaces.rows[key])


@dataclass
class PreparedSpaces:
    """Spaces on one list of ids (or the rows ``kept`` of it) as one measure prepared them, as far as memory goes.

    ``number``: 0 of all rows, 1 to 4 of halves; for later blocks, which find what is small under it.
    """

    measure: Measure
    spaces: Activations
    kept: np.ndarray | None = None
    number: int = 0
    _prepared: dict[str, Any] = field(default_factory=dict)
    _energies: dict[str, np.ndarray] = field(default_factory=dict)
    _stacked: tuple[tuple[str, ...], SideBySide[Any]] | None = None

    def prepared(self, key: str) -> Any:
        """Return one space, prepared."""
        if key not in self._prepared:
            if self.measure.is_quadratic:
                n_kept = max(2, MOST_PREPARED // self._bytes_of_one)
                while len(self._prepared) >= n_kept:
                    del self._prepared[next(iter(self._prepared))]
            self._prepared[key] = kept_for_later(
                self._address(key), lambda: self.spaces.prepare(key, self.measure, self.kept)
            )
        return self._prepared[key]

    def pairs_by_tile(self, pairs: list[tuple[str, str]]) -> Iterator[list[int]]:
        """Yield the numbers of pairs whose spaces are held together; a space that is not is prepared again."""
        if not self.measure.is_quadratic:
            yield list(range(len(pairs)))
            return
        for indices in tiles_of_pairs(pairs, self._bytes_of_one):
            for key in self._prepared.keys() - {key for index in indices for key in pairs[index]}:
                del self._prepared[key]
            yield indices

    @property
    def _n_points(self) -> int:
        return len(next(iter(self.spaces.rows.values()))) if self.kept is None else len(self.kept)

    @property
    def _is_factor(self) -> bool:
        """Whether a space of a quadratic measure is held as its leading eigenvectors."""
        return self.measure.has_value_for_many and self._n_points > MOST_POINTS_SQUARED

    @property
    def _bytes_of_one(self) -> int:
        return squared_bytes(self._n_points, is_factor=self._is_factor)

    def sums(self, form: TraceChance, key: str, exchange: Exchange) -> TraceSums:
        """Return the contribution of a space to the moments of chance."""
        address = None if self.spaces.address is None else (*self.spaces.address, "sums", self.measure.prepare, key)
        return kept_for_later(address, lambda: form.sums(self.prepared(key), exchange))

    def _address(self, key: str) -> tuple[Hashable, ...] | None:
        if self.spaces.address is None or (self.measure.is_quadratic and not self._is_factor):
            return None
        # All that a prepared space depends on, see `Activations.prepare`.
        measure = self.measure
        way = measure.prepare, measure.of_cosine_neighbors, "scaling" in measure.invariances
        return (*self.spaces.address, *way, key, self.number)

    def live_on_few_units(self, source: str, target: str, exchange: Exchange) -> bool:
        """Return whether two spaces `live_on_few_units`; no measure of directions takes notice of far points."""
        if self.measure.needs_directions:
            return False
        for key in (source, target):
            if key not in self._energies:
                self._energies[key] = row_energies(of_order_one(self.spaces.rows[key]).astype(np.float64))
        return live_on_few_units(self._energies[source], self._energies[target], exchange)

    def with_many(self, sources: tuple[str, ...], target: Any, chosen: Sequence[int]) -> Float[np.ndarray, "chosen 2"]:
        """Return the values of both directions of some of the sources with a prepared target."""
        form = self.measure.lists
        if form is None:
            return np.array([_both_ways(self.measure, self.prepared(sources[place]), target) for place in chosen])
        if self._stacked is None or self._stacked[0] != sources:
            self._stacked = sources, SideBySide.of(map(self.prepared, sources), len(sources))
        return form.compare(target, self._stacked[1], np.array(chosen))[:, ::-1]

    def both_ways(self, source: str, target: str) -> tuple[float, float]:
        """Return the values of both directions."""
        return _both_ways(self.measure, self.prepared(source), self.prepared(target))


def prepare_rows(measure: Measure, rows: np.ndarray) -> Any:
    """Return one space as the measure wants it; numbers near the ends of the floating-point range do not matter."""
    return measure.prepare(of_order_one(rows) if "scaling" in measure.invariances else rows)


def score_by_pairs(
    measure: Measure, spaces: Activations, pairs: list[tuple[str, str]], resampling: Resampling, null: NullConfig
) -> tuple[Float[np.ndarray, "pairs 2 statistics"], frozenset[int]]:
    """Return the statistics of each (source, target), and back; and which pairs live on few points, if chance says so.

    Chance is in closed form where it is known for the measure; permutations are drawn elsewhere.
    """
    values = np.full((len(pairs), 2, len(STATISTICS)), np.nan)
    localized = set[int]()
    whole, exchange = PreparedSpaces(measure, spaces), resampling.exchange
    # Within strata, effects of rows have most of the third moment of a power, which `trace_sums_of_matrix` lacks.
    form = measure.trace_chance if has_moments(exchange) and exchange.strata is None else None
    for tile in whole.pairs_by_tile(pairs):
        for target, places in by_target([pairs[index] for index in tile]).items():
            indices = [tile[place] for place in places]
            drawn_for = indices
            if form is not None:
                scores = np.array([whole.both_ways(pairs[index][0], target) for index in indices])
                values[indices, :, 0] = scores
                ends = [pairs[index] for index in indices]
                chance, is_concentrated = _in_closed_form(form, whole, ends, scores[:, 0], exchange)
                values[indices, :, OF_CHANCE] = chance[:, None]
                is_open = np.isfinite(scores[:, 0]) & is_concentrated
                drawn_for = [index for index, is_drawn in zip(indices, is_open, strict=True) if is_drawn]
                localized |= set(drawn_for)
            if drawn_for and (form is None or null.n_permutations):
                sources, are_few = [pairs[index][0] for index in drawn_for], [form is not None] * len(drawn_for)
                values[drawn_for, :, :5] = by_permutations(whole, sources, target, resampling, null, are_few)
    halves = _of_halves(measure, spaces, pairs, resampling.halves)
    values[:, :, OF_HALVES] = resampled(values[:, :, 0], halves, measure.value_range)
    return values, frozenset(localized)


def _in_closed_form(
    form: TraceChance,
    spaces: PreparedSpaces,
    pairs: list[tuple[str, str]],
    scores: Float[np.ndarray, " pairs"],
    exchange: Exchange,
) -> tuple[Float[np.ndarray, "pairs 4"], Bool[np.ndarray, " pairs"]]:
    """Return null mean, quantile, calibrated score and p of symmetric scores; NaN where both spaces live on few points.

    With it, which pairs these are.
    """
    sources, targets = ([spaces.sums(form, key, exchange) for key in side] for side in zip(*pairs, strict=True))
    moments = aligned_trace_moments(sources, targets, exchange.n_points)
    chance = against_moments(scores, moments, statistic=form.to_trace(scores), of_statistic=form.of_trace)
    first, second = (np.array([one.concentration for one in side]) for side in (sources, targets))
    is_concentrated = are_concentrated(first, second, exchange.n_units, is_exact=not exchange.sets)
    chance[is_concentrated] = np.nan
    return chance, is_concentrated


def by_target(pairs: list[tuple[str, str]]) -> dict[str, list[int]]:
    """Return the numbers of the pairs that each target has."""
    numbers: dict[str, list[int]] = {}
    for index, (_, target) in enumerate(pairs):
        numbers.setdefault(target, []).append(index)
    return numbers


def _of_halves(
    measure: Measure,
    spaces: Activations,
    pairs: list[tuple[str, str]],
    halves: Bool[np.ndarray, "splits points"] | None,
) -> Float[np.ndarray, "pairs 2 halves"]:
    """Return the values on each half of the points; NaN where too few are in it, empty without halves."""
    if halves is None:
        return np.empty((len(pairs), 2, 0))
    values = np.full((len(pairs), 2, N_HALVES), np.nan)
    for place, inside in enumerate(half for second in halves for half in (~second, second)):
        kept = np.flatnonzero(inside)
        usable = [
            index
            for index, pair in enumerate(pairs)
            if len(kept) >= measure.least_points(max(spaces.rows[key].shape[1] for key in pair))
        ]
        # One half at a time: of measures that hold n² numbers a space, all at once would not fit.
        prepared = PreparedSpaces(measure, spaces, kept, number=1 + place)
        for tile in prepared.pairs_by_tile([pairs[index] for index in usable]):
            for index in (usable[one] for one in tile):
                values[index, :, place] = prepared.both_ways(*pairs[index])
    return values


def _both_ways(measure: Measure, source: Any, target: Any) -> tuple[float, float]:
    if measure.compare_both_ways is not None:
        return measure.compare_both_ways(source, target)
    there = measure.compare(source, target)
    return there, there if measure.is_symmetric else measure.compare(target, source)


def by_permutations(
    spaces: PreparedSpaces,
    sources: list[str],
    target: str,
    resampling: Resampling,
    null: NullConfig,
    on_few_points: Sequence[bool] = (),
) -> Float[np.ndarray, "sources 2 5"]:
    """Return score and chance for every source; permutations of the target are shared by all.

    Sources whose scores are far beyond the first few permutations take no part in the others.

    Parameters
    ----------
    on_few_points
        Which sources are known to live on few points with the target; others are looked at.
    """
    measure, prepared = spaces.measure, spaces.prepared(target)
    scores = spaces.with_many(tuple(sources), prepared, range(len(sources)))
    chance = np.full((len(sources), null.n_permutations, 2), np.nan)
    is_distance = measure.kind == "distance"
    left = list(range(len(sources)))
    few = [
        is_few or spaces.live_on_few_units(source, target, resampling.exchange)
        for source, is_few in zip(sources, on_few_points or [False] * len(sources), strict=True)
    ]
    may_stop = can_stop(resampling.exchange, null.n_permutations)
    for draw in range(null.n_permutations):
        order = resampling.exchange.permutation(draw, seed=null.seed)
        rows = spaces.spaces.rows[target]
        permuted = prepare_rows(measure, rows[order]) if measure.permute is None else measure.permute(prepared, order)
        chance[left, draw] = spaces.with_many(tuple(sources), permuted, left)
        if may_stop and draw + 1 == FEW_DRAWS:
            left = [
                place
                for place in left
                if few[place] or not are_far(scores[place], chance[place, :FEW_DRAWS], is_distance=is_distance).all()
            ]
            if not left:
                break
    found = np.empty((len(sources), 2, 5))
    found[:, :, 0] = scores
    for place, drawn in enumerate(chance):
        made = drawn if place in left else drawn[:FEW_DRAWS]
        tail = tail_of(len(made), null.n_permutations, on_few_units=few[place])
        for side, score in enumerate(scores[place].tolist()):
            found[place, side, 1:] = against_chance(score, made[:, side], is_distance=is_distance, tail=tail)
    return found
