import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from safetensors.numpy import save_file

from lfm_tasks.errors import DataError
from lfm_tasks.sources.checkpoints.folder import Checkpoint, inspect_checkpoint, layer_names
from lfm_tasks.sources.checkpoints.prepared_inputs import towers
from tests.checkpoint_zoo import promised_weights

BERT = {"model_type": "bert", "hidden_size": 8, "num_hidden_layers": 2, "vocab_size": 5, "architectures": ["BertModel"]}
IMAGES = {"image_processor_type": "ViTImageProcessor", "do_resize": True, "image_mean": [0.5]}
SOUND = {"feature_extractor_type": "WhisperFeatureExtractor", "sampling_rate": 16000}
WriteFolder = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> WriteFolder:
    """Write a folder of a checkpoint: JSON files by name, others as text; weights unless told otherwise."""

    def make(name: str, files: dict[str, Any], weights: Literal["promised"] | None = "promised") -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        for file, content in files.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(content if isinstance(content, str) else json.dumps(content))
        if weights is not None:
            save_file(promised_weights(files.get("config.json", {})), folder / "model.safetensors")
        return folder

    return make


def names(checkpoint: Checkpoint) -> set[str]:
    return {file.name for file in checkpoint.files}


def test_inspect_checkpoint__tells_what_an_encoder_is_by_its_headers(write: WriteFolder) -> None:
    files = {"config.json": BERT, "tokenizer.json": {}, "tokenizer_config.json": {}, "README.md": "x", "other.json": {}}
    found = inspect_checkpoint(write("minilm", files))

    assert (found.loader, found.reads, found.family, found.tower) == ("transformers", "texts", "bert", None)
    assert found.layers == ("hidden.00", "hidden.01", "hidden.02")
    assert found.shapes == ((None, 8),) * 3
    assert (found.default_pool, found.causal) == ("mean", False)
    assert (found.parameters, found.weight_bytes, found.dtype) == (104, 4 * 40 + 2 * 64, "float32")
    assert names(found) == {"config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"}
    assert found.tokenizer == found.folder


