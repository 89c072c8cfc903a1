"""Folders of checkpoints that sections of ``discover`` take: each once, and whatever nobody takes is told."""

import json
from pathlib import Path
from typing import Any

import pytest

from lfm_tasks.catalog import Catalog, read_catalog
from lfm_tasks.catalog.checkpoint_folders import FolderKind, NoCheckpoint, folder_kind

DATASETS = {
    "docs": {"texts": {"path": "texts.txt"}},
    "photos": {"images": {"path": "images/*.png"}},
}
DISCOVER = {
    "language": {"transformers": {"path": "zoo/{model}", "dataset": "docs"}},
    "vision": {"transformers": {"path": "zoo/{model}", "dataset": "photos"}},
    "timm": {"timm": {"path": "zoo/{model}", "dataset": "photos"}},
}
BERT = {"config.json": {"model_type": "bert", "vocab_size": 9}, "tokenizer.json": {}, "model.safetensors": {}}
VIT = {"config.json": {"model_type": "vit"}, "preprocessor_config.json": {"image_mean": [0]}}
CLIP = {
    "config.json": {"model_type": "clip", "text_config": {}, "vision_config": {}},
    "tokenizer.json": {},
    "preprocessor_config.json": {"do_resize": True},
}
T5 = {"config.json": {"model_type": "t5", "is_encoder_decoder": True}, "tokenizer.json": {}}
WHISPER = {
    "config.json": {"model_type": "whisper", "is_encoder_decoder": True},
    "tokenizer.json": {},
    "preprocessor_config.json": {"sampling_rate": 16000},
}
TIMM = {"config.json": {"architecture": "resnet18"}}
SENTENCE = {**BERT, "modules.json": {}}
LORA = {"adapter_config.json": {"base_model_name_or_path": "/home/x/bert"}, "adapter_model.safetensors": {}}
SHARDED = {"config.json": {"model_type": "bert"}, "tokenizer.json": {}, "model.safetensors.index.json": {}}


def put(folder: Path, files: dict[str, Any]) -> Path:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def read(folder: Path, discover: dict[str, Any] | None = None, **sections: Any) -> Catalog:
    content = {"version": 1, "datasets": DATASETS, "discover": DISCOVER if discover is None else discover, **sections}
    (folder / "data_catalog.yaml").write_text(json.dumps(content))
    return read_catalog(folder / "data_catalog.yaml", {})


KINDS = {
    "bert": (BERT, FolderKind(("transformers",), ("texts",))),
    "sharded": (SHARDED, FolderKind(("transformers",), ("texts",))),
    "vit": (VIT, FolderKind(("transformers",), ("images",))),
    "clip": (CLIP, FolderKind(("transformers",), ("texts", "images"), True)),
    "t5": (T5, FolderKind(("transformers",), ("texts",), True)),
    "whisper": (WHISPER, FolderKind(("transformers",), ("texts", "sound"), True)),
    "timm": (TIMM, FolderKind(("timm",), ("images",))),
    "sentence": (SENTENCE, FolderKind(("sentence_transformers", "transformers"), ("texts",))),
    "no tokenizer": ({"config.json": BERT["config.json"]}, FolderKind(("transformers",), ("texts",))),
    "no processor": (
        {"config.json": {"model_type": "vit", "patch_size": 4}},
        FolderKind(("transformers",), ("images",)),
    ),
    "nothing tells": ({"config.json": {"model_type": "new"}}, FolderKind(("transformers",))),
    "empty": ({}, NoCheckpoint("it is empty, without config.json, modules.json or adapter_config.json")),
    "notes": ({"notes.md": ""}, NoCheckpoint("it holds no config.json, modules.json or adapter_config.json")),
    "bare weights": (
        {"pytorch_model.bin": ""},
        NoCheckpoint("it holds pytorch_model.bin, and no config.json, modules.json or adapter_config.json", True),
    ),
    "neither": ({"config.json": {}}, NoCheckpoint("its config.json has neither model_type nor architecture", True)),
    "no JSON": (
        {"config.json": "{"},
        NoCheckpoint("its description cannot be read (config.json: got no JSON)", looks_like_model=True),
    ),
    "onnx": (
        {**BERT, "model.onnx": "", "model.safetensors": None} | {"tokenizer.json": {}},
        FolderKind(("transformers",), ("texts",)),
    ),
    "onnx alone": (
        {"config.json": BERT["config.json"], "tokenizer.json": {}, "model.onnx": ""},
        NoCheckpoint("its weights are in model.onnx, which a section onnx runs", looks_like_model=True),
    ),
}


