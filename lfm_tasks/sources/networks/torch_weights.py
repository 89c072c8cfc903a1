"""Weights of PyTorch networks: read from .safetensors files, never unpickled, and told by their digest."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from lfm_tasks.catalog.problems import did_you_mean
from lfm_tasks.reasons import ReasonError


def load_weights(module: Any, path: Path, name: str) -> str:
    """Put the tensors of the file at ``path`` into ``module``, all of them; return the file's SHA-256.

    Raises
    ------
    ReasonError
        ``bad_weights`` for another kind of file, missing or unexpected tensors, other shapes, or higher precision than
        the network has; ``missing_source`` if there is no such file, or it cannot be read.
    """
    import safetensors.torch
    from safetensors import SafetensorError

    _check_file(path, name)
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        found = safetensors.torch.load_file(path)
    except (OSError, SafetensorError) as error:
        raise ReasonError("missing_source", f"{name}: cannot be read ({str(error)[:200]}): save it again") from error
    wanted = module.state_dict()
    for key in sorted(found.keys() & wanted.keys()):
        _check_tensor(f"{name}#{key}", found[key], wanted[key])
    # safetensors knows which names are tied to one another: its files hold such a tensor once.
    try:
        missing, unexpected = safetensors.torch.load_model(module, path, strict=False)
    except Exception as error:
        said = ascii(" ".join(str(error).split())[:200])[1:-1]
        found_so = f"cannot be put into the network ({said}), needs one tensor for each of its own"
        raise ReasonError("bad_weights", f"{name}: {found_so}: load them in the factory instead") from error
    if missing or unexpected:
        raise ReasonError("bad_weights", f"{name}: {_mismatch(sorted(missing), sorted(unexpected))}")
    return sha256


def state_digest(module: Any) -> str:
    """Return the SHA-256 of all parameters and stored buffers, names, types and shapes included."""
    hasher = hashlib.sha256()
    for key, tensor in sorted(module.state_dict().items()):
        if not hasattr(tensor, "shape"):
            continue  # extra state of any kind
        hasher.update(f"{key}:{tensor.dtype}:{tuple(tensor.shape)}\n".encode())
        values = tensor.detach().cpu().contiguous()
        hasher.update(values.reshape(-1).view(_bytes()).numpy().data if values.numel() else b"")
    return hasher.hexdigest()


def _bytes() -> Any:
    import torch

    return torch.uint8


def _check_file(path: Path, name: str) -> None:
    if path.suffix != ".safetensors":
        found = f"found a {path.suffix or 'nameless'} file, needs .safetensors, which cannot hold code"
        advice = "safetensors.torch.save_model(model, 'model.safetensors') writes one"
        raise ReasonError("bad_weights", f"{name}: {found}: {advice}")
    if not path.is_file():
        present = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise ReasonError("missing_source", f"{name}: no such file{did_you_mean(path.name, present)}")


def _check_tensor(name: str, found: Any, wanted: Any) -> None:
    if found.shape != wanted.shape:
        shapes = f"found the shape {tuple(found.shape)}, needs {tuple(wanted.shape)}"
        raise ReasonError("bad_weights", f"{name}: {shapes}: check the factory's args")
    # Integers in place of floats are quantised: numbers of another scale.
    same_kind = found.dtype.is_floating_point == wanted.dtype.is_floating_point
    if not same_kind or _promoted(found.dtype, wanted.dtype) != wanted.dtype:
        types = f"found {found.dtype}, needs {wanted.dtype} or what it holds without loss"
        raise ReasonError("bad_weights", f"{name}: {types}: save it so, or let the factory build in {found.dtype}")


def _promoted(found: Any, wanted: Any) -> Any:
    import torch

    return torch.promote_types(found, wanted)


def _mismatch(missing: list[str], unexpected: list[str]) -> str:
    parts = []
    if missing:
        parts.append(f"found nothing for {len(missing)} tensors, {missing[0]!r} first")
    if unexpected:
        hint = did_you_mean(unexpected[0], missing) if missing else ""
        parts.append(f"found {len(unexpected)} tensors that the network has not, {unexpected[0]!r} first{hint}")
    return f"{'; '.join(parts)}; needs exactly the network's own: check factory, args and weights"


def as_array(tensor: Any) -> np.ndarray:
    """Return a tensor's values as numpy sees them; bfloat16, which numpy has not, as float32."""
    import torch

    values = tensor.detach().cpu()
    array: np.ndarray = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    return array
