"""Spaces whose scores are known beforehand, through graphs, bases and scores as a run computes them."""

from functools import partial

import numpy as np
import pytest
from scipy.stats import kstest

from lfm_tasks.config import AtlasConfig, GraphConfig, NullConfig
from lfm_tasks.measures.registry import MEASURES
from lfm_tasks.spectral.bases.full_map import full_map, overlap
from lfm_tasks.spectral.neighbors.search import tied_share
from lfm_tasks.stages.bases.job import basis_method, compute_basis
from lfm_tasks.stages.inventory.correspondence import Resampling
from lfm_tasks.stages.scores.block import STATISTICS
from lfm_tasks.stages.scores.full_maps import BasisRows, basis_chance, score_tile, tile_side_of
from lfm_tasks.stages.scores.pairwise_measures import Activations
from lfm_tasks.stages.scores.row_measures import score_rows
from lfm_tasks.statistics.model_pairs import false_discovery_rates
from lfm_tasks.statistics.resampling import Exchange, of_groups, within_strata

P = STATISTICS.index("p_value")
EUCLIDEAN = AtlasConfig(graph=GraphConfig(metric="euclidean"))


def ids_of(rows: np.ndarray) -> np.ndarray:
    return np.array([f"{number:05}" for number in range(len(rows))])


def basis_of(rows: np.ndarray, atlas: AtlasConfig | None = None) -> np.ndarray:
    """Return the basis of a space as a run computes it, by the catalog's defaults."""
    settings = AtlasConfig() if atlas is None else atlas
    method = basis_method(settings, settings.numbers(len(rows)), *rows.shape)
    return compute_basis(partial(iter, [rows]), ids_of(rows), method).eigenvectors


def clusters(n_points: int = 400, n_features: int = 12, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    middles = 3 * generator.standard_normal((6, n_features))
    return middles[generator.integers(6, size=n_points)] + generator.standard_normal((n_points, n_features))


def overlap_of(first: np.ndarray, second: np.ndarray) -> float:
    return float(overlap(full_map(first, second)))


def test_space_that_is_moved_turned_and_scaled__is_the_same_space() -> None:
    rows, generator = clusters(), np.random.default_rng(1)
    turn = np.linalg.qr(generator.standard_normal((12, 12)))[0]
    for scale in (1e-30, 3.0, 1e27):
        changed = scale * (rows @ turn + 100 * generator.standard_normal(12))
        assert overlap_of(basis_of(rows), basis_of(changed)) == pytest.approx(1, abs=1e-6)


def test_far_point__costs_the_same_however_far_it_is() -> None:
    # Its edges join the points farthest out on its side, which may be of several clusters: k wrong edges of n k.
    rows = clusters()
    radius = float(np.linalg.norm(rows - rows.mean(axis=0), axis=1).max())
    side = np.random.default_rng(2).standard_normal(12)
    scores = []
    for distance in (10, 100, 1000):
        moved = rows.copy()
        moved[7] = rows.mean(axis=0) + distance * radius * side / np.linalg.norm(side)
        scores.append(overlap_of(basis_of(rows, EUCLIDEAN), basis_of(moved, EUCLIDEAN)))
    assert min(scores) > 0.93
    assert np.ptp(scores) < 0.01


def test_duplicates__do_not_depend_on_the_order_of_the_file() -> None:
    rows = np.repeat(clusters(200), 3, axis=0)
    order = np.random.default_rng(3).permutation(len(rows))
    ids = ids_of(rows)
    # A run sorts rows by their ids; equal rows are told apart by these.
    method = basis_method(AtlasConfig(), AtlasConfig().numbers(len(rows)), *rows.shape)
    by_id = np.argsort(ids[order], kind="stable")
    again = compute_basis(partial(iter, [rows[order][by_id]]), ids, method).eigenvectors
    np.testing.assert_array_equal(again, basis_of(rows))


def test_ties__are_broken_alike_in_a_space_and_in_its_double() -> None:
    # Points of a grid: most neighbors are tied. A power of two changes no digit.
    grid = np.stack(np.meshgrid(np.arange(20.0), np.arange(20.0)), axis=-1).reshape(-1, 2)
    np.testing.assert_array_equal(basis_of(grid, EUCLIDEAN), basis_of(2 * grid, EUCLIDEAN))


N_POINTS, N_PAIRS = 60, 50
EXCHANGES = {
    "rows": Exchange(N_POINTS),
    "groups": of_groups(np.repeat(np.arange(30), 2)),
    "strata": within_strata(np.repeat(np.arange(4), 15)),
}


def unrelated(kind: str, seed: int) -> np.ndarray:
    """Return a space that has nothing in common with others but its groups, or its strata."""
    generator = np.random.default_rng([5, seed])
    if kind == "groups":
        return np.repeat(generator.standard_normal((30, 5)), 2, axis=0)
    rows = generator.standard_normal((N_POINTS, 5))
    return rows + (
        2 * np.repeat(np.random.default_rng(0).standard_normal((4, 5)), 15, axis=0) if kind == "strata" else 0
    )


@pytest.mark.parametrize("kind", EXCHANGES)
@pytest.mark.parametrize("name", ["overlap", "lfm", *sorted(MEASURES)])
def test_complete_null__has_uniform_p_values_and_no_discoveries(name: str, kind: str) -> None:
    exchange, null, spaces = EXCHANGES[kind], NullConfig(n_permutations=39), range(2 * N_PAIRS)
    # Copies of rows have no direction of their own for measures that compare neighbors by rank.
    rows = {
        f"{seed:03}": unrelated(kind, seed) + 0.05 * np.random.default_rng([6, seed]).standard_normal((N_POINTS, 5))
        for seed in spaces
    }
    keys = sorted(rows)
    pairs = list(zip(keys[::2], keys[1::2], strict=True))
    if name in MEASURES:
        p_values = score_rows(name, Activations(rows, {}), pairs, Resampling(exchange, None), null).values[:, 0, P]
    else:
        p_values = np.empty(N_PAIRS)
        for place, pair in enumerate(pairs):
            bases = [np.linalg.qr(np.column_stack([np.ones(N_POINTS), rows[key], rows[key] ** 2]))[0] for key in pair]
            sides = [tile_side_of([BasisRows(np.linspace(0, 1, 11), one, basis_chance(one))], None, 1) for one in bases]
            p_values[place] = score_tile(*sides, [(0, 0)], [name], null, exchange).values[0, 0, 0, P]
    assert kstest(p_values, "uniform").pvalue > 1e-3
    assert (false_discovery_rates(p_values) <= 0.05).sum() <= 2


def tied(rows: np.ndarray, n_neighbors: int = 10) -> float:
    return tied_share(rows, n_neighbors, metric="euclidean")


def test_ties__are_counted_where_rounding_settles_them_and_nowhere_else() -> None:
    rows = clusters()
    turn = np.linalg.qr(np.random.default_rng(4).standard_normal((12, 12)))[0]
    assert tied(rows) == tied(rows.astype(np.float32)) == 0
    grid = np.stack(np.meshgrid(np.arange(20.0), np.arange(20.0)), axis=-1).reshape(-1, 2)
    assert tied(grid) > 0.5
    assert tied(np.eye(60)) == 1
    copies = np.repeat(rows[:30], 12, axis=0)
    for changed in (copies, 3 * copies, copies @ turn):
        assert tied(changed) == 1
    # Ten neighbors of eleven points: all.
    assert tied(rows[:11]) == 0
