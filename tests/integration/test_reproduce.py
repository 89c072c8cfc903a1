"""``lfm-atlas reproduce``: what it writes, what it says, and what it refuses."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from lfm_atlas.cli.main import app
from lfm_tasks.catalog import read_catalog
from lfm_tasks.errors import FolderError
from lfm_tasks.experiments.stage import EXPERIMENTS, PAPER_EXPERIMENTS, check_evidence_folder
from lfm_tasks.stores.outputs import GENERATOR
from lfm_tasks.zoo import write_start

LABELS = np.repeat(np.arange(3), 40)


def seeds(n_models: int = 3, n_points: int = 120) -> dict[str, Any]:
    """Return networks of one architecture: images of three classes by random layers that grow narrower."""
    generator = np.random.default_rng(0)
    ids = np.array([f"p{index:03}" for index in range(n_points)])
    latent = 3 * np.eye(3)[LABELS[:n_points]] + generator.standard_normal((n_points, 3))
    models = {}
    for index in range(n_models):
        order, layers, rows = generator.permutation(n_points), {}, latent
        for layer, width in enumerate((12, 8)):
            rows = np.tanh(rows @ generator.standard_normal((rows.shape[1], width)))
            layers[f"layer{layer}"] = rows.astype(np.float32)[order]
        models[f"model{index}"] = (layers, ids[order])
    return models


def reproduce(folder: Path, *arguments: str) -> int:
    """Run the command in this process."""
    catalog, output = str(folder / "data_catalog.yaml"), str(folder / "evidence")
    words = ["reproduce", catalog, "--output", output, "--no-prefect", "--no-dask", *arguments]
    try:
        return int(app(words, result_action="return_value"))
    except SystemExit as stop:
        return int(stop.code or 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, write_zoo: Callable[..., Path]) -> Path:
    """Give a zoo of three seeds whose layers were matched."""
    folder = write_zoo(tmp_path_factory.mktemp("evidence"), seeds(), {"labels": LABELS})
    assert reproduce(folder, "--experiment", "layer_matching") == 0
    return folder


def test_reproduce__writes_tables_figures_json_and_a_page(folder: Path) -> None:
    evidence = folder / "evidence"
    facts = json.loads((evidence / "evidence.json").read_text())
    result = facts["experiments"]["layer_matching"]

    assert facts["schema_version"] == 2
    assert result["settings"]["networks"] == ["model0", "model1", "model2"]
    assert {row["measure"] for row in result["tables"]["measures"]} >= {"overlap", "lfm_raw", "cka_linear"}
    assert all(0 <= row["scaled"] <= 1 for row in result["tables"]["measures"])
    pairs = pq.read_table(evidence / "tables" / "layer_matching-pairs.parquet").to_pandas()
    mean = pairs[(pairs["measure"] == "overlap") & pairs["scaled"]]["share"].mean()
    assert mean == pytest.approx(next(r["scaled"] for r in result["tables"]["measures"] if r["measure"] == "overlap"))
    assert (evidence / "figures" / "layer_matching-layers.svg").read_text().startswith("<svg ")
    page = (evidence / "evidence.html").read_text()
    assert "Layer matching" in page
    assert "<script" not in page
    assert "<svg viewBox" in page
    assert " style=" not in page, "the page's policy allows its style sheet only"


def test_reproduce__leaves_the_zoos_own_store_and_atlas_alone(folder: Path) -> None:
    assert not (folder / ".lfm-atlas").exists()
    assert not (folder / "atlas").exists()


def test_reproduce__gives_the_same_bytes_again(folder: Path) -> None:
    names = (
        "evidence.json",
        "evidence.html",
        "tables/layer_matching-pairs.parquet",
        "figures/layer_matching-layers.svg",
    )
    before = [(folder / "evidence" / name).read_bytes() for name in names]
    assert reproduce(folder, "--experiment", "layer_matching") == 0
    assert [(folder / "evidence" / name).read_bytes() for name in names] == before


def test_reproduce__refuses_what_the_catalog_has_not_got_and_does_the_rest(
    tmp_path: Path, write_zoo: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    write_zoo(tmp_path, seeds(1))  # one network, no labels
    assert reproduce(tmp_path, *(word for name in EXPERIMENTS for word in ("--experiment", name))) == 4
    printed = capsys.readouterr()

    for words in (
        "layer_matching: got 1 networks, no two with the same layers of the same widths, expected two that differ",
        "robustness: got no labels in the dataset probe, expected the class of each point. Add labels",
        "anchors: got 1 networks",
        "sensitivity: got 1 networks",
        "groundings: got 1 models and too little known of them that a score could agree with, expected two groups of",
    ):
        assert words in printed.err
    assert "1 experiment, 5 refused" in printed.out
    facts = json.loads((tmp_path / "evidence" / "evidence.json").read_text())
    assert list(facts["experiments"]) == ["cost"]
    assert facts["refused"]["robustness"]["reason"] == "missing_source"
    assert "expected the class of each point" in (tmp_path / "evidence" / "evidence.html").read_text()


def test_reproduce__says_which_experiments_there_are(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reproduce(folder, "--experiment", "layers") == 2
    assert "got no experiment 'layers', expected one of layer_matching, robustness" in capsys.readouterr().err


def test_reproduce__without_matplotlib_refuses_before_any_work(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    words = ["reproduce", str(folder / "data_catalog.yaml"), "--output", str(tmp_path / "evidence")]
    assert app(words, result_action="return_value") == 2
    assert 'python -m pip install "lfm-atlas[reproduce]"' in capsys.readouterr().err
    assert not (tmp_path / "evidence").exists()


def test_reproduce__refuses_a_file_as_its_folder(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").write_text("")
    words = ["reproduce", str(folder / "data_catalog.yaml"), "--output", str(tmp_path / "taken")]
    with pytest.raises(SystemExit, match="2"):
        app(words, result_action="return_value")
    assert "got a file or a link that leads nowhere, expected a folder to write into" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["tables", "figures", "zoos", "evidence.json", "evidence.html", "store"])
def test_reproduce__replaces_nothing_but_earlier_evidence(
    folder: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    catalog, output = read_catalog(folder / "data_catalog.yaml"), tmp_path / "work"
    mine = output / name if "." in name else output / name / "thesis.tex"
    mine.parent.mkdir(parents=True)
    mine.write_text("years of work")

    with pytest.raises(FolderError, match=f"work/{name}: got a"):
        check_evidence_folder(catalog, output)
    mine.unlink()
    if name != "store":
        (output / "evidence.json").write_text('{"schema_version": 2, "experiments": {}, "refused": {}}')
        (output / "evidence.html").write_text(GENERATOR)
        check_evidence_folder(catalog, output)


def test_robustness__refuses_one_class(
    tmp_path: Path, write_zoo: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    write_zoo(tmp_path, seeds(2), {"labels": np.zeros(120, dtype=int)})
    assert reproduce(tmp_path, "--experiment", "robustness") == 4
    assert "got 1 classes in the labels of the dataset probe, expected at least 2" in capsys.readouterr().err


def test_networks__that_were_made_of_others_are_refused(
    tmp_path: Path, write_zoo: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    catalog = write_zoo(tmp_path, seeds(1), {"labels": LABELS}) / "data_catalog.yaml"
    catalog.write_text(catalog.read_text() + "defaults: {meta: {untrained: true}}\n")
    assert reproduce(tmp_path, "--experiment", "cost") == 4
    assert "got 1 models, none of them trained from scratch" in capsys.readouterr().err


def test_layer_matching__refuses_networks_of_one_layer(
    tmp_path: Path, write_zoo: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    models = {name: ({"layer0": layers["layer0"]}, ids) for name, (layers, ids) in seeds(2).items()}
    write_zoo(tmp_path, models)
    assert reproduce(tmp_path, "--experiment", "layer_matching") == 4
    assert "got 1 layer in model0, model1, expected at least 2 to tell apart" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("prefect", ["--prefect", "--no-prefect"])
def test_reproduce__does_all_experiments_of_a_tiny_zoo(
    tmp_path: Path, write_zoo: Callable[..., Path], prefect: str
) -> None:
    write_zoo(tmp_path, seeds(), {"labels": LABELS})
    words = ["reproduce", str(tmp_path / "data_catalog.yaml"), "--output", str(tmp_path / "evidence"), prefect]
    assert app(words, result_action="return_value") == 0
    facts = json.loads((tmp_path / "evidence" / "evidence.json").read_text())

    assert list(facts["experiments"]) == sorted(PAPER_EXPERIMENTS)
    claims = [claim for result in facts["experiments"].values() for claim in result["claims"]]
    assert {claim["status"] for claim in claims} <= {"supported", "partly", "not supported", "not tested"}
    assert "No stitching: model model1: got no onnx" in " ".join(facts["experiments"]["anchors"]["notes"])
    steps = facts["experiments"]["robustness"]["tables"]["separability"]
    assert all(row["separable"] == row["of"] for row in steps[-3:])


@pytest.mark.slow
def test_reproduce__stitches_the_shipped_zoo(tmp_path: Path) -> None:
    write_start(tmp_path)
    assert reproduce(tmp_path, "--experiment", "anchors") == 0
    facts = json.loads((tmp_path / "evidence" / "evidence.json").read_text())
    stitched = {row["way"]: row for row in facts["experiments"]["anchors"]["tables"]["stitched"]}

    assert stitched["chosen"]["10"] > 0.9 > stitched["procrustes"]["5"]
