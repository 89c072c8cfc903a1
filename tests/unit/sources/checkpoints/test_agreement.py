"""A configuration and weights that are not of one model are refused by the headers, for each family of the table."""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import pytest

from lfm_tasks.errors import DataError
from lfm_tasks.sources.checkpoints.agreement import check_adapter, check_agreement, check_built
from lfm_tasks.sources.checkpoints.families import FAMILIES, Family
from lfm_tasks.sources.files.safetensors_files import StoredTensor

Headers = dict[str, StoredTensor]


def headers(shapes: Mapping[str, tuple[int, ...]]) -> Headers:
    return {name: StoredTensor("F32", shape, 0, 0) for name, shape in shapes.items()}


BERT = {
    "model_type": "bert",
    "vocab_size": 30,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 20,
    "type_vocab_size": 2,
}


def bert(prefix: str = "", n_layers: int = 2) -> Headers:
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (30, 8),
        "embeddings.position_embeddings.weight": (20, 8),
        "embeddings.token_type_embeddings.weight": (2, 8),
        "pooler.dense.weight": (8, 8),
    }
    for layer in range(n_layers):
        shapes[f"encoder.layer.{layer}.intermediate.dense.weight"] = (16, 8)
        shapes[f"encoder.layer.{layer}.output.LayerNorm.weight"] = (8,)
    return headers({prefix + name: shape for name, shape in shapes.items()})


@pytest.mark.parametrize("prefix", ["", "bert.", "model.bert."])
def test_check_agreement__takes_what_belongs_together(prefix: str) -> None:
    check_agreement(BERT, BERT, None, bert(prefix), "zoo/m")
    check_agreement({**BERT, "num_nextn_predict_layers": 1}, BERT, None, bert(prefix), "zoo/m")


ADVICE = r"Copy config.json and the weights of one model again, together\."
DIFFERENT: dict[str, tuple[dict[str, Any], str]] = {
    "more layers": (
        {"num_hidden_layers": 3},
        r"zoo/m: got weights of 2 layers \(encoder.layer.0 to encoder.layer.1\) and num_hidden_layers: 3 in config.json"
        rf", expected as many. {ADVICE}",
    ),
    "fewer layers": (
        {"num_hidden_layers": 1},
        r"got weights of 2 layers \(encoder.layer.0 to encoder.layer.1\) and num_hidden_layers: 1 in config.json",
    ),
    "wider": (
        {"hidden_size": 16},
        r"got the tensor 'embeddings.word_embeddings.weight' of 30 × 8 and hidden_size: 16 in config.json, expected "
        rf"them to agree. {ADVICE}",
    ),
    "more words": ({"vocab_size": 31}, r"word_embeddings.weight' of 30 × 8 and vocab_size: 31 in config.json"),
    "fewer words": ({"vocab_size": 29}, r"word_embeddings.weight' of 30 × 8 and vocab_size: 29 in config.json"),
    "positions": ({"max_position_embeddings": 21}, r"of 20 × 8 and max_position_embeddings: 21 in config.json"),
    "kinds of tokens": ({"type_vocab_size": 1}, r"of 2 × 8 and type_vocab_size: 1 in config.json"),
    "wider inside": (
        {"intermediate_size": 32},
        r"got tensors of 8, 16 in encoder.layer.0 and intermediate_size: 32 in config.json",
    ),
    "text for a number": ({"vocab_size": "30"}, r'got vocab_size: "30" in config.json, expected a whole number\. Fix'),
}


@pytest.mark.parametrize("case", DIFFERENT)
def test_check_agreement__refuses_what_differs_and_says_both(case: str) -> None:
    changes, message = DIFFERENT[case]

    with pytest.raises(DataError, match=message) as caught:
        check_agreement({**BERT, **changes}, {**BERT, **changes}, None, bert(), "zoo/m")

    assert caught.value.reason == ("unsupported_model" if "number" in case else "bad_weights")


def test_check_agreement__refuses_weights_with_a_gap_or_without_layers() -> None:
    gap = {name: tensor for name, tensor in bert(n_layers=3).items() if "layer.1" not in name}
    none = bert(n_layers=0)

    with pytest.raises(DataError, match=r"got weights of 2 layers \(encoder.layer.0 to encoder.layer.2\)"):
        check_agreement(BERT, BERT, None, gap, "zoo/m")
    with pytest.raises(DataError, match=r"got weights without layers and num_hidden_layers: 2 in config.json"):
        check_agreement(BERT, BERT, None, none, "zoo/m")


def test_check_agreement__refuses_a_layer_that_lacks_a_tensor_of_the_others() -> None:
    config = {**BERT, "num_hidden_layers": 3}
    tensors = bert(n_layers=3)
    del tensors["encoder.layer.2.intermediate.dense.weight"]

    with pytest.raises(DataError, match=r"zoo/m: got no tensor 'encoder.layer.2.intermediate.dense.weight', expected"):
        check_agreement(config, config, None, tensors, "zoo/m")


