"""Scores of maps between known points: without anything in common, their p-values are uniform."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import kstest

from lfm_tasks.config import NullConfig
from lfm_tasks.spectral.bases.full_map import overlap
from lfm_tasks.stages.scores.block import STATISTICS
from lfm_tasks.stages.scores.full_maps import BasisRows, basis_chance, score_tile, tile_side_of
from lfm_tasks.statistics.resampling import Exchange, of_groups

P = STATISTICS.index("p_value")
MEASURES = ["overlap", "lfm"]


@pytest.mark.parametrize("groups", [None, np.repeat(np.arange(50), 2)], ids=["rows", "groups"])
def test_p_values__of_maps_of_unrelated_spaces_are_uniform(groups: np.ndarray | None) -> None:
    n_alike = 1 if groups is None else 2
    exchange = Exchange(100) if groups is None else Exchange(100, tuple(np.arange(100).reshape(50, 2)), "sets")
    found: dict[str, list[float]] = {name: [] for name in MEASURES}
    for draw in range(200):
        generator = np.random.default_rng([3, draw])
        rows = [np.repeat(generator.standard_normal((100 // n_alike, 5)), n_alike, axis=0) for _ in range(2)]
        bases = []
        for side in rows:
            basis = np.linalg.qr(np.column_stack([np.ones(100), side, side**2]))[0]
            bases.append(BasisRows(np.linspace(0, 1, 11), basis, basis_chance(basis)))
        sides = [tile_side_of([basis], None, n_spaces=1) for basis in bases]
        null = NullConfig(n_permutations=99, seed=draw)
        (values,) = score_tile(sides[0], sides[1], [(0, 0)], MEASURES, null, exchange).values
        for column, name in enumerate(MEASURES):
            found[name].append(values[0, column, P])
    for name, p_values in found.items():
        assert kstest(p_values, "uniform").pvalue > 1e-3, name
        assert np.mean(np.array(p_values) <= 0.05) < 0.11, name


def test_groups__have_few_permutations_where_spaces_are_far_beyond_chance() -> None:
    generator = np.random.default_rng(4)
    # Of equal groups the chance of overlap is known in closed form.
    exchange = of_groups(np.repeat(np.arange(48), [2] * 44 + [3] * 4))
    latent = generator.standard_normal((48, 5))[np.repeat(np.arange(48), [2] * 44 + [3] * 4)]
    spaces = [latent, latent + 0.1 * generator.standard_normal((100, 5)), generator.standard_normal((100, 5))]
    bases = []
    for rows in spaces:
        basis = np.linalg.qr(np.column_stack([np.ones(100), rows, rows**2]))[0]
        bases.append(BasisRows(np.linspace(0, 1, 11), basis, basis_chance(basis)))
    source, targets = (tile_side_of(some, None, n_spaces=2) for some in (bases[:1], bases[1:]))
    null, pairs = NullConfig(n_permutations=60), [(0, 0), (0, 1)]
    values = score_tile(source, targets, pairs, ["overlap"], null, exchange).values[:, 0, 0]
    for statistics, other, n_drawn in zip(values, bases[1:], (10, 60), strict=True):
        drawn = [overlap(other.rows[exchange.permutation(draw)].T @ bases[0].rows) for draw in range(n_drawn)]
        assert statistics[STATISTICS.index("null_mean")] == pytest.approx(np.mean(drawn), rel=1e-5)
    assert values[0, P] < 1e-8 < 1e-3 < values[1, P]


def test_overlap_of_bases_that_one_group_dominates__is_localized_and_has_no_p_without_permutations() -> None:
    generator, groups = np.random.default_rng(4), np.arange(120) // 3
    exchange, bases = of_groups(groups), []
    for is_heavy in (True, False, True, False):
        rows = generator.standard_normal((120, 6))
        rows[groups == 5] *= 30 if is_heavy else 1
        basis = np.linalg.qr(np.column_stack([np.ones(120), rows]))[0]
        bases.append(BasisRows(np.linspace(0, 1, 7), basis, basis_chance(basis)))
    sources, targets = (tile_side_of(some, None, n_spaces=2) for some in (bases[:2], bases[2:]))
    null = NullConfig(n_permutations=0)
    found = score_tile(sources, targets, [(0, 0), (1, 1)], ["overlap"], null, exchange)
    heavy, plain = found.values[:, 0, 0]
    assert found.localized == {(0, 0)}
    mean = STATISTICS.index("null_mean")
    assert np.isfinite([heavy[mean], plain[mean], plain[P]]).all()
    assert np.isnan(heavy[P])
    drawn = score_tile(sources, targets, [(0, 0), (1, 1)], ["lfm", "overlap"], NullConfig(), exchange)
    assert drawn.localized == {(0, 1)}  # of ``lfm`` in groups all chance is drawn
    assert np.isfinite(drawn.values[..., P]).all()


def test_sums_of_a_basis__are_kept_by_what_may_change_places() -> None:
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((120, 5)))[0]
    kept = BasisRows(np.linspace(0, 1, 5), basis, basis_chance(basis), address=("test of kept sums",))
    pairs_of_points, triples = of_groups(np.arange(120) // 2), of_groups(np.arange(120) // 3)
    assert kept.sums_in(pairs_of_points) is kept.sums_in(of_groups(np.arange(120) // 2))
    assert len(kept.sums_in(triples).mean) == 18
    assert replace(kept, address=None).sums_in(triples) is not kept.sums_in(triples)
