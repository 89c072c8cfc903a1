"""What is recorded of checkpoints equals loops that people write with the libraries themselves."""

import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm_tasks.errors import DataError
from lfm_tasks.sources.checkpoints.folder import inspect_checkpoint
from lfm_tasks.sources.files.digests import DigestMemory
from tests.unit.sources.checkpoints.conftest import CheckpointZoo

torch = pytest.importorskip("torch", reason="needs the extra [hf]")
transformers = pytest.importorskip("transformers", reason="needs the extra [hf]")


def recorded(source: Any, rows: np.ndarray | None = None) -> dict[str, np.ndarray]:
    (values,) = source.batches(source.layer_names(), np.arange(len(source.ids)) if rows is None else rows)
    return dict(values)


def assert_states(found: dict[str, np.ndarray], expected: list[np.ndarray]) -> None:
    assert list(found) == [f"hidden.{index:02}" for index in range(len(expected))]
    for layer, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(found[layer], wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max(), err_msg=layer)
    assert len({values.tobytes() for values in found.values()}) == len(found)


def text_loop(zoo: CheckpointZoo, model: Any, folder: Path, pool: str, max_tokens: int = 64) -> list[np.ndarray]:
    """Run one text after the other, without any padding."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    rows: list[list[np.ndarray]] = []
    for text in zoo.texts:
        inputs = tokenizer(text, truncation=True, max_length=max_tokens, return_tensors="pt")
        with torch.no_grad():
            states = model(**inputs)
        rows.append([state[0].mean(0).numpy() if pool == "mean" else state[0, -1].numpy() for state in states])
    return [np.array(layer) for layer in zip(*rows, strict=True)]


def hidden(model: Any) -> Any:
    """Call a model for its hidden states; token types are left out where it has none."""
    names = ("input_ids", "attention_mask")
    return lambda **inputs: model(**{name: inputs[name] for name in names}, output_hidden_states=True).hidden_states


@pytest.mark.parametrize(
    ("name", "pool"),
    [
        *[(name, "mean") for name in ("minilm", "bert", "distilbert", "minilm-sharded", "minilm-pruned")],
        *[(name, "last") for name in ("gpt2", "llama", "qwen2")],
    ],
)
def test_texts__equal_a_loop_without_padding(checkpoint_zoo: CheckpointZoo, name: str, pool: str) -> None:
    model = transformers.AutoModel.from_pretrained(checkpoint_zoo.path(name)).eval()
    expected = text_loop(checkpoint_zoo, hidden(model), checkpoint_zoo.path(name), pool)
    assert_states(recorded(checkpoint_zoo.source(name)), expected)


@pytest.mark.parametrize("dtype", ["auto", "float32"])
def test_bfloat16__is_the_checkpoints_own_type_or_what_the_catalog_says(
    checkpoint_zoo: CheckpointZoo, dtype: str
) -> None:
    folder = checkpoint_zoo.path("minilm-bf16")
    model = transformers.AutoModel.from_pretrained(folder, dtype=dtype).eval()
    widened: Any = lambda **inputs: [state.float() for state in hidden(model)(**inputs)]  # noqa: E731
    expected = text_loop(checkpoint_zoo, widened, folder, "mean")
    found = recorded(checkpoint_zoo.source("minilm-bf16", dtype=dtype))
    # Eight bits of mantissa: padding reorders sums of them.
    tolerance = 1e-5 if dtype == "float32" else 0.05
    for layer, wanted in zip(found, expected, strict=True):
        assert found[layer].dtype == np.float32
        np.testing.assert_allclose(found[layer], wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # of the loops, not of ours
def test_lora__is_the_base_with_the_adapter_as_peft_applies_it(checkpoint_zoo: CheckpointZoo) -> None:
    peft = pytest.importorskip("peft")
    base = transformers.AutoModel.from_pretrained(checkpoint_zoo.path("minilm"))
    model = peft.PeftModel.from_pretrained(base, checkpoint_zoo.path("minilm-lora")).eval()
    expected = text_loop(checkpoint_zoo, hidden(model), checkpoint_zoo.path("minilm"), "mean")
    found = recorded(checkpoint_zoo.source("minilm-lora"))
    assert_states(found, expected)
    plain = recorded(checkpoint_zoo.source("minilm"))
    assert np.abs(found["hidden.03"] - plain["hidden.03"]).max() > 0.01


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # of the loops, not of ours
def test_lora__of_a_model_with_a_head_finds_its_modules(checkpoint_zoo: CheckpointZoo, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    torch.manual_seed(3)
    whole = transformers.AutoModelForCausalLM.from_pretrained(checkpoint_zoo.path("llama"))
    adapted = peft.get_peft_model(whole, peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    adapted.save_pretrained(tmp_path / "adapter")  # its configuration names the folder that the base was loaded from
    shutil.copytree(checkpoint_zoo.path("llama"), tmp_path / "llama")
    body = adapted.get_base_model().base_model.eval()
    expected = text_loop(checkpoint_zoo, hidden(body), tmp_path / "llama", "last")
    assert_states(recorded(checkpoint_zoo.source("adapter", path=tmp_path / "adapter")), expected)


def test_t5__encoder_and_decoder_read_the_same_text(checkpoint_zoo: CheckpointZoo) -> None:
    folder = checkpoint_zoo.path("t5")
    model = transformers.T5ForConditionalGeneration.from_pretrained(folder).eval()

    def encoder(**inputs: Any) -> Any:
        return model.encoder(input_ids=inputs["input_ids"], output_hidden_states=True).hidden_states

    def decoder(**inputs: Any) -> Any:
        late = model.prepare_decoder_input_ids_from_labels(inputs["input_ids"])
        return model(
            input_ids=inputs["input_ids"], decoder_input_ids=late, output_hidden_states=True
        ).decoder_hidden_states

    found = recorded(checkpoint_zoo.source("t5", tower="encoder"))
    assert_states(found, text_loop(checkpoint_zoo, encoder, folder, "mean"))
    found = recorded(checkpoint_zoo.source("t5", tower="decoder"))
    assert_states(found, text_loop(checkpoint_zoo, decoder, folder, "last"))


def test_whisper__decoder_reads_texts_without_sound(checkpoint_zoo: CheckpointZoo) -> None:
    model = transformers.WhisperModel.from_pretrained(checkpoint_zoo.path("whisper")).eval()
    expected = text_loop(checkpoint_zoo, hidden(model.decoder), checkpoint_zoo.path("whisper"), "last")
    assert_states(recorded(checkpoint_zoo.source("whisper", tower="decoder")), expected)


def test_clip__towers_are_run_apart(checkpoint_zoo: CheckpointZoo) -> None:
    folder = checkpoint_zoo.path("clip")
    model = transformers.CLIPModel.from_pretrained(folder).eval()
    expected = text_loop(checkpoint_zoo, hidden(model.text_model), folder, "last")
    assert_states(recorded(checkpoint_zoo.source("clip", tower="text")), expected)
    states = image_states(checkpoint_zoo, model.vision_model, folder)
    assert_states(recorded(checkpoint_zoo.source("clip", tower="vision")), [state[:, 1:].mean(1) for state in states])


def image_states(zoo: CheckpointZoo, model: Any, folder: Path) -> list[np.ndarray]:
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    images = zoo.images.read(np.arange(len(zoo.images)))
    with torch.no_grad():
        states = model(**processor(images, return_tensors="pt"), output_hidden_states=True).hidden_states
    return [state.numpy() for state in states]


def test_vit__is_the_mean_over_patches_without_the_class_token(checkpoint_zoo: CheckpointZoo) -> None:
    folder = checkpoint_zoo.path("vit")
    states = image_states(checkpoint_zoo, transformers.AutoModel.from_pretrained(folder).eval(), folder)
    assert_states(recorded(checkpoint_zoo.source("vit")), [state[:, 1:].mean(1) for state in states])
    first = recorded(checkpoint_zoo.source("vit", pool="cls"))["hidden.03"]
    np.testing.assert_allclose(first, states[3][:, 0], rtol=1e-5, atol=1e-5)


def test_resnet__is_the_mean_over_maps(checkpoint_zoo: CheckpointZoo) -> None:
    folder = checkpoint_zoo.path("resnet")
    states = image_states(checkpoint_zoo, transformers.AutoModel.from_pretrained(folder).eval(), folder)
    source = checkpoint_zoo.source("resnet")
    assert_states(recorded(source), [state.mean((2, 3)) for state in states])
    assert [shape[0] for shape in source.layer_shapes().values()] == [state.shape[1] for state in states]


@pytest.mark.parametrize("name", ["timm-vit", "timm-resnet", "timm-convnext"])
def test_timm__are_the_intermediates_of_timm(checkpoint_zoo: CheckpointZoo, name: str) -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model(f"local-dir:{checkpoint_zoo.path(name)}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    images = checkpoint_zoo.images.read(np.arange(len(checkpoint_zoo.images)))
    with torch.no_grad():
        maps = model.forward_intermediates(torch.stack([transform(image) for image in images]))[1]
    source = checkpoint_zoo.source(name)
    assert_states(recorded(source), [one.mean((2, 3)).numpy() for one in maps])
    assert list(source.layer_shapes().values()) == [tuple(one.shape[1:]) for one in maps]


def test_sentence_transformers__end_with_what_encode_returns(checkpoint_zoo: CheckpointZoo) -> None:
    library = pytest.importorskip("sentence_transformers")
    folder = checkpoint_zoo.path("minilm-sentence")
    found = recorded(checkpoint_zoo.source("minilm-sentence"))
    encoded = library.SentenceTransformer(str(folder), device="cpu").encode(checkpoint_zoo.texts)
    np.testing.assert_allclose(found["hidden.03"], encoded, rtol=1e-5, atol=1e-5)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    states = text_loop(checkpoint_zoo, hidden(model), folder, "mean")
    for layer, wanted in zip(("hidden.00", "hidden.01", "hidden.02"), states, strict=False):
        np.testing.assert_allclose(found[layer], wanted, rtol=1e-5, atol=1e-5)
    plain = recorded(checkpoint_zoo.source("minilm-sentence", pool="mean"))
    np.testing.assert_allclose(plain["hidden.03"], states[3], rtol=1e-5, atol=1e-5)


# --- batches


def test_batches__have_the_same_bits_for_any_order_start_and_worker(checkpoint_zoo: CheckpointZoo) -> None:
    source = checkpoint_zoo.source("minilm")
    rows = np.arange(len(source.ids))
    whole = recorded(source)["hidden.03"]
    backwards = recorded(checkpoint_zoo.source("minilm"), rows[::-1])["hidden.03"]
    assert backwards[::-1].tobytes() == whole.tobytes()
    resumed = np.full_like(whole, np.nan)
    for start in (0, 3):
        for positions, values in checkpoint_zoo.source("minilm").scattered_batches(["hidden.03"], rows, start):
            if start == 3 or np.isnan(resumed[positions]).all():
                resumed[positions] = values["hidden.03"]
    assert resumed.tobytes() == whole.tobytes()
    n_threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert recorded(checkpoint_zoo.source("minilm"))["hidden.03"].tobytes() == whole.tobytes()
    finally:
        torch.set_num_threads(n_threads)


def test_batches__are_cut_from_rows_in_the_order_of_tokens_and_ids(checkpoint_zoo: CheckpointZoo) -> None:
    source = checkpoint_zoo.source("minilm", max_tokens=20)
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint_zoo.path("minilm"))
    lengths = [min(20, len(tokenizer(text)["input_ids"])) for text in checkpoint_zoo.texts]
    rows = np.arange(len(source.ids))[::-1]
    batches = [rows[positions] for positions, _ in source.scattered_batches(["hidden.00"], rows)]
    assert [len(batch) for batch in batches] == [8, 8, 8, 6]
    expected = sorted(range(len(lengths)), key=lambda row: (lengths[row], str(source.ids[row])))
    assert np.concatenate(batches).tolist() == expected


def test_batches__of_another_size_are_equal_to_rounding(checkpoint_zoo: CheckpointZoo) -> None:
    few, many = (recorded(checkpoint_zoo.source("gpt2", batch_size=size))["hidden.03"] for size in (3, 30))
    np.testing.assert_allclose(few, many, rtol=1e-5, atol=1e-5)


def test_max_tokens__cuts_texts_and_says_how_many(checkpoint_zoo: CheckpointZoo) -> None:
    model = transformers.AutoModel.from_pretrained(checkpoint_zoo.path("minilm")).eval()
    expected = text_loop(checkpoint_zoo, hidden(model), checkpoint_zoo.path("minilm"), "mean", 10)
    source = checkpoint_zoo.source("minilm", max_tokens=10)
    assert source.notes() == ()
    assert_states(recorded(source), expected)
    n_cut = sum(len(text.split()) > 8 for text in checkpoint_zoo.texts)
    (note,) = source.notes()
    assert note.startswith(f"{n_cut} of 30 texts (") or int(note.split()[0]) >= n_cut
    assert note.endswith("were cut at 10 tokens, 2 of them special ones")


def test_max_tokens__that_leave_no_room_for_words_are_refused(checkpoint_zoo: CheckpointZoo) -> None:
    checkpoint_zoo.source("minilm", max_tokens=3)
    with pytest.raises(
        DataError, match=r"got max_tokens: 2 and a tokenizer that adds 2 special tokens .*Raise"
    ) as error:
        checkpoint_zoo.source("minilm", max_tokens=2)
    assert error.value.reason == "bad_inputs"


def test_causal_models_without_a_pad_token__are_filled_up_with_the_end_token(checkpoint_zoo: CheckpointZoo) -> None:
    source = checkpoint_zoo.source("gpt2")
    recorded(source)
    assert "the tokenizer has no pad token: <|end|> fills batches up, and is masked" in source.notes()


def test_prompt__stands_before_every_text(checkpoint_zoo: CheckpointZoo) -> None:
    prompted = [f"the wind {text}" for text in checkpoint_zoo.texts]
    found = recorded(checkpoint_zoo.source("minilm", prompt="the wind "))
    expected = recorded(checkpoint_zoo.source("minilm", texts=prompted))
    assert found["hidden.03"].tobytes() == expected["hidden.03"].tobytes()


# --- modules


def test_modules__are_what_hooks_give(checkpoint_zoo: CheckpointZoo) -> None:
    source = checkpoint_zoo.source("vit", modules=True)
    assert source.layer_names()[:5] == ("hidden.00", "hidden.01", "hidden.02", "hidden.03", "embeddings")
    rows = np.arange(len(source.ids))
    (found,) = source.batches(["embeddings", "hidden.00", "layernorm", "hidden.03"], rows)
    assert found["embeddings"].tobytes() == found["hidden.00"].tobytes()
    folder = checkpoint_zoo.path("vit")
    model = transformers.AutoModel.from_pretrained(folder).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    with torch.no_grad():
        pixels = processor(checkpoint_zoo.images.read(rows), return_tensors="pt")
        last = model(**pixels).last_hidden_state.numpy()
    np.testing.assert_allclose(found["layernorm"], last[:, 1:].mean(1), rtol=1e-5, atol=1e-5)


def test_modules__that_are_not_called_or_give_no_row_a_point_are_refused(checkpoint_zoo: CheckpointZoo) -> None:
    source = checkpoint_zoo.source("minilm", modules=True)
    names = source.layer_names()
    module = next(name for name in names if name.endswith("position_embeddings"))
    with pytest.raises(DataError, match=rf"{module} gives .* for 8 points\. Leave it out: layers:") as caught:
        list(source.batches([module], np.arange(len(source.ids))))
    assert caught.value.reason == "wrong_shape"
    container = next(name for name in names if name == "encoder.layer")
    with pytest.raises(DataError, match=r"encoder\.layer is never called in the forward pass\. Leave it out"):
        list(source.batches([container], np.arange(len(source.ids))))


# --- identity


def test_identity__is_known_without_loading_and_hashes_nothing_twice(
    checkpoint_zoo: CheckpointZoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_loading(*_: Any, **__: Any) -> None:
        raise AssertionError("the checkpoint was loaded")

    monkeypatch.setattr("lfm_tasks.sources.checkpoints.models.open_network", no_loading)
    for name in ("minilm", "minilm-lora", "vit"):
        memory = DigestMemory()
        source = checkpoint_zoo.source(name, memory=memory)
        assert source.identity("hidden.00") != source.identity("hidden.01")
        assert source.layer_shapes()["hidden.01"]
        assert source.batch_rows == 8
        n_hashed = memory.n_hashed
        assert n_hashed == len(source.checkpoint.files)
        again = checkpoint_zoo.source(name, memory=memory)
        assert again.identity("hidden.00") == source.identity("hidden.00")


def test_identity__changes_with_every_file_that_is_read(checkpoint_zoo: CheckpointZoo, tmp_path: Path) -> None:
    shutil.copytree(checkpoint_zoo.path("minilm-lora"), tmp_path / "adapter")
    shutil.copytree(checkpoint_zoo.path("minilm"), tmp_path / "minilm")
    source = checkpoint_zoo.source("adapter", path=tmp_path / "adapter")
    before = source.identity("hidden.00")
    assert before == checkpoint_zoo.source("minilm-lora").identity("hidden.00")  # wherever the folders lie
    files = source.checkpoint.files
    assert {path.name for path in files} >= {"adapter_config.json", "config.json", "tokenizer.json"}
    for path in files:
        if path.suffix != ".json":
            continue
        content = path.read_bytes()
        path.write_bytes(content + b"\n")
        assert checkpoint_zoo.source("adapter", path=tmp_path / "adapter").identity("hidden.00") != before
        path.write_bytes(content)


@pytest.mark.parametrize(
    "settings",
    [{"batch_size": 4}, {"max_tokens": 9}, {"pool": "cls"}, {"device": "mps"}, {"dtype": "float32"}, {"prompt": "a "}],
)
def test_identity__changes_with_every_option(checkpoint_zoo: CheckpointZoo, settings: dict[str, Any]) -> None:
    changed = checkpoint_zoo.source("minilm", **settings).identity("hidden.00")
    assert changed != checkpoint_zoo.source("minilm").identity("hidden.00")


def test_identity__holds_what_the_device_stands_for(
    checkpoint_zoo: CheckpointZoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def identity(device: str) -> Any:
        return checkpoint_zoo.source("minilm", device=device).identity("hidden.00")

    monkeypatch.setattr("lfm_tasks.sources.checkpoints.models.automatic_device", lambda: "cpu")
    assert identity("auto") == identity("cpu") != identity("cuda")
    monkeypatch.setattr("lfm_tasks.sources.checkpoints.models.automatic_device", lambda: "cuda")
    assert identity("auto") == identity("cuda") == identity("cuda:1")


def test_layer_names__of_timm_and_of_modules_are_remembered(
    checkpoint_zoo: CheckpointZoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = DigestMemory()
    names = checkpoint_zoo.source("timm-vit", memory=memory, modules=True).layer_names()
    monkeypatch.setattr("lfm_tasks.sources.checkpoints.models.network_layout", None)
    assert checkpoint_zoo.source("timm-vit", memory=memory, modules=True).layer_names() == names


# --- safety


def test_loading__makes_no_connection_and_leaves_the_environment_alone(
    checkpoint_zoo: CheckpointZoo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def no_network(*_: Any, **__: Any) -> None:
        raise AssertionError("a connection was made")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.chdir(tmp_path)
    for name in ("minilm", "minilm-lora", "vit", "minilm-sentence", "timm-resnet"):
        source = checkpoint_zoo.source(name)
        list(source.batches(source.layer_names(), np.arange(4)))
    import os

    assert "HF_HUB_OFFLINE" not in os.environ


def test_loading__takes_relative_paths(checkpoint_zoo: CheckpointZoo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkpoint_zoo.folder / "zoo")
    found = recorded(checkpoint_zoo.source("minilm", path="minilm"))
    assert found["hidden.03"].tobytes() == recorded(checkpoint_zoo.source("minilm"))["hidden.03"].tobytes()
    assert inspect_checkpoint(Path("minilm")).layers == tuple(found)