def test_check_agreement__refuses_a_layer_with_a_tensor_of_another_shape_than_the_others() -> None:
    tensors = {**bert(), **headers({"encoder.layer.1.intermediate.dense.weight": (32, 8)})}
    check_agreement({**BERT, "pruned_heads": {"0": [1]}}, {**BERT, "pruned_heads": {"0": [1]}}, None, bert(), "zoo/m")

    with pytest.raises(
        DataError,
        match=r"zoo/m: got the tensor 'encoder.layer.1.intermediate.dense.weight' of 32 × 8, expected 16 × 8, as in "
        r"encoder.layer.0. Copy or save the weights again",
    ):
        check_agreement(BERT, BERT, None, tensors, "zoo/m")


@pytest.mark.parametrize("cut", ["layers.1.layer.0.bias", "layers.2.layer.0.convolution.weight"])
def test_check_agreement__refuses_a_block_of_a_stage_that_lacks_a_tensor_or_has_another_shape(cut: str) -> None:
    stages = [(0, 1, (6, 6, 3, 3)), (0, 2, (6, 6, 3, 3)), (1, 1, (8, 8, 3, 3)), (1, 2, (8, 8, 3, 3))]
    shapes = {f"encoder.stages.{stage}.layers.{block}.layer.0.convolution.weight": one for stage, block, one in stages}
    shapes |= {f"encoder.stages.{stage}.layers.{block}.layer.0.bias": one[:1] for stage, block, one in stages}
    config = {**RESNET, "depths": [3, 3]}
    whole = {**STAGES, **headers(shapes)}
    whole |= headers({"encoder.stages.1.layers.0.layer.0.convolution.weight": (8, 6, 3, 3)})
    check_agreement(config, config, None, whole, "zoo/m")

    name = f"encoder.stages.1.{cut}"
    if cut.endswith("bias"):
        del whole[name]
    else:
        whole |= headers({name: (8, 4, 3, 3)})
    with pytest.raises(DataError, match=rf"got (no tensor|the tensor) '{name}'( of 8 × 4 × 3 × 3)?, expected"):
        check_agreement(config, config, None, whole, "zoo/m")


def test_check_agreement__refuses_norms_of_another_width() -> None:
    config = {**BERT, "hidden_size": 16, "embedding_size": 8}
    tensors = {name: tensor for name, tensor in bert().items() if "position" not in name}

    with pytest.raises(DataError, match=r"layer.0.output.LayerNorm.weight' of 8 and hidden_size: 16 in config.json"):
        check_agreement(config, config, None, tensors, "zoo/m")


def test_check_agreement__compares_the_number_of_layers_of_types_that_it_does_not_know() -> None:
    config = {**BERT, "model_type": "strange", "vocab_size": 99}
    check_agreement(config, config, None, bert(), "zoo/m")
    check_agreement(config, config, None, headers({"unnumbered": (8,)}), "zoo/m")

    with pytest.raises(DataError, match=r"got weights of 3 layers .* and num_hidden_layers: 2"):
        check_agreement(config, config, None, bert(n_layers=3), "zoo/m")


def test_check_agreement__takes_layers_that_stand_in_two_lists() -> None:
    config = {"model_type": "strange", "num_hidden_layers": 5}
    two = [
        f"{module}.layers.{layer}.mlp.weight" for module, count in (("high", 2), ("low", 3)) for layer in range(count)
    ]
    check_agreement(config, config, None, headers(dict.fromkeys(two, (8, 8))), "zoo/m")

    with pytest.raises(DataError, match=r"got weights of 3 layers \(low.layers.0 to low.layers.2\)"):
        check_agreement(config, config, None, headers(dict.fromkeys(two[1:], (8, 8))), "zoo/m")


def test_check_agreement__compares_only_the_layers_of_packed_weights() -> None:
    config = {**BERT, "vocab_size": 99, "quantization_config": {"quant_method": "gptq"}}
    check_agreement(config, config, None, bert(), "zoo/m")

    with pytest.raises(DataError, match=r"got weights of 3 layers"):
        check_agreement(config, config, None, bert(n_layers=3), "zoo/m")


