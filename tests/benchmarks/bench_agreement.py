"""Scores, chance and intervals of every measure beside their direct evaluation, one pair at a time.

``python tests/benchmarks/bench_agreement.py FOLDER [--points 300] [--permutations 1000] [--groups 3]``; FOLDER has a
.npy file a space, with a row for each of the same inputs, in one order. With ``--groups`` so many rows in a row are a
group. Set OPENBLAS_NUM_THREADS=1.

The direct evaluation is the measure's own function of two spaces (of two bases, for measures of maps) in float64: on
all points, on each half, and on permutations of the rows, or groups, of one space. N of them know a mean to
deviation/√N, a 95 % quantile to about twice that, and a p-value to √(p (1 − p)/N): all three are printed in the units
of these errors. Largest numbers over all pairs; NaN where one side has no value and the other has one.
"""

import argparse
import sys
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lfm_tasks.config import AtlasConfig, NullConfig
from lfm_tasks.measures.measure import Measure
from lfm_tasks.measures.registry import MEASURES
from lfm_tasks.spectral.bases.automatic import basis_numbers
from lfm_tasks.spectral.bases.full_map import MAP_SCORES, full_map
from lfm_tasks.spectral.bases.space import spectral_space
from lfm_tasks.stages.inventory.correspondence import ExchangeabilityGroups, Resampling, resampling
from lfm_tasks.stages.scores.block import STATISTICS, resampled
from lfm_tasks.stages.scores.full_maps import BasisRows, basis_chance, score_tile, tile_side_of
from lfm_tasks.stages.scores.pairwise_measures import Activations
from lfm_tasks.stages.scores.row_measures import score_rows
from lfm_tasks.statistics.resampling import Exchange

MEAN, QUANTILE, P_VALUE, LOW, HIGH = (
    STATISTICS.index(name) for name in ("null_mean", "null_q95", "p_value", "ci_low", "ci_high")
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--points", type=int, default=300)
    parser.add_argument("--permutations", type=int, default=1000)
    parser.add_argument("--groups", type=int, default=1)
    parser.add_argument("--names", nargs="*", default=[*sorted(MEASURES), "lfm", "overlap"])
    chosen = parser.parse_args()
    rows = {file.stem: np.load(file)[: chosen.points].astype(float) for file in sorted(chosen.folder.glob("*.npy"))}
    ids = np.array([f"{index:06}" for index in range(chosen.points)])
    groups = ExchangeabilityGroups("groups", ids, np.arange(len(ids), dtype=np.int32) // chosen.groups)
    points = resampling(ids, groups if chosen.groups > 1 else None, AtlasConfig())
    say("| measure | score | null mean, in errors | 95 % quantile, in errors | p, in errors | interval |")
    say("|---|---|---|---|---|---|")
    compared = {key: both_bases(space, points) for key, space in rows.items()}
    for name in chosen.names:
        spaces = compared if name in MAP_SCORES else rows
        apart = [differences(name, spaces, pair, points, chosen.permutations) for pair in combinations(rows, 2)]
        score, mean, quantile, p_value, interval = np.max(apart, axis=0)
        say(f"| `{name}` | {score:.0e} | {mean:.1f} | {quantile:.1f} | {p_value:.1f} | {interval:.0e} |")


class Bases(NamedTuple):
    """The basis of a space as a tile of pairs takes it, and that of each half."""

    whole: BasisRows
    halves: list[np.ndarray]


def both_bases(rows: np.ndarray, points: Resampling) -> Bases:
    numbers = basis_numbers(len(rows))

    def eigenvectors(some: np.ndarray) -> np.ndarray:
        how = {"n_eigenpairs": numbers.n_eigenpairs, "n_neighbors": numbers.n_neighbors, "kernel": "binary"}
        return spectral_space(some, **how).basis.eigenvectors

    whole, of_halves = eigenvectors(rows), [eigenvectors(rows[half]) for half in halves_in_order(points)]
    by_split = np.zeros((len(of_halves) // 2, *whole.shape))
    for place, (half, found) in enumerate(zip(halves_in_order(points), of_halves, strict=True)):
        by_split[place // 2, half] = found
    return Bases(BasisRows(np.arange(whole.shape[1]), whole, basis_chance(whole), by_split), of_halves)


def halves_in_order(points: Resampling) -> list[np.ndarray]:
    return [] if points.halves is None else [half for second in points.halves for half in (~second, second)]


def differences(
    name: str, spaces: dict[str, Any], pair: tuple[str, str], points: Resampling, n_permutations: int
) -> tuple[float, float, float, float, float]:
    """Return how far score, mean and quantile of chance, p-value and interval of a pair are from direct evaluation."""
    source, target = (spaces[key] for key in pair)
    if isinstance(source, Bases):
        sides = [tile_side_of([space.whole], points.halves) for space in (source, target)]
        found = score_tile(*sides, [(0, 0)], [name], NullConfig(), points.exchange).values[0, 0, 0]
        score_of = MAP_SCORES[name].function
        score = float(score_of(full_map(source.whole.rows, target.whole.rows)))
        orders = (points.exchange.permutation(draw, seed=1) for draw in range(n_permutations))
        drawn = [float(score_of(full_map(source.whole.rows, target.whole.rows[order]))) for order in orders]
        of_halves = [float(score_of(full_map(*both))) for both in zip(source.halves, target.halves, strict=True)]
        is_distance, value_range = False, (0.0, 1.0)
    else:
        measure = MEASURES[name]
        found = score_rows(name, Activations(spaces, {}), [pair], points, NullConfig()).values[0, 0]
        score = measure(source, target)
        drawn = permuted(measure, source, target, points.exchange, n_permutations)
        of_halves = [measure(source[half], target[half]) for half in halves_in_order(points)]
        is_distance, value_range = measure.kind == "distance", measure.value_range
    chance = np.array(drawn)
    n_as_good = int((chance <= score if is_distance else chance >= score).sum())
    p_value = (1 + n_as_good) / (1 + n_permutations)
    low, high = resampled(np.array(score), np.array(of_halves), value_range)[:2]
    error = chance.std() / np.sqrt(n_permutations)
    return (
        apart(found[0], score) / max(1.0, abs(score)),
        apart(found[MEAN], chance.mean()) / error,
        # That of a normal distribution is known to 2.1 times the error of its mean.
        apart(found[QUANTILE], np.quantile(chance, 0.05 if is_distance else 0.95)) / (2.1 * error),
        # Where no permutation scores as well, all that is known is that p is small.
        apart(found[P_VALUE], p_value) / np.sqrt(p_value * (1 - p_value) / n_permutations)
        if n_as_good >= 10
        else max(0.0, found[P_VALUE] - 10 * p_value),
        max(apart(found[LOW], low), apart(found[HIGH], high)) / max(1.0, abs(score)),
    )


def apart(found: float, expected: float) -> float:
    """Return the absolute difference: 0 where neither is a number, NaN where one of them is none."""
    return 0.0 if np.isnan(found) and np.isnan(expected) else abs(float(found) - float(expected))


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
