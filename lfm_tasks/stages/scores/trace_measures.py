"""Scores of the measures of traces: the factors of a space once, a product of two for each set of points."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from jaxtyping import Float

from lfm_tasks.measures.measure import Measure, of_order_one
from lfm_tasks.measures.point_matrices import PointSets, point_sets
from lfm_tasks.measures.traces import FactorSums, SetFactors, TraceForm, factor_sums, set_factors, traces
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
    if measure.is_symmetric:
        # One order of both, so that a pair has the same bits whichever is the source.
        ordered = [(min(pair), max(pair)) for pair in pairs]
        return np.repeat(_one_way(measure, form, spaces, ordered, resampling)[:, None], 2, axis=1)
    back = [(target, source) for source, target in pairs]
    return np.stack([_one_way(measure, form, spaces, way, resampling) for way in (pairs, back)], axis=1)


@dataclass
class _PreparedSpaces:
    """The factors of spaces as sources (0) and as targets (1), those of a tile of pairs; the sums of all are kept."""

    measure: Measure
    form: TraceForm
    spaces: SpacesOnPoints
    sets: PointSets
    exchange: Exchange
    _made: dict[tuple[int, str], tuple[SetFactors, FactorSums]] = field(default_factory=dict)

    def _side(self, side: int) -> int:
        """Return the side whose factors serve: those of a symmetric measure are the same on both."""
        return 0 if self.form.source is self.form.target else side

    def keep_only(self, needed: set[tuple[int, str]]) -> None:
        """Forget all but the spaces on these sides: a tile has memory for one side of each."""
        places = {(self._side(side), key) for side, key in needed}
        self._made = {place: made for place, made in self._made.items() if place in places}

    def of(self, side: int, key: str) -> tuple[SetFactors, FactorSums]:
        """Return the factors of one space on a side, and their sums."""
        side = self._side(side)
        if (side, key) not in self._made:
            factor, is_scaled = (self.form.source, self.form.target)[side], "scaling" in self.measure.invariances
            rows, address = self.spaces.rows[key], self.spaces.address
            factors = set_factors(of_order_one(rows) if is_scaled else rows, factor, self.sets)
            # The factor of a plug-in may be an object that cannot be part of an address.
            is_kept = address is not None and isinstance(factor, Hashable)
            sums = kept(
                (*(address or ()), "trace", factor, is_scaled, key) if is_kept else None,
                partial(factor_sums, factors, self.exchange),
            )
            self._made[side, key] = factors, sums
        return self._made[side, key]


def _one_way(
    measure: Measure, form: TraceForm, spaces: SpacesOnPoints, pairs: list[tuple[str, str]], resampling: Resampling
) -> Float[np.ndarray, "pairs statistics"]:
    sets = point_sets(resampling.exchange.n_points, resampling.halves)
    values = np.full((len(pairs), len(STATISTICS)), np.nan)
    prepared = _PreparedSpaces(measure, form, spaces, sets, resampling.exchange)
    rank = max(min(rows.shape) for rows in (spaces.rows[key] for pair in pairs for key in pair))
    # Factors of all points, and of the halves of each split.
    bytes_of_one = 8 * rank * len(sets.order) * (1 + (sets.n_sets - 1) // 2)
    for indices in tiles_of_pairs(pairs, bytes_of_one):
        prepared.keep_only({place for index in indices for place in enumerate(pairs[index])})
        for index in indices:
            (source, of_source), (target, of_target) = (prepared.of(side, key) for side, key in enumerate(pairs[index]))
            trace = traces(source, target)
            by_set = form.value(trace, of_source.energies, of_target.energies)
            whole = partial(form.value, source=of_source.energies[:1], target=of_target.energies[:1])
            least = np.array([measure.least_points(max(spaces.rows[key].shape[1] for key in pairs[index]))])
            moments = _moments(of_source, of_target, len(sets.order))
            values[index] = pair_statistics(by_set[:, None], trace[:1], moments, whole, measure, sets, least)[0]
            spreads = np.array(of_source.concentration), np.array(of_target.concentration)
            exchange = resampling.exchange
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
