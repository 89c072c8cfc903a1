"""``graph.landmarks`` through the pipeline: bases of landmarks, extended to all points."""

import json
from pathlib import Path
from typing import Any

import pytest

from lfm_atlas import open_atlas
from lfm_atlas.cli.main import app
from lfm_tasks.catalog import CatalogError, read_catalog
from lfm_tasks.config import AtlasConfig, GraphConfig
from lfm_tasks.stores.units.store import UnitStore
from tests.conftest import Build, WriteZoo


@pytest.fixture(scope="module")
def zoo(write_zoo: WriteZoo, related_spaces: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = related_spaces(3, n_points=300, n_layers=1)
    return write_zoo(tmp_path_factory.mktemp("zoo"), models, graph={"n_neighbors": 10, "landmarks": 100})


@pytest.fixture(scope="module")
def built(zoo: Path, build: Build) -> Path:
    assert build(zoo).failures == ()
    return zoo


def test_landmarks__are_told_with_the_graph(built: Path) -> None:
    scores = open_atlas(built / "atlas").scores
    assert (scores["n_landmarks"] == 100).all()
    assert (scores["method"] == "exact on 100 landmarks").all()
    assert (scores["landmark_agreement"] > 0.4).all()
    assert (scores["landmark_agreement"] < 1).all()
    assert (scores["orthonormality"] < 1e-12).all()
    related = scores["calibrated"].sel(measure="overlap").values[0]
    assert related.min() > 0.3


def test_landmarks__are_the_same_points_in_every_space_whatever_their_order(built: Path) -> None:
    store = UnitStore(built / ".lfm-atlas")
    chosen = []
    for receipt in store.receipts("bases"):
        with store.open("bases", receipt.key) as unit:
            chosen.append(unit.read("ids")[unit.read("landmarks")].tolist())
            assert unit.read("neighbors").shape == (100, 10)
            assert unit.read("eigenvectors").shape == (300, 8)
    assert chosen[0] == chosen[1] == chosen[2]


def test_as_many_landmarks_as_points__is_every_point(
    tmp_path: Path, write_zoo: WriteZoo, build: Build, related_spaces: Any
) -> None:
    models = related_spaces(3, n_layers=1)
    build(write_zoo(tmp_path, models))
    whole = (tmp_path / "atlas" / "edges.parquet").read_bytes()
    build(write_zoo(tmp_path, models, graph={"n_neighbors": 10, "landmarks": 120}))
    assert (tmp_path / "atlas" / "edges.parquet").read_bytes() == whole
    assert "n_landmarks" not in open_atlas(tmp_path / "atlas").scores


def test_audit_with_landmarks__finds_its_control_in_order(
    tmp_path: Path, write_zoo: WriteZoo, related_spaces: Any
) -> None:
    models = related_spaces(3, n_points=300, n_layers=1)
    folder = write_zoo(tmp_path, models, graph={"n_neighbors": 10, "landmarks": 100})
    app(["audit", str(folder / "data_catalog.yaml"), "--no-prefect", "--no-dask"], result_action="return_value")
    checks = json.loads((folder / "audits" / "audit.json").read_text())["checks"]
    assert [check["status"] for check in checks if check["name"] == "control"] == ["pass"]


def test_settings_without_landmarks__give_the_keys_they_always_gave() -> None:
    assert "landmarks" not in AtlasConfig().model_dump()["graph"]
    assert GraphConfig(landmarks=50).model_dump()["landmarks"] == 50


@pytest.mark.parametrize(
    ("atlas", "message"),
    [
        (
            {"graph": {"n_neighbors": 10, "landmarks": 20}},
            "got 20 landmarks with n_neighbors 10 and n_eigenpairs 8",
        ),
        ({"graph": {"landmarks": "few"}}, "landmarks"),
        (
            {"graph": {"n_neighbors": 10, "landmarks": 60}, "maps": {"regime": "unsupervised"}},
            "got maps.regime unsupervised beside graph.landmarks",
        ),
    ],
)
def test_catalog__refuses_landmarks_that_do_not_work(
    tmp_path: Path, write_zoo: WriteZoo, related_spaces: Any, atlas: dict[str, Any], message: str
) -> None:
    folder = write_zoo(tmp_path, related_spaces(2), **atlas)
    with pytest.raises(CatalogError, match=message):
        read_catalog(folder / "data_catalog.yaml")
