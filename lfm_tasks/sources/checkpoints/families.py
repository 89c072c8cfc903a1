"""Families of transformers models: what their hidden states are, which shape they have, how they are pooled by default.

`FAMILIES` is the table in ``docs/recording.md``, which a test compares. A model type that stands in no row is run as
its configuration tells: one hidden state for the embeddings and one after each block, read like an encoder's, or like
a causal model's if its ``architectures`` name one.
"""

from collections.abc import Mapping
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
    """Return what the hidden states of a transformers model are, by its configuration alone.

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
    if shapes is None:
        problem = f"got model_type {model_type!r}, whose hidden states are not known, expected a family of recording.md"
        raise DataError("unsupported_model", f"{name}: {problem}. Record it with a torch factory.")
    return HiddenStates(shapes, pool, causal)


# Far above any network; a damaged or hostile number would fill the memory with names.
_MOST_LAYERS = 10_000


def _shapes(part: Mapping[str, Any], tower: str | None, name: str) -> tuple[StateShape, ...] | None:
    depths, sizes = _integers(part, "depths"), _integers(part, "hidden_sizes")
    if depths and sizes:
        first = _first_integer(part, "embedding_size") or sizes[0]
        return tuple((width, None, None) for width in (first, *sizes))
    width = _first_integer(part, "embed_dim") if depths else None
    if width is not None:
        # Each stage but the last hands on half as many patches on a side, twice as wide.
        stages = [width * 2 ** min(index, len(depths) - 1) for index in range(len(depths) + 1)]
        return tuple((None, features) for features in stages)
    own = {"encoder": ("encoder_layers", "num_layers"), "decoder": ("num_decoder_layers", "decoder_layers")}
    counts = (*own.get(tower or "", ()), "num_hidden_layers", "n_layer", "n_layers", "num_layers")
    n_layers, width = _first_integer(part, *counts), _first_integer(part, "hidden_size", "n_embd", "d_model", "dim")
    if n_layers is None or width is None:
        return None
    if not 0 < n_layers <= _MOST_LAYERS:
        problem = f"got {n_layers} layers in config.json, expected 1 to {_MOST_LAYERS:,}"
        raise DataError("unsupported_model", f"{name}: {problem}. Copy the config.json of these weights again.")
    return ((None, width),) * (n_layers + 1)


def _is_causal(config: Mapping[str, Any], part: Mapping[str, Any], tower: str | None) -> bool:
    architectures = " ".join(str(one) for one in config.get("architectures") or ())
    has_causal_head = tower is None and any(head in architectures for head in _CAUSAL_HEADS)
    return has_causal_head or tower == "decoder" or part.get("is_decoder") is True


def _integers(config: Mapping[str, Any], key: str) -> tuple[int, ...]:
    values = config.get(key)
    if isinstance(values, list | tuple) and all(type(value) is int for value in values):
        return tuple(values)
    return ()


def _first_integer(config: Mapping[str, Any], *keys: str) -> int | None:
    return next((config[key] for key in keys if type(config.get(key)) is int), None)


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
