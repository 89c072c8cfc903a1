"""``lfm-atlas layers``: what a model has, before a pattern is written."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lfm_atlas.cli.main import app

SHIPPED = str(Path(__file__).parents[2] / "data_catalog.yaml")


def layers(*arguments: str) -> Any:
    return app(["layers", *arguments], result_action="return_value")


def test_layers__of_the_shipped_zoo_names_shapes_and_marks_the_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    assert layers("cnn_s0", SHIPPED) == 0
    lines = capsys.readouterr().out.splitlines()
    chosen = [line.split()[1] for line in lines if line.startswith("* ")]
    assert chosen
    assert all(name.startswith("relu") or name == "logits" for name in chosen)
    assert any(line.split()[0] == "logits" or line.split()[1:3] == ["logits", "10"] for line in lines)
    assert any(line.startswith("* relu1") and line.count(" × ") == 2 for line in lines)


def test_layers__as_json_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert layers("tanh_s0", SHIPPED, "--format", "json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert {tuple(entry) for entry in listed} == {("name", "shape", "chosen", "problem")}
    (logits,) = (entry for entry in listed if entry["name"] == "logits")
    assert logits == {"name": "logits", "shape": [10], "chosen": True, "problem": ""}


def test_layers__of_files_are_what_their_headers_say(
    tmp_path: Path, related_spaces: Any, write_zoo: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_zoo(tmp_path, related_spaces(2))
    assert layers("model1", str(folder / "data_catalog.yaml")) == 0
    assert capsys.readouterr().out.splitlines() == ["* layer0  13", "* layer1  13"]


def test_layers__without_a_catalog_are_of_the_one_in_the_working_directory(
    tmp_path: Path,
    related_spaces: Any,
    write_zoo: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(write_zoo(tmp_path, related_spaces(1)))
    assert layers("model0") == 0
    without = capsys.readouterr().out
    assert layers("model0", "--catalog", "data_catalog.yaml") == 0
    assert without == capsys.readouterr().out != ""


def test_layers__of_an_unknown_model_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert layers("mlp_s9", SHIPPED) == 2
    message = capsys.readouterr().err
    assert "got no model 'mlp_s9' in the catalog; did you mean 'mlp_s" in message
    assert "[missing_source]" in message


def test_layers__of_a_factory_that_nobody_trusts_runs_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data_catalog.yaml").write_text("""
version: 1
datasets: {probe: {builtin: digits, split: probe}}
models: {net: {torch: {factory: "own_zoo:net", dataset: probe}}}
""")
    assert layers("net", str(tmp_path / "data_catalog.yaml")) == 2
    assert (
        "use --trust-code, or name its module in LFM_ATLAS_TRUSTED_MODULES [untrusted_code]" in capsys.readouterr().err
    )