@pytest.mark.parametrize("case", KINDS)
def test_folder__is_what_its_files_say(case: str, tmp_path: Path) -> None:
    files, expected = KINDS[case]
    assert folder_kind(put(tmp_path / "model", files)) == expected


def test_adapter__is_what_its_base_is(tmp_path: Path) -> None:
    put(tmp_path / "zoo" / "bert", BERT)
    put(tmp_path / "elsewhere" / "vit", VIT)
    lora = put(tmp_path / "zoo" / "lora", LORA)
    assert folder_kind(lora) == FolderKind(("transformers",), ("texts",))
    assert folder_kind(lora, tmp_path / "elsewhere" / "vit") == FolderKind(("transformers",), ("images",))
    alone = put(tmp_path / "alone" / "lora", LORA)
    assert folder_kind(alone) == FolderKind(("transformers",), ())


def test_discover__gives_each_folder_to_the_section_it_is_for(tmp_path: Path) -> None:
    zoo = {"bert": BERT, "sharded": SHARDED, "vit": VIT, "timm-resnet": TIMM, "lora": LORA, "t5": T5, "clip": CLIP}
    for name, files in zoo.items():
        put(tmp_path / "zoo" / name, files)
    put(tmp_path / "zoo" / ".hidden", BERT)
    (tmp_path / "zoo" / "README.md").touch()

    catalog = read(tmp_path)

    assert catalog.discovered == {
        # Which network of two runs is for the user to say: the first section asks.
        "language": ("bert", "clip", "lora", "sharded", "t5"),
        "vision": ("vit",),
        "timm": ("timm-resnet",),
    }
    assert (catalog.refused_models, catalog.unclaimed, catalog.warnings()) == ((), (), [])


def test_folder_that_no_section_takes__is_told_with_the_reasons(tmp_path: Path) -> None:
    put(tmp_path / "zoo" / "bert", BERT)
    put(tmp_path / "zoo" / "vit", VIT)
    put(tmp_path / "zoo" / "timm-resnet", TIMM)
    put(tmp_path / "zoo" / "logs", {"log.txt": ""})
    put(tmp_path / "zoo" / "old", {"pytorch_model.bin": ""})

    catalog = read(tmp_path, {"language": DISCOVER["language"]})

    assert list(catalog.models) == ["bert"]
    assert catalog.unclaimed == (
        "'logs': no section of discover takes this folder: it holds no config.json, modules.json or "
        "adapter_config.json",
        "'timm-resnet': no section of discover takes this folder: it is a checkpoint of timm",
        "'vit': no section of discover takes this folder: it reads images, and the dataset docs holds texts",
    )
    assert catalog.warnings() == list(catalog.unclaimed)
    [refused] = catalog.refused_models
    assert (refused.discovery, refused.dataset, refused.name) == ("language", "docs", "'old'")
    assert refused.message == (
        "got the folder 'old', which no section of discover takes: it holds pytorch_model.bin, and no config.json, "
        "modules.json or adapter_config.json. Fix it, or move it out of the folder"
    )


def test_sentence_transformers__goes_to_its_own_section_and_else_to_transformers(tmp_path: Path) -> None:
    put(tmp_path / "zoo" / "minilm", SENTENCE)
    sentences = {"sentences": {"sentence_transformers": {"path": "zoo/{model}", "dataset": "docs"}}}
    assert read(tmp_path).discovered["language"] == ("minilm",)
    catalog = read(tmp_path, {**DISCOVER, **sentences})
    assert (catalog.discovered["language"], catalog.discovered["sentences"]) == ((), ("minilm",))
    assert catalog.refused_models == ()


def test_folder_that_two_sections_take__is_told(tmp_path: Path) -> None:
    put(tmp_path / "zoo" / "bert", BERT)
    again = {"again": {"transformers": {"path": "zoo/{model}", "dataset": "docs", "max_tokens": 8}}}
    catalog = read(tmp_path, {**DISCOVER, **again})
    [refused] = catalog.refused_models
    assert catalog.discovered["language"] == ("bert",)
    assert (refused.discovery, refused.name) == ("again", "'bert'")
    assert "got the folder 'bert', which discover.language takes too, expected one section" in refused.message


def test_two_folders_of_one_name__are_told(tmp_path: Path) -> None:
    put(tmp_path / "zoo" / "bert", BERT)
    put(tmp_path / "more" / "Bert", BERT)
    more = {"more": {"transformers": {"path": "more/{model}", "dataset": "docs"}}}
    catalog = read(tmp_path, {**DISCOVER, **more})
    [refused] = catalog.refused_models
    problem = "got the name 'Bert', which the model 'bert' of discover.language has. Rename the folder"
    assert (refused.discovery, refused.message) == ("more", problem)


