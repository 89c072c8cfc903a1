"""Texts and images for ONNX models: tokens and pixels are those of the libraries that the models were trained with."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from lfm_tasks.catalog import read_catalog
from lfm_tasks.errors import DataError
from lfm_tasks.sources.networks.raw_preparation import image_inputs, text_inputs
from lfm_tasks.sources.networks.recording import ScatteredSource
from lfm_tasks.sources.opening import open_source, read_dataset
from lfm_tasks.sources.source import Source
from tests.torchvision_operators import define_missing_operators

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{number}" for number in range(40))]
generator = np.random.default_rng(0)
TEXTS = [" ".join(f"w{word}" for word in generator.integers(0, 40, length)) for length in generator.integers(1, 12, 30)]
TABLE = generator.standard_normal((len(WORDS), 6)).astype(np.float32)


@dataclass(frozen=True)
class Raw:
    """Raw inputs in memory."""

    rows: Sequence[Any]
    kind: Literal["texts", "images"]
    memory_bytes: int = 0

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, rows: np.ndarray) -> list[Any]:
        return [self.rows[row] for row in rows]

    def digest(self) -> str:
        return "digest"

    def lengths(self) -> np.ndarray:
        return np.array([len(row) if self.kind == "texts" else 0 for row in self.rows])


# --- texts


def write_model(folder: Path, *, names: Sequence[str] = ("input_ids", "attention_mask"), tokens: Any = "s") -> Path:
    """Write what optimum writes: model.onnx beside tokenizer.json and config.json."""
    tokenizers = pytest.importorskip("tokenizers", reason="needs the extra [hf]")
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]")  # noqa: S106 - a word
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_padding(length=64)  # of its file, which is not what a batch is padded to
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"pad_token": "[PAD]", "model_max_length": 10**30}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "max_position_embeddings": 10}))
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["embedding"])]
    entries = [helper.make_tensor_value_info(name, TensorProto.INT64, ["b", tokens]) for name in names]
    for name in names[1:]:
        nodes.append(helper.make_node("Cast", [name], [f"{name}_floats"], to=TensorProto.FLOAT))
    out = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "test", entries, out, [numpy_helper.from_array(TABLE, "table")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return folder / "model.onnx"


def opened(folder: Path, options: str = "", *, name: str = "net") -> Source:
    lines = [json.dumps({"id": f"t{number:02}", "text": text}) for number, text in enumerate(TEXTS)]
    (folder / "texts.jsonl").write_text("\n".join(lines))
    (folder / "data_catalog.yaml").write_text(f"""
