"""Prepares texts and images for ONNX models: by the tokenizer or the settings in the model's folder, or the catalog's.

Texts need the package tokenizers, images Pillow; neither transformers nor torch is imported.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int, UInt8

from lfm_tasks.catalog.models import Preprocess
from lfm_tasks.catalog.names import shorten
from lfm_tasks.errors import DataError
from lfm_tasks.sources.files.descriptions import (
    TOKENIZER,
    check_max_tokens,
    check_tokenizer,
    open_tokenizer,
    read_json,
    tokenizers_package,
)
from lfm_tasks.sources.files.digests import DigestMemory, file_digest
from lfm_tasks.sources.networks.inputs import InputBatch
from lfm_tasks.sources.raw_inputs import RawInputs

PROCESSOR = "preprocessor_config.json"
# Inputs that follow from a text, as exporters call them.
TEXT_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
# What tokenizers write as model_max_length where they know none.
_NO_LIMIT = 10**6
_AT_ONCE = 1024  # texts that are tokenized together to learn their lengths


def sidecar(path: Path, file: str) -> Path | None:
    """Return a file beside a model's, or beside the folder ``onnx`` that it lies in, as on the hub; None: not there."""
    folders = [path.parent, *([path.parent.parent] if path.parent.name == "onnx" else [])]
    return next((folder / file for folder in folders if (folder / file).is_file()), None)


@dataclass(frozen=True)
class TextInputs:
    """Texts as the tokens of one tokenizer, padded on the right to the longest of their batch.

    ``names`` are the inputs that the network takes; ``max_tokens`` cuts longer texts, ``n_special`` of them are the
    tokenizer's own; ``n_tokens``: all texts are padded to that many, where the network takes no other number.
    """

    name: str
    texts: RawInputs
    tokenizer_file: Path
    names: tuple[str, ...]
    max_tokens: int
    n_special: int | None = None
    n_tokens: int | None = None
    memory: DigestMemory | None = None

    @property
    def n_rows(self) -> int:
        """How many texts there are."""
        return len(self.texts)

    @property
    def has_mask(self) -> bool:
        """Whether some tokens are padding, which pooling leaves out: always."""
        return True

    @cached_property
    def identity(self) -> Mapping[str, str]:
        """Ingredients of the inputs' key: texts, tokenizer, where texts are cut, and the tokenizing library."""
        return {
            "inputs": self.texts.digest(),
            "tokenizer": file_digest(self.tokenizer_file, self.memory),
            "padding_token": str(self._padding),
            "max_tokens": str(self.max_tokens),
            "padded_to": str(self.n_tokens or "longest"),
            "tokenizers": str(tokenizers_package(self.name).__version__),
        }

    def batch(self, rows: Int[np.ndarray, " batch"]) -> InputBatch:
        """Return the tokens of these texts; DataError ``bad_inputs`` for a text without any."""
        encoded = self._tokenizer.encode_batch(list(self.texts.read(rows)))
        lengths = np.array([len(one.ids) for one in encoded])
        if not lengths.all():
            row = rows[int((lengths == 0).argmax())]
            raise DataError("bad_inputs", f"{self.name}: got a text without tokens in row {row}. Leave such rows out")
        n_tokens = self.n_tokens or int(lengths.max())
        tokens = np.full((len(rows), n_tokens), self._padding, np.int64)
        types = np.zeros((len(rows), n_tokens), np.int64)
        valid = np.arange(n_tokens) < lengths[:, None]
        for row, one in enumerate(encoded):
            tokens[row, : lengths[row]] = one.ids
            types[row, : lengths[row]] = one.type_ids
        places = np.where(valid, np.cumsum(valid, axis=1) - 1, 0).astype(np.int64)
        by_name = dict(zip(TEXT_INPUTS, (tokens, valid.astype(np.int64), types, places), strict=True))
        return InputBatch({name: by_name[name] for name in self.names}, valid)

    def lengths(
        self, rows: Int[np.ndarray, " selected"]
    ) -> tuple[Int[np.ndarray, " selected"], Bool[np.ndarray, " selected"]]:
        """Return the tokens of each text after cutting, and which texts were cut."""
        lengths, is_cut = np.zeros(len(rows), np.int64), np.zeros(len(rows), bool)
        for start in range(0, len(rows), _AT_ONCE):
            texts = list(self.texts.read(rows[start : start + _AT_ONCE]))
            for place, one in enumerate(self._tokenizer.encode_batch(texts), start):
                lengths[place], is_cut[place] = len(one.ids), bool(one.overflowing)
        return lengths, is_cut

    @cached_property
    def _tokenizer(self) -> Any:
        tokenizer = open_tokenizer(self.tokenizer_file, f"{self.name}: {TOKENIZER}")
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_length=self.max_tokens)
        return tokenizer

    @cached_property
    def _padding(self) -> int:
        """The token that fills up: the tokenizer's own, or 0, which the mask hides."""
        file = self.tokenizer_file.with_name("tokenizer_config.json")
        settings = read_json(file, f"{self.name}: {file.name}") if file.is_file() else {}
        token = settings.get("pad_token")
        token = token.get("content") if isinstance(token, dict) else token
        found = self._tokenizer.token_to_id(token) if isinstance(token, str) else None
        return int(found) if found is not None else 0


