"""The kind of a folder of ``discover``, by its file names and small JSON files; no other file is read.

Which file decides, the first that is there: ``adapter_config.json`` (an adapter: its base decides the rest),
``modules.json`` (sentence-transformers), ``config.json`` with ``architecture`` and no ``model_type`` (timm), else
``config.json`` (transformers). `lfm_tasks.sources.checkpoints.folder` looks at the rest once the model is opened.
"""

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from lfm_tasks.catalog.checkpoints import Loader

Reads = Literal["texts", "images", "sound"]
_MAX_BYTES = 1 << 24
# Files from which a tokenizer is built: a checkpoint of texts has one of these.
VOCABULARIES = (
    "tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model",
    "sentencepiece.model", "spm.model", "vocab.model", "tekken.json",
)  # fmt: skip
# A folder with one of these reads texts, even if its vocabulary is missing, which is reported when it is opened.
_OF_TEXTS = frozenset({*VOCABULARIES, "tokenizer_config.json"})
_PROCESSORS = ("preprocessor_config.json", "processor_config.json")
# Names of keys that only networks of images have.
_IMAGE_KEYS = frozenset({"image_size", "patch_size", "num_channels"})
_OTHER_WEIGHTS = (".safetensors", ".safetensors.index.json", ".bin", ".pt", ".pth")
_MODEL_FILES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf", ".onnx", ".npz", ".npy")


@dataclass(frozen=True)
class FolderKind:
    """The kind of a checkpoint's folder: the sections that can take it, the best first, and the inputs that it reads.

    ``reads`` is empty where no file tells. ``has_towers``: it holds several networks, of which one has to be chosen.
    """

    loaders: tuple[Loader, ...]
    reads: tuple[Reads, ...] = ()
    has_towers: bool = False


@dataclass(frozen=True)
class NoCheckpoint:
    """Why a folder is no checkpoint, in words; ``looks_like_model`` if it holds weights or a damaged description."""

    reason: str
    looks_like_model: bool = False


def folder_kind(folder: Path, base: Path | None = None) -> FolderKind | NoCheckpoint:
    """Return the kind of ``folder``; its content never raises.

    Parameters
    ----------
    folder
        What ``{model}`` stands for in a pattern.
    base
        The folder of an adapter's base, where the catalog names one.
    """
    try:
        names = frozenset(os.listdir(folder))
        if "adapter_config.json" in names:
            return _adapter(folder, names, base)
        if "config.json" not in names and "modules.json" not in names:
            return _no_checkpoint(names)
        if "model.onnx" in names and not any(name.endswith(_OTHER_WEIGHTS) for name in names):
            return NoCheckpoint("its weights are in model.onnx, which a section onnx runs", looks_like_model=True)
        config = _read(folder / "config.json") if "config.json" in names else {}
        if "modules.json" in names:
            inner: tuple[Loader, ...] = ("transformers",) if "model_type" in config else ()
            return FolderKind(("sentence_transformers", *inner), _reads(folder, names, config) or ("texts",))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:120]
        return NoCheckpoint(f"its description cannot be read ({reason})", looks_like_model=True)
    if "model_type" not in config:
        if "architecture" in config:
            return FolderKind(("timm",), ("images",))
        return NoCheckpoint("its config.json has neither model_type nor architecture", looks_like_model=True)
    has_towers = config.get("is_encoder_decoder") is True or {"text_config", "vision_config"} <= config.keys()
    return FolderKind(("transformers",), _reads(folder, names, config), has_towers)


def _adapter(folder: Path, names: Collection[str], base: Path | None) -> FolderKind | NoCheckpoint:
    written = _read(folder / "adapter_config.json").get("base_model_name_or_path")
    name = PurePosixPath(str(written).replace("\\", "/")).name
    beside = [folder / name, folder.parent / name] if name not in ("", "..") else []
    for candidate in [base] if base is not None else beside:
        if candidate != folder and (candidate / "config.json").is_file():
            kind = folder_kind(candidate)
            if isinstance(kind, FolderKind):
                return FolderKind(("transformers",), _reads(folder, names, {}) or kind.reads, kind.has_towers)
    # Without its base it is reported as a model that cannot be opened, by the first section of its own inputs.
    return FolderKind(("transformers",), _reads(folder, names, {}))


def _reads(folder: Path, names: Collection[str], config: Mapping[str, Any]) -> tuple[Reads, ...]:
    reads: list[Reads] = ["texts"] if _OF_TEXTS & set(names) else []
    for file in _PROCESSORS:
        settings = _read(folder / file) if file in names else {}
        nested = [value for value in settings.values() if isinstance(value, dict)]
        if any("sampling_rate" in part for part in (settings, *nested)):
            reads.append("sound")
        elif any(key.startswith("image_") or key == "do_resize" for part in (settings, *nested) for key in part):
            reads.append("images")
    if not reads:
        reads = ["images"] if _IMAGE_KEYS & config.keys() else ["texts"] if "vocab_size" in config else []
    return tuple(dict.fromkeys(reads))


def _no_checkpoint(names: Collection[str]) -> NoCheckpoint:
    files = sorted(name for name in names if name.endswith(_MODEL_FILES))
    looked_for = "config.json, modules.json or adapter_config.json"
    if not names:
        return NoCheckpoint(f"it is empty, without {looked_for}")
    if files:
        return NoCheckpoint(f"it holds {files[0]}, and no {looked_for}", looks_like_model=True)
    return NoCheckpoint(f"it holds no {looked_for}")


def _read(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise ValueError(f"{path.name}: got more than {_MAX_BYTES >> 20} MiB, expected a description")
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name}: got no JSON") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path.name}: got a JSON {type(value).__name__}, expected an object")
    return value
