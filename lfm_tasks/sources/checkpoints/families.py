"""Families of transformers models: the kind, shape and default pooling of their hidden states.

`FAMILIES` is the table in ``docs/recording.md``, which a test compares. A model type that stands in no row is run as
its configuration tells: one hidden state for the embeddings and one after each block, read like an encoder's, or like
a causal model's if its ``architectures`` name one.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lfm_tasks.errors import DataError

# The shape of one point in a hidden state, before pooling; None where the input decides: (tokens, features) or
# (channels, height, width).
StateShape = tuple[int | None, ...]


@dataclass(frozen=True)
class Family:
    """Model types whose hidden states are alike; ``tower`` is the network that runs, where a checkpoint holds two.

    ``last_is_output``: whether the last state is the network's ``last_hidden_state``; else a norm stands in between.
    """

    name: str
    model_types: tuple[str, ...]
    states: str
    shape: str
    pool: Literal["mean", "last"]
    tower: str | None = None
    reads: Literal["texts", "images"] = "texts"
    causal: bool = False
    last_is_output: bool = True


@dataclass(frozen=True)
class HiddenStates:
    """The shape of a point in each hidden state, how it is pooled by default, whether tokens see earlier ones only."""

    shapes: tuple[StateShape, ...]
    pool: Literal["mean", "last"]
    causal: bool


_TOKENS = "tokens × features"
_PATCHES = "patches × features"
_MAPS = "channels × height × width"
_BLOCKS = "00: the embeddings; NN: after block NN"
_STAGES = "00: the patch embeddings; NN: after stage NN"

FAMILIES: tuple[Family, ...] = (
    Family(
        "encoders of text",
        (
            *("albert", "bert", "camembert", "deberta", "deberta-v2", "distilbert", "electra", "modernbert", "mpnet"),
            *("roberta", "xlm-roberta", "xlnet"),
        ),
        _BLOCKS,
        _TOKENS,
        "mean",
    ),
    Family(
        "causal models",
        (
            *("bloom", "cohere", "falcon", "gemma", "gemma2", "gemma3_text", "gpt2", "gpt_neo", "gpt_neox", "gptj"),
            *("granite", "llama", "mistral", "mixtral", "mpt", "olmo", "olmo2", "opt", "phi", "phi3", "qwen2"),
            *("qwen3", "smollm3", "stablelm", "starcoder2"),
        ),
        _BLOCKS,
        _TOKENS,
        "last",
        causal=True,
    ),
    Family(
        "encoder of two",
        ("bart", "mbart", "mt5", "pegasus", "t5", "umt5"),
        "the encoder's; " + _BLOCKS,
        _TOKENS,
        "mean",
        tower="encoder",
    ),
    Family(
        "decoder of two",
        ("bart", "mbart", "mt5", "pegasus", "t5", "umt5"),
        "the decoder's, which reads the text one token late beside the encoder; " + _BLOCKS,
        _TOKENS,
        "last",
        tower="decoder",
        causal=True,
    ),
    Family(
        "decoder of a model of sound",
        ("whisper",),
        "the decoder's, which reads the text without sound; " + _BLOCKS,
        _TOKENS,
        "last",
        tower="decoder",
        causal=True,
    ),
    Family(
        "text tower",
        ("clip",),
        "the text tower's; " + _BLOCKS,
        _TOKENS,
        "last",
        tower="text",
        causal=True,
        last_is_output=False,
    ),
    Family(
        "vision tower of CLIP",
        ("clip",),
        "the vision tower's; " + _BLOCKS,
        _PATCHES,
        "mean",
        tower="vision",
        reads="images",
    ),
    Family(
        "vision tower of SigLIP",
        ("siglip",),
        "the vision tower's; " + _BLOCKS,
        _PATCHES,
        "mean",
        tower="vision",
        reads="images",
        last_is_output=False,
    ),
    Family(
        "vision transformers",
        ("deit", "dinov2", "dinov2_with_registers", "siglip_vision_model", "vit"),
        _BLOCKS,
        _PATCHES,
        "mean",
        reads="images",
        last_is_output=False,
    ),
    Family(
        "vision transformers without a final norm",
        ("beit", "clip_vision_model", "data2vec-vision"),
        _BLOCKS,
        _PATCHES,
        "mean",
        reads="images",
    ),
    Family(
        "shifted windows",
        ("swin", "swinv2"),
        _STAGES,
        _PATCHES,
        "mean",
        reads="images",
        last_is_output=False,
    ),
    Family(
        "convolutional networks",
        ("convnext", "convnextv2", "regnet", "resnet"),
        "00: the stem; NN: after stage NN",
        _MAPS,
        "mean",
        reads="images",
    ),
    Family(
        "convolutional networks with a final norm",
        ("bit",),
        "00: the stem; NN: after stage NN",
        _MAPS,
        "mean",
        reads="images",
        last_is_output=False,
    ),
)

# Model types whose hidden states are neither one a block nor one a stage, or differ from run to run.
_OTHER_STATES = frozenset(
    (
        *("efficientnet", "focalnet", "funnel", "hiera", "levit", "longformer", "mobilenet_v1", "mobilenet_v2"),
        *("mobilevit", "mobilevitv2", "pvt", "pvt_v2", "reformer", "segformer", "swiftformer", "vit_mae"),
    )
)
_CAUSAL_HEADS = ("CausalLM", "LMHeadModel", "DoubleHeads")


def find_family(model_type: str, tower: str | None = None) -> Family | None:
    """Return the row of `FAMILIES` for a model type and tower; None if there is none."""
    return next((one for one in FAMILIES if model_type in one.model_types and one.tower == tower), None)


def hidden_states(config: Mapping[str, Any], part: Mapping[str, Any], tower: str | None, name: str) -> HiddenStates:
    """Return the hidden states of a transformers model, by its configuration alone.

    Parameters
    ----------
    config
        The content of ``config.json``.
    part
        The part of it that describes the network that runs: ``config`` itself, or that of the tower.
    tower
        The network that runs, where the checkpoint holds two.
    name
        How messages call the checkpoint.

    Raises
    ------
    DataError
        ``unsupported_model`` if the configuration does not tell how many hidden states there are, or how wide.
    """
    model_type = str(config.get("model_type"))
    family = find_family(model_type, tower)
    causal = family.causal if family is not None else _is_causal(config, part, tower)
    pool = family.pool if family is not None else "last" if causal else "mean"
    shapes = None if model_type in _OTHER_STATES else _shapes(part, tower, name)
    if shapes is None and family is not None:
        problem = f"got a config.json without {_missing(family, part, name)}, expected the settings of a {model_type}"
        raise DataError("unsupported_model", f"{name}: {problem}. Copy the config.json of these weights again.")
    if shapes is None:
        problem = f"got model_type {model_type!r}, whose hidden states are not known, expected a family of recording.md"
        raise DataError("unsupported_model", f"{name}: {problem}. Record it with a torch factory.")
    return HiddenStates(shapes, pool, causal)


def _missing(family: Family, part: Mapping[str, Any], name: str) -> str:
    """Return how the settings are called that tell the states of a family, and that a configuration lacks."""
    if family.shape == _MAPS:
        return "depths and hidden_sizes"
    if family.states == _STAGES:
        return "depths and embed_dim"
    if layer_count(part, family.tower, name) is None:
        return " or ".join((*_TOWER_COUNTS.get(family.tower or "", ()), *_COUNTS))
    return " or ".join(_WIDTHS)


# Far above any network; a damaged or hostile number would fill the memory with names.
_MOST_LAYERS = 10_000
# How configurations call the number of blocks, and the width of a state.
_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_TOWER_COUNTS = {"encoder": ("encoder_layers", "num_layers"), "decoder": ("num_decoder_layers", "decoder_layers")}
_WIDTHS = ("hidden_size", "n_embd", "d_model", "dim")


def layer_count(part: Mapping[str, Any], tower: str | None, name: str) -> tuple[str, int] | None:
    """Return how many blocks a network without stages has, behind the setting that says so; None if none does.

    Raises
    ------
    DataError
        ``unsupported_model`` for a setting that is no whole number, or far too large.
    """
    found = whole_number(part, (*_TOWER_COUNTS.get(tower or "", ()), *_COUNTS), name)
    if found is not None and not 0 < found[1] <= _MOST_LAYERS:
        problem = f"got {found[0]}: {found[1]} in config.json, expected 1 to {_MOST_LAYERS:,} layers"
        raise DataError("unsupported_model", f"{name}: {problem}. Copy the config.json of these weights again.")
    return found


def state_width(part: Mapping[str, Any], name: str) -> tuple[str, int] | None:
    """Return how many features a state has, behind the setting that says so; DataError if it is no whole number."""
    return whole_number(part, _WIDTHS, name)


def whole_number(part: Mapping[str, Any], keys: Sequence[str], name: str) -> tuple[str, int] | None:
    """Return the first of some settings that a configuration has, and its value; DataError if it is no whole number."""
    key = next((key for key in keys if part.get(key) is not None), None)
    if key is None:
        return None
    value = part[key]
    if type(value) is not int:
        problem = f"got {key}: {json.dumps(value)[:100]} in config.json, expected a whole number"
        raise DataError("unsupported_model", f"{name}: {problem}. Fix it, or copy config.json again.")
    return key, value


def _shapes(part: Mapping[str, Any], tower: str | None, name: str) -> tuple[StateShape, ...] | None:
    depths, sizes = whole_numbers(part, "depths", name), whole_numbers(part, "hidden_sizes", name)
    if depths and sizes:
        first = whole_number(part, ("embedding_size",), name)
        return tuple((width, None, None) for width in (first[1] if first else sizes[0], *sizes))
    embedded = whole_number(part, ("embed_dim",), name) if depths else None
    if embedded is not None:
        # Each stage but the last hands on half as many patches on a side, twice as wide.
        stages = [embedded[1] * 2 ** min(index, len(depths) - 1) for index in range(len(depths) + 1)]
        return tuple((None, features) for features in stages)
    count, width = layer_count(part, tower, name), state_width(part, name)
    return None if count is None or width is None else ((None, width[1]),) * (count[1] + 1)


def whole_numbers(part: Mapping[str, Any], key: str, name: str) -> tuple[int, ...]:
    """Return a setting that is a list of whole numbers, empty if there is none; DataError for anything else."""
    values = part.get(key)
    if values is None:
        return ()
    if not isinstance(values, list | tuple) or not all(type(value) is int for value in values):
        problem = f"got {key}: {json.dumps(values)[:100]} in config.json, expected a list of whole numbers"
        raise DataError("unsupported_model", f"{name}: {problem}. Fix it, or copy config.json again.")
    return tuple(values)


def _is_causal(config: Mapping[str, Any], part: Mapping[str, Any], tower: str | None) -> bool:
    architectures = " ".join(str(one) for one in config.get("architectures") or ())
    has_causal_head = tower is None and any(head in architectures for head in _CAUSAL_HEADS)
    return has_causal_head or tower == "decoder" or part.get("is_decoder") is True


def families_as_markdown() -> str:
    """Return `FAMILIES` as the table of ``docs/recording.md``."""
    lines = ["| family | `model_type` | `tower` | `hidden.NN` | a point | by default |", "|---|---|---|---|---|---|"]
    for family in FAMILIES:
        types = ", ".join(f"`{one}`" for one in sorted(family.model_types))
        tower = f"`{family.tower}`" if family.tower else ""
        last = "" if family.last_is_output else "; the last one before the final norm"
        lines.append(
            f"| {family.name} | {types} | {tower} | {family.states}{last} | {family.shape} | `{family.pool}` |"
        )
    return "\n".join(lines)
