"""Models on two datasets: one row a model, everything on each dataset, and maps between the two that use no id.

The second dataset holds the points of the first by other names and in another order, turned: so everything is known.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.stats import ortho_group

from lfm_atlas.cli.main import app
from lfm_atlas.pipeline import Outcome, build_atlas
from lfm_tasks.catalog import read_catalog
from lfm_tasks.errors import DataError
from lfm_tasks.planning import missing_work, plan_run
from lfm_tasks.published.across import across_rows, datasets_tables
from lfm_tasks.published.atlas import Atlas, open_atlas
from lfm_tasks.report import render_report
from lfm_tasks.runtime.run import Scope
from lfm_tasks.runtime.session import open_run
from lfm_tasks.stages.inventory.inspection import list_layers, read_zoo
from lfm_tasks.stages.inventory.stage import validate_catalog
from lfm_tasks.stages.transfers.job import AnchorSpec
from lfm_tasks.stages.transfers.named import fit_named_map
from lfm_tasks.stores.atlas.files import read_atlas, read_groups, read_json, write_atlas
from lfm_tasks.stores.atlas.publication import publish

Build = Callable[[Path], Outcome]
N_POINTS = 160
COMPARISONS = {
    "first": {"sources": "*", "targets": "*", "dataset": "first"},
    "second": {"sources": "*", "targets": "*", "dataset": "second"},
    "by-shape": {
        "sources": "a/*",
        "targets": ["a/*", "b/deep"],
        "dataset": "first",
        "target_dataset": "second",
        "maps": {"regime": "unsupervised"},
    },
    "by-class": {
        "sources": ["a/*", "b/*"],
        "targets": ["a/*", "b/*"],
        "dataset": "first",
        "target_dataset": "second",
        "maps": {"regime": "labels", "refine": "none"},
        "measures": ["overlap"],
    },
}


def write_datasets(folder: Path) -> Path:
    """Write two models on both datasets, a third on the first one alone."""
    generator = np.random.default_rng(0)
    # Ids are row numbers in both: equal ids of two datasets mean nothing.
    ids = np.arange(N_POINTS).astype(str)
    classes = generator.integers(0, 4, N_POINTS)
    latent = generator.standard_normal((4, 5))[classes] * 2 + generator.standard_normal((N_POINTS, 5))
    order = generator.permutation(N_POINTS)
    models: dict[str, Any] = {}
    for number, name in enumerate("abc"):
        layers = {}
        for layer in ("shallow", "deep"):
            image = np.tanh(latent @ generator.standard_normal((5, 10 + number)))
            layers[layer] = image + 0.05 * generator.standard_normal(image.shape)
        for dataset, rows in (("first", np.arange(N_POINTS)), ("second", order)):
            turned = {layer: values[rows] for layer, values in layers.items()}
            if dataset == "second":
                turned = {
                    layer: values @ ortho_group.rvs(values.shape[1], random_state=1) for layer, values in turned.items()
                }
            np.savez(folder / f"{dataset}_{name}.npz", **turned)
        on = ("first", "second") if name != "c" else ("first",)
        models[name] = {"activations": [{"dataset": dataset} for dataset in on], "layers": ["shallow", "deep"]}
    models["c"]["meta"] = {"base_model": "a"}
    datasets = {}
    for dataset, rows in (("first", np.arange(N_POINTS)), ("second", order)):
        np.save(folder / f"{dataset}_ids.npy", ids)
        # The same classes by the same names, numbered in one dataset and not in the other.
        labels = classes[rows] if dataset == "first" else classes[rows].astype(str)
        np.save(folder / f"{dataset}_labels.npy", labels)
        datasets[dataset] = {name: {"path": f"{dataset}_{name}.npy"} for name in ("ids", "labels")}
    content = {
        "version": 1,
        "datasets": datasets,
        "defaults": {"activations": {"path": "{dataset}_{model}.npz", "key": "{layer}"}},
        "models": models,
        "comparisons": COMPARISONS,
        "atlas": {
            "graph": {"n_neighbors": 10},
            "n_eigenpairs": 12,
            "null": {"n_permutations": 19},
            "measures": ["overlap", "lfm", "cka_linear"],
            "maps": {"regime": "full"},
            "collection": None,
            "keep_maps": "none",
        },
    }
    (folder / "data_catalog.yaml").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, build: Build) -> Path:
    """Give the folder of the catalog, with its atlas."""
    made = write_datasets(tmp_path_factory.mktemp("datasets"))
    outcome = build(made)
    assert outcome.failures == ()
    # Of the first comparison 2 x 3 pairs, of the second 4 x 4.
    assert outcome.computed.items() >= {"activations": 10, "bases": 10, "across": 22, "atlas": 1}.items()
    return made


@pytest.fixture
def atlas(folder: Path) -> Any:
    """Give the atlas, open."""
    with open_atlas(folder / "atlas") as opened:
        yield opened


def test_model__is_one_row_with_its_datasets(folder: Path, atlas: Atlas) -> None:
    summary = read_json(folder / "atlas" / "summary.json")

    assert [(model["name"], model["datasets"]) for model in summary["models"]] == [
        ("a", ["first", "second"]),
        ("b", ["first", "second"]),
        ("c", ["first"]),
    ]
    assert summary["counts"]["models"] == 3
    assert summary["counts"]["spaces"] == 10
    assert atlas.models == ["a", "b", "c"]
    assert atlas.model_datasets == {"a": ["first", "second"], "b": ["first", "second"], "c": ["first"]}


def test_same_points_by_other_names__have_the_same_scores(atlas: Atlas) -> None:
    first, second = (atlas.matrix("overlap", None, statistic="score", dataset=name) for name in ("first", "second"))

    np.testing.assert_allclose(first.sel(source=second["source"], target=second["target"]), second, atol=1e-6)
    pairs = next(table for table in datasets_tables(atlas) if table.name == "pairs")
    assert [(row["model"], row["other"]) for row in pairs.rows] == [("a", "b")]
    assert abs(pairs.rows[0]["spread"]) < 1e-6


def test_map_without_ids__finds_the_same_space_on_the_other_dataset(atlas: Atlas) -> None:
    group = atlas.section("across/by-shape")
    assert group is not None
    at = group.sel(measure="overlap").load()

    itself = at["score"].sel(source="a/deep", target="a/deep")
    assert float(itself.min()) > 0.99
    assert float(at["map_residual"].sel(source="a/deep", target="a/deep").max()) < 0.05
    assert float(at["map_residual"].sel(source="a/deep", target="b/deep").min()) > 0.5
    assert "points_found" not in group
    assert group["measure"].values.tolist() == ["lfm", "overlap"]
    assert group.attrs == {
        "comparison": "by-shape",
        "source_dataset": "first",
        "target_dataset": "second",
        "regime": "unsupervised",
        "refine": "zoomout",
    }


def test_map_from_classes__stands_out_against_other_pairings_of_them(atlas: Atlas) -> None:
    rows = across_rows(atlas, "by-class")
    of_itself = [row for row in rows if row["source"] == row["target"]]

    assert len(rows) == 16
    assert all(row["calibrated"] > 0.1 and row["p_value"] <= 0.05 for row in of_itself)


def test_table_across__has_both_directions(folder: Path) -> None:
    table = pd.read_parquet(folder / "atlas" / "across.parquet")

    assert len(table) == 2 * (2 * 6 + 16)
    assert set(table["status"]) == {"ok"}
    back = table.query("comparison == 'by-shape' and source_dataset == 'second' and measure == 'overlap'")
    assert set(zip(back["source"], back["target"], strict=True)) == {
        (source, target) for source in ("a/shallow", "a/deep", "b/deep") for target in ("a/shallow", "a/deep")
    }
    edges = pd.read_parquet(folder / "atlas" / "edges.parquet")
    assert set(edges["dataset"]) == {"first", "second"}
    assert not edges["comparisons"].map(lambda names: bool({"by-shape", "by-class"} & set(names))).any()


def test_page__has_a_row_for_each_dataset_of_a_model_and_puts_datasets_side_by_side(folder: Path) -> None:
    scores, groups = read_atlas(folder / "atlas"), read_groups(folder / "atlas")
    page = render_report(scores, read_json(folder / "atlas" / "summary.json"), groups)

    verdict = page[page.index('id="findings"') : page.index('id="comparisons"')]
    assert verdict.count('<th scope="row">a</th>') == 2
    assert verdict.count('<th scope="row">c</th>') == 1
    assert "Nearest on second" in page
    assert "<td>not on it</td>" in page
    assert "by-shape: first to second" in page
    assert "weak, to be read with the residual" in page


def test_second_run__computes_nothing(folder: Path, build: Build) -> None:
    catalog = read_catalog(folder / "data_catalog.yaml")
    zoo = validate_catalog(catalog, lambda *_: None)

    assert {stage.stage: stage.n_missing for stage in missing_work(catalog, zoo)}["across"] == 0
    assert any(
        line.startswith("across       0 pairs of two datasets to compute, 22 kept") for line in plan_run(catalog, zoo)
    )
    assert not any(build(folder).computed.values())


def test_part_of_the_catalog__leaves_the_rest_for_later(folder: Path, tmp_path: Path) -> None:
    write_datasets(tmp_path)
    catalog = read_catalog(tmp_path / "data_catalog.yaml")

    with open_run(catalog, lambda *_: None, in_process=True, scope=Scope(comparisons=("by-shape",))) as run:
        outcome = build_atlas(run)

    assert outcome.computed.items() >= {"bases": 5, "across": 6}.items()
    assert "are not computed yet" in outcome.unpublished


def test_commands__ask_which_dataset(folder: Path, atlas: Atlas) -> None:
    catalog = read_catalog(folder / "data_catalog.yaml")

    with pytest.raises(DataError, match=r"model a has the datasets first and second. Name one: --dataset first"):
        list_layers(catalog, "a")
    assert [layer.name for layer in list_layers(catalog, "a", "second")] == ["shallow", "deep"]
    with open_run(catalog, lambda *_: None, in_process=True) as run:
        with pytest.raises(DataError, match="a/deep and b/deep on the datasets first, second, expected one of them"):
            fit_named_map(run, "a/deep", "b/deep", AnchorSpec("anchors", 20))
        with pytest.raises(DataError, match="model c is not on the dataset 'second', it is on first"):
            fit_named_map(run, "a/deep", "c/deep", AnchorSpec("anchors", 20), dataset="second")
        fitted = fit_named_map(run, "a/deep", "c/deep", AnchorSpec("anchors", 20))
    assert (fitted.named.dataset, fitted.named.name) == ("first", "a.deep--c.deep--first")


def called(*arguments: object) -> int:
    try:
        return int(app([str(argument) for argument in arguments], result_action="return_value") or 0)
    except SystemExit as error:
        return int(error.code or 0)


def test_show__puts_datasets_side_by_side(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert called("show", folder / "atlas", "datasets", "--format", "json") == 0
    tables = json.loads(capsys.readouterr().out)

    assert tables["models"][2] == {"model": "c", "datasets": "first"}
    assert tables["pairs"][0].keys() == {"model", "other", "first", "second", "spread"}
    assert "agreement" not in tables  # one pair has no order
    assert tables["across_by-shape"][0]["source"] == tables["across_by-shape"][0]["target"]
    assert len(tables["across_by-shape"]) == 5
    assert called("show", folder / "atlas", "summary", "--format", "json") == 0
    assert json.loads(capsys.readouterr().out)["models"][0] == {"model": "a", "datasets": "first, second"}
    assert called("show", folder / "atlas", "nearest", "c") == 0
    assert called("show", folder / "atlas", "nearest", "a") == 2
    message = "got 'a' on the datasets first, second, expected one of them. Name one: dataset='first' (--dataset first)"
    assert message in capsys.readouterr().err
    assert called("show", folder / "atlas", "datasets", "--measure", "lfmm") == 2
    assert "did you mean 'lfm'" in capsys.readouterr().err


def test_atlas_of_the_former_schema__is_compared_with_this_one(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    former = read_json(folder / "atlas" / "summary.json") | {"schema_version": 3}
    former["models"] = [{"name": model["name"], "meta": model["meta"]} for model in former["models"]]
    with publish(tmp_path / "former", "key") as there:
        scores = read_atlas(folder / "atlas").assign_attrs(schema_version=3)
        write_atlas(scores.drop_vars("depth"), {}, there)
        (there / "summary.json").write_text(json.dumps(former))

    assert called("diff", tmp_path / "former", folder / "atlas", "--format", "json") == 0
    changes = json.loads(capsys.readouterr().out)
    assert changes["spaces"] == {"added": [], "removed": [], "changed": [], "unknown": []}
    assert changes["pairs"]["changed"] == 0
    assert called("report", "--atlas", tmp_path / "former", "--output", tmp_path / "report.html") == 0
    assert "Nearest on second" in (tmp_path / "report.html").read_text()


def test_deep_validation__reads_every_dataset(folder: Path) -> None:
    catalog = read_catalog(folder / "data_catalog.yaml")

    report = read_zoo(catalog, validate_catalog(catalog, lambda *_: None), lambda *_: None)

    assert report.problems == ()
    assert len(report.spaces) == 10
    assert [overlap.dataset for overlap in report.overlaps] == ["first", "second"]


def test_zarr__is_read_by_xarray(folder: Path) -> None:
    with xr.open_zarr(folder / "atlas" / "atlas.zarr") as scores:
        np.testing.assert_array_equal(scores["depth"].sel(source="a/deep"), [1.0, 1.0])
        assert np.isnan(scores["depth"].sel(source="c/deep", dataset="second"))
