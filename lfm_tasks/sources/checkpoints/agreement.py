"""Checks that config.json and the weights of a checkpoint belong together, by the headers alone.

`RULES` says which settings the shapes of some tensors show. A further one is a row: how the tensor's name ends, and
which setting each length of its shape is.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lfm_tasks.errors import DataError
from lfm_tasks.sources.checkpoints.families import find_family, layer_count, state_width, whole_number, whole_numbers
from lfm_tasks.sources.files.safetensors_files import StoredTensor

Tensors = Mapping[str, StoredTensor]
Settings = tuple[str, ...]
# The tensors of each block, by the list that it stands in and its number there.
Blocks = Mapping[str, Mapping[int, Tensors]]


@dataclass(frozen=True)
class Rule:
    """The tensors whose names match, and for each length of their shape the settings of which the first decides it.

    A length without settings may be any.
    """

    tensor: re.Pattern[str]
    lengths: tuple[Settings, ...]


_WIDTH: Settings = ("hidden_size", "n_embd", "d_model", "dim")
# Where the table of words is narrower than the states.
_WORD_WIDTH: Settings = ("embedding_size", "word_embed_proj_dim", *_WIDTH)
_WORDS = r"word_embeddings?|wte|embed_tokens|embed_in|tok_embeddings|token_embedding|shared"
RULES: tuple[Rule, ...] = (
    Rule(re.compile(rf"(^|\.)({_WORDS})\.weight$"), (("vocab_size",), _WORD_WIDTH)),
    Rule(re.compile(r"(^|\.)token_type_embeddings\.weight$"), (("type_vocab_size",), ())),
    Rule(re.compile(r"(^|\.)wpe\.weight$"), (("n_positions", "max_position_embeddings"), _WIDTH)),
    Rule(
        re.compile(r"(^|\.)embeddings\.position_embeddings?\.weight$"),
        (("max_position_embeddings",), ("embedding_size", *_WIDTH)),
    ),
    Rule(
        re.compile(r"(^|\.)encoder\.embed_positions\.weight$"),
        (("max_source_positions", "max_position_embeddings"), _WIDTH),
    ),
    Rule(
        re.compile(r"(^|\.)decoder\.embed_positions\.weight$"),
        (("max_target_positions", "max_position_embeddings"), _WIDTH),
    ),
    Rule(
        re.compile(r"(^|\.)patch_embeddings?\.(projection\.)?weight$"),
        (("embed_dim", *_WIDTH), ("num_channels",), ("patch_size",), ("patch_size",)),
    ),
    Rule(
        re.compile(r"(^|\.)embedder\.(embedder\.)?convolution\.weight$"),
        (("embedding_size",), ("num_channels",), (), ()),
    ),
    Rule(re.compile(r"(^|\.)(embeddings_project|embedding_hidden_mapping_in)\.weight$"), (_WIDTH, ("embedding_size",))),
)
# All layers of an ALBERT share the weights of few groups, of one mostly: no other group shows that a tensor is cut.
_ALBERT_RULES: tuple[Rule, ...] = (
    Rule(re.compile(r"\.attention\.(query|key|value|dense)\.weight$"), (_WIDTH, _WIDTH)),
    Rule(re.compile(r"\.ffn\.weight$"), (("intermediate_size",), _WIDTH)),
    Rule(re.compile(r"\.ffn_output\.weight$"), (_WIDTH, ("intermediate_size",))),
    Rule(re.compile(r"\.albert_layers\.\d+\..*norm\.(weight|bias)$", re.IGNORECASE), (_WIDTH,)),
    Rule(re.compile(r"\.albert_layers\.\d+\.(attention\.\w+|ffn_output)\.bias$"), (_WIDTH,)),
    Rule(re.compile(r"albert_layers\.\d+\.ffn\.bias$"), (("intermediate_size",),)),
)
# These number positions from 2: their tables are two rows longer than the configuration says.
_FROM_TWO = ("bart", "mbart", "opt")
# The width inside a block, which some tensor of the block has as a length.
_INNER_WIDTHS: Settings = ("intermediate_size", "ffn_dim", "d_ff", "d_inner", "hidden_dim")
_INNER_OF_TOWER: Mapping[str, Settings] = {"encoder": ("encoder_ffn_dim",), "decoder": ("decoder_ffn_dim",)}
# Blocks are numbered behind one of these words, before any other number in a name.
_BLOCK = re.compile(
    r"(?P<list>(?:.*?\.)??(?:layers?|h|blocks?|stages|albert_layer_groups))\.(?P<number>\d+)\.(?P<rest>.+)"
)
_INNER_BLOCK = re.compile(r"(?:layers|blocks)\.(?P<number>\d+)\.")
# Scales of a whole state; those of the heads of attention are narrower.
_NORM = re.compile(r"(?<![qk])(?<![qk]_)(layer_?norm|norm\w*|ln_\w+)\.weight$", re.IGNORECASE)
# How the tensors of the other of two networks begin, behind the name of what holds both.
_OTHERS: Mapping[str, tuple[str, ...]] = {
    "text": ("vision_model", "vision_tower", "visual", "visual_projection"),
    "vision": ("text_model", "language_model", "text_projection"),
    "encoder": ("decoder",),
    "decoder": ("encoder",),
}


def check_agreement(
    config: Mapping[str, Any], part: Mapping[str, Any], tower: str | None, tensors: Tensors, name: str
) -> None:
    """Raise DataError ``bad_weights`` if the weights of a transformers checkpoint are not those of its configuration.

    Transformers fills what is missing with random numbers, and passes over layers that the configuration lacks.

    Parameters
    ----------
    config
        The content of ``config.json``.
    part
        The part of it that describes one network.
    tower
        Which network, where the checkpoint holds two.
    tensors
        The headers of all weights. Those of a quantized checkpoint have shapes of their own: only their names count.
    name
        How messages call the checkpoint.

    Raises
    ------
    DataError
        ``bad_weights``; ``unsupported_model`` for a setting that is no whole number.
    """
    blocks, others = _blocks(_of_tower(tensors, tower))
    family = find_family(str(config.get("model_type")), tower)
    depths = whole_numbers(part, "depths", name)
    count = _expected_blocks(part, tower, depths, name)
    if count is not None and (blocks or family is not None):
        _check_count(blocks, *count, part, name)
    if family is None or isinstance(config.get("quantization_config"), dict):
        return
    for rule in RULES:
        _check_rule(rule, others, part, name, first=2 if config.get("model_type") in _FROM_TWO else 0)
    if config.get("model_type") == "albert":
        for rule in _ALBERT_RULES:
            _check_rule(rule, tensors, part, name, first=0)
    if depths:
        _check_stages(blocks, depths, part, name)
    else:
        for where, of_list in blocks.items():
            _check_names({f"{where}.{number}": block for number, block in of_list.items() if number}, name)
            if not part.get("pruned_heads"):
                _check_shapes({f"{where}.{number}": block for number, block in of_list.items()}, name)
        _check_widths(blocks, part, tower, name)


# Tensors that timm leaves out, computes, or fits to another number of classes or another size of images.
_FITTED = re.compile(r"(^|\.)(head|heads|classifier|fc|pos_embed\w*|rel\w*_pos\w*|attn_mask|num_batches_tracked)(\.|$)")


def check_built(tensors: Tensors, built: Mapping[str, Sequence[int]], name: str) -> None:
    """Raise DataError ``bad_weights`` if the weights are not those of the network that its library built.

    Parameters
    ----------
    tensors
        The headers of the weights.
    built
        The shape of each tensor of the network. If the weights have other names altogether, their library renames them,
        and nothing is compared.
    name
        How messages call the checkpoint.
    """
    common = [key for key in built if key in tensors]
    if 2 * len(common) < len(built):
        return
    for key in (*built, *tensors):
        if _FITTED.search(key):
            continue
        if key not in tensors:
            problem = f"got no tensor {key[:100]!r}, expected it by config.json"
        elif key not in built:
            problem = f"got the tensor {key[:100]!r}, which the network of config.json does not have, expected its own"
        elif tuple(built[key]) != tensors[key].shape:
            expected = " × ".join(map(str, built[key]))
            problem = f"got the tensor {key[:100]!r} of {_shape(tensors[key])}, expected {expected} by config.json"
        else:
            continue
        raise DataError("bad_weights", f"{name}: {problem}. {_ADVICE}.")


def check_adapter(settings: Mapping[str, Any], tensors: Tensors, base: Tensors, names: tuple[str, str]) -> None:
    """Raise DataError ``bad_weights`` if a LoRA adapter was trained on another network than its base.

    Parameters
    ----------
    settings
        The content of ``adapter_config.json``.
    tensors, base
        The headers of the adapter's weights and of its base's.
    names
        How messages call the adapter and its base.
    """
    name, base_name = names
    advice = "Name the base that it was trained on: base:"
    blocks, _ = _blocks(base)
    n_layers = max(map(len, blocks.values()), default=0)
    for first, tensor in tensors.items():
        module, is_first, _ = first.removeprefix("base_model.model.").partition(".lora_A.")
        second = tensors.get(first.replace(".lora_A.", ".lora_B."))
        if not is_first or second is None or len(tensor.shape) != 2 or len(second.shape) != 2:
            continue
        if not settings.get("rank_pattern") and settings.get("r") not in (None, tensor.shape[0]):
            rank = f"{tensor.shape[0]} and r: {json.dumps(settings['r'])[:20]} in adapter_config.json"
            problem = f"got the tensor {first[:100]!r} of rank {rank}, expected them to agree"
            raise DataError("bad_weights", f"{name}: {problem}. Copy the adapter again, with all its files.")
        block = _BLOCK.match(f"{module}.weight")
        if block is None or not blocks:
            continue
        if int(block["number"]) >= n_layers:
            problem = f"got an adapter of {module[:100]!r} and a base {base_name} of {n_layers} layers"
            raise DataError("bad_weights", f"{name}: {problem}, expected one of its layers. {advice}.")
        # With or without the names of what holds the network.
        lists = [one for where, one in blocks.items() if f".{where}".endswith(f".{block['list']}")]
        lists += [one for where, one in blocks.items() if f".{block['list']}".endswith(f".{where}")]
        stored = lists[0].get(int(block["number"]), {}).get(block["rest"]) if lists else None
        adapted = (second.shape[0], tensor.shape[1])
        # Some networks store a layer as (input, output).
        if stored is not None and len(stored.shape) == 2 and sorted(stored.shape) != sorted(adapted):
            problem = f"got an adapter of {module[:100]!r} for weights of {adapted[0]} × {adapted[1]}"
            expected = f"expected {_shape(stored)}, as in its base {base_name}"
            raise DataError("bad_weights", f"{name}: {problem}, {expected}. {advice}.")


def _of_tower(tensors: Tensors, tower: str | None) -> Tensors:
    """Return the tensors of one of two networks, and what both share."""
    if tower is None:
        return tensors
    others = {*_OTHERS.get(tower, ())}
    return {name: tensor for name, tensor in tensors.items() if not others.intersection(name.split(".")[:2])}


def _blocks(tensors: Tensors) -> tuple[Blocks, Tensors]:
    """Return the tensors of each block, by the list that it stands in and its number there, and all other tensors."""
    lists: dict[str, dict[int, dict[str, StoredTensor]]] = {}
    others = {}
    for name, tensor in tensors.items():
        match = _BLOCK.match(name)
        if match is None:
            others[name] = tensor
        else:
            of_list = lists.setdefault(match["list"], {})
            of_list.setdefault(int(match["number"]), {})[match["rest"]] = tensor
    return lists, others


def _expected_blocks(
    part: Mapping[str, Any], tower: str | None, depths: Sequence[int], name: str
) -> tuple[str, int] | None:
    """Return how many blocks the weights should have, behind the setting that says so."""
    if depths:
        return "depths", len(depths)
    # All layers of an ALBERT share the weights of few groups.
    groups = whole_number(part, ("num_hidden_groups",), name)
    return groups or layer_count(part, tower, name)


def _check_count(blocks: Blocks, setting: str, count: int, part: Mapping[str, Any], name: str) -> None:
    # Some causal models bring further layers that predict later tokens, and are not run.
    further = part.get("num_nextn_predict_layers")
    allowed = {count, count + further} if type(further) is int else {count}
    whole = [of_list for of_list in blocks.values() if max(of_list) < len(of_list)]
    if any(len(of_list) in allowed for of_list in whole) or sum(map(len, whole)) in allowed:
        return
    if not blocks:
        problem = f"got weights without layers and {setting}: {count} in config.json"
    else:
        longest = max(blocks, key=lambda one: (len(blocks[one]), one))
        numbers = sorted(blocks[longest])
        held = f"{len(numbers)} {'layer' if len(numbers) == 1 else 'layers'} ({longest}.{numbers[0]}"
        held += f" to {longest}.{numbers[-1]})" if len(numbers) > 1 else ")"
        said = f"{count} stages by {setting}" if setting == "depths" else f"{setting}: {count}"
        problem = f"got weights of {held} and {said} in config.json"
    raise DataError("bad_weights", f"{name}: {problem}, expected as many. {_ADVICE}.")


_ADVICE = "Copy config.json and the weights of one model again, together"


def _check_rule(rule: Rule, tensors: Tensors, part: Mapping[str, Any], name: str, *, first: int) -> None:
    """Raise DataError if a tensor has another shape; ``first``: the number of a text's first position."""
    for tensor_name, tensor in tensors.items():
        if len(tensor.shape) != len(rule.lengths) or not rule.tensor.search(tensor_name):
            continue
        for length, settings in zip(tensor.shape, rule.lengths, strict=True):
            said = whole_number(part, settings, name) if not _is_listed(part, settings) else None
            more = first if "max_position_embeddings" in settings else 0
            if said is not None and length != said[1] + more:
                raise DataError("bad_weights", f"{name}: {_differs(tensor_name, _shape(tensor), *said)}")


