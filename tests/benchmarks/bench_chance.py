"""Whether chance is what permutations say: scores of permuted spaces, and the p-values that a run gives them.

``python tests/benchmarks/bench_chance.py FOLDER [--points 300] [--permutations 20000] [--kinds plain …] [--names …]``;
FOLDER has two .npy files or more, the first two of which are compared: a row for each of the same inputs, in one order.
Set OPENBLAS_NUM_THREADS=1.

The rows of the second space are permuted so many times, and each time the pair is scored as in a run. Printed are the
mean of these scores less ``null_mean``, in deviations of the scores; the share of scores beyond ``null_q95``, which
should be .05; and the shares of p-values up to .05, .01 and .001, each of which should be that number.

Kinds of spaces: *plain* as they are; *repeated*: half of the points are those of the other half; *far*: three points
lie far out, each in a direction of its own; *pieces*: a third of the points lies far from the others, so that graphs
are joined; *shared*: bases are on half as many points again as the two spaces share.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lfm_tasks.config import NullConfig
from lfm_tasks.measures.registry import MEASURES
from lfm_tasks.spectral.bases.automatic import basis_numbers
from lfm_tasks.spectral.bases.full_map import MAP_SCORES, TILE_SIDE, whitened_rows
from lfm_tasks.spectral.bases.space import spectral_space
from lfm_tasks.stages.inventory.correspondence import Resampling
from lfm_tasks.stages.scores.block import STATISTICS
from lfm_tasks.stages.scores.full_maps import BasisRows, basis_chance, score_tile, tile_side_of
from lfm_tasks.stages.scores.pairwise_measures import Activations
from lfm_tasks.stages.scores.row_measures import score_rows
from lfm_tasks.statistics.resampling import Exchange

KINDS = ("plain", "repeated", "far", "pieces", "shared")
NAMES = (
    "overlap", "lfm", "cka_linear_debiased_song", "cka_linear", "cka_rbf_half_median", "distance_correlation",
    "rsa_pearson_rdm_pearson", "rsa_pearson_rdm_spearman", "mutual_knn_10_cosine", "jaccard_knn_10_cosine",
    "cknna_10_l2", "rank_similarity_10", "mka_15", "multiscale_distance_correlation_t_2", "gulp_lambda_1",
)  # fmt: skip
# Permuted spaces that are scored together.
_AT_ONCE = 200
_COLUMNS = [STATISTICS.index(name) for name in ("score", "null_mean", "null_q95", "p_value")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--points", type=int, default=300)
    parser.add_argument("--permutations", type=int, default=20_000)
    parser.add_argument("--kinds", nargs="*", default=KINDS)
    parser.add_argument("--names", nargs="*", default=NAMES)
    chosen = parser.parse_args()
    files = sorted(chosen.folder.glob("*.npy"))[:2]
    n_least = min(len(np.load(file, mmap_mode="r")) for file in files)
    if n_least < chosen.points:
        parser.error(f"got {n_least} rows in {chosen.folder}, expected at least {chosen.points}. Lower --points")
    say("| measure | spaces | points | permutations | mean | beyond q95 | p ≤ .05 | p ≤ .01 | p ≤ .001 |")
    say("|---|---|---|---|---|---|---|---|---|")
    for kind in chosen.kinds:
        n_rows = chosen.points * 3 // 2 if kind == "shared" else chosen.points
        spaces = [changed(np.load(file)[:n_rows].astype(float), kind, seed) for seed, file in enumerate(files)]
        for name in chosen.names:
            if kind == "shared" and name not in MAP_SCORES:
                continue
            parts = list(permuted_scores(name, spaces, chosen.points, chosen.permutations))
            say(f"| `{name}` | {kind} | {chosen.points} | {line(name, np.concatenate(parts))} |")


def changed(rows: np.ndarray, kind: str, seed: int) -> np.ndarray:
    """Return the rows of a space as one of the `KINDS`."""
    rows, spread = rows.copy(), rows.std()
    if kind == "repeated":
        half = len(rows) // 2
        rows[half : 2 * half] = rows[:half]
    elif kind == "far":
        generator = np.random.default_rng(seed)
        rows[:3] += 100 * spread * generator.standard_normal((3, rows.shape[1]))
    elif kind == "pieces":
        rows[: len(rows) // 3] += 30 * spread * np.random.default_rng(seed).standard_normal(rows.shape[1])
    return rows


def permuted_scores(name: str, spaces: list[np.ndarray], n_points: int, n_permutations: int) -> Iterator[np.ndarray]:
    """Yield score, mean of chance, 95 % quantile and p-value of the first space with permuted points of the second."""
    exchange, null = Exchange(n_points), NullConfig()
    bases = [restricted(rows, n_points) for rows in spaces] if name in MAP_SCORES else []
    step = TILE_SIDE if bases else _AT_ONCE
    for start in range(0, n_permutations, step):
        draws = range(start, min(start + step, n_permutations))
        orders = [exchange.permutation(draw, seed=1) for draw in draws]
        if name in MAP_SCORES:
            source, target = bases
            moved = [basis_rows(target, order) for order in orders]
            sides = [tile_side_of(some, None) for some in ([source], moved)]
            pairs = [(0, place) for place in range(len(moved))]
            values = score_tile(*sides, pairs, [name], null, exchange).values[:, 0, 0]
        else:
            rows = {"source": spaces[0], **{str(place): spaces[1][order] for place, order in enumerate(orders)}}
            pairs = [("source", str(place)) for place in range(len(orders))]
            values = score_rows(name, Activations(rows, {}), pairs, Resampling(exchange, None), null).values[:, 0]
        yield values[:, _COLUMNS]


def restricted(rows: np.ndarray, n_points: int) -> BasisRows:
    """Return the basis of all rows on the first of them, orthonormal there, as it is where spaces share some points."""
    numbers = basis_numbers(len(rows))
    space = spectral_space(rows, n_eigenpairs=numbers.n_eigenpairs, n_neighbors=numbers.n_neighbors, kernel="binary")
    every = space.basis.eigenvectors
    on_some = every if len(rows) == n_points else whitened_rows(every[:n_points])
    return BasisRows(space.basis.eigenvalues, on_some, basis_chance(on_some, basis_chance(every).localization))


def basis_rows(basis: BasisRows, order: np.ndarray) -> BasisRows:
    """Return a basis with its points in another order."""
    return BasisRows(basis.eigenvalues, basis.rows[order], basis.chance)


def line(name: str, values: np.ndarray) -> str:
    """Return the cells of a table: how the scores of permuted spaces lie to the chance that is stated for them."""
    scores, means, quantiles, p_values = values.T
    is_distance = name in MEASURES and MEASURES[name].kind == "distance"
    beyond = scores <= quantiles if is_distance else scores >= quantiles
    # Some have no p-value without permutations.
    shares = " | ".join(f"{np.nanmean(p_values <= level):.5f}" for level in (0.05, 0.01, 0.001))
    mean = (scores.mean() - means.mean()) / scores.std()
    return f"{len(scores):,} | {mean:+.3f} | {beyond.mean():.4f} | {shares}"


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
