"""How calibrated overlap depends on the number of points: by the catalog's rule, by fixed numbers, of unlike ones.

``python tests/benchmarks/bench_points.py FOLDER --points 200 500 1000 2000``; FOLDER has a .npy file a space, with a
row for each of many inputs, in one order. Set OPENBLAS_NUM_THREADS=1.

*auto* and *50 and 50*: the range of the mean score over the numbers of points, of each pair of files. *unlike*: the
first space on the most points, the second on a half, a quarter, a tenth of them, less the score of both on as few.
"""

import argparse
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
from bench_intervals import basis

from lfm_tasks.spectral.bases.automatic import BasisNumbers, basis_numbers
from lfm_tasks.spectral.bases.full_map import full_map, overlap
from lfm_tasks.stages.scores.full_maps import common_rows
from lfm_tasks.statistics.resampling import calibrated

FIXED, SHARES = BasisNumbers(50, 50), (0.5, 0.25, 0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--points", type=int, nargs="+", default=[200, 500, 1000, 2000])
    parser.add_argument("--draws", type=int, default=3)
    chosen = parser.parse_args()
    spaces = {file.stem: np.load(file, mmap_mode="r") for file in sorted(chosen.folder.glob("*.npy"))}
    pairs, n_rows = list(combinations(spaces, 2)), min(len(rows) for rows in spaces.values())
    scores = {(rule, n): np.zeros(len(pairs)) for rule in ("auto", "50 and 50") for n in chosen.points}
    off = {share: np.zeros(len(pairs)) for share in SHARES}
    for draw in range(chosen.draws):
        order = np.random.default_rng(draw).permutation(n_rows)
        for rule, n in scores:
            if rule == "auto" or n > max(FIXED):
                numbers = basis_numbers(n) if rule == "auto" else FIXED
                bases = {key: basis(np.asarray(rows[order[:n]], float), *numbers) for key, rows in spaces.items()}
                scores[rule, n] += [score(*(bases[key] for key in pair)) / chosen.draws for pair in pairs]
        most = max(chosen.points)
        whole = {
            key: basis(np.asarray(rows[order[:most]], float), *basis_numbers(most)) for key, rows in spaces.items()
        }
        for share in SHARES:
            few = round(share * most)
            small = {
                key: basis(np.asarray(rows[order[:few]], float), *basis_numbers(few)) for key, rows in spaces.items()
            }
            for place, (first, second) in enumerate(pairs):
                both, _ = common_rows((whole[first], np.arange(most)), (small[second], np.arange(few)), 0.0)
                off[share][place] += (score(*both) - score(small[first], small[second])) / chosen.draws
    for rule in ("auto", "50 and 50"):
        by_pair = np.array([scores[rule, n] for n in chosen.points])
        for pair, values in zip(pairs, by_pair.T, strict=True):
            shown = ", ".join(f"{value:.3f}" for value in values)
            say(f"{rule}, {' - '.join(pair)}: {shown}; range {np.ptp(values):.3f}")
        ranges = np.ptp(by_pair, axis=0)
        middle, most = np.median(ranges), ranges.max()
        say(f"{rule}, {chosen.points}: range {ranges.mean():.3f}, median {middle:.3f}, most {most:.3f}")
    for share, errors in off.items():
        mean, most = np.abs(errors).mean(), np.abs(errors).max()
        say(f"unlike, {share:g} of {max(chosen.points)}: off by {mean:.3f}, most {most:.3f}")


def score(first: np.ndarray, second: np.ndarray) -> float:
    """Return the calibrated overlap of two bases on the same points."""
    n_inner = min(first.shape[1], second.shape[1]) - 1
    chance = (first.shape[1] - 1) * (second.shape[1] - 1) / (len(first) - 1) / n_inner
    return calibrated(float(overlap(full_map(first, second))), chance)


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    main()
