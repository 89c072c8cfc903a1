"""What the experiment of settings says of pairs without a value."""

import numpy as np
import xarray as xr

from lfm_tasks.experiments.sensitivity import missing_pairs
from lfm_tasks.experiments.source_zoo import Architecture


def test_pairs_of_layers_without_a_value__are_counted_by_their_reason() -> None:
    spaces = [f"{model}/{layer}" for model in ("a", "b", "other") for layer in ("x", "y")]
    score, status = np.ones((1, 1, 6, 6)), np.zeros((1, 1, 6, 6), dtype=np.int8)
    for source, target, reason in ((0, 2, 1), (0, 3, 1), (3, 0, 2), (0, 1, 2), (0, 4, 2)):
        score[0, 0, source, target], status[0, 0, source, target] = np.nan, reason
    dims = ("dataset", "measure", "source", "target")
    atlas = xr.Dataset(
        {"score": (dims, score), "status": (dims, status, {"flag_meanings": "ok little_overlap few_anchors"})},
        {"measure": ["overlap"], "source": spaces, "target": spaces},
    )

    counts = missing_pairs(atlas, Architecture("probe", ("a", "b"), ("x", "y"), (3, 2)))

    assert counts == {"little_overlap": 2, "few_anchors": 1}
