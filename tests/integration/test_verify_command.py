"""``lfm-atlas verify`` lists damage; the next run makes exactly that again."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from lfm_atlas.cli.main import app
from lfm_tasks.stores.units.durable import locked

SMALLER = {"graph": {"n_neighbors": 5}, "n_eigenpairs": 4, "null": {"n_permutations": 9}, "measures": ["overlap"]}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, related_spaces: Any, write_zoo: Any, build: Any) -> Path:
    models = related_spaces(2, n_points=40, n_layers=1)
    folder: Path = write_zoo(tmp_path_factory.mktemp("built"), models, **SMALLER)
    build(folder)
    return folder


def verify(folder: Path, *options: str) -> int:
    code = app(["verify", str(folder / "data_catalog.yaml"), *options], result_action="return_value")
    assert isinstance(code, int)
    return code


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_verify__lists_damage_and_the_next_run_makes_just_that_again(
    built: Path, tmp_path: Path, build: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "zoo"
    shutil.copytree(built, folder)
    assert verify(folder) == 0
    assert ", 0 damaged" in capsys.readouterr().out
    arrays = next(folder.glob(".lfm-atlas/units/bases/*/arrays.zip"))
    key = arrays.parent.name
    arrays.write_bytes(bytes(len(arrays.read_bytes())))
    (folder / "atlas" / "summary.json").unlink()

    assert verify(folder) == 1
    found = capsys.readouterr().err
    assert f"units/bases/{key}: unit bases/{key}: arrays.zip is damaged" in found
    assert f"{folder / 'atlas'}: summary.json is missing" in found
    assert verify(folder, "--format", "json") == 1
    assert len(json.loads(capsys.readouterr().out)["damages"]) == 2
    outcome = build(folder)
    assert (outcome.computed["activations"], outcome.computed["bases"], outcome.computed["atlas"]) == (0, 1, 1)
    assert outcome.quarantined == (f"units/bases/{key}: unit bases/{key}: arrays.zip is damaged",)
    assert contents(folder / "atlas") == contents(built / "atlas")
    assert verify(folder) == 0


def test_verify__tells_of_lost_notes_and_damaged_names_and_runs_mend_notes(
    built: Path, tmp_path: Path, build: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "zoo"
    shutil.copytree(built, folder)
    [note] = folder.glob(".lfm-atlas/references/*.json")
    content = note.read_bytes()
    (folder / ".lfm-atlas" / "maps").mkdir()
    (folder / ".lfm-atlas" / "maps" / "mine.json").write_text("{}")
    note.unlink()
    assert verify(folder) == 1
    found = capsys.readouterr().err
    assert f"references/{note.name}: got no note of what the atlas" in found
    assert "maps/mine.json: got a damaged file mine.json" in found
    note.write_bytes(content[:-1])
    assert verify(folder) == 1
    assert f"references/{note.name}: it is no note of an atlas, or not as it was written" in capsys.readouterr().err
    build(folder)
    assert note.read_bytes() == content


def test_verify_of_nothing__says_what_to_do(tmp_path: Path, built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copyfile(built / "data_catalog.yaml", tmp_path / "data_catalog.yaml")
    assert verify(tmp_path) == 2
    assert "expected what a run has made: lfm-atlas run [missing_source]" in capsys.readouterr().err
    shutil.copytree(built / "atlas", tmp_path / "atlas")
    assert verify(tmp_path) == 0


def test_atlas_that_lost_its_manifest__is_published_again_where_the_store_knows_it(
    built: Path, tmp_path: Path, build: Any
) -> None:
    folder = tmp_path / "zoo"
    shutil.copytree(built, folder)
    (folder / "atlas" / "manifest.json").unlink()

    assert build(folder).computed["atlas"] == 1
    assert contents(folder / "atlas") == contents(built / "atlas")


def test_second_run__is_refused_before_it_starts_anything(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lfm_tasks.stores.units.durable import StoreBusyError

    monkeypatch.setattr("lfm_atlas.prefect_server._start", lambda *_: pytest.fail("it started a server"))
    with locked(built / ".lfm-atlas", "first"), pytest.raises(StoreBusyError, match=r"'first' .*, started 20"):
        app(["run", str(built / "data_catalog.yaml")], result_action="return_value")