def text_inputs(
    name: str,
    texts: RawInputs,
    path: Path,
    shapes: Mapping[str, Sequence[int | None]],
    max_tokens: int | None,
    memory: DigestMemory | None,
) -> TextInputs:
    """Return the texts for the ONNX model at ``path``.

    Parameters
    ----------
    name
        How messages call the model.
    texts
        The dataset's.
    path
        The model's file; its tokenizer lies beside it.
    shapes
        The shape of one point in each input of the model.
    max_tokens
        Where texts are cut; None: where the folder says so.
    memory
        What is known of files.

    Raises
    ------
    DataError
        ``no_processor`` without a tokenizer, ``damaged_source`` for one that cannot be read, ``unsupported_model`` for
        inputs that do not follow from a text, ``missing_package`` without tokenizers, ``bad_inputs`` for ``max_tokens``
        that leave no room for words.
    """
    file = sidecar(path, TOKENIZER)
    if file is None:
        problem = f"got texts and no {TOKENIZER} beside the model, expected the tokenizer that it was trained with"
        raise DataError("no_processor", f"{name}: {problem}. Copy it there")
    strange = [entry for entry, shape in shapes.items() if entry not in TEXT_INPUTS or len(shape) != 1]
    if strange or not shapes:
        listed = ", ".join(map(shorten, strange[:6]))
        problem = f"got the inputs {listed}, which no tokenizer makes, expected {', '.join(TEXT_INPUTS)}"
        raise DataError("unsupported_model", f"{name}: {problem}. Export the encoder alone, without a cache")
    fixed = {shape[0] for shape in shapes.values() if shape[0] is not None}
    beside = (file, file.with_name("tokenizer_config.json"))
    n_special = check_tokenizer([one for one in beside if one.is_file()], name, memory or DigestMemory())
    limits = [max_tokens] if max_tokens else _limits(name, path, file)
    limits += sorted(length for length in fixed if length is not None)
    if not limits:
        problem = "got no longest text, neither in tokenizer_config.json nor in config.json, expected a number"
        raise DataError("no_processor", f"{name}: {problem}. Write max_tokens: 512")
    check_max_tokens(min(limits), n_special, name)
    return TextInputs(name, texts, file, tuple(shapes), min(limits), n_special, min(fixed, default=None), memory)


def _limits(name: str, path: Path, tokenizer_file: Path) -> list[int]:
    """Return the longest texts that the files beside a model name, in tokens."""
    described = tokenizer_file.with_name("tokenizer_config.json")
    limits = [read_json(described, f"{name}: {described.name}").get("model_max_length")] if described.is_file() else []
    if (config := sidecar(path, "config.json")) is not None:
        settings = read_json(config, f"{name}: {config.name}")
        positions = settings.get("max_position_embeddings", settings.get("n_positions"))
        # RoBERTa counts positions from the padding token on.
        offset = 2 if settings.get("model_type") in ("roberta", "xlm-roberta", "camembert", "mpnet") else 0
        limits.append(positions - offset if isinstance(positions, int) else None)
    return [int(limit) for limit in limits if isinstance(limit, int | float) and 0 < limit < _NO_LIMIT]


# --- images


