"""Every run leaves a log beside the atlas, however it ends."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lfm_tasks.catalog import read_catalog
from lfm_tasks.runtime.session import open_run
from lfm_tasks.stores.atlas.files import published_key
from lfm_tasks.stores.units.marker import STORE_FILE, STORE_FILES, STORE_FOLDERS


def logs(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((folder / ".lfm-atlas" / "runs").iterdir())]


@pytest.fixture
def folder(tmp_path: Path, related_spaces: Any, write_zoo: Callable[..., Path]) -> Path:
    models = related_spaces(2)
    models["model1"][0]["layer1"][0, 0] = float("nan")
    return write_zoo(tmp_path, models)


def test_run__leaves_a_log_each_and_the_atlas_as_it_is(folder: Path, build: Any) -> None:
    build(folder)
    before = {path: path.read_bytes() for path in (folder / "atlas").rglob("*") if path.is_file()}
    build(folder)

    first, second = logs(folder)
    assert {path: path.read_bytes() for path in (folder / "atlas").rglob("*") if path.is_file()} == before
    assert first["outcome"] == second["outcome"] == "done"
    assert first["key"] == second["key"] == published_key(folder / "atlas")
    assert first["started"] < first["ended"] < second["started"]
    assert 0 <= sum(first["stages"].values()) <= first["seconds"]
    assert set(first["stages"]) == {"validate", "activations", "bases", "scores", "collection", "maps", "atlas"}
    assert (first["computed"]["bases"], second["computed"]["bases"], second["reused"]["bases"]) == (3, 0, 3)
    assert [failure["reason"] for failure in first["failures"]] == ["not_finite"]
    assert {"numpy", "dask", "prefect", "lfm-atlas"} <= set(first["versions"])
    assert {"name", "system", "python", "cores", "memory_bytes"} <= set(first["host"])


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(OSError("disk full"), "failed"), (KeyboardInterrupt(), "stopped"), (SystemExit(143), "stopped")],
)
def test_run_that_ends_badly__says_how(error: BaseException, outcome: str, folder: Path) -> None:
    catalog = read_catalog(folder / "data_catalog.yaml")

    def fail() -> None:
        with open_run(catalog, lambda stage, done, total: None, in_process=True):
            (unfinished,) = logs(folder)
            assert (unfinished["outcome"], unfinished["ended"]) == ("unfinished", None)
            raise error

    with pytest.raises(type(error)):
        fail()

    (log,) = logs(folder)
    assert log["outcome"] == outcome
    assert log["error"] == f"{type(error).__name__}: {error}"


def test_store__holds_nothing_that_its_marker_does_not_know(zoo_folder_built: Path) -> None:
    for path in (zoo_folder_built / ".lfm-atlas").iterdir():
        assert path.name in (STORE_FOLDERS if path.is_dir() else STORE_FILES | {STORE_FILE})
