"""The cost of running a checkpoint, by its files and the lengths of its inputs: nothing is loaded or tokenized."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from lfm_tasks.catalog.checkpoints import CheckpointModel
from lfm_tasks.sources.checkpoints.folder import Checkpoint

# What torch and transformers take beside what every worker takes (measured: 312 MiB).
LIBRARY_BYTES = 320 << 20
# Of English text in the vocabularies of BERT, GPT-2 and Llama; others have fewer, so that longer texts are expected.
_CHARACTERS_A_TOKEN = 4
_SPECIAL_TOKENS = 2
# A layer holds its input, output, queries, keys, values and the inner rows of its MLP, four times as wide.
_STATES_OF_A_LAYER = 14
# Convolutional networks: maps that a layer holds at once, each (side / 2)² × 64; positions for which a weight is used
# (within a third for ResNet, ConvNeXt and EfficientNet): (side / 16)².
_MAP_FEATURES, _MAPS_OF_A_LAYER, _STRIDE = 64, 6, 16
_ITEM_BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
_USUAL_SIDE = 224


@dataclass(frozen=True)
class RunCost:
    """Floating-point operations a point, and bytes: of the weights in memory, and at the peak, all included."""

    flops: float
    weight_bytes: int
    peak_bytes: int


def run_cost(checkpoint: Checkpoint, settings: CheckpointModel, lengths: Int[np.ndarray, " points"]) -> RunCost:
    """Return the cost of one pass over the points.

    Every token or patch is multiplied with every parameter but the vocabulary's: 2 × parameters × tokens operations.
    Memory: the weights in the type that they are computed in, the stored ones beside them where that is another, the
    states of all layers of the longest batch, and the libraries.

    Parameters
    ----------
    checkpoint
        The network.
    settings
        Batch size, type, and where texts are cut.
    lengths
        Characters of each text; not used for images.
    """
    dtype = checkpoint.dtype if settings.dtype == "auto" else settings.dtype
    if checkpoint.loader == "timm" and settings.dtype == "auto":
        dtype = "float32"
    item_bytes = _ITEM_BYTES.get(dtype, 4)
    # A quantized network holds what is stored.
    weights = checkpoint.weight_bytes if checkpoint.quantized else item_bytes * checkpoint.parameters
    converted = 0 if dtype == checkpoint.dtype or checkpoint.quantized else checkpoint.weight_bytes
    tokens = n_tokens(checkpoint, settings, lengths)
    longest, mean = float(tokens.max(initial=1)), float(tokens.mean()) if len(tokens) else 1.0
    widths = [_width(shape) for shape in checkpoint.shapes]
    if any(len(shape) == 3 for shape in checkpoint.shapes) or not widths:
        row_bytes = 4 * (image_side(checkpoint) // 2) ** 2 * _MAP_FEATURES * _MAPS_OF_A_LAYER
    else:
        row_bytes = round(4 * longest * (sum(widths) + _STATES_OF_A_LAYER * max(widths)))
    peak = weights + max(converted, settings.batch_size * row_bytes) + LIBRARY_BYTES
    return RunCost(2.0 * checkpoint.multiplied * mean, weights, peak)


def n_tokens(
    checkpoint: Checkpoint, settings: CheckpointModel, lengths: Int[np.ndarray, " points"]
) -> Float[np.ndarray, " points"]:
    """Return about how many tokens each text has, as far as they are read; of images, how many patches."""
    if checkpoint.reads == "images":
        patch = _nested(checkpoint, "patch_size")
        across = image_side(checkpoint) / (patch if isinstance(patch, int) and patch > 0 else _STRIDE)
        return np.full(len(lengths), max(1.0, across**2))
    limits = [settings.max_tokens, _nested(checkpoint, "max_position_embeddings"), _nested(checkpoint, "n_positions")]
    limit = min((one for one in limits if type(one) is int), default=None)
    tokens = lengths / _CHARACTERS_A_TOKEN + _SPECIAL_TOKENS
    return tokens if limit is None else np.minimum(tokens, limit)


def image_side(checkpoint: Checkpoint) -> int:
    """Return how many pixels the images have on a side when the network gets them; 224 where no file tells."""
    prepared = checkpoint.config.get("pretrained_cfg")
    if isinstance(prepared, dict) and isinstance(prepared.get("input_size"), list):
        return _positive(prepared["input_size"][-1])
    for file in checkpoint.files:
        if file.name == "preprocessor_config.json":
            with suppress(OSError, ValueError):
                settings = json.loads(file.read_text(encoding="utf-8"))
                for key in ("crop_size", "size"):
                    value = settings.get(key)
                    sides = list(value.values()) if isinstance(value, dict) else [value]
                    if sides and type(sides[0]) is int:
                        return _positive(sides[0])
    return _positive(_nested(checkpoint, "image_size"))


def _positive(value: Any) -> int:
    return value if type(value) is int and value > 0 else _USUAL_SIDE


def _nested(checkpoint: Checkpoint, key: str) -> Any:
    """Return a setting of the network that runs: its tower's before the whole checkpoint's."""
    parts: list[Any] = [checkpoint.config.get(f"{checkpoint.tower}_config"), checkpoint.config]
    return next((part[key] for part in parts if isinstance(part, Mapping) and part.get(key) is not None), None)


def _width(shape: tuple[int | None, ...]) -> int:
    return (shape[0] if len(shape) == 3 else shape[-1]) or 0
