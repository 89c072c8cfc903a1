"""Reads tensors from .pt files, weights only: nothing in them is run. Needs the extra ``torch``."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lfm_tasks.catalog.names import did_you_mean
from lfm_tasks.errors import DataError
from lfm_tasks.sources.files.paths import fingerprint, is_remote, open_bytes
from lfm_tasks.sources.files.stored_array import ReadRows, StoredArray


def open_torch(path: Path, name: str, key: str | None) -> StoredArray:
    """Return the tensor in the file, or the one called ``key``; bfloat16 comes as float32."""
    seen = fingerprint(path)
    tensors = _load(path, name)
    if key not in tensors:
        problem = "needs key: to say which tensor" if key is None else f"found no tensor {key[:100]!r}"
        offer = did_you_mean(key or "", [known for known in tensors if known]) or ": it is a single one, remove the key"
        raise DataError("missing_source", f"{name}: {problem}{offer}")
    tensor = tensors[key]
    name = name if key is None else f"{name}#{key}"
    if str(tensor.layout) != "torch.strided" or tensor.is_quantized:
        raise DataError("wrong_dtype", f"{name}: found a sparse or quantized tensor, needs a dense one: convert it")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        problem = f"found {tuple(tensor.shape)} values, of which the file holds a part that repeats"
        raise DataError("wrong_shape", f"{name}: {problem}, needs all of them: save tensor.contiguous()")
    first = _to_numpy(tensor[:1] if tensor.ndim else tensor, name)

    @contextmanager
    def rows() -> Iterator[ReadRows]:
        yield lambda start, stop: _to_numpy(tensor[start:stop], name)

    return StoredArray(name, path, seen, tuple(tensor.shape), first.dtype, rows, is_read_whole=True)


def torch_keys(path: Path, name: str) -> tuple[str, ...] | None:
    """Return the names of the tensors; None for a single one."""
    tensors = _load(path, name)
    return None if None in tensors else tuple(str(key) for key in tensors)


def _load(path: Path, name: str) -> dict[str | None, Any]:
    try:
        import torch
    except ImportError as error:
        needed = "a .pt file is read by PyTorch, which is not there"
        raise DataError("missing_source", f"{name}: {needed}: pip install 'lfm-atlas[torch]'") from error
    _check_archive(path, name)
    try:
        if is_remote(path):  # PyTorch maps local files only
            with open_bytes(path) as file:
                content = torch.load(file, map_location="cpu", weights_only=True)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except OSError:
        raise
    except Exception as error:  # torch's errors have no common class
        problem = "found no tensors that can be read without running code, or a damaged file"
        raise DataError("missing_source", f"{name}: {problem}, needs torch.save of tensors: save them again") from error
    if isinstance(content, torch.Tensor):
        return {None: content}
    if isinstance(content, dict):
        return {str(key): value for key, value in content.items() if isinstance(value, torch.Tensor)}
    problem = f"found a {type(content).__name__}"
    raise DataError("wrong_dtype", f"{name}: {problem}, needs a tensor or a dict of tensors: save that")


def _check_archive(path: Path, name: str) -> None:
    """Raise DataError for what takes memory before there is a tensor: packed members, and byte arrays of any length.

    ``weights_only`` makes byte arrays as long as the file says. The names of what is made stand in it as plain text.
    """
    advice = "needs what torch.save writes today: save the tensors again"
    with open_bytes(path) as file:
        if not zipfile.is_zipfile(file):
            problem = "found no tensors that can be read without running code, or a file of before PyTorch 1.6"
            raise DataError("missing_source", f"{name}: {problem}, {advice}")
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise DataError("missing_source", f"{name}: found a packed archive, {advice}")
            pickles = [member for member in members if member.filename.endswith(".pkl")]
            if any(b"bytearray" in archive.read(member) for member in pickles):
                raise DataError("missing_source", f"{name}: found byte arrays, {advice}")


def _to_numpy(tensor: Any, name: str) -> np.ndarray:
    import torch

    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    try:
        return tensor.detach().numpy()
    except TypeError as error:
        raise DataError("wrong_dtype", f"{name}: found {tensor.dtype}, needs real numbers: convert it") from error
