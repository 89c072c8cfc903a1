"""The pages about the atlas: their code runs, and they leave no reason out."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from lfm_atlas.cli.main import app
from lfm_tasks.catalog import read_catalog
from lfm_tasks.errors import REASONS

DOCS = Path(__file__).parents[2] / "docs"


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


@pytest.fixture
def beside_the_atlas(zoo_folder_built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("atlas", ".lfm-atlas"):
        shutil.copytree(zoo_folder_built / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_atlas_page__has_python_that_runs(beside_the_atlas: Path) -> None:
    tables, python = re.findall(r"```python\n(.*?)```", page("atlas.md"), re.DOTALL)
    names: dict[str, object] = {}
    for code in (tables, python):
        exec(compile(code, "atlas.md", "exec"), names)  # noqa: S102 - our own page

    assert getattr(names["functional_map"], "shape", None) == (33, 33)
    assert getattr(names["overlap"], "dims", None) == ("source", "target")
    assert len(names["frame"]) == 2 * 40 * 39  # type: ignore[arg-type]


def test_atlas_page__has_commands_that_run(beside_the_atlas: Path) -> None:
    (commands,) = re.findall(r"```sh\n(.*?)```", page("atlas.md"), re.DOTALL)
    for line in commands.splitlines():
        assert app(shlex.split(line)[1:], result_action="return_value") == 0, line

    for name in ("edges.csv", "zoo.graphml", "projector/tensors.tsv", "spaces.parquet"):
        assert (beside_the_atlas / name).stat().st_size > 1000


def test_troubleshooting__explains_every_reason_once() -> None:
    codes = re.findall(r"^\| `(\w+)` \| \S.* \| \S.* \|$", page("troubleshooting.md"), re.MULTILINE)

    assert sorted(codes) == sorted(REASONS)


@pytest.mark.parametrize("name", ["start.md", "atlas.md", "scores.md", "troubleshooting.md"])
def test_links__lead_somewhere(name: str) -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#([^)]+))?\)", page(name))

    assert targets
    for target, heading in targets:
        titles = re.findall(r"^#+ (.+)$", page(target), re.MULTILINE)
        anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
        assert not heading or heading in anchors, (target, heading)


def test_start_page__leads_from_files_to_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make, ask = re.findall(r"```python\n(.*?)```", page("start.md"), re.DOTALL)
    catalog, short = re.findall(r"```yaml\n(.*?)```", page("start.md"), re.DOTALL)
    (commands,) = re.findall(r"```sh\n(.*?)```", page("start.md"), re.DOTALL)
    exec(compile(make, "start.md", "exec"), {})  # noqa: S102 - our own page
    (tmp_path / "data_catalog.yaml").write_text(short)
    assert list(read_catalog(tmp_path / "data_catalog.yaml").models) == ["a", "b", "c"]
    assert len(short.splitlines()) == 4
    (tmp_path / "data_catalog.yaml").write_text(catalog)
    for line in commands.splitlines():
        # In this process: the orchestration has its own tests.
        arguments = [*shlex.split(line)[1:], *(["--no-dask"] if line == "lfm-atlas run" else [])]
        assert app(arguments, result_action="return_value") == 0, line
    capsys.readouterr()
    names: dict[str, object] = {}
    exec(compile(ask, "start.md", "exec"), names)  # noqa: S102 - our own page

    nearest, farther = names["nearest"], names["farther"]
    assert isinstance(nearest, dict)
    assert isinstance(farther, dict)
    assert (nearest["name"], farther["name"]) == ("b", "c")
    assert nearest["q_value"] < 1e-6
    assert nearest["value"] > 0.3
    assert farther["q_value"] > 0.05
    assert abs(farther["value"]) < 0.05
    assert "status" in capsys.readouterr().out
