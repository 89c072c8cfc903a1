"""Scores of maps between points that are all known by their ids: a product for a tile of pairs, chance, intervals."""

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from cachetools import LRUCache
from jaxtyping import Bool, Float, Int, Shaped

from lfm_tasks.config import NullConfig
from lfm_tasks.errors import DataError
from lfm_tasks.products import narrow_type
from lfm_tasks.spectral.bases.full_map import (
    DIAGNOSTICS,
    MAP_SCORES,
    TILE_SIDE,
    MapScore,
    commutativity_error,
    full_maps,
    orthogonality_error,
    permutations_per_product,
    permuted_maps,
    permuted_rows,
    side_by_side,
    whitened_rows,
)
from lfm_tasks.stages.bases.job import halves_key, read_halves
from lfm_tasks.stages.inventory.correspondence import Resampling, common_ids
from lfm_tasks.stages.scores.block import (
    OF_CHANCE,
    OF_HALVES,
    P_VALUE,
    STATISTICS,
    BlockJob,
    BlockScores,
    Resamplings,
    against_chance,
    against_moments,
    resampled,
)
from lfm_tasks.stages.scores.cache import kept
from lfm_tasks.stages.scores.point_pair_measures import without_tail
from lfm_tasks.statistics.exchange_moments import has_moments, sums_of_factor
from lfm_tasks.statistics.map_chance import are_localized, chance_of_lfm, localization, map_sums
from lfm_tasks.statistics.permutation_moments import (
    MomentArrays,
    are_concentrated,
    live_on_few_units,
    moments_of_aligned,
    permutation_profile,
)
from lfm_tasks.statistics.resampling import FEW_DRAWS, Exchange, are_far, can_stop, tail_of
from lfm_tasks.statistics.strata_moments import ExchangeSums, aligned_moments

# A pair whose bases are both localized is compared with at least so many permutations.
_FEWEST_PERMUTATIONS = 1000


@dataclass(frozen=True)
class BasisChance:
    """The contribution of a basis to chance levels: to `moments_of_pairs`, to `chance_of_lfm`; its `localization`."""

    overlap: Float[np.ndarray, " numbers"]
    lfm: Float[np.ndarray, " numbers"]
    localization: float


def basis_chance(rows: Float[np.ndarray, "points eigenpairs"], localization_of_all: float | None = None) -> BasisChance:
    """Return the sums of a basis; ``localization_of_all``: of the basis on more points than ``rows``."""
    functions = rows[:, 1:]
    known = localization(functions) if localization_of_all is None else localization_of_all
    return BasisChance(permutation_profile(functions).sums, map_sums(functions), known)


@dataclass(frozen=True)
class BasisRows:
    """A basis on a list of points, what its chance levels need, and the bases of the halves of the points.

    ``of_halves``: by split, each row from the basis of the half that its point is in, in single precision: they serve
    what a score deviates by. NaN where half of the points have no basis; None without intervals. ``address``: by what
    later blocks find what is computed from the basis; None: it is not kept.
    """

    eigenvalues: Float[np.ndarray, " eigenpairs"]
    rows: Float[np.ndarray, "points eigenpairs"]
    chance: BasisChance
    of_halves: Float[np.ndarray, "splits points eigenpairs"] | None = None
    address: tuple[Hashable, ...] | None = None

    def sums_in(self, exchange: Exchange) -> ExchangeSums:
        """Return the sums for the chance of ``overlap`` within strata or of groups; kept where there is an address."""
        functions = np.ascontiguousarray(self.rows[:, 1:])
        address = None if self.address is None else (*self.address, "overlap", exchange.digest)
        return kept(address, partial(sums_of_factor, functions, exchange))


@dataclass(frozen=True)
class TileSide:
    """Bases on the same points, side by side: one side of a tile of pairs; and those of each half of the points."""

    bases: tuple[BasisRows, ...]
    rows: Float[np.ndarray, "points columns"]
    halves: tuple[Float[np.ndarray, "points_of_half columns"], ...]
    n_spaces: int


