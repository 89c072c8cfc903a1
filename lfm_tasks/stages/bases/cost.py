"""The cost of a basis: amounts of work, memory, bytes written."""

from dataclasses import replace

from lfm_tasks.runtime.load import MIB, Load, SpaceSize, chunk_bytes, id_array, total_work, unit_bytes
from lfm_tasks.spectral.bases.eigenbasis import choose_solver
from lfm_tasks.spectral.neighbors.search import goes_by_tiles
from lfm_tasks.stages.bases.job import BasisMethod
from lfm_tasks.statistics.resampling import N_HALVES, N_SPLITS


def basis_load(size: SpaceSize, method: BasisMethod) -> Load:
    """Return the cost of one basis."""
    n, d, k, n_pairs = size.n_points, size.n_features, method.n_neighbors, method.n_eigenpairs
    m = method.n_landmarks or n
    width = max(size.itemsize, 4)
    by_points = 3 * n < 2 * n_pairs**2
    around = {
        "tasks": 1.0,
        "units": 1.0,
        "bytes": float(n * (d * size.itemsize + 8 * n_pairs)),
        "entries": float(_MEDIAN * m * d) if method.graph.is_centered else 0.0,
        # Sums for chance, in double precision.
        "products": 2 * (n * n * (n_pairs / 2 + 20) if by_points else n * n_pairs**3 / 3),
    }
    work = total_work(around, _graph_work(m, d, k, n_pairs, method.search))
    highest = _graph_peak(m, d, k, n_pairs, width, method.search)
    # The basis, its blocks of cubes, checks of its quality, and the copies that are encoded.
    rows = 5 * n * n_pairs * 8 + 3 * 1024 * 8 * (n if by_points else n_pairs)
    n_kept = m * k * 8
    ids = n * (40 + 8 * size.id_bytes)
    if method.n_landmarks is not None:
        half = _graph_work(m // 2, d, k, n_pairs, method.search)
        # Products in double precision, and kernels of all points with the landmarks.
        work = total_work(work, half, {"products": 2.0 * n * m * d, "entries": 25.0 * n * m})
        chunk = 4 * chunk_bytes(size)
        # Beside the values of the landmarks a copy for distances; while the half is extended, one of the half as well.
        landmarks = 2 * m * d * width + m * (k * 24 + n_pairs * 16)
        extending = landmarks + m * d * width + 256 * (12 * m + 24 * d) + chunk + 100 * n + n * n_pairs * 8
        highest = max(highest + m * d * 4, extending, rows)
        n_kept += 4 * m
    peak = max(highest, rows) + ids + n_kept
    arrays = (
        (m * k * 4, m, 1 << 16), (m * k * 4, m, 1 << 16), (8 * n_pairs, 1, 1), (n * n_pairs * 8, n, 1 << 16),
        (8 * 220, 1, 1), *(((4 * m, m, 1 << 16),) if method.n_landmarks else ()),
    )  # fmt: skip
    staying = 300 * MIB if method.search == "pynndescent" else 50 * MIB  # compiled code, which stays in the process
    written = unit_bytes(*arrays, id_array(size))
    starting = _COMPILING if method.search == "pynndescent" else 0.5
    return Load(1, work, int(peak) + staying, size.name, written, staying, starting)


def halves_load(size: SpaceSize, method: BasisMethod) -> Load:
    """Return the cost of the bases of the halves of a space's points: four of half as many points each."""
    n_points = max(size.n_points // 2, 2)
    of_half = replace(method, n_landmarks=None if method.n_landmarks is None else method.n_landmarks // 2)
    half = basis_load(replace(size, n_points=n_points), of_half)
    work = {kind: N_HALVES * amount for kind, amount in half.work.items()} | {"units": 1.0, "tasks": 0.0}
    n_bytes = unit_bytes((N_SPLITS * size.n_points * method.n_eigenpairs * 4, N_SPLITS, 1))
    kept = N_SPLITS * size.n_points * method.n_eigenpairs * 4 * 2
    return replace(half, tasks=0, work=work, peak_bytes=half.peak_bytes + kept, written_bytes=n_bytes)


# Operations that no formula gives, counted once: passes over the rows for their spatial median; over the entries of a
# pair of points, and of a neighbor, until the nearest are found; over edges and vectors until an eigenpair is found.
_MEDIAN, _OF_PAIR, _OF_NEIGHBOR, _OF_EDGE, _OF_VECTOR = 80, 3, 800, 8, 12
# Columns of the sketch that products are made of, and passes that find its directions.
_SKETCH, _SKETCH_PASSES = 128, 20
# Calls around all of them. Seconds until pynndescent is compiled, in each process.
_CALLS, _COMPILING = 3000.0, 20.0


def _graph_work(n: int, d: int, k: int, n_pairs: int, search_method: str) -> dict[str, float]:
    """Return the operations of a graph on ``n`` points, and of its eigenpairs."""
    if search_method == "pynndescent":
        products, entries = 0.0, n**1.1 * k * (4 * d + 1000)
    elif search_method == "projection" or goes_by_tiles(n, d, k):
        products = n * n * min(d, _SKETCH) / 2 + _SKETCH_PASSES * n * d * _SKETCH
        entries = _OF_PAIR * n * n + (_OF_NEIGHBOR + 2 * d) * n * k
    else:
        # Each pair once; the nearest by exact distances.
        products, entries = n * n * d / 2, _OF_PAIR * n * n + (_OF_NEIGHBOR + d) * n * k
    is_dense = choose_solver(n, n_pairs) == "dense"
    found = 0 if is_dense else _OF_EDGE * n * k * n_pairs + _OF_VECTOR * n * n_pairs**2
    return {
        "calls": _CALLS,
        "products": float(products),
        "entries": float(entries + 100 * n * k + found),
        "decompositions": float(n**3) if is_dense else 0.0,
    }


def _graph_peak(n: int, d: int, k: int, n_pairs: int, width: int, search_method: str) -> float:
    """Return the peak bytes, beside the worker's own, of a graph on ``n`` points and its eigenpairs."""
    values = n * d * width
    if search_method == "pynndescent":
        search = values + 60 * n * k  # points once more, heaps of candidates
    elif search_method == "exact" and goes_by_tiles(n, d, k):
        search = values + 4 * n * (d + 512) + 30 * n * k + 30 * MIB  # points once more, in the order of their tiles
    else:
        columns = min(d, 128) + 512 if search_method == "projection" else d + 512
        search = 4 * n * columns + 30 * n * k * (2 if search_method == "projection" else 1) + 30 * MIB
    graph = 100 * n * k
    columns = 6 * n_pairs + 60 if choose_solver(n, n_pairs) == "filtered" else 5 * n_pairs + 10
    eigenpairs = 80 * n * k + 8 * n * columns
    return max(values + max(search, n * d), values + graph, eigenpairs)