def _shape(tensor: StoredTensor) -> str:
    return " × ".join(map(str, tensor.shape))


def _is_listed(part: Mapping[str, Any], settings: Settings) -> bool:
    """Return whether the setting that decides holds a number a side, as patches that are no squares have."""
    return isinstance(next((part[key] for key in settings if part.get(key) is not None), None), list)


def _differs(tensor: str, shape: str, setting: str, value: int) -> str:
    problem = f"got the tensor {tensor[:100]!r} of {shape} and {setting}: {value} in config.json"
    return f"{problem}, expected them to agree. {_ADVICE}."


def _check_names(later: Mapping[str, Tensors], name: str) -> None:
    """Raise DataError for a block that lacks a tensor of the others; ``later`` are all but the first, by their places.

    The first block of some networks is unlike the others.
    """
    wanted = dict.fromkeys(key for block in later.values() for key in block)
    for where, block in later.items():
        if absent := [key for key in wanted if key not in block]:
            problem = f"got no tensor {f'{where}.{absent[0]}'!r}, expected it, as other layers have it"
            raise DataError("bad_weights", f"{name}: {problem}. Copy or save the weights again.")


def _check_shapes(blocks: Mapping[str, Tensors], name: str) -> None:
    """Raise DataError for a tensor that has another shape than the same one of another block."""
    shown: dict[str, str] = {}
    for where, block in blocks.items():
        for key, tensor in block.items():
            other = shown.setdefault(key, where)
            if tensor.shape != blocks[other][key].shape:
                problem = f"got the tensor {f'{where}.{key}'[:100]!r} of {_shape(tensor)}"
                expected = f"expected {_shape(blocks[other][key])}, as in {other[:100]}"
                raise DataError("bad_weights", f"{name}: {problem}, {expected}. Copy or save the weights again.")


