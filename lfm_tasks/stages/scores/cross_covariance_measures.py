"""Scores of the measures of cross-covariances: a space's singular vectors once, all sets of points from one product.

Measures that differ in the last step only (Procrustes distances and the angular shape metric of alpha 1; the mean of
canonical correlations and that of alpha 0) share the singular values of a pair.
"""

from collections.abc import Hashable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from jaxtyping import Float, Int

from lfm_tasks.errors import DataError
from lfm_tasks.measures.cross_covariances import (
    CrossForm,
    SetTransforms,
    Span,
    Spread,
    common_factor,
    cross_products,
    live_on_few,
    may_meet,
    moments_of_nuclear_norm,
    nuclear_norms,
    set_transforms,
    span,
    spread_of,
)
from lfm_tasks.measures.measure import Measure, of_order_one, order_of
from lfm_tasks.measures.point_sets import PointSets, point_sets
from lfm_tasks.stages.inventory.correspondence import Resampling
from lfm_tasks.stages.scores.block import OF_CHANCE, STATISTICS
from lfm_tasks.stages.scores.cache import kept, kept_space
from lfm_tasks.stages.scores.point_pair_measures import (
    FamilyScores,
    HeldSpaces,
    SpacesOnPoints,
    pair_statistics,
)
from lfm_tasks.statistics.permutation_moments import MomentArrays
from lfm_tasks.statistics.resampling import FAR


def score_cross_covariances(
    measure: Measure, form: CrossForm, spaces: SpacesOnPoints, pairs: list[tuple[str, str]], resampling: Resampling
) -> FamilyScores:
    """Return the statistics of each pair of spaces by one measure; chance only where all points are exchangeable."""
    n_points = resampling.exchange.n_points
    sets = point_sets(n_points, resampling.halves)
    has_chance = not resampling.exchange.sets
    values = np.full((len(pairs), len(STATISTICS)), np.nan)
    concentrated = np.zeros(len(pairs), dtype=bool)
    # One order of both, so that a pair has the same bits whichever is the source.
    ordered = [(min(pair), max(pair)) for pair in pairs]
    rank = max(min(rows.shape) for rows in (spaces.rows[key] for pair in pairs for key in pair))
    bytes_of_one = 8 * rank * (n_points + sets.n_sets * rank)
    is_scaled = "scaling" in measure.invariances or form.stretch.is_linear

    def prepare(key: str) -> _Prepared:
        address = None if spaces.address is None else (*spaces.address, "stretched", form.stretch, is_scaled, key)
        return kept_space(address, partial(_prepare, form, spaces.rows[key], sets, is_scaled=is_scaled))

    prepared = HeldSpaces(prepare)
    for indices in prepared.pairs_by_tile(ordered, bytes_of_one):
        found = dict[int, _Crossed]()
        for index in indices:
            pair = ordered[index]
            address = _address(form, spaces, pair, is_scaled, has_chance)
            try:
                crossed = kept(address, partial(_cross, form, prepared, pair, sets, has_chance=has_chance))
            except DataError:
                continue
            if "scaling" not in measure.invariances and is_scaled:
                crossed = crossed.in_units(*(order_of(spaces.rows[key]) for key in pair))
            found[index] = crossed
        if found:
            least = spaces.least_points(measure, [pairs[index] for index in found])
            values[list(found)] = _statistics(measure, form, sets, list(found.values()), least)
            concentrated[list(found)] = [crossed.is_concentrated for crossed in found.values()]
    values[np.ix_(concentrated, np.arange(len(STATISTICS))[OF_CHANCE])] = np.nan
    return FamilyScores(values, prepared.refused, has_chance, concentrated)


@dataclass(frozen=True)
class _Crossed:
    """Sums of singular values of one pair on each set of points, norms and numbers of directions, and chance."""

    nuclear: Float[np.ndarray, " sets"]
    source_norms: Float[np.ndarray, " sets"]
    target_norms: Float[np.ndarray, " sets"]
    n_directions: Int[np.ndarray, " sets"]
    moments: MomentArrays | None
    is_concentrated: bool

    def in_units(self, source: float, target: float) -> "_Crossed":
        """Return the pair of spaces times a power of two each: no digit changes."""
        both = source * target
        moments = self.moments
        if moments is not None:
            moments = replace(moments, mean=both * moments.mean, deviation=both * moments.deviation)
        return replace(
            self,
            nuclear=both * self.nuclear,
            source_norms=source * self.source_norms,
            target_norms=target * self.target_norms,
            moments=moments,
        )


def _statistics(
    measure: Measure, form: CrossForm, sets: PointSets, found: list[_Crossed], least: Int[np.ndarray, " pairs"]
) -> Float[np.ndarray, "pairs statistics"]:
    """Return the statistics of all pairs at once."""
    nuclear, *others = (
        np.stack([getattr(crossed, name) for crossed in found], axis=1)
        for name in ("nuclear", "source_norms", "target_norms", "n_directions")
    )
    source, target, n_directions = (other[0] for other in others)
    of_value = partial(form.value, source=source, target=target, n_directions=n_directions)
    moments = MomentArrays.together([crossed.moments for crossed in found])
    return pair_statistics(form.value(nuclear, *others), nuclear[0], moments, of_value, measure, sets, least)


def _address(
    form: CrossForm, spaces: SpacesOnPoints, pair: tuple[str, str], is_scaled: bool, has_chance: bool
) -> Hashable | None:
    if spaces.address is None:
        return None
    return (*spaces.address, "crossed", form.stretch, is_scaled, has_chance, *pair)


@dataclass(frozen=True)
class _Prepared:
    """One space as a form needs it."""

    span: Span
    transforms: SetTransforms
    spread: Spread


def _prepare(
    form: CrossForm, rows: Float[np.ndarray, "points features"], sets: PointSets, *, is_scaled: bool
) -> _Prepared:
    space = span(of_order_one(rows) if is_scaled else rows, sets)
    made = set_transforms(space, form.stretch, sets)
    return _Prepared(space, made, spread_of(space.columns.rows, made.lengths))


def _cross(
    form: CrossForm,
    prepared: HeldSpaces[_Prepared],
    pair: tuple[str, str],
    sets: PointSets,
    *,
    has_chance: bool,
) -> _Crossed:
    """Return the sums of singular values of a pair."""
    source, target = map(prepared.of, pair)
    n_points, of_source, of_target = len(sets.order), source.transforms, target.transforms
    nuclear = nuclear_norms(
        cross_products(source.span.columns, target.span.columns, sets), of_source, of_target, form.stretch
    )
    n_directions = np.minimum(of_source.n_directions, of_target.n_directions)
    moments, is_concentrated = None, live_on_few(source.spread, target.spread, n_points)
    # Where it is, permutations are drawn, and moments would not be looked at.
    if has_chance and not is_concentrated:
        factor = common_factor(source.spread, target.spread, n_points)
        lengths = of_source.lengths, of_target.lengths
        moments = moments_of_nuclear_norm(*lengths, n_points, float(nuclear[0]), factor)
        beyond = float(nuclear[0] - moments.mean[0] - FAR * moments.deviation[0])
        is_concentrated = may_meet(source.spread, target.spread, n_points, beyond)
    return _Crossed(nuclear, of_source.norms, of_target.norms, n_directions, moments, is_concentrated)
