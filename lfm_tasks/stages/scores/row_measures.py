"""Scores of activations: each space prepared once a block, with chance (exact where that is known) and intervals."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float

from lfm_tasks.config import NullConfig
from lfm_tasks.errors import DataError
from lfm_tasks.measures.measure import of_order_one
from lfm_tasks.measures.neighborhoods import N_NEIGHBORS
from lfm_tasks.measures.registry import MEASURES
from lfm_tasks.spectral.neighbors.search import tied_share
from lfm_tasks.stages.activations.job import read_activations
from lfm_tasks.stages.inventory.correspondence import Resampling, common_ids
from lfm_tasks.stages.scores.alignment_measures import score_alignments
from lfm_tasks.stages.scores.block import (
    MOST_TIED,
    OF_CHANCE,
    P_VALUE,
    STATISTICS,
    BlockJob,
    BlockScores,
    Resamplings,
)
from lfm_tasks.stages.scores.cache import kept as kept_for_later
from lfm_tasks.stages.scores.cache import kept_space
from lfm_tasks.stages.scores.cross_covariance_measures import score_cross_covariances
from lfm_tasks.stages.scores.drawn_cosines import MatrixSpaces, drawn_chance
from lfm_tasks.stages.scores.list_measures import score_lists
from lfm_tasks.stages.scores.pairwise_measures import (
    MOST_POINTS_SQUARED,
    Activations,
    PreparedSpaces,
    by_permutations,
    by_target,
    score_by_pairs,
)
from lfm_tasks.stages.scores.point_pair_measures import knows_chance, score_family
from lfm_tasks.stages.scores.trace_measures import score_traces
from lfm_tasks.statistics.exchange_moments import has_moments

# Variance, relative to the largest, below which a direction is rounding: squares of single precision.
_NO_DIRECTION = 1e-12


class RowChecks:
    """Reservations about values of measures of two spaces; each space is looked at once."""

    def __init__(self, spaces: Activations) -> None:
        self._spaces, self._rows = spaces, spaces.rows
        self._deficient: dict[str, bool] = {}
        self._has_zero_rows: dict[str, bool] = {}
        self._tied_shares: dict[tuple[str, int, str], float] = {}

    def code(self, name: str, source: str, target: str) -> str:
        """Return ``ok``, ``degenerate`` for a value that any two spaces have, ``rank_deficient``, or ``tied``.

        The value depends on where directions count as none, or on which of many points that are equally far are
        neighbors.

        Raises
        ------
        DataError
            If there can be no value.
        """
        if MEASURES[name].needs_directions:
            for key in (source, target):
                if key not in self._has_zero_rows:
                    self._has_zero_rows[key] = not self._rows[key].any(axis=1).all()
        with_zero_rows = [key for key in (source, target) if self._has_zero_rows.get(key, False)]
        code = _check_facts(name, self._rows[source].shape, self._rows[target].shape, with_zero_rows)
        if code == "ok" and self._are_deficient(name, source, target):
            return "rank_deficient"
        return "tied" if code == "ok" and max(self._tied(name, source), self._tied(name, target)) > MOST_TIED else code

    def _tied(self, name: str, key: str) -> float:
        """Return the share of points of a space whose last neighbor is tied with the next point."""
        if (neighbors := MEASURES[name].neighbors) is None:
            return 0.0
        n_neighbors, metric = neighbors
        place = key, n_neighbors, metric
        if place not in self._tied_shares:
            rows, of_points = of_order_one(self._rows[key]), self._spaces.address
            address = None if of_points is None else (*of_points, "tied", *place)
            try:
                self._tied_shares[place] = kept_for_later(address, lambda: tied_share(rows, n_neighbors, metric=metric))
            except DataError as error:
                raise DataError(error.reason, str(error), key) from error
        return self._tied_shares[place]

    def _are_deficient(self, name: str, source: str, target: str) -> bool:
        if "invertible" not in MEASURES[name].invariances:
            return False
        for key in (source, target):
            if key not in self._deficient:
                rows = of_order_one(self._rows[key])
                variances = np.linalg.eigvalsh(np.cov(rows, rowvar=False).reshape((rows.shape[1],) * 2))
                self._deficient[key] = bool(variances[0] <= _NO_DIRECTION * variances[-1])
        return self._deficient[source] or self._deficient[target]


def check_rows(name: str, source: np.ndarray, target: np.ndarray) -> str:
    """Return ``ok``, or ``degenerate`` for a value that any two spaces have; DataError if there can be none."""
    with_zero_rows = [side for side, rows in (("source", source), ("target", target)) if not rows.any(axis=1).all()]
    return _check_facts(name, source.shape, target.shape, with_zero_rows)


def _check_facts(name: str, source: tuple[int, ...], target: tuple[int, ...], with_zero_rows: Sequence[str]) -> str:
    """Return the code of `check_rows` for the shapes of two spaces, and which of them have rows of zeros."""
    measure, n_points = MEASURES[name], source[0]
    if n_points < measure.smallest_n:
        found = f"got {n_points} points, expected at least {measure.smallest_n} for {name}"
        raise DataError("too_few_points", f"{found}. Record more")
    is_limited = measure.is_quadratic and measure.matrix is None and not measure.has_value_for_many
    if is_limited and n_points > MOST_POINTS_SQUARED:
        found = f"got {n_points} points, expected at most {MOST_POINTS_SQUARED} for {name}"
        raise DataError("too_many_points", f"{found}. Set atlas.max_points, or drop the measure")
    if measure.needs_directions and with_zero_rows:
        found = f"got all-zero rows, which {name} finds no direction in. Drop the measure"
        raise DataError("zero_rows", found, with_zero_rows[0])
    return "degenerate" if n_points <= measure.n_factor * max(source[1], target[1]) else "ok"


@dataclass(frozen=True)
class RowScores:
    """Statistics of both directions of pairs; ``refused``: why a pair has none, by its index.

    ``localized``: of which pairs both spaces live on few points, so that chance is drawn.
    """

    values: Float[np.ndarray, "pairs 2 statistics"]
    refused: Mapping[int, DataError]
    localized: frozenset[int] = frozenset()


def score_rows(
    name: str,
    spaces: Activations,
    pairs: list[tuple[str, str]],
    resampling: Resampling,
    null: NullConfig,
) -> RowScores:
    """Return the statistics of each (source, target), all on the ids that ``resampling`` is of.

    What a measure cannot compute of one pair concerns that pair only.
    """
    measure = MEASURES[name]
    try:
        # What leaves the floating-point range ends as "undefined": a warning would not say whose it is.
        with np.errstate(all="ignore"):
            if measure.has_family:
                scores = _by_family(name, spaces, pairs, resampling, null)
            else:
                values, localized = score_by_pairs(measure, spaces, pairs, resampling, null)
                scores = RowScores(values, {}, localized)
        p_values = scores.values[:, :, P_VALUE]
        np.maximum(p_values, resampling.exchange.least_p, out=p_values)
        return scores
    except Exception as error:  # numerics of one pair, or another package's code
        if len(pairs) == 1:
            return RowScores(np.full((1, 2, len(STATISTICS)), np.nan), {0: _refusal(name, error)})
    # One half after the other, down to the pair at fault: of a block of 90,000 each alone would take hours.
    middle = len(pairs) // 2
    sides = [score_rows(name, spaces, some, resampling, null) for some in (pairs[:middle], pairs[middle:])]
    first, second = sides
    return RowScores(
        np.concatenate([side.values for side in sides]),
        {**first.refused, **{middle + index: error for index, error in second.refused.items()}},
        first.localized | {middle + index for index in second.localized},
    )


def _refusal(name: str, error: Exception) -> DataError:
    """Return why a pair has no value by a measure that stopped with an error."""
    if isinstance(error, DataError):
        return error
    return DataError("measure_failed", f"{name}: {type(error).__name__}: {error}")


def _by_family(
    name: str, spaces: Activations, pairs: list[tuple[str, str]], resampling: Resampling, null: NullConfig
) -> RowScores:
    """Return the statistics of pairs by a measure of which many are computed together."""
    measure = MEASURES[name]
    if measure.trace is not None:
        values, refusals = score_traces(measure, measure.trace, spaces.on_points, pairs, resampling)
        has_chance = has_moments(resampling.exchange)
    elif measure.lists is not None:
        values, refusals = score_lists(measure, measure.lists, spaces.on_points, pairs, resampling), {}
        has_chance = knows_chance(measure, resampling.exchange)
    elif measure.alignment is not None:
        values, refusals = score_alignments(measure, measure.alignment, spaces.on_points, pairs, resampling, null)
        is_drawn = measure.alignment.by_permutations is not None
        has_chance = null.n_permutations > 0 if is_drawn else not resampling.exchange.sets
    else:
        if measure.cross is not None:
            family = score_cross_covariances(measure, measure.cross, spaces.on_points, pairs, resampling)
        else:
            family = score_family(name, measure, spaces.on_points, pairs, resampling)
        values = np.repeat(family.values[:, None], 2, axis=1)
        refusals, has_chance = dict(family.refused), family.has_chance
    refused = {
        index: DataError(refusals[key].reason, str(refusals[key]), key)
        for index, pair in enumerate(pairs)
        for key in pair
        if key in refusals
    }
    usable = [index for index in range(len(pairs)) if index not in refused]
    unknown = np.zeros(len(pairs), dtype=bool)
    if has_chance:
        unknown[usable] = (np.isfinite(values[usable, :, 0]) & np.isnan(values[usable, :, P_VALUE])).any(axis=1)
    # Of lists of neighbors chance is not known for other reasons.
    concentrated = unknown & (measure.lists is None)
    drawn_for = [index for index in usable if not has_chance or unknown[index]] if null.n_permutations else []
    if drawn_for:
        whole = PreparedSpaces(measure, spaces)
        matrices = MatrixSpaces(measure, spaces.rows) if measure.matrix is not None else None
        for target, indices in by_target([pairs[index] for index in drawn_for]).items():
            places = [drawn_for[index] for index in indices]
            sources, exchange = [pairs[place][0] for place in places], resampling.exchange
            few = [
                bool(concentrated[place]) or whole.live_on_few_units(pairs[place][0], target, exchange)
                for place in places
            ]
            if matrices is not None and measure.is_quadratic:
                scores = values[places, 0, 0]
                of_matrices = drawn_chance(matrices, (sources, target), scores, few, exchange, null)
                values[places, :, OF_CHANCE] = of_matrices[:, None]
            else:
                drawn = by_permutations(whole, sources, target, resampling, null, few)
                values[places, :, OF_CHANCE] = drawn[:, :, 1:]
    return RowScores(values, refused, frozenset(np.flatnonzero(concentrated).tolist()))


def score_activations(
    job: BlockJob, names: Collection[str], ids: Mapping[str, np.ndarray], scores: BlockScores, resamplings: Resamplings
) -> None:
    """Fill in some measures of activations, and the reason codes of those that are not plainly ok."""
    columns = {name: sorted(job.atlas.measures).index(name) for name in names}
    apart = set() if job.correspondence.regime == "full" else _with_little_overlap(job, ids, scores)
    scores.codes.update({(index, columns[name]): "little_overlap" for index in apart for name in names})
    activations = read_spaces(job, {key for pair in job.pairs for key in pair})
    for indices, common, ids_key, spaces in _on_common_ids(job, ids, activations, scores.refusals.keys() | apart):
        checks = RowChecks(spaces)
        resampling = resamplings.of(common, ids_key)
        for name in names:
            usable = []
            for index in indices:
                first, second = job.pairs[index]
                try:
                    code = checks.code(name, first, second)
                except Exception as error:  # numerics of one pair: the others have their scores
                    scores.refuse(index, columns[name], _refusal(name, error))
                    continue
                usable.append(index)
                if code != "ok":
                    scores.codes[index, columns[name]] = code
            if usable:
                found = score_rows(name, spaces, [job.pairs[index] for index in usable], resampling, job.atlas.null)
                scores.values[usable, :, columns[name]] = found.values
                for index in found.localized:
                    scores.codes.setdefault((usable[index], columns[name]), "localized")
                for index, refusal in found.refused.items():
                    scores.refuse(usable[index], columns[name], refusal)


def _with_little_overlap(job: BlockJob, ids: Mapping[str, np.ndarray], scores: BlockScores) -> set[int]:
    """Return the pairs that a map can be fitted for, but whose common ids are too few to compare rows."""
    least = [job.atlas.min_overlap * min(len(ids[key]) for key in pair) for pair in job.pairs]
    return {index for index, needed in enumerate(least) if scores.n_common[index] < max(2, needed)}


def read_spaces(job: BlockJob, keys: Iterable[str]) -> Activations:
    """Return the activations of the block's spaces; their neighbors where graphs have the exact ones by cosine."""
    rows, neighbors = {}, {}
    for key in keys:
        rows[key] = kept_space((job.store.root, job.activations[key]), partial(_read_rows, job, key))
        if job.atlas.graph.has_cosine_neighbors and job.store.receipt("bases", key).facts["method"] == "exact":
            with job.store.open("bases", key) as unit:
                neighbors[key] = unit.read("neighbors")
    known = {key: nearest for key, nearest in neighbors.items() if nearest.shape[1] >= N_NEIGHBORS}
    intervals = job.atlas.intervals
    return Activations(rows, known, (job.store.root, job.exchangeability, intervals.n_splits, intervals.seed))


