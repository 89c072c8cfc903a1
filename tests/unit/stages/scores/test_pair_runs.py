"""Pairs in few numbers: the same pairs in the same order."""

import numpy as np
import pytest

from lfm_tasks.stages.scores.pair_runs import n_pairs_of_runs, pairs_of_runs, runs_of_pairs


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_runs__have_the_pairs_in_their_order(share: float) -> None:
    rng = np.random.default_rng(0)
    in_order = np.argwhere(rng.random((30, 40)) < share)
    for pairs in (in_order, rng.permutation(in_order), in_order.astype(np.uint16)):
        runs = runs_of_pairs(pairs)
        np.testing.assert_array_equal(pairs_of_runs(runs), pairs)
        assert n_pairs_of_runs(runs) == len(pairs)


def test_runs__of_a_whole_block_are_few() -> None:
    assert runs_of_pairs(np.argwhere(np.ones((256, 256)))).shape == (256, 3)
    assert runs_of_pairs(np.argwhere(np.triu(np.ones((5, 5))))).tolist() == [
        [0, 0, 5], [1, 1, 4], [2, 2, 3], [3, 3, 2], [4, 4, 1],
    ]  # fmt: skip
