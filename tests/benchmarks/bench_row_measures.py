"""Measures of activations with all their statistics: CPU of a pair, of a space in each block, of a space once a worker.

``python tests/benchmarks/bench_row_measures.py [--points 2000] [--features 64] [--spaces 24] [--measures NAME ...]``.
Two sets of spaces, as two blocks of a zoo see them: pairs within each set come first and make what a worker keeps of a
space; then a few pairs across the sets, then all others, which differ in the number of pairs only. On one core.
"""

import argparse
import time

import numpy as np
from threadpoolctl import threadpool_limits

from lfm_tasks.config import AtlasConfig, NullConfig
from lfm_tasks.measures.registry import MEASURES
from lfm_tasks.stages.inventory.correspondence import resampling
from lfm_tasks.stages.scores.pairwise_measures import Activations
from lfm_tasks.stages.scores.row_measures import score_rows

# A zoo of 1,200 spaces: its pairs, how often its blocks read a space, and its spaces once on each of two workers.
PAIRS, READS, SPACES = 720_600, 17_000, 2_400
NAMES = (
    "procrustes_centered_unit_norm",
    "shape_angular_alpha_half",
    "cca_mean",
    "svcca_variance_99",
    "pwcca_textbook_x_to_y",
    "linear_regression_r2",
    "gulp_lambda_0",
    "soft_match",
    "hard_match",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, number in (("points", 2000), ("features", 64), ("spaces", 24)):
        parser.add_argument(f"--{name}", type=int, default=number)
    parser.add_argument("--measures", nargs="*", choices=sorted(MEASURES), default=NAMES)
    given = parser.parse_args()
    spaces = layers(given.spaces, given.points, given.features)
    with threadpool_limits(1):
        for name in given.measures:
            report(name, spaces)


def report(name: str, spaces: dict[str, np.ndarray]) -> None:
    """Print what a measure takes, and what the zoo of 1,200 spaces would on two cores."""
    keys = sorted(spaces)
    half = len(keys) // 2
    first, second = keys[:half], keys[half:]
    within = [(one, other) for side in (first, second) for one in side for other in side if one < other]
    few = list(zip(first, second, strict=False))
    rest = [(one, other) for one in first for other in second if (one, other) not in set(few)]
    how = resampling(np.array([f"{index:06}" for index in range(len(spaces[keys[0]]))]), None, AtlasConfig())
    activations = Activations(spaces, {}, (name,))
    score_rows(name, Activations(spaces, {}), few[:1], how, NullConfig())  # what is compiled is compiled before
    spent = []
    for pairs in (within, few, rest):
        start = time.process_time()
        scores = score_rows(name, activations, pairs, how, NullConfig())
        spent.append(time.process_time() - start)
        if scores.refused or np.isnan(scores.values).any():
            raise RuntimeError(f"got pairs of {name} without numbers, expected numbers: {scores.refused}")
    a_pair = (spent[2] - spent[1]) / (len(rest) - len(few))
    a_block = (spent[1] - len(few) * a_pair) / (2 * len(few))
    once = (spent[0] - len(within) * a_pair) / len(keys) - a_block
    minutes = (PAIRS * a_pair + READS * a_block + SPACES * once) / 120
    print(  # noqa: T201
        f"{name:29} a pair {1e3 * a_pair:6.2f} ms, a space in each block {1e3 * a_block:5.1f} ms, and once "
        f"{1e3 * once:5.1f} ms; 1,200 spaces on two cores {minutes:5.1f} minutes",
        flush=True,
    )


def layers(n_spaces: int, n_points: int, n_features: int) -> dict[str, np.ndarray]:
    """Return layers of random networks on points of ten classes, six layers each, ReLU and tanh in turn."""
    generator = np.random.default_rng(0)
    labels = generator.integers(10, size=n_points)
    points = generator.standard_normal((10, 24))[labels] * 2 + generator.standard_normal((n_points, 24))
    spaces = dict[str, np.ndarray]()
    rows = points
    for index in range(n_spaces):
        if index % 6 == 0:
            rows = points + 0.5 * generator.standard_normal(points.shape)
        weights = generator.standard_normal((rows.shape[1], n_features)) / np.sqrt(rows.shape[1])
        rows = np.maximum(rows @ weights, 0) if index % 2 == 0 else np.tanh(rows @ weights)
        spaces[f"{index:03}"] = rows.astype(np.float32)
    return spaces


if __name__ == "__main__":
    main()
