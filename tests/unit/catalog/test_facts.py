import json
from pathlib import Path

import pytest

from lfm_tasks.catalog.facts import folder_facts

CARD = """---
license: apache-2.0
base_model:
- google-bert/bert-base-uncased
base_model_relation: finetune
pipeline_tag: fill-mask
tags: [a, b]
---

# A model
license: mit
"""


def test_folder_facts__reads_the_model_card(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(CARD)

    assert folder_facts(tmp_path) == {
        "base_model": ("google-bert/bert-base-uncased", "README.md"),
        "base_model_relation": ("finetune", "README.md"),
        "license": ("apache-2.0", "README.md"),
        "task": ("fill-mask", "README.md"),
    }


def test_folder_facts__believes_the_first_file_that_says_something(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: other\nlicense_name: llama3\n---\n")
    adapter = {"peft_type": "LORA", "base_model_name_or_path": "/home/somebody/zoo/minilm"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(adapter))
    config = {"_name_or_path": "org/minilm", "architectures": ["BertModel"], "model_type": "bert"}
    (tmp_path / "config.json").write_text(json.dumps(config))

    assert folder_facts(tmp_path) == {
        "license": ("llama3", "README.md"),
        "base_model": ("minilm", "adapter_config.json"),
        "base_model_relation": ("adapter", "adapter_config.json"),
        "architecture": ("BertModel", "config.json"),
    }


def test_folder_facts__keeps_several_bases_of_a_merge(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nbase_model: [a/one, b/two]\nbase_model_relation: merge\n---\n")

    assert folder_facts(tmp_path)["base_model"] == (["a/one", "b/two"], "README.md")
    assert folder_facts(tmp_path)["base_model_relation"] == ("merge", "README.md")


@pytest.mark.parametrize(
    ("origin", "base"),
    [
        ("bert-base-uncased", "bert-base-uncased"),
        ("org/bert", "org/bert"),
        ("./results/checkpoint-100", None),
        ("/home/x", None),
        ("org/model", None),  # itself
        (7, None),
    ],
)
def test_folder_facts__takes_the_origin_that_older_versions_wrote(tmp_path: Path, origin: object, base: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"_name_or_path": origin, "architecture": "resnet18"}))

    assert folder_facts(folder).get("base_model", (None, ""))[0] == base
    assert folder_facts(folder)["architecture"] == ("resnet18", "config.json")


def test_folder_facts__reads_what_mlflow_wrote(tmp_path: Path) -> None:
    flavors = {"python_function": {"loader_module": "x"}, "transformers": {"task": "fill-mask"}}
    flavors["transformers"] |= {"source_model_name": "org/bert", "model_binary": "model"}
    (tmp_path / "MLmodel").write_text(json.dumps({"flavors": flavors}))  # JSON is YAML

    assert folder_facts(tmp_path) == {"base_model": ("org/bert", "MLmodel"), "task": ("fill-mask", "MLmodel")}
    (tmp_path / "model").mkdir()
    assert folder_facts(tmp_path / "model") == folder_facts(tmp_path)


@pytest.mark.parametrize(
    "card",
    [
        "",
        "# no front matter",
        "---\nlicense: mit",
        "---\n- a list\n---\n",
        "---\nlicense: [\n---\n",
        "---\nlicense: [mit, apache-2.0]\nbase_model: {a: b}\npipeline_tag: 3\n---\n",
        "---\nbase_model_relation: finetune\n---\n",
        "---\nlicense: 'a\\nb'\n---\n".replace("'", '"'),
        "---\n" + "[" * 5000 + "\n---\n",
        "---\nlicense: mit\n---\n" + "x" * (1 << 20),
        "---\nlicense: !!python/object/apply:os.system [true]\n---\n",
    ],
)
def test_folder_facts__is_told_nothing_by_a_damaged_card(tmp_path: Path, card: str) -> None:
    (tmp_path / "README.md").write_text(card)

    assert folder_facts(tmp_path) == {}


def test_folder_facts__is_told_nothing_by_other_damage(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes(b"---\nlicense: \xff\n---\n")
    (tmp_path / "config.json").write_text("[" * 100_000)
    (tmp_path / "adapter_config.json").mkdir()
    (tmp_path / "MLmodel").write_text("flavors: [1]")

    assert folder_facts(tmp_path) == {}
    assert folder_facts(tmp_path / "absent") == {}


def test_folder_facts__drops_a_relation_that_does_not_exist(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nbase_model: a\nbase_model_relation: cousin\n---\n")

    assert folder_facts(tmp_path) == {"base_model": ("a", "README.md")}