def test_inspect_checkpoint__pools_a_causal_model_by_its_last_token(write: WriteFolder) -> None:
    config = {"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "vocab_size": 5, "architectures": ["GPT2LMHeadModel"]}
    found = inspect_checkpoint(write("gpt2", {"config.json": config, "vocab.json": {}, "merges.txt": ""}))

    assert (found.default_pool, found.causal, found.shapes) == ("last", True, ((None, 8), (None, 8)))
    assert {"vocab.json", "merges.txt"} < names(found)


def test_inspect_checkpoint__reads_images_with_their_processor(write: WriteFolder) -> None:
    config = {"model_type": "resnet", "embedding_size": 4, "hidden_sizes": [6, 8], "depths": [1, 1]}
    found = inspect_checkpoint(write("resnet", {"config.json": config, "preprocessor_config.json": IMAGES}))

    assert (found.reads, found.tokenizer) == ("images", None)
    assert found.shapes == ((4, None, None), (6, None, None), (8, None, None))
    assert names(found) == {"config.json", "preprocessor_config.json", "model.safetensors"}


def test_inspect_checkpoint__takes_all_shards_that_the_index_names(write: WriteFolder) -> None:
    tensors = promised_weights(BERT)
    weight_map = {name: f"model-0000{2 - index % 2}-of-00002.safetensors" for index, name in enumerate(tensors)}
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    files = {"config.json": BERT, "tokenizer.json": {}, "model.safetensors.index.json": index}
    folder = write("sharded", files, weights=None)
    for shard in set(weight_map.values()):
        save_file({name: tensors[name] for name, file in weight_map.items() if file == shard}, folder / shard)
    save_file({"stray": np.zeros(9, np.float32)}, folder / "model-00003-of-00003.safetensors")

    found = inspect_checkpoint(folder)

    assert (found.parameters, found.weight_bytes) == (104, 4 * 40 + 2 * 64)
    assert names(found) >= {"model.safetensors.index.json", *weight_map.values()}
    assert "model-00003-of-00003.safetensors" not in names(found)


def test_inspect_checkpoint__prefers_one_file_to_an_index(write: WriteFolder) -> None:
    files = {"config.json": BERT, "tokenizer.json": {}, "model.safetensors.index.json": {"weight_map": {}}}

    assert "model.safetensors.index.json" not in names(inspect_checkpoint(write("both", files)))


def test_inspect_checkpoint__takes_an_adapter_on_the_base_beside_it(write: WriteFolder) -> None:
    base = write("base", {"config.json": BERT, "tokenizer.json": {}})
    adapter = {"peft_type": "LORA", "base_model_name_or_path": "/home/somebody/models/base"}
    folder = write("adapter", {"adapter_config.json": adapter}, weights=None)
    save_file({"lora_A": np.zeros((2, 8), np.float32)}, folder / "adapter_model.safetensors")

    found = inspect_checkpoint(folder)

    assert (found.folder, found.adapter, found.base, found.tokenizer) == (folder, folder, base, base)
    assert found.parameters == 104 + 16
    assert set(found.files) >= {folder / "adapter_config.json", folder / "adapter_model.safetensors"}
    assert set(found.files) >= {base / "config.json", base / "tokenizer.json", base / "model.safetensors"}


def test_inspect_checkpoint__takes_the_base_that_the_catalog_names(write: WriteFolder) -> None:
    base = write("elsewhere/base", {"config.json": BERT, "tokenizer.json": {}})
    folder = write("zoo/adapter", {"adapter_config.json": {"peft_type": "LORA"}, "tokenizer.json": {}}, weights=None)
    save_file({"lora_A": np.zeros((2, 8), np.float32)}, folder / "adapter_model.safetensors")

    found = inspect_checkpoint(folder, base=base)

    assert found.base == base
    assert found.tokenizer == folder  # its own, as it was trained with it


def test_inspect_checkpoint__takes_a_sentence_transformer_with_its_modules(write: WriteFolder) -> None:
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Dense": "Dense", "3_Normalize": "Normalize"}
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds.items()]
    files = {"config.json": BERT, "tokenizer.json": {}, "modules.json": modules, "sentence_bert_config.json": {}}
    files |= {"1_Pooling/config.json": {}, "2_Dense/config.json": {}, "2_Dense/model.safetensors": "weights"}
    folder = write("sentence", files)

    found = inspect_checkpoint(folder)
    plain = inspect_checkpoint(folder, loader="transformers")

    relative = {file.relative_to(folder).as_posix() for file in found.files}
    assert found.loader == "sentence_transformers"
    assert relative == {*files, "model.safetensors"}
    assert plain.loader == "transformers"
    assert names(plain) == {"config.json", "tokenizer.json", "model.safetensors"}


def test_inspect_checkpoint__knows_timm_by_its_architecture(write: WriteFolder) -> None:
    found = inspect_checkpoint(write("timm", {"config.json": {"architecture": "resnet18"}}))

    assert (found.loader, found.reads, found.family, found.layers) == ("timm", "images", "resnet18", ())


CLIP = {
    "model_type": "clip",
    "text_config": {"hidden_size": 8, "num_hidden_layers": 1},
    "vision_config": {"hidden_size": 6, "num_hidden_layers": 2},
}


@pytest.mark.parametrize(
    ("tower", "reads", "shapes", "prepared_by"),
    [
        ("text", "texts", ((None, 8),) * 2, "tokenizer.json"),
        ("vision", "images", ((None, 6),) * 3, "preprocessor_config.json"),
    ],
)
def test_inspect_checkpoint__takes_one_tower(
    write: WriteFolder, tower: str, reads: str, shapes: tuple[Any, ...], prepared_by: str
) -> None:
    files = {"config.json": CLIP, "tokenizer.json": {}, "preprocessor_config.json": IMAGES}
    found = inspect_checkpoint(write("clip", files), tower=tower)

    assert (found.reads, found.tower, found.shapes) == (reads, tower, shapes)
    assert names(found) == {"config.json", prepared_by, "model.safetensors"}


