"""What is said where a checkpoint cannot be loaded or run, and how it runs on a GPU."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lfm_tasks.errors import DataError
from lfm_tasks.sources.checkpoints import loading, running
from lfm_tasks.sources.checkpoints.loading import import_library
from tests.unit.sources.checkpoints.conftest import CheckpointZoo

torch = pytest.importorskip("torch", reason="needs the extra [hf]")
needs_transformers = pytest.mark.usefixtures("checkpoint_zoo")


def run(source: Any, *layers: str) -> None:
    list(source.batches(layers or source.layer_names(), np.arange(len(source.ids))))


@pytest.fixture
def copy(checkpoint_zoo: CheckpointZoo, tmp_path: Path) -> Iterator[Any]:
    def copied(name: str) -> Path:
        return Path(shutil.copytree(checkpoint_zoo.path(name), tmp_path / name))

    return copied


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


# --- packages


def test_import_library__says_which_extra_brings_it() -> None:
    with pytest.raises(DataError, match=r'm: got no package lfm_absent, .*Run pip install "lfm-atlas\[hf\]"') as caught:
        import_library("lfm_absent", "m")
    assert caught.value.reason == "missing_package"


def test_import_library__says_when_torchvision_does_not_fit_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lfm_broken.py").write_text('raise RuntimeError("operator torchvision::nms does not exist")')
    (tmp_path / "lfm_half.py").write_text("import lfm_absent")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        DataError, match=r"lfm_broken that cannot be imported .*Install the one of your torch"
    ) as caught:
        import_library("lfm_broken", "m")
    assert caught.value.reason == "missing_package"
    with pytest.raises(DataError, match=r"lfm_half that cannot be imported .*versions that fit together"):
        import_library("lfm_half", "m")


# --- weights


def test_load__refuses_weights_that_the_library_would_draw_at_random(copy: Any, checkpoint_zoo: CheckpointZoo) -> None:
    from safetensors.torch import load_file, save_file

    folder = copy("minilm")
    tensors = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if "layer.0.attention.self.query" not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        DataError, match=r"no weights for 2 tensors, 'encoder\.layer\.0\.attention\.self\.query"
    ) as caught:
        run(checkpoint_zoo.source("minilm", path=folder))
    assert caught.value.reason == "bad_weights"


def test_load__needs_no_weights_of_a_pooler(copy: Any, checkpoint_zoo: CheckpointZoo) -> None:
    from safetensors.torch import load_file, save_file

    folder = copy("minilm")
    tensors = {name: one for name, one in load_file(folder / "model.safetensors").items() if "pooler" not in name}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    whole, without = (checkpoint_zoo.source("minilm", path=path) for path in (checkpoint_zoo.path("minilm"), folder))
    rows = np.arange(8)
    for expected, found in zip(whole.batches(["hidden.03"], rows), without.batches(["hidden.03"], rows), strict=True):
        np.testing.assert_array_equal(found["hidden.03"], expected["hidden.03"])


def test_load__refuses_an_adapter_of_another_base(copy: Any, checkpoint_zoo: CheckpointZoo) -> None:
    from safetensors.torch import load_file, save_file

    folder = copy("minilm-lora")
    other = shutil.copytree(checkpoint_zoo.path("distilbert"), folder.parent / "minilm")
    with pytest.raises(DataError, match=r"an adapter of 'encoder.layer.2.* base minilm of 2 layers, .*base:") as caught:
        checkpoint_zoo.source("minilm-lora", path=folder)
    assert caught.value.reason == "bad_weights"
    shutil.rmtree(other)
    shutil.copytree(checkpoint_zoo.path("minilm"), other)
    tensors = load_file(folder / "adapter_model.safetensors")
    renamed = {name.replace("query", "another"): tensor for name, tensor in tensors.items()}
    save_file(renamed, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match=r"adapter of '.*another', expected modules of its base minilm.*base:"):
        run(checkpoint_zoo.source("minilm-lora", path=folder))


def test_load__names_the_tensor_whose_shape_is_not_the_configurations(
    copy: Any, checkpoint_zoo: CheckpointZoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy("minilm")
    edit(folder / "config.json", intermediate_size=48)
    with pytest.raises(DataError, match=r"got tensors of .* and intermediate_size: 48 in config.json"):
        checkpoint_zoo.source("minilm", path=folder)
    monkeypatch.setattr("lfm_tasks.sources.checkpoints.folder.check_agreement", lambda *_: None)
    with pytest.raises(
        DataError, match=r"got the tensor 'encoder.layer.0.intermediate.dense.bias' of 64, expected 48 by config.json"
    ) as caught:
        run(checkpoint_zoo.source("minilm", path=folder))
    assert caught.value.reason == "bad_weights"


def test_timm__compares_weights_with_the_architecture_before_a_run(copy: Any, checkpoint_zoo: CheckpointZoo) -> None:
    folder = copy("timm-vit")
    edit(folder / "config.json", architecture="test_vit2")
    with pytest.raises(DataError, match=r"timm-vit: got no tensor .reg_token., expected it by config.json") as caught:
        checkpoint_zoo.source("timm-vit", path=folder).layer_names()
    assert caught.value.reason == "bad_weights"


@needs_transformers
def test_load__says_what_a_library_means_by_sizes() -> None:
    with (
        pytest.raises(DataError, match=r"m: got weights of other shapes than config.json says") as caught,
        loading.library_errors("m", "Advice"),
    ):
        raise RuntimeError("You set `ignore_mismatched_sizes` to `False`. For details look at the above report!")
    assert caught.value.reason == "bad_weights"


@pytest.mark.parametrize("name", ["minilm", "vit"])
def test_load__does_not_blame_the_tokenizer_for_a_configuration(
    name: str, copy: Any, checkpoint_zoo: CheckpointZoo
) -> None:
    folder = copy(name)
    edit(folder / "config.json", id2label="no labels")
    with pytest.raises(DataError, match=rf"model {name}: transformers cannot read config.json. Copy it again"):
        run(checkpoint_zoo.source(name, path=folder))


def test_load__names_the_library_that_cannot_load(copy: Any, checkpoint_zoo: CheckpointZoo) -> None:
    folder = copy("minilm")
    edit(folder / "config.json", hidden_act="no_such_function")
    with pytest.raises(DataError, match=r"model minilm: the library cannot load .*no_such_function") as caught:
        run(checkpoint_zoo.source("minilm", path=folder))
    assert caught.value.reason == "unsupported_model"


@needs_transformers
def test_load__never_runs_code_of_a_checkpoint() -> None:
    with (
        pytest.raises(DataError, match=r"needs Python code of its own.*--trust-code") as caught,
        loading.library_errors("m", "Advice"),
    ):
        raise ValueError("Please pass the argument `trust_remote_code=True` to allow custom code to be run.")
    assert caught.value.reason == "untrusted_code"


@needs_transformers
def test_load__names_the_package_that_a_library_misses() -> None:
    with (
        pytest.raises(
            DataError, match=r"cannot be imported \(ImportError: needs bitsandbytes\).*Install what it misses"
        ) as caught,
        loading.library_errors("m", "Advice"),
    ):
        raise ImportError("needs bitsandbytes")
    assert caught.value.reason == "missing_package"


def test_sentence_transformers__refuse_dense_weights_that_can_hold_code(
    copy: Any, checkpoint_zoo: CheckpointZoo
) -> None:
    folder = copy("minilm-sentence")
    modules = json.loads((folder / "modules.json").read_text())
    dense = {"idx": 3, "name": "3", "path": "3_Dense", "type": "sentence_transformers.models.Dense"}
    (folder / "modules.json").write_text(json.dumps([*modules, dense]))
    (folder / "3_Dense").mkdir()
    torch.save({"linear.weight": torch.ones(4, 32)}, folder / "3_Dense" / "pytorch_model.bin")
    settings = {"in_features": 32, "out_features": 4, "bias": False}
    (folder / "3_Dense" / "config.json").write_text(json.dumps(settings))
    source = checkpoint_zoo.source("minilm-sentence", path=folder)
    assert source.layer_shapes()["hidden.03"] == (4,)
    with pytest.raises(DataError, match=r"got 3_Dense/pytorch_model\.bin, expected model\.safetensors") as caught:
        run(source)
    assert caught.value.reason == "bad_weights"


def test_tower__that_is_not_kept_apart_is_refused() -> None:
    with pytest.raises(DataError, match="got a Linear, which keeps no text tower apart"):
        loading._tower(torch.nn.Linear(1, 1), "text", "m")


# --- tokenizers and texts


def test_tokenizer__without_pad_and_end_token_is_refused(copy: Any, checkpoint_zoo: CheckpointZoo) -> None:
    folder = copy("minilm")
    edit(folder / "tokenizer_config.json", pad_token=None, eos_token=None)
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    with pytest.raises(DataError, match=r"without a pad and an end token.*Set pad_token in") as caught:
        run(checkpoint_zoo.source("minilm", path=folder))
    assert caught.value.reason == "no_processor"


def test_tokenizer__of_another_model_is_refused(checkpoint_zoo: CheckpointZoo, copy: Any) -> None:
    folder = copy("minilm")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(checkpoint_zoo.path("gpt2") / name, folder / name)
    with pytest.raises(DataError, match=r"got the token \d+ of the tokenizer and a network that knows") as caught:
        run(checkpoint_zoo.source("minilm", path=folder))
    assert caught.value.reason == "no_processor"


def test_text__without_a_token_is_named(checkpoint_zoo: CheckpointZoo, monkeypatch: pytest.MonkeyPatch) -> None:
    source = checkpoint_zoo.source("gpt2")
    monkeypatch.setattr(running.TextNetwork, "lengths", lambda self, texts: np.array([1, 0] * (len(texts) // 2)))
    with pytest.raises(
        DataError, match=r"text without a token, first in row 1 \(id p001\).*Leave empty texts"
    ) as caught:
        run(source)
    assert caught.value.reason == "bad_inputs"


# --- running


def test_run__says_that_the_network_stopped(checkpoint_zoo: CheckpointZoo, monkeypatch: pytest.MonkeyPatch) -> None:
    def stops(*_: Any) -> None:
        raise RuntimeError("no kernel for Half")

    monkeypatch.setattr(running.TextNetwork, "run", stops)
    with pytest.raises(
        DataError, match=r"the network stopped on a batch of 8 texts \(RuntimeError: no kernel"
    ) as caught:
        run(checkpoint_zoo.source("gpt2"))
    assert caught.value.reason == "unsupported_model"


def test_run__says_that_a_device_has_no_more_memory(
    checkpoint_zoo: CheckpointZoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_full(*_: Any) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(running.TextNetwork, "run", is_full)
    with pytest.raises(DataError, match=r"got no more memory on cpu for a batch of 8\. Lower batch_size") as caught:
        run(checkpoint_zoo.source("gpt2"))
    assert caught.value.reason == "too_large"


def test_run__compares_the_number_of_states_with_the_configuration(
    checkpoint_zoo: CheckpointZoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = running.TextNetwork.run
    monkeypatch.setattr(
        running.TextNetwork, "run", lambda self, texts: running.Batch(whole(self, texts).states[:-1], None)
    )
    with pytest.raises(DataError, match="got 3 hidden states, expected 4 by the configuration"):
        run(checkpoint_zoo.source("gpt2"))


def test_run__refuses_values_that_are_not_finite(copy: Any, checkpoint_zoo: CheckpointZoo) -> None:
    from safetensors.torch import load_file, save_file

    folder = copy("minilm")
    tensors = load_file(folder / "model.safetensors")
    tensors["encoder.layer.2.output.dense.bias"][0] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    source = checkpoint_zoo.source("minilm", path=folder)
    run(source, "hidden.02")
    with pytest.raises(DataError, match=r"hidden\.03: got 256 NaN or infinite values.*Set dtype: float32") as caught:
        run(source, "hidden.03")
    assert caught.value.reason == "not_finite"


def test_run__refuses_layers_and_poolings_that_do_not_fit(checkpoint_zoo: CheckpointZoo) -> None:
    with pytest.raises(DataError, match=r"got no layer 'hidden\.3'; did you mean 'hidden\.03'"):
        run(checkpoint_zoo.source("minilm"), "hidden.3")
    with pytest.raises(DataError, match=r"hidden\.00: got points of shape \(16, 8, 8\) and pool: cls, .*mean or max"):
        run(checkpoint_zoo.source("resnet", pool="cls"))


# --- devices


def test_exact__keeps_a_gpu_from_fewer_digits_and_puts_all_back() -> None:
    def settings() -> tuple[bool, bool, bool]:
        cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
        return cudnn.allow_tf32, cudnn.benchmark, matmul.allow_tf32

    before = settings()
    torch.backends.cudnn.benchmark = True
    try:
        with running.exact(torch.device("cuda:0")):
            assert settings() == (False, False, False)
        assert torch.backends.cudnn.benchmark
    finally:
        torch.backends.cudnn.benchmark = before[1]
    assert settings() == before


def test_device__takes_network_and_inputs_with_it(
    checkpoint_zoo: CheckpointZoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device ``meta`` computes shapes only: a tensor that stayed on the CPU would stop it."""
    monkeypatch.setattr(running, "chosen_device", lambda wanted, model: torch.device("meta"))
    for name in ("vit", "resnet", "timm-resnet"):
        network = running.open_network(checkpoint_zoo.source(name).checkpoint, name, running.RunOptions())
        with torch.inference_mode():
            states = network.run(checkpoint_zoo.images.read(np.arange(2))).states
        assert {state.device.type for state in states} == {"meta"}
    network = running.open_network(checkpoint_zoo.source("gpt2").checkpoint, "gpt2", running.RunOptions())
    given: dict[str, Any] = {}
    monkeypatch.setattr(network, "_run", lambda **inputs: given.update(inputs) or SimpleNamespace(hidden_states=()))
    network.run(checkpoint_zoo.texts[:2])
    assert {parameter.device.type for parameter in network.module.parameters()} == {"meta"}
    assert {given[name].device.type for name in ("input_ids", "attention_mask")} == {"meta"}
    assert given["use_cache"] is False