def tile_side_of(
    bases: Sequence[BasisRows], halves: Bool[np.ndarray, "splits points"] | None, n_spaces: int = TILE_SIDE
) -> TileSide:
    """Return the side of a tile for ``n_spaces`` bases, some of which may be missing.

    ``halves``: by split, which points are in the second half; None: scores have no intervals.
    """
    by_half = list[Float[np.ndarray, "points_of_half columns"]]()
    if halves is not None and any(basis.of_halves is not None for basis in bases):
        for split, second in enumerate(halves):
            for inside in (np.flatnonzero(~second), np.flatnonzero(second)):
                by_half.append(side_by_side([_half(basis, split, inside) for basis in bases], n_spaces))
    rows = side_by_side([basis.rows for basis in bases], n_spaces)
    return TileSide(tuple(bases), rows, tuple(by_half), n_spaces)


def _half(
    basis: BasisRows, split: int, inside: Int[np.ndarray, " points_of_half"]
) -> Float[np.ndarray, "points_of_half eigenpairs"]:
    """Return the basis of half of the points, on these."""
    if basis.of_halves is None:
        return np.full((len(inside), basis.rows.shape[1]), np.nan, dtype=narrow_type())
    return np.asarray(basis.of_halves[split][inside], dtype=narrow_type())


@dataclass(frozen=True)
class TileScores:
    """Statistics and diagnostics of pairs of bases, in both directions; the map back is the transpose.

    ``localized``: pairs and measures that have a closed form of chance in groups or strata, which does not hold for
    them, since both bases live on few points or groups. Of free points the facts of the bases tell these.
    """

    values: Float[np.ndarray, "pairs 2 measures statistics"]
    diagnostics: Float[np.ndarray, "pairs 2 diagnostics"]
    localized: frozenset[tuple[int, int]]


def score_tile(
    sources: TileSide,
    targets: TileSide,
    pairs: Sequence[tuple[int, int]],
    measures: Sequence[str],
    null: NullConfig,
    exchange: Exchange,
) -> TileScores:
    """Return the scores of some ``pairs`` (places of source and target) of a tile; all have equally many points.

    Where all points are exchangeable, chance is known in closed form, whatever the number of permutations, except for
    the chance of ``lfm`` between two localized bases: it is drawn. In groups or strata all but that of ``overlap`` is.
    """
    from_source, to_target = (np.array(side) for side in zip(*pairs, strict=True))
    maps = full_maps(sources.rows, targets.rows, sources.n_spaces)[to_target, from_source]
    of_halves = _maps_of_halves(sources, targets, from_source, to_target)
    values = np.full((len(pairs), 2, len(measures), len(STATISTICS)), np.nan)
    for column, name in enumerate(measures):
        measure = MAP_SCORES[name]
        for direction, (scores, halves) in enumerate(
            zip(measure.of_both_ways(maps), _scores(measure, of_halves), strict=True)
        ):
            values[:, direction, column, 0] = scores
            values[:, direction, column, OF_HALVES] = resampled(scores, halves)
    bases = [(sources.bases[source], targets.bases[target]) for source, target in pairs]
    localized = _fill_chance(values, bases, measures, null, exchange)
    np.maximum(values[..., P_VALUE], exchange.least_p, out=values[..., P_VALUE])
    return TileScores(values, _diagnostics(maps, bases), localized)


def _maps_of_halves(
    sources: TileSide, targets: TileSide, from_source: Int[np.ndarray, " pairs"], to_target: Int[np.ndarray, " pairs"]
) -> Float[np.ndarray, "pairs halves target source"]:
    """Return the maps between the bases of each half of the points; none where either side has no halves."""
    if not sources.halves or not targets.halves:
        return np.empty((len(from_source), 0, 1, 1))
    by_half = [
        full_maps(source, target, sources.n_spaces)[to_target, from_source]
        for source, target in zip(sources.halves, targets.halves, strict=True)
    ]
    return np.stack(by_half, axis=1)


