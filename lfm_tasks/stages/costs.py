"""What tasks cost, before they run: what their time is made of, their memory, the bytes that they write.

Time is a sum of amounts (`Load.work`) by the coefficients of `cost_table`, which tests/benchmarks/bench_costs.py fits.
Memory is written out: what stands highest in a task, beside what every worker takes. Bytes are counted.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil

from lfm_tasks.measures.registry import MEASURES
from lfm_tasks.spectral.neighbours import COMPILED_FROM
from lfm_tasks.stages.map_scores import DIAGNOSTICS, MAP_SCORES
from lfm_tasks.stages.space_bases import Way
from lfm_tasks.stages.space_sizes import SpaceSize
from lfm_tasks.stages.statistics import STATISTICS
from lfm_tasks.stores.layouts import LAYOUTS

MIB = 1 << 20
_ACTIVATIONS = LAYOUTS["activations"]["activations"]
# Of the metadata of an array and of a unit, its receipt among them (measured).
_ARRAY_BYTES, _UNIT_BYTES = 810, 650


@dataclass(frozen=True)
class Load:
    """Some tasks: how many, what their time is made of, the most that one holds and what that is, bytes written.

    ``staying_bytes`` of its peak are there ever after: compiled code.
    """

    tasks: int = 0
    work: Mapping[str, float] = field(default_factory=dict)
    peak_bytes: int = 0
    peak_of: str = ""
    written_bytes: int = 0
    staying_bytes: int = 0


def together(loads: Iterable[Load]) -> Load:
    """Return the sum of loads; its peak is that of the largest."""
    found, work = list(loads), Counter[str]()
    for load in found:
        work.update(load.work)
    largest = max(found, key=lambda load: load.peak_bytes, default=Load())
    written = sum(load.written_bytes for load in found)
    staying = max((load.staying_bytes for load in found), default=0)
    return Load(sum(load.tasks for load in found), dict(work), largest.peak_bytes, largest.peak_of, written, staying)


def record_load(spaces: Sequence[SpaceSize]) -> Load:
    """Return the cost of recording the missing layers of one model, in one pass."""
    chunks = [_chunk_bytes(own) for own in spaces]
    n_points = max(own.n_points for own in spaces)
    weights = max(own.weight_bytes for own in spaces)
    values = sum(own.n_bytes for own in spaces)
    work = {
        "record task": 1.0,
        "record layer": float(len(spaces)),
        "record bytes": float(values),
        "record run": float(weights * n_points),
        "record model": float(weights > 0),
    }
    # Rows wait until they fill a chunk; one chunk at a time is encoded. A batch of a file has 16 MiB, and is copied.
    peak = 2 * sum(chunks) + 4 * max(chunks) + max(own.held_bytes for own in spaces)
    peak += 2 * min(16 * MIB, values) + n_points * (200 + 8 * spaces[0].id_bytes)
    peak += 3 * weights + (64 * MIB if weights else 0)
    written = sum(_unit_bytes((own.n_bytes, own.n_points, _chunk_rows(own)), _ids(own)) for own in spaces)
    return Load(1, work, peak, spaces[0].name, written)


def basis_load(size: SpaceSize, way: Way) -> Load:
    """Return the cost of one basis."""
    n, d, k, n_pairs = size.n_points, size.n_features, way.graph.n_neighbors, way.n_eigenpairs
    m = way.n_landmarks or n
    width = max(size.itemsize, 4)
    work = {"basis task": 1.0, **_graph_work(m, d, k, n_pairs, way.method)}
    work["basis profile"] = float(min(n * n * n_pairs, n * n_pairs**3))
    work["basis bytes"] = float(n * (d * size.itemsize + 8 * n_pairs))
    highest = _graph_peak(m, d, k, n_pairs, width, way.method)
    # The basis, its blocks of cubes, checks of its quality, and the copies that are encoded.
    rows = 5 * n * n_pairs * 8 + 1024 * 8 * min(n, n_pairs**2) * (2 if n < n_pairs**2 else 1)
    n_kept = m * k * 8
    ids = n * (40 + 8 * size.id_bytes)
    if way.n_landmarks is not None:
        half = _graph_work(m // 2, d, k, n_pairs, way.method)
        work = dict(Counter(work) + Counter(half))
        work |= {"basis extension": float(n * m * d), "basis extension rows": float(n * m)}
        chunk = 4 * _chunk_bytes(size)
        # Of the landmarks beside their values what distances see; while the half is extended, that of the half too.
        known = 2 * m * d * width + m * (k * 24 + n_pairs * 16)
        extending = known + m * d * width + 256 * (12 * m + 24 * d) + chunk + 100 * n + n * n_pairs * 8
        highest = max(highest + m * d * 4, extending, rows)
        n_kept += 4 * m
    peak = max(highest, rows) + ids + n_kept
    arrays = (
        (m * k * 4, m, 1 << 16), (m * k * 4, m, 1 << 16), (8 * n_pairs, 1, 1), (n * n_pairs * 8, n, 1 << 16),
        (8 * 220, 1, 1), *(((4 * m, m, 1 << 16),) if way.n_landmarks else ()),
    )  # fmt: skip
    staying = _compiled_bytes(m, d, way.method)
    return Load(1, work, int(peak) + staying, size.name, _unit_bytes(*arrays, _ids(size)), staying)


def _graph_work(n: int, d: int, k: int, n_pairs: int, method: str) -> dict[str, float]:
    small = n * n * d < COMPILED_FROM
    search = {
        "exact": {"search small": n * n * d, "search small rows": n * n} if small else {"search exact": n * n * d},
        "projection": {"search projection": n * n * min(d, 128), "search projection rows": n * d * 128},
        "pynndescent": {"search pynndescent": n**1.1 * k * d, "compile": 1},
    }[method]
    if method == "exact" and not small:
        search["search exact rows"] = n * n
    eigen = {"edges": n * k, "lanczos edges": n * k * n_pairs, "lanczos rows": n * n_pairs**2}
    return {name: float(amount) for name, amount in (search | eigen).items()}


def _graph_peak(n: int, d: int, k: int, n_pairs: int, width: int, method: str) -> float:
    """Return the most bytes beside the worker while a graph on ``n`` points and its eigenpairs are found."""
    values = n * d * width
    if method == "exact" and n * n * d < COMPILED_FROM:
        block = 8 * min(1024 * n, n * n, 1 << 24)
        search = 4 * block + 3 * min(n, 1024) * d * 8 + 16 * n * k
    elif method == "pynndescent":
        search = values + 60 * n * k  # points once more, heaps of candidates
    else:
        columns = min(d, 128) + 512 if method == "projection" else d + 512
        search = 4 * n * columns + 30 * n * k * (2 if method == "projection" else 1) + 30 * MIB
    graph = 100 * n * k
    lanczos = 80 * n * k + 8 * n * (5 * n_pairs + 10)
    return max(values + max(search, n * d), values + graph, lanczos)


def _compiled_bytes(n: int, d: int, method: str) -> int:
    """Return what compiled searches leave in a process."""
    if method == "pynndescent":
        return 300 * MIB
    return 110 * MIB if n * n * d >= COMPILED_FROM else 0


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


def block_load(bases: Sequence[SpaceSize], n_pairs: int, how: PairWork) -> Load:
    """Return the cost of one block of pairs; ``bases`` are all that it reads."""
    n = max(own.n_points for own in bases)
    d = max(own.n_features for own in bases)
    n_modes, n_parts = how.n_eigenpairs, (how.n_groups + 2 if how.n_groups else 0)
    of_maps = [name for name in how.measures if name in MAP_SCORES]
    of_rows = [name for name in how.measures if name in MEASURES]
    is_fitted = bool(of_maps) and how.regime != "full"
    is_drawn = any(MAP_SCORES[name].has_null and name != "overlap" for name in of_maps)
    work = Counter[str]({"block task": 1.0, "block base": len(bases), "pair": n_pairs})
    n_pairs_drawn = n_pairs * how.n_permutations if is_drawn else 0
    rows_bytes = 0
    if is_fitted:
        n_fits = 2 * n_pairs * (1 + how.n_refined)
        grown = how.refine == "zoomout"
        starts = 3 if how.regime == "anchors" else 1
        work["fit"] = n_fits
        work["fit rows"] = n_fits * starts * min(n, how.n_samples) ** 2 * n_modes if grown else 0
        work["fit solve"] = 0 if grown else n_fits * n_modes**3
        work["fit base"] = len(bases) * n * (how.n_neighbors + d)
        rows_bytes = sum(own.n_points * own.n_features * max(4, own.itemsize) for own in bases)
        peak = rows_bytes + sum(own.n_points * (80 * how.n_neighbors + 24 * n_modes) for own in bases)
    else:
        work["pair rows"] = n_pairs * n * n_modes**2
        work["base rows"] = len(bases) * n * n_modes
        work["pair parts"] = n_pairs * n_parts * n_modes**3
        work["null"] = n_pairs_drawn
        work["null rows"] = n_pairs_drawn * n * n_modes**2
        # The basis and its rows by part and by half; chance: permuted rows side by side, float32, and indices.
        copies = 3 if n_parts else 1
        peak = sum(own.n_points * (n_modes * 8 * copies + 16) for own in bases) + n * (n_modes * 16 + 200)
        peak += 3 * max(32 * MIB, 4 * n * n_modes) // 2 if n_pairs_drawn else 0
        peak += 4 * n_pairs_drawn * n_modes**2 // max(1, ceil(n_pairs / 16))
    if of_rows:
        rows_bytes = sum(own.n_points * own.n_features * max(4, own.itemsize) for own in bases)
        prepared = max(
            2 * 8 * n * n * 2 + (1 << 30 if 8 * n * n * len(bases) > 1 << 30 else 8 * n * n * len(bases))
            if MEASURES[name].is_quadratic
            else 3 * 8 * sum(own.n_points * own.n_features for own in bases)
            for name in of_rows
        )
        peak += rows_bytes + prepared
        for name in of_rows:
            work.update(measure_work(name, (n, d), (len(bases), n_pairs), how.n_permutations, n_parts))
    peak += 25 * MIB + 20_000 * n_pairs  # modules and Python's own objects
    written = n_pairs * (8 + 4 + 16 * (len(how.measures) * len(STATISTICS) + len(DIAGNOSTICS)) + 170)
    written += 5 * _ARRAY_BYTES + _UNIT_BYTES + (8 * n_pairs * n_modes**2 if is_fitted and how.refine != "none" else 0)
    return Load(1, dict(work), int(peak), max(bases, key=lambda own: own.n_points).name, written)


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
    written = 8 * (s * n_eigenpairs * n_modes + 2 * s * s) + 3 * _ARRAY_BYTES + _UNIT_BYTES + 80 * s
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
    written = n_maps * (4 * n_eigenpairs**2 + 8 * n + 150) + n_tasks * (n * (4 + spaces[0].id_bytes) + 3 * _ARRAY_BYTES)
    return Load(n_tasks, work, int(peak), "kept maps", written)


def transfers_load(sizes: Sequence[tuple[SpaceSize, SpaceSize]], most_points: int) -> Load:
    """Return the cost of fitting maps from anchors."""
    loads = []
    for source, target in sizes:
        n, d = min(most_points, max(source.n_points, target.n_points)), max(source.n_features, target.n_features)
        work = {"transfer": 1.0, "transfer rows": float(n * n), "transfer products": float(n * n * d + n * d * d)}
        peak = 14 * n * n * 8 + 12 * n * d * 8 + 4 * (_ACTIVATIONS.chunk_bytes or 0)
        written = 8 * (source.n_features * (target.n_features + 1) + target.n_features + 2500)
        loads.append(Load(1, work, peak, target.name, written + 4 * _ARRAY_BYTES + _UNIT_BYTES + 3000))
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
    peak = 6 * 8 * n * d + 3 * 8 * n * n + 200 * MIB + 4 * (_ACTIVATIONS.chunk_bytes or 0)
    ids = (n * (4 + sizes[0].id_bytes), n, 1 << 16)
    written = len(sizes) * _unit_bytes((8 * n, n, 1 << 16), ids)
    written += _unit_bytes(ids, (6 * n, n, 1 << 16), (4 * n, n, 1 << 16))
    written += len(sizes) * _unit_bytes((8 * len(sizes), 1, 1)) if n_probed else 0
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


def _chunk_rows(size: SpaceSize) -> int:
    return min(size.n_points, _ACTIVATIONS.rows_a_chunk(size.n_features * size.itemsize))


def _chunk_bytes(size: SpaceSize) -> int:
    return _chunk_rows(size) * size.n_features * size.itemsize


def _ids(size: SpaceSize) -> tuple[int, int, int]:
    return size.n_points * (4 + size.id_bytes), size.n_points, 1 << 16


def _unit_bytes(*arrays: tuple[int, int, int]) -> int:
    """Return the bytes of a unit of arrays given as (bytes, rows, rows a chunk): a checksum a chunk, and metadata."""
    return _UNIT_BYTES + sum(n_bytes + 140 * ceil(rows / chunk) + _ARRAY_BYTES for n_bytes, rows, chunk in arrays)
