"""Scores, chance and intervals of every measure of activations beside their direct evaluation, one pair at a time.

``python tests/benchmarks/bench_agreement.py FOLDER [--points 300] [--permutations 2000] [--groups 3]``; FOLDER has a
.npy file a space, with a row for each of the same inputs, in one order. With ``--groups`` so many rows in a row are a
group. Set OPENBLAS_NUM_THREADS=1.

The direct evaluation is the measure's own function of two spaces in float64: on all points, on each half, and on
permutations of the rows, or groups, of one space. N of them know a mean to deviation/√N, and a p-value to
√(p (1 − p)/N): both are printed in the units of these errors. Largest numbers over all pairs.
"""

import argparse
import sys
from itertools import combinations
from pathlib import Path

import numpy as np

from lfm_tasks.config import AtlasConfig, NullConfig
from lfm_tasks.measures.measure import Measure
from lfm_tasks.measures.registry import MEASURES
from lfm_tasks.stages.inventory.correspondence import ExchangeabilityGroups, Resampling, resampling
from lfm_tasks.stages.scores.block import STATISTICS, resampled
from lfm_tasks.stages.scores.row_measures import Activations, score_rows
from lfm_tasks.statistics.resampling import Exchange

MEAN, P_VALUE, LOW, HIGH = (STATISTICS.index(name) for name in ("null_mean", "p_value", "ci_low", "ci_high"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--points", type=int, default=300)
    parser.add_argument("--permutations", type=int, default=2000)
    parser.add_argument("--groups", type=int, default=1)
    parser.add_argument("--names", nargs="*", default=sorted(MEASURES))
    chosen = parser.parse_args()
    rows = {file.stem: np.load(file)[: chosen.points].astype(float) for file in sorted(chosen.folder.glob("*.npy"))}
    ids = np.array([f"{index:06}" for index in range(chosen.points)])
    groups = ExchangeabilityGroups("groups", ids, np.arange(len(ids), dtype=np.int32) // chosen.groups)
    points = resampling(ids, groups if chosen.groups > 1 else None, AtlasConfig())
    say("| measure | score | null mean, in errors of permutations | p, in errors | interval |\n|---|---|---|---|---|")
    for name in chosen.names:
        apart = np.array([differences(name, rows, pair, points, chosen.permutations) for pair in combinations(rows, 2)])
        score, mean, p_value, interval = np.nanmax(apart, axis=0)
        say(f"| `{name}` | {score:.0e} | {mean:.1f} | {p_value:.1f} | {interval:.0e} |")


def differences(
    name: str, rows: dict[str, np.ndarray], pair: tuple[str, str], points: Resampling, n_permutations: int
) -> tuple[float, float, float, float]:
    """Return how far score, mean of chance, p-value and interval of one pair are from their direct evaluation."""
    measure, (source, target) = MEASURES[name], (rows[key] for key in pair)
    found = score_rows(name, Activations(rows, {}), [pair], points, NullConfig()).values[0, 0]
    score = measure(source, target)
    chance = permuted(measure, source, target, points.exchange, n_permutations)
    as_good = chance <= score if measure.kind == "distance" else chance >= score
    p_value = (1 + np.count_nonzero(as_good)) / (1 + n_permutations)
    error_of_p = np.sqrt(p_value * (1 - p_value) / n_permutations)
    halves = [] if points.halves is None else [half for second in points.halves for half in (~second, second)]
    of_halves = np.array([measure(source[half], target[half]) for half in halves])
    low, high = resampled(np.array(score), of_halves, measure.value_range)[:2]
    return (
        abs(found[0] - score) / max(1.0, abs(score)),
        abs(found[MEAN] - chance.mean()) / (chance.std() / np.sqrt(n_permutations)),
        # Where no permutation scores as well, all that is known is that p is small.
        abs(found[P_VALUE] - p_value) / error_of_p if as_good.sum() >= 10 else max(0.0, found[P_VALUE] - 10 * p_value),
        max(abs(found[LOW] - low), abs(found[HIGH] - high)) / max(1.0, abs(score)),
    )


def permuted(
    measure: Measure, source: np.ndarray, target: np.ndarray, exchange: Exchange, n_permutations: int
) -> np.ndarray:
    """Return the scores of a space with permuted rows of another."""
    first, second = measure.prepare(source), measure.prepare(target)
    values = []
    for draw in range(n_permutations):
        # Other permutations than those that a run draws.
        order = exchange.permutation(draw, seed=1)
        moved = measure.permute(second, order) if measure.permute is not None else measure.prepare(target[order])
        values.append(measure.compare(first, moved))
    return np.array(values)


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
