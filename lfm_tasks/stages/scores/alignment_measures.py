"""Scores of the measures that align directions or features: a space prepared once, all sets from one product."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
from jaxtyping import Float, Int

from lfm_tasks.config import NullConfig
from lfm_tasks.measures.alignments import AlignedSpace, AlignmentForm, moments_by_rotations, permuted_product
from lfm_tasks.measures.cross_covariances import cross_products, live_on_few, may_meet, most_rotations
from lfm_tasks.measures.measure import Measure, of_order_one
from lfm_tasks.measures.point_matrices import PointSets, point_sets
from lfm_tasks.stages.inventory.correspondence import Resampling
from lfm_tasks.stages.scores.block import OF_CHANCE, STATISTICS, against_chance
from lfm_tasks.stages.scores.point_pair_measures import SpacesOnPoints, pair_statistics, tiles_of_pairs
from lfm_tasks.statistics.permutation_moments import MomentArrays, live_on_few_units
from lfm_tasks.statistics.resampling import FAR, FEW_DRAWS, Exchange, are_far, can_stop, tail_of


def score_alignments(
    measure: Measure,
    form: AlignmentForm,
    spaces: SpacesOnPoints,
    pairs: list[tuple[str, str]],
    resampling: Resampling,
    null: NullConfig,
) -> Float[np.ndarray, "pairs 2 statistics"]:
    """Return the statistics of each (source, target), and back.

    Without chance where it would come from rotations, but points are in groups or strata, or both spaces live on few
    of them.
    """
    sets = point_sets(resampling.exchange.n_points, resampling.halves)
    values = np.full((len(pairs), 2, len(STATISTICS)), np.nan)
    # One order of both, so that a pair has the same bits whichever is the source.
    ordered = [(min(pair), max(pair)) for pair in pairs]
    permutations = _Permutations(resampling.exchange, null, sets)
    for index, source, target in _prepared_pairs(measure, form, spaces, ordered, sets):
        products = cross_products(source, target, sets)
        by_set = np.array([form.compare(product, source, target, place) for place, product in enumerate(products)])
        found = float(by_set[0, 0]), float(by_set[0, 1])
        moments: tuple[MomentArrays, MomentArrays] | tuple[None, None] = (None, None)
        is_free = not resampling.exchange.sets
        if form.by_rotation and is_free and not live_on_few(source.spread, target.spread, len(sets.order)):
            draw = partial(form.by_rotation, len(sets.order), source, target)
            moments = moments_by_rotations(draw, most_rotations(len(sets.order), source.rank, target.rank), found)
            beyond = [
                (value - float(of_way.mean[0]) - FAR * float(of_way.deviation[0])) / space.weight_of_points
                for value, of_way, space in zip(found, moments, (source, target), strict=True)
            ]
            if may_meet(source.spread, target.spread, len(sets.order), min(beyond)):
                moments = None, None
        least = np.array([measure.least_points(max(spaces.rows[key].shape[1] for key in ordered[index]))])
        for way in range(2):
            values[index, way] = pair_statistics(
                by_set[:, way, None], by_set[:1, way], moments[way], np.asarray, measure, sets, least
            )[0]
        if form.by_rotation is None and null.n_permutations:
            values[index, :, OF_CHANCE] = _by_permutations(form, (source, target), found[0], permutations)
        if ordered[index] != pairs[index]:
            values[index] = values[index, ::-1].copy()
    return values


def _prepared_pairs(
    measure: Measure, form: AlignmentForm, spaces: SpacesOnPoints, pairs: list[tuple[str, str]], sets: PointSets
) -> Iterator[tuple[int, AlignedSpace, AlignedSpace]]:
    """Yield the number of each pair with both spaces; as many are in memory at a time as fit."""
    prepared: dict[str, AlignedSpace] = {}
    width = max(spaces.rows[key].shape[1] for pair in pairs for key in pair)
    for indices in tiles_of_pairs(pairs, width * (12 * len(sets.order) + 16 * sets.n_sets * width)):
        needed = {key for index in indices for key in pairs[index]}
        prepared = {key: kept for key, kept in prepared.items() if key in needed}
        for index in indices:
            for key in pairs[index]:
                if key not in prepared:
                    rows = spaces.rows[key]
                    prepared[key] = form.prepare(of_order_one(rows) if "scaling" in measure.invariances else rows, sets)
            yield index, prepared[pairs[index][0]], prepared[pairs[index][1]]


@dataclass(frozen=True)
class _Permutations:
    """The permutations of points in the order of cells, which all pairs share."""

    exchange: Exchange
    null: NullConfig
    sets: PointSets
    _made: dict[int, Int[np.ndarray, " points"]] = field(default_factory=dict)

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


def _by_permutations(
    form: AlignmentForm, spaces: tuple[AlignedSpace, AlignedSpace], found: float, permutations: _Permutations
) -> Float[np.ndarray, " 4"]:
    """Return the chance level of a symmetric score; where `are_far` holds after the first permutations, of these."""
    (source, target), exchange, null = spaces, permutations.exchange, permutations.null
    place_of = permutations.place_of
    is_few = live_on_few_units(source.energies[place_of], target.energies[place_of], exchange)
    may_stop = not is_few and can_stop(exchange, null.n_permutations)
    drawn = list[float]()
    for draw in range(null.n_permutations):
        product = permuted_product(source.narrow_rows, target.narrow_rows, permutations.of(draw))
        drawn.append(form.compare(product, source, target, 0)[0])
        if may_stop and draw + 1 == FEW_DRAWS and are_far(np.array(found), np.array(drawn)):
            break
    tail = tail_of(len(drawn), null.n_permutations, on_few_units=is_few)
    return np.array(against_chance(found, np.array(drawn), tail=tail, rounding=1e-6))
