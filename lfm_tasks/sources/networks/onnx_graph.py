"""Finds the layers of an ONNX model, and turns them into outputs."""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from lfm_tasks.catalog.names import check_layer_name, did_you_mean, shorten
from lfm_tasks.errors import DataError

MAX_BYTES = 2**31  # of a file, which is the format's own limit, and of one tensor for one batch

# com.microsoft is built into onnxruntime, but its EPContext opens files of the model's choosing.
_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})


@dataclass(frozen=True)
class OnnxFile:
    """A model that may be run: name and SHA-256 of its file, ``onnx.ModelProto`` without outputs, and their names."""

    name: str
    sha256: str
    model: Any
    outputs: tuple[str, ...]


def read_onnx(path: Path) -> OnnxFile:
    """Return the model in the file at ``path``; nothing outside that file is opened.

    Raises
    ------
    DataError
        ``missing_source`` if there is no file, or no ONNX in it; ``unsupported_model`` for data in other files,
        operators or functions outside the ONNX standard, tensors above `MAX_BYTES`, and broken graphs.
    """
    content = _content(path)
    model = _parsed(content, path.name)
    for message in protobuf_messages(model):
        kind = message.DESCRIPTOR.name
        if kind in _REFUSED:
            _REFUSED[kind](message, path.name)
    outputs = tuple(entry.name for entry in model.graph.output)
    del model.graph.output[:]  # what a recording puts out is chosen later
    _check_rules(model, path.name)
    return OnnxFile(path.name, hashlib.sha256(content).hexdigest(), model, outputs)


def protobuf_messages(message: Any) -> Iterator[Any]:
    """Yield a protobuf message and all that it holds, at any depth: nodes of subgraphs, tensors of attributes."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in [value] if hasattr(value, "ListFields") else value:
                yield from protobuf_messages(inner)


def error_text(error: Exception) -> str:
    """Return the message of an error, printable, on one line of at most 200 characters."""
    return ascii(" ".join(str(error).split())[:200])[1:-1]


def _content(path: Path) -> bytes:
    try:
        if path.is_file():
            if path.stat().st_size > MAX_BYTES:
                raise DataError("unsupported_model", f"{path.name}: found over {MAX_BYTES:,} bytes: export it smaller")
            return path.read_bytes()
        present = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    except OSError as error:
        raise DataError("missing_source", f"{path.name}: cannot be read: {error.strerror}") from error
    raise DataError("missing_source", f"{path.name}: no such file{did_you_mean(path.name, present)}")


def _parsed(content: bytes, name: str) -> Any:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    needed = "found no ONNX model in it, needs one: export or copy it again"
    try:
        model = onnx.ModelProto.FromString(content)
    except DecodeError as error:
        raise DataError("missing_source", f"{name}: {needed}") from error
    if not (model.ir_version and model.graph.node):
        raise DataError("missing_source", f"{name}: {needed}")
    return model


def _check_tensor(tensor: Any, name: str) -> None:
    import onnx

    if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
        problem = f"found the values of {shorten(tensor.name)} in another file, needs all of them inside"
        advice = "onnx.save_model(onnx.load(...), ..., save_as_external_data=False)"
        raise DataError("unsupported_model", f"{name}: {problem}: save it with {advice}")
    _check_dims(tensor, name)


def _check_dims(tensor: Any, name: str) -> None:
    if prod(max(0, length) for length in tensor.dims) > MAX_BYTES:
        problem = f"found a tensor of shape {shorten(str(tuple(tensor.dims)))}, needs at most {MAX_BYTES:,} values"
        raise DataError("unsupported_model", f"{name}: {problem}: export a smaller model")


def _check_domain(node: Any, name: str) -> None:
    if node.domain not in _DOMAINS:
        problem = f"found an operator of the domain {shorten(node.domain)}, needs those of the ONNX standard"
        raise DataError("unsupported_model", f"{name}: {problem}: export without custom or fused operators")


def _refuse_function(_function: Any, name: str) -> None:
    problem = "found functions of its own, needs plain nodes"
    raise DataError("unsupported_model", f"{name}: {problem}: inline them with onnx.inliner.inline_local_functions")


def _refuse_training(_graphs: Any, name: str) -> None:
    problem = "found training graphs, needs the network alone"
    raise DataError("unsupported_model", f"{name}: {problem}: export it for inference")


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
        problem = f"found a graph that breaks the rules of ONNX ({error_text(error)})"
        raise DataError("unsupported_model", f"{name}: {problem}: export it again") from error


# The input's first dimension gets a name of ours, so that shape inference tells where the batch goes.
_BATCH = "the batch"
_FLOATS = (np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64))


@dataclass(frozen=True)
class Tensor:
    """A tensor with a row a point: its dtype, and the shape of one point; None where only a run can tell."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class OnnxGraph:
    """A model's one input, and its layers in the order of the graph."""

    file: OnnxFile
    input: Tensor
    layers: Mapping[str, Tensor]

    def layer(self, name: str) -> Tensor:
        """Return the layer called ``name``; DataError ``unknown_layer`` if there is none."""
        if name in self.layers:
            return self.layers[name]
        problem = f"{self.file.name}: found no layer {shorten(name)}"
        if any(name in node.output for node in self.file.model.graph.node):
            advice = "that tensor is not a float (batch, ...): choose another"
            raise DataError("unknown_layer", f"{problem}, needs a row a point: {advice}")
        raise DataError("unknown_layer", problem + did_you_mean(name, self.layers))

    def with_outputs(self, layers: Sequence[str]) -> bytes:
        """Return the model's bytes with ``layers`` as its outputs."""
        import onnx

        edited = onnx.ModelProto()
        edited.CopyFrom(self.file.model)
        for layer in layers:
            edited.graph.output.append(onnx.ValueInfoProto(name=self.layer(layer).name))
        return bytes(edited.SerializeToString())


