"""A basis in a third of the time of scikit-learn and ARPACK, and a tenth of the common way's; graphs beside Annoy's.

``python tests/benchmarks/bench_bases.py bases|common|annoy|scaling|solvers|spaces|workers``; set
OPENBLAS_NUM_THREADS=1 and OMP_NUM_THREADS=1 for figures of one core. Both sides of a ratio alternate in one process;
times are CPU seconds, which a busy machine moves less than wall time, except for ``workers``. Annoy is no dependency:
``pip install annoy`` first.
"""

import argparse
import functools
import itertools
import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.linalg import eigsh
from sklearn.neighbors import NearestNeighbors, kneighbors_graph

from lfm_tasks.spectral.bases.eigenbasis import (
    Basis,
    basis_quality,
    filtered_eigenpairs,
    normalized_adjacency,
    spectral_basis,
)
from lfm_tasks.spectral.bases.graph import affinity_graph, join_components
from lfm_tasks.spectral.neighbors.search import (
    Neighbors,
    SearchMethod,
    choose_method,
    find_neighbors,
    neighbor_recall,
)

N_FEATURES, N_NEIGHBORS, N_EIGENPAIRS = 768, 50, 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("claim", choices=["bases", "common", "annoy", "scaling", "solvers", "spaces", "workers"])
    parser.add_argument("--spaces", type=int, default=3)
    parser.add_argument("--points", type=int, nargs="+", default=[10_000])
    arguments = parser.parse_args()
    claims: dict[str, Callable[[int, list[int]], None]] = {
        "bases": beside_the_best_plain_way,
        "common": beside_the_common_way,
        "annoy": beside_annoy,
        "scaling": scaling,
        "solvers": filtered_beside_lanczos,
        "spaces": linear_in_spaces,
        "workers": two_workers,
    }
    claims[arguments.claim](arguments.spaces, arguments.points)


def beside_the_best_plain_way(n_spaces: int, sizes: list[int]) -> None:
    compare("scikit-learn brute + eigsh LA float64", plain_basis, n_spaces, sizes)


def beside_the_common_way(n_spaces: int, sizes: list[int]) -> None:
    compare("kneighbors_graph + eigsh SM", common_basis, n_spaces, sizes)


def compare(name: str, other: Callable[[np.ndarray], np.ndarray], n_spaces: int, sizes: list[int]) -> None:
    our_basis(activations(5200, 99))  # what is compiled is compiled before
    for n_points in sizes:
        ours, theirs, overlaps = [], [], []
        for seed in range(n_spaces):
            data = activations(n_points, seed)
            mine, seconds = timed(lambda: our_basis(data))  # noqa: B023
            ours.append(seconds)
            basis, seconds = timed(lambda: other(data))  # noqa: B023
            theirs.append(seconds)
            overlaps.append(np.linalg.norm(mine.T @ basis) ** 2 / N_EIGENPAIRS)
        ratios = np.array(theirs) / ours
        say(
            f"{n_points} x {N_FEATURES}, {n_spaces} spaces: {statistics.median(ours):.2f} s a basis, {name} "
            f"{statistics.median(theirs):.2f} s; ratio {np.median(ratios):.2f} ({ratios.min():.2f} to "
            f"{ratios.max():.2f}); the spans overlap by at least {min(overlaps):.4f}; peak {peak_mib():.0f} MiB"
        )


def our_basis(data: np.ndarray) -> np.ndarray:
    graph = affinity_graph(find_neighbors(data, N_NEIGHBORS, metric="angular", method="exact"), kernel="binary")
    return spectral_basis(join_components(graph, data, metric="angular")[0], N_EIGENPAIRS).eigenvectors


def plain_basis(data: np.ndarray) -> np.ndarray:
    # On unit rows, where scikit-learn's euclidean search is faster than its cosine one and finds the same.
    units = data / np.linalg.norm(data, axis=1, keepdims=True)
    search = NearestNeighbors(n_neighbors=N_NEIGHBORS, algorithm="brute").fit(units)
    directed = search.kneighbors_graph()
    graph = csr_array(directed.maximum(directed.T))
    return eigsh(normalized_adjacency(graph), k=N_EIGENPAIRS, which="LA")[1][:, ::-1]


def common_basis(data: np.ndarray) -> np.ndarray:
    directed = kneighbors_graph(data, N_NEIGHBORS, metric="cosine")
    graph = csr_array(directed.maximum(directed.T))
    laplacian = csr_array(-normalized_adjacency(graph))
    laplacian.setdiag(1.0)
    return eigsh(laplacian, k=N_EIGENPAIRS, which="SM", maxiter=100 * len(data))[1]


def beside_annoy(n_spaces: int, sizes: list[int]) -> None:
    our_neighbors(activations(5200, 99))
    for n_points in sizes:
        ours, theirs = [], []
        for seed in range(n_spaces):
            data = activations(n_points, seed)
            mine, seconds = timed(lambda: our_neighbors(data))  # noqa: B023
            ours.append(seconds)
            approximate, seconds = timed(lambda: annoy_neighbors(data))  # noqa: B023
            theirs.append(seconds)
        recall, theirs_recall = (neighbor_recall(n, data, metric="angular") for n in (mine, approximate))
        method = choose_method(n_points, N_FEATURES, N_NEIGHBORS)
        ratios = np.array(theirs) / ours
        say(
            f"{n_points} x {N_FEATURES}: {method} {statistics.median(ours):.2f} s, recall {recall:.4f}; Annoy, "
            f"10 trees, {statistics.median(theirs):.2f} s, recall {theirs_recall:.4f}; ratio {np.median(ratios):.2f}"
        )