@dataclass(frozen=True)
class ImageSettings:
    """How an image becomes numbers, in this order.

    ``size``: (height, width), or one number for the shorter side; ``crop``: (height, width) of the center that stays;
    values times ``scale``, minus ``mean``, over ``std`` (a number a channel). ``resample``: Pillow's number.
    """

    size: tuple[int, ...] | None
    crop: tuple[int, int] | None
    resample: int
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class ImageInputs:
    """Images as one array a batch; ``is_last``: whether channels come last."""

    name: str
    images: RawInputs
    settings: ImageSettings
    input_name: str
    is_last: bool

    @property
    def n_rows(self) -> int:
        """How many images there are."""
        return len(self.images)

    @property
    def has_mask(self) -> bool:
        """Whether some tokens are padding, which pooling leaves out: never."""
        return False

    @property
    def n_tokens(self) -> int | None:
        """How many tokens each row of a mask has: there is none."""
        return None

    @cached_property
    def identity(self) -> Mapping[str, str]:
        """Ingredients of the inputs' key: images, settings, and the resizing library."""
        from PIL import __version__ as pillow_version

        settings = json.dumps({**asdict(self.settings), "channels last": self.is_last}, sort_keys=True)
        return {"inputs": self.images.digest(), "preprocess": settings, "pillow": pillow_version}

    def batch(self, rows: Int[np.ndarray, " batch"]) -> InputBatch:
        """Return the pixels of these images; they are opened one at a time."""
        pixels = [
            prepare_image(self.images.read(rows[place : place + 1])[0], self.settings) for place in range(len(rows))
        ]
        stacked = np.stack(pixels)
        return InputBatch({self.input_name: stacked if self.is_last else np.moveaxis(stacked, 3, 1)})


def prepare_image(image: Any, settings: ImageSettings) -> Float32[np.ndarray, "height width channels"]:
    """Return an RGB image of Pillow as numbers."""
    if settings.size is not None:
        image = image.resize(_new_size(image.size, settings.size), resample=settings.resample)
    if settings.crop is not None:
        (height, width), (old_width, old_height) = settings.crop, image.size
        top, left = (old_height - height) // 2, (old_width - width) // 2
        image = image.crop((left, top, left + width, top + height))
    pixels: UInt8[np.ndarray, "height width channels"] = np.asarray(image)
    scaled = (pixels.astype(np.float64) * settings.scale).astype(np.float32)
    mean, std = np.array(settings.mean, np.float32), np.array(settings.std, np.float32)
    return (scaled - mean) / std


def _new_size(old: tuple[int, int], wanted: tuple[int, ...]) -> tuple[int, int]:
    """Return (width, height) after resizing: of one number the shorter side, the other in proportion, cut to whole."""
    if len(wanted) == 2:
        return wanted[1], wanted[0]
    width, height = old
    short, long = sorted((width, height))
    stretched = int(wanted[0] * long / short)
    return (wanted[0], stretched) if width <= height else (stretched, wanted[0])


def image_inputs(
    name: str, images: RawInputs, path: Path, inputs: Mapping[str, Sequence[int | None]], chosen: Preprocess | None
) -> ImageInputs:
    """Return the images for the ONNX model at ``path``.

    Parameters
    ----------
    name
        How messages call the model.
    images
        The dataset's.
    path
        The model's file; its processor's settings lie beside it.
    inputs
        The shape of one point in each input of the model.
    chosen
        What the catalog says in place of the folder.

    Raises
    ------
    DataError
        ``no_processor`` if neither says how images are prepared, or the file says what is not read here;
        ``unsupported_model`` for a model that does not take one batch of images.
    """
    shapes = list(inputs.values())
    if len(shapes) != 1 or len(shapes[0]) != 3:
        listed = ", ".join(f"{entry} {tuple(shape)}" for entry, shape in inputs.items())
        problem = f"got the inputs {listed}, expected one of (batch, channels, height, width)"
        raise DataError("unsupported_model", f"{name}: {problem}. Export the image encoder alone")
    file = sidecar(path, PROCESSOR)
    if chosen is not None:
        settings = _chosen_settings(chosen)
    elif file is not None:
        settings = _stored_settings(name, read_json(file, f"{name}: {PROCESSOR}"))
    else:
        problem = f"got images, and neither preprocess: nor a {PROCESSOR} beside the model, expected one of them"
        example = "preprocess: {size: 224, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}"
        raise DataError("no_processor", f"{name}: {problem}. Write {example}")
    given = chosen.layout if chosen is not None else None
    is_last = given == "nhwc" if given is not None else (shapes[0][2] == 3 and shapes[0][0] != 3)
    _check_fits(name, settings, shapes[0], is_last)
    return ImageInputs(name, images, settings, next(iter(inputs)), is_last)