def read_layers(file: OnnxFile, batch_size: int) -> OnnxGraph:
    """Return the input and the layers of a model.

    A layer is what a node of the main graph puts out and depends on the input; it is float16, float32 or float64, has
    two dimensions or more, and the first is the batch, or one that only a run can tell (then the run checks it).

    Raises
    ------
    DataError
        ``unsupported_model`` for several inputs, a fixed batch, or a tensor above `MAX_BYTES` for ``batch_size``
        points; ``unknown_layer`` if there is nothing to record.
    """
    entry = _only_input(file)
    types = _inferred_types(file, entry.name)
    _refuse_huge(file, types, batch_size)
    layers = {
        name: Tensor(name, dtype, tuple(map(_length, dims[1:])))
        for name in _depending_on(entry.name, file.model.graph)
        for dtype, dims in [types.get(name, _UNKNOWN)]
        if dtype in _FLOATS and len(dims) > 1 and dims[0] in (_BATCH, None)
    }
    if not layers:
        raise DataError("unknown_layer", f"{file.name}: found no float tensor (batch, ...), needs one to record")
    for name in layers:
        try:
            check_layer_name(name)
        except ValueError as error:
            raise DataError("unsupported_model", f"{file.name}: {error}") from error
    dtype, dims = types[entry.name]
    return OnnxGraph(file, Tensor(entry.name, dtype, tuple(map(_length, dims[1:]))), layers)


_Type = tuple[np.dtype[Any], tuple[int | str | None, ...]]
_UNKNOWN: _Type = (np.dtype(np.void), ())


def _only_input(file: OnnxFile) -> Any:
    graph = file.model.graph
    stored = {tensor.name for tensor in graph.initializer}
    inputs = [entry for entry in graph.input if entry.name not in stored]
    if len(inputs) != 1:
        names = ", ".join(shorten(entry.name) for entry in inputs[:6]) or "none"
        problem = f"found {len(inputs)} inputs ({names}), needs one, for the dataset's inputs"
        raise DataError("unsupported_model", f"{file.name}: {problem}: export it with the others fixed")
    entry = inputs[0]
    dims = entry.type.tensor_type.shape.dim
    if not dims:
        problem = f"found an input {shorten(entry.name)} without dimensions, needs (batch, ...)"
        raise DataError("unsupported_model", f"{file.name}: {problem}: export it with its shape")
    if dims[0].HasField("dim_value"):
        problem = f"found a batch fixed at {dims[0].dim_value}, needs a dynamic one"
        raise DataError("unsupported_model", f"{file.name}: {problem}: export it with a dynamic first axis")
    return entry


