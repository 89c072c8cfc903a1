"""On the shipped zoo an audit names the copy and the fine-tune, declared or not."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from lfm_atlas.cli.main import app

COPY = {"mlp_s0", "mlp_s0_permuted"}
FINETUNE = {"mlp_s0", "mlp_s0_finetuned"}


def audit(folder: Path) -> tuple[int, dict[str, dict[str, Any]]]:
    code = app(["audit", str(folder / "data_catalog.yaml"), "--no-prefect", "--no-dask"], result_action="return_value")
    checks = json.loads((folder / "audits" / "audit.json").read_text())["checks"]
    return code, {check["name"]: check for check in checks}


@pytest.fixture
def folder(zoo_folder_built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(zoo_folder_built, tmp_path / "zoo"))


def pairs(check: dict[str, Any]) -> list[set[str]]:
    return [{row["source"], row["target"]} for row in check["findings"]]


def test_declared_relatives__are_named_and_pass(folder: Path) -> None:
    code, checks = audit(folder)

    assert code == 0
    assert all(check["status"] in ("pass", "skipped") for check in checks.values())
    assert pairs(checks["near_duplicate"]) == [COPY]
    assert COPY in pairs(checks["undeclared_lineage"])
    assert FINETUNE in pairs(checks["undeclared_lineage"])
    assert all(row["declared"] for row in checks["undeclared_lineage"]["findings"])
    page = (folder / "audits" / "audit.html").read_text()
    assert "mlp_s0_permuted" in page
    assert "mlp_s0_finetuned" in page


def test_undeclared_relatives__are_found(folder: Path) -> None:
    catalog = folder / "data_catalog.yaml"
    catalog.write_text(re.sub(r", base_model: \w+, base_model_relation: \w+", "", catalog.read_text()))

    code, checks = audit(folder)

    assert code == 3
    assert checks["near_duplicate"]["status"] == "fail"
    assert pairs(checks["near_duplicate"]) == [COPY]
    assert checks["undeclared_lineage"]["status"] == "warn"
    found = pairs(checks["undeclared_lineage"])
    assert COPY in found
    assert FINETUNE in found
    # The fine-tune is as close to the copy; no other pair stands out.
    assert len(found) == 3