def _scores(
    measure: MapScore, maps: Float[np.ndarray, "pairs halves target source"]
) -> tuple[Float[np.ndarray, "pairs halves"], Float[np.ndarray, "pairs halves"]]:
    """Return the scores, both ways, of maps of which some may be NaN: of halves of points that have no basis."""
    if not maps.size:
        return np.empty(maps.shape[:2]), np.empty(maps.shape[:2])
    usable = np.isfinite(maps[..., -1, -1])
    if usable.all():
        there, back = measure.of_both_ways(maps)
        return there.astype(np.float64), back.astype(np.float64)
    both = np.full((2, *usable.shape), np.nan)
    both[:, usable] = measure.of_both_ways(maps[usable])
    return both[0], both[1]


def _diagnostics(
    maps: Float[np.ndarray, "pairs target source"], bases: Sequence[tuple[BasisRows, BasisRows]]
) -> Float[np.ndarray, "pairs 2 diagnostics"]:
    diagnostics = np.full((len(maps), 2, len(DIAGNOSTICS)), np.nan)
    sources, targets = (np.stack([basis.eigenvalues for basis in side]) for side in zip(*bases, strict=True))
    for direction, (directed, spectra) in enumerate(
        ((maps, (sources, targets)), (np.swapaxes(maps, 1, 2), (targets, sources)))
    ):
        diagnostics[:, direction, 0], diagnostics[:, direction, 1] = map_errors(directed, *spectra)
    return diagnostics


def map_errors(
    maps: Float[np.ndarray, "*stack target source"],
    source_eigenvalues: Float[np.ndarray, "*#stack source"],
    target_eigenvalues: Float[np.ndarray, "*#stack target"],
) -> tuple[Float[np.ndarray, "*stack"], Float[np.ndarray, "*stack"]]:
    """Return the first two of `DIAGNOSTICS`."""
    commutes = commutativity_error(maps, source_eigenvalues, target_eigenvalues)
    return orthogonality_error(maps), commutes


def _fill_chance(
    values: Float[np.ndarray, "pairs 2 measures statistics"],
    bases: Sequence[tuple[BasisRows, BasisRows]],
    measures: Sequence[str],
    null: NullConfig,
    exchange: Exchange,
) -> frozenset[tuple[int, int]]:
    """Fill in what scores are by chance: in closed form, or from permutations where there is none.

    Return the pairs and measures in groups or strata whose closed form does not hold.
    """
    n_points, n_permutations = exchange.n_points, null.n_permutations
    localized = frozenset[tuple[int, int]]()
    if exchange.sets:
        settled, localized = _fill_chance_in_sets(values, bases, measures, exchange)
        drawn = {
            (pair, name)
            for pair in range(len(bases))
            for column, name in enumerate(measures)
            if MAP_SCORES[name].has_null and (pair, column) not in settled
        }
    else:
        for column, name in enumerate(measures):
            for direction in range(2):
                directed = [(target, source) if direction else (source, target) for source, target in bases]
                moments = _moments(MAP_SCORES[name], directed, n_points)
                if moments is not None:
                    scores = values[:, direction, column, 0]
                    values[:, direction, column, OF_CHANCE] = against_moments(scores, moments)
        of_ratios = [name for name in measures if MAP_SCORES[name].is_energy_ratio]
        drawn = {(int(pair), name) for pair in np.flatnonzero(_are_localized(bases, n_points)) for name in of_ratios}
        n_permutations = max(n_permutations, _FEWEST_PERMUTATIONS)
    _fill_drawn_chance(
        values, bases, measures, drawn, null.model_copy(update={"n_permutations": n_permutations}), exchange
    )
    return localized


