"""Inputs of a checkpoint, by its JSON files alone: which network runs, its tokenizer, its image processor."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lfm_tasks.catalog.checkpoint_folders import VOCABULARIES
from lfm_tasks.errors import DataError
from lfm_tasks.sources.checkpoints.requirements import check_tokenizer_code
from lfm_tasks.sources.checkpoints.weights import StoredWeights, check_inside, read_weights
from lfm_tasks.sources.files.descriptions import read_json

Reads = Literal["texts", "images"]

# All files that a tokenizer is built from; those that are there are read.
TOKENIZER_FILES = (
    *VOCABULARIES, "merges.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "chat_template.jinja", "chat_template.json", "source.spm", "target.spm", "bpe.codes",
)  # fmt: skip
_IMAGE_PROCESSOR = "preprocessor_config.json"
_PROCESSOR_FILES = (_IMAGE_PROCESSOR, "processor_config.json", "video_preprocessor_config.json")


@dataclass(frozen=True)
class Place:
    """A folder, how messages call it, and where links may lead."""

    folder: Path
    name: str
    root: Path | None

    def has(self, file: str) -> bool:
        """Return whether the folder holds a file."""
        return (self.folder / file).exists()

    def json(self, file: str) -> dict[str, Any]:
        """Return the object that a JSON file holds; DataError if it holds none, or is a link that leads out."""
        check_inside(self.folder / file, self.folder, self.name, self.root)
        return read_json(self.folder / file, f"{self.name}/{file}")

    def present(self, names: tuple[str, ...]) -> tuple[Path, ...]:
        """Return the files of these names that are there; DataError for a link that leads out."""
        found = [self.folder / one for one in names if self.has(one)]
        for file in found:
            check_inside(file, self.folder, self.name, self.root)
        return tuple(found)

    def weights(self) -> StoredWeights:
        """Return the headers of the weights."""
        return read_weights(self.folder, self.name, self.root)


def tokenizer_files(place: Place, folder: Path) -> tuple[Path, ...]:
    """Return the files of the tokenizer in ``folder``; DataError if there is none, or it is code."""
    own = folder == place.folder
    there = place if own else Place(folder, folder.name, place.root)
    if not there.present(VOCABULARIES):
        problem = f"{there.name}: got no tokenizer.json, expected the tokenizer that the model was trained with"
        advice = "Name the folder of one: tokenizer: zoo/base" if own else "Name another folder"
        raise DataError("no_processor", f"{problem}. {advice}.")
    if there.has("tokenizer_config.json"):
        check_tokenizer_code(there.json("tokenizer_config.json"), folder, there.name)
    return there.present(TOKENIZER_FILES)


def processor_files(place: Place) -> tuple[Path, ...]:
    """Return the files of the image processor; DataError if there is none."""
    if not _prepares_images(place):
        problem = f"got a model of images and no {_IMAGE_PROCESSOR}, expected the processor that prepares them"
        advice = f"Copy the file of the model that it was trained from into {place.name}"
        raise DataError("no_processor", f"{place.name}: {problem}. {advice}.")
    return place.present(_PROCESSOR_FILES)


def towers(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the networks that a transformers checkpoint holds, if there are two that can be run apart."""
    if all(isinstance(config.get(f"{one}_config"), dict) for one in ("text", "vision")):
        return "text", "vision"
    return ("encoder", "decoder") if config.get("is_encoder_decoder") is True else ()


def running_tower(place: Place, config: dict[str, Any], tower: str | None) -> tuple[dict[str, Any], Reads]:
    """Return the configuration of the network that runs, and what it reads."""
    reads: dict[str, Reads] = {"text": "texts", "vision": "images", "decoder": "texts"}
    hears = _processor_has(place, "sampling_rate")
    if not hears:
        reads["encoder"] = "images" if _prepares_images(place) else "texts"
    choices = tuple(one for one in towers(config) if one in reads)
    if tower is not None and tower not in choices:
        expected = " or ".join(choices) or "no tower, as the checkpoint holds one network"
        raise DataError("no_tower", f"{place.name}: got tower: {tower}, expected {expected}. Change tower.")
    if tower is not None:
        return tower_part(config, tower), reads[tower]
    if choices:
        problem = f"got a {config['model_type']} model, which holds several networks, expected one to run"
        listed = " or ".join(f"tower: {one} (reads {reads[one]})" for one in choices)
        raise DataError("no_tower", f"{place.name}: {problem}. Choose {listed}.")
    if hears:
        problem = "got a model that reads sound, expected one of texts or images"
        raise DataError("unsupported_model", f"{place.name}: {problem}. Record it yourself and name the activations.")
    has_tokenizer, has_processor = bool(place.present(VOCABULARIES)), _prepares_images(place)
    if has_tokenizer != has_processor:
        return config, "texts" if has_tokenizer else "images"
    return config, "texts" if "vocab_size" in config else "images"


def tower_part(config: dict[str, Any], tower: str | None) -> dict[str, Any]:
    """Return the part of a configuration that describes one of its networks."""
    keys = () if tower is None else (f"{tower}_config", tower)
    return next((config[key] for key in keys if isinstance(config.get(key), dict)), config)


def _prepares_images(place: Place) -> bool:
    """Return whether a processor of images is there: they say how to scale or resize, those of sound do not."""
    return _processor_has(place, "image_mean", "do_resize", "image_processor_type")


def _processor_has(place: Place, *keys: str) -> bool:
    """Return whether a processor's settings hold one of ``keys``, by themselves or one level below."""
    for file in _PROCESSOR_FILES[:2]:
        settings = place.json(file) if place.has(file) else {}
        parts = [settings, *(value for value in settings.values() if isinstance(value, dict))]
        if any(key in part for part in parts for key in keys):
            return True
    return False
