"""Scores of the measures of lists of nearest points: lists made once a space; one space with many in one pass."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from lfm_tasks.measures.measure import ListForm, Measure, of_order_one
from lfm_tasks.measures.neighbor_pairs import neighbors_in_set
from lfm_tasks.measures.point_sets import point_sets
from lfm_tasks.measures.side_by_side import SideBySide
from lfm_tasks.stages.inventory.correspondence import Resampling
from lfm_tasks.stages.scores.point_pair_measures import (
    SpacesOnPoints,
    knows_chance,
    list_sums,
    lists_of,
    pair_statistics,
)
from lfm_tasks.statistics.permutation_moments import MomentArrays


def score_lists(
    measure: Measure, form: ListForm, spaces: SpacesOnPoints, pairs: list[tuple[str, str]], resampling: Resampling
) -> Float[np.ndarray, "pairs 2 statistics"]:
    """Return the statistics of each (source, target), and back.

    Chance is NaN unless `knows_chance` says that it is known, and for pairs of which moments are not.
    """
    if measure.neighbors is None:
        raise ValueError("got a measure of lists without the number of its neighbors, expected `Measure.neighbors`")
    exchange = resampling.exchange
    sets = point_sets(exchange.n_points, resampling.halves)
    # One order of both, so that a pair has the same bits whichever is the source.
    keys = sorted({key for pair in pairs for key in pair})
    place_of = {key: place for place, key in enumerate(keys)}
    ends = np.array([sorted((place_of[first], place_of[second])) for first, second in pairs])
    lists = [lists_of(spaces, key, sets, measure.neighbors) for key in keys]
    values = np.full((sets.n_sets, len(pairs), 2), np.nan)

    def prepared(points: Int[np.ndarray, " some"], number: int) -> Iterator[Any]:
        for key, one in zip(keys, lists, strict=True):
            yield form.of_neighbors(of_order_one(spaces.rows[key][points]), neighbors_in_set(one, points, number))

    sums: list[Any] = []
    for number, inside in enumerate(sets.points):
        points = np.sort(sets.order[inside])
        if len(points) < measure.smallest_n:
            continue
        many = SideBySide.of(prepared(points, number), len(keys))
        if number == 0 and knows_chance(measure, exchange):
            of_places = [partial(_sums_of_place, form, many, place) for place in range(len(keys))]
            sums = [list_sums(spaces, key, of, form.sums) for key, of in zip(keys, of_places, strict=True)]
        for one in np.unique(ends[:, 0]).tolist():
            of_one = np.flatnonzero(ends[:, 0] == one)
            others, place_of_pair = np.unique(ends[of_one, 1], return_inverse=True)
            values[number, of_one] = form.compare(many.space(one), many, others)[place_of_pair]
    moments = _moments(form, sums, ends.tolist(), exchange.n_points) if sums else None
    flat = values.reshape(sets.n_sets, -1)
    least = np.repeat(spaces.least_points(measure, pairs), 2)
    statistics = pair_statistics(flat, flat[0], moments, np.asarray, measure, sets, least).reshape(len(pairs), 2, -1)
    is_turned = [place_of[first] > place_of[second] for first, second in pairs]
    statistics[is_turned] = statistics[is_turned][:, ::-1]
    return statistics


def _sums_of_place(form: ListForm, many: SideBySide[Any], place: int) -> Any:
    return form.sums(many.space(place))


# Pairs whose moments are computed together: the sums of both spaces of a pair take some kilobytes.
_PAIRS_AT_ONCE = 1024


def _moments(form: ListForm, sums: Sequence[Any], ends: list[list[int]], n_points: int) -> MomentArrays:
    """Return the moments of each pair, twice, once for each direction."""
    runs = [ends[start : start + _PAIRS_AT_ONCE] for start in range(0, len(ends), _PAIRS_AT_ONCE)]
    found = [form.moments([sums[one] for one, _ in run], [sums[other] for _, other in run], n_points) for run in runs]
    mean, deviation, skewness = (
        np.repeat(np.concatenate([getattr(of_run, name) for of_run in found]), 2)
        for name in ("mean", "deviation", "skewness")
    )
    return MomentArrays(mean, deviation, skewness)
