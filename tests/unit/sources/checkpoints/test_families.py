"""The table of families says what the installed transformers gives."""

from pathlib import Path
from typing import Any

import pytest

from lfm_tasks.errors import DataError
from lfm_tasks.sources.checkpoints.families import FAMILIES, Family, families_as_markdown, find_family, hidden_states

ROOT = Path(__file__).parents[4]
_SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
_TEXT = {**_SIZES, "vocab_size": 60, "max_position_embeddings": 32, "pad_token_id": 0}
_ENDS = {"bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
_GROUPED = {**_TEXT, **_ENDS, "num_key_value_heads": 2, "head_dim": 8}
_IMAGE = {**_SIZES, "image_size": 32, "patch_size": 8}
_STAGES = {"embedding_size": 8, "hidden_sizes": [8, 16, 24], "depths": [1, 1, 1], "num_groups": 4, "groups_width": 4}
_WINDOWS = {"image_size": 32, "patch_size": 2, "window_size": 4, "embed_dim": 8, "depths": [1] * 3}
_WINDOWS |= {"num_heads": [2] * 3}
_TWO = {"d_model": 32, "vocab_size": 60, "pad_token_id": 0, "decoder_start_token_id": 1, **_ENDS}
_T5 = {**_TWO, "d_kv": 8, "d_ff": 64, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 4}
_HEADS = {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
_BART = {**_TWO, **_HEADS, "encoder_layers": 3, "decoder_layers": 2, "max_position_embeddings": 32}
# Settings by model type where those of its kin do not fit.
_OWN: dict[str, dict[str, Any]] = {
    "albert": {**_TEXT, "embedding_size": 16},
    "bloom": {"hidden_size": 32, "n_layer": 3, "n_head": 4, "vocab_size": 60, **_ENDS},
    "cohere": {**_GROUPED, "pad_token_id": 0},
    "convnext": {"hidden_sizes": [8, 16, 24], "depths": [1, 1, 1], "num_stages": 3},
    "convnextv2": {"hidden_sizes": [8, 16, 24], "depths": [1, 1, 1], "num_stages": 3},
    "distilbert": {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 64, "vocab_size": 60},
    "electra": {**_TEXT, "embedding_size": 16},
    "falcon": {**_TEXT, **_ENDS, "new_decoder_architecture": True, "num_kv_heads": 2},
    "gpt2": {"n_embd": 32, "n_layer": 3, "n_head": 4, "vocab_size": 60, **_ENDS},
    "gpt_neo": {"hidden_size": 32, "num_layers": 3, "num_heads": 4, "attention_types": [[["global"], 3]], **_ENDS},
    "gptj": {"n_embd": 32, "n_layer": 3, "n_head": 4, "rotary_dim": 4, "vocab_size": 60, **_ENDS},
    "mixtral": {**_GROUPED, "num_local_experts": 2, "num_experts_per_tok": 1},
    "mpt": {"d_model": 32, "n_layers": 3, "n_heads": 4, "max_seq_len": 32, "vocab_size": 60},
    "opt": {**_TEXT, "ffn_dim": 64, "word_embed_proj_dim": 32, **_ENDS},
    "xlnet": {"d_model": 32, "n_layer": 3, "n_head": 4, "d_inner": 64, "vocab_size": 60},
}


def settings_of(model_type: str, family: Family) -> dict[str, Any]:
    if model_type in _OWN:
        return _OWN[model_type]
    if family.tower in ("encoder", "decoder"):
        return _T5 if "t5" in model_type else _BART
    if family.reads == "images":
        return _STAGES if "channels" in family.shape else _WINDOWS if model_type.startswith("swin") else _IMAGE
    return _GROUPED if family.causal else _TEXT


def built(model_type: str, family: Family) -> Any:
    import torch
    from transformers import AutoConfig, AutoModel

    settings = settings_of(model_type, family)
    if family.tower in ("text", "vision"):
        settings = {"text_config": {**_TEXT, **_ENDS}, "vision_config": _IMAGE}
    torch.manual_seed(0)
    return AutoModel.from_config(AutoConfig.for_model(model_type, **settings)).eval()


CASES = [
    pytest.param(model_type, family, id=f"{model_type}-{family.tower}" if family.tower else model_type)
    for family in FAMILIES
    for model_type in family.model_types
    if model_type != "whisper"  # its decoder is compared with a loop in test_models.py
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("working_transformers")
@pytest.mark.parametrize(("model_type", "family"), CASES)
def test_families__have_the_states_that_the_table_says(model_type: str, family: Family) -> None:
    import torch

    model = built(model_type, family)
    config = model.config.to_dict()
    part = config.get(f"{family.tower}_config", config)
    told = hidden_states(config, part, family.tower, "m")
    assert (told.pool, told.causal) == (family.pool, family.causal)
    network, before = model, ""
    if family.tower in ("text", "vision"):
        network = getattr(model, f"{family.tower}_model")
    elif family.tower in ("encoder", "decoder"):
        before = f"{family.tower}_"
    ids = torch.arange(5, 19).reshape(2, 7)
    reads_texts = family.reads == "texts"
    inputs: dict[str, Any] = {"input_ids": ids} if reads_texts else {"pixel_values": torch.ones(2, 3, 32, 32)}
    if before:
        inputs["decoder_input_ids"] = ids
    with torch.no_grad():
        given = network(**inputs, output_hidden_states=True)
        fewer = {name: values[:, :4] for name, values in inputs.items()}
        shorter = network(**fewer, output_hidden_states=True) if reads_texts else None
    states = given[f"{before}hidden_states"]
    assert len(states) == len(told.shapes)
    for state, shape in zip(states, told.shapes, strict=True):
        assert len(shape) == state.ndim - 1
        assert all(wanted in (None, found) for wanted, found in zip(shape, state.shape[1:], strict=True))
    last = given["encoder_last_hidden_state" if family.tower == "encoder" else "last_hidden_state"]
    if last.shape == states[-1].shape:
        assert torch.equal(last, states[-1]) is family.last_is_output
    if shorter is not None:
        # Whether the fourth token knows of those behind it.
        alone, together = shorter[f"{before}hidden_states"][-1][:, 3], states[-1][:, 3]
        assert torch.allclose(alone, together, atol=1e-4) is family.causal or before == "decoder_"


@pytest.mark.parametrize(
    ("config", "pool", "n_states"),
    [
        (
            {"model_type": "new", "architectures": ["NewForCausalLM"], "hidden_size": 8, "num_hidden_layers": 2},
            "last",
            3,
        ),
        ({"model_type": "new", "architectures": ["NewModel"], "d_model": 8, "n_layers": 4}, "mean", 5),
        ({"model_type": "new", "is_decoder": True, "dim": 8, "n_layer": 1}, "last", 2),
    ],
)
def test_hidden_states__of_a_type_that_stands_in_no_row_follow_from_its_configuration(
    config: dict[str, Any], pool: str, n_states: int
) -> None:
    assert find_family(config["model_type"]) is None
    told = hidden_states(config, config, None, "m")
    assert (told.pool, told.shapes) == (pool, ((None, 8),) * n_states)


@pytest.mark.parametrize(
    "config", [{"model_type": "new"}, {"model_type": "segformer", "hidden_size": 8, "num_hidden_layers": 2}]
)
def test_hidden_states__that_nothing_tells_are_refused(config: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"m: got model_type '\w+', whose hidden states are not known") as caught:
        hidden_states(config, config, None, "m")
    assert caught.value.reason == "unsupported_model"


def test_recording_page__has_the_table_of_families() -> None:
    assert families_as_markdown() in (ROOT / "docs" / "recording.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("n_layers", [-1, 0, 1_000_000_000])
def test_number_of_layers_that_no_network_has__is_refused_before_names_are_made(n_layers: int) -> None:
    config = {"model_type": "bert", "num_hidden_layers": n_layers, "hidden_size": 32}

    with pytest.raises(
        DataError, match=f"got num_hidden_layers: {n_layers} in config.json, expected 1 to 10,000"
    ) as caught:
        hidden_states(config, config, None, "zoo/m")

    assert caught.value.reason == "unsupported_model"
