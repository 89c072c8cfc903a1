"""Scores of the measures of cross-covariances: a space's singular vectors once, all sets of points from one product."""

from functools import partial

import numpy as np

from lfm_tasks.measures.cross_covariances import (
    CrossForm,
    SetTransforms,
    Span,
    Spread,
    cross_products,
    live_on_few,
    moments_of_nuclear_norm,
    nuclear_norms,
    set_transforms,
    span,
    spread_of,
)
from lfm_tasks.measures.measure import Measure, of_order_one
from lfm_tasks.measures.point_matrices import point_sets
from lfm_tasks.stages.inventory.correspondence import Resampling
from lfm_tasks.stages.scores.block import OF_CHANCE, STATISTICS
from lfm_tasks.stages.scores.point_pair_measures import (
    FamilyScores,
    SpacesOnPoints,
    pair_statistics,
    tiles_of_pairs,
)


def score_cross_covariances(
    measure: Measure, form: CrossForm, spaces: SpacesOnPoints, pairs: list[tuple[str, str]], resampling: Resampling
) -> FamilyScores:
    """Return the statistics of each pair of spaces by one measure; chance only where all points are exchangeable."""
    n_points = resampling.exchange.n_points
    sets = point_sets(n_points, resampling.halves)
    has_chance = not resampling.exchange.sets
    values = np.full((len(pairs), len(STATISTICS)), np.nan)
    prepared: dict[str, tuple[Span, SetTransforms, Spread]] = {}
    concentrated = np.zeros(len(pairs), dtype=bool)
    # One order of both, so that a pair has the same bits whichever is the source.
    ordered = [(min(pair), max(pair)) for pair in pairs]
    rank = max(min(rows.shape) for rows in (spaces.rows[key] for pair in pairs for key in pair))
    bytes_of_one = 8 * rank * (n_points + (sets.n_sets + len(sets.runs_of_classes)) * rank)
    for indices in tiles_of_pairs(ordered, bytes_of_one):
        needed = {key for index in indices for key in ordered[index]}
        prepared = {key: kept for key, kept in prepared.items() if key in needed}
        for index in indices:
            for key in ordered[index]:
                if key not in prepared:
                    rows = spaces.rows[key]
                    space = span(of_order_one(rows) if "scaling" in measure.invariances else rows, sets)
                    made = set_transforms(space, form, sets)
                    prepared[key] = space, made, spread_of(space.rows, made.lengths)
            (source, of_source, source_spread), (target, of_target, target_spread) = (
                prepared[key] for key in ordered[index]
            )
            nuclear = nuclear_norms(cross_products(source, target, sets), of_source, of_target, form)
            n_directions = np.minimum(of_source.n_directions, of_target.n_directions)
            by_set = form.value(nuclear, of_source.norms, of_target.norms, n_directions)
            found = float(nuclear[0])
            moments = (
                moments_of_nuclear_norm(of_source.lengths, of_target.lengths, n_points, found) if has_chance else None
            )
            whole = partial(
                form.value, source=of_source.norms[:1], target=of_target.norms[:1], n_directions=n_directions[:1]
            )
            least = np.array([measure.least_points(max(spaces.rows[key].shape[1] for key in ordered[index]))])
            values[index] = pair_statistics(by_set[:, None], nuclear[:1], moments, whole, measure, sets, least)[0]
            concentrated[index] = live_on_few(source_spread, target_spread, n_points)
    values[np.ix_(concentrated, np.arange(len(STATISTICS))[OF_CHANCE])] = np.nan
    return FamilyScores(values, {}, has_chance, concentrated)
