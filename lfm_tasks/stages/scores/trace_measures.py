"""Scores of the measures of traces: the factors of a space once, a product of two for each set of points."""

from functools import partial

import numpy as np
from jaxtyping import Float

from lfm_tasks.measures.measure import Measure, of_order_one
from lfm_tasks.measures.point_matrices import point_sets
from lfm_tasks.measures.traces import SpaceFactor, TraceForm, space_factor, traces
from lfm_tasks.stages.inventory.correspondence import Resampling
from lfm_tasks.stages.scores.block import STATISTICS
from lfm_tasks.stages.scores.point_pair_measures import SpacesOnPoints, pair_statistics, tiles_of_pairs, without_tail
from lfm_tasks.statistics.permutation_moments import MomentArrays, are_concentrated, moments_of_pairs
from lfm_tasks.statistics.strata_moments import StrataSums, has_moments, moments_of_strata


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


def _one_way(
    measure: Measure, form: TraceForm, spaces: SpacesOnPoints, pairs: list[tuple[str, str]], resampling: Resampling
) -> Float[np.ndarray, "pairs statistics"]:
    sets = point_sets(resampling.exchange.n_points, resampling.halves)
    values = np.full((len(pairs), len(STATISTICS)), np.nan)
    sources: dict[str, SpaceFactor] = {}
    targets: dict[str, SpaceFactor] = {}
    make = partial(
        space_factor, sets=sets, strata=resampling.exchange.strata, has_chance=has_moments(resampling.exchange)
    )
    rank = max(min(rows.shape) for rows in (spaces.rows[key] for pair in pairs for key in pair))
    # Factors of all points, and of the halves of each split.
    bytes_of_one = 8 * rank * len(sets.order) * (1 + (sets.n_sets - 1) // 2)
    for indices in tiles_of_pairs(pairs, bytes_of_one):
        for side, place, factor in ((sources, 0, form.source), (targets, 1, form.target)):
            needed = {pairs[index][place] for index in indices}
            for key in set(side) - needed:
                del side[key]
            for key in sorted(needed - set(side)):
                rows = spaces.rows[key]
                side[key] = make(of_order_one(rows) if "scaling" in measure.invariances else rows, factor)
        for index in indices:
            source, target = sources[pairs[index][0]], targets[pairs[index][1]]
            trace = traces(source, target)
            by_set = form.value(trace, source.energies, target.energies)
            whole = partial(form.value, source=source.energies[:1], target=target.energies[:1])
            least = np.array([measure.least_points(max(spaces.rows[key].shape[1] for key in pairs[index]))])
            moments = _moments(source, target, len(sets.order))
            values[index] = pair_statistics(by_set[:, None], trace[:1], moments, whole, measure, sets, least)[0]
            spreads = np.array(source.concentration), np.array(target.concentration)
            if are_concentrated(*spreads, len(sets.order), is_exact=not isinstance(source.chance, StrataSums)):
                values[index] = without_tail(values[index][None])[0]
    return values


def _moments(source: SpaceFactor, target: SpaceFactor, n_points: int) -> MomentArrays | None:
    """Return the moments of ‖F_yᵀF_x‖² by chance; None where they are not known."""
    first, second = source.chance, target.chance
    if isinstance(first, StrataSums) and isinstance(second, StrataSums):
        moments = moments_of_strata([first], [second])
    elif isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        moments = moments_of_pairs(first[None], second[None], n_points)
    else:
        return None
    return moments.of((np.zeros(1, dtype=int), np.zeros(1, dtype=int)))
