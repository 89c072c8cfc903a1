"""What tasks of pairs and of whole zoos cost, before they run: see `costs`."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import ceil

from lfm_tasks.config import AtlasConfig
from lfm_tasks.measures.registry import MEASURES
from lfm_tasks.stages.asked import Asked
from lfm_tasks.stages.blocks import PART_SIDE, part_side
from lfm_tasks.stages.costs import ACTIVATIONS, ARRAY_BYTES, MIB, UNIT_BYTES, Load, together, unit_bytes
from lfm_tasks.stages.map_scores import DIAGNOSTICS, MAP_SCORES
from lfm_tasks.stages.small_bases import LARGEST_BASE, MOST_BASES
from lfm_tasks.stages.space_sizes import SpaceSize
from lfm_tasks.stages.statistics import STATISTICS


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


def pair_work(atlas: AtlasConfig, asked: Asked) -> PairWork:
    """Return how pairs that are asked for in this way are scored."""
    known = asked.knowledge
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


def collection_load(spaces: Sequence[SpaceSize], n_modes: int, n_eigenpairs: int, max_spaces: int) -> Load:
    """Return the cost of one collection."""
    n, s = max(own.n_points for own in spaces), len(spaces)
    n_modes = min(n_modes, n_eigenpairs)
    core = min(s, max_spaces)
    thirds = min(core, max(4, 24 * max_spaces // s))
    work = {
        "collection": 1.0,
        "collection maps": float(s * s / 2 * n * n_eigenpairs**2),
        "collection cycles": float(s * s / 2 * thirds * n_eigenpairs**3),
        "collection core": float((core * n_eigenpairs) ** 2 * n_modes),
        "collection rows": float(s * n * n_eigenpairs),
    }
    basis = n * n_eigenpairs * 8
    peak = min(s * basis, max(1 << 30, 65 * basis)) + 2 * n * 8 * 64 + s * n * (8 + spaces[0].id_bytes * 4)
    peak += 8 * (core * n_eigenpairs) ** 2 + 8 * core * core * n_eigenpairs**2 + 6 * 8 * s * s
    written = 8 * (s * n_eigenpairs * n_modes + 2 * s * s) + 3 * ARRAY_BYTES + UNIT_BYTES + 80 * s
    return Load(1, work, int(peak), "a collection", written)


def kept_maps_load(n_maps: int, spaces: Sequence[SpaceSize], n_eigenpairs: int) -> Load:
    """Return the cost of the maps that a dataset keeps, 16 x 16 spaces a task."""
    if not n_maps:
        return Load()
    n = max(own.n_points for own in spaces)
    groups = ceil(len(spaces) / 16)
    n_tasks = min(n_maps, groups * (groups + 1) // 2)
    n_bases = min(32, len(spaces))
    work = {
        "kept task": float(n_tasks),
        "kept map": float(n_maps),
        "kept rows": float(n_maps * n * n_eigenpairs**2),
        "kept bases": float(n_tasks * n_bases * n * n_eigenpairs),
    }
    per_task = ceil(n_maps / n_tasks)
    peak = (
        n_bases * n * (n_eigenpairs * 8 + 40) + 3 * per_task * (8 * n_eigenpairs**2 + 16 * n) + 4 * n * n_eigenpairs * 8
    )
    written = n_maps * (4 * n_eigenpairs**2 + 8 * n + 150) + n_tasks * (n * (4 + spaces[0].id_bytes) + 3 * ARRAY_BYTES)
    return Load(n_tasks, work, int(peak), "kept maps", written)


def transfers_load(sizes: Sequence[tuple[SpaceSize, SpaceSize]], most_points: int) -> Load:
    """Return the cost of fitting maps from anchors."""
    loads = []
    for source, target in sizes:
        n, d = min(most_points, max(source.n_points, target.n_points)), max(source.n_features, target.n_features)
        work = {"transfer": 1.0, "transfer rows": float(n * n), "transfer products": float(n * n * d + n * d * d)}
        peak = 14 * n * n * 8 + 12 * n * d * 8 + 4 * (ACTIVATIONS.chunk_bytes or 0)
        written = 8 * (source.n_features * (target.n_features + 1) + target.n_features + 2500)
        loads.append(Load(1, work, peak, target.name, written + 4 * ARRAY_BYTES + UNIT_BYTES + 3000))
    return together(loads)


def embeddings_load(sizes: Sequence[SpaceSize], max_points: int, n_probed: int) -> Load:
    """Return the cost of pictures of spaces, and of probes of pairs of them."""
    if not sizes:
        return Load()
    n, d = min(max_points, max(own.n_points for own in sizes)), max(own.n_features for own in sizes)
    n_probes = len(sizes) + 2 * n_probed if n_probed else 0
    work = {
        "picture": float(len(sizes)),
        "picture points": float(len(sizes) * n),
        "picture search": float(len(sizes) * n * n),
        "probe": float(n_probes),
        "probe rows": float(n_probes * n * d * min(n, d)),
    }
    peak = 6 * 8 * n * d + 3 * 8 * n * n + 200 * MIB + 4 * (ACTIVATIONS.chunk_bytes or 0)
    ids = (n * (4 + sizes[0].id_bytes), n, 1 << 16)
    written = len(sizes) * unit_bytes((8 * n, n, 1 << 16), ids)
    written += unit_bytes(ids, (6 * n, n, 1 << 16), (4 * n, n, 1 << 16))
    written += len(sizes) * unit_bytes((8 * len(sizes), 1, 1)) if n_probed else 0
    return Load(len(sizes) * (2 if n_probed else 1), work, int(peak), sizes[0].name, int(written))


def atlas_load(n_spaces: int, n_models: int, n_measures: int, kept_bytes: int) -> Load:
    """Return the cost of putting the atlas together and drawing its page; in the process of the run itself."""
    cells = n_spaces**2 * n_measures
    work = {
        "atlas": 1.0,
        "atlas cells": float(cells),
        "atlas models": float(n_models**2),
        "atlas bytes": float(kept_bytes),
    }
    peak = 420 * cells + 24 * 8 * n_spaces**2 + 3 * kept_bytes
    written = 150_000 + 100 * cells + 8 * 8 * n_spaces**2 + kept_bytes
    return Load(1, {name: float(amount) for name, amount in work.items()}, peak, "the atlas", written)
