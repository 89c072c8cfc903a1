"""Reads an ONNX model, with the data files beside it, and refuses what is no plain network of the ONNX standard."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from lfm_tasks.catalog.names import did_you_mean, shorten
from lfm_tasks.errors import DataError, one_line
from lfm_tasks.sources.files.digests import DigestMemory, file_digest
from lfm_tasks.sources.files.paths import refuse_pointer
from lfm_tasks.variables import names_variable

MAX_BYTES = 2**31  # of a file, which is the format's own limit, and of one tensor for one batch

# com.microsoft is built into onnxruntime, but its EPContext opens files of the model's choosing.
_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})
# Smaller tensors may be shapes and axes, which shape inference reads: they are put into the model.
_INLINE_BYTES = 65_536
_FOUR_BITS = ("int4", "uint4", "float4_e2m1fn")  # two values a byte
# What exporters call the model in a folder: optimum and torch; on the hub it lies in a folder of its own.
_FILE_NAMES = ("model.onnx", "onnx/model.onnx")


@dataclass(frozen=True)
class OnnxFile:
    """A model that may be run.

    ``sha256`` covers its file and the data files beside it. ``model`` is the
    ``onnx.ModelProto`` without outputs, ``outputs`` are their names. ``weights``: the large tensors that lie in other
    files, mapped into memory.
    """

    path: Path
    sha256: str
    model: Any
    outputs: tuple[str, ...]
    weights: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """How messages call the model."""
        return self.path.name


def find_onnx(path: Path, name: str) -> Path:
    """Return the model's file: ``path``, or the one in that folder; ``name`` is how messages call it.

    Raises
    ------
    DataError
        ``missing_source`` for a folder without a model, or with several that none of the usual names tells apart.
    """
    if names_variable(f"{name}".rpartition("/")[2]) and not path.exists():
        raise DataError("missing_source", f"{name}: no such file")
    if not path.is_dir():
        return path
    usual = [path / file for file in _FILE_NAMES if (path / file).is_file()]
    found = usual[:1] or sorted(path.glob("*.onnx"))
    if len(found) == 1:
        return found[0]
    listed = ", ".join(shorten(file.name) for file in found[:6]) or "none"
    problem = f"{name}: got a folder with {len(found)} .onnx files ({listed}), expected model.onnx"
    raise DataError("missing_source", f"{problem}. Name the file, as in path: {name}/model.onnx")


def read_onnx(path: Path, memory: DigestMemory | None = None) -> OnnxFile:
    """Return the model in the file at ``path``; beside it only data files in its folder are opened.

    Raises
    ------
    DataError
        ``missing_source`` if there is no file, no ONNX in it, or no data file; ``unsupported_model`` for data outside
        the folder, operators or functions outside the ONNX standard, tensors above `MAX_BYTES`, and broken graphs.
    """
    content = _content(path)
    model = _parsed(content, path.name)
    for message in protobuf_messages(model):
        kind = message.DESCRIPTOR.name
        if kind in _REFUSED:
            _REFUSED[kind](message, path.name)
    outputs = tuple(entry.name for entry in model.graph.output)
    del model.graph.output[:]  # what a recording puts out is chosen later
    weights, files = _load_data(model, path)
    _check_rules(model, weights, path.name)
    own = hashlib.sha256(content).hexdigest() if memory is None else file_digest(path, memory)
    return OnnxFile(path, _with_data(own, files, memory), model, outputs, weights)


def onnx_digest(path: Path, memory: DigestMemory | None = None) -> str:
    """Return the SHA-256 of a model: its file's, or, with data files beside it, one that covers them all."""
    content = _content(path)
    files = {
        _data_file(tensor, path)
        for tensor in protobuf_messages(_parsed(content, path.name))
        if tensor.DESCRIPTOR.name == "TensorProto" and tensor.external_data
    }
    return _with_data(hashlib.sha256(content).hexdigest(), files, memory)


def protobuf_messages(message: Any) -> Iterator[Any]:
    """Yield a protobuf message and all that it holds, at any depth: nodes of subgraphs, tensors of attributes."""
    yield message
    for field_, value in message.ListFields():
        if field_.message_type is not None:
            for inner in [value] if hasattr(value, "ListFields") else value:
                yield from protobuf_messages(inner)


def _content(path: Path) -> bytes:
    try:
        if path.is_file():
            refuse_pointer(path, path.name)
            if path.stat().st_size > MAX_BYTES:
                raise DataError("unsupported_model", f"{path.name}: got over {MAX_BYTES:,} bytes. Export it smaller")
            return path.read_bytes()
        present = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    except OSError as error:
        raise DataError("missing_source", f"{path.name}: cannot be read: {error.strerror}") from error
    raise DataError("missing_source", f"{path.name}: no such file{did_you_mean(path.name, present)}")


def _parsed(content: bytes, name: str) -> Any:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    needed = "got no ONNX model in it, expected one. Export or copy it again"
    try:
        model = onnx.ModelProto.FromString(content)
    except DecodeError as error:
        raise DataError("damaged_source", f"{name}: {needed}") from error
    if not (model.ir_version and model.graph.node):
        raise DataError("damaged_source", f"{name}: {needed}")
    return model