RESNET = {"model_type": "resnet", "embedding_size": 4, "num_channels": 3, "hidden_sizes": [6, 8], "depths": [1, 2]}
STAGES = headers(
    {
        "embedder.embedder.convolution.weight": (4, 3, 7, 7),
        "encoder.stages.0.layers.0.layer.0.convolution.weight": (6, 4, 3, 3),
        "encoder.stages.1.layers.0.layer.0.convolution.weight": (8, 6, 3, 3),
        "encoder.stages.1.layers.1.layer.0.convolution.weight": (8, 8, 3, 3),
    }
)
STAGED: dict[str, tuple[dict[str, Any], str]] = {
    "more stages": ({"depths": [1, 2, 1]}, r"got weights of 2 layers .* and 3 stages by depths in config.json"),
    "more blocks": ({"depths": [1, 3]}, r"got 2 blocks in encoder.stages.1 and 3 by depths in config.json"),
    "wider": ({"hidden_sizes": [6, 9]}, r"got tensors of 1?.*6, 8 in encoder.stages.1 and 9 by hidden_sizes in"),
    "two lists": ({"hidden_sizes": [6, 8, 9]}, r"got 3 hidden_sizes and 2 depths in config.json, expected as many"),
    "first maps": ({"embedding_size": 5}, r"convolution.weight' of 4 × 3 × 7 × 7 and embedding_size: 5 in config.json"),
    "no numbers": (
        {"depths": ["1", "2"]},
        r'got depths: \["1", "2"\] in config.json, expected a list of whole',
    ),
}


@pytest.mark.parametrize("case", STAGED)
def test_check_agreement__compares_each_stage(case: str) -> None:
    changes, message = STAGED[case]
    check_agreement(RESNET, RESNET, None, STAGES, "zoo/m")

    with pytest.raises(DataError, match=message):
        check_agreement({**RESNET, **changes}, {**RESNET, **changes}, None, STAGES, "zoo/m")


@pytest.mark.parametrize("tower", ["text", "vision"])
def test_check_agreement__compares_each_tower_with_its_own_part(tower: str) -> None:
    parts = {"text": {"hidden_size": 8, "num_hidden_layers": 1}, "vision": {"hidden_size": 6, "num_hidden_layers": 2}}
    config = {"model_type": "clip", **{f"{name}_config": part for name, part in parts.items()}}
    tensors = headers(
        {
            f"{name}_model.encoder.layers.{layer}.layer_norm1.weight": (part["hidden_size"],)
            for name, part in parts.items()
            for layer in range(part["num_hidden_layers"])
        }
    )
    check_agreement(config, parts[tower], tower, tensors, "zoo/m")

    with pytest.raises(DataError, match=rf"{tower}_model.* and num_hidden_layers: 3"):
        check_agreement(config, {**parts[tower], "num_hidden_layers": 3}, tower, tensors, "zoo/m")
    with pytest.raises(DataError, match=rf"{tower}_model.*layer_norm1.weight' of . and hidden_size: 32"):
        check_agreement(config, {**parts[tower], "hidden_size": 32}, tower, tensors, "zoo/m")


# Settings that shapes show, where a configuration has them; those of one network only, where there are two.
SHOWN = {
    "": (
        *("num_hidden_layers", "n_layer", "n_layers", "hidden_size", "n_embd", "dim", "d_model", "embed_dim"),
        "vocab_size",
    ),
    "encoder": ("encoder_layers", "vocab_size", "d_model"),
    "decoder": ("decoder_layers", "num_decoder_layers", "vocab_size", "d_model"),
}


@cache
def built(model_type: str) -> tuple[dict[str, Any], Headers]:
    """Return the configuration of a family as its library has it, and the names and shapes of its weights."""
    import torch
    import transformers

    config = transformers.AutoConfig.for_model(model_type)
    with torch.device("meta"):
        network = transformers.AutoModel.from_config(config)
    shapes = {name: tuple(values.shape) for name, values in network.state_dict().items()}
    return config.to_dict(), headers(shapes)


