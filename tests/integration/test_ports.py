"""Ports in the section ``parity`` of a catalog: checks of the audit, exit code 3, JUnit, and sections of its pages."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from ruamel.yaml import YAML

from lfm_atlas.cli.main import app

N_LAYERS, N_POINTS, WIDTH = 12, 60, 8
OFF = dict.fromkeys(
    ("near_duplicate", "undeclared_lineage", "declared_parent_far", "changed_weights_same_version", "quality", "drift")
)


def layers_of(fault: Callable[[int, np.ndarray], np.ndarray] = lambda number, rows: rows) -> dict[str, np.ndarray]:
    """Return the layers of a residual network, whose faults go on to the layers that follow."""
    generator = np.random.default_rng(3)
    rows = generator.standard_normal((N_POINTS, WIDTH)).astype(np.float32)
    layers = {}
    for number in range(N_LAYERS):
        weights = generator.standard_normal((WIDTH, WIDTH)).astype(np.float32) / np.float32(np.sqrt(WIDTH))
        with np.errstate(invalid="ignore"):
            rows = fault(number, rows + np.tanh(rows @ weights)).astype(np.float32)
        layers[f"block{number}"] = rows
    return layers


def in_another_order(layers: dict[str, np.ndarray], seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    order = np.random.default_rng(seed).permutation(N_POINTS)
    ids = np.array([f"p{number:02}" for number in range(N_POINTS)])
    return {name: rows[order] for name, rows in layers.items()}, ids[order]


def overflowing(number: int, rows: np.ndarray) -> np.ndarray:
    return np.where(rows > np.quantile(rows, 0.9), np.inf, rows) if number == 9 else rows


MODELS = {
    "network": in_another_order(layers_of(), 0),
    "same": in_another_order(layers_of(), 1),
    "scaled": in_another_order(layers_of(lambda number, rows: rows * 1.01 if number == 5 else rows), 2),
    "overflowing": in_another_order(layers_of(overflowing), 3),
}


@pytest.fixture
def zoo(tmp_path: Path, write_zoo: Callable[..., Path]) -> Path:
    return write_zoo(tmp_path, MODELS)


def audit(folder: Path, parity: dict[str, Any]) -> int:
    path = folder / "data_catalog.yaml"
    content = YAML(typ="safe").load(path.read_text())
    content |= {"audit": {"checks": OFF}, "parity": parity}
    with path.open("w") as file:
        YAML().dump(content, file)
    return int(app(["audit", str(path), "--no-prefect", "--no-dask"], result_action="return_value"))


def written(folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((folder / "audits" / "audit.json").read_text())
    return facts | {"by_name": {check["name"]: check for check in facts["checks"]}}


def port_to(candidate: str, **more: Any) -> dict[str, Any]:
    return {"reference": "network", "candidate": candidate, **more}


def test_ports__are_checks_whose_faults_are_located_and_named(zoo: Path) -> None:
    ports = {name: port_to(name) for name in ("same", "scaled", "overflowing")}
    assert audit(zoo, ports) == 3
    facts = written(zoo)
    same, scaled, overflowing = (facts["by_name"][f"parity.{name}"] for name in ports)
    assert (same["status"], same["observed"]) == ("pass", 0)
    assert (scaled["status"], scaled["observed"]) == ("fail", N_LAYERS - 5)
    assert [scaled["findings"][0][key] for key in ("layer", "kind")] == ["block5", "scale"]
    assert "first beyond tolerance: block5, 60 of 60 rows" in scaled["message"]
    assert "every number is 1.01 times as large" in scaled["message"]
    # A space with infinite numbers is none: the atlas lacks it, the port does not.
    assert [overflowing["findings"][0][key] for key in ("layer", "kind")] == ["block9", "not_finite"]
    assert [layer["reference"] for layer in facts["parity"][1]["layers"]] == [f"block{n}" for n in range(N_LAYERS)]

    suite = ElementTree.parse(zoo / "audits" / "audit.junit.xml").getroot()  # noqa: S314 - written by the audit
    failed = {case.get("name") for case in suite if case.find("failure") is not None}
    assert failed == {"parity.scaled", "parity.overflowing"}
    for name in ("audit.html", "report.html"):
        page = (zoo / "audits" / name).read_text()
        assert page.count('<svg class="depth"') == 3
        assert 'id="audit-parity.scaled"' in page
        assert page.count('class="beyond"') == (N_LAYERS - 5) + (N_LAYERS - 9)
        assert "every number is 1.01 times as large" in page


def test_ports__pass_within_their_tolerance_or_warn(zoo: Path) -> None:
    ports = {"loose": port_to("scaled", tolerance=0.5), "off": port_to("scaled", enforced=False)}
    assert audit(zoo, ports) in (0, 4)  # 4: the network that overflows is in the zoo, too
    found = written(zoo)
    assert {name: check["status"] for name, check in found["by_name"].items() if "parity" in name} == {
        "parity.loose": "pass", "parity.off": "warn",
    }  # fmt: skip
    assert found["verdict"] == "warn"


def test_ports__take_a_table_of_layers(zoo: Path) -> None:
    assert audit(zoo, {"shifted": port_to("same", layers={"block0": "block0", "block3": "block4"})}) == 3
    assert written(zoo)["by_name"]["parity.shifted"]["findings"][0]["layer"] == "block3"


@pytest.mark.parametrize(
    ("port", "message"),
    [
        (port_to("sames"), "parity: got no model 'sames' in the catalog; did you mean 'same'?"),
        (port_to("same", layers={"block0": "nothing"}), "got the layer 'nothing' in the table"),
        (port_to("same", dataset="elsewhere"), "model network is not on the dataset 'elsewhere'"),
    ],
)
def test_ports__that_cannot_be_compared_fail_with_a_reason_and_leave_the_others(
    zoo: Path, port: dict[str, Any], message: str
) -> None:
    assert audit(zoo, {"bad": port, "good": port_to("same")}) == 3
    found = written(zoo)
    assert found["by_name"]["parity.bad"]["status"] == "error"
    assert message in found["by_name"]["parity.bad"]["message"]
    assert found["by_name"]["parity.good"]["status"] == "pass"
    assert [port["check"] for port in found["parity"]] == ["parity.good"]
