"""Scores of the measures of traces: a space prepared once, a product of two for all sets of points, or for each."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from jaxtyping import Float

from lfm_tasks.measures.cross_covariances import Span, set_transforms, span
from lfm_tasks.measures.measure import Measure, of_order_one
from lfm_tasks.measures.point_matrices import PointSets, point_sets
from lfm_tasks.measures.traces import (
    FactorSums,
    StretchedSpace,
    TraceForm,
    TraceSpace,
    are_stretched,
    factor_sums,
    factored,
    traces,
)
from lfm_tasks.stages.inventory.correspondence import Resampling
from lfm_tasks.stages.scores.block import STATISTICS
from lfm_tasks.stages.scores.cache import kept
from lfm_tasks.stages.scores.point_pair_measures import SpacesOnPoints, pair_statistics, tiles_of_pairs, without_tail
from lfm_tasks.statistics.permutation_moments import MomentArrays, are_concentrated, moments_of_pairs
from lfm_tasks.statistics.resampling import Exchange
from lfm_tasks.statistics.strata_moments import ExchangeSums, moments_of_sums


def score_traces(
    measure: Measure, form: TraceForm, spaces: SpacesOnPoints, pairs: list[tuple[str, str]], resampling: Resampling
) -> Float[np.ndarray, "pairs 2 statistics"]:
    """Return the statistics of each (source, target), and back; chance only where `has_moments` says so."""
    sets = point_sets(resampling.exchange.n_points, resampling.halves)
    ranks = [max(min(spaces.rows[key].shape) for key in pair) for pair in pairs]
    stretched = np.array([form.stretches is not None and are_stretched(len(sets.order), rank) for rank in ranks])
    values = np.empty((len(pairs), 2, len(STATISTICS)))
    for is_stretched in (True, False):
        indices = np.flatnonzero(stretched == is_stretched).tolist()
        prepared = _PreparedSpaces(measure, form, spaces, sets, resampling.exchange, is_stretched)
        if measure.is_symmetric:
            # One order of both, so that a pair has the same bits whichever is the source.
            values[indices] = _one_way(prepared, [(min(pairs[i]), max(pairs[i])) for i in indices])[:, None]
            continue
        values[indices, 0] = _one_way(prepared, [pairs[i] for i in indices])
        values[indices, 1] = _one_way(prepared, [pairs[i][::-1] for i in indices])
    return values


@dataclass
class _PreparedSpaces:
    """Spaces as sources (0) and as targets (1), those of a tile of pairs; the sums of all are kept."""

    measure: Measure
    form: TraceForm
    spaces: SpacesOnPoints
    sets: PointSets
    exchange: Exchange
    is_stretched: bool
    _made: dict[tuple[int, str], tuple[TraceSpace, FactorSums]] = field(default_factory=dict)
    _spans: dict[str, Span] = field(default_factory=dict)

    def _side(self, side: int) -> int:
        """Return the side whose factors serve: those of a symmetric measure are the same on both."""
        return 0 if self.form.source is self.form.target else side

    def bytes_of_one(self, rank: int) -> int:
        """Return the bytes of a space of so many directions, on one side."""
        n_points, n_sets = len(self.sets.order), self.sets.n_sets
        if self.is_stretched:
            return 8 * rank * (n_points + (n_sets + len(self.sets.runs_of_classes)) * rank)
        # Factors of all points, and of the halves of each split.
        return 8 * rank * n_points * (1 + (n_sets - 1) // 2)

    def keep_only(self, needed: set[tuple[int, str]]) -> None:
        """Forget all but the spaces on these sides: a tile has memory for one side of each."""
        places = {(self._side(side), key) for side, key in needed}
        self._made = {place: made for place, made in self._made.items() if place in places}
        keys = {key for _, key in needed}
        self._spans = {key: made for key, made in self._spans.items() if key in keys}

    def of(self, side: int, key: str) -> tuple[TraceSpace, FactorSums]:
        """Return one space on a side, and its sums."""
        side = self._side(side)
        if (side, key) not in self._made:
            factor, is_scaled = (self.form.source, self.form.target)[side], "scaling" in self.measure.invariances
            address = self.spaces.address
            rows = of_order_one(self.spaces.rows[key]) if is_scaled else self.spaces.rows[key]
            made = self._make(side, key, rows)
            # The factor of a plug-in may be an object that cannot be part of an address.
            is_kept = address is not None and isinstance(factor, Hashable)
            sums = kept(
                (*(address or ()), "trace", factor, self.is_stretched, is_scaled, key) if is_kept else None,
                partial(factor_sums, made, self.exchange),
            )
            self._made[side, key] = made, sums
        return self._made[side, key]

    def _make(self, side: int, key: str, rows: Float[np.ndarray, "points features"]) -> TraceSpace:
        if not self.is_stretched or self.form.stretches is None:
            return factored(rows, (self.form.source, self.form.target)[side], self.sets)
        if key not in self._spans:
            self._spans[key] = span(rows, self.sets)
        transforms = set_transforms(self._spans[key], self.form.stretches[side], self.sets)
        return StretchedSpace(self._spans[key], transforms, self.sets)


def _one_way(prepared: _PreparedSpaces, pairs: list[tuple[str, str]]) -> Float[np.ndarray, "pairs statistics"]:
    values = np.full((len(pairs), len(STATISTICS)), np.nan)
    rows, sets, exchange = prepared.spaces.rows, prepared.sets, prepared.exchange
    measure, value = prepared.measure, prepared.form.value
    rank = max((min(rows[key].shape) for pair in pairs for key in pair), default=1)
    for indices in tiles_of_pairs(pairs, prepared.bytes_of_one(rank)):
        prepared.keep_only({place for index in indices for place in enumerate(pairs[index])})
        for index in indices:
            (source, of_source), (target, of_target) = (prepared.of(side, key) for side, key in enumerate(pairs[index]))
            trace = traces(source, target)
            by_set = value(trace, of_source.energies, of_target.energies)
            whole = partial(value, source=of_source.energies[:1], target=of_target.energies[:1])
            least = np.array([measure.least_points(max(rows[key].shape[1] for key in pairs[index]))])
            moments = _moments(of_source, of_target, len(sets.order))
            values[index] = pair_statistics(by_set[:, None], trace[:1], moments, whole, measure, sets, least)[0]
            spreads = np.array(of_source.concentration), np.array(of_target.concentration)
            if are_concentrated(*spreads, exchange.n_units, is_exact=not exchange.sets):
                values[index] = without_tail(values[index][None])[0]
    return values


def _moments(source: FactorSums, target: FactorSums, n_points: int) -> MomentArrays | None:
    """Return the moments of ‖F_yᵀF_x‖² by chance; None where they are not known."""
    first, second = source.chance, target.chance
    if isinstance(first, ExchangeSums) and isinstance(second, ExchangeSums):
        moments = moments_of_sums([first], [second])
    elif isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        moments = moments_of_pairs(first[None], second[None], n_points)
    else:
        return None
    return moments.of((np.zeros(1, dtype=int), np.zeros(1, dtype=int)))
