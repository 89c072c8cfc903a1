"""The learning curve: the search quality of maps fitted on 10 pairs up to all, on queries that no map has seen."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # its parts are imported when they are first used
from jaxtyping import Float, Int, Shaped

from lfm_tasks.errors import DataError
from lfm_tasks.spectral.maps.descriptors import Anchors
from lfm_tasks.upgrades.adapters import BASELINES, Adapter, FunctionalMaps, KnownPairs, fit_adapters, unit_rows
from lfm_tasks.upgrades.confidence import confidence_of
from lfm_tasks.upgrades.ranking import Searched, nearest, searched

SIZES = (10, 20, 50, 100, 200, 500, 1000, 2500)
QUERIES, STORED = "queries", "stored"
DIRECTIONS = (QUERIES, STORED)
CHOSEN = "chosen"
# Fewer held-out queries say nothing, and a map needs pairs beside them.
_FEWEST_ROWS = 40
_MOST_QUERIES = 500
_SHARE_OF_QUERIES = 5
# A map that is not a baseline is taken only if it leads by more than this many standard errors.
_LEAD = 1.0
# Share of the stored inputs that pairs are drawn from; the others are what is carried, which no map has seen.
_SHARE_OF_PAIRS = 0.6
# Directions that differ by less, in every number, are the same but for rounding.
_SAME_DIRECTION = 1e-6
# Shares of the stored vectors that are re-embedded in place of carried ones, the doubtful first.
REEMBEDDED = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5)


@dataclass(frozen=True)
class CurveOptions:
    """How the curve is drawn.

    Parameters
    ----------
    sizes
        Numbers of pairs; the number of all pairs is added.
    k
        Of recall@k.
    n_draws
        How often the pairs are drawn; intervals are over draws and queries.
    n_rows
        Rows of each space that functional maps see.
    unpaired
        Which rows show the shape of the spaces beside the pairs: those of ``other`` inputs on either side, or of the
        ``same`` inputs, whose pairing no map is given.
    seed
        Draws queries and pairs.
    """

    sizes: Sequence[int] = SIZES
    k: int = 10
    n_draws: int = 3
    n_rows: int = 1000
    unpaired: str = "other"
    seed: int = 0


@dataclass(frozen=True)
class Cell:
    """The quality of one map with one number of pairs in one direction: recall@k and MRR, with 95 % margins."""

    direction: str
    n_pairs: int
    adapter: str
    recall: float
    recall_reach: float
    mrr: float
    mrr_reach: float


@dataclass(frozen=True)
class Evidence:
    """All of a comparison of an old and a new model.

    ``ceiling``: which share of the new model's first k the old model finds by itself. ``chosen``: how often each map
    was taken, by direction and number of pairs. ``groups``: recall of the chosen map of all pairs by label, the worst
    first. ``reembedded``: recall of the new queries when a share of the stored vectors, those of least confidence
    first, is embedded again; ``at_random``: the same share at random.
    """

    n_common: int
    n_queries: int
    k: int
    ceiling: float
    ceiling_reach: float
    cells: tuple[Cell, ...]
    chosen: Mapping[tuple[str, int], tuple[str, ...]]
    groups: tuple[tuple[str, str, int, float, float], ...]
    reembedded: tuple[tuple[float, float, float], ...]
    at_random: tuple[float, ...]

    def cell(self, direction: str, n_pairs: int, adapter: str) -> Cell | None:
        """Return one cell; None where the map could not be fitted."""
        wanted = (direction, n_pairs, adapter)
        return next((one for one in self.cells if (one.direction, one.n_pairs, one.adapter) == wanted), None)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The numbers of pairs."""
        return tuple(dict.fromkeys(cell.n_pairs for cell in self.cells))


Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class _Split:
    """Unit rows of both models, old and new, for queries and stored inputs, and what the old model's search finds.

    ``ceiling``: which share of each query's first k the two models have in common.
    """

    queries: tuple[np.ndarray, np.ndarray]
    stored: tuple[np.ndarray, np.ndarray]
    truth: np.ndarray
    ceiling: np.ndarray

    def draw(self, order: Int[np.ndarray, " stored"]) -> "_Draw":
        """Return the draw whose pairs are of the first part of the stored inputs in this order."""
        n_pool = int(_SHARE_OF_PAIRS * len(order))
        pool, carried = order[:n_pool], order[n_pool:]
        truth = nearest(self.queries[1], self.stored[1][carried], self.truth.shape[1])
        return _Draw(self, pool, carried, truth)