def _check_widths(
    blocks: Blocks,
    part: Mapping[str, Any],
    tower: str | None,
    name: str,
) -> None:
    """Raise DataError unless the blocks are as wide as the configuration says, outside and inside."""
    width = state_width(part, name)
    inner = whole_number(part, (*_INNER_OF_TOWER.get(tower or "", ()), *_INNER_WIDTHS), name)
    for where, of_list in blocks.items():
        for number, block in of_list.items():
            norms = {key: one.shape for key, one in block.items() if len(one.shape) == 1 and _NORM.search(key)}
            if width is not None and norms and (width[1],) not in norms.values():
                key, shape = next(iter(norms.items()))
                raise DataError("bad_weights", f"{name}: {_differs(f'{where}.{number}.{key}', str(shape[0]), *width)}")
            lengths = _lengths(block.values())
            if inner is not None and inner[1] not in lengths:
                shown = ", ".join(map(str, sorted(lengths)[-4:]))
                problem = f"got tensors of {shown} in {where}.{number} and {inner[0]}: {inner[1]} in config.json"
                raise DataError("bad_weights", f"{name}: {problem}, expected them to agree. {_ADVICE}.")


def _lengths(tensors: Iterable[StoredTensor]) -> set[int]:
    return {length for tensor in tensors for length in tensor.shape}


