"""``lfm-atlas run --only`` and ``--comparison``: a part of what the catalog asks."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lfm_atlas.atlas import atlas_flow
from lfm_atlas.cli.main import app

COMPARISONS = """
comparisons:
  near: {sources: model0, targets: model1}
  far: {sources: model0, targets: model2}
"""


@pytest.fixture
def catalog(tmp_path: Path, related_spaces: Any, write_zoo: Callable[..., Path]) -> Path:
    path = write_zoo(tmp_path, related_spaces(3)) / "data_catalog.yaml"
    path.write_text(path.read_text() + COMPARISONS)
    return path


def run(catalog: Path, *options: str) -> int:
    return app(["run", str(catalog), "--no-dask", *options], result_action="return_value")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--only", "modle0"), "--only: no model matches 'modle0'; did you mean 'model0'"),
        (("--comparison", "nere"), "--comparison: no 'nere'; did you mean 'near'?"),
    ],
)
def test_unknown_name__is_2_and_names_the_nearest(
    catalog: Path, options: tuple[str, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(catalog, *options) == 2
    assert message in capsys.readouterr().err
    assert not (catalog.parent / ".lfm-atlas").exists()


def test_flow__refuses_unknown_names_too(catalog: Path) -> None:
    with pytest.raises(ValueError, match=r"no model matches 'modle0'.*; --comparison: no 'nere'"):
        atlas_flow().fn(str(catalog), only=["model0", "modle0"], comparisons=["nere"])


def test_flow__has_parameters_that_a_form_can_show() -> None:
    properties = atlas_flow().parameters.properties

    assert list(properties) == ["catalog", "trust_code", "only", "comparisons", "scheduler"]
    for name in ("only", "comparisons"):
        assert {"type": "array", "items": {"type": "string"}} in properties[name]["anyOf"]
        assert properties[name]["description"].startswith("Compute only")


def test_only__computes_what_touches_the_model(catalog: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(catalog, "--only", "model2")
    first = capsys.readouterr().out

    run(catalog, "--only", "model[01]", "--comparison", "near")
    second = capsys.readouterr().out

    assert run(catalog) == 0
    rest = capsys.readouterr().out
    assert "activations 2 new, 0 kept, bases 2 new" in first
    assert "activations 4 new" in second
    assert "activations 0 new, 6 kept, bases 0 new" in rest


def test_comparison__may_be_given_twice(catalog: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(catalog, "--comparison", "near")
    one = capsys.readouterr().out
    run(catalog, "--comparison", "near", "--comparison", "far")
    both = capsys.readouterr().out

    assert "activations 4 new" in one
    assert "scores 4 new, 0 kept" in one
    assert "activations 2 new, 4 kept" in both
    assert "scores 4 new, 4 kept" in both


def test_only__goes_through_prefect(catalog: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    command = [sys.executable, "-m", "lfm_atlas", "run", str(catalog), "--only", "model2", "--comparison", "far"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)

    assert "activations 2 new, 0 kept, bases 2 new" in done.stdout, done.stderr
    assert "Traceback" not in done.stderr
