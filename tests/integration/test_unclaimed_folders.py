"""Folders that no section of ``discover`` takes are told by every command, and none of them stops the others."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from lfm_atlas.cli.main import app
from lfm_tasks.catalog import catalog_schema

DISCOVER = {
    "language": {"transformers": {"path": "hub/{model}", "dataset": "docs", "max_tokens": 128}},
    "vision": {"transformers": {"path": "hub/{model}", "dataset": "photos"}},
}
LOOKED_FOR = "config.json, modules.json or adapter_config.json"
REMARK = f"'logs': no section of discover takes this folder: it holds no {LOOKED_FOR}"
FAILURE = "got the folder 'old', which no section of discover takes: it holds pytorch_model.bin"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, write_zoo: Any, related_spaces: Callable[..., Any]) -> Path:
    """Give a zoo of files whose catalog also discovers checkpoints, in a folder with none that can be used."""
    folder = write_zoo(tmp_path_factory.mktemp("zoo"), related_spaces(2, n_layers=1))
    path = folder / "data_catalog.yaml"
    catalog = YAML(typ="safe", pure=True).load(path)
    catalog["datasets"] |= {"docs": {"texts": {"path": "t.txt"}}, "photos": {"images": {"path": "i/*.png"}}}
    path.write_text(json.dumps({**catalog, "discover": DISCOVER}))
    for name, file in (("logs", "log.txt"), ("old", "pytorch_model.bin")):
        (folder / "hub" / name).mkdir(parents=True)
        (folder / "hub" / name / file).touch()
    return folder


COMMANDS = [
    (["validate"], 2),
    (["run", "--no-prefect", "--no-dask"], 4),
    (["audit", "--no-prefect", "--no-dask"], 3),  # a broken limit: the model without scores
]


@pytest.mark.parametrize(("command", "code"), COMMANDS, ids=lambda value: value[0] if isinstance(value, list) else "")
def test_folders_that_nobody_takes__are_told(
    command: list[str], code: int, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *options = command
    assert app([name, str(folder / "data_catalog.yaml"), *options], result_action="return_value") == code
    told = capsys.readouterr().err
    assert REMARK in told
    assert FAILURE in told
    assert "[refused_arrival]" in told


def test_plan__tells_them_as_well(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    app(["plan", str(folder / "data_catalog.yaml")], result_action="return_value")
    told = capsys.readouterr().out
    assert REMARK in told
    assert "1 model or layer cannot be used" in told


def test_log_of_a_run__names_them(folder: Path) -> None:
    logs = sorted((folder / ".lfm-atlas" / "runs").glob("*.json"))
    assert json.loads(logs[-1].read_text())["unclaimed"] == [REMARK]


def test_schema__accepts_raw_inputs_and_checkpoints(folder: Path) -> None:
    content = json.loads((folder / "data_catalog.yaml").read_text())
    jsonschema.validate(content, catalog_schema())
    content["discover"]["language"]["transformers"]["max_tokens"] = "many"
    with pytest.raises(jsonschema.ValidationError, match="'many' is not valid"):
        jsonschema.validate(content, catalog_schema())
