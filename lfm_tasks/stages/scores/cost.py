"""The cost of blocks of pairs: operations, memory, bytes written."""

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil

from lfm_tasks.config import AtlasConfig
from lfm_tasks.measures.cross_covariances import MOST_ROTATIONS, most_rotations
from lfm_tasks.measures.diffusion import LEADING
from lfm_tasks.measures.measure import Measure
from lfm_tasks.measures.point_sets import KeptTiles
from lfm_tasks.measures.registry import MEASURES
from lfm_tasks.measures.traces import trace_kind
from lfm_tasks.runtime.load import ARRAY_BYTES, MIB, UNIT_BYTES, Load, SpaceSize, total_work
from lfm_tasks.spectral.bases.automatic import BasisNumbers, Count, basis_numbers
from lfm_tasks.spectral.bases.full_map import DIAGNOSTICS, MAP_SCORES
from lfm_tasks.stages.inventory.requests import PairRequest
from lfm_tasks.stages.scores.alignment_measures import MOST_PERMUTED
from lfm_tasks.stages.scores.block import STATISTICS, bytes_together, part_side, table_bytes, tile_side
from lfm_tasks.stages.scores.cache import LARGEST_SPACE, MOST_BYTES, MOST_SPACES
from lfm_tasks.stages.scores.full_maps import LARGEST_BASE, MOST_BASES
from lfm_tasks.stages.scores.measure_cost import (
    SHARE_OF_NEW,
    SPACES_OF_MANY_BLOCKS,
    drawn_work,
    listed_work,
    measure_work,
    n_read,
)
from lfm_tasks.stages.scores.pairwise_measures import MOST_POINTS_SQUARED
from lfm_tasks.stages.scores.point_pair_measures import MOST_PREPARED
from lfm_tasks.stages.scores.trace_measures import trace_bytes
from lfm_tasks.statistics.group_moments import MOST_IN_GROUP
from lfm_tasks.statistics.resampling import FEW_DRAWS
from lfm_tasks.statistics.strata_moments import MOST_CUBED

# Calls around what is counted: opening a basis; a pair's maps, statistics, diagnostics. Products, over those of one
# assignment of all samples, of a map that grows.
_CALLS_A_BASIS, _CALLS_A_PAIR, _GROWN = 200, 200, 120


# Seconds until a worker has the modules and compiled loops of pairs, and those of measures of activations.
_IMPORTS, _IMPORTS_OF_MEASURES = 0.15, 0.6
# Sums of a space for chance in groups of 4, by one measure.
_SUMS_BYTES = 210_000
# Of a point: lists of ten to fifteen neighbors and their weights, of all points and of halves.
_LIST_BYTES = 600
# Of a neighbor, its place, weight and flag, twice.
_WEIGHED_BYTES = 28


@dataclass(frozen=True)
class PairWork:
    """How pairs are scored, as far as it costs time: measures, permutations, splits; what fitted maps are fitted by."""

    measures: Sequence[str]
    n_permutations: int
    n_splits: int
    n_eigenpairs: Count
    n_neighbors: Count = 50
    regime: str = "full"
    refine: str = "none"
    n_samples: int = 1000
    n_refined: int = 0
    is_grouped: bool = False
    has_moments: bool = True


def pair_work(atlas: AtlasConfig, request: PairRequest, *, is_grouped: bool, has_moments: bool) -> PairWork:
    """Return how requested pairs are scored.

    ``is_grouped``: of points in groups or strata; ``has_moments``: for which chance is in closed form where one is
    known.
    """
    maps = request.correspondence
    return PairWork(
        sorted(request.measures), atlas.null.n_permutations, atlas.intervals.n_splits, atlas.n_eigenpairs,
        atlas.graph.n_neighbors, maps.regime, maps.refine, maps.n_samples, atlas.null.n_refined,
        is_grouped, has_moments,
    )  # fmt: skip


