"""A folder of Hugging Face checkpoints, texts and images become an atlas by ten lines of catalog, and by no Python."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from lfm_atlas.pipeline import Outcome
from lfm_tasks.catalog import Catalog, read_catalog
from lfm_tasks.published.atlas import open_atlas
from lfm_tasks.sources.checkpoints import models as checkpoint_models
from lfm_tasks.sources.files import digests
from lfm_tasks.stages.inventory.stage import validate_catalog
from lfm_tasks.stores.units.store import UnitStore

pytest.importorskip("transformers")

TEN_LINES = """
version: 1
datasets:
  docs: {texts: {path: texts.jsonl, text: text, id: id, label: label}}
  photos: {images: {path: "images/*/*.png", label: folder}}
discover:
  language: {transformers: {path: "zoo/{model}", dataset: docs, max_tokens: 24}}
  vision:   {transformers: {path: "zoo/{model}", dataset: photos}}
  timm:     {timm: {path: "zoo/{model}", dataset: photos}}
"""
# 96 texts and images are few: the usual settings are for thousands.
SMALL = "atlas: {graph: {n_neighbors: 10}, n_eigenpairs: 8, null: {n_permutations: 19}}\n"

Build = Callable[..., Outcome]


@pytest.fixture(scope="module", autouse=True)
def files_that_count_as_old() -> Iterator[None]:
    """Let files be remembered that were written a moment ago."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digests, "_TICK", 0)
        yield