def _check_stages(
    blocks: Blocks,
    depths: Sequence[int],
    part: Mapping[str, Any],
    name: str,
) -> None:
    """Raise DataError unless each stage has as many blocks, and is as wide, as the configuration says."""
    widths = list(_stage_widths(part, depths, name))
    for where, stages in blocks.items():
        later = {stage: _later_blocks(f"{where}.{stage}", tensors) for stage, tensors in stages.items()}
        _check_names({place: block for of_stage in later.values() for place, block in of_stage.items()}, name)
        for of_stage in later.values():
            _check_shapes(of_stage, name)
        for stage, (depth, (setting, width)) in enumerate(zip(depths, widths, strict=False)):
            tensors = stages.get(stage, {})
            inside = {int(match["number"]) for key in tensors if (match := _INNER_BLOCK.match(key))}
            if inside != set(range(depth)):
                problem = f"got {len(inside)} blocks in {where}.{stage} and {depth} by depths in config.json"
                raise DataError("bad_weights", f"{name}: {problem}, expected as many. {_ADVICE}.")
            if width not in _lengths(tensors.values()):
                shown = ", ".join(map(str, sorted(_lengths(tensors.values()))[-4:]))
                problem = f"got tensors of {shown} in {where}.{stage} and {width} by {setting} in config.json"
                raise DataError("bad_weights", f"{name}: {problem}, expected them to agree. {_ADVICE}.")


def _later_blocks(stage: str, tensors: Tensors) -> Mapping[str, Tensors]:
    """Return the tensors of the blocks inside a stage, without the first, by their places."""
    later: dict[str, dict[str, StoredTensor]] = {}
    for key, tensor in tensors.items():
        match = _INNER_BLOCK.match(key)
        if match and int(match["number"]):
            later.setdefault(f"{stage}.{match[0][:-1]}", {})[key[match.end() :]] = tensor
    return later


def _stage_widths(part: Mapping[str, Any], depths: Sequence[int], name: str) -> Iterator[tuple[str, int]]:
    sizes = whole_numbers(part, "hidden_sizes", name)
    embedded = whole_number(part, ("embed_dim",), name)
    if sizes and len(sizes) != len(depths):
        problem = f"got {len(sizes)} hidden_sizes and {len(depths)} depths in config.json, expected as many"
        raise DataError("bad_weights", f"{name}: {problem}. {_ADVICE}.")
    if sizes:
        yield from (("hidden_sizes", width) for width in sizes)
    elif embedded is not None:
        yield from (("embed_dim", embedded[1] * 2**stage) for stage in range(len(depths)))
