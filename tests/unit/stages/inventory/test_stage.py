"""Rows to record: under a cap the same ids stay, whatever else a source holds and in whatever order."""

import numpy as np

from lfm_tasks.stages.inventory.stage import drawn_rows


def test_drawn_rows__are_of_the_same_ids_in_every_source() -> None:
    ids = np.array([f"point-{index:04d}" for index in range(200)])
    drawn = set(ids[drawn_rows(ids, 50, kind="cap", seed=1)])
    order = np.random.default_rng(0).permutation(200)
    shuffled = drawn_rows(ids[order], 50, kind="cap", seed=1)
    assert set(ids[order][shuffled]) == drawn
    assert (np.diff(shuffled) > 0).all()
    fewer = ids[::2]
    assert drawn & set(fewer) <= set(fewer[drawn_rows(fewer, 50, kind="cap", seed=1)])
    assert set(ids[drawn_rows(ids, 50, kind="cap", seed=2)]) != drawn
    assert set(ids[drawn_rows(ids, 50, kind="picture", seed=1)]) != drawn
