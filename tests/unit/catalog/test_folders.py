"""Folders that lfm-atlas writes lie clear of each other, of the catalog's folder and of everything it reads."""

import os
import re
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from lfm_tasks.catalog import CatalogError, read_catalog
from lfm_tasks.catalog.folders import WRITTEN

KEYS = [".".join(key) for key in WRITTEN]


def problems(folder: Path, **sections: Any) -> list[str]:
    catalog: dict[str, Any] = {
        "version": 1,
        "datasets": {"probe": {"ids": {"path": "data/ids.npy"}, "labels": {"path": "labels/{dataset}.npy"}}},
        "models": {"bert": {"activations": {"path": "zoo/{model}/{layer}.npy", "dataset": "probe"}}},
    }
    for key, value in sections.items():
        section, _, name = key.partition("__")
        catalog.setdefault(section, {})
        catalog[section] = {**catalog[section], name: value} if name else value
    folder.mkdir(exist_ok=True)
    with (folder / "data_catalog.yaml").open("w") as file:
        YAML(typ="safe", pure=True).dump(catalog, file)
    try:
        read_catalog(folder / "data_catalog.yaml")
    except CatalogError as error:
        return [str(problem) for problem in error.problems]
    return []


def at(key: str, path: str) -> dict[str, str]:
    return {key.replace(".", "__"): path}


def test_usual_folders__are_fine(tmp_path: Path) -> None:
    assert problems(tmp_path) == []


@pytest.mark.parametrize(("first", "second"), list(permutations(KEYS, 2)))
@pytest.mark.parametrize(("path", "relation"), [("x/y", "is"), ("x", "contains"), ("x/y/z", "lies inside")])
def test_pair_of_written_folders__lies_apart(first: str, second: str, path: str, relation: str, tmp_path: Path) -> None:
    told = problems(tmp_path, **at(first, path), **at(second, "x/y"))

    assert len(told) == 1
    assert re.search(rf"data_catalog\.yaml:\d+: ({first}|{second}): got .*, which (is|contains|lies inside) ", told[0])
    assert "expected folders apart from each other. Rename one" in told[0]
    assert relation in told[0] or relation != "is"


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("path", [".", "..", "/", "zoo/.."])
def test_written_folder__is_not_and_does_not_contain_the_catalogs(key: str, path: str, tmp_path: Path) -> None:
    told = problems(tmp_path / "project", **at(key, path))

    assert any(f"{key}: got {path!r}, which " in line and "the folder of the catalog" in line for line in told)
    assert len(told) == 1


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("data", "datasets.probe.ids.path"),
        ("data/ids.npy", "datasets.probe.ids.path"),
        ("data/ids.npy/x", "datasets.probe.ids.path"),
        ("labels", "datasets.probe.labels.path"),
        ("zoo", "models.bert.activations.path"),
        ("zoo/bert", "models.bert.activations.path"),
        ("zoo/bert/new", "models.bert.activations.path"),
        ("arrivals", "discover.new.onnx.path"),
        ("arrivals/new", "discover.new.onnx.path"),
        ("images/cats", "datasets.photos.images.path"),
        ("texts.jsonl", "datasets.docs.texts.path"),
        ("hub/new", "discover.hub.transformers.path"),
        ("base", "discover.hub.transformers.base"),
        ("anchors", "atlas.maps.anchors.ids.path"),
        ("keys", "cluster.tls.key"),
    ],
)
def test_written_folder__lies_apart_from_sources(key: str, path: str, source: str, tmp_path: Path) -> None:
    told = problems(
        tmp_path,
        discover={
            "new": {"onnx": {"path": "arrivals/{model}.onnx", "dataset": "probe"}},
            "hub": {"transformers": {"path": "hub/{model}", "dataset": "docs", "base": "base"}},
        },
        datasets={
            "docs": {"texts": {"path": "texts.jsonl", "id": "id"}},
            "photos": {"images": {"path": "images/*/*.png"}},
            "probe": {
                "ids": {"path": "data/ids.npy"},
                "labels": {"path": "labels/{dataset}.npy"},
                "inputs": {"path": "inputs.npy"},
            },
        },
        atlas__maps={"regime": "anchors", "anchors": {"ids": {"path": "anchors/ids.txt"}}},
        cluster={"type": "address", "scheduler": "tls://host:1", "tls": {"key": "keys/key.pem"}},
        **at(key, path),
    )

    assert len(told) == 1
    assert f"{key}: got {path!r}, which" in told[0]
    assert source in told[0]


def test_pattern_of_the_catalogs_folder__leaves_room_for_the_atlas(tmp_path: Path) -> None:
    source = {"path": "{model}/{layer}.npy", "dataset": "probe"}

    assert problems(tmp_path, models={"bert": {"activations": source}}) == []
    assert (
        problems(tmp_path, discover={"new": {"activations": {**source, "path": "{model}.npz", "key": "{layer}"}}}) == []
    )


def test_remote_sources__are_in_nobodys_way(tmp_path: Path) -> None:
    source = {"path": "s3://zoo/{model}/{layer}.npy", "dataset": "probe"}

    assert problems(tmp_path, models={"bert": {"activations": source}}, atlas__path="s3:") == []


def test_links__are_followed(tmp_path: Path) -> None:
    (tmp_path / "zoo").mkdir()
    (tmp_path / "link").symlink_to("zoo")
    (tmp_path / "loop").symlink_to("loop")

    assert "contains models.bert.activations.path" in problems(tmp_path, atlas__path="link")[0]
    assert "which is the folder of the catalog" in problems(tmp_path, atlas__path="zoo/../../" + tmp_path.name)[0]
    assert problems(tmp_path, atlas__path="loop") == []  # what is there is another matter


def test_catalog_that_is_reached_by_a_link__knows_its_folder(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    problems(tmp_path / "real", atlas__path=os.fspath(tmp_path / "real"))

    with pytest.raises(CatalogError, match="which is the folder of the catalog"):
        read_catalog(tmp_path / "link" / "data_catalog.yaml")


def test_upper_and_lower_case__make_no_other_folder(tmp_path: Path) -> None:
    assert "contains models.bert" in problems(tmp_path, atlas__path="ZOO")[0]
    assert "which is atlas.path" in problems(tmp_path, audit__baseline="Atlas")[0]
