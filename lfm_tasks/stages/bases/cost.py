"""The cost of a basis: amounts of work, memory, bytes written."""

from collections import Counter
from dataclasses import replace

from lfm_tasks.runtime.load import MIB, Load, SpaceSize, chunk_bytes, id_array, unit_bytes
from lfm_tasks.spectral.bases.eigenbasis import choose_solver
from lfm_tasks.spectral.neighbors.search import goes_by_tiles
from lfm_tasks.stages.bases.job import BasisMethod
from lfm_tasks.statistics.resampling import N_HALVES, N_SPLITS


def basis_load(size: SpaceSize, method: BasisMethod) -> Load:
    """Return the cost of one basis."""
    n, d, k, n_pairs = size.n_points, size.n_features, method.n_neighbors, method.n_eigenpairs
    m = method.n_landmarks or n
    width = max(size.itemsize, 4)
    work = {"basis task": 1.0, **_graph_work(m, d, k, n_pairs, method.search)}
    if method.graph.is_centered:
        work["basis center"] = float(m * d)
    by_points = 3 * n < 2 * n_pairs**2
    work["basis profile"] = n * n * (n_pairs / 2 + 20) if by_points else n * n_pairs**3 / 3
    work["basis bytes"] = float(n * (d * size.itemsize + 8 * n_pairs))
    highest = _graph_peak(m, d, k, n_pairs, width, method.search)
    # The basis, its blocks of cubes, checks of its quality, and the copies that are encoded.
    rows = 5 * n * n_pairs * 8 + 3 * 1024 * 8 * (n if by_points else n_pairs)
    n_kept = m * k * 8
    ids = n * (40 + 8 * size.id_bytes)
    if method.n_landmarks is not None:
        half = _graph_work(m // 2, d, k, n_pairs, method.search)
        work = dict(Counter(work) + Counter(half))
        work |= {"basis extension": float(n * m * d), "basis extension rows": float(n * m)}
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
    return Load(1, work, int(peak) + staying, size.name, unit_bytes(*arrays, id_array(size)), staying)


def halves_load(size: SpaceSize, method: BasisMethod) -> Load:
    """Return the cost of the bases of the halves of a space's points: four of half as many points each."""
    n_points = max(size.n_points // 2, 2)
    of_half = replace(method, n_landmarks=None if method.n_landmarks is None else method.n_landmarks // 2)
    half = basis_load(replace(size, n_points=n_points), of_half)
    # They have no sums of chance, and no tasks of their own.
    left_out = ("basis profile", "basis task")
    work = {name: N_HALVES * amount for name, amount in half.work.items() if name not in left_out}
    n_bytes = unit_bytes((N_SPLITS * size.n_points * method.n_eigenpairs * 4, N_SPLITS, 1))
    kept = N_SPLITS * size.n_points * method.n_eigenpairs * 4 * 2
    return Load(0, work, half.peak_bytes + kept, size.name, n_bytes, half.staying_bytes)


def _graph_work(n: int, d: int, k: int, n_pairs: int, search_method: str) -> dict[str, float]:
    search: dict[str, int | float]
    if search_method == "pynndescent":
        search = {"search pynndescent": n**1.1 * k * d, "search pynndescent pairs": n**1.1 * k, "compile": 1}
    elif search_method == "projection":
        search = {"search projection": n * n * min(d, 128), "search projection rows": n * d * 128}
    elif goes_by_tiles(n, d, k):
        search = {"search tiles": n * n, "search tiles rows": n * d * 128, "search tiles pairs": n * k * d}
    else:
        search = {"search exact": n * n * d, "search exact neighbors": n * k}
    solver = choose_solver(n, n_pairs)
    eigen = {"edges": n * k, "dense": n**3 if solver == "dense" else 0}
    if solver != "dense":
        eigen |= {f"{solver} edges": n * k * n_pairs, f"{solver} rows": n * n_pairs**2}
    return {name: float(amount) for name, amount in (search | eigen).items()}


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
