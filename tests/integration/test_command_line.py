"""The command line as a person meets it."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lfm_atlas.cli import main
from lfm_atlas.cli.main import app
from lfm_tasks import __version__


def lfm_atlas(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "lfm_atlas", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


def test_version__is_printed(tmp_path: Path) -> None:
    printed = lfm_atlas("--version", folder=tmp_path)

    assert (printed.returncode, printed.stdout.strip()) == (0, __version__)


def test_help__names_every_command_and_the_exit_codes(tmp_path: Path) -> None:
    printed = lfm_atlas("--help", folder=tmp_path).stdout

    commands = ("run", "validate", "plan", "report", "show", "diff", "export", "map", "transfer", "maps", "init")
    scheduled = ("audit", "prune", "deploy", "serve")
    for word in (*commands, *scheduled, "--version", "Exit codes", "130 or 143"):
        assert word in printed


def test_help__loads_nothing_heavy(tmp_path: Path) -> None:
    code = "import sys, lfm_atlas.cli.main; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert not {"numpy", "prefect", "dask", "zarr", "sklearn", "onnxruntime", "xarray"} & set(loaded)


def test_unknown_option__is_2_and_names_the_nearest(tmp_path: Path) -> None:
    refused = lfm_atlas("run", "--no-prefct", folder=tmp_path)

    assert refused.returncode == 2
    assert "--no-prefect" in refused.stderr + refused.stdout


def test_lost_rights__are_a_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(**_: object) -> None:
        raise PermissionError(13, "Permission denied", "there/x.csv")

    monkeypatch.setattr(main, "app", refused)
    monkeypatch.setattr(main.signal, "signal", lambda *_: None)

    with pytest.raises(SystemExit, match=r"^1$"):
        main.main()
    assert "there/x.csv: permission denied. Choose a place that you may write to" in capsys.readouterr().err


def test_catalog__may_be_named_by_an_option_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("run", "plan", "validate", "prune", "maps"):
        with pytest.raises(SystemExit, match=r"^2$"):
            app([command, "-c", str(tmp_path / "mine.yaml")], result_action="return_value")
        assert "mine.yaml: cannot be read" in capsys.readouterr().err


def test_run_without_a_catalog__says_how_to_get_one(tmp_path: Path) -> None:
    refused = lfm_atlas("run", folder=tmp_path)

    assert refused.returncode == 2
    assert "lfm-atlas init" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_init__writes_a_catalog_that_validates(tmp_path: Path) -> None:
    assert lfm_atlas("init", folder=tmp_path).returncode == 0

    checked = lfm_atlas("validate", folder=tmp_path)

    assert (checked.returncode, checked.stdout.strip()) == (0, "8 models, 40 spaces, 0 cannot be used")
    assert len(list((tmp_path / "zoo").glob("*.onnx"))) == 8
    assert sum(path.stat().st_size for path in (tmp_path / "zoo").iterdir()) < 600_000


def test_init__overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "data_catalog.yaml").write_text("mine")

    refused = lfm_atlas("init", folder=tmp_path)

    assert refused.returncode == 2
    assert "Choose an empty folder" in refused.stderr
    assert (tmp_path / "data_catalog.yaml").read_text() == "mine"


def test_plan__tells_new_from_kept_and_writes_nothing(
    tmp_path: Path, related_spaces: Any, write_zoo: Callable[..., Path], build: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_zoo(tmp_path, related_spaces(2))

    def plan() -> str:
        app(["plan", str(folder / "data_catalog.yaml")], result_action="return_value")
        return capsys.readouterr().out

    before = plan()
    assert not (folder / ".lfm-atlas").exists()
    build(folder)
    after = plan()
    write_zoo(tmp_path, related_spaces(3))
    with_one_more = plan()

    for line in ("activations  4 to record, 0 kept", "bases        4 to compute, 0 kept", "scores       10 pairs"):
        assert line in before
    for line in ("activations  0 to record, 4 kept", "bases        0 to compute, 4 kept", "scores       0 pairs"):
        assert line in after
    for line in ("activations  2 to record, 4 kept", "bases        2 to compute, 4 kept", "scores       11 pairs"):
        assert line in with_one_more


def test_validate__lists_what_cannot_be_used(
    tmp_path: Path, related_spaces: Any, write_zoo: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_zoo(tmp_path, related_spaces(2))
    (folder / "model1.npz").unlink()

    code = app(["validate", str(folder / "data_catalog.yaml")], result_action="return_value")

    assert code == 2
    assert "[missing_source]" in capsys.readouterr().err


def test_report__draws_the_published_atlas_once_more(zoo_folder_built: Path, tmp_path: Path) -> None:
    drawn = lfm_atlas("report", str(zoo_folder_built / "atlas"), "--output", "again.html", folder=tmp_path)

    assert drawn.returncode == 0, drawn.stderr
    published = (zoo_folder_built / "atlas" / "report.html").read_text()
    again = (tmp_path / "again.html").read_text()
    assert "computed on" not in published.split("<main>")[0]
    assert re.sub(r"; computed on \d{4}-\d\d-\d\d", "", again, count=1) == published != again


def test_report_of_a_store_without_run_logs__says_so(zoo_folder_built: Path, tmp_path: Path) -> None:
    asked = ("report", str(zoo_folder_built / "atlas"), "--output", str(tmp_path / "r.html"), "--store", str(tmp_path))

    refused = app(asked, result_action="return_value")

    assert refused == 2
    assert not (tmp_path / "r.html").exists()


def test_report_of_no_atlas__says_what_to_do(tmp_path: Path) -> None:
    refused = lfm_atlas("report", "nowhere", folder=tmp_path)

    assert refused.returncode == 2
    assert "lfm-atlas run" in refused.stderr


@pytest.mark.parametrize("command", ["show", "diff", "layers", "map", "maps", "plan", "validate", "verify"])
def test_command_that_tells_facts__has_the_option_format(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    app([command, "--help"], result_action="return_value")

    assert re.search(r"--format .*json", capsys.readouterr().out, re.DOTALL)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dashboard", "--no-dask"], "got --dashboard with --no-dask, expected workers to look at"),
        (["--prefect-ui", "--no-prefect"], "got --prefect-ui in a run without Prefect, expected one with it"),
        (["--dashboard"], "got no Bokeh, expected it for --dashboard. Do: pip install 'lfm-atlas[dashboard]'"),
    ],
)
def test_pages_that_a_run_cannot_serve__are_refused_before_it_starts(
    options: list[str],
    message: str,
    zoo_folder_built: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("lfm_atlas.cli.run.find_spec", lambda name: None)

    code = app(["run", "-c", str(zoo_folder_built / "data_catalog.yaml"), *options], result_action="return_value")

    assert code == 2
    assert capsys.readouterr().err.startswith(message)


def test_completion__is_installed_by_a_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SHELL", "/bin/bash")
    (tmp_path / ".bashrc").write_text("mine=1\n", encoding="utf-8")

    app(["--install-completion"], result_action="return_value")

    (script,) = tmp_path.rglob("completions/lfm-atlas")
    assert "nearest" in script.read_text(encoding="utf-8") or "show" in script.read_text(encoding="utf-8")
    assert (tmp_path / ".bashrc").read_text(encoding="utf-8").startswith("mine=1\n")


# What takes long to import, and these commands do without.
HEAVY = {"dask", "numba", "pandas", "prefect", "pyarrow", "scipy.stats", "sklearn", "sqlite3", "xarray", "zarr"}


@pytest.mark.parametrize(
    ("arguments", "also_without"),
    [
        ("show atlas nearest mlp_s0", {"onnx", "pydantic"}),
        ("show atlas pair mlp_s0 mlp_s1", {"onnx", "pydantic", "scipy.special"}),
        ("show atlas summary", {"onnx", "pydantic", "scipy.special", "scipy.sparse"}),
        ("diff atlas atlas", {"onnx", "pydantic", "scipy.special", "scipy.sparse"}),
        ("plan", {"rich", "scipy.special"}),
    ],
)
def test_command_that_answers_at_once__imports_nothing_heavy(
    arguments: str, also_without: set[str], zoo_folder_built: Path
) -> None:
    code = (
        f"import sys; from lfm_atlas.cli import main; sys.argv = ['lfm-atlas', *{arguments!r}.split()]\n"
        "try: main.main()\n"
        "except SystemExit as end: print(end.code, *sys.modules)"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=zoo_folder_built, capture_output=True, text=True, check=True
    )

    code, *loaded = done.stdout.splitlines()[-1].split()
    assert code == "0", done.stderr
    assert not (HEAVY | also_without) & set(loaded)
