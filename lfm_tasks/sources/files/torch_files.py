"""Reads tensors from .pt files, weights only: nothing in them is run. Needs the extra ``torch``.

A tensor inside of dicts, lists and tuples is named by the way to it: ``hidden/3`` is the fourth of the list ``hidden``.
"""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from lfm_tasks.catalog.names import did_you_mean, shorten
from lfm_tasks.errors import DataError
from lfm_tasks.sources.files.paths import Fingerprint, fingerprint, is_remote, open_bytes, refuse_pointer
from lfm_tasks.sources.files.stored_array import ReadRows, StoredArray

_MAX_DEPTH, _MAX_TENSORS = 16, 1_000_000


def open_torch(path: Path, name: str, key: str | None) -> StoredArray:
    """Return the tensor in the file, or the one called ``key``; bfloat16 comes as float32."""
    seen = fingerprint(path)
    tensors = _tensors(path, name, seen)
    if key not in tensors:
        problem = (
            "got no key, expected key: with the name of a tensor" if key is None else f"got no tensor {key[:100]!r}"
        )
        offer = did_you_mean(key or "", [known for known in tensors if known]) or ": it is a single one, remove the key"
        raise DataError("missing_source", f"{name}: {problem}{offer}")
    tensor = tensors[key]
    name = name if key is None else f"{name}#{key}"
    if str(tensor.layout) != "torch.strided" or tensor.is_quantized:
        raise DataError("wrong_dtype", f"{name}: got a sparse or quantized tensor, expected a dense one. Convert it")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        problem = f"got {tuple(tensor.shape)} values, of which the file holds a part that repeats"
        raise DataError("wrong_shape", f"{name}: {problem}, expected all of them. Save tensor.contiguous()")
    first = _to_numpy(tensor[:1] if tensor.ndim else tensor, name)

    @contextmanager
    def rows() -> Iterator[ReadRows]:
        yield lambda start, stop: _to_numpy(tensor[start:stop], name)

    return StoredArray(name, path, seen, tuple(tensor.shape), first.dtype, rows, is_read_whole=True)


def torch_keys(path: Path, name: str) -> tuple[str, ...] | None:
    """Return the names of the tensors; None for a single one."""
    tensors = _tensors(path, name, fingerprint(path))
    return None if None in tensors else tuple(str(key) for key in tensors)


def _tensors(path: Path, name: str, seen: Fingerprint) -> dict[str | None, Any]:
    """Return the tensors of a file by name; those of a local one are mapped, and kept while it stays as it was."""
    return _load(path, name) if is_remote(path) else _mapped(path, name, seen)


@lru_cache(maxsize=4)
def _mapped(path: Path, name: str, seen: Fingerprint) -> dict[str | None, Any]:
    return _load(path, name)


def _load(path: Path, name: str) -> dict[str | None, Any]:
    if not is_remote(path):
        refuse_pointer(path, name)  # also where PyTorch is missing
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
        problem = "got no tensors that can be read without running code, or a damaged file"
        raise DataError("missing_source", f"{name}: {problem}, expected saved tensors. Save them again") from error
    if isinstance(content, torch.Tensor):
        return {None: content}
    found: dict[str | None, Any] = {}
    _collect(content, "", found, torch.Tensor, 0)
    if not found:
        problem = f"got {_described(content)} and no tensor in it"
        raise DataError("wrong_dtype", f"{name}: {problem}, expected tensors, dicts or lists. Save them by torch.save")
    return found


def _collect(content: Any, way: str, found: dict[str | None, Any], tensor: type, depth: int) -> None:
    """Gather all tensors inside of dicts, lists and tuples, by the way to each."""
    if isinstance(content, tensor):
        found[way] = content
        return
    if depth > _MAX_DEPTH or len(found) > _MAX_TENSORS:
        return
    if isinstance(content, dict):
        parts = [(str(key), part) for key, part in content.items()]
    elif isinstance(content, list | tuple):
        parts = [(str(index), part) for index, part in enumerate(content)]
    else:
        return
    for key, part in parts:
        _collect(part, f"{way}/{key}" if way else key, found, tensor, depth + 1)


def _described(content: Any) -> str:
    """Return the content of a file in a few words."""
    kind = f"a {type(content).__name__}"
    if isinstance(content, dict):
        entries = [f"{shorten(str(key))} ({type(part).__name__})" for key, part in list(content.items())[:6]]
        return f"{kind} of {', '.join(entries) or 'nothing'}{' ...' if len(content) > 6 else ''}"
    if isinstance(content, list | tuple):
        kinds = sorted({type(part).__name__ for part in content})
        return f"{kind} of {len(content)} ({', '.join(kinds[:6]) or 'nothing'})"
    return kind


def _check_archive(path: Path, name: str) -> None:
    """Raise DataError for what takes memory before there is a tensor: packed members, and byte arrays of any length.

    ``weights_only`` makes byte arrays as long as the file says. The names of what is made stand in it as plain text.
    """
    advice = "expected what torch.save writes today. Save the tensors again"
    with open_bytes(path) as file:
        if not zipfile.is_zipfile(file):
            problem = "got no tensors that can be read without running code, or a file of before PyTorch 1.6"
            raise DataError("missing_source", f"{name}: {problem}, {advice}")
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise DataError("missing_source", f"{name}: got a packed archive, {advice}")
            pickles = [member for member in members if member.filename.endswith(".pkl")]
            if any(b"bytearray" in archive.read(member) for member in pickles):
                raise DataError("missing_source", f"{name}: got byte arrays, {advice}")


def _to_numpy(tensor: Any, name: str) -> np.ndarray:
    import torch

    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    try:
        return tensor.detach().numpy()
    except TypeError as error:
        raise DataError("wrong_dtype", f"{name}: got {tensor.dtype}, expected real numbers. Convert it") from error