def _read_rows(job: BlockJob, key: str) -> Float[np.ndarray, "points features"]:
    with job.store.open("activations", job.activations[key]) as unit:
        rows = read_activations(unit)
    # Later blocks have the same array.
    rows.setflags(write=False)
    return rows


def _on_common_ids(
    job: BlockJob,
    ids: Mapping[str, np.ndarray],
    activations: Activations,
    refused: Collection[int],
) -> Iterator[tuple[list[int], np.ndarray, str | None, Activations]]:
    """Yield (numbers of pairs, their common ids, spaces on these): all pairs on equal ids at once, the others alone.

    With the ids goes their digest, where it is known.
    """
    alike: dict[str, list[int]] = {}
    ids_keys = {job.bases[place]: job.ids_key(job.bases[place]) for place in np.unique(job.sides)}
    for index, (first, second) in enumerate(job.pairs):
        if index in refused:
            continue
        if ids_keys[first] == ids_keys[second]:
            alike.setdefault(ids_keys[first], []).append(index)
            continue
        common, of_first, of_second = common_ids(ids[first], ids[second])
        yield [index], common, None, activations.among({first: of_first, second: of_second})
    for ids_key, indices in alike.items():
        keys = {key for index in indices for key in job.pairs[index]}
        yield indices, ids[job.pairs[indices[0]][0]], ids_key, activations.some(keys)