def _fill_drawn_chance(
    values: Float[np.ndarray, "pairs 2 measures statistics"],
    bases: Sequence[tuple[BasisRows, BasisRows]],
    measures: Sequence[str],
    drawn: Collection[tuple[int, str]],
    null: NullConfig,
    exchange: Exchange,
) -> None:
    """Fill in what scores are by permutations; of those in groups or strata that `are_far`, by the first few."""
    may_stop = bool(exchange.sets) and can_stop(exchange, null.n_permutations)
    n_first = FEW_DRAWS if may_stop else null.n_permutations
    pairs, found = sorted({pair for pair, _ in drawn}), dict[tuple[int, str], Float[np.ndarray, "2 draws"]]()
    for draws in (range(n_first), range(n_first, null.n_permutations)):
        for pair, maps in _null_maps(bases, pairs, null.seed, draws, exchange):
            for name in (name for name in measures if (pair, name) in drawn):
                more = np.stack(MAP_SCORES[name].of_both_ways(maps)).astype(np.float64)
                found[pair, name] = np.hstack([found[pair, name], more]) if (pair, name) in found else more
        if draws.start == 0 and may_stop:
            pairs = [pair for pair in pairs if not _needs_no_more(pair, values, bases, measures, found, exchange)]
    for (pair, name), chance in found.items():
        for direction, of_way in enumerate(chance):
            statistics = values[pair, direction, measures.index(name)]
            # Of free points only localized bases have drawn chance.
            is_counted = not exchange.sets or _live_on_few_units(bases[pair], exchange)
            tail = tail_of(len(of_way), null.n_permutations, on_few_units=is_counted)
            statistics[OF_CHANCE] = against_chance(float(statistics[0]), of_way, tail=tail, rounding=1e-6)


def _needs_no_more(
    pair: int,
    values: Float[np.ndarray, "pairs 2 measures statistics"],
    bases: Sequence[tuple[BasisRows, BasisRows]],
    measures: Sequence[str],
    found: Mapping[tuple[int, str], Float[np.ndarray, "2 draws"]],
    exchange: Exchange,
) -> bool:
    """Return whether all drawn scores of a pair are far beyond chance, and its spaces live on many units."""
    scored = [(values[pair, :, measures.index(name), 0], chance) for (of, name), chance in found.items() if of == pair]
    is_far = all(are_far(scores, chance.T).all() for scores, chance in scored)
    return is_far and not _live_on_few_units(bases[pair], exchange)


def _live_on_few_units(bases: tuple[BasisRows, BasisRows], exchange: Exchange) -> bool:
    source, target = (np.square(basis.rows[:, 1:]).sum(axis=1) for basis in bases)
    return live_on_few_units(source, target, exchange)


def _fill_chance_in_sets(
    values: Float[np.ndarray, "pairs 2 measures statistics"],
    bases: Sequence[tuple[BasisRows, BasisRows]],
    measures: Sequence[str],
    exchange: Exchange,
) -> tuple[frozenset[tuple[int, int]], frozenset[tuple[int, int]]]:
    """Fill in what scores are by chance within few strata, or in small groups, where that has a closed form.

    Return of which pairs and measures, and those of which it does not hold: their tails are not filled in.
    """
    of_trace = {
        column: scale for column, name in enumerate(measures) if (scale := MAP_SCORES[name].trace_scale) is not None
    }
    if not exchange.sets or not has_moments(exchange) or not of_trace:
        return frozenset(), frozenset()
    different = {id(basis): basis for pair in bases for basis in pair}
    sums = {key: basis.sums_in(exchange) for key, basis in different.items()}
    sources, targets = ([sums[id(pair[side])] for pair in bases] for side in range(2))
    traces = aligned_moments(sources, targets)
    n_source, n_target = (basis.rows.shape[1] for basis in bases[0])
    for column, scale in of_trace.items():
        for direction, sizes in enumerate([(n_source, n_target), (n_target, n_source)]):
            chance = against_moments(values[:, direction, column, 0], traces.scaled(1 / scale(*sizes)))
            values[:, direction, column, OF_CHANCE] = chance
    is_localized = _are_localized(bases, exchange.n_points)
    if exchange.equal_groups is not None:
        few = np.array([[sums[id(basis)].concentration for basis in pair] for pair in bases])
        is_localized |= are_concentrated(few[:, 0], few[:, 1], exchange.n_units, is_exact=False)
    # Their tails follow from permutations, or are not known.
    for column in of_trace:
        values[is_localized, :, column] = without_tail(values[is_localized, :, column])
    settled, localized = (
        frozenset((pair, column) for pair in np.flatnonzero(chosen).tolist() for column in of_trace)
        for chosen in (~is_localized, is_localized)
    )
    return settled, localized


