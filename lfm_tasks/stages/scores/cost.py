"""What tasks of pairs and of whole zoos cost, before they run: see `costs`."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import ceil

from lfm_tasks.config import AtlasConfig
from lfm_tasks.measures.registry import MEASURES
from lfm_tasks.runtime.load import ARRAY_BYTES, MIB, UNIT_BYTES, Load, SpaceSize
from lfm_tasks.spectral.bases.full_map import DIAGNOSTICS, MAP_SCORES
from lfm_tasks.stages.inventory.requests import PairRequest
from lfm_tasks.stages.scores.block import PART_SIDE, part_side
from lfm_tasks.stages.scores.full_maps import LARGEST_BASE, MOST_BASES
from lfm_tasks.stages.scores.map_measures import STATISTICS


@dataclass(frozen=True)
class PairWork:
    """How pairs are scored, as far as it costs time: measures, permutations, groups; what fitted maps are fitted by."""

    measures: Sequence[str]
    n_permutations: int
    n_groups: int
    n_eigenpairs: int
    n_neighbors: int = 50
    regime: str = "full"
    refine: str = "none"
    n_samples: int = 1000
    n_refined: int = 0


def pair_work(atlas: AtlasConfig, asked: PairRequest) -> PairWork:
    """Return how pairs that are asked for in this way are scored."""
    known = asked.correspondence
    return PairWork(
        sorted(asked.measures), atlas.null.n_permutations, atlas.intervals.n_groups, atlas.n_eigenpairs,
        atlas.graph.n_neighbors, known.regime, known.refine, known.n_samples, atlas.null.n_refined,
    )  # fmt: skip


def block_load(bases: Sequence[SpaceSize], n_pairs: int, how: PairWork) -> Load:
    """Return the cost of one block of pairs; ``bases`` are all that it reads."""
    n = max(own.n_points for own in bases)
    d = max(own.n_features for own in bases)
    n_modes, n_parts = how.n_eigenpairs, (how.n_groups + 2 if how.n_groups else 0)
    of_maps = [name for name in how.measures if name in MAP_SCORES]
    of_rows = [name for name in how.measures if name in MEASURES]
    is_fitted = bool(of_maps) and how.regime != "full"
    side = part_side(n, n_modes, d if is_fitted or of_rows else 0)
    held = sorted(bases, key=lambda own: own.n_points * (own.n_features + n_modes))[-2 * side :]
    is_drawn = any(MAP_SCORES[name].has_null and name != "overlap" for name in of_maps)
    work = Counter[str]({"block task": 1.0, "block base": len(bases)})
    n_pairs_drawn = n_pairs * how.n_permutations if is_drawn else 0
    rows_bytes = 0
    if is_fitted:
        n_fits = 2 * n_pairs * (1 + how.n_refined)
        grown = how.refine == "zoomout"
        starts = 3 if how.regime == "anchors" else 1
        if grown:
            work["grown fit"] = n_fits
            work["grown rows"] = n_fits * starts * min(n, how.n_samples) ** 2 * n_modes
            work["grown base"] = len(bases) * n * (how.n_neighbors + d)
        else:
            work["solved fit"] = n_fits
            work["solved products"] = n_fits * n_modes**3
            work["solved factor"] = len(bases) * n_modes**3
            work["solved base"] = len(bases) * n * n_modes
        rows_bytes = sum(own.n_points * own.n_features * max(4, own.itemsize) for own in held)
        peak = rows_bytes + sum(own.n_points * (80 * how.n_neighbors + 24 * n_modes) for own in held)
    else:
        work["pair"] = n_pairs
        work["pair rows"] = n_pairs * n * n_modes**2
        work["base rows"] = len(bases) * n * n_modes
        work["pair parts"] = n_pairs * n_parts * n_modes**3
        work["null"] = n_pairs_drawn
        work["null rows"] = n_pairs_drawn * n * n_modes**2
        # The basis and its rows by part and by half; chance: permuted rows side by side, float32, and indices.
        copies = 3 if n_parts else 1
        # Small bases of earlier blocks are kept; a full block has a sixteenth of all, or more.
        kept = n * (n_modes * 8 * copies + 64) + 8 * n_parts * n_modes**2
        n_kept = len(bases) * (16 if len(bases) >= PART_SIDE else 1)
        peak = min(MOST_BASES, n_kept * kept) if kept <= LARGEST_BASE else 0
        peak += sum(own.n_points * (n_modes * 8 * copies + 16) for own in held) + n * (n_modes * 16 + 200)
        peak += 3 * max(32 * MIB, 4 * n * n_modes) // 2 if n_pairs_drawn else 0
        peak += 4 * n_pairs_drawn * n_modes**2 // max(1, ceil(n_pairs / 16))
    if of_rows:
        rows_bytes = sum(own.n_points * own.n_features * max(4, own.itemsize) for own in held)
        prepared = max(
            2 * 8 * n * n * 2 + min(1 << 30, 8 * n * n * len(held))
            if MEASURES[name].is_quadratic
            else 3 * 8 * sum(own.n_points * own.n_features for own in held)
            for name in of_rows
        )
        peak += rows_bytes + prepared
        for name in of_rows:
            work.update(measure_work(name, (n, d), (len(bases), n_pairs), how.n_permutations, n_parts))
    peak += 25 * MIB + 20_000 * n_pairs  # modules and Python's own objects
    written = n_pairs * (8 + 4 + 16 * (len(how.measures) * len(STATISTICS) + len(DIAGNOSTICS)) + 170)
    written += 5 * ARRAY_BYTES + UNIT_BYTES + (8 * n_pairs * n_modes**2 if is_fitted and how.refine != "none" else 0)
    return Load(1, dict(work), int(peak), max(bases, key=lambda own: own.n_points).name, written)


def part_load(bases: Collection[SpaceSize], n_pairs: int, how: PairWork) -> Load:
    """Return the cost of the costliest part of a block of these bases: a block is in memory part by part."""
    falling = sorted(bases, key=lambda size: (size.n_points * (size.n_features + 50), size.name), reverse=True)
    return block_load(falling[: 2 * PART_SIDE], min(n_pairs, PART_SIDE**2), how)


def measure_work(
    name: str, size: tuple[int, int], counts: tuple[int, int], n_permutations: int, n_parts: int
) -> dict[str, float]:
    """Return the amounts of one measure: (points, features) of spaces, (spaces, pairs) of a block."""
    (n, d), (n_spaces, n_pairs) = size, counts
    measure = MEASURES[name]
    if measure.is_quadratic and n > 3000:
        return {}
    n_drawn = 0 if measure.as_trace is not None else n_permutations
    n_prepared = n_spaces * (1 + n_parts + (0 if measure.permute is not None else n_drawn))
    n_compared = n_pairs * (1 + n_parts + n_drawn) * (1 if measure.is_symmetric else 2)
    one = n * n if measure.is_quadratic else n * d * min(n, d)
    return {
        f"{name} space": n_prepared * n * d * (n if measure.is_quadratic else min(n, d)),
        f"{name} rows": n_compared * one,
        f"{name} pair": n_compared,
    }
