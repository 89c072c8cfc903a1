"""A provider that changed two vectors of its model is found by the next audit, which names them."""

import json
from collections.abc import Callable
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
from ruamel.yaml import YAML

from lfm_atlas.cli.main import app


def audit(folder: Path) -> int:
    command = ["audit", str(folder / "data_catalog.yaml"), "--no-prefect", "--no-dask"]
    return int(app(command, result_action="return_value"))


def test_canary__of_changed_vectors_fails_the_audit(
    tmp_path: Path, related_spaces: Any, write_zoo: Callable[..., Path]
) -> None:
    folder = write_zoo(tmp_path, related_spaces(2, n_points=120, n_layers=1))
    path = folder / "data_catalog.yaml"
    content = YAML(typ="safe").load(path.read_text())
    off = dict.fromkeys(("near_duplicate", "undeclared_lineage", "changed_weights_same_version", "quality", "drift"))
    content["audit"] = {"canary": {"dataset": "probe"}, "checks": off}
    with path.open("w") as file:
        YAML().dump(content, file)
    assert audit(folder) == 0
    with np.load(folder / "model1.npz") as arrays:
        layers = dict(arrays)
    layers["layer0"][[3, 8]] *= -1
    np.savez(folder / "model1.npz", **layers)
    ids = np.load(folder / "model1_ids.npy")[[3, 8]]

    assert audit(folder) == 3
    checks = json.loads((folder / "audits" / "audit.json").read_text())["checks"]
    [canary] = [check for check in checks if check["name"] == "canary"]
    assert canary["status"] == "fail"
    assert {finding["id"] for finding in canary["findings"]} == set(ids)
    assert {finding["cosine"] for finding in canary["findings"]} == {-1.0}


def test_canary__of_vectors_that_change_a_little_every_night_fails_in_the_end(
    tmp_path: Path, related_spaces: Any, write_zoo: Callable[..., Path]
) -> None:
    """Each night passes and becomes the baseline; the first vectors stay, also when the store is deleted."""
    folder = write_zoo(tmp_path, related_spaces(2, n_points=120, n_layers=1))
    path = folder / "data_catalog.yaml"
    content = YAML(typ="safe").load(path.read_text())
    off = dict.fromkeys(("near_duplicate", "undeclared_lineage", "changed_weights_same_version", "quality", "drift"))
    content["audit"] = {"canary": {"dataset": "probe"}, "checks": off}
    with path.open("w") as file:
        YAML().dump(content, file)
    with np.load(folder / "model1.npz") as arrays:
        layers = dict(arrays)
    first = layers["layer0"].astype(np.float64)
    other = np.roll(first, 1, axis=1) * [[-1, 1] * (first.shape[1] // 2) + [0] * (first.shape[1] % 2)]
    codes = []
    for night in range(4):
        if night == 2:
            rmtree(folder / ".lfm-atlas")
        layers["layer0"] = (first + 0.02 * night * other).astype(np.float32)
        np.savez(folder / "model1.npz", **layers)
        codes.append(audit(folder))
        assert (folder / "audits" / "canary.json").is_file()
    assert codes == [0, 0, 0, 3]
    checks = json.loads((folder / "audits" / "audit.json").read_text())["checks"]
    [canary] = [check for check in checks if check["name"] == "canary"]
    assert "vectors moved since " in canary["message"]