@dataclass(frozen=True)
class _Block:
    """One block of pairs: the sizes of all bases that it reads, its pairs, how they are scored."""

    bases: Sequence[SpaceSize]
    n_pairs: int
    pair: PairWork

    @cached_property
    def n_points(self) -> int:
        return max(size.n_points for size in self.bases)

    @cached_property
    def numbers(self) -> BasisNumbers:
        is_fitted = self.pair.regime != "full"
        return basis_numbers(self.n_points, self.pair.n_neighbors, self.pair.n_eigenpairs, is_fitted=is_fitted)

    @cached_property
    def n_features(self) -> int:
        return max(size.n_features for size in self.bases)

    @cached_property
    def n_halves(self) -> int:
        """Halves of the points; 0 without intervals."""
        return 2 * self.pair.n_splits

    @cached_property
    def of_maps(self) -> list[str]:
        return [name for name in self.pair.measures if name in MAP_SCORES]

    @cached_property
    def of_rows(self) -> list[str]:
        """Measures that are computed pair by pair."""
        return [name for name in self.pair.measures if name in MEASURES and not MEASURES[name].compares_point_pairs]

    @cached_property
    def of_point_pairs(self) -> list[str]:
        return [name for name in self.pair.measures if name in MEASURES and MEASURES[name].compares_point_pairs]

    @property
    def is_fitted(self) -> bool:
        return bool(self.of_maps) and self.pair.regime != "full"

    @property
    def n_drawn(self) -> int:
        """Maps of permuted rows, of all pairs."""
        is_drawn = self.pair.is_grouped and any(MAP_SCORES[name].has_null for name in self.of_maps)
        return self.n_pairs * self.pair.n_permutations if is_drawn else 0

    @cached_property
    def side(self) -> int:
        """The most bases on a side of a part."""
        reads_rows = self.is_fitted or bool(self.of_rows)
        return part_side(self.n_points, self.numbers.n_eigenpairs, self.n_features if reads_rows else 0)

    @cached_property
    def held(self) -> list[SpaceSize]:
        """The bases that are in memory together, at most."""
        n_modes = self.numbers.n_eigenpairs
        return sorted(self.bases, key=lambda size: size.n_points * (size.n_features + n_modes))[-2 * self.side :]

    @property
    def rows_bytes(self) -> int:
        """The activations that are in memory together, as they are read."""
        return sum(size.n_points * size.n_features * max(4, size.itemsize) for size in self.held)


def block_load(bases: Sequence[SpaceSize], n_pairs: int, pair: PairWork) -> Load:
    """Return the cost of one block of pairs; ``bases`` are all that it reads."""
    block = _Block(bases, n_pairs, pair)
    work = {"tasks": 1.0, "units": 1.0, "calls": float(_CALLS_A_BASIS * len(bases))}
    work = total_work(work, _fitted_maps_work(block) if block.is_fitted else _full_maps_work(block))
    for name in _unlike([*block.of_rows, *block.of_point_pairs]):
        size, counts = (block.n_points, block.n_features), (len(bases), n_pairs)
        # Chance of powers of distances is drawn within strata; groups are not distinguished here, and count as these.
        is_closed = not pair.is_grouped and MEASURES[name].trace_chance is not None
        n_permutations = 0 if is_closed else pair.n_permutations
        form = MEASURES[name].lists
        if form is not None and (pair.is_grouped or block.n_points < form.fewest_points):
            work = total_work(work, listed_work(size, counts, pair.n_permutations))
        if not MEASURES[name].compares_point_pairs:
            counts = n_read(len(bases), n_pairs, block.side), n_pairs
        work = total_work(work, measure_work(name, size, counts, n_permutations, block.n_halves))
        if not pair.has_moments and MEASURES[name].matrix is not None:
            work = total_work(work, drawn_work(MEASURES[name], size, counts, pair.n_permutations))
        elif pair.is_grouped and _has_sums(MEASURES[name]):
            work = total_work(work, _sums_work(block))
    if pair.is_grouped and pair.has_moments and any(MAP_SCORES[name].trace_scale is not None for name in block.of_maps):
        work = total_work(work, _sums_work(block))
    peak = _fitted_maps_bytes(block) if block.is_fitted else _full_maps_bytes(block)
    peak += _measures_bytes(block) if block.of_rows else 0
    peak = max(peak, _together_bytes(block)) + _lists_bytes(block)
    # Modules, and Python's own objects. Sums of singular values are kept for other measures of the same ones, those of
    # earlier blocks, too: the cache counts 4,096 bytes for each pair, and they take half of that.
    of_pair = 2000 + 600 * len(pair.measures)
    n_kept = 16 * n_pairs if any(MEASURES[name].cross is not None for name in block.of_rows) else 0
    peak += 25 * MIB + of_pair * n_pairs + min(MOST_BYTES, 4096 * n_kept) // 2
    largest = max(bases, key=lambda size: size.n_points)
    starting = _IMPORTS + (_IMPORTS_OF_MEASURES if block.of_rows or block.of_point_pairs else 0.0)
    return Load(1, work, int(peak), largest.name, _written_bytes(block), starting_seconds=starting)


