"""Scores of the measures of traces: a space prepared once, a product of two for all sets of points, or for each."""

from collections.abc import Hashable
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float, Int

from lfm_tasks.errors import DataError
from lfm_tasks.measures.measure import Measure, of_order_one
from lfm_tasks.measures.point_sets import PointSets, point_sets
from lfm_tasks.measures.traces import (
    FactorSums,
    TraceForm,
    TraceKind,
    TraceSpace,
    factor_sums,
    trace_kind,
    trace_space,
    traces,
)
from lfm_tasks.stages.inventory.correspondence import Resampling
from lfm_tasks.stages.scores.block import STATISTICS
from lfm_tasks.stages.scores.cache import kept, kept_space
from lfm_tasks.stages.scores.point_pair_measures import (
    HeldSpaces,
    SpacesOnPoints,
    pair_statistics,
    without_tail,
)
from lfm_tasks.statistics.permutation_moments import MomentArrays, are_concentrated, moments_of_pairs
from lfm_tasks.statistics.resampling import Exchange
from lfm_tasks.statistics.strata_moments import ExchangeSums, moments_of_sums


def score_traces(
    measure: Measure, form: TraceForm, spaces: SpacesOnPoints, pairs: list[tuple[str, str]], resampling: Resampling
) -> tuple[Float[np.ndarray, "pairs 2 statistics"], dict[str, DataError]]:
    """Return the statistics of each (source, target), and back, and why a space has none, by key.

    Chance only where `has_moments` says so.
    """
    sets = point_sets(resampling.exchange.n_points, resampling.halves)
    # One order of both, so that a pair has the same bits whichever is the source.
    ordered = [(min(pair), max(pair)) for pair in pairs]
    ranks = [max(min(spaces.rows[key].shape) for key in pair) for pair in pairs]
    values = np.full((len(pairs), 2, len(STATISTICS)), np.nan)
    refused = dict[str, DataError]()
    kinds = [trace_kind(form, len(sets.order), rank) for rank in ranks]
    for kind in sorted(set(kinds)):
        indices = [index for index, of_pair in enumerate(kinds) if of_pair == kind]
        make = partial(_prepare, measure, form, spaces, sets, resampling.exchange, kind)
        prepared = HeldSpaces(make, refused)
        of_one = trace_bytes(kind, len(sets.order), max(ranks[index] for index in indices), sets.n_sets - 1)
        of_one *= 1 if measure.is_symmetric else 2
        for places in prepared.pairs_by_tile([ordered[i] for i in indices], of_one):
            for index in (indices[place] for place in places):
                least = spaces.least_points(measure, [ordered[index]])
                try:
                    first, second = map(prepared.of, ordered[index])
                except DataError:
                    continue
                of_pair = _both_ways(measure, form, (first, second), sets, resampling.exchange, least)
                values[index] = of_pair if ordered[index] == pairs[index] else of_pair[::-1]
    return values, refused


@dataclass(frozen=True)
class _Prepared:
    """One space, and its sums as source (0) and as target (1)."""

    space: TraceSpace
    sums: tuple[FactorSums, FactorSums]


def _prepare(
    measure: Measure,
    form: TraceForm,
    spaces: SpacesOnPoints,
    sets: PointSets,
    exchange: Exchange,
    kind: TraceKind,
    key: str,
) -> _Prepared:
    is_scaled = "scaling" in measure.invariances
    rows = of_order_one(spaces.rows[key]) if is_scaled else spaces.rows[key]
    # The factor of a plug-in may be an object that cannot be part of an address.
    can_be_kept = spaces.address is not None and isinstance(form.source, Hashable) and isinstance(form.target, Hashable)
    way = form.stretches if kind == "directions" else None
    address = (*(spaces.address or ()), "trace", kind, way, is_scaled, key)
    space = kept_space(
        (*address, form.source, form.target) if can_be_kept else None,
        lambda: trace_space(rows, form, sets, kind),
    )

    def sums(side: int) -> FactorSums:
        factor = (form.source, form.target)[side]
        return kept((*address, factor) if can_be_kept else None, lambda: factor_sums(space, side, exchange))

    of_source = sums(0)
    return _Prepared(space, (of_source, of_source if form.source is form.target else sums(1)))


def trace_bytes(kind: TraceKind, n_points: int, rank: int, n_halves: int) -> int:
    """Return the bytes of a prepared space of so many directions, as source or as target."""
    if kind == "matrices":
        # Half of each matrix: of all points, and of the halves of each split.
        return 8 * n_points * (rank + n_points // 2 * (1 + n_halves // 4))
    if kind == "directions":
        return 8 * rank * (n_points + (1 + n_halves) * rank)
    return 8 * rank * n_points * (1 + n_halves // 2)


def _both_ways(
    measure: Measure,
    form: TraceForm,
    both: tuple[_Prepared, _Prepared],
    sets: PointSets,
    exchange: Exchange,
    least: Int[np.ndarray, " 1"],
) -> Float[np.ndarray, "2 statistics"]:
    """Return the statistics from the first space to the second, and back."""
    first, second = both
    values = np.empty((2, len(STATISTICS)))
    for way, trace in enumerate(traces(first.space, second.space)):
        source, target = ((first, second), (second, first))[way]
        of_source, of_target = source.sums[0], target.sums[1]
        by_set = form.value(trace, of_source.energies, of_target.energies)
        whole = partial(form.value, source=of_source.energies[:1], target=of_target.energies[:1])
        moments = _moments(of_source, of_target, len(sets.order))
        statistics = pair_statistics(by_set[:, None], trace[:1], moments, whole, measure, sets, least)
        spreads = np.array(of_source.concentration), np.array(of_target.concentration)
        is_on_few = are_concentrated(*spreads, exchange.n_units, is_exact=not exchange.sets)
        values[way] = (without_tail(statistics) if is_on_few else statistics)[0]
        if measure.is_symmetric:
            values[1] = values[0]
            break
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
