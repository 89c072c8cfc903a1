"""The size of a checkpoint's weights, by the headers of its .safetensors files; the tensors are not read."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path, PurePath

from lfm_tasks.errors import DataError
from lfm_tasks.sources.files.descriptions import read_json
from lfm_tasks.sources.files.paths import readable
from lfm_tasks.sources.files.safetensors_files import StoredTensor, read_header

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
# Formats that hold code (pickle), or that another library writes.
_OTHER_WEIGHTS = (".bin", ".pth", ".pt", ".ckpt", ".h5", ".msgpack", ".gguf", ".onnx")
_INTEGERS = ("I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL")
# How the tensors of the tower begin that does not run; a decoder of two runs beside its encoder.
_OTHER_TOWER = {"text": "vision", "vision": "text", "encoder": "decoder"}
_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class StoredWeights:
    """The tensors of a checkpoint by name, and the files that hold them (the index among them)."""

    files: tuple[Path, ...]
    tensors: Mapping[str, StoredTensor]

    @property
    def n_bytes(self) -> int:
        """Bytes of all tensors as they are stored."""
        return sum(tensor.n_bytes for tensor in self.tensors.values())

    @property
    def parameters(self) -> int:
        """How many numbers the tensors hold."""
        return sum(prod(tensor.shape) for tensor in self.tensors.values())

    def multiplied(self, n_words: object, tower: str | None) -> int:
        """Return how many parameters every token is multiplied with: not the vocabulary's, nor another tower's.

        ``n_words`` is the size of the vocabulary, which its table has as the first length.
        """
        other = _OTHER_TOWER.get(tower or "")
        return sum(
            prod(tensor.shape)
            for name, tensor in self.tensors.items()
            if not (len(tensor.shape) == 2 and tensor.shape[0] == n_words)
            and (other is None or not name.removeprefix("model.").startswith(other))
        )

    @property
    def dtype(self) -> str:
        """The type that most of their bytes have, as torch calls it; integers count only where nothing else is."""
        by_kind: dict[str, int] = {}
        for tensor in self.tensors.values():
            by_kind[tensor.kind] = by_kind.get(tensor.kind, 0) + tensor.n_bytes
        kinds = [kind for kind in by_kind if kind not in _INTEGERS] or list(by_kind)
        kind = max(kinds, key=lambda one: (by_kind[one], one), default="F32")
        return _DTYPES.get(kind, kind.lower())


def read_weights(folder: Path, name: str, allowed: Path | None = None) -> StoredWeights:
    """Return the tensors of ``model.safetensors``, or of the shards that its index names.

    Parameters
    ----------
    folder
        Holds the files.
    name
        How messages call the folder.
    allowed
        A folder into which links may lead, beside ``folder`` itself.

    Raises
    ------
    DataError
        ``bad_weights`` if there is no .safetensors file, or the index names files outside the folder;
        ``missing_source`` for files that are absent or links out of the folder; ``damaged_source``.
    """
    if (folder / WEIGHTS).exists():
        files: tuple[Path, ...] = (folder / WEIGHTS,)
    elif (folder / INDEX).exists():
        files = (folder / INDEX, *_shards(folder, name))
    else:
        raise DataError("bad_weights", _no_weights(folder, name))
    return tensors_of(files, folder, name, allowed)


def tensors_of(files: tuple[Path, ...], folder: Path, name: str, allowed: Path | None = None) -> StoredWeights:
    """Return the tensors of some .safetensors files of ``folder``; other files are passed through."""
    tensors: dict[str, StoredTensor] = {}
    for file in files:
        check_inside(file, folder, name, allowed)
        if file.suffix == ".safetensors":
            label = f"{name}/{file.relative_to(folder).as_posix()}"
            with readable(label):
                tensors |= read_header(file, label)
    return StoredWeights(files, tensors)


def check_inside(file: Path, folder: Path, name: str, allowed: Path | None = None) -> None:
    """Raise DataError if ``file`` is absent, or a link that leads out of ``folder``, ``allowed`` and the hub's cache.

    A snapshot of the hub's cache (``models--<name>/snapshots/<commit>``) is a folder of links into ``blobs`` beside it.
    """
    label = f"{name}/{file.relative_to(folder).as_posix()}"
    if not file.exists():
        raise DataError(
            "missing_source", f"{label}: got no such file, expected one. Copy the folder again, with all its files."
        )
    homes = [folder, *([allowed] if allowed else [])]
    if folder.parent.name == "snapshots":
        homes.append(folder.parents[1] / "blobs")
    real = os.path.realpath(file)
    if not any(PurePath(real).is_relative_to(os.path.realpath(home)) for home in homes):
        problem = "got a link that leads out of the folder, expected a file inside"
        raise DataError("missing_source", f"{label}: {problem}. Copy the file into the folder.")


def _shards(folder: Path, name: str) -> list[Path]:
    label = f"{name}/{INDEX}"
    weight_map = read_json(folder / INDEX, label).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(s, str) for s in weight_map.values()):
        problem = "got no weight_map, expected the file of each tensor"
        raise DataError("bad_weights", f"{label}: {problem}. Save the model again with save_pretrained.")
    for shard in dict.fromkeys(weight_map.values()):
        if PurePath(shard).name != shard or not shard.endswith(".safetensors"):
            problem = f"got the shard {shard[:100]!r}, expected the name of a .safetensors file in this folder"
            raise DataError(
                "bad_weights", f"{label}: {problem}. Do not use this checkpoint unless you know its author."
            )
    return [folder / shard for shard in sorted(set(weight_map.values()))]


def _no_weights(folder: Path, name: str) -> str:
    others = sorted(entry.name for entry in folder.iterdir() if entry.suffix in _OTHER_WEIGHTS)
    if not others:
        return f"{name}: got no weights, expected {WEIGHTS} or {INDEX}. Copy the whole folder."
    problem = f"{name}: got {others[0]}, expected {WEIGHTS}"
    if others[0].endswith(".onnx"):
        return f"{problem}. Name the folder in a section onnx."
    if others[0].endswith((".h5", ".msgpack", ".gguf")):
        return f"{problem}. Save the model with PyTorch: save_pretrained writes {WEIGHTS}."
    convert = f"AutoModel.from_pretrained({name!r}, use_safetensors=False).save_pretrained({name!r})"
    return (
        f"{problem}: this format can hold code. If you trust its author, convert it once: "
        f'python -c "from transformers import AutoModel; {convert}"'
    )
