"""Measures and their chance levels: all pairs of linear CKA against the pair loop, and what a permutation costs.

``python tests/benchmarks/bench_measures.py [--repeats 3]``; set OPENBLAS_NUM_THREADS=1 for figures of one core. Both
sides of a ratio alternate in one process.
"""

import argparse
import resource
import time
from collections.abc import Callable

import numpy as np
from threadpoolctl import threadpool_limits

from lfm_tasks.measures.cka import linear_cka_matrix
from lfm_tasks.measures.registry import MEASURES
from lfm_tasks.spectral.bases.full_map import lfm, permutations_per_product, permuted_maps, permuted_rows

N_SPACES, N_POINTS, N_FEATURES, N_EIGENPAIRS, N_PERMUTATIONS = 64, 5000, 256, 50, 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    permutation_cost(repeats)
    all_pairs(repeats)


def all_pairs(repeats: int) -> None:
    generator = np.random.default_rng(0)
    shape = (N_POINTS, N_FEATURES)
    spaces = [generator.standard_normal(shape, dtype=np.float32) for _ in range(N_SPACES)]
    before = peak()
    # The loop over an eighth of the pairs: it costs the same for each.
    pairs = [(i, j) for i in range(N_SPACES) for j in range(i, N_SPACES)][::8]
    measure = MEASURES["cka_linear"]
    together, one_by_one, grown = [], [], 0
    for _ in range(repeats):
        matrix, [seconds] = timed(lambda: linear_cka_matrix(spaces), 1)
        grown = grown or peak() - before
        together.append(seconds)
        looped, [seconds] = timed(lambda: [measure(spaces[i], spaces[j]) for i, j in pairs], 1)
        one_by_one.append(8 * seconds)
        np.testing.assert_allclose([matrix[i, j] for i, j in pairs], looped, rtol=1e-9)
    ratios = np.array(one_by_one) / together
    print(  # noqa: T201
        f"linear CKA of all pairs of {N_SPACES} spaces ({N_POINTS} points, {N_FEATURES} features): "
        f"{np.median(together):.1f} s, pair by pair {np.median(one_by_one):.1f} s, "
        f"ratio {np.median(ratios):.1f} ({ratios.min():.1f} to {ratios.max():.1f}); {grown / 2**20:.0f} MiB more held"
    )


def permutation_cost(repeats: int) -> None:
    generator = np.random.default_rng(1)
    bases = [np.linalg.qr(generator.standard_normal((N_POINTS, N_EIGENPAIRS)))[0] for _ in range(9)]
    target, sources = bases[0], bases[1:]
    orders = np.stack([generator.permutation(N_POINTS) for _ in range(N_PERMUTATIONS)])
    step = permutations_per_product(N_POINTS, N_EIGENPAIRS)

    def null_scores() -> float:
        total = 0.0
        for start in range(0, N_PERMUTATIONS, step):
            part = orders[start : start + step]
            wide = permuted_rows(target, part)
            for source in sources:
                maps = permuted_maps(source, wide, len(part))
                total += float(lfm(maps).sum() + lfm(np.swapaxes(maps, 1, 2)).sum())
        return total

    with threadpool_limits(1):
        _, seconds = timed(null_scores, repeats)
    each = 1e3 * np.array(seconds) / (N_PERMUTATIONS * len(sources))
    print(  # noqa: T201
        f"a permutation of lfm, both directions, {N_POINTS} points, {N_EIGENPAIRS} eigenpairs, one core: "
        f"{np.median(each):.3f} ms a pair ({each.min():.3f} to {each.max():.3f})"
    )


def timed(work: Callable[[], object], repeats: int) -> tuple[object, list[float]]:
    seconds, result = [], None
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - start)
    return result, seconds


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