def our_neighbors(data: np.ndarray) -> Neighbors:
    method = choose_method(*data.shape, N_NEIGHBORS)
    return find_neighbors(data, N_NEIGHBORS, metric="angular", method=method)


def annoy_neighbors(data: np.ndarray) -> Neighbors:
    from annoy import AnnoyIndex  # type: ignore[import-not-found]

    index = AnnoyIndex(data.shape[1], "angular")
    index.set_seed(0)
    for point, row in enumerate(data):
        index.add_item(point, row)
    index.build(10, n_jobs=1)
    indices = [index.get_nns_by_item(point, N_NEIGHBORS + 1)[1:] for point in range(len(data))]
    padded = np.array([(row + N_NEIGHBORS * [-1])[:N_NEIGHBORS] for row in indices], dtype=np.int32)
    return Neighbors(padded, np.zeros(padded.shape))


def scaling(n_spaces: int, sizes: list[int], method: SearchMethod = "pynndescent") -> None:
    find_neighbors(activations(5200, 99), N_NEIGHBORS, metric="angular", method=method)
    seconds = []
    for n_points in sizes:
        data = activations(n_points, 0)
        neighbors, spent = timed(lambda: find_neighbors(data, N_NEIGHBORS, metric="angular", method=method))  # noqa: B023
        seconds.append(spent)
        recall = neighbor_recall(neighbors, data, metric="angular", n_sample=100)
        say(f"{method}, {n_points} x {N_FEATURES}: {spent:.1f} s, recall {recall:.4f}, peak {peak_mib():.0f} MiB")
    if len(sizes) > 1:
        exponent = np.log(seconds[-1] / seconds[0]) / np.log(sizes[-1] / sizes[0])
        say(f"time grows as n^{exponent:.2f} between {sizes[0]} and {sizes[-1]} points")


def filtered_beside_lanczos(n_spaces: int, sizes: list[int]) -> None:
    for n_points, seed in itertools.product(sizes, range(n_spaces)):
        graph = affinity_graph(our_neighbors(activations(n_points, seed)), kernel="binary")
        filtered_eigenpairs(graph, 9)  # what is compiled is compiled before
        for n_eigenpairs in (N_EIGENPAIRS, 4 * N_EIGENPAIRS):
            count = n_eigenpairs + 1
            eigenpairs, ours = timed(functools.partial(filtered_eigenpairs, graph, count))
            truth, theirs = timed(functools.partial(eigsh, normalized_adjacency(graph), k=count, which="LA"))
            basis = Basis(1 - eigenpairs[0][:-1], eigenpairs[1][:, :-1], float(1 - eigenpairs[0][-1]))
            quality = basis_quality(graph, basis)
            lost = n_eigenpairs - np.linalg.norm(basis.eigenvectors.T @ truth[1][:, 1:]) ** 2
            say(
                f"{n_points} points, K = {n_eigenpairs}: filtered {ours:.2f} s, eigsh {theirs:.2f} s; residual "
                f"{quality.residual:.1e}, gap {quality.eigengap:.1e}; {abs(lost):.0e} of the directions differ"
            )


def linear_in_spaces(_: int, sizes: list[int]) -> None:
    our_basis(activations(5200, 99))
    for n_points in sizes:
        for n_spaces in (2, 4, 8):
            seconds = sum(timed(functools.partial(our_basis, activations(n_points, s)))[1] for s in range(n_spaces))
            say(f"{n_spaces} spaces of {n_points} x {N_FEATURES}: {seconds:.1f} s, {seconds / n_spaces:.2f} s a space")


def two_workers(n_spaces: int, sizes: list[int]) -> None:
    jobs = [(n_points, seed) for n_points in sizes for seed in range(n_spaces)]
    walls = {}
    for n_workers in (1, 2):
        with ProcessPoolExecutor(n_workers) as pool:
            list(pool.map(work, [(5200, 90 + index) for index in range(2 * n_workers)]))
            start = time.perf_counter()
            list(pool.map(work, jobs))
            walls[n_workers] = time.perf_counter() - start
    say(f"{len(jobs)} bases: one worker {walls[1]:.1f} s, two {walls[2]:.1f} s, ratio {walls[2] / walls[1]:.2f} (wall)")


def work(job: tuple[int, int]) -> float:
    return float(our_basis(activations(*job)).sum())


def activations(n_points: int, seed: int) -> np.ndarray:
    """Return a mixture of Gaussians that touch, seen through two random ReLU layers."""
    generator = np.random.default_rng(seed)
    centers = generator.standard_normal((20, 24))
    rows: Any = centers[generator.integers(0, 20, n_points)] + generator.standard_normal((n_points, 24))
    for _ in range(2):
        weights = generator.standard_normal((rows.shape[1], N_FEATURES)) / np.sqrt(rows.shape[1])
        rows = np.maximum(rows.astype(np.float32) @ weights.astype(np.float32), 0)
    return rows


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    start = time.process_time()
    result = function()
    return result, time.process_time() - start


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
