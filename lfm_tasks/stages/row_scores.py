"""Scores of activations: each space prepared once a block, chance by permuted rows, or exactly where that is known."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from lfm_tasks.config import NullConfig
from lfm_tasks.measures.measure import Measure
from lfm_tasks.measures.permutation_moments import (
    Profile,
    permutation_moments,
    permutation_profile,
    upper_quantile,
    upper_tail,
)
from lfm_tasks.measures.permutation_null import calibrated, p_value, permutation
from lfm_tasks.measures.registry import MEASURES
from lfm_tasks.reasons import ReasonError

# Measures of all pairs of points hold n² numbers a space.
MOST_POINTS_SQUARED = 3000
N_STATISTICS = 7


@dataclass
class PreparedSpaces:
    """The spaces of a block on one list of ids, as one measure prepared them; filled as they are asked for."""

    measure: Measure
    rows: Mapping[str, np.ndarray]
    _prepared: dict[str, Any] = field(default_factory=dict)
    _profiles: dict[str, Profile] = field(default_factory=dict)

    def prepared(self, key: str) -> Any:
        """Return one space, prepared."""
        if key not in self._prepared:
            self._prepared[key] = self.measure.prepare(self.rows[key])
        return self._prepared[key]

    def profile(self, key: str) -> Profile:
        """Return what one space contributes to exact permutation moments."""
        if key not in self._profiles:
            if self.measure.as_trace is None:
                raise TypeError("this measure is no trace")
            self._profiles[key] = permutation_profile(self.measure.as_trace(self.prepared(key))[0])
        return self._profiles[key]


def check_rows(name: str, source: np.ndarray, target: np.ndarray) -> str:
    """Return ``ok``, or ``degenerate`` for a value that any two spaces have; ReasonError if there can be none."""
    measure, n_points = MEASURES[name], len(source)
    if n_points < measure.smallest_n:
        found = f"found {n_points} points, {name} needs at least {measure.smallest_n}"
        raise ReasonError("too_few_points", f"{found}: record more")
    if measure.is_quadratic and n_points > MOST_POINTS_SQUARED:
        found = f"found {n_points} points, {name} takes at most {MOST_POINTS_SQUARED}"
        raise ReasonError("too_many_points", f"{found}: set atlas.max_points, or drop the measure")
    if measure.needs_directions and not (source.any(axis=1).all() and target.any(axis=1).all()):
        raise ReasonError("zero_rows", f"found all-zero rows, which {name} finds no direction in: drop the measure")
    return "degenerate" if n_points <= measure.n_factor * max(source.shape[1], target.shape[1]) else "ok"


def score_rows(
    spaces: PreparedSpaces, sources: list[str], target: str, null: NullConfig
) -> list[Float[np.ndarray, "2 statistics"]]:
    """Return the statistics of both directions for every source; permutations of the target are shared by all."""
    measure = spaces.measure
    if measure.as_trace is not None and null.n_permutations:
        return [_exactly(spaces, source, target) for source in sources]
    own = spaces.prepared(target)
    scores = [_both_ways(measure, spaces.prepared(source), own) for source in sources]
    chance = np.empty((len(sources), null.n_permutations, 2))
    rows = spaces.rows[target]
    for number in range(null.n_permutations):
        order = permutation(number, len(rows), seed=null.seed)
        permuted = measure.prepare(rows[order]) if measure.permute is None else measure.permute(own, order)
        for place, source in enumerate(sources):
            chance[place, number] = _both_ways(measure, spaces.prepared(source), permuted)
    return [_against_chance(measure, score, drawn) for score, drawn in zip(scores, chance, strict=True)]


def _both_ways(measure: Measure, source: Any, target: Any) -> tuple[float, float]:
    there = measure.compare(source, target)
    return there, there if measure.is_symmetric else measure.compare(target, source)


def _exactly(spaces: PreparedSpaces, source: str, target: str) -> Float[np.ndarray, "2 statistics"]:
    """Return score and chance of a trace over its scale: mean, quantile and p-value over all permutations."""
    measure = spaces.measure
    if measure.as_trace is None:
        raise TypeError("this measure is no trace")
    scale = measure.as_trace(spaces.prepared(source))[1] * measure.as_trace(spaces.prepared(target))[1]
    score = measure.compare(spaces.prepared(source), spaces.prepared(target))
    moments = permutation_moments(spaces.profile(source), spaces.profile(target))
    mean = moments.mean / scale
    p = upper_tail(moments, score * scale)
    row = [score, mean, upper_quantile(moments, 0.95) / scale, calibrated(score, mean), p, np.nan, np.nan]
    return np.array([row, row])


def _against_chance(
    measure: Measure, scores: tuple[float, float], drawn: Float[np.ndarray, "permutations 2"]
) -> Float[np.ndarray, "2 statistics"]:
    is_distance = measure.kind == "distance"
    values = np.full((2, N_STATISTICS), np.nan)
    values[:, 0] = scores
    for direction, score in enumerate(scores):
        chance = drawn[:, direction]
        if not len(chance) or not np.isfinite(score) or not np.isfinite(chance).all():
            continue
        mean = float(chance.mean())
        # The side that only one in twenty permutations beats.
        edge = float(np.quantile(chance, 0.05 if is_distance else 0.95))
        best = 0.0 if is_distance else 1.0
        p = p_value(score, chance, is_distance=is_distance)
        values[direction, 1:5] = mean, edge, calibrated(score, mean, best=best), p
    return values