def _inferred_types(file: OnnxFile, input_name: str) -> dict[str, _Type]:
    """Return dtype and dimensions of every tensor of the main graph for which they can be told without a run."""
    import onnx

    model = onnx.ModelProto()
    model.CopyFrom(file.model)
    del model.graph.value_info[:]  # may call the batch something else, or lie
    for entry in model.graph.input:
        if entry.name == input_name:
            entry.type.tensor_type.shape.dim[0].dim_param = _BATCH
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError) as error:
        problem = f"found types or shapes that do not fit ({error_text(error)})"
        raise DataError("unsupported_model", f"{file.name}: {problem}: export it again") from error
    types = {info.name: _type(info.type.tensor_type) for info in [*inferred.input, *inferred.value_info]}
    return {name: known for name, known in types.items() if known is not None}


def _type(tensor_type: Any) -> _Type | None:
    from onnx import TensorProto, helper

    if not tensor_type.HasField("shape") or tensor_type.elem_type == TensorProto.UNDEFINED:
        return None
    dims = (
        dim.dim_value if dim.HasField("dim_value") else (_BATCH if dim.dim_param == _BATCH else None)
        for dim in tensor_type.shape.dim
    )
    return np.dtype(helper.tensor_dtype_to_np_dtype(tensor_type.elem_type)), tuple(dims)


def _length(dim: int | str | None) -> int | None:
    return dim if isinstance(dim, int) else None


def _refuse_huge(file: OnnxFile, types: Mapping[str, _Type], batch_size: int) -> None:
    for name, (dtype, dims) in types.items():
        n_bytes = dtype.itemsize * prod(batch_size if dim == _BATCH else _length(dim) or 1 for dim in dims)
        if n_bytes > MAX_BYTES:
            problem = f"found {n_bytes:,} bytes in {shorten(name)} for {batch_size} points, needs at most {MAX_BYTES:,}"
            raise DataError("unsupported_model", f"{file.name}: {problem}: export a smaller model")


def _depending_on(name: str, graph: Any) -> Iterator[str]:
    """Yield the outputs of the nodes that the values of ``name`` flow into, in graph order."""
    reached = {name}
    for node in graph.node:
        if node.op_type in ("Shape", "Size"):
            continue
        if tensors_read(node) & reached:
            outputs = [output for output in node.output if output]
            reached.update(outputs)
            yield from outputs


def tensors_read(node: Any) -> set[str]:
    """Return the names that a node reads: a subgraph of If, Loop or Scan reads outer tensors without listing them."""
    return {
        read
        for inner in protobuf_messages(node)
        if inner.DESCRIPTOR.name == "NodeProto"
        for read in inner.input
        if read
    }


def runtime_version() -> str:
    """Return the version of onnxruntime."""
    return str(_onnxruntime().__version__)


def _onnxruntime() -> Any:
    """Import onnxruntime without its telemetry, which it sets up when it is imported (and notes in the temp folder)."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    return onnxruntime


@dataclass(frozen=True)
class Session:
    """A model that is ready to run; ``name`` is how messages call it."""

    name: str
    session: Any

    def run(self, outputs: Sequence[str], feed: Mapping[str, np.ndarray]) -> Sequence[Shaped[np.ndarray, "batch ..."]]:
        """Return ``outputs``; DataError ``unsupported_model`` if onnxruntime stops."""
        try:
            values: Sequence[Shaped[np.ndarray, "batch ..."]] = self.session.run(list(outputs), dict(feed))
        except Exception as error:  # onnxruntime's errors have no common class
            raise _stopped(self.name, "run", error) from error
        return values


def open_session(content: bytes, name: str) -> Session:
    """Return the model in ``content``, ready to run; DataError ``unsupported_model`` if onnxruntime refuses it."""
    onnxruntime = _onnxruntime()
    options = onnxruntime.SessionOptions()
    # Fused nodes would swallow the tensors; more threads would change the order of sums.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = 4  # what goes wrong is raised
    try:
        return Session(name, onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"]))
    except Exception as error:  # onnxruntime's errors have no common class
        raise _stopped(name, "open", error) from error


def _stopped(name: str, what: str, error: Exception) -> DataError:
    problem = f"onnxruntime could not {what} it ({error_text(error)})"
    return DataError("unsupported_model", f"{name}: {problem}: check that it runs, or export it again")
