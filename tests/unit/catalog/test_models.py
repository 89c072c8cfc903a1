"""What ``meta`` may say; models that are discovered in a folder, in the order of names, a bad one without harm."""

import re
from pathlib import Path
from typing import Any

import pytest

from lfm_tasks.catalog import ActivationsSource, Catalog, CatalogError, read_catalog
from lfm_tasks.catalog.models import RELATIONS, check_meta


@pytest.mark.parametrize(
    "meta",
    [
        {},
        {"anything": [1, {"deep": None}]},
        {"base_model": "a"},
        {"base_model": ["a", "b"], "base_model_relation": "merge"},
        *({"base_model": "a", "base_model_relation": relation} for relation in RELATIONS),
    ],
)
def test_meta__that_is_fine_stays_as_it_is(meta: dict[str, Any]) -> None:
    assert check_meta(meta) == meta


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ({"base_model": 3}, "got the number 3 as base_model, expected the name of a model or a list of names"),
        ({"base_model": []}, "got an empty list as base_model"),
        ({"base_model": ""}, "got the text '' as base_model"),
        ({"base_model": ["a", 1]}, "got a list as base_model"),
        (
            {"base_model": "a", "base_model_relation": "finetuned"},
            "got the text 'finetuned' as base_model_relation, expected one of finetune, .*; did you mean 'finetune'",
        ),
        ({"base_model": "a", "base_model_relation": ["copy"]}, "got a list as base_model_relation, expected one of"),
        (
            {"base_model_relation": "copy"},
            "got base_model_relation 'copy' without base_model. Name the model it came from",
        ),
    ],
)
def test_meta__that_cannot_be_meant_is_refused(meta: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_meta(meta)


SOURCES = {
    "activations": '{path: "zoo/{model}.npz", key: "{layer}", dataset: probe}',
    "onnx": '{path: "zoo/{model}.onnx", dataset: probe}',
    "torch": '{factory: "torchvision.models:resnet18", weights: "zoo/{model}.safetensors", dataset: probe}',
}


def read(folder: Path, discovery: str, more: str = "") -> Catalog:
    path = folder / "data_catalog.yaml"
    datasets = "{probe: {ids: {path: ids.npy}, inputs: {path: inputs.npy}}}"
    path.write_text(f"version: 1\ndatasets: {datasets}\ndiscover:\n  zoo: {discovery}\n{more}")
    return read_catalog(path, {})


def put(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / "zoo" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize(("kind", "ending"), [("activations", "npz"), ("onnx", "onnx"), ("torch", "safetensors")])
def test_discover__finds_models_of_every_source_in_the_order_of_names(tmp_path: Path, kind: str, ending: str) -> None:
    put(tmp_path, *(f"{name}.{ending}" for name in ("b", "c", "a", ".hidden")), "notes.txt")

    catalog = read(tmp_path, f"{{{kind}: {SOURCES[kind]}, layers: [fc], meta: {{family: new}}}}")

    assert list(catalog.models) == ["a", "b", "c"]
    assert catalog.discovered == {"zoo": ("a", "b", "c")}
    assert catalog.model_on("a").dataset == "probe"
    assert catalog.models["a"].layers == ("fc",)
    assert catalog.models["a"].meta == {"family": "new"}
    assert catalog.warnings() == []


def test_discover__takes_folders_that_hold_what_the_pattern_says(tmp_path: Path) -> None:
    put(tmp_path, "a/run/layer1.npy", "b/other/layer1.npy", "c.npy")

    catalog = read(tmp_path, '{activations: {path: "zoo/{model}/run/{layer}.npy", dataset: probe}}')

    assert list(catalog.models) == ["a"]


@pytest.mark.parametrize("kind", SOURCES)
def test_pattern_that_nothing_fits__is_a_warning(tmp_path: Path, kind: str) -> None:
    catalog = read(tmp_path, f"{{{kind}: {SOURCES[kind]}}}")

    assert catalog.models == {}
    [warning] = catalog.warnings()
    assert warning.startswith("discover.zoo: nothing matches 'zoo/{model}.")


def test_bad_name__is_refused_and_the_others_go_on(tmp_path: Path) -> None:
    put(tmp_path, "a.npz", "b b.npz", "nul.npz", "z.npz")

    catalog = read(tmp_path, f"{{activations: {SOURCES['activations']}}}")

    assert list(catalog.models) == ["a", "z"]
    assert [refused.name for refused in catalog.refused_models] == ["'b b'", "'nul'"]
    assert "expected 1 to 128 of A-Z a-z 0-9" in catalog.refused_models[0].message
    assert catalog.refused_models[0].message.endswith("Rename the file")
    assert catalog.warnings() == []


def test_name_that_is_taken__is_refused_in_any_case_of_letters(tmp_path: Path) -> None:
    put(tmp_path, "small.npz", "other.npz")
    declared = f"models:\n  Small:\n    onnx: {SOURCES['onnx'].replace('{model}', 'x')}\n"

    catalog = read(tmp_path, f"{{activations: {SOURCES['activations']}}}", declared)

    assert list(catalog.models) == ["Small", "other"]
    [refused] = catalog.refused_models
    assert refused.message == "got the name 'small', which the declared model 'Small' has. Rename the file"


def test_link_out_of_the_folder__is_refused(tmp_path: Path) -> None:
    outside = tmp_path / "outside.npz"
    outside.touch()
    (tmp_path / "catalog").mkdir()
    put(tmp_path / "catalog", "a.npz")
    (tmp_path / "catalog" / "zoo" / "link.npz").symlink_to(outside)
    (tmp_path / "catalog" / "zoo" / "same.npz").symlink_to("a.npz")

    catalog = read(tmp_path / "catalog", f"{{activations: {SOURCES['activations']}}}")

    assert list(catalog.models) == ["a", "same"]
    [refused] = catalog.refused_models
    assert "got a link that leads out of its folder and out of the catalog's. Copy the file there" in str(refused)


@pytest.mark.parametrize(
    ("discovery", "message"),
    [
        (SOURCES["activations"].replace("zoo/", "s3://bucket/"), "got a remote path in discover, expected a folder"),
        (SOURCES["activations"].replace("{model}", "x"), "got no {model} in the path, expected it"),
        ('{path: "zoo/{model}.{layer}.npy", dataset: probe}', "got {model} and {layer} in one part of the path"),
    ],
)
def test_pattern_that_cannot_name_models__is_refused(tmp_path: Path, discovery: str, message: str) -> None:
    with pytest.raises(CatalogError) as caught:
        read(tmp_path, f"{{activations: {discovery}}}")
    assert message in str(caught.value)


def test_network_without_weights__cannot_be_discovered(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"got no \{model\} in the weights or args, expected it"):
        read(tmp_path, '{torch: {factory: "torchvision.models:resnet18", dataset: probe}}')


def test_discovery_without_source__is_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="got no source, expected exactly one of activations, onnx, torch"):
        read(tmp_path, "{layers: [fc]}")


@pytest.mark.parametrize(
    ("activations", "message"),
    [
        ({"path": "{layer}/{id}.npy", "ids": {"path": "ids.npy"}}, "got {id} and ids, expected one of them"),
        ({"path": "{shard}.h5", "key": "{layer}/{id}"}, "got {id} and {shard}, expected one of them"),
        ({"path": "{layer}.h5", "key": "{layer}"}, "got {layer} in path and in key"),
        ({"path": "{id}.h5", "key": "{id}"}, "got {id} in path and in key"),
        ({"path": "{shard}{shard}.npy"}, "got {shard} 2 times, expected it once"),
        ({"path": "a.npy", "ids": {"path": "{id}.npy"}}, "got {id}, expected one of {model}, {dataset}, {shard}"),
    ],
)
def test_fields_of_patterns__that_contradict_each_other_are_refused(activations: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        ActivationsSource.model_validate({"dataset": "probe", **activations})