def _moments(measure: MapScore, bases: Sequence[tuple[BasisRows, BasisRows]], n_points: int) -> MomentArrays | None:
    """Return the moments over all permutations of the score from each source to its target, where they are known."""
    n_source, n_target = (basis.rows.shape[1] for basis in bases[0])
    sources, targets = ([basis.chance for basis in side] for side in zip(*bases, strict=True))
    if measure.trace_scale is not None:
        of_sources, of_targets = (np.stack([one.overlap for one in side]) for side in (sources, targets))
        traces = moments_of_aligned(of_sources, of_targets, n_points)
        return traces.scaled(1 / measure.trace_scale(n_source, n_target))
    if measure.is_energy_ratio:
        of_sources, of_targets = (np.stack([one.lfm for one in side]) for side in (sources, targets))
        return chance_of_lfm(of_sources, of_targets, n_points, (n_source - 1, n_target - 1))
    return None


def _are_localized(bases: Sequence[tuple[BasisRows, BasisRows]], n_points: int) -> Bool[np.ndarray, " pairs"]:
    sources, targets = (np.array([basis.chance.localization for basis in side]) for side in zip(*bases, strict=True))
    return are_localized(sources, targets, np.array(n_points))


def _null_maps(
    bases: Sequence[tuple[BasisRows, BasisRows]],
    pairs: Sequence[int],
    seed: int,
    draws: range,
    exchange: Exchange,
) -> Iterator[tuple[int, Float[np.ndarray, "permutations target source"]]]:
    """Yield pairs with the maps of permuted rows of their targets, which are laid out once for all its sources.

    Permutation r of n points is the same for every pair: its generator counts (seed, r).
    """
    by_target: dict[int, list[int]] = {}
    for pair in pairs if draws else ():
        by_target.setdefault(id(bases[pair][1]), []).append(pair)
    for alike in by_target.values():
        target = bases[alike[0]][1].rows
        sources = [bases[pair][0].rows for pair in alike]
        maps = [np.empty((len(draws), target.shape[1], rows.shape[1]), dtype=np.float32) for rows in sources]
        step = permutations_per_product(len(target), target.shape[1])
        for start in range(0, len(draws), step):
            some = draws[start : start + step]
            wide = permuted_rows(target, np.stack([exchange.permutation(r, seed=seed) for r in some]))
            for rows, filled in zip(sources, maps, strict=True):
                filled[start : start + len(some)] = permuted_maps(rows, wide, len(some))
        yield from zip(alike, maps, strict=True)


# A basis is read by every block that it is part of, 17 times among 1,000 spaces, which takes as long as to score ten
# pairs, for 300 points and for 2,000: a block of 64 bases on a side finds all of them here.
LARGEST_BASE, MOST_BASES = 4 << 20, 320 << 20


@dataclass(frozen=True)
class CachedBasis:
    """A basis on its points, their ids, and the digest of these."""

    rows: BasisRows
    ids: Shaped[np.ndarray, " points"]
    ids_key: str

    @property
    def nbytes(self) -> int:
        """How much memory it takes: rows, those of halves, ids."""
        of_halves = 0 if self.rows.of_halves is None else self.rows.of_halves.nbytes
        return 64 * len(self.ids) + self.rows.rows.nbytes + of_halves


# Content addresses are part of the keys: no entry is ever out of date.
_BASES: LRUCache[Hashable, CachedBasis] = LRUCache(MOST_BASES, getsizeof=lambda basis: basis.nbytes)


def forget_bases() -> None:
    """Free the bases that are kept: later stages of a worker read other parts of them."""
    _BASES.clear()


def read_cached_basis(job: BlockJob, key: str) -> CachedBasis:
    """Return a basis, with those of halves of its points where scores have intervals; a large one is not kept."""
    of_halves = halves_key(key, job.atlas.intervals, job.exchangeability)
    address = job.store.root, key, of_halves
    basis: CachedBasis | None = _BASES.get(address)
    if basis is None:
        basis = _read_basis(job, key, of_halves)
        if basis.nbytes <= LARGEST_BASE:
            _BASES[address] = basis
    return basis


