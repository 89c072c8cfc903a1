"""Comparisons with ``transfer``: every directed pair is carried from few anchors, published, and done once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from ruamel.yaml import YAML

from lfm_atlas.pipeline import Outcome
from lfm_tasks.catalog import CatalogError, read_catalog
from lfm_tasks.catalog.reading import catalog_yaml
from lfm_tasks.planning import plan_run
from lfm_tasks.spectral.transfer.selection import CANDIDATES
from lfm_tasks.stages.inventory.stage import validate_catalog
from lfm_tasks.stores.atlas.files import read_groups
from lfm_tasks.zoo import write_start

Build = Callable[..., Outcome]


def asking(folder: Path, **comparisons: Any) -> Path:
    path = folder / "data_catalog.yaml"
    catalog = YAML(typ="safe").load(path)
    with path.open("w") as file:
        YAML().dump(catalog | {"comparisons": comparisons}, file)
    return folder


def plan(folder: Path) -> str:
    catalog = read_catalog(folder / "data_catalog.yaml")
    return "\n".join(plan_run(catalog, validate_catalog(catalog, lambda *_: None)))


@pytest.fixture(scope="module")
def stitched(tmp_path_factory: pytest.TempPathFactory, build: Build) -> tuple[Path, Outcome]:
    """Give a folder with the atlas of two networks' last hidden layers and one of an untrained network."""
    folder = tmp_path_factory.mktemp("stitched")
    write_start(folder)
    wish = {"sources": ["mlp_s0/relu4", "cnn_s0/relu4"], "targets": ["mlp_s0/relu4", "mlp_untrained/relu4"]}
    asking(folder, few={**wish, "transfer": True}, without={"sources": "mlp_s1/relu4", "targets": "mlp_s1/relu4"})
    assert "transfers    3 maps to fit, 0 kept" in plan(folder)
    return folder, build(folder)


def test_transfers__are_published_with_all_candidates(stitched: tuple[Path, Outcome]) -> None:
    folder, outcome = stitched
    group = read_groups(folder / "atlas")["transfers/digits"]

    assert outcome.computed["transfers"] == 3
    assert dict(group.sizes) == {"pair": 3, "candidate": len(CANDIDATES)}
    assert group["candidate"].values.tolist() == list(CANDIDATES)
    assert list(zip(group["source"].values.tolist(), group["target"].values.tolist(), strict=True)) == [
        ("cnn_s0/relu4", "mlp_s0/relu4"),
        ("cnn_s0/relu4", "mlp_untrained/relu4"),
        ("mlp_s0/relu4", "mlp_untrained/relu4"),
    ]
    assert set(group["comparison"].values.tolist()) == {"few"}
    assert group["n_anchors"].values.tolist() == [10, 10, 10]
    assert group["status"].values.tolist() == ["ok"] * 3
    for name in ("held_out", "accuracy", "mrr", "stitched_accuracy"):
        assert bool(np.isfinite(group[name]).all()), name


def test_stitching__from_ten_anchors_is_near_what_all_pairs_give(stitched: tuple[Path, Outcome]) -> None:
    group = read_groups(stitched[0] / "atlas")["transfers/digits"].isel(pair=0)
    carried = float(group["stitched_accuracy"].sel(candidate=str(group["chosen"].values)))

    assert float(group["own_accuracy"]) > 0.97
    assert float(group["all_pairs_accuracy"]) > 0.95
    assert carried > float(group["all_pairs_accuracy"]) - 0.03
    assert carried > float(group["stitched_accuracy"].sel(candidate="relative")) + 0.1


def test_unchanged_transfers__are_not_computed_again(stitched: tuple[Path, Outcome], build: Build) -> None:
    outcome = build(stitched[0])

    assert not any(outcome.computed.values())
    assert outcome.reused["transfers"] == 3
    assert "transfers    0 maps to fit, 3 kept" in plan(stitched[0])


def test_other_anchors__are_other_maps_and_dask_gives_the_same(
    tmp_path: Path, related_spaces: Any, write_zoo: Any, build: Build
) -> None:
    wish = {"sources": "model0/layer0", "targets": "model*/layer0"}
    groups = []
    for number, in_process in ((0, True), (1, False)):
        folder = write_zoo(tmp_path / str(number), related_spaces(2))
        asking(folder, a={**wish, "transfer": {"anchors": {"count": 8, "seed": 3}}}, b={**wish, "transfer": True})
        build(folder, in_process=in_process)
        groups.append(read_groups(folder / "atlas")["transfers/probe"])

    xr.testing.assert_identical(groups[0], groups[1])
    assert groups[0]["comparison"].values.tolist() == ["a", "b"]
    assert groups[0]["n_anchors"].values.tolist() == [8, 10]
    assert bool(np.isnan(groups[0]["own_accuracy"]).all())


def test_pair_that_fails__has_a_status_and_the_others_go_on(
    tmp_path: Path, related_spaces: Any, write_zoo: Any, build: Build
) -> None:
    models = related_spaces(3)
    layers, ids = models["model2"]
    apart = np.array([name if number < 6 else f"q{number}" for number, name in enumerate(ids)])
    models["model2"] = (layers, apart)
    folder = write_zoo(tmp_path, models)
    asking(folder, all={"sources": "model0/layer0", "targets": ["model1/layer0", "model2/layer0"], "transfer": True})
    outcome = build(folder)
    group = read_groups(folder / "atlas")["transfers/probe"]

    assert outcome.computed["transfers"] == 1
    assert group["status"].values.tolist() == ["ok", "few_anchors"]
    assert "got 6 common ids, expected the 10 requested anchors" in str(group["message"].values[1])
    assert bool(np.isnan(group["accuracy"].isel(pair=1)).all())
    assert group["chosen"].values[1] == ""


def test_atlas_without_transfer__has_no_such_group_and_no_such_stage(
    tmp_path: Path, related_spaces: Any, write_zoo: Any, build: Build
) -> None:
    folder = asking(
        write_zoo(tmp_path, related_spaces(2)), one={"sources": "model0", "targets": "*", "transfer": False}
    )

    assert "transfers" not in build(folder).computed
    assert not any(path.startswith("transfers") for path in read_groups(folder / "atlas"))
    assert "transfers" not in plan(folder)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("10", "got the number 10, expected true, false, or {anchors: {count: 10, seed: 0}}"),
        ("{anchors: {count: 2}}", "got the number 2, expected >= 3"),
        ("{anchors: {cuont: 5}}", "unknown key; did you mean 'count'?"),
    ],
)
def test_catalog__says_what_transfer_may_be(tmp_path: Path, written: str, message: str) -> None:
    write_start(tmp_path)
    path = tmp_path / "data_catalog.yaml"
    path.write_text(
        path.read_text() + f"comparisons: {{a: {{sources: mlp_s0, targets: mlp_s1, transfer: {written}}}}}\n"
    )
    with pytest.raises(CatalogError) as caught:
        read_catalog(path)
    assert message in str(caught.value)


@pytest.mark.parametrize("written", ["true", "{}", "{anchors: {count: 20, seed: 4}}", "false"])
def test_catalog__is_shown_as_it_was_understood(tmp_path: Path, written: str) -> None:
    write_start(tmp_path)
    path = tmp_path / "data_catalog.yaml"
    path.write_text(
        path.read_text() + f"comparisons: {{a: {{sources: mlp_s0, targets: mlp_s1, transfer: {written}}}}}\n"
    )
    catalog = read_catalog(path)
    path.write_text(catalog_yaml(catalog))
    assert read_catalog(path).comparisons == catalog.comparisons