def _sums_work(block: _Block) -> dict[str, float]:
    """Return the amounts of the sums for chance in strata or groups of all bases, by one measure.

    Entries of a matrix, made and looked at some times; in double precision products of 768 points, once for each point
    of a group.
    """
    n, n_bases = block.n_points, len(block.bases)
    n_some = min(n, MOST_CUBED)
    return {
        "calls": 2000.0 * n_bases,
        "products": 2.0 * n_bases * (MOST_IN_GROUP * n_some**3 + n * n * min(n, block.n_features)),
        "entries": 20.0 * n_bases * n * n,
    }


def _has_sums(measure: Measure) -> bool:
    """Return whether chance in strata or groups follows from sums of each space."""
    return any(form is not None for form in (measure.matrix, measure.trace, measure.trace_chance))


def _unlike(names: Sequence[str]) -> list[str]:
    """Return the measures without those that share the singular values of one before."""
    by_kind: dict[Hashable, str] = {}
    for name in names:
        form = MEASURES[name].cross
        by_kind.setdefault(name if form is None else form.stretch, name)
    return list(by_kind.values())


def _fitted_maps_work(block: _Block) -> dict[str, float]:
    """Return the amounts of maps that are fitted from anchors, labels or nothing."""
    pair, n_bases, n, n_modes = block.pair, len(block.bases), block.n_points, block.numbers.n_eigenpairs
    n_fits = 2 * block.n_pairs * (1 + pair.n_refined)
    starts = 3 if pair.regime == "anchors" else 1
    if pair.refine == "zoomout":
        # Rounds of assignments among samples: each of as many products as there are rounds until all modes are in.
        return {
            "calls": 1000.0 * n_fits,
            "products": _GROWN * n_fits * starts * min(n, pair.n_samples) ** 2 * n_modes,
            "bytes": n_bases * n * (4 * block.n_features + 4 * block.numbers.n_neighbors + 8 * n_modes),
        }
    return {
        "calls": 4.0 * n_fits,
        # In double precision, by compiled loops over small matrices.
        "products": 9.0 * n_fits * n_modes**3,
        "decompositions": 9.0 * n_bases * n_modes**3,
        "bytes": 8.0 * n_bases * n * n_modes,
    }


def _fitted_maps_bytes(block: _Block) -> int:
    n_neighbors, n_modes = block.numbers
    return block.rows_bytes + sum(size.n_points * (80 * n_neighbors + 24 * n_modes) for size in block.held)


def _full_maps_work(block: _Block) -> dict[str, float]:
    """Return the amounts of maps between points that are all known by their ids, and of their chance."""
    n_pairs, n, n_modes = block.n_pairs, block.n_points, block.numbers.n_eigenpairs
    if not block.of_maps:  # then of spaces on the same points one list of ids is read, and no map is computed
        return {"calls": float(_CALLS_A_PAIR * n_pairs), "bytes": 64.0 * n}
    n_maps = 1 + block.n_halves
    return {
        "calls": _CALLS_A_PAIR * n_pairs + 25 * block.n_drawn,
        # In double precision; halves in single precision, of half the points each. Small matrices at half the rate.
        "products": n_pairs * n * n_modes**2 * (2 + block.n_halves / 2)
        + n_pairs * n_maps * 4 * n_modes**3
        + 1.5 * block.n_drawn * n * n_modes**2,
        "bytes": 8 * _read_share(block) * len(block.bases) * n * n_modes * (1 + block.pair.n_splits / 2),
    }


def _full_maps_bytes(block: _Block) -> int:
    """Return the bytes of bases, those of halves, and chance: permuted rows, float32, and indices."""
    n, n_modes, n_bases = block.n_points, block.numbers.n_eigenpairs, len(block.bases)
    # Two splits in single precision; all of it once more where bases stand side by side.
    copies = 2 if block.n_halves else 1
    if not block.of_maps:  # then bases are read of spaces that share some of their points only
        return sum(size.n_points * (n_modes * 8 + 64) for size in block.held)
    # Small bases of earlier blocks are kept.
    kept = _kept_bytes(block)
    peak = min(MOST_BASES, _n_bases_of_all(n_bases) * kept) if kept <= LARGEST_BASE else 0
    peak += sum(size.n_points * (n_modes * 16 * copies + 16) for size in block.held) + n * (n_modes * 16 + 200)
    # Maps of a tile on each half, while they are made.
    peak += 4 * 4 * 16 * (block.n_halves + 2) * n_modes**2
    peak += 3 * max(32 * MIB, 4 * n * n_modes) // 2 if block.n_drawn else 0
    return peak + 4 * block.n_drawn * n_modes**2 // max(1, ceil(block.n_pairs / 16))


def _kept_bytes(block: _Block) -> int:
    """Return the bytes of a basis that is kept for later blocks: its rows and those of halves, and ids."""
    return block.n_points * (block.numbers.n_eigenpairs * 8 * (2 if block.n_halves else 1) + 64)


