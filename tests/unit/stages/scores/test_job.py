"""Parts of a block of pairs: which bases are read together."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lfm_tasks.stages.inventory.correspondence import FULL_CORRESPONDENCE
from lfm_tasks.stages.scores.job import _parts


def block(n_low: int, n_high: int) -> Any:
    """Return a block of all pairs of two groups, or of one group if the second has no bases."""
    low, high = np.arange(n_low), n_low + np.arange(n_high)
    sides = np.stack(np.triu_indices(n_low), axis=1)
    if n_high:
        sides = np.stack(np.meshgrid(low, high, indexing="ij"), axis=-1).reshape(-1, 2)
    atlas = SimpleNamespace(measures=("cca_mean",))
    return SimpleNamespace(
        sides=sides,
        bases=range(n_low + n_high),
        n_pairs=len(sides),
        correspondence=FULL_CORRESPONDENCE,
        atlas=atlas,
    )


@pytest.mark.parametrize(
    ("n_low", "n_high", "side", "n_parts", "n_read"),
    [
        (48, 48, 64, 1, 96),
        (64, 64, 64, 1, 128),
        (17, 16, 16, 2, 17 + 2 * 16),
        (200, 40, 64, 4, 200 + 4 * 40),
        (40, 200, 64, 4, 200 + 4 * 40),
        (48, 0, 64, 1, 48),
        (48, 0, 16, 6, 3 * 48),
        (129, 0, 64, 6, 3 * 129),
    ],
)
def test_parts__have_each_pair_once_and_read_no_base_more_often_than_they_must(
    n_low: int, n_high: int, side: int, n_parts: int, n_read: int
) -> None:
    job = block(n_low, n_high)
    parts = list(_parts(job, side))
    assert sorted(pair for part in parts for pair in part) == list(range(len(job.sides)))
    ends = [job.sides[part] for part in parts]
    assert all(len(np.unique(of_side)) <= side for part in ends for of_side in part.T)
    assert (len(parts), sum(len(np.unique(part)) for part in ends)) == (n_parts, n_read)