def _check_fits(name: str, settings: ImageSettings, shape: Sequence[int | None], is_last: bool) -> None:
    sides = settings.crop or (settings.size if settings.size and len(settings.size) == 2 else None)
    if sides is None:
        problem = "got images of several sizes, expected one size for all"
        raise DataError(
            "no_processor", f"{name}: {problem}. Write preprocess: {{size: [224, 224], mean: ..., std: ...}}"
        )
    made = (*sides, 3) if is_last else (3, *sides)
    if any(wanted is not None and wanted != length for wanted, length in zip(shape, made, strict=True)):
        problem = f"got images of {made} after preprocessing, expected {tuple(shape)}"
        raise DataError("wrong_shape", f"{name}: {problem}. Set size or layout under preprocess")


def _chosen_settings(chosen: Preprocess) -> ImageSettings:
    size: tuple[int, ...]
    if isinstance(chosen.size, tuple):
        size = chosen.size
    else:
        size = (chosen.size,) if chosen.crop is not None else (chosen.size, chosen.size)
    crop = None if chosen.crop is None else (chosen.crop, chosen.crop)
    return ImageSettings(size, crop, _FILTERS[chosen.resample], 1 / 255, chosen.mean, chosen.std)


# https://pillow.readthedocs.io/en/stable/reference/Image.html#PIL.Image.Resampling
_FILTERS = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3}
# Keys of a processor that say nothing about pixels, or only what is always done here.
_IGNORED = (
    "do_convert_rgb", "do_resize", "do_center_crop", "do_rescale", "do_normalize", "size", "crop_size", "resample",
    "rescale_factor", "image_mean", "image_std", "image_processor_type", "feature_extractor_type", "processor_class",
    "data_format", "input_data_format", "return_tensors", "device", "disable_grouping", "default_to_square",
    "_valid_processor_keys",
)  # fmt: skip


def _stored_settings(name: str, stored: Mapping[str, Any]) -> ImageSettings:
    """Return the settings in a ``preprocessor_config.json``; DataError ``no_processor`` for unsupported steps."""
    strange = sorted(key for key, value in stored.items() if key not in _IGNORED and value not in (None, False))
    try:
        crop = _sides(stored["crop_size"]) if stored.get("do_center_crop", False) else None
        size: tuple[int, ...] | None = _sides(stored["size"]) if stored.get("do_resize", True) else None
        if isinstance(stored.get("size"), int) and crop is not None:
            size = (stored["size"],)  # of older files: the shorter side
        channels = 3
        is_normalized = stored.get("do_normalize", True)
        mean = tuple(map(float, stored["image_mean"])) if is_normalized else (0.0,) * channels
        std = tuple(map(float, stored["image_std"])) if is_normalized else (1.0,) * channels
        scale = float(stored.get("rescale_factor", 1 / 255)) if stored.get("do_rescale", True) else 1.0
        resample = int(stored.get("resample", _FILTERS["bilinear"]))
        understood = not strange and len(mean) == len(std) == channels and resample in range(6)
        if crop is not None and len(crop) == 1:
            crop = (crop[0], crop[0])
    except (KeyError, TypeError, ValueError):
        understood = False
    if not understood:
        listed = f" ({', '.join(strange[:4])})" if strange else ""
        problem = f"got a {PROCESSOR} with steps that are not done for ONNX models{listed}"
        example = "preprocess: {size: 224, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}"
        raise DataError(
            "no_processor", f"{name}: {problem}, expected resize, crop, rescale, normalize. Write {example}"
        )
    return ImageSettings(size, crop if crop is None else (crop[0], crop[1]), resample, scale, mean, std)


def _sides(size: Any) -> tuple[int, ...]:
    """Return (height, width), or the shorter side, from the forms that processors write."""
    if isinstance(size, dict):
        return (int(size["shortest_edge"]),) if "shortest_edge" in size else (int(size["height"]), int(size["width"]))
    return (int(size), int(size)) if isinstance(size, int) else tuple(map(int, size))