def _n_bases_of_all(n_bases: int) -> int:
    """Return how many bases there are in all, at most, if a block of quick pairs has so many on both sides."""
    return 8 * n_bases if n_bases >= SPACES_OF_MANY_BLOCKS else n_bases


def _read_share(block: _Block) -> float:
    """Return the share of a block's bases that a process has not kept from blocks before."""
    kept, n_all = _kept_bytes(block), _n_bases_of_all(len(block.bases))
    if kept > LARGEST_BASE or n_all == len(block.bases):
        return 1.0
    # Once, or one of the sides of each block again.
    return SHARE_OF_NEW if n_all * kept <= MOST_BASES else 0.5


def _measures_bytes(block: _Block) -> int:
    """Return the bytes of activations and of what the costliest measure of them prepares."""
    n, held = block.n_points, block.held
    quadratic = 2 * 8 * n * n * 2 + min(MOST_PREPARED, 8 * n * n * len(held))
    linear = 3 * 8 * sum(size.n_points * size.n_features for size in held)
    # Leading eigenvectors, twice as many while they are looked for, and a block of distances.
    leading = min(MOST_PREPARED, 8 * n * LEADING * len(held)) + 8 * n * (5 * 2 * LEADING + 2 * 512)
    kept = _kept_spaces_bytes(block)

    def of_measure(name: str) -> int:
        measure = MEASURES[name]
        if measure.is_quadratic:
            return leading if measure.has_value_for_many and n > MOST_POINTS_SQUARED else quadratic
        # Of localized pairs families prepare spaces one by one: a basis and the rows, in double precision.
        return (2 * linear // 3 if measure.has_family else linear) + _crossed_bytes(measure, block, kept)

    return block.rows_bytes + kept + max(of_measure(name) for name in block.of_rows)


def _kept_spaces_bytes(block: _Block) -> int:
    """Return the bytes of rows, and of what measures prepare of them, that stay for later blocks where they are small.

    Each kind of measure prepares its own; half as many bytes again are counted by the cache.
    """
    n, d = block.n_points, block.n_features
    rank = min(n, d)
    families = [MEASURES[name] for name in block.of_rows if MEASURES[name].has_family]
    # Columns; directions of halves, which linear stretches and features do not have, beside them.
    parts = [4 * n * d, *[8 * rank * n] * len(families)]
    of_one = sum(part for part in parts if part <= LARGEST_SPACE)
    if 8 * rank * n <= LARGEST_SPACE:
        of_one += len(families) * 8 * 2 * (1 + block.n_halves) * rank * rank
    return min(MOST_SPACES, 3 * _n_bases_of_all(len(block.bases)) * of_one // 2)


def _crossed_bytes(measure: Measure, block: _Block, kept: int) -> int:
    """Return the bytes of spaces whose factors, directions, or features are crossed, and of the products of one pair.

    A product of each class of points and of each set: 4 and 5 with two splits. ``kept``: see `_kept_spaces_bytes`; of
    small spaces, those that are crossed are among these.
    """

    def held(of_space: int) -> int:
        of_all = min(len(block.bases) * of_space, MOST_PREPARED + 2 * of_space)
        return max(0, of_all - 2 * kept // 3) if of_space <= LARGEST_SPACE else of_all

    n, d = block.n_points, block.n_features
    n_sums = 2 + 2 * block.n_halves
    if measure.trace is not None:
        rank, n_sides = min(n, d), 1 if measure.is_symmetric else 2
        kind = trace_kind(measure.trace, n, rank)
        # Factors of all sets, while the matrices of one space are made of them.
        of_pair = {"directions": 8 * rank**2 * (n_sums + 2), "factors": 8 * rank**2, "matrices": 16 * rank * n}[kind]
        return held(n_sides * trace_bytes(kind, n, rank, block.n_halves)) + of_pair
    if measure.cross is None and measure.alignment is None:
        return 0
    is_matched = measure.alignment is not None and measure.alignment.by_permutations is not None
    rank = d if is_matched else min(n, d)
    permuted = 0
    if is_matched:
        # Ten permutations of a target, the first ones and others, and their products, twice: where rotations do not
        # speak for them.
        of_target = 4 * FEW_DRAWS * n * rank
        permuted = 8 * FEW_DRAWS * rank * rank + 2 * (of_target if of_target <= MOST_PERMUTED else 4 * n * rank)
    # Rows in double precision, and in single for permutations.
    of_space = rank * (12 * n + 8 * 2 * (1 + block.n_halves) * rank)
    # Corners of random rotations that stay for other pairs, and what is made of them.
    rotations = 2 * min(MOST_ROTATIONS, most_rotations(n, rank, rank) * 8 * (rank + 16) ** 2)
    return held(of_space) + 8 * rank * rank * (n_sums + 2) + permuted + rotations


def _together_bytes(block: _Block) -> int:
    """Return the bytes of spaces that are compared together by all pairs of points, and of sums over their pairs."""
    if not block.of_point_pairs:
        return 0
    side = tile_side(block.n_points, block.n_features)
    sizes = sorted(block.bases, key=lambda size: size.n_points * size.n_features)[-2 * side :]
    forms = [form for name in block.of_point_pairs if (form := MEASURES[name].matrix) is not None]
    has_table = any(form.has_table for form in forms)
    if forms:
        held = sum(bytes_together(size.n_points, size.n_features, has_table=has_table) for size in sizes)
    else:
        # Rows as they are, and lists of some 25 neighbors.
        held = sum(size.n_bytes + 200 * size.n_points for size in sizes)
    weighed = [MEASURES[name] for name in block.of_point_pairs if MEASURES[name].lists is not None]
    if most := max((measure.neighbors[0] + 1 for measure in weighed if measure.neighbors is not None), default=0):
        # Lists with weights of all spaces, one by one and side by side.
        held = max(held, sum(size.n_bytes + _WEIGHED_BYTES * most * size.n_points for size in sizes))
    held += 8 * (block.n_halves + 3) * min(side, len(sizes)) ** 2
    # One space at a time: tiles of up to 4,096 points that are looked at twice, those above the diagonal in double
    # precision and their bits in single; or blocks of products that neighbors are looked for in.
    finds_neighbors = any(MEASURES[name].matrix is None for name in block.of_point_pairs)
    held += block.n_points * (32 * 1024 if finds_neighbors else 32 * 256)
    held += 7 * block.n_points**2 if forms and block.n_points <= KeptTiles.most_points else 0
    if not forms or block.pair.n_permutations == 0 or block.n_points > MOST_POINTS_SQUARED:
        return held
    # A kernel, whole, of which permutations look up entries, and parts of it: of localized pairs, too.
    return max(held, 2 * 8 * block.n_points**2 + sum(8 * size.n_points * size.n_features for size in sizes))


def _lists_bytes(block: _Block) -> int:
    """Return the bytes of lists of neighbors, and of what else is prepared of spaces, kept for later blocks."""
    measures = [MEASURES[name] for name in [*block.of_rows, *block.of_point_pairs]]
    n_kept = sum(not measure.has_family and not measure.is_quadratic for measure in measures)
    n_kept += len({one.neighbors for one in measures if one.of_shared_neighbors is not None or one.lists is not None})
    n_bases = _n_bases_of_all(len(block.bases))
    n_grouped = sum(map(_has_sums, measures))
    in_sets = n_grouped * n_bases * _SUMS_BYTES if block.pair.is_grouped and block.pair.has_moments else 0
    n_ranked = sum(measure.matrix is not None and measure.matrix.has_table for measure in measures)
    in_tables = n_ranked * n_bases * table_bytes(block.n_points)
    return min(MOST_BYTES, n_kept * n_bases * block.n_points * _LIST_BYTES + in_sets + in_tables)


def _written_bytes(block: _Block) -> int:
    pair, n_pairs = block.pair, block.n_pairs
    n_numbers = len(pair.measures) * len(STATISTICS) + len(DIAGNOSTICS)
    maps = 8 * n_pairs * block.numbers.n_eigenpairs**2 if block.is_fitted and pair.refine != "none" else 0
    # In the receipt a key and a run of pairs for each basis.
    in_receipt = 85 * len(block.bases)
    return n_pairs * (4 + 16 * n_numbers) + in_receipt + 4 * ARRAY_BYTES + UNIT_BYTES + maps


def part_load(bases: Collection[SpaceSize], n_pairs: int, pair: PairWork) -> Load:
    """Return the cost of the costliest part of a block of these bases: a block is in memory part by part."""
    falling = sorted(bases, key=lambda size: (size.n_points * (size.n_features + 50), size.name), reverse=True)
    side = _Block(falling, n_pairs, pair).side
    load = block_load(falling[: 2 * side], min(n_pairs, side**2), pair)
    together = 25 * MIB + _together_bytes(_Block(falling, n_pairs, pair))
    # Scores of all pairs of the block, and a copy of them; their names.
    of_block = n_pairs * (2 * 8 * 2 * len(STATISTICS) * len(pair.measures) + 300)
    return replace(load, peak_bytes=of_block + max(load.peak_bytes, together))
