"""``lfm-atlas show``, ``diff`` and ``export``: what a person and a program read."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm_atlas import open_atlas
from lfm_atlas.cli.main import app
from lfm_tasks.stores.atlas.files import read_atlas, write_atlas
from lfm_tasks.stores.atlas.publication import publish

ODD = "[red]</td>|=x"


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, related_spaces: Any, write_zoo: Callable[..., Path], build: Any
) -> Path:
    models = related_spaces(3)
    models["model0"][0][ODD] = models["model0"][0]["layer0"] * 2
    models["model1"][0]["layer1"][0, 0] = np.nan
    folder = write_zoo(tmp_path_factory.mktemp("commands"), models)
    build(folder)
    return folder


def called(*arguments: object) -> int:
    try:
        return app([str(argument) for argument in arguments], result_action="return_value")
    except SystemExit as error:
        return int(error.code or 0)


def test_show_nearest__is_a_table_and_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert called("show", folder / "atlas", "nearest", "model0/layer0", "-n", 1) == 0
    table = capsys.readouterr().out
    assert called("show", folder / "atlas", "nearest", "model0/layer0", "--format", "json") == 0
    rows = json.loads(capsys.readouterr().out)["nearest"]

    title, header, row = table.splitlines()
    assert title == "nearest to model0/layer0 by overlap"
    assert header.split()[:3] == ["name", "value", "margin"]
    assert row.startswith(f"model0/{ODD} ")
    assert "1.000" in row
    assert rows[0]["name"] == f"model0/{ODD}"
    with open_atlas(folder / "atlas") as atlas:
        assert rows == atlas.nearest("model0/layer0")


def test_show_pair__has_all_numbers_of_spaces_and_summaries_of_models(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def shown(*names: str) -> dict[str, Any]:
        assert called("show", folder / "atlas", "pair", *names, "--format", "json") == 0
        return json.loads(capsys.readouterr().out)

    spaces, models, mixed = (
        shown("model0/layer0", "model1/layer0"), shown("model0", "model1"), shown("model0", "model1/layer0")
    )  # fmt: skip

    with open_atlas(folder / "atlas") as atlas:
        pair = atlas.pair("model0/layer0", "model1/layer0").sel(measure="overlap")
        best = atlas.matrix("overlap").sel(source="model1", target="model0")
    (row,) = [row for row in spaces["pair"] if row["measure"] == "overlap"]
    assert (row["score"], row["status"], row["n_common"]) == (float(pair["score"]), "ok", 120)
    (row,) = [row for row in models["models"] if row["measure"] == "overlap"]
    assert row["best_match_back"] == float(best)
    assert {(row["source"], row["measure"]) for row in mixed["pair"]} == {
        (f"model0/{layer}", measure) for layer in ("layer0", "layer1", ODD) for measure in ("lfm", "overlap")
    }


def test_show_relations__has_families_pairs_and_what_the_levels_mean(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called("show", folder / "atlas", "relations", "--format", "json") == 0

    shown = json.loads(capsys.readouterr().out)
    assert set(shown) == {"families", "relations", "levels"}
    n_models = len(open_atlas(folder / "atlas").models)
    assert sum(row["pairs"] for row in shown["levels"]) == n_models * (n_models - 1) / 2
    assert [row["level"] for row in shown["levels"]][:2] == ["copy", "related"]


def test_show_summary__tells_what_failed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert called("show", folder / "atlas", "summary") == 0
    printed = capsys.readouterr().out
    assert called("show", folder / "atlas", "summary", "--format", "json") == 0

    assert "spaces that failed" in printed
    assert "not_finite" in printed
    assert json.loads(capsys.readouterr().out)["counts"][0]["spaces"] == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nearest", "modle0"), "did you mean 'model0'"),
        (("nearest", "\x1b[2Jmodel0"), r"got the text '\x1b[2Jmodel0'"),
        (("nearest",), "got 0 names, show nearest needs 1: models, or spaces as model/layer"),
        (("pair", "model0"), "got 1 names, show pair needs 2"),
        (("summary", "model0"), "got 1 names, show summary needs 0"),
        (("nearest", "model0", "--measure", "ovrlap"), "did you mean 'overlap'"),
        (("nearest", "model1/layer1"), "which failed"),
        (("nearst", "model0"), "expected one of nearest, pair, relations"),
        ((), "got no view after"),
    ],
)
def test_show__says_what_is_wrong_on_stderr(
    folder: Path, arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called("show", folder / "atlas", *arguments) == 2

    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.out == ""


@pytest.mark.parametrize("words", [("relations",), ("nearest", "model0")], ids=" ".join)
def test_show__without_an_atlas_says_how_to_write_it(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert called("show", *words) == 2
    assert f"Write: lfm-atlas show atlas {' '.join(words)}" in capsys.readouterr().err


@pytest.mark.parametrize("command", [("show", "nowhere", "summary"), ("diff", "nowhere", "nowhere")])
def test_no_atlas__is_told(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert called(*command) == 2
    assert "got no atlas in nowhere" in capsys.readouterr().err


def test_diff__of_an_atlas_with_itself_is_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert called("diff", folder / "atlas", folder / "atlas", "--format", "json") == 0

    found = json.loads(capsys.readouterr().out)
    assert found["spaces"] == {"added": [], "removed": [], "changed": [], "unknown": []}
    assert (found["settings"], found["largest_changes"]) == ([], [])
    assert found["pairs"]["compared"] == 2 * 6 * 5
    assert found["pairs"]["changed"] == found["pairs"]["left_interval"] == 0


def test_diff__of_less_than_no_pairs_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert called("diff", folder / "atlas", folder / "atlas", "-n", -1) == 2
    assert "got -n -1, expected 0 or more pairs of each measure" in capsys.readouterr().err


def test_diff__tells_spaces_settings_and_scores_that_moved(
    folder: Path, tmp_path: Path, related_spaces: Any, write_zoo: Any, build: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    models = related_spaces(4)
    del models["model2"]
    models["model1"][0]["layer0"][:] = np.random.default_rng(1).standard_normal(models["model1"][0]["layer0"].shape)
    build(write_zoo(tmp_path, models, null={"n_permutations": 20}))

    assert called("diff", folder / "atlas", tmp_path / "atlas", "--format", "json", "-n", 3) == 0
    found = json.loads(capsys.readouterr().out)
    assert called("diff", folder / "atlas", tmp_path / "atlas") == 0
    printed = capsys.readouterr().out

    names = {kind: [row["space"] for row in rows] for kind, rows in found["spaces"].items()}
    assert names["added"] == ["model1/layer1", "model3/layer0", "model3/layer1"]
    assert names["removed"] == [f"model0/{ODD}", "model2/layer0", "model2/layer1"]
    assert names["changed"] == ["model1/layer0"]
    assert found["settings"] == [{"name": "null.n_permutations", "base": 19, "candidate": 20}]
    assert found["pairs"]["compared"] == 2 * 3 * 2
    assert found["pairs"]["changed"] == 2 * 2 * 2
    # An interval from a space of noise may be wide enough to hold another one.
    assert 6 <= found["pairs"]["left_interval"] <= 8
    assert len(found["largest_changes"]) == 2 * 3
    for row in found["largest_changes"]:
        assert "model1/layer0" in (row["source"], row["target"])
        assert row["left_interval"] is not (row["ci_low"] <= row["candidate"] <= row["ci_high"])
    assert "spaces changed: 1" in printed
    assert "settings that differ" in printed


def test_diff__with_an_atlas_that_tells_no_contents_says_so(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    atlas = read_atlas(folder / "atlas").drop_vars(["content", "basis"]).assign_attrs(schema_version=2)
    summary = json.loads((folder / "atlas" / "summary.json").read_text()) | {"schema_version": 2}
    with publish(tmp_path / "old", "key") as staged:
        write_atlas(atlas, {}, staged)
        (staged / "summary.json").write_text(json.dumps(summary))

    assert called("diff", tmp_path / "old", folder / "atlas") == 0

    assert "spaces of which an atlas does not tell the content: 6" in capsys.readouterr().out


@pytest.mark.parametrize("format", ["csv", "graphml", "projector", "embedding-atlas"])
def test_export__writes_and_keeps_stdout_clean(
    format: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called("export", folder / "atlas", tmp_path / "out", "--format", format) == 0

    printed = capsys.readouterr()
    assert printed.out == ""
    assert "wrote " in printed.err
    assert (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--format", "csv", "--max-q", "0.1"), "--max-q or --min-value with --format csv, expected --format graphml"),
        (
            ("--format", "graphml", "--points-of", "model0/layer0"),
            "--points-of with --format graphml, expected projector",
        ),
        (("--format", "projector", "--points-of", "model0/layer0"), "got no embedding of 'model0/layer0'"),
        (("--format", "graphml", "--measure", "lmf"), "did you mean 'lfm'"),
    ],
)
def test_export__refuses_what_does_not_fit(
    options: tuple[str, ...], message: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called("export", folder / "atlas", tmp_path / "out", *options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "command", [("export", "--format", "csv"), ("export", "--format", "embedding-atlas"), ("report", "--output")]
)
def test_folder_where_a_file_is_to_be_written__is_told(
    command: tuple[str, ...], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *options = command
    arguments = [tmp_path, *options] if name == "export" else [*options, tmp_path]

    assert called(name, folder / "atlas", *arguments) == 2
    assert "got a folder, expected a file to write. Give its name, too" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_report__of_a_damaged_atlas_says_which_file(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(folder / "atlas", tmp_path / "atlas")
    (tmp_path / "atlas" / "edges.parquet").unlink()

    assert called("report", tmp_path / "atlas") == 2
    assert "edges.parquet is missing" in capsys.readouterr().err


def test_show__in_a_process_of_its_own_has_logs_on_stderr_only(folder: Path) -> None:
    command = [sys.executable, "-m", "lfm_atlas", "show", str(folder / "atlas"), "summary", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)

    assert set(json.loads(done.stdout)) == {"counts", "models", "failures"}
    assert done.stderr == ""
