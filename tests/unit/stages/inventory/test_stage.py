"""Rows to record: under a cap the same ids stay, whatever else a source holds and in whatever order."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm_atlas.console import no_progress
from lfm_tasks.catalog import read_catalog
from lfm_tasks.stages.inventory.stage import drawn_rows, validate_catalog
from tests.conftest import WriteZoo


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


def test_opening__stops_after_some_hundred_models_that_fail_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_zoo: WriteZoo, related_spaces: Any
) -> None:
    monkeypatch.setattr("lfm_tasks.stages.inventory.stage.MOST_EQUAL_FAILURES", 3)
    folder = write_zoo(tmp_path, related_spaces(6))
    for number in range(5):
        (folder / f"model{number}.npz").unlink()
    catalog = read_catalog(folder / "data_catalog.yaml")

    zoo = validate_catalog(catalog, no_progress)

    # The sixth could be opened, but nobody should get an atlas of what one mistake has left.
    assert zoo.spaces == ()
    assert [failure.message.startswith("not opened") for failure in zoo.failures] == [False] * 3 + [True] * 3
    assert "each of the first 3 models failed like model0. Fix that first" in zoo.failures[-1].message


def test_opening__goes_on_where_any_model_could_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_zoo: WriteZoo, related_spaces: Any
) -> None:
    monkeypatch.setattr("lfm_tasks.stages.inventory.stage.MOST_EQUAL_FAILURES", 3)
    folder = write_zoo(tmp_path, related_spaces(6))
    for number in range(1, 5):
        (folder / f"model{number}.npz").unlink()

    zoo = validate_catalog(read_catalog(folder / "data_catalog.yaml"), no_progress)

    assert {planned.space.model for planned in zoo.spaces} == {"model0", "model5"}
    assert len(zoo.failures) == 4
