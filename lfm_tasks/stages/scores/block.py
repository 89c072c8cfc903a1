"""One block of pairs: its settings, its results, and the data that its parts share."""

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
from cachetools import LRUCache
from jaxtyping import Float, Int, Shaped

from lfm_tasks.config import AtlasConfig
from lfm_tasks.errors import RESERVATIONS, DataError
from lfm_tasks.measures.registry import MEASURES
from lfm_tasks.stages.inventory.correspondence import (
    Correspondence,
    ExchangeabilityGroups,
    Resampling,
    common_ids,
    resampling,
)
from lfm_tasks.stages.scores.pair_runs import n_pairs_of_runs, pairs_of_runs, runs_of_pairs
from lfm_tasks.statistics.far_tails import far_shares
from lfm_tasks.statistics.permutation_moments import MomentArrays
from lfm_tasks.statistics.resampling import (
    N_HALVES,
    Tail,
    calibrated,
    few_draws_shares,
    interval_reach,
    tail_p_value,
    upper_shares,
    values_below,
)
from lfm_tasks.stores.units.store import Receipt, UnitStore, ids_digest

# Bases of a side of a part, whose rows are in memory together: 32, or as many as their rows fit into; more of small
# ones, since a block of several parts reads and prepares its spaces for each of them.
PART_SIDE, _PART_SIDE_OF_LARGE = 64, 32
_PART_BYTES, _PART_BYTES_OF_LARGE = 512 << 20, 2 << 30
# Share of points with tied neighbors above which scores that depend on these have the status ``tied``.
MOST_TIED = 0.05
# Spread of chance, relative to a score, that is rounding of products in single precision.
_NO_CHANCE = 1e-6
_SCORE_AND_CHANCE = ("score", "null_mean", "null_q95", "p_value")
# Spaces on a side that are compared together by all pairs of points: sums over pairs take 50 bytes a pair.
_TILE_SIDE = 512


class ScoreSettings(NamedTuple):
    """Everything but the two bases that decides scores: the measures, in order, and a digest of all the rest.

    No measure changes what another one gives: scores under the same rest and more measures hold these, too.
    """

    rest: str
    measures: tuple[str, ...]

    @classmethod
    def of(cls, receipt: Receipt) -> "ScoreSettings":
        """Return the settings of a stored block; empty ones for a block that an older version made."""
        is_known = {"scored_by", "pair_runs"} <= receipt.facts.keys()
        rest, measures = receipt.facts["scored_by"] if is_known else ("", ())
        return cls(rest, tuple(measures))

    def hold(self, wanted: "ScoreSettings") -> bool:
        """Return whether scores under these settings hold all that is wanted."""
        return self.rest == wanted.rest and set(wanted.measures) <= set(self.measures)


@dataclass(frozen=True)
class BlockJob:
    """Pairs of ``bases`` (keys, in order) to score together, by their places, lower first; and the activations of each.

    ``runs``: the pairs, as `runs_of_pairs` has them. It and no array of pairs travels to workers.

    ``correspondence``: from what their maps are fitted. ``exchangeability``, ``labels``: the keys of the units that say
    how their rows are resampled and of which class they are, or "". ``part_side``, ``tile_side``: see the functions of
    these names. ``kept``: what other processes have computed of its spaces, by address in the cache.
    """

    store: UnitStore
    key: str
    settings: ScoreSettings
    bases: tuple[str, ...]
    runs: Int[np.ndarray, "runs 3"]
    atlas: AtlasConfig
    activations: Mapping[str, str]
    correspondence: Correspondence
    exchangeability: str
    labels: str
    part_side: int
    tile_side: int
    kept: Mapping[Hashable, Any] = field(default_factory=dict)

    @property
    def n_pairs(self) -> int:
        """How many pairs there are."""
        return n_pairs_of_runs(self.runs)

    @cached_property
    def sides(self) -> Int[np.ndarray, "pairs 2"]:
        """The places of both bases of each pair."""
        return pairs_of_runs(self.runs)

    @cached_property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """The keys of both bases of each pair."""
        return tuple((self.bases[first], self.bases[second]) for first, second in self.sides.tolist())

    def ids_key(self, key: str) -> str:
        """Return the digest of the ids of a basis."""
        return _ids_key(self.store, self.activations[key])

    def ids(self, key: str) -> Shaped[np.ndarray, " points"]:
        """Return the ids of a basis; bases on the same points share one array."""
        address = self.store.root, self.ids_key(key)
        ids: np.ndarray | None = _IDS.get(address)
        if ids is None:
            with self.store.open("bases", key) as unit:
                ids = unit.read("ids")
            ids.setflags(write=False)
            if _IDS.getsizeof(ids) <= _IDS.maxsize:
                _IDS[address] = ids
        return ids

    def n_common(self, first: str, second: str) -> int:
        """Return how many ids two bases share."""
        if self.ids_key(first) == self.ids_key(second):
            return len(self.ids(first))
        return len(common_ids(self.ids(first), self.ids(second))[0])

    def some(self, pairs: Sequence[int]) -> "BlockJob":
        """Return the job of some of the pairs, given by their indices."""
        return replace(self, runs=runs_of_pairs(self.sides[pairs]), kept={})


