"""How often intervals hold the mean over disjoint samples of points, by the rule of the atlas and by others.

``python tests/benchmarks/bench_intervals.py FOLDER --points 400 --samples 100``; FOLDER has a .npy file a space, with a
row for each of many inputs, in one order. Set OPENBLAS_NUM_THREADS=1.

*kept*: the jackknife over 20 parts with graphs and bases kept, as atlases have it. *halves*: the points are split in
two at random, twice; bases are built anew on each of the four halves; the interval is the score ± 1.15 t₃ deviations of
the four scores, since the variance of a half given the sample is that of the sample. The spread over samples of the
scores themselves is the truth.
"""

import argparse
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
from scipy.stats import t

from lfm_tasks.spectral.bases.automatic import basis_numbers
from lfm_tasks.spectral.bases.eigenbasis import spectral_basis
from lfm_tasks.spectral.bases.full_map import (
    MAP_SCORES,
    full_map,
    maps_without_each_part,
    parted_rows,
    parted_side,
)
from lfm_tasks.spectral.bases.graph import affinity_graph, join_components
from lfm_tasks.spectral.neighbors.centering import center_of, from_center
from lfm_tasks.spectral.neighbors.search import exact_neighbors
from lfm_tasks.statistics.resampling import interval_reach, jackknife_error, random_parts

MEASURES, N_PARTS, N_SPLITS, FACTOR = ("overlap", "lfm"), 20, 2, 1.15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--points", type=int, default=400)
    parser.add_argument("--samples", type=int, default=100)
    chosen = parser.parse_args()
    spaces = {file.stem: np.load(file, mmap_mode="r") for file in sorted(chosen.folder.glob("*.npy"))}
    n_rows = min(len(rows) for rows in spaces.values())
    if n_rows < chosen.points * chosen.samples:
        raise SystemExit(f"got {n_rows} rows, expected {chosen.points * chosen.samples}: lower --points or --samples")
    order = np.random.default_rng(0).permutation(n_rows)
    found = {(pair, name): [] for pair in combinations(spaces, 2) for name in MEASURES}
    for sample in range(chosen.samples):
        rows = np.sort(order[sample * chosen.points : (sample + 1) * chosen.points])
        one_sample({key: np.asarray(values[rows], dtype=float) for key, values in spaces.items()}, sample, found)
    for (pair, name), results in found.items():
        scores, kept, halves = np.array(results).T
        off = np.abs(scores - scores.mean())
        shares = {rule: f"{np.mean(off <= reach):.2f}" for rule, reach in (("kept", kept), ("halves", halves))}
        widths = {rule: f"{reach.mean() / scores.std():.1f}" for rule, reach in (("kept", kept), ("halves", halves))}
        sys.stdout.write(
            f"{name} {' - '.join(pair)}: mean {scores.mean():.3f}, held by {shares}, "
            f"half-widths in deviations {widths}\n"
        )


def one_sample(
    spaces: dict[str, np.ndarray], seed: int, found: dict[tuple[tuple[str, str], str], list[tuple[float, float, float]]]
) -> None:
    """Add the score of each pair and measure, and how far its interval reaches by either rule."""
    n_points = len(next(iter(spaces.values())))
    parts = random_parts(n_points, N_PARTS, seed=seed)
    splits = [random_parts(n_points, 2, seed=1 + N_SPLITS * seed + split) for split in range(N_SPLITS)]
    numbers = basis_numbers(n_points)
    whole = {key: basis(rows, *numbers) for key, rows in spaces.items()}
    sides = {key: parted_side([parted_rows(rows, parts, N_PARTS)], 1) for key, rows in whole.items()}
    halves = {
        key: [basis(rows[split == half], *numbers) for split in splits for half in range(2)]
        for key, rows in spaces.items()
    }
    for pair, name in found:
        source, target = pair
        score = MAP_SCORES[name].function
        left = score(maps_without_each_part(sides[source], sides[target])[0, 0]).astype(float)
        of_halves = [float(score(full_map(*both))) for both in zip(halves[source], halves[target], strict=True)]
        found[pair, name].append(
            (
                float(score(full_map(whole[source], whole[target]))),
                interval_reach(N_PARTS) * float(jackknife_error(left)),
                FACTOR * float(t.ppf(0.975, 2 * N_SPLITS - 1)) * float(np.std(of_halves, ddof=1)),
            )
        )


def basis(rows: np.ndarray, n_neighbors: int, n_eigenpairs: int) -> np.ndarray:
    """Return the basis of rows, as the catalog's defaults make it."""
    seen = from_center(rows, center_of(rows))
    neighbors = exact_neighbors(seen, n_neighbors, metric="angular")
    graph, _ = join_components(affinity_graph(neighbors, kernel="binary"), seen, metric="angular")
    return spectral_basis(graph, n_eigenpairs).eigenvectors


if __name__ == "__main__":
    main()
