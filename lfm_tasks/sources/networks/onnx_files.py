"""Reads an ONNX file without running it, and refuses what is more than plain data and standard operators."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from lfm_tasks.catalog.names import shorten
from lfm_tasks.catalog.problems import did_you_mean
from lfm_tasks.reasons import ReasonError

MAX_BYTES = 2**31  # of a file, which is the format's own limit, and of one tensor for one batch

# com.microsoft is built into onnxruntime, but its EPContext opens files of the model's choosing.
_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})


@dataclass(frozen=True)
class OnnxFile:
    """A model that may be run: its file's name and SHA-256, and the ``onnx.ModelProto`` in it, without its outputs."""

    name: str
    sha256: str
    model: Any
    outputs: tuple[str, ...]


def read_onnx(path: Path) -> OnnxFile:
    """Return the model in the file at ``path``; nothing outside that file is opened.

    Raises
    ------
    ReasonError
        ``missing_source`` if there is no file, or no ONNX in it; ``unsupported_model`` for data in other files,
        operators or functions outside the ONNX standard, tensors above `MAX_BYTES`, and broken graphs.
    """
    content = _content(path)
    model = _parsed(content, path.name)
    for message in messages(model):
        kind = message.DESCRIPTOR.name
        if kind in _REFUSED:
            _REFUSED[kind](message, path.name)
    outputs = tuple(entry.name for entry in model.graph.output)
    del model.graph.output[:]  # what a recording puts out is chosen later
    _check_rules(model, path.name)
    return OnnxFile(path.name, hashlib.sha256(content).hexdigest(), model, outputs)


def messages(message: Any) -> Iterator[Any]:
    """Yield a protobuf message and all that it holds, at any depth: nodes of subgraphs, tensors of attributes."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in [value] if hasattr(value, "ListFields") else value:
                yield from messages(inner)


def brief(error: Exception) -> str:
    """Return what a library says, printable, on one line of at most 200 characters."""
    return ascii(" ".join(str(error).split())[:200])[1:-1]


def _content(path: Path) -> bytes:
    try:
        if path.is_file():
            if path.stat().st_size > MAX_BYTES:
                raise ReasonError(
                    "unsupported_model", f"{path.name}: found over {MAX_BYTES:,} bytes: export it smaller"
                )
            return path.read_bytes()
        present = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    except OSError as error:
        raise ReasonError("missing_source", f"{path.name}: cannot be read: {error.strerror}") from error
    raise ReasonError("missing_source", f"{path.name}: no such file{did_you_mean(path.name, present)}")


def _parsed(content: bytes, name: str) -> Any:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    needed = "found no ONNX model in it, needs one: export or copy it again"
    try:
        model = onnx.ModelProto.FromString(content)
    except DecodeError as error:
        raise ReasonError("missing_source", f"{name}: {needed}") from error
    if not (model.ir_version and model.graph.node):
        raise ReasonError("missing_source", f"{name}: {needed}")
    return model


def _check_tensor(tensor: Any, name: str) -> None:
    import onnx

    if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
        found = f"found the values of {shorten(tensor.name)} in another file, needs all of them inside"
        advice = "onnx.save_model(onnx.load(...), ..., save_as_external_data=False)"
        raise ReasonError("unsupported_model", f"{name}: {found}: save it with {advice}")
    _check_dims(tensor, name)


def _check_dims(tensor: Any, name: str) -> None:
    if prod(max(0, length) for length in tensor.dims) > MAX_BYTES:
        found = f"found a tensor of shape {shorten(str(tuple(tensor.dims)))}, needs at most {MAX_BYTES:,} values"
        raise ReasonError("unsupported_model", f"{name}: {found}: export a smaller model")


def _check_domain(node: Any, name: str) -> None:
    if node.domain not in _DOMAINS:
        found = f"found an operator of the domain {shorten(node.domain)}, needs those of the ONNX standard"
        raise ReasonError("unsupported_model", f"{name}: {found}: export without custom or fused operators")


def _refuse_function(_function: Any, name: str) -> None:
    found = "found functions of its own, needs plain nodes"
    raise ReasonError("unsupported_model", f"{name}: {found}: inline them with onnx.inliner.inline_local_functions")


def _refuse_training(_graphs: Any, name: str) -> None:
    found = "found training graphs, needs the network alone"
    raise ReasonError("unsupported_model", f"{name}: {found}: export it for inference")


_REFUSED = {
    "TensorProto": _check_tensor,
    "SparseTensorProto": _check_dims,
    "NodeProto": _check_domain,
    "OperatorSetIdProto": _check_domain,
    "FunctionProto": _refuse_function,
    "TrainingInfoProto": _refuse_training,
}


def _check_rules(model: Any, name: str) -> None:
    import onnx

    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError) as error:
        found = f"found a graph that breaks the rules of ONNX ({brief(error)})"
        raise ReasonError("unsupported_model", f"{name}: {found}: export it again") from error