@dataclass(frozen=True)
class _Draw:
    """Which stored inputs pairs are drawn from and which are carried, and what new queries find among the latter.

    New queries search all stored inputs in the old index, and the carried ones in the new space.
    """

    split: _Split
    pool: np.ndarray
    carried_inputs: np.ndarray
    truth: np.ndarray

    def known(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows that pairs are drawn from."""
        return self.split.stored[0][self.pool], self.split.stored[1][self.pool]

    def carried(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows that no pair is of."""
        return self.split.stored[0][self.carried_inputs], self.split.stored[1][self.carried_inputs]


def upgrade_evidence(
    old: Float[np.ndarray, "points old_features"],
    new: Float[np.ndarray, "points new_features"],
    options: CurveOptions,
    labels: Shaped[np.ndarray, " points"] | None = None,
    report_progress: Progress = lambda stage, done, total: None,
) -> Evidence:
    """Return the quality of new queries on the old index, and of stored vectors carried into the new space.

    Rows are compared by their angle. Queries and stored inputs are drawn once; each draw takes pairs from another part
    of the stored inputs: no map has seen a query, nor a vector that is carried. The truth of ``queries`` is what the
    old model's own query finds in the old index, that of ``stored`` what the new model's query finds among re-embedded
    vectors.

    Raises
    ------
    DataError
        ``too_few_points`` below 40 common inputs; ``not_finite``, ``zero_rows``, ``constant`` and ``wrong_shape`` for
        rows without directions.
    """
    check_rows(old, new)
    order = np.random.default_rng(options.seed).permutation(len(old))
    n_queries = min(_MOST_QUERIES, len(old) // _SHARE_OF_QUERIES)
    k = min(options.k, (len(old) - n_queries) // 4)
    split = _split(unit_rows(old.astype(np.float64)), unit_rows(new.astype(np.float64)), order, n_queries, k)
    n_stored = len(old) - n_queries
    draws = [
        split.draw(np.random.default_rng([options.seed, draw]).permutation(n_stored)) for draw in range(options.n_draws)
    ]
    sizes = sizes_up_to(options.sizes, len(draws[0].pool))
    scores: dict[tuple[str, int, str], list[Searched]] = {}
    chosen: dict[tuple[str, int], list[str]] = {}
    last: dict[str, list[Adapter]] = {direction: [] for direction in DIRECTIONS}
    n_done, n_all = 0, len(DIRECTIONS) * len(sizes) * len(draws)
    for direction in DIRECTIONS:
        for size in sizes:
            for number, draw in enumerate(draws):
                known = _drawn(draw, direction, size, number, options)
                adapters, name = fit_and_choose(known, k, options.n_rows, seed=options.seed + number)
                for one, adapter in (*adapters.items(), (CHOSEN, adapters[name])):
                    scores.setdefault((direction, size, one), []).append(_search(adapter, draw, direction))
                chosen.setdefault((direction, size), []).append(name)
                if size == sizes[-1]:
                    last[direction].append(adapters[name])
                n_done += 1
                report_progress("pairs", n_done, n_all)
    # A map that some draw of the pairs cannot fit has no interval over draws.
    cells = tuple(_cell(*key, found) for key, found in scores.items() if len(found) == len(draws))
    by_label = () if labels is None else tuple(_by_label(labels[order[:n_queries]], scores, sizes[-1]))
    reembedded, at_random = _reembedded(draws, last, options.seed)
    return Evidence(
        len(old), n_queries, k, float(split.ceiling.mean()), _reach([split.ceiling]), cells,
        {key: tuple(names) for key, names in chosen.items()}, by_label, reembedded, at_random,
    )  # fmt: skip


def sizes_up_to(sizes: Sequence[int], n_pairs: int) -> tuple[int, ...]:
    """Return the numbers of pairs that there are, and the number of all of them."""
    return tuple(sorted({size for size in sizes if size < n_pairs} | {n_pairs}))


def check_rows(old: Float[np.ndarray, "points old_features"], new: Float[np.ndarray, "points new_features"]) -> None:
    """Raise DataError, as `upgrade_evidence` says, for rows that no curve can be drawn from."""
    if len(old) < _FEWEST_ROWS:
        problem = f"got {len(old)} common inputs, expected at least {_FEWEST_ROWS}"
        raise DataError("too_few_points", f"{problem}: some are held out as queries. Give more pairs.")
    _check(old, "old")
    _check(new, "new")


def _check(rows: np.ndarray, which: str) -> None:
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        raise DataError("not_finite", f"{which}: got NaN or infinite values in row {int(np.argmin(finite))}.")
    if rows.shape[1] < 2:
        problem = f"got vectors of {rows.shape[1]} number, expected 2 or more"
        raise DataError("wrong_shape", f"{which}: {problem}, since they are compared by their angle. Give embeddings.")
    zeros = np.flatnonzero(~rows.any(axis=1))
    if len(zeros):
        problem = f"got {len(zeros):,} rows of zeros, first row {zeros[0]}, expected vectors with a direction"
        raise DataError("zero_rows", f"{which}: {problem}. Leave these inputs out.")
    units = unit_rows(rows.astype(np.float64))
    if len(units) and np.abs(units - units[0]).max() < _SAME_DIRECTION:
        kind = "direction" if (rows != rows[0]).any() else "vector"
        raise DataError("constant", f"{which}: got one {kind} for every input, expected different ones. Look at it.")


def _split(old: np.ndarray, new: np.ndarray, order: np.ndarray, n_queries: int, k: int) -> _Split:
    queries = old[order[:n_queries]], new[order[:n_queries]]
    stored = old[order[n_queries:]], new[order[n_queries:]]
    own = [nearest(of_queries, of_stored, k) for of_queries, of_stored in zip(queries, stored, strict=True)]
    return _Split(queries, stored, own[0], _agreement(own[0], own[1]))


def _drawn(draw: _Draw, direction: str, size: int, number: int, options: CurveOptions) -> KnownPairs:
    """Return ``size`` pairs, and other rows of either side that functional maps may see."""
    seed = [options.seed, number, size]
    paired = np.random.default_rng(seed).permutation(draw.pool)[:size]
    stored = draw.split.stored
    rest = np.random.default_rng([*seed, 2]).permutation(np.setdiff1d(np.arange(len(stored[0])), paired))
    n_more = max(0, options.n_rows - size)
    first, second = (rest, rest) if options.unpaired == "same" else (rest[0::2], rest[1::2])
    source, target = (1, 0) if direction == QUERIES else (0, 1)
    rows = np.arange(size)
    # In another order on the other side: nothing but the pairs says what belongs together.
    second = np.random.default_rng([*seed, 1]).permutation(second[:n_more])
    return KnownPairs(
        stored[source][np.concatenate([paired, first[:n_more]])],
        stored[target][np.concatenate([paired, second])],
        Anchors(rows, rows),
    )


def fit_and_choose(known: KnownPairs, k: int, n_rows: int, *, seed: int = 0) -> tuple[dict[str, Adapter], str]:
    """Return every map of the pairs, and the name of the one that serves held-out pairs best.

    Each map is fitted again without some of the pairs, whose source rows it does not see at all; carried, these then
    have to find the true neighbors of their partners among all target rows. A map that is no baseline (`BASELINES`) is
    taken only if it is ahead of the best of these by more than a standard error of the difference.
    """
    maps = FunctionalMaps(known, n_rows)
    adapters = fit_adapters(known, maps)
    scores = [
        _held_out(known, FunctionalMaps(known.without(held_out), n_rows, maps), held_out, k)
        for held_out in _folds(len(known.pairs), seed)
    ]
    names = [name for name in adapters if all(name in fold for fold in scores)]
    if not names:
        return adapters, next(iter(adapters))
    by_name = {name: np.concatenate([fold[name] for fold in scores]) for name in names}
    means = {name: float(values.mean()) for name, values in by_name.items()}
    best = max((name for name in names if name in BASELINES), key=lambda name: means[name])
    others = [name for name in names if name not in BASELINES]
    if others:
        leader = max(others, key=lambda name: means[name])
        lead = by_name[leader] - by_name[best]
        error = float(lead.std(ddof=1)) / np.sqrt(len(lead)) if len(lead) > 1 else np.inf
        if lead.mean() > _LEAD * error:
            best = leader
    return adapters, best


def _folds(n_pairs: int, seed: int) -> Iterator[Int[np.ndarray, " held_out"]]:
    """Yield places of pairs to hold out: all of them in turn where there are few, one fifth where there are many."""
    order = np.random.default_rng(seed).permutation(n_pairs)
    folds = np.array_split(order, 4 if n_pairs < 50 else 5)
    yield from folds if n_pairs < 50 else folds[: 2 if n_pairs < 500 else 1]


def _held_out(known: KnownPairs, maps: FunctionalMaps, held_out: np.ndarray, k: int) -> dict[str, np.ndarray]:
    """Return for each map the recall of held-out pairs: their partners' neighbors among the target rows."""
    part = known.without(held_out)
    targets = unit_rows(known.target)
    rows, partners = known.source[known.pairs.source[held_out]], targets[known.pairs.target[held_out]]
    truth = nearest(partners, targets, min(k, len(targets) // 2))
    return {
        name: searched(unit_rows(adapter.carry(rows)), targets, truth).recall
        for name, adapter in fit_adapters(part, maps).items()
    }


def _search(adapter: Adapter, draw: _Draw, direction: str) -> Searched:
    queries, stored = draw.split.queries, draw.split.stored
    if direction == QUERIES:
        return searched(unit_rows(adapter.carry(queries[1])), stored[0], draw.split.truth)
    return searched(queries[1], unit_rows(adapter.carry(draw.carried()[0])), draw.truth)


def _cell(direction: str, size: int, adapter: str, found: Sequence[Searched]) -> Cell:
    recalls, ranks = [one.recall for one in found], [one.reciprocal_rank for one in found]
    return Cell(
        direction, size, adapter, float(np.mean(recalls)), _reach(recalls), float(np.mean(ranks)), _reach(ranks)
    )


def _reach(draws: Sequence[Float[np.ndarray, " queries"]]) -> float:
    """Return how far the 95 % interval of a mean over draws of pairs and over queries reaches to either side."""
    values = np.array(draws)
    over_queries = 1.96**2 * values.mean(axis=0).var(ddof=1) / values.shape[1]
    n_draws = len(values)
    if n_draws == 1:
        return float(np.sqrt(over_queries))
    student = scipy.special.stdtrit(n_draws - 1, 0.975)
    return float(np.sqrt(over_queries + student**2 * values.mean(axis=1).var(ddof=1) / n_draws))


def _agreement(first: Int[np.ndarray, "queries k"], second: Int[np.ndarray, "queries k"]) -> np.ndarray:
    return np.array([len(np.intersect1d(a, b)) / len(a) for a, b in zip(first, second, strict=True)])


def _by_label(
    labels: Shaped[np.ndarray, " queries"], scores: Mapping[tuple[str, int, str], Sequence[Searched]], size: int
) -> Iterator[tuple[str, str, int, float, float]]:
    """Yield direction, label, number of queries, recall of the chosen map and its reach; the worst label first."""
    for direction in DIRECTIONS:
        found = [one.recall for one in scores[direction, size, CHOSEN]]
        rows = []
        for label in np.unique(labels):
            of_label = [recall[labels == label] for recall in found]
            if len(of_label[0]) > 1:
                rows.append((direction, str(label), len(of_label[0]), float(np.mean(of_label)), _reach(of_label)))
        yield from sorted(rows, key=lambda row: row[3])


def _reembedded(
    draws: Sequence[_Draw], adapters: Mapping[str, Sequence[Adapter]], seed: int
) -> tuple[tuple[tuple[float, float, float], ...], tuple[float, ...]]:
    """Return the recall when shares of the stored vectors are embedded again, the doubtful first, and at random."""
    doubtful: list[list[np.ndarray]] = [[] for _ in REEMBEDDED]
    at_random: list[list[np.ndarray]] = [[] for _ in REEMBEDDED]
    for number, draw in enumerate(draws):
        old, new = draw.carried()
        carried = unit_rows(adapters[STORED][number].carry(old))
        returned = unit_rows(adapters[QUERIES][number].carry(carried))
        confidence = confidence_of(old, carried, returned, draw.known())
        by_confidence = np.argsort(confidence.value, kind="stable")
        drawn = np.random.default_rng([seed, number]).permutation(len(old))
        for order, found in ((by_confidence, doubtful), (drawn, at_random)):
            mixed = carried.copy()
            for place, share in enumerate(REEMBEDDED):
                again = order[: round(share * len(order))]
                mixed[again] = new[again]
                found[place].append(searched(draw.split.queries[1], mixed, draw.truth).recall)
    rows = tuple(
        (share, float(np.mean(found)), _reach(found)) for share, found in zip(REEMBEDDED, doubtful, strict=True)
    )
    return rows, tuple(float(np.mean(found)) for found in at_random)