def _read_basis(job: BlockJob, key: str, of_halves: str | None) -> CachedBasis:
    with job.store.open("bases", key) as unit:
        eigenvalues, eigenvectors, *of_chance = unit.read_all("eigenvalues", "eigenvectors", "overlap_sums", "lfm_sums")
        localized = float(job.store.receipt("bases", key).facts["localization"])
        chance = BasisChance(of_chance[0], of_chance[1], localized)
    halves = None if of_halves is None else read_halves(job.store, of_halves)
    address = (job.store.root, key)
    return CachedBasis(BasisRows(eigenvalues, eigenvectors, chance, halves, address), job.ids(key), job.ids_key(key))


def score_full_maps(
    job: BlockJob, keys: list[str], scores: BlockScores, resamplings: Resamplings
) -> dict[str, np.ndarray]:
    """Fill in the measures of maps between points that are all known by their ids; return the ids of each basis."""
    measures = list(scores.of_maps)
    ids = {key: job.ids(key) for key in keys}
    unusable = dict[str, DataError]()
    for key, of_basis in ids.items():
        try:
            resamplings.of(of_basis, job.ids_key(key))
        except DataError as error:
            unusable[key] = error
    for index, pair in enumerate(job.pairs):
        for key in pair:
            if key in unusable:
                scores.refusals[index] = unusable[key]
    usable = [(index, *pair) for index, pair in enumerate(job.pairs) if index not in scores.refusals]
    alike = [one for one in usable if job.ids_key(one[1]) == job.ids_key(one[2])]
    for index, first_key, _ in alike:
        scores.n_common[index] = len(ids[first_key])
    unlike = sorted(set(usable) - set(alike))
    # Where only activations are compared, no map has a score or diagnostics. Bases are read where two spaces share some
    # points only: a pair for which these do not determine its map has no scores, as where a map is requested.
    needed = keys if measures else sorted({key for _, *pair in unlike for key in pair})
    cached = {key: read_cached_basis(job, key) if measures else _read_basis(job, key, None) for key in needed}
    for sources, targets, members in _tiles(alike, cached, resamplings) if measures else ():
        first = cached[job.pairs[members[0][0]][0]]
        exchange = resamplings.of(first.ids, first.ids_key).exchange
        places = [(source, target) for _, source, target in members]
        of_pairs = score_tile(sources, targets, places, measures, job.atlas.null, exchange)
        _take(scores, [index for index, *_ in members], of_pairs)
    for index, first_key, second_key in unlike:
        ends = [(cached[key].rows, cached[key].ids) for key in (first_key, second_key)]
        try:
            source, target, resampling = _on_common_points(ends, job.atlas.min_overlap, resamplings)
        except DataError as error:
            scores.refusals[index] = error
            continue
        exchange = resampling.exchange
        scores.n_common[index] = exchange.n_points
        if not measures:
            continue
        sides = [tile_side_of([basis], resampling.halves, n_spaces=1) for basis in (source, target)]
        of_pair = score_tile(sides[0], sides[1], [(0, 0)], measures, job.atlas.null, exchange)
        _take(scores, [index], of_pair)
    for index in scores.refusals:
        scores.n_common[index] = job.n_common(*job.pairs[index])
    return ids


def _take(scores: BlockScores, indices: list[int], of_pairs: TileScores) -> None:
    scores.diagnostics[indices] = of_pairs.diagnostics
    scores.values[np.ix_(indices, range(2), scores.columns)] = of_pairs.values
    scores.codes.update({(indices[pair], scores.columns[place]): "localized" for pair, place in of_pairs.localized})