def test_folders_that_differ_by_case_only__are_both_refused_and_both_named(tmp_path: Path) -> None:
    for name in ("bert", "Bert", "gpt"):
        put(tmp_path / "zoo" / name, BERT)
    catalog = read(tmp_path)
    problem = (
        "got the names 'Bert' and 'bert', which differ by upper and lower case only, expected names that differ on "
        "every file system. Rename one of them"
    )
    assert {one.name: one.message for one in catalog.refused_models} == {"'Bert'": problem, "'bert'": problem}
    assert list(catalog.models) == ["gpt"]


def test_declared_folder__needs_no_discovery(tmp_path: Path) -> None:
    put(tmp_path / "zoo" / "clip", CLIP)
    towers = {
        f"clip-{tower}": {"transformers": {"path": "zoo/clip", "dataset": dataset, "tower": tower}}
        for tower, dataset in (("text", "docs"), ("vision", "photos"))
    }
    catalog = read(tmp_path, models=towers)
    assert list(catalog.models) == ["clip-text", "clip-vision"]
    assert (catalog.refused_models, catalog.unclaimed) == ((), ())


def test_tower_of_a_section__is_for_folders_of_several_networks(tmp_path: Path) -> None:
    put(tmp_path / "zoo" / "bert", BERT)
    put(tmp_path / "zoo" / "t5", T5)
    language = {"transformers": {"path": "zoo/{model}", "dataset": "docs", "tower": "encoder"}}
    catalog = read(tmp_path, {"language": language})
    towers = {name: model.checkpoint[1].tower for name, model in catalog.models_on_datasets() if model.checkpoint}
    assert towers == {"bert": None, "t5": "encoder"}


def test_deeper_pattern__tells_folders_without_the_rest(tmp_path: Path) -> None:
    put(tmp_path / "zoo" / "a" / "final", BERT)
    put(tmp_path / "zoo" / "b", BERT)
    catalog = read(tmp_path, {"runs": {"transformers": {"path": "zoo/{model}/final", "dataset": "docs"}}})
    assert list(catalog.models) == ["a"]
    assert catalog.unclaimed == ("'b': no section of discover takes this folder: it holds no folder final",)


def test_bad_names_and_links_of_folders__are_refused(tmp_path: Path) -> None:
    put(tmp_path / "outside" / "bert", BERT)
    put(tmp_path / "catalog" / "zoo" / "b b", BERT)
    (tmp_path / "catalog" / "zoo" / "link").symlink_to(tmp_path / "outside" / "bert")
    (tmp_path / "catalog" / "zoo" / "dangling").symlink_to("nowhere")
    catalog = read(tmp_path / "catalog")
    assert catalog.models == {}
    messages = {refused.name: refused.message for refused in catalog.refused_models}
    assert messages["'b b'"].endswith("Rename the folder")
    assert "leads out of its folder and out of the catalog's. Copy the folder there, or allow" in messages["'link'"]
    assert "no section of discover takes: it is a link that leads nowhere" in messages["'dangling'"]
    assert set(messages) == {"'b b'", "'link'", "'dangling'"}


def test_many_folders__are_each_looked_into_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(300):
        put(tmp_path / "zoo" / f"m{number:03}", TIMM if number % 2 else BERT)
    looked: list[Path] = []
    monkeypatch.setattr(
        "lfm_tasks.catalog.discovery.folder_kind",
        lambda folder, base: looked.append(folder) or folder_kind(folder, base),
    )
    catalog = read(tmp_path)
    assert (len(catalog.models), len(looked), len(set(looked))) == (300, 300, 300)


def test_links__may_lead_into_the_folders_that_the_catalog_allows(tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    (tmp_path / "home" / "acts").mkdir(parents=True)
    for number in range(3):
        (tmp_path / "hub" / f"blob{number}").write_bytes(b"")
        (tmp_path / "home" / "acts" / f"m{number}.npz").symlink_to(tmp_path / "hub" / f"blob{number}")
    text = """\
version: 1
datasets: {probe: {ids: positional}}
discover: {all: {activations: {path: "acts/{model}.npz", dataset: probe}}}
"""
    path = tmp_path / "home" / "data_catalog.yaml"
    path.write_text(text)
    assert [refused.name for refused in read_catalog(path).refused_models] == ["'m0'", "'m1'", "'m2'"]
    path.write_text(f"{text}links: [../hub]\n")
    assert list(read_catalog(path).models) == ["m0", "m1", "m2"]