def test_towers__are_those_that_can_be_run_apart() -> None:
    assert towers(CLIP) == ("text", "vision")
    assert towers({"is_encoder_decoder": True}) == ("encoder", "decoder")
    assert towers(BERT) == ()


T5 = {"model_type": "t5", "is_encoder_decoder": True, "d_model": 8, "num_layers": 1, "vocab_size": 5}
WHISPER = {"model_type": "whisper", "is_encoder_decoder": True, "d_model": 8, "decoder_layers": 1, "vocab_size": 5}
WAV2VEC = {"model_type": "wav2vec2", "hidden_size": 8, "num_hidden_layers": 1, "vocab_size": 5}
LORA = {"peft_type": "LORA", "base_model_name_or_path": "org/base"}
TEXTS = {"config.json": BERT, "tokenizer.json": {}}
OWN_MODULES = [{"path": "", "type": "sentence_transformers.models.Transformer"}, {"path": "1", "type": "mine.Pool"}]
LEADING_OUT = [{"path": "../other", "type": "sentence_transformers.models.Transformer"}]
STATIC = [{"path": "", "type": "sentence_transformers.models.StaticEmbedding"}]
INDEX = "model.safetensors.index.json"
LFS = "version https://git-lfs.github.com/spec/v1"
REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "nothing": ({"notes.txt": "x"}, "missing_source", r"got no config.json, expected a checkpoint. It holds notes.txt"),
    "damaged JSON": ({"config.json": "{"}, "damaged_source", r"model/config.json: got no JSON \(.*line 1 column 2"),
    "another JSON": ({"config.json": []}, "damaged_source", r"config.json: got a JSON list, expected an object"),
    "no model_type": ({"config.json": {}}, "unsupported_model", r"got a config.json without model_type"),
    "pickled weights": (
        {**TEXTS, "pytorch_model.bin": "x"},
        "bad_weights",
        r"got pytorch_model.bin, expected model.safetensors: this format can hold code.*"
        r"AutoModel.from_pretrained\('model', use_safetensors=False\).save_pretrained\('model'\)",
    ),
    "weights of torch": ({**TEXTS, "model.pth": "x"}, "bad_weights", r"got model.pth, expected model.safetensors"),
    "ONNX": ({**TEXTS, "model.onnx": "x"}, "bad_weights", r"got model.onnx.*Name the folder in a section onnx"),
    "TensorFlow": ({**TEXTS, "tf_model.h5": "x"}, "bad_weights", r"got tf_model.h5.*Save the model with PyTorch"),
    "no weights": (TEXTS, "bad_weights", r"got no weights, expected model.safetensors or model.safetensors.index.json"),
    "damaged weights": (
        {**TEXTS, "model.safetensors": "x" * 20},
        "damaged_source",
        r"model/model.safetensors: got a header",
    ),
    "weights of git-lfs": (
        {**TEXTS, "model.safetensors": f"{LFS}\noid sha256:1\nsize 12\n"},
        "damaged_source",
        r"model/model.safetensors: got a git-lfs pointer of \d+ bytes, expected the file .*Fetch it: git lfs pull",
    ),
    "description of git-lfs": (
        {**TEXTS, "config.json": f"{LFS}\noid sha256:1\nsize 12\n"},
        "damaged_source",
        r"model/config.json: got a git-lfs pointer",
    ),
    "modules that are no list": (
        {**TEXTS, "modules.json": {"a": 1}},
        "damaged_source",
        r"model/modules.json: got no list of modules with type and path",
    ),
    "shard outside": (
        {**TEXTS, INDEX: {"weight_map": {"a": "../other/model.safetensors"}}},
        "bad_weights",
        r"got the shard '../other/model.safetensors', expected the name of a .safetensors file in this folder",
    ),
    "shard of pickle": ({**TEXTS, INDEX: {"weight_map": {"a": "a.bin"}}}, "bad_weights", r"got the shard 'a.bin'"),
    "shard missing": (
        {**TEXTS, INDEX: {"weight_map": {"a": "a.safetensors"}}},
        "missing_source",
        r"model/a.safetensors: got no such file, expected one. Copy the folder again",
    ),
    "empty index": ({**TEXTS, INDEX: {}}, "bad_weights", r"index.json: got no weight_map"),
    "base elsewhere": (
        {"adapter_config.json": LORA, "adapter_model.safetensors": "\x02\0\0\0\0\0\0\0{}"},
        "missing_source",
        r"got an adapter on 'org/base', expected its base in a folder 'base' beside it. .*: base: ../base",
    ),
    "base outside": (
        {
            "adapter_config.json": {**LORA, "base_model_name_or_path": "../../.."},
            "adapter_model.safetensors": "\x02\0\0\0\0\0\0\0{}",
        },
        "missing_source",
        r"got an adapter on '../../..', expected its base in a folder",
    ),
    "no base": (
        {
            "adapter_config.json": {**LORA, "base_model_name_or_path": None},
            "adapter_model.safetensors": "\x02\0\0\0\0\0\0\0{}",
        },
        "missing_source",
        r"model: got an adapter_config.json without base_model_name_or_path, .*: base: ../base",
    ),
    "its own base": (
        {
            "adapter_config.json": {**LORA, "base_model_name_or_path": "org/model"},
            "adapter_model.safetensors": "\x02\0\0\0\0\0\0\0{}",
        },
        "missing_source",
        r"model: got an adapter that names itself \('model'\) as its base, expected a whole model",
    ),
    "adapter without weights": ({"adapter_config.json": LORA}, "bad_weights", r"got no adapter_model.safetensors"),
    "another adapter": (
        {"adapter_config.json": {"peft_type": "PROMPT_TUNING"}},
        "unsupported_model",
        r"got an adapter of type 'PROMPT_TUNING', expected LORA",
    ),
    "modules of its own": (
        {**TEXTS, "modules.json": OWN_MODULES},
        "untrusted_code",
        r"got the module 'mine.Pool', which is code of its own, expected one of sentence_transformers",
    ),
    "modules outside": ({"modules.json": LEADING_OUT}, "missing_source", r"got the path '../other', which leads out"),
    "static embeddings": ({"modules.json": STATIC}, "unsupported_model", r"StaticEmbedding', expected a Transformer"),
}
# With weights.
UNPREPARED: dict[str, tuple[dict[str, Any], str, str]] = {
    "no tokenizer": (
        {"config.json": BERT},
        "no_processor",
        r"got no tokenizer.json, expected the tokenizer .*Name the folder of one: tokenizer: zoo/base",
    ),
    "no processor": (
        {"config.json": {"model_type": "vit", "hidden_size": 8, "num_hidden_layers": 1}},
        "no_processor",
        r"got a model of images and no preprocessor_config.json, .*Copy the file of the model that it was trained from",
    ),
    "two towers": (
        {"config.json": CLIP, "tokenizer.json": {}, "preprocessor_config.json": IMAGES},
        "no_tower",
        r"got a clip model.* Choose tower: text \(reads texts\) or tower: vision \(reads images\)",
    ),
    "encoder and decoder": (
        {"config.json": T5, "tokenizer.json": {}},
        "no_tower",
        r"got a t5 model.* Choose tower: encoder \(reads texts\) or tower: decoder \(reads texts\)",
    ),
    "sound and text": (
        {"config.json": WHISPER, "tokenizer.json": {}, "preprocessor_config.json": SOUND},
        "no_tower",
        r"got a whisper model.* Choose tower: decoder \(reads texts\)",
    ),
    "sound": (
        {"config.json": WAV2VEC, "tokenizer.json": {}, "preprocessor_config.json": SOUND},
        "unsupported_model",
        r"got a model that reads sound, expected one of texts or images",
    ),
    "quantized": (
        {**TEXTS, "config.json": {**BERT, "quantization_config": {"quant_method": "aqlm"}}},
        "missing_package",
        r"got weights quantized by aqlm, which needs .*aqlm\[gpu,cpu\]. Pip install",
    ),
    "quantized in four bits": (
        {**TEXTS, "config.json": {**BERT, "quantization_config": {"load_in_4bit": True}}},
        "missing_package",
        r"quantized by bitsandbytes, which needs .*bitsandbytes",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_inspect_checkpoint__refuses_a_folder_and_says_what_to_do(write: WriteFolder, case: str) -> None:
    files, reason, message = REFUSED[case]

    with pytest.raises(DataError, match=message) as caught:
        inspect_checkpoint(write("model", files, weights=None), name="model")
    assert caught.value.reason == reason


@pytest.mark.parametrize("case", UNPREPARED)
def test_inspect_checkpoint__refuses_what_cannot_be_prepared(write: WriteFolder, case: str) -> None:
    files, reason, message = UNPREPARED[case]

    with pytest.raises(DataError, match=message) as caught:
        inspect_checkpoint(write("model", files), name="model")
    assert caught.value.reason == reason


def test_inspect_checkpoint__refuses_choices_that_do_not_fit(write: WriteFolder, tmp_path: Path) -> None:
    folder = write("bert", TEXTS)
    timm = write("timm", {"config.json": {"architecture": "resnet18"}})

    with pytest.raises(DataError, match=r"got no such folder, expected a checkpoint"):
        inspect_checkpoint(tmp_path / "absent")
    with pytest.raises(DataError, match=r"got tower: text, expected no tower"):
        inspect_checkpoint(folder, tower="text")
    with pytest.raises(DataError, match=r"got tower: text, expected no tower"):
        inspect_checkpoint(timm, tower="text")
    with pytest.raises(DataError, match=r"got base: and no adapter_config.json, expected an adapter"):
        inspect_checkpoint(folder, base=timm)
    with pytest.raises(DataError, match=r"timm: got no tokenizer.json.*Name another folder"):
        inspect_checkpoint(folder, tokenizer=timm)
    with pytest.raises(DataError, match=r"got a checkpoint of timm, expected one of transformers"):
        inspect_checkpoint(timm, loader="transformers")


def test_inspect_checkpoint__refuses_an_adapter_on_an_adapter(write: WriteFolder) -> None:
    files = {"adapter_config.json": LORA, "config.json": BERT}
    base, adapter = write("base", files), write("adapter", {"adapter_config.json": LORA}, weights=None)
    save_file({"lora_A": np.zeros(1, np.float32)}, adapter / "adapter_model.safetensors")

    with pytest.raises(DataError, match=r"got the base 'base', which is an adapter itself"):
        inspect_checkpoint(adapter)
    with pytest.raises(DataError, match=r"got base: .* without config.json"):
        inspect_checkpoint(adapter, base=base / "nothing")
    (adapter / "config.json").write_text(json.dumps(BERT))
    with pytest.raises(DataError, match=r"got an adapter that names itself \('adapter'\) as its base"):
        inspect_checkpoint(adapter, base=adapter)


@pytest.mark.parametrize("value", ["2", 2.0, [2], True])
def test_inspect_checkpoint__refuses_settings_that_are_no_numbers(write: WriteFolder, value: Any) -> None:
    folder = write("bert", TEXTS)
    (folder / "config.json").write_text(json.dumps({**BERT, "num_hidden_layers": value}))
    with pytest.raises(DataError, match=r"got num_hidden_layers: .* in config.json, expected a whole number"):
        inspect_checkpoint(folder)


def test_inspect_checkpoint__names_the_settings_that_are_missing(write: WriteFolder) -> None:
    folder = write("bert", TEXTS)
    for key, config in (
        ("num_hidden_layers or n_layer or", {"model_type": "bert", "hidden_size": 8}),
        ("hidden_size or n_embd or", {"model_type": "bert", "num_hidden_layers": 2}),
        ("depths and hidden_sizes", {"model_type": "resnet", "num_channels": 3}),
        ("depths and embed_dim", {"model_type": "swin", "num_channels": 3}),
    ):
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "preprocessor_config.json").write_text(json.dumps(IMAGES))
        with pytest.raises(DataError, match=rf"got a config.json without {key}") as caught:
            inspect_checkpoint(folder)
        assert caught.value.reason == "unsupported_model"


def test_inspect_checkpoint__follows_links_into_the_catalog_and_the_hub_cache_only(
    write: WriteFolder, tmp_path: Path
) -> None:
    stranger = write("outside/model", TEXTS)
    folder = write("catalog/zoo/linked", TEXTS, weights=None)
    (folder / "model.safetensors").symlink_to(stranger / "model.safetensors")
    shared = write("catalog/shared", TEXTS)
    inside = write("catalog/zoo/inside", TEXTS, weights=None)
    (inside / "model.safetensors").symlink_to(shared / "model.safetensors")
    blobs = write("hub/models--a--b/blobs", TEXTS)
    snapshot = write("hub/models--a--b/snapshots/1234", TEXTS, weights=None)
    (snapshot / "model.safetensors").symlink_to(blobs / "model.safetensors")

    with pytest.raises(DataError, match=r"linked/model.safetensors: got a link that leads out of the folder"):
        inspect_checkpoint(folder, root=tmp_path / "catalog")
    assert inspect_checkpoint(inside, root=tmp_path / "catalog").parameters == 104
    assert inspect_checkpoint(snapshot, root=tmp_path / "catalog").parameters == 104


@pytest.mark.parametrize("key", ["model_args", "model_kwargs", "config_args"])
def test_inspect_checkpoint__refuses_kernels_that_a_sentence_transformer_passes_on(
    key: str, write: WriteFolder
) -> None:
    modules = [{"path": "", "type": "sentence_transformers.models.Transformer"}]
    settings = {key: {"attn_implementation": "somebody/kernel"}}
    files = {"config.json": BERT, "tokenizer.json": {}, "modules.json": modules, "sentence_bert_config.json": settings}

    with pytest.raises(DataError, match=r"sentence_bert_config.json: got attn_implementation: .* never run") as caught:
        inspect_checkpoint(write("sentence", files))

    assert caught.value.reason == "untrusted_code"


def test_layer_names__have_as_many_digits_as_they_need() -> None:
    assert layer_names(3) == ("hidden.00", "hidden.01", "hidden.02")
    assert layer_names(101)[-1] == "hidden.100"
    assert layer_names(101)[0] == "hidden.000"


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft's own
def test_inspect_checkpoint__names_every_file_that_loading_opens(checkpoint_zoo: Any) -> None:
    transformers, peft = pytest.importorskip("transformers"), pytest.importorskip("peft")
    safely = {"local_files_only": True, "trust_remote_code": False}
    for name in ("minilm", "gpt2", "vit", "minilm-sharded", "minilm-lora"):
        found = inspect_checkpoint(checkpoint_zoo.path(name))
        with opened_files() as heard:
            model = transformers.AutoModel.from_pretrained(found.base or found.folder, use_safetensors=True, **safely)
            if found.adapter is not None:
                peft.PeftModel.from_pretrained(model, found.adapter)
            if found.tokenizer is not None:
                transformers.AutoTokenizer.from_pretrained(found.tokenizer, **safely)
            else:
                transformers.AutoImageProcessor.from_pretrained(found.folder, **safely)

        zoo = os.path.realpath(checkpoint_zoo.folder) + os.sep
        opened = {file for file in heard if file.startswith(zoo)}
        # Safetensors are opened by a library that Python does not hear of.
        described = {os.path.realpath(file) for file in found.files if file.suffix != ".safetensors"}
        assert {file for file in opened if not file.endswith(".safetensors")} == described, name
        assert opened - described <= {os.path.realpath(file) for file in found.files}, name


# Hooks stay for good, so there is one, which tells whoever listens.
_LISTENERS: list[set[str]] = []


def _tell_listeners(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _LISTENERS and isinstance(arguments[0], str | os.PathLike):
        for opened in _LISTENERS:
            opened.add(os.path.realpath(arguments[0]))


@contextmanager
def opened_files() -> Iterator[set[str]]:
    """Give a set of the files that Python opens in the block."""
    if not hasattr(sys, "_tells_of_opened_files"):
        sys.addaudithook(_tell_listeners)
        sys._tells_of_opened_files = True  # type: ignore[attr-defined]
    _LISTENERS.append(set())
    try:
        yield _LISTENERS[-1]
    finally:
        _LISTENERS.pop()