@pytest.fixture(scope="module")
def zoo(checkpoint_zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a copy of the checkpoints with the catalog."""
    folder = tmp_path_factory.mktemp("hub") / "hub"
    shutil.copytree(checkpoint_zoo, folder)
    (folder / "zoo" / "logs").mkdir()
    (folder / "data_catalog.yaml").write_text(TEN_LINES + SMALL)
    return folder


@pytest.fixture(scope="module")
def first(zoo: Path, build: Build) -> Outcome:
    return build(zoo)


def catalog_of(zoo: Path) -> Catalog:
    return read_catalog(zoo / "data_catalog.yaml")


def keys(zoo: Path) -> dict[str, str]:
    planned = validate_catalog(catalog_of(zoo), lambda stage, done, total: None).spaces
    return {one.space.name: one.key for one in planned}


def stored(zoo: Path, space: str) -> tuple[np.ndarray, list[str]]:
    with UnitStore(zoo / ".lfm-atlas").open("activations", keys(zoo)[space]) as unit:
        return unit.read("activations"), unit.read("ids").tolist()


def test_ten_lines__compare_the_zoo(zoo: Path, first: Outcome) -> None:
    catalog = catalog_of(zoo)
    assert catalog.discovered["language"] == (
        "clip", "gpt2", "minilm", "minilm-finetune", "minilm-lora", "minilm-sharded"
    )  # fmt: skip
    assert catalog.discovered["vision"] == ("vit",)
    assert catalog.unclaimed == (
        "'logs': no section of discover takes this folder: it is empty, without config.json, modules.json or "
        "adapter_config.json",
    )
    # Of two networks the user has to say which one.
    [failure] = first.failures
    assert (failure.model, failure.layer, failure.reason) == ("clip", "", "no_tower")
    assert "tower: text (reads texts) or tower: vision (reads images)" in failure.message
    assert {name.split("/")[0] for name in keys(zoo)} == {*catalog.models} - {"clip"}
    assert "gpt2: the tokenizer has no pad token: <|end|> fills batches up, and is masked" in first.recorded
    assert any(note.startswith("gpt2: ") and note.endswith("were cut at 24 tokens") for note in first.recorded)
    # A model card fills in what the catalog does not say.
    assert catalog.models["minilm-finetune"].meta["base_model"] == "minilm"
    assert catalog.facts_from["minilm-finetune"]["license"] == "README.md"


def test_labels__come_with_the_dataset(zoo: Path) -> None:
    rows = validate_catalog(catalog_of(zoo), lambda stage, done, total: None).rows
    texts = [json.loads(line) for line in (zoo / "texts.jsonl").read_text().splitlines()]
    assert rows["docs"].ids.tolist() == [text["id"] for text in texts]
    assert rows["docs"].labels is not None
    assert rows["docs"].labels.tolist() == [text["label"] for text in texts]
    assert rows["photos"].labels is not None
    assert set(rows["photos"].labels.tolist()) == {"checks", "dots", "slopes", "stripes"}


@pytest.mark.parametrize("model", ["minilm", "gpt2"])
def test_stored_rows__are_those_of_a_plain_loop(model: str, zoo: Path, first: Outcome) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(zoo / "zoo" / model)
    network = AutoModel.from_pretrained(zoo / "zoo" / model).eval()
    texts = {line["id"]: line["text"] for line in map(json.loads, (zoo / "texts.jsonl").read_text().splitlines())}
    layers = sorted(name for name in keys(zoo) if name.startswith(f"{model}/"))
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    words = [texts[name] for name in sorted(texts)]
    encoded = tokenizer(words, padding=True, truncation=True, max_length=24, return_tensors="pt")
    with torch.inference_mode():
        states = network(**encoded, output_hidden_states=True).hidden_states
    mask = encoded["attention_mask"][:, :, None]
    last = mask[:, :, 0].sum(dim=1) - 1
    for layer, state in zip(layers, states, strict=True):
        mean = (state * mask).sum(dim=1) / mask.sum(dim=1)
        expected = state[torch.arange(len(words)), last] if model == "gpt2" else mean
        rows, ids = stored(zoo, layer)
        assert ids == sorted(texts)
        np.testing.assert_allclose(rows, expected.numpy(), atol=1e-5, rtol=1e-5)


def test_variants__are_the_most_alike(zoo: Path, first: Outcome) -> None:
    # The same tensors in shards: the same rows, bit for bit.
    for layer in ("hidden.00", "hidden.03"):
        whole, shards = (stored(zoo, f"{model}/{layer}")[0] for model in ("minilm", "minilm-sharded"))
        np.testing.assert_array_equal(whole, shards)
    assert not np.array_equal(stored(zoo, "minilm/hidden.03")[0], stored(zoo, "minilm-lora/hidden.03")[0])
    nearest = open_atlas(zoo / "atlas").nearest("minilm", n=3, dataset="docs")
    assert {row["name"] for row in nearest} == {"minilm-finetune", "minilm-lora", "minilm-sharded"}


def test_unchanged_zoo__opens_no_model_and_hashes_nothing(
    zoo: Path, first: Outcome, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_models, "open_network", lambda *_: pytest.fail("a model was opened"))
    monkeypatch.setattr(digests, "_hash", lambda path: pytest.fail(f"{path} was hashed"))
    again = build(zoo)
    assert (set(again.computed.values()), again.is_new) == ({0}, False)


def test_edited_file__makes_that_model_new(zoo: Path, first: Outcome, build: Build) -> None:
    before = keys(zoo)
    path = zoo / "zoo" / "minilm-finetune" / "tokenizer.json"
    content = path.read_text()
    described = json.loads(content)
    described["normalizer"]["lowercase"] = not described["normalizer"]["lowercase"]
    path.write_text(json.dumps(described))
    try:
        after = keys(zoo)
        changed = {name.split("/")[0] for name in before if before[name] != after[name]}
        assert changed == {"minilm-finetune"}
        path.write_text(content[:-20])
        assert {name.split("/")[0] for name in before if name not in keys(zoo)} == {"minilm-finetune"}
    finally:
        path.write_text(content)


TOKENS = """
version: 1
datasets:
  docs: {texts: {path: texts.jsonl, text: text, id: id, label: label}}
defaults: {transformers: {dataset: docs, max_tokens: 12, points: tokens}, layers: [hidden.02]}
models:
  base: {transformers: {path: zoo/minilm}}
  finetune: {transformers: {path: zoo/minilm-finetune}}
  gpt2: {transformers: {path: zoo/gpt2}}
"""


@pytest.fixture(scope="module")
def by_token(zoo: Path, tmp_path_factory: pytest.TempPathFactory, build: Build) -> Path:
    """Give the folder of an atlas whose points are tokens, recorded by Dask workers."""
    folder = tmp_path_factory.mktemp("tokens") / "hub"
    shutil.copytree(zoo, folder, ignore=shutil.ignore_patterns(".lfm-atlas", "atlas"))
    settings = SMALL.replace("n_permutations: 19}", "n_permutations: 0}, intervals: {n_splits: 0}, collection: null")
    (folder / "data_catalog.yaml").write_text(TOKENS + settings)
    build(folder, in_process=False)
    return folder


def test_points_that_are_tokens__have_a_row_a_token(by_token: Path) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(by_token / "zoo" / "minilm")
    network = AutoModel.from_pretrained(by_token / "zoo" / "minilm").eval()
    rows, ids = stored(by_token, "base/hidden.02")
    texts = [json.loads(line) for line in (by_token / "texts.jsonl").read_text().splitlines()]
    words = [text["text"] for text in texts]
    encoded = tokenizer(words, padding=True, truncation=True, max_length=12, return_tensors="pt")
    with torch.inference_mode():
        states = network(**encoded, output_hidden_states=True).hidden_states[2].numpy()
    expected = {
        f"{text['id']}#{position}": tokens[position]
        for text, tokens, n_tokens in zip(texts, states, encoded["attention_mask"].sum(dim=1).tolist(), strict=True)
        for position in range(n_tokens)
    }
    assert ids == sorted(expected)
    np.testing.assert_allclose(rows, np.stack([expected[name] for name in ids]), atol=1e-5, rtol=1e-5)


def test_tokens_of_a_text__go_together_and_share_its_label(by_token: Path) -> None:
    planned = validate_catalog(catalog_of(by_token), lambda stage, done, total: None)
    texts = {line["id"]: line for line in map(json.loads, (by_token / "texts.jsonl").read_text().splitlines())}
    rows, groups = planned.rows["docs"], planned.exchangeability["docs"]
    assert groups.kind == "groups"
    of_text = [name.partition("#")[0] for name in groups.ids.tolist()]
    assert [sorted(texts)[index] for index in groups.sets] == of_text
    assert rows.labels is not None
    assert [texts[name.partition("#")[0]]["label"] for name in rows.ids.tolist()] == rows.labels.tolist()
    # Another tokenizer cuts the texts into other tokens: its points are others.
    [failure] = planned.failures
    assert (failure.model, failure.reason) == ("gpt2", "bad_inputs")
    assert "got other tokens than those of model base, expected the same" in failure.message


def test_workers_and_this_process__record_the_same_bits(by_token: Path, build: Build, tmp_path: Path) -> None:
    shutil.copytree(by_token, tmp_path / "hub", ignore=shutil.ignore_patterns(".lfm-atlas", "atlas"))
    build(tmp_path / "hub")
    for space in ("base/hidden.02", "finetune/hidden.02"):
        np.testing.assert_array_equal(stored(by_token, space)[0], stored(tmp_path / "hub", space)[0])


def test_tokens_and_texts__are_points_of_two_datasets(by_token: Path) -> None:
    text = TOKENS.replace("path: zoo/gpt2", "path: zoo/gpt2, points: rows")
    (by_token / "mixed.yaml").write_text(text + SMALL)
    failures = validate_catalog(read_catalog(by_token / "mixed.yaml"), lambda stage, done, total: None).failures
    assert {failure.reason for failure in failures} == {"bad_inputs"}
    assert "got points: tokens for base and texts for gpt2, expected one kind of points" in failures[0].message