version: 1
datasets: {{docs: {{texts: {{path: texts.jsonl, text: text, id: id}}}}}}
discover: {{folders: {{onnx: {{path: "zoo/{{model}}", dataset: docs, pool: mean{options}}}}}}}
""")
    catalog = read_catalog(folder / "data_catalog.yaml", {})
    assert list(catalog.models) == [name]
    return open_source(name, catalog.model_on(name), catalog, read_dataset("docs", catalog))


def expected_rows(limit: int = 10) -> np.ndarray:
    words = [["[CLS]", *text.split()[: limit - 2], "[SEP]"] for text in TEXTS]
    return np.stack([TABLE[[WORDS.index(word) for word in row]].mean(axis=0) for row in words])


@pytest.mark.parametrize("layout", ["zoo/net", "zoo/net/onnx"])  # of optimum, and of the hub
def test_folder_of_optimum__is_recorded_on_raw_texts(tmp_path: Path, layout: str) -> None:
    path = write_model(tmp_path / layout)
    for file in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        (path.parent / file).rename(tmp_path / "zoo/net" / file)
    source = opened(tmp_path, ", batch_size: 7")
    (batch,) = source.batches(["embedding"], np.arange(len(TEXTS)))
    np.testing.assert_allclose(batch["embedding"], expected_rows(), rtol=1e-5, atol=1e-6)


def test_texts__have_the_same_bits_after_a_resumption_and_in_any_order_of_the_dataset(tmp_path: Path) -> None:
    write_model(tmp_path / "zoo/net")
    source: Any = opened(tmp_path, ", batch_size: 7")
    rows = np.arange(len(TEXTS))
    whole = list(source.scattered_batches(["embedding"], rows))
    later = list(source.scattered_batches(["embedding"], rows, 2))
    assert len(whole) == 5
    assert [len(positions) for positions, _ in whole] == [7, 7, 7, 7, 2]
    for (first, one), (second, other) in zip(whole[2:], later, strict=True):
        assert first.tolist() == second.tolist()
        assert one["embedding"].tobytes() == other["embedding"].tobytes()
    lengths = [len(TEXTS[row].split()) for positions, _ in whole for row in positions]
    assert [min(length, 8) for length in lengths] == sorted(min(length, 8) for length in lengths)


def test_texts__are_cut_where_the_catalog_says(tmp_path: Path) -> None:
    write_model(tmp_path / "zoo/net")
    source = opened(tmp_path, ", max_tokens: 4")
    assert isinstance(source, ScatteredSource)
    assert source.notes() == ()
    (batch,) = source.batches(["embedding"], np.arange(len(TEXTS)))
    np.testing.assert_allclose(batch["embedding"], expected_rows(4), rtol=1e-5, atol=1e-6)
    n_cut = sum(len(text.split()) > 2 for text in TEXTS)
    share = f"{n_cut} of {len(TEXTS)} texts ({100 * n_cut / len(TEXTS):.1f} %)"
    assert 0 < n_cut < len(TEXTS)
    assert source.notes() == (f"{share} were cut at 4 tokens, 2 of them special ones",)
    with pytest.raises(DataError, match=r"got max_tokens: 2 and a tokenizer that adds 2 special tokens"):
        opened(tmp_path, ", max_tokens: 2")


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json", "config.json"])
def test_description_that_is_damaged__is_refused_before_a_run(tmp_path: Path, file: str) -> None:
    write_model(tmp_path / "zoo/net")
    (tmp_path / "zoo/net" / file).write_text('{"cut off')
    with pytest.raises(DataError, match=rf"{file}: got no JSON \(.*line 1 column 2.*Copy the file again") as caught:
        opened(tmp_path)
    assert caught.value.reason == "damaged_source"


def test_texts__are_padded_to_what_a_fixed_input_takes(tmp_path: Path) -> None:
    write_model(tmp_path / "zoo/net", tokens=8)
    (batch,) = opened(tmp_path).batches(["embedding"], np.arange(len(TEXTS)))
    np.testing.assert_allclose(batch["embedding"], expected_rows(8), rtol=1e-5, atol=1e-6)


def test_text_inputs__are_tokens_mask_types_and_places(tmp_path: Path) -> None:
    names = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
    path = write_model(tmp_path, names=names)
    inputs = text_inputs("net", Raw(["w0", "w1 w2 strange"], "texts"), path, dict.fromkeys(names, (None,)), None, None)
    batch = inputs.batch(np.array([0, 1]))
    assert {name: values.tolist() for name, values in batch.arrays.items()} == {
        "input_ids": [[2, 4, 3, 0, 0], [2, 5, 6, 1, 3]],
        "attention_mask": [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]],
        "token_type_ids": [[0] * 5, [0] * 5],
        "position_ids": [[0, 1, 2, 0, 0], [0, 1, 2, 3, 4]],
    }
    assert {values.dtype for values in batch.arrays.values()} == {np.dtype(np.int64)}


def test_identity_of_texts__changes_with_tokenizer_and_cutting(tmp_path: Path) -> None:
    write_model(tmp_path / "zoo/net")
    first = opened(tmp_path).identity("embedding")
    shorter = opened(tmp_path, ", max_tokens: 4").identity("embedding")
    (tmp_path / "zoo/net/tokenizer.json").write_text((tmp_path / "zoo/net/tokenizer.json").read_text() + " ")
    other = opened(tmp_path).identity("embedding")
    assert {name for name in first if first[name] != shorter[name]} == {"max_tokens"}
    assert {name for name in first if first[name] != other[name]} == {"tokenizer"}


def test_texts__say_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_model(tmp_path)
    texts, one = Raw(["w0"], "texts"), {"input_ids": (None,)}
    with pytest.raises(DataError, match=r"got the inputs 'past_key_values.0.key', which no tokenizer makes") as caught:
        text_inputs("net", texts, path, one | {"past_key_values.0.key": (4, None, 8)}, None, None)
    assert caught.value.reason == "unsupported_model"
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(DataError, match=r'no package tokenizers.*pip install "lfm-atlas\[hf\]"') as caught:
        text_inputs("net", texts, path, one, None, None)
    assert caught.value.reason == "missing_package"
    monkeypatch.undo()
    (path.parent / "config.json").unlink()
    with pytest.raises(DataError, match=r"got no longest text.*Write max_tokens: 512"):
        text_inputs("net", texts, path, one, None, None)
    (path.parent / "tokenizer.json").unlink()
    with pytest.raises(DataError, match=r"got texts and no tokenizer.json beside the model") as caught:
        text_inputs("net", texts, path, one, None, None)
    assert caught.value.reason == "no_processor"


# --- images

SHAPE = {"pixel_values": (3, 8, 8)}
VIT = {
    "image_processor_type": "ViTImageProcessor",
    "do_resize": True,
    "size": {"height": 8, "width": 8},
    "resample": 2,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.5, 0.6, 0.7],
}
CLIP = VIT | {
    "image_processor_type": "CLIPImageProcessor",
    "size": {"shortest_edge": 9},
    "do_center_crop": True,
    "crop_size": {"height": 8, "width": 8},
    "resample": 3,
    "do_convert_rgb": True,
}


def photos() -> Raw:
    image = pytest.importorskip("PIL.Image", reason="needs the extra [hf]")
    sizes = ((16, 20), (31, 12), (8, 8))
    return Raw([image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes], "images")


def prepared(folder: Path, settings: dict[str, Any], images: Raw) -> np.ndarray:
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    inputs = image_inputs("net", images, folder / "model.onnx", SHAPE, None)
    return inputs.batch(np.arange(len(images))).arrays["pixel_values"]


@pytest.mark.parametrize("settings", [VIT, CLIP], ids=["vit", "clip"])
def test_images__are_prepared_as_by_the_models_own_processor(tmp_path: Path, settings: dict[str, Any]) -> None:
    images = photos()
    ours = prepared(tmp_path, settings, images)
    transformers = pytest.importorskip("transformers", reason="needs the extra [hf]")
    define_missing_operators()
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    theirs = np.concatenate([np.asarray(processor(one, return_tensors="np")["pixel_values"]) for one in images.rows])
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


def test_images__of_older_files_have_one_number_as_size(tmp_path: Path) -> None:
    images = photos()
    np.testing.assert_array_equal(prepared(tmp_path, VIT, images), prepared(tmp_path, VIT | {"size": 8}, images))
    older = CLIP | {"size": 9, "crop_size": 8}
    np.testing.assert_array_equal(prepared(tmp_path, CLIP, images), prepared(tmp_path, older, images))


def test_images__of_a_catalogs_settings(tmp_path: Path) -> None:
    images = photos()
    from lfm_tasks.catalog.models import Preprocess

    chosen = Preprocess.model_validate({"size": 8, "mean": [0.5, 0.4, 0.3], "std": [0.5, 0.6, 0.7]})
    inputs = image_inputs("net", images, tmp_path / "model.onnx", SHAPE, chosen)
    np.testing.assert_allclose(inputs.batch(np.arange(3)).arrays["pixel_values"], prepared(tmp_path, VIT, images))
    last = image_inputs("net", images, tmp_path / "model.onnx", {"x": (8, 8, 3)}, chosen)
    turned = np.moveaxis(last.batch(np.arange(3)).arrays["x"], 3, 1)
    np.testing.assert_allclose(turned, prepared(tmp_path, VIT, images))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (None, "got images, and neither preprocess: nor a preprocessor_config.json beside the model"),
        (VIT | {"do_pad": True, "crop_pct": 0.9}, r"with steps that are not done for ONNX models \(crop_pct, do_pad\)"),
        (VIT | {"size": {"longest_edge": 8}}, "with steps that are not done"),
        (VIT | {"size": {"shortest_edge": 8}}, "got images of several sizes, expected one size for all"),
        (
            VIT | {"size": {"height": 9, "width": 8}},
            r"got images of \(3, 9, 8\) after preprocessing, expected \(3, 8, 8\)",
        ),
    ],
)
def test_images__say_what_cannot_be_done(tmp_path: Path, settings: dict[str, Any] | None, message: str) -> None:
    if settings is not None:
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(DataError, match=message):
        image_inputs("net", Raw([None], "images"), tmp_path / "model.onnx", SHAPE, None)


def test_images__go_to_models_of_one_batch_of_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"got the inputs x \(4,\), expected one of \(batch, channels, height, width\)"):
        image_inputs("net", Raw([None], "images"), tmp_path / "model.onnx", {"x": (4,)}, None)