# Lists of ids that blocks share in one process, most often one; an id takes some 64 bytes. Content addresses are part
# of the keys: no entry is ever out of date.
_IDS: LRUCache[Hashable, np.ndarray] = LRUCache(64 << 20, getsizeof=lambda ids: 64 * len(ids))


@lru_cache(maxsize=1 << 16)
def _ids_key(store: UnitStore, activations: str) -> str:
    return str(store.receipt("activations", activations).facts["ids"])


def reads_activations(correspondence: Correspondence, measures: Collection[str]) -> bool:
    """Return whether scores need activations beside bases."""
    return correspondence.uses_zoomout or bool(MEASURES.keys() & set(measures))


def part_side(n_points: int, n_eigenpairs: int, n_features: int) -> int:
    """Return how many bases on a side are read together: their functions whole and by halves, twice.

    ``n_features``: of activations, which are prepared three times over; 0 where they are not read.
    """
    of_one = 8 * n_points * (4 * n_eigenpairs + 4 * n_features)
    return max(1, min(_PART_SIDE_OF_LARGE, _PART_BYTES_OF_LARGE // of_one), min(PART_SIDE, _PART_BYTES // of_one))


def tile_side(n_points: int, n_features: int) -> int:
    """Return how many spaces on a side are compared together by all pairs of points."""
    return max(1, min(_TILE_SIDE, _PART_BYTES_OF_LARGE // (2 * bytes_together(n_points, n_features))))


def table_bytes(n_points: int) -> int:
    """Return the bytes of the ranks of a space, at most: of few points they have finer bins."""
    return 1 << 19 if n_points >= 1024 else 7 << 18


def bytes_together(n_points: int, n_features: int, *, has_table: bool = True) -> int:
    """Return the bytes of a space that is compared together with others: its rows twice, row sums of sets, a tile.

    A radial kernel has a tile for all points and for two halves; ranks have a table. Tiles are as large for all, and as
    if products were in double precision, see `products.narrow_type`: how spaces are read is the same on all machines.
    """
    table = table_bytes(n_points) if has_table else 0
    return 16 * n_points * n_features + 8 * n_points * (1 + N_HALVES) + 3 * 8 * 128 * 256 + table


@dataclass(frozen=True)
class BlockScores:
    """The scores of the pairs of a block, filled in pair by pair; ``of_maps`` are the columns of the measures of maps.

    ``refusals``: why pairs have no scores at all; ``unmapped``: why no map could be fitted, other measures or not.
    ``codes``: why one measure of a pair has no value, or which reservation it has. ``causes``: the messages of these,
    by measure, reason and the space at fault, once each.
    """

    values: Float[np.ndarray, "pairs 2 measures statistics"]
    diagnostics: Float[np.ndarray, "pairs 2 diagnostics"]
    n_common: Int[np.ndarray, " pairs"]
    of_maps: Mapping[str, int]
    maps: dict[tuple[int, int], Float[np.ndarray, "target source"]] = field(default_factory=dict)
    refusals: dict[int, DataError] = field(default_factory=dict)
    unmapped: dict[int, DataError] = field(default_factory=dict)
    codes: dict[tuple[int, int], str] = field(default_factory=dict)
    causes: dict[tuple[int, str, str], str] = field(default_factory=dict)

    @property
    def columns(self) -> list[int]:
        """The columns of the measures of maps."""
        return list(self.of_maps.values())

    def some(self, pairs: Sequence[int]) -> "BlockScores":
        """Return a copy of the scores of some of the pairs, given by their indices."""
        place = {pair: row for row, pair in enumerate(pairs)}
        return BlockScores(
            self.values[pairs],
            self.diagnostics[pairs],
            self.n_common[pairs],
            self.of_maps,
            {(place[pair], side): found for (pair, side), found in self.maps.items() if pair in place},
            {place[pair]: error for pair, error in self.refusals.items() if pair in place},
            {place[pair]: error for pair, error in self.unmapped.items() if pair in place},
            {(place[pair], column): reason for (pair, column), reason in self.codes.items() if pair in place},
            dict(self.causes),
        )

    def take(self, pairs: Sequence[int], part: "BlockScores") -> None:
        """Put the scores of some of the pairs, given by their indices, in their places."""
        self.values[pairs], self.diagnostics[pairs] = part.values, part.diagnostics
        self.n_common[pairs] = part.n_common
        self.maps.update(
            {(pairs[row], direction): functional_map for (row, direction), functional_map in part.maps.items()}
        )
        self.refusals.update({pairs[row]: error for row, error in part.refusals.items()})
        self.unmapped.update({pairs[row]: error for row, error in part.unmapped.items()})
        self.codes.update({(pairs[row], column): reason for (row, column), reason in part.codes.items()})
        self.causes.update(part.causes)

    def refuse(self, pair: int, column: int, error: DataError) -> None:
        """Note why one measure of a pair has no value."""
        self.codes[pair, column] = error.reason
        self.causes.setdefault((column, error.reason, error.space), str(error))

    def settle(self) -> None:
        """Give each score that is no number, or the same for all permutations of the points, the code that says so."""
        scores, mean, quantile, p_value = (self.values[..., STATISTICS.index(name)] for name in _SCORE_AND_CHANCE)
        refused = np.zeros((len(self.values), scores.shape[2]), dtype=bool)
        refused[list(self.refusals)] = True
        refused[np.ix_(list(self.unmapped), self.columns)] = True
        undefined = ~np.isfinite(scores).all(axis=1) & ~refused
        # Chance is one number, and p is 1. Where it is not known comparisons are false.
        largest = np.fmax(np.abs(scores), np.abs(mean))
        is_fixed = (np.abs(quantile - mean) <= _NO_CHANCE * largest) & (p_value >= 1)
        saturated = is_fixed.all(axis=1) & ~refused & ~undefined
        for pair, column in np.argwhere(undefined).tolist():
            known = self.codes.get((pair, column))
            if known is None or known in RESERVATIONS:  # there is no value that a reservation could be about
                self.codes[pair, column] = "undefined"
        for pair, column in np.argwhere(saturated).tolist():
            self.codes.setdefault((pair, column), "saturated")


class Resamplings:
    """The resampling of each list of ids in a block, computed once."""

    def __init__(self, groups: ExchangeabilityGroups | None, atlas: AtlasConfig) -> None:
        self._groups, self._atlas = groups, atlas
        self._known: dict[str, Resampling] = {}

    def of(self, ids: np.ndarray, ids_key: str | None = None) -> Resampling:
        """Return the resampling of these ids; ``ids_key``: their digest, where it is known."""
        key = ids_key or ids_digest(ids)
        if key not in self._known:
            self._known[key] = resampling(ids, self._groups, self._atlas)
        return self._known[key]


# The score from each half of the points alone, split by split.
HALVES = tuple(f"half_{number}" for number in range(1, N_HALVES + 1))
# What a block stores of each score.
STATISTICS = ("score", "null_mean", "null_q95", "calibrated", "p_value", "ci_low", "ci_high", *HALVES)
# The places of chance, and of what halves tell, among them.
OF_CHANCE, OF_HALVES = slice(1, 5), slice(5, 7 + N_HALVES)
P_VALUE = STATISTICS.index("p_value")


def against_chance(
    score: float,
    chance: Float[np.ndarray, " permutations"],
    *,
    is_distance: bool = False,
    tail: Tail = "curve",
    rounding: float = 1e-9,
    least_p: float = 0.0,
) -> tuple[float, float, float, float]:
    """Return null mean, the quantile that 1 in 20 permutations beats, calibrated score, p-value; NaN without chance.

    Parameters
    ----------
    tail
        See `tail_p_value`.
    rounding
        Permutations this near the score reach it: 1e-6 for those in single precision.
    least_p
        One over the number of permutations that there are, see `Exchange.least_p`.
    """
    if not len(chance) or not np.isfinite(score) or not np.isfinite(chance).all():
        return (np.nan,) * 4
    mean = float(chance.mean())
    edge = float(np.quantile(chance, 0.05 if is_distance else 0.95))
    reached = np.where(np.abs(chance - score) <= rounding * max(1.0, abs(score)), score, chance)
    p = max(tail_p_value(score, reached, is_distance=is_distance, tail=tail), least_p)
    return mean, edge, calibrated(score, mean, best=0.0 if is_distance else 1.0), p


# Level of chance, relative to how far its quantile is from it, that is rounding.
_NO_MEAN = 1e-12


def against_moments(
    scores: Float[np.ndarray, " pairs"],
    moments: MomentArrays,
    *,
    statistic: Float[np.ndarray, " pairs"] | None = None,
    of_statistic: Callable[[Float[np.ndarray, " pairs"]], Float[np.ndarray, " pairs"]] | None = None,
    best: float = 1.0,
) -> Float[np.ndarray, "pairs 4"]:
    """Return `against_chance` of scores whose chance level has known moments; NaN without a score.

    Where all permutations score the same but for rounding, all reach the score.

    Parameters
    ----------
    moments
        Of the score, or of the ``statistic`` that it is computed from by ``of_statistic``, monotone.
    best
        The score of two spaces that are alike: 0 for a distance.
    """
    mean, deviation, skewness = moments.mean, moments.deviation, moments.skewness
    known = scores if statistic is None else statistic
    edge = mean + deviation * values_below(0.95, skewness)
    statistics = np.empty((len(scores), 4))
    if of_statistic is None:
        statistics[:, 0], statistics[:, 1] = mean, edge
    else:
        # Two values with these weights have the same three moments: exact for polynomials of third degree.
        reach = np.sqrt(skewness**2 + 4)
        above, below = (skewness + reach) / 2, (skewness - reach) / 2
        weight = -below / reach
        statistics[:, 0] = weight * of_statistic(mean + deviation * above)
        statistics[:, 0] += (1 - weight) * of_statistic(mean + deviation * below)
        statistics[:, 1] = of_statistic(edge)
    # The mean of unbiased measures is 0 but for rounding.
    is_rounding = np.abs(statistics[:, 0]) <= _NO_MEAN * np.abs(statistics[:, 1] - statistics[:, 0])
    statistics[is_rounding, 0] = 0
    span = best - statistics[:, 0]
    is_open = np.abs(span) > 1e-12
    statistics[:, 2] = np.where(is_open, (scores - statistics[:, 0]) / np.where(is_open, span, 1.0), np.nan)
    is_fixed = deviation <= 1e-9 * np.maximum(1.0, np.abs(mean))
    above = (known - mean) / np.where(is_fixed, 1.0, deviation)
    tails = upper_shares(above, skewness)
    if moments.n_draws is not None:
        few = moments.n_draws > 0
        tails[few] = few_draws_shares(above[few], moments.n_draws[few])
    elif moments.spectra is not None:
        tails = far_shares(above, np.where(is_fixed, 0.0, deviation), tails, moments.spectra)
    statistics[:, 3] = np.maximum(np.where(is_fixed, 1.0, tails), np.finfo(np.float64).tiny)
    statistics[np.isnan(scores)] = np.nan
    return statistics


# Values that differ by rounding only; halves are in single precision.
_SAME = 1e-6


def resampled(
    scores: Float[np.ndarray, "*pairs"],
    halves: Float[np.ndarray, "*pairs halves"],
    value_range: tuple[float, float] = (0.0, 1.0),
) -> Float[np.ndarray, "*pairs 6"]:
    """Return the 95 % interval, inside the measure's range, and the score of each half; NaN without them."""
    statistics = np.full((*scores.shape, 2 + N_HALVES), np.nan)
    if not halves.shape[-1]:
        return statistics
    reach = interval_reach(halves)
    # A score may leave its range by rounding: the interval holds it all the same.
    statistics[..., 0] = np.minimum(np.maximum(scores - reach, value_range[0]), scores)
    statistics[..., 1] = np.maximum(np.minimum(scores + reach, value_range[1]), scores)
    # Halves that all have one value, which is not that of all points, have nothing to say of how it varies.
    is_stuck = (reach == 0) & (np.abs(halves[..., 0] - scores) > _SAME)
    statistics[~(np.isfinite(scores) & np.isfinite(reach)) | is_stuck, :2] = np.nan
    statistics[..., 2:] = halves
    return statistics
