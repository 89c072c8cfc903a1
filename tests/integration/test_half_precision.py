"""Half precision lies in the store as it is, and is cast up before anything is computed from it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lfm_atlas.pipeline import Outcome
from lfm_tasks.stores.atlas.files import read_atlas
from lfm_tasks.stores.units.store import UnitStore


def test_half_precision__gives_the_scores_of_the_same_values_in_single(
    tmp_path: Path,
    related_spaces: Callable[..., dict[str, Any]],
    write_zoo: Callable[..., Path],
    build: Callable[..., Outcome],
) -> None:
    halves = {
        model: ({name: (rows * 200).astype(np.float16) for name, rows in layers.items()}, ids)
        for model, (layers, ids) in related_spaces(2).items()
    }
    singles = {
        model: ({name: rows.astype(np.float32) for name, rows in layers.items()}, ids)
        for model, (layers, ids) in halves.items()
    }
    measures = ["lfm", "overlap", "cka_linear_debiased_song"]

    for folder, models in (("half", halves), ("single", singles)):
        build(write_zoo(tmp_path / folder, models, measures=measures))

    half, single = (read_atlas(tmp_path / folder / "atlas")["score"].values for folder in ("half", "single"))
    # Blocks are ordered by content, so that a sum may run the other way.
    np.testing.assert_allclose(half, single, rtol=1e-12)
    for folder, dtype in (("half", np.float16), ("single", np.float32)):
        store = UnitStore(tmp_path / folder / ".lfm-atlas")
        for receipt in store.receipts("activations"):
            with store.open("activations", receipt.key) as unit:
                assert unit.read("activations").dtype == dtype