def wrong(part: Mapping[str, Any], family: Family) -> Iterator[dict[str, Any]]:
    for key in SHOWN.get(family.tower or "", SHOWN[""]):
        # All layers of an ALBERT share one group of weights; images have no words; Swin computes its last width.
        if type(part.get(key)) is not int or (key == "num_hidden_layers" and part.get("num_hidden_groups")):
            continue
        if family.reads == "images" and (key == "vocab_size" or (part.get("depths") and key != "embed_dim")):
            continue
        yield from ({**part, key: part[key] + change} for change in (-1, 1))
    for key in ("depths", "hidden_sizes"):
        if part.get(key):
            yield {**part, key: [*part[key], part[key][-1]]}
            yield {**part, key: [part[key][0] + 1, *part[key][1:]]}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_each_family__agrees_with_what_its_library_builds_and_with_nothing_else(
    family: Family, working_transformers: Any
) -> None:
    for model_type in family.model_types:
        config, tensors = built(model_type)
        part = config.get(f"{family.tower}_config", config)
        check_agreement(config, part, family.tower, tensors, model_type)
        check_agreement(config, part, family.tower, {f"model.{name}": one for name, one in tensors.items()}, model_type)

        changed = list(wrong(part, family))
        for other in changed:
            with pytest.raises(DataError, match=r"in config\.json"):
                check_agreement({**config, **(other if part is config else {})}, other, family.tower, tensors, "m")
        assert len(changed) >= 4, model_type
        for name in cut_tensors(tensors, family, part):
            halved = {**tensors, **headers({name: (tensors[name].shape[0] // 2, *tensors[name].shape[1:])})}
            with pytest.raises(DataError, match=r"expected (them to agree|\d)"):
                check_agreement(config, part, family.tower, halved, model_type)


def cut_tensors(tensors: Headers, family: Family, part: Mapping[str, Any]) -> list[str]:
    """Return the weights of a block behind the first, of each stage if there are; ALBERT's layers share one group."""
    number = "0" if part.get("num_hidden_groups") else "1"
    block = re.compile(rf".*?\b(layers?|h|blocks?|albert_layer_groups)\.{number}\.")
    if part.get("depths"):
        block = re.compile(r".*\.(stages|layers)\.\d+\.(layers|blocks)\.2\.")
    others = {"encoder": "decoder", "decoder": "encoder", "text": "vision_model", "vision": "text_model"}
    of_tower = (name for name in tensors if name.partition(".")[0] != others.get(family.tower or ""))
    cut = [name for name in of_tower if block.match(name) and len(tensors[name].shape) > 1]
    assert cut or max(part.get("depths") or [3]) < 3
    return cut


LORA = {"peft_type": "LORA", "r": 4}


def adapter(module: str, n_in: int = 8, n_out: int = 16, rank: int = 4) -> Headers:
    name = f"base_model.model.{module}"
    return headers({f"{name}.lora_A.weight": (rank, n_in), f"{name}.lora_B.weight": (n_out, rank)})


@pytest.mark.parametrize("prefix", ["", "bert."])
@pytest.mark.parametrize("head", ["", "bert."])
def test_check_adapter__takes_one_that_was_trained_on_the_base(prefix: str, head: str) -> None:
    module = f"{head}encoder.layer.1.intermediate.dense"

    check_adapter(LORA, adapter(module), bert(prefix), ("lora", "base"))
    check_adapter(LORA, adapter(module, 16, 8), bert(prefix), ("lora", "base"))  # stored as (input, output)
    check_adapter(LORA, adapter("another.module", 99, 99), bert(prefix), ("lora", "base"))
    check_adapter({"r": 8, "rank_pattern": {module: 4}}, adapter(module), bert(prefix), ("lora", "base"))


def test_check_adapter__refuses_one_of_another_network() -> None:
    module = "encoder.layer.1.intermediate.dense"

    with pytest.raises(DataError, match=r"lora: got the tensor '.*lora_A.weight' of rank 4 and r: 8 in adapter_config"):
        check_adapter({"r": 8}, adapter(module), bert(), ("lora", "base"))
    with pytest.raises(DataError, match=r"got an adapter of 'encoder.layer.2.* and a base base of 2 layers.* base:\."):
        check_adapter(LORA, adapter(module.replace("1", "2")), bert(), ("lora", "base"))
    with pytest.raises(DataError, match=r"for weights of 64 × 32, expected 16 × 8, as in its base base"):
        check_adapter(LORA, adapter(module, 32, 64), bert(), ("lora", "base"))


BUILT = {
    "stem.weight": (4, 3),
    "blocks.0.weight": (4, 4),
    "blocks.1.weight": (4, 4),
    "fc.weight": (10, 4),
    "pos_embed": (9,),
}


def test_check_built__takes_weights_of_the_network_whatever_its_head() -> None:
    check_built(headers(BUILT), BUILT, "m")
    check_built(headers({**BUILT, "fc.weight": (1000, 4), "pos_embed": (5,), "head.fc.bias": (3,)}), BUILT, "m")
    check_built(headers({f"module.{name}": (1,) for name in BUILT}), BUILT, "m")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blocks.1.weight": None}, r"m: got no tensor 'blocks.1.weight', expected it by config.json"),
        (
            {"blocks.2.weight": (4, 4)},
            r"got the tensor 'blocks.2.weight', which the network of config.json does not have",
        ),
        ({"stem.weight": (8, 3)}, r"got the tensor 'stem.weight' of 8 × 3, expected 4 × 3 by config.json"),
    ],
)
def test_check_built__refuses_weights_of_another_network(changes: Mapping[str, Any], message: str) -> None:
    tensors = {name: shape for name, shape in {**BUILT, **changes}.items() if shape is not None}
    with pytest.raises(DataError, match=message) as caught:
        check_built(headers(tensors), BUILT, "m")
    assert caught.value.reason == "bad_weights"
