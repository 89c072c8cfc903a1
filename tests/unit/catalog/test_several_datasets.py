"""A model on several datasets: a source for each, one model; and comparisons of spaces of two datasets."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm_tasks.catalog import Catalog, CatalogError, catalog_yaml, read_catalog
from lfm_tasks.catalog.models import Model

DATASETS = {name: {"ids": {"path": f"{name}.npy"}, "inputs": {"path": f"{name}.npy"}} for name in ("a", "b")}
DEFAULTS = {"activations": {"path": "{dataset}/{model}.npz", "key": "{layer}"}}
ON_BOTH = [{"dataset": "a"}, {"dataset": "b"}]


def read(folder: Path, source: Any, kind: str = "activations", **sections: Any) -> Catalog:
    content = {"version": 1, "datasets": DATASETS, "defaults": DEFAULTS, "models": {"m": {kind: source}}, **sections}
    (folder / "data_catalog.yaml").write_text(json.dumps(content))
    return read_catalog(folder / "data_catalog.yaml", {})


def test_list_of_sources__is_one_model_on_each_dataset(tmp_path: Path) -> None:
    catalog = read(tmp_path, [{"dataset": "a"}, {"dataset": "b", "path": "{model}.h5", "pool": "mean"}])

    assert catalog.models["m"].datasets == ("a", "b")
    first, second = (one for _, one in catalog.models_on_datasets())
    assert (first.dataset, first.pool) == ("a", "none")
    assert first.activations is not None
    assert first.activations.path == "{dataset}/{model}.npz"
    assert catalog.model_on("m", "b") == second
    assert second.activations is not None
    assert (second.activations.path, second.activations.key, second.pool) == ("{model}.h5", "{layer}", "mean")


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        ("activations", {"path": "{model}.npz"}),
        ("onnx", {"path": "{model}.onnx"}),
        ("torch", {"factory": "zoo:net"}),
        ("transformers", {"path": "hub/{model}"}),
        ("timm", {"path": "hub/{model}"}),
        ("sentence_transformers", {"path": "hub/{model}"}),
    ],
)
def test_list_of_sources__may_be_of_every_kind(kind: str, source: dict[str, Any]) -> None:
    model = Model.model_validate({kind: [source | one for one in ON_BOTH]})

    assert model.datasets == ("a", "b")
    assert [one.kind for one in model.on_datasets] == [kind, kind]
    assert model.on("b").source.dataset == "b"
    assert (model.on("a").checkpoint is not None) == (kind not in ("activations", "onnx", "torch"))
    with pytest.raises(KeyError):
        model.on("c")


def test_list_of_one_source__is_that_source(tmp_path: Path) -> None:
    one, listed = (read(tmp_path, source) for source in ({"dataset": "a"}, [{"dataset": "a"}]))

    assert one.model_on("m") == listed.model_on("m")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([{"dataset": "a"}] * 2, "models.m: got the dataset 'a' 2 times, expected each dataset once"),
        ([], "models.m.activations: got an empty list, expected at least one"),
        ([{"dataset": "a"}, {"dataset": "c"}], r"activations\[1\].dataset: the dataset 'c' is not declared"),
        ([{"dataset": "a"}, {}], r"models.m.activations\[1\]: dataset is missing. Add it"),
        ([{"dataset": "a"}, "b"], r"models.m.activations\[1\]: got the text 'b', expected a mapping"),
        ([{"dataset": "a", "pol": "mean"}], r"activations\[0\].pol: unknown key; did you mean 'pool'"),
        (
            {"dataset": ["a", "b"]},
            r"got a list, expected one dataset. List a source for each, \[\{dataset: a\}, \{data",
        ),
        ({"dataset": []}, r"got an empty list, expected one dataset. List a source for each, \[\{dataset: a\}"),
        ([{"dataset": "a", "path": "${SECRET}", "key": "${SECRET}"}], "got the variable SECRET, expected plain text"),
    ],
)
def test_list_of_sources__that_cannot_be_meant_is_refused(source: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=message):
        read(tmp_path, source)


def test_mistakes_of_several_sources__are_told_together(tmp_path: Path) -> None:
    with pytest.raises(CatalogError) as error:
        read(tmp_path, [{"dataset": "a", "pool": "men"}, {"dataset": "b", "shape": "ntd2"}])

    told = [str(problem) for problem in error.value.problems]
    assert len(told) == 2
    assert "activations[0].pool: got the text 'men'" in told[0]
    assert "activations[1].shape: got the text 'ntd2'" in told[1]


def test_model_on__says_what_there_is(tmp_path: Path) -> None:
    catalog = read(tmp_path, ON_BOTH)

    with pytest.raises(LookupError, match=r"model m has the datasets a and b. Name one: --dataset a"):
        catalog.model_on("m")
    with pytest.raises(LookupError, match="model m is not on the dataset 'c', it is on a and b"):
        catalog.model_on("m", "c")
    with pytest.raises(LookupError, match="got no model 'mm' in the catalog; did you mean 'm'"):
        catalog.model_on("mm")


def test_printed_catalog__is_read_as_the_same_models(tmp_path: Path) -> None:
    catalog = read(tmp_path, [{"dataset": "a"}, {"dataset": "b", "pool": "mean"}])
    (tmp_path / "again.yaml").write_text(catalog_yaml(catalog))

    assert read_catalog(tmp_path / "again.yaml", {}).models == catalog.models


def test_written_folder__keeps_clear_of_every_source(tmp_path: Path) -> None:
    sources = [{"dataset": "a"}, {"dataset": "b", "path": "out/x/{model}.npz"}]

    with pytest.raises(CatalogError, match=r"got 'out/x', which contains models.m.activations\[1\].path"):
        read(tmp_path, sources, atlas={"path": "out/x"})


def files(folder: Path, *paths: str) -> None:
    for path in paths:
        (folder / path).parent.mkdir(exist_ok=True)
        np.savez(folder / path, layer=np.zeros((3, 2)))


def test_discover__joins_what_lies_on_each_dataset(tmp_path: Path) -> None:
    files(tmp_path, "a/x.npz", "b/x.npz", "a/y.npz", "b/w.npz")

    catalog = read(tmp_path, {"dataset": "a"}, discover={"nightly": {"activations": ON_BOTH}}, models={})

    assert {name: model.datasets for name, model in catalog.models.items()} == {
        "w": ("b",),
        "x": ("a", "b"),
        "y": ("a",),
    }
    assert catalog.discovered == {"nightly": ("w", "x", "y")}
    assert catalog.warnings() == [
        "discover.nightly: w is not on the dataset a",
        "discover.nightly: y is not on the dataset b",
    ]


def test_discover__refuses_a_link_that_leads_out_on_any_dataset(tmp_path: Path) -> None:
    zoo, outside = tmp_path / "zoo", tmp_path / "outside"
    zoo.mkdir()
    outside.mkdir()
    files(zoo, "a/x.npz", "b/y.npz")
    np.savez(outside / "x.npz", layer=np.zeros((3, 2)))
    (zoo / "b" / "x.npz").symlink_to(outside / "x.npz")

    catalog = read(zoo, {"dataset": "a"}, discover={"nightly": {"activations": ON_BOTH}}, models={})

    assert list(catalog.models) == ["y"]
    assert ["got a link that leads out" in one.message for one in catalog.refused_models] == [True]


def test_discover__runs_a_checkpoint_on_the_datasets_that_it_reads(tmp_path: Path) -> None:
    folder = tmp_path / "hub" / "bert"
    folder.mkdir(parents=True)
    for name, content in {"config.json": {"model_type": "bert"}, "tokenizer.json": {}, "model.safetensors": {}}.items():
        (folder / name).write_text(json.dumps(content))
    datasets = {
        "docs": {"texts": {"path": "t.txt"}},
        "more": {"texts": {"path": "m.txt"}},
        "pics": {"images": {"path": "*.png"}},
    }
    sources = [{"path": "hub/{model}", "dataset": dataset} for dataset in datasets]

    catalog = read(tmp_path, {}, datasets=datasets, discover={"hub": {"transformers": sources}}, models={})

    assert catalog.models["bert"].datasets == ("docs", "more")
    assert catalog.unclaimed == (
        "discover.hub: bert is not on the dataset pics: it reads texts, and the dataset pics holds images",
    )


ACROSS = {
    "sources": "m",
    "targets": "m",
    "dataset": "a",
    "target_dataset": "b",
    "maps": {"regime": "unsupervised"},
}


def test_comparison_across__is_of_two_datasets(tmp_path: Path) -> None:
    catalog = read(tmp_path, ON_BOTH, comparisons={"c": ACROSS})

    assert catalog.comparisons["c"].is_across
    assert catalog.comparisons["c"].target_dataset == "b"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"maps": None}, "comparisons.c: got maps of the regime full, which needs points of both sides, and two"),
        ({"maps": {"regime": "full"}}, "comparisons.c.maps: got maps of the regime full"),
        ({"dataset": None}, "got target_dataset without dataset, expected both"),
        ({"target_dataset": "a"}, "got 'a' as dataset and as target_dataset. Leave target_dataset out"),
        ({"transfer": True}, "got transfer beside target_dataset: anchors are points of both"),
        ({"target_dataset": "bb"}, "target_dataset: no model is on the dataset 'bb'; did you mean 'b'"),
        ({"dataset": "aa"}, "comparisons.c.dataset: no model is on the dataset 'aa'; did you mean 'a'"),
        ({"targets": "n"}, "comparisons.c.targets: no model matches 'n'"),
        (
            {"target_dataset": None, "dataset": None, "maps": None},
            "got models on a, b, expected one dataset. Set one",
        ),
    ],
)
def test_comparison_across__that_cannot_be_meant_is_refused(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    comparison = {key: value for key, value in (ACROSS | change).items() if value is not None}

    with pytest.raises(CatalogError, match=message):
        read(tmp_path, ON_BOTH, comparisons={"c": comparison})


def test_comparison__of_targets_that_are_on_the_other_dataset_only(tmp_path: Path) -> None:
    models = {"m": {"activations": {"dataset": "a"}}, "n": {"activations": {"dataset": "b"}}}

    read(tmp_path, {}, models=models, comparisons={"c": ACROSS | {"targets": "n"}})
    with pytest.raises(CatalogError, match=r"comparisons\.c\.targets: no model matches 'm'; there is n"):
        read(tmp_path, {}, models=models, comparisons={"c": ACROSS})
