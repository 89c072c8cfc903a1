"""Blocks of pairs: together they hold every missing pair once."""

import numpy as np
import pytest

from lfm_tasks.config import NullConfig
from lfm_tasks.stages.inventory.correspondence import FULL_CORRESPONDENCE, Correspondence
from lfm_tasks.stages.scores.pair_index import ScoringInputs
from lfm_tasks.stages.scores.stage import blocks
from tests.unit.stages.scores.test_pair_index import FEW, a_table

ONE_BY_ONE = Correspondence(regime="anchors", refine="zoomout", n_anchors=5)


@pytest.mark.parametrize(
    ("n_bases", "correspondence", "measures", "n_permutations", "groups", "n_blocks", "side"),
    [
        (40, FULL_CORRESPONDENCE, ("lfm",), 100, "", 6, 16),
        (1000, FULL_CORRESPONDENCE, ("lfm",), 100, "", 136, 64),
        (1000, FULL_CORRESPONDENCE, ("lfm",), 100, "groups", 231, 48),
        (1000, FEW, ("lfm", "overlap"), 0, "", 136, 64),
        (1000, FEW, ("lfm", "overlap"), 100, "", 231, 48),
        (1000, FEW, ("lfm", "cka_linear"), 0, "", 10, 256),
        (1000, FULL_CORRESPONDENCE, ("cka_linear", "overlap"), 100, "", 10, 256),
        (1000, FULL_CORRESPONDENCE, ("cka_linear", "lfm"), 100, "", 10, 256),
        (1000, FULL_CORRESPONDENCE, ("cka_linear", "lfm"), 100, "groups", 231, 48),
        (1000, FULL_CORRESPONDENCE, ("cka_linear", "overlap"), 100, "groups", 10, 256),
        (1000, FULL_CORRESPONDENCE, ("cka_linear", "cca_mean"), 0, "", 66, 96),
        (1000, FULL_CORRESPONDENCE, ("gulp_lambda_0", "cca_mean"), 0, "", 231, 48),
        (60, FULL_CORRESPONDENCE, ("cka_linear",), 0, "", 10, 16),
        (100, ONE_BY_ONE, ("lfm",), 0, "", 28, 16),
        (1000, ONE_BY_ONE, ("lfm",), 0, "", 2016, 16),
    ],
)
def test_blocks__hold_every_missing_pair_once(
    n_bases: int,
    correspondence: Correspondence,
    measures: tuple[str, ...],
    n_permutations: int,
    groups: str,
    n_blocks: int,
    side: int,
) -> None:
    table = a_table(n_bases, measures=measures)
    table.in_scope[:] &= np.random.default_rng(0).random(table.in_scope.shape) < 0.9
    table.block[3, :] = 0
    found = list(blocks(table, ScoringInputs(correspondence, groups, ""), NullConfig(n_permutations=n_permutations)))

    assert len(found) == n_blocks
    seen = np.zeros_like(table.requested, dtype=int)
    for block in found:
        assert list(block.bases) == sorted(block.bases)
        assert (block.sides[:, 0] <= block.sides[:, 1]).all()
        assert len(np.unique(block.sides)) == len(block.bases) <= 2 * side
        places = np.array([table.positions[base] for base in block.bases])[block.sides]
        np.add.at(seen, tuple(places.T), 1)
    np.testing.assert_array_equal(seen, table.missing)


@pytest.mark.parametrize(("measures", "n_blocks"), [(("cka_linear",), 4), (("cca_mean",), 21), (("lfm",), 16)])
def test_spaces_that_arrive__are_in_one_block_with_each_other_space(measures: tuple[str, ...], n_blocks: int) -> None:
    table = a_table(1000, measures=measures)
    new = np.random.default_rng(0).choice(1000, 12, replace=False)
    is_known = np.ones((1000, 1000), dtype=bool)
    is_known[new] = is_known[:, new] = False
    table.block[is_known] = 0
    found = list(blocks(table, ScoringInputs(FULL_CORRESPONDENCE, "", ""), NullConfig()))

    assert len(found) == n_blocks
    assert sum(len(block.sides) for block in found) == 12 * 988 + 12 * 13 // 2
    # Each of the others once, and the new ones in each block.
    assert sum(len(block.bases) for block in found) == 988 + 12 * n_blocks


def test_blocks__of_nothing_are_none() -> None:
    table = a_table(3)
    table.block[:] = 0
    assert list(blocks(table, ScoringInputs(FULL_CORRESPONDENCE, "", ""), NullConfig())) == []
