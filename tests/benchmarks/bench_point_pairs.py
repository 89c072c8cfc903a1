"""Measures of all pairs of points, many spaces at once: beside matrix products alone, and beside one pair at a time.

``python tests/benchmarks/bench_point_pairs.py [--spaces 200] [--points 2000] [--features 64] [--repeats 3]``. Scores of
all points and of halves. Both sides of a ratio alternate in one process, on one core.

What a pair takes beside its spaces follows from two passes, over all spaces and over half of them: the number of spaces
halves, that of pairs is a quarter.
"""

import argparse
import time
from collections.abc import Callable, Sequence

import numpy as np
from threadpoolctl import threadpool_limits

from lfm_tasks.config import AtlasConfig, NullConfig
from lfm_tasks.measures.matrix_pairs import matrix_cosines
from lfm_tasks.measures.point_matrices import MatrixForm, TiledMatrix
from lfm_tasks.measures.point_sets import PointSets, point_sets, space_rows
from lfm_tasks.measures.registry import MEASURES
from lfm_tasks.stages.inventory.correspondence import resampling
from lfm_tasks.stages.scores.pairwise_measures import Activations
from lfm_tasks.stages.scores.row_measures import score_rows

NAMES = ("cka_linear_debiased_song", "cka_rbf_half_median", "distance_correlation", "rsa_pearson_rdm_pearson")
Spaces = Sequence[np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, number in (("spaces", 200), ("points", 2000), ("features", 64), ("repeats", 3)):
        parser.add_argument(f"--{name}", type=int, default=number)
    given = parser.parse_args()
    spaces = related(given.spaces, given.points, given.features)
    with threadpool_limits(1):
        passes(spaces, given.repeats)
        whole(spaces)


def related(n_spaces: int, n_points: int, n_features: int) -> list[np.ndarray]:
    """Return layers of random networks on points of ten classes."""
    generator = np.random.default_rng(0)
    points = generator.standard_normal((10, 24))[generator.integers(10, size=n_points)] * 2
    points = points + generator.standard_normal((n_points, 24))
    weights = generator.standard_normal((n_spaces, 24, n_features)) / np.sqrt(24)
    return [np.tanh(points @ of_space).astype(np.float32) for of_space in weights]


def passes(spaces: Spaces, repeats: int) -> None:
    """Print what the pass over tiles takes, beside the products that it cannot do without."""
    n_spaces, n_points = len(spaces), len(spaces[0])
    ids = np.array([f"{index:06}" for index in range(n_points)])
    how = resampling(ids, None, AtlasConfig())
    sets = point_sets(n_points, how.halves)
    for name in NAMES:
        form = MEASURES[name].matrix
        if form is None:
            continue
        prepared, spent, of_pairs, alone = [], [], [], []
        for _ in range(repeats):
            start = time.process_time()
            rows_of = [space_rows(rows, sets.order) for rows in spaces]
            constants = [form.of_rows(rows, sets, None).constants for rows in rows_of]
            prepared.append(time.process_time() - start)
            matrices = [form.of_rows(rows, sets, known) for rows, known in zip(rows_of, constants, strict=True)]
            every, half = (seconds(lambda: cosines_of(some, sets, form)) for some in (matrices, matrices[::2]))  # noqa: B023
            spent.append(every)
            of_pairs.append(2 * (every - 2 * half))
            # With a bandwidth, a tile has a product for all points and one for each half that has its points.
            alone.append(products_alone(n_spaces, sets) * (2 if form.has_bandwidth else 1))
        each = 1e3 / (n_spaces * (n_spaces + 1) // 2)
        print(  # noqa: T201
            f"{name}, {n_spaces} spaces of {n_points} x {spaces[0].shape[1]}: preparing "
            f"{1e3 * np.median(prepared) / n_spaces:.0f} ms a space, pass {each * np.median(spent):.3f} ms a pair with "
            f"its spaces ({np.median(spent):.1f} s), {ratios(spent, alone)} x its products of "
            f"{each * np.median(alone):.3f} ms; pairs without spaces {each * np.median(of_pairs):.3f} ms, "
            f"{ratios(of_pairs, alone)} x"
        )


def cosines_of(matrices: Sequence[TiledMatrix], sets: PointSets, form: MatrixForm) -> None:
    every = np.arange(len(matrices))
    wanted = np.triu(np.ones((len(every), len(every)), dtype=bool))
    matrix_cosines(matrices, (every, every), sets, form, wanted)


def ratios(spent: Sequence[float], alone: Sequence[float]) -> str:
    """Return the median of ratios, the lowest and the highest."""
    found = np.array(spent) / np.array(alone)
    return f"{np.median(found):.1f} ({found.min():.1f} to {found.max():.1f})"


def products_alone(n_spaces: int, sets: PointSets) -> float:
    """Return the seconds of the products of all pairs over half of each matrix, in float32, sources 96 at a time."""
    longest = int(np.diff(sets.bounds).max()) ** 2
    tile = np.random.default_rng(0).standard_normal((n_spaces, longest), dtype=np.float32)
    other = tile.copy()
    n_tiles = len(sets.order) ** 2 / 2 / longest
    n_timed = 20
    start = time.process_time()
    for _ in range(n_timed):
        for first in range(0, n_spaces, 96):
            tile[first : first + 96] @ other[first:].T
    return (time.process_time() - start) * n_tiles / n_timed


def whole(spaces: Spaces) -> None:
    """Print what all statistics of all pairs take, beside one pair at a time (of which some are timed)."""
    n_pairs = len(spaces) * (len(spaces) - 1) // 2
    names = [str(place) for place in range(len(spaces))]
    pairs = [(first, second) for place, first in enumerate(names) for second in names[place + 1 :]]
    how = resampling(np.array([f"{index:06}" for index in range(len(spaces[0]))]), None, AtlasConfig())
    activations = Activations(dict(zip(names, spaces, strict=True)), {})
    for name in (*NAMES, "mutual_knn_10_cosine"):
        measure = MEASURES[name]
        score_rows(name, activations, pairs[:1], how, NullConfig())  # what is compiled is compiled before
        together = seconds(lambda: score_rows(name, activations, pairs, how, NullConfig()))  # noqa: B023
        first, second = spaces[0], spaces[1]
        halves = [half for split in how.halves for half in (~split, split)]
        alone = seconds(lambda: [measure(first, second), *(measure(first[half], second[half]) for half in halves)])  # noqa: B023
        print(  # noqa: T201
            f"{name}, all statistics: {1e3 * together / n_pairs:.2f} ms a pair, spaces included; one pair at a time, "
            f"with halves, without chance, {1e3 * alone:.0f} ms: {alone * n_pairs / together:,.0f} times as long"
        )


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


if __name__ == "__main__":
    main()
