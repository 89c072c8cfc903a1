from pathlib import Path
from typing import Any

import pytest

from lfm_tasks.errors import DataError
from lfm_tasks.sources.checkpoints import requirements
from lfm_tasks.sources.checkpoints.requirements import (
    check_architecture,
    check_dtype,
    check_kernels,
    check_quantization,
    check_tokenizer_code,
    require_packages,
)

OWN = {"AutoConfig": "mine.Config", "AutoModel": "mine.Model"}


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let transformers, whether it is installed or not, know bert and its tokenizer only."""
    monkeypatch.setattr(requirements, "_quoted_in_transformers", lambda *files: '("bert", "BertTokenizer")')
    monkeypatch.setattr(requirements, "version", lambda package: "5.0")


@pytest.mark.usefixtures("known")
def test_check_architecture__refuses_code_of_the_checkpoints_own() -> None:
    assert list(check_architecture({"model_type": "bert"}, "zoo/x")) == []
    note = "config.json names code of its own, which is not run: transformers has bert itself"
    assert list(check_architecture({"model_type": "bert", "auto_map": OWN}, "zoo/x")) == [note]
    with pytest.raises(DataError, match=r"zoo/x: got model_type 'mine' with code of its own \(auto_map\)") as caught:
        list(check_architecture({"model_type": "mine", "auto_map": OWN}, "zoo/x"))
    assert caught.value.reason == "untrusted_code"
    with pytest.raises(DataError, match=r"'newer', which transformers 5.0 does not know. Install a newer") as caught:
        list(check_architecture({"model_type": "newer"}, "zoo/x"))
    assert caught.value.reason == "unsupported_model"


@pytest.mark.usefixtures("known")
def test_check_tokenizer_code__refuses_a_class_of_the_checkpoints_own(tmp_path: Path) -> None:
    own = {"tokenizer_class": "MineTokenizer", "auto_map": {"AutoTokenizer": ["mine.MineTokenizer", None]}}
    check_tokenizer_code({"tokenizer_class": "BertTokenizerFast"}, tmp_path, "zoo/x")
    with pytest.raises(DataError, match=r"got the tokenizer class 'MineTokenizer', which is code.*never run"):
        check_tokenizer_code({"tokenizer_class": "MineTokenizer"}, tmp_path, "zoo/x")

    (tmp_path / "tokenizer.json").write_text("{}")  # which says all that a tokenizer does

    check_tokenizer_code({"tokenizer_class": "MineTokenizer"}, tmp_path, "zoo/x")
    for settings in (own, {**own, "auto_map": ["mine.MineTokenizer", None]}):
        with pytest.raises(DataError, match=r"tokenizer: zoo/tokenizer") as caught:
            check_tokenizer_code(settings, tmp_path, "zoo/x")
        assert caught.value.reason == "untrusted_code"


def test_check_architecture__knows_what_the_installed_transformers_knows() -> None:
    pytest.importorskip("transformers")
    for model_type in ("bert", "gpt2", "llama", "qwen2", "t5", "vit", "clip", "resnet", "whisper", "gpt-sw3"):
        assert list(check_architecture({"model_type": model_type}, "x")) == []
    with pytest.raises(DataError, match=r"which transformers \d.* does not know"):
        list(check_architecture({"model_type": "of tomorrow"}, "x"))


def test_require_packages__names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "_is_installed", lambda module: module != "peft")

    require_packages("transformers", "zoo/x")
    with pytest.raises(DataError, match=r'zoo/x: got no package peft, .* pip install "lfm-atlas\[hf\]"') as caught:
        require_packages("transformers", "zoo/x", adapter=True)
    assert caught.value.reason == "missing_package"


def test_check_quantization__says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    monkeypatch.setattr(requirements, "_is_installed", lambda module: False)

    assert check_quantization({}, "x") is None
    with pytest.raises(DataError, match=r"quantized by gptq, which needs optimum and gptqmodel and a GPU. Pip install"):
        check_quantization(config, "x")

    monkeypatch.setattr(requirements, "_is_installed", lambda module: True)
    assert check_quantization(config, "x") == "gptq"


@pytest.mark.parametrize(
    "config",
    [
        {"attn_implementation": "kernels-community/flash-attn"},
        {"_attn_implementation": "somebody/kernel@main"},
        {"text_config": {"_attn_implementation_internal_implementation": "somebody/kernel"}},
        {"attn_implementation": {"text_config": "somebody/kernel"}},
        {"use_kernels": True},
        {"_attn_implementation": "flash_attention_2"},
        {"attn_implementation": "paged|flash_attention_3"},
        {"vision_config": {"_attn_implementation": "msa"}},
        {"attn_implementation": {"text_config": "sdpa", "vision_config": "flash_attention_4"}},
        {"experts_implementation": "sonicmoe"},
    ],
)
def test_kernels_of_a_repository__are_code_that_is_never_run(config: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"zoo/x: got .* which is code from elsewhere and is never run") as caught:
        check_kernels(config, "zoo/x")

    assert caught.value.reason == "untrusted_code"


def test_built_in_attention__is_no_code_from_elsewhere() -> None:
    check_kernels({"attn_implementation": {"text_config": "eager"}, "_experts_implementation": "grouped_mm"}, "zoo/x")
    check_kernels({"_attn_implementation": None, "attn_implementation": "flex_attention"}, "zoo/x")
    check_kernels(
        {"attn_implementation": "sdpa", "use_kernels": False, "use_mamba_kernels": True, "kernel_size": 3}, "zoo/x"
    )


@pytest.mark.parametrize(
    "config",
    [
        {"dtype": "float17"},
        {"torch_dtype": "float17"},
        {"text_config": {"dtype": "float17"}},
        {"dtype": ["float32"]},
        {"dtype": "torch.float32"},
    ],
)
def test_check_dtype__refuses_what_torch_does_not_have(config: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"zoo/x: got (torch_)?dtype: .* in config.json, expected float32") as caught:
        check_dtype(config, "zoo/x")

    assert caught.value.reason == "unsupported_model"


def test_check_dtype__takes_the_types_of_weights() -> None:
    check_dtype({"dtype": "bfloat16", "torch_dtype": None, "text_config": {"dtype": "float16"}}, "zoo/x")
    check_dtype({"quantization_config": {"dtype": "nf4"}}, "zoo/x")