def _tiles(
    pairs: Iterable[tuple[int, str, str]], bases: Mapping[str, CachedBasis], resamplings: Resamplings
) -> Iterator[tuple[TileSide, TileSide, list[tuple[int, int, int]]]]:
    """Yield the sides of each tile, and its pairs as (number, place of source, place of target).

    ``pairs``: (number, key of source, key of target), both on the same points.
    """
    keys: dict[str, list[str]] = {}
    for key in sorted({key for _, *pair in pairs for key in pair}):
        keys.setdefault(bases[key].ids_key, []).append(key)
    place = {key: divmod(index, TILE_SIDE) for of_list in keys.values() for index, key in enumerate(of_list)}
    tiles: dict[tuple[str, int, int], list[tuple[int, int, int]]] = {}
    for number, source, target in pairs:
        (row, of_source), (column, of_target) = place[source], place[target]
        tiles.setdefault((bases[source].ids_key, row, column), []).append((number, of_source, of_target))
    sides = {}
    for of_list, members in keys.items():
        halves = resamplings.of(bases[members[0]].ids, of_list).halves
        for start in range(0, len(members), TILE_SIDE):
            of_tile = [bases[key].rows for key in members[start : start + TILE_SIDE]]
            sides[of_list, start // TILE_SIDE] = tile_side_of(of_tile, halves)
    for (of_list, row, column), in_tile in tiles.items():
        yield sides[of_list, row], sides[of_list, column], in_tile


def _on_common_points(
    ends: list[tuple[BasisRows, np.ndarray]], min_overlap: float, resamplings: Resamplings
) -> tuple[BasisRows, BasisRows, Resampling]:
    """Return two bases, given with their ids, on the points that they share, and how these are resampled."""
    (source, source_ids), (target, target_ids) = ends
    rows, common = common_rows((source.rows, source_ids), (target.rows, target_ids), min_overlap)
    resampling = resamplings.of(common)
    first, second = (
        BasisRows(
            basis.eigenvalues[: shared.shape[1]],
            shared,
            basis_chance(shared, basis.chance.localization),
            _halves_on(basis, np.searchsorted(ids, common), shared.shape[1], resampling),
        )
        for (basis, ids), shared in zip(ends, rows, strict=True)
    )
    return first, second, resampling


def _halves_on(
    basis: BasisRows, kept: Int[np.ndarray, " points"], n_eigenpairs: int, resampling: Resampling
) -> Float[np.ndarray, "splits points eigenpairs"] | None:
    """Return the bases of halves on the ``kept`` points, orthonormal there; NaN where these do not determine one."""
    if basis.of_halves is None or resampling.halves is None:
        return None
    rows = basis.of_halves[:, kept, :n_eigenpairs]
    for split, second in enumerate(resampling.halves):
        for inside in (~second, second):
            try:
                rows[split, inside] = whitened_rows(rows[split, inside].astype(np.float64))
            except (DataError, np.linalg.LinAlgError):  # an interval is missing then, and the score is not
                rows[split, inside] = np.nan
    return rows


def common_rows(
    source: tuple[np.ndarray, np.ndarray], target: tuple[np.ndarray, np.ndarray], min_overlap: float
) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Return both bases, given as (rows, ids), on the ids that they share, orthonormal there; and these, in order.

    A space of fewer points may have fewer eigenpairs: they are compared with as many of the other space. With all of
    the other, pairs of 2,000 and 500 points scored .05 above what they score on equal numbers, so .02 below.
    """
    (first, first_ids), (second, second_ids) = source, target
    n_eigenpairs = min(first.shape[1], second.shape[1])
    first, second = first[:, :n_eigenpairs], second[:, :n_eigenpairs]
    common, of_first, of_second = common_ids(first_ids, second_ids)
    smaller = min(len(first_ids), len(second_ids))
    if not len(of_first):
        found = f"got no common ids among {smaller}, expected the same samples"
        raise DataError("no_overlap", f"{found}. Record both spaces on them")
    if len(of_first) < min_overlap * smaller:
        raise DataError(
            "little_overlap",
            f"got {len(of_first)} common ids of {smaller}, expected a share of {min_overlap} (atlas.min_overlap). "
            "Record both on the same samples, or lower it",
        )
    return (whitened_rows(first[of_first]), whitened_rows(second[of_second])), common