def _with_data(own: str, files: set[Path], memory: DigestMemory | None) -> str:
    if not files:
        return own
    parts = [own, *(f"{file.name}:{file_digest(file, memory)}" for file in sorted(files))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


# --- tensors in other files


def _load_data(model: Any, path: Path) -> tuple[dict[str, np.ndarray], set[Path]]:
    """Put small tensors of other files into the model; return the large ones by name, and all files that were read."""
    import onnx

    initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    weights, files = dict[str, np.ndarray](), set[Path]()
    for tensor in [found for found in protobuf_messages(model) if found.DESCRIPTOR.name == "TensorProto"]:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        file = _data_file(tensor, path)
        files.add(file)
        values = _mapped(tensor, file, path.name)
        is_weight = initializers.get(tensor.name) is tensor
        if is_weight and values.dtype.kind in "fiub" and values.nbytes > _INLINE_BYTES:
            weights[tensor.name] = values
        else:
            tensor.raw_data = values.tobytes()
            tensor.data_location = onnx.TensorProto.DEFAULT
            del tensor.external_data[:]
    return weights, files


def _data_file(tensor: Any, path: Path) -> Path:
    """Return the file that holds a tensor's values; DataError if it lies outside the model's folder."""
    location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
    parts = PurePosixPath(location).parts
    file = path.parent / location
    # The hub's cache links every file of a model into one other folder.
    homes = {os_path.parent for os_path in (path.absolute().parent.resolve() / path.name, path.resolve())}
    is_inside = bool(parts) and not ({"..", "/"} & set(parts)) and "\\" not in location and "\0" not in location
    if not is_inside or not any(file.resolve().is_relative_to(home) for home in homes):
        problem = f"got the values of {shorten(tensor.name)} in {shorten(location)}, expected a file in the same folder"
        raise DataError("unsupported_model", f"{path.name}: {problem}. Export it again, or copy the file there")
    if not file.is_file():
        problem = f"got no {shorten(location)} beside it, which holds the values of {shorten(tensor.name)}"
        raise DataError("missing_source", f"{path.name}: {problem}. Copy both files")
    return file


def _mapped(tensor: Any, file: Path, name: str) -> np.ndarray:
    """Return the values of a tensor, read from ``file`` where they are used."""
    from onnx import helper

    where = {entry.key: entry.value for entry in tensor.external_data}
    shape = tuple(tensor.dims)
    try:
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
    except KeyError:
        dtype = np.dtype(object)  # a type that does not exist
    n_bytes = (prod(shape) + 1) // 2 if str(dtype) in _FOUR_BITS else dtype.itemsize * prod(shape)
    try:
        offset, length = int(where.get("offset", 0)), int(where.get("length", n_bytes))
        fits = min((0, offset, *shape)) == 0 and length == n_bytes and offset + length <= file.stat().st_size
    except (ValueError, OSError):
        fits = False
    if not fits or dtype.kind == "O":
        problem = f"got values of {shorten(tensor.name)} in {file.name} that do not fit ({dtype}, {shape})"
        raise DataError("damaged_source", f"{name}: {problem}, expected {n_bytes:,} bytes. Copy or export both again")
    if not n_bytes:
        return np.zeros(shape, dtype)
    stored = np.memmap(file, dtype=np.uint8, mode="r", offset=offset, shape=(n_bytes,))
    return stored.view(dtype.newbyteorder("<")).reshape(shape) if dtype.kind in "fiub" else stored


# --- what is refused


def _check_tensor(tensor: Any, name: str) -> None:
    import onnx

    if tensor.external_data and tensor.data_location != onnx.TensorProto.EXTERNAL:
        problem = f"got {shorten(tensor.name)} with values in another file and its own, expected one of them"
        raise DataError("unsupported_model", f"{name}: {problem}. Export it again")
    _check_dims(tensor, name)


def _check_dims(tensor: Any, name: str) -> None:
    if prod(max(0, length) for length in tensor.dims) > MAX_BYTES:
        problem = f"got a tensor of shape {shorten(str(tuple(tensor.dims)))}, expected at most {MAX_BYTES:,} values"
        raise DataError("unsupported_model", f"{name}: {problem}. Export a smaller model")


def _check_domain(node: Any, name: str) -> None:
    if node.domain not in _DOMAINS:
        problem = f"got an operator of the domain {shorten(node.domain)}, expected those of the ONNX standard"
        raise DataError("unsupported_model", f"{name}: {problem}. Export without custom or fused operators")


def _refuse_function(_function: Any, name: str) -> None:
    problem = "got functions of its own, expected plain nodes"
    raise DataError("unsupported_model", f"{name}: {problem}: inline them with onnx.inliner.inline_local_functions")


def _refuse_training(_graphs: Any, name: str) -> None:
    problem = "got training graphs, expected the network alone"
    raise DataError("unsupported_model", f"{name}: {problem}. Export it for inference")


_REFUSED = {
    "TensorProto": _check_tensor,
    "SparseTensorProto": _check_dims,
    "NodeProto": _check_domain,
    "OperatorSetIdProto": _check_domain,
    "FunctionProto": _refuse_function,
    "TrainingInfoProto": _refuse_training,
}


def _check_rules(model: Any, weights: Mapping[str, np.ndarray], name: str) -> None:
    import onnx
    from onnx import helper

    checked = model
    if weights:
        # The checker would look for the files in the working directory: for it these tensors are inputs.
        checked = onnx.ModelProto()
        checked.CopyFrom(model)
        outside = [tensor for tensor in checked.graph.initializer if tensor.name in weights]
        inside = [tensor for tensor in checked.graph.initializer if tensor.name not in weights]
        declared = {entry.name for entry in checked.graph.input}
        checked.graph.input.extend(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            for tensor in outside
            if tensor.name not in declared
        )
        del checked.graph.initializer[:]
        checked.graph.initializer.extend(inside)
    try:
        onnx.checker.check_model(checked)
    except (onnx.checker.ValidationError, ValueError) as error:
        problem = f"got a graph that breaks the rules of ONNX ({one_line(str(error))})"
        raise DataError("unsupported_model", f"{name}: {problem}. Export it again") from error
