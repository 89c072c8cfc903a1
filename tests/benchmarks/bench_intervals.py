"""How often intervals hold the mean over disjoint samples of points, by the number of splits into halves.

``python tests/benchmarks/bench_intervals.py FOLDER --points 400 --samples 100``; FOLDER has a .npy file a space, with a
row for each of many inputs, in one order. Set OPENBLAS_NUM_THREADS=1.

Every sample is scored as an atlas does it, with bases built anew on the halves of its points. The spread over samples
of the scores themselves is the truth. *differences*: of the scores of two pairs that share a space.
"""

import argparse
import sys
from itertools import combinations
from pathlib import Path

import numpy as np

from lfm_tasks.measures.registry import MEASURES
from lfm_tasks.spectral.bases.automatic import basis_numbers
from lfm_tasks.spectral.bases.eigenbasis import spectral_basis
from lfm_tasks.spectral.bases.full_map import MAP_SCORES, full_map
from lfm_tasks.spectral.bases.graph import affinity_graph, join_components
from lfm_tasks.spectral.neighbors.centering import center_of, from_center
from lfm_tasks.spectral.neighbors.search import exact_neighbors
from lfm_tasks.statistics.resampling import halves_of, interval_reach

OF_MAPS, OF_ROWS = ("overlap", "lfm"), ("cka_linear_debiased_song", "mutual_knn_10_cosine", "procrustes_centered")
SPLITS = (2, 3, 4, 6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--points", type=int, default=400)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--names", nargs="*", default=[*OF_MAPS, *OF_ROWS])
    chosen = parser.parse_args()
    spaces = {file.stem: np.load(file, mmap_mode="r") for file in sorted(chosen.folder.glob("*.npy"))}
    n_rows = min(len(rows) for rows in spaces.values())
    if n_rows < chosen.points * chosen.samples:
        raise SystemExit(f"got {n_rows} rows, expected {chosen.points * chosen.samples}: lower --points or --samples")
    order = np.random.default_rng(0).permutation(n_rows)
    found = {(pair, name): [] for pair in combinations(spaces, 2) for name in chosen.names}
    for sample in range(chosen.samples):
        rows = np.sort(order[sample * chosen.points : (sample + 1) * chosen.points])
        one_sample({key: np.asarray(values[rows], dtype=float) for key, values in spaces.items()}, sample, found)
    covered = {name: [] for name in chosen.names}
    for (pair, name), results in found.items():
        covered[name].append(coverage(np.array(results)))
        sys.stdout.write(f"{name} {' - '.join(pair)}: {shown(np.array(results))}\n")
    differences = {name: [] for name in chosen.names}
    pairs = list(combinations(spaces, 2))
    for name in chosen.names:
        for first, second in combinations(pairs, 2):
            if set(first) & set(second):
                results = np.array(found[first, name]) - np.array(found[second, name])
                differences[name].append(coverage(results))
    for kind, by_name in (("pairs", covered), ("differences", differences)):
        for name, shares in by_name.items():
            means, least = np.mean(shares, axis=0), np.min(shares, axis=0)
            of_splits = ", ".join(
                f"{n}: {mean:.3f} ({low:.2f})" for n, mean, low in zip(SPLITS, means, least, strict=True)
            )
            sys.stdout.write(f"{name}, {len(shares)} {kind}, by splits, mean (least): {of_splits}\n")


def coverage(results: np.ndarray) -> list[float]:
    """Return how many intervals hold the mean, by the number of splits; ``results``: score, halves of each sample."""
    off = np.abs(results[:, 0] - results[:, 0].mean())
    return [float(np.mean(off <= interval_reach(results[:, 1 : 1 + 2 * n]))) for n in SPLITS]


def shown(results: np.ndarray) -> str:
    """Return the mean score, coverage, and half-widths in deviations over samples."""
    spread = results[:, 0].std()
    widths = [float(interval_reach(results[:, 1 : 1 + 2 * n]).mean() / spread) for n in SPLITS]
    held = zip(SPLITS, coverage(results), widths, strict=True)
    return f"mean {results[:, 0].mean():.3f}, " + ", ".join(f"{n}: {share:.2f} {width:.1f}" for n, share, width in held)


def one_sample(
    spaces: dict[str, np.ndarray], seed: int, found: dict[tuple[tuple[str, str], str], list[list[float]]]
) -> None:
    """Add for each pair and measure the score of the sample and of its halves."""
    n_points = len(next(iter(spaces.values())))
    halves = halves_of(map(str, range(n_points)), max(SPLITS), seed=seed)
    sets = [np.ones(n_points, dtype=bool), *(half for second in halves for half in (~second, second))]
    numbers = basis_numbers(n_points)
    names = {name for _, name in found}
    bases = (
        {key: [basis(rows[one], *numbers) for one in sets] for key, rows in spaces.items()}
        if names & {*OF_MAPS}
        else {}
    )
    for pair, name in found:
        if name in OF_MAPS:
            score = MAP_SCORES[name].function
            values = [float(score(full_map(*both))) for both in zip(*(bases[key] for key in pair), strict=True)]
        else:
            values = [MEASURES[name](*(spaces[key][one] for key in pair)) for one in sets]
        found[pair, name].append(values)


def basis(rows: np.ndarray, n_neighbors: int, n_eigenpairs: int) -> np.ndarray:
    """Return the basis of rows, as the catalog's defaults make it."""
    seen = from_center(rows, center_of(rows))
    neighbors = exact_neighbors(seen, n_neighbors, metric="angular")
    graph, _ = join_components(affinity_graph(neighbors, kernel="binary"), seen, metric="angular")
    return spectral_basis(graph, n_eigenpairs).eigenvectors


if __name__ == "__main__":
    main()
