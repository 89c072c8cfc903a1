"""Finds the layers of an ONNX model and turns them into outputs; runs models."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from lfm_tasks.catalog.names import check_layer_name, did_you_mean, shorten
from lfm_tasks.errors import DataError, one_line
from lfm_tasks.sources.files.digests import DigestMemory
from lfm_tasks.sources.networks.onnx_file import MAX_BYTES, OnnxFile, onnx_digest, read_onnx
from lfm_tasks.sources.networks.onnx_layouts import channels_last
from lfm_tasks.sources.networks.onnx_rows import flowing_from, mixed_tensors

# The first dimension of inputs gets a name of ours, so that shape inference tells where the batch goes; and so does
# the second one of integers, which are the tokens of a text.
_BATCH, _TOKENS = "the batch", "the tokens"
_FLOATS = (np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64))
# Part of what is remembered. Raise it when the same file has other layers.
_VERSION = "2"


@dataclass(frozen=True)
class Tensor:
    """A tensor with a row a point: its dtype, and the shape of one point; None where only a run can tell.

    ``tokens``: which of these dimensions are as long as the batch's longest text, counted from 0. ``channels_last``: of
    a map, whether its channels are its last dimension.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]
    tokens: tuple[int, ...] = ()
    channels_last: bool = False

    @property
    def is_pooled_by_tokens(self) -> bool:
        """Whether padding can be left out: (points, features), or (points, tokens, features)."""
        return self.tokens == () if len(self.shape) == 1 else len(self.shape) == 2 and self.tokens in ((), (0,))


@dataclass(frozen=True)
class OnnxGraph:
    """A model's inputs, and its layers in the order of the graph.

    ``batch``: how many points the model computes together, where that is fixed in it. ``mixed``: the layers whose rows
    do not follow from their inputs alone, with what makes them so. ``load`` reads the model.
    """

    path: Path
    sha256: str
    inputs: Mapping[str, Tensor]
    layers: Mapping[str, Tensor]
    outputs: tuple[str, ...]
    batch: int | None
    load: Callable[[], OnnxFile]
    mixed: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """How messages call the model."""
        return self.path.name

    def layer(self, name: str) -> Tensor:
        """Return the layer called ``name``; DataError ``unknown_layer`` if there is none."""
        if name in self.layers:
            return self.layers[name]
        problem = f"{self.name}: got no layer {shorten(name)}"
        if any(name in node.output for node in self.load().model.graph.node):
            advice = "That tensor is not a float (batch, ...). Choose another"
            raise DataError("unknown_layer", f"{problem}, expected a row a point. {advice}")
        raise DataError("unknown_layer", problem + did_you_mean(name, self.layers))

    def check_rows(self, name: str) -> None:
        """Raise DataError ``not_a_function`` if the rows of a layer do not follow from their inputs alone."""
        if name not in self.mixed:
            return
        what = self.mixed[name]
        layers = [layer for layer, cause in self.mixed.items() if cause == what and layer in self.layers]
        listed = ", ".join(f"'!{layer}'" for layer in layers[:6]) + (", ..." if len(layers) > 6 else "")
        problem = f"got {what}, expected rows that follow from their own inputs alone"
        mend = "" if "training" in what else "" if "batch" not in what else " set batch_size: 1,"
        advice = f"Export it for inference,{mend} or leave out what comes after it: layers: [{listed}]"
        raise DataError("not_a_function", f"{self.name}: {problem}. {advice}")

    def with_outputs(self, layers: Sequence[str]) -> tuple[bytes, Mapping[str, np.ndarray]]:
        """Return the model's bytes with ``layers`` as its outputs, and its tensors that lie in other files."""
        import onnx

        file, edited = self.load(), onnx.ModelProto()
        edited.CopyFrom(file.model)
        for layer in layers:
            edited.graph.output.append(onnx.ValueInfoProto(name=self.layer(layer).name))
        return bytes(edited.SerializeToString()), file.weights


def open_graph(path: Path, batch_size: int, memory: DigestMemory | None = None) -> OnnxGraph:
    """Return the inputs and layers of the model at ``path``: from ``memory``, if it is as it was; see `read_layers`."""
    if memory is None:
        return read_layers(read_onnx(path), batch_size)
    key = f"onnx {_VERSION} {onnx_digest(path, memory)} {batch_size}"
    known = memory.recall(key)
    if known is None:
        graph = read_layers(read_onnx(path, memory), batch_size)
        memory.remember(key, _as_facts(graph))
        return graph
    return _from_facts(known, path, memory)


def read_layers(file: OnnxFile, batch_size: int) -> OnnxGraph:
    """Return the inputs and the layers of a model.

    A layer is what a node of the main graph puts out and depends on the inputs; it is float16, float32 or float64, has
    two dimensions or more, and the first is the batch, or one that only a run can tell (then the run checks it).

    Raises
    ------
    DataError
        ``unsupported_model`` for inputs without a batch, or a tensor above `MAX_BYTES` for ``batch_size`` points;
        ``unknown_layer`` if there is nothing to record.
    """
    entries, batch = _inputs(file)
    n_rows = batch or batch_size
    types = _inferred_types(file, set(entries))
    _refuse_huge(file, types, n_rows)
    reached = [name for _, outputs in flowing_from(set(entries), file.model.graph) for name in outputs]
    last = channels_last(file.model.graph, {name: len(dims) for name, (_, dims) in types.items()})
    layers = {
        name: _tensor(name, dtype, dims, name in last)
        for name in reached
        for dtype, dims in [types.get(name, _UNKNOWN)]
        if dtype in _FLOATS and len(dims) > 1 and _is_batch(dims, batch)
    }
    if not layers:
        raise DataError("unknown_layer", f"{file.name}: got no float tensor (batch, ...), expected one to record")
    for name in layers:
        try:
            check_layer_name(name)
        except ValueError as error:
            raise DataError("unsupported_model", f"{file.name}: {error}") from error
    inputs = {name: _tensor(name, *types[name]) for name in entries}
    batches = {name: len(dims) for name, (dtype, dims) in types.items() if dtype in _FLOATS and dims[:1] == (_BATCH,)}
    mixed = mixed_tensors(file.model, batches if n_rows > 1 else {})
    mixed = {name: cause for name, cause in mixed.items() if name in layers}
    return OnnxGraph(file.path, file.sha256, inputs, layers, file.outputs, batch, lambda: file, mixed)


_Type = tuple[np.dtype[Any], tuple[int | str | None, ...]]
_UNKNOWN: _Type = (np.dtype(np.void), ())


def _inputs(file: OnnxFile) -> tuple[list[str], int | None]:
    """Return the names of a model's inputs, and the number of points that it computes together if that is fixed."""
    graph = file.model.graph
    stored = {tensor.name for tensor in graph.initializer}
    entries = [entry for entry in graph.input if entry.name not in stored]
    if not entries:
        raise DataError("unsupported_model", f"{file.name}: got 0 inputs, expected one. Export it with its input")
    fixed = {}
    for entry in entries:
        dims = entry.type.tensor_type.shape.dim
        if not dims:
            problem = f"got an input {shorten(entry.name)} without dimensions, expected (batch, ...)"
            raise DataError("unsupported_model", f"{file.name}: {problem}. Export it with its shape")
        if dims[0].HasField("dim_value"):
            fixed[entry.name] = int(dims[0].dim_value)
    if len(set(fixed.values())) > 1 or min(fixed.values(), default=1) < 1:
        problem = f"got inputs for batches of {', '.join(map(str, fixed.values()))}, expected one size"
        raise DataError("unsupported_model", f"{file.name}: {problem}. Export it with a dynamic first axis")
    return [entry.name for entry in entries], next(iter(fixed.values()), None)


def _inferred_types(file: OnnxFile, inputs: set[str]) -> dict[str, _Type]:
    """Return dtype and dimensions of every tensor of the main graph for which they are known without a run."""
    import onnx

    model = onnx.ModelProto()
    model.CopyFrom(file.model)
    del model.graph.value_info[:]  # may call the batch something else, or lie
    for entry in model.graph.input:
        if entry.name in inputs:
            tensor_type = entry.type.tensor_type
            tensor_type.shape.dim[0].dim_param = _BATCH
            is_text = tensor_type.elem_type in (onnx.TensorProto.INT64, onnx.TensorProto.INT32)
            if is_text and len(tensor_type.shape.dim) == 2 and not tensor_type.shape.dim[1].HasField("dim_value"):
                tensor_type.shape.dim[1].dim_param = _TOKENS
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError) as error:
        problem = f"got types or shapes that do not fit ({one_line(str(error))})"
        raise DataError("unsupported_model", f"{file.name}: {problem}. Export it again") from error
    types = {info.name: _type(info.type.tensor_type) for info in [*inferred.input, *inferred.value_info]}
    return {name: known for name, known in types.items() if known is not None}


def _type(tensor_type: Any) -> _Type | None:
    from onnx import TensorProto, helper

    if not tensor_type.HasField("shape") or tensor_type.elem_type == TensorProto.UNDEFINED:
        return None
    dims = (
        dim.dim_value if dim.HasField("dim_value") else (dim.dim_param if dim.dim_param in (_BATCH, _TOKENS) else None)
        for dim in tensor_type.shape.dim
    )
    return np.dtype(helper.tensor_dtype_to_np_dtype(tensor_type.elem_type)), tuple(dims)


def _is_batch(dims: Sequence[int | str | None], batch: int | None) -> bool:
    """Return whether the first of ``dims`` may be the batch: a fixed one may stand there as a number."""
    return dims[0] in (_BATCH, None) or (batch is not None and dims[0] == batch and _BATCH not in dims[1:])


def _tensor(name: str, dtype: np.dtype[Any], dims: Sequence[int | str | None], is_last: bool = False) -> Tensor:
    of_point = dims[1:]
    tokens = tuple(index for index, dim in enumerate(of_point) if dim == _TOKENS)
    return Tensor(name, dtype, tuple(map(_length, of_point)), tokens, is_last)


def _length(dim: int | str | None) -> int | None:
    return dim if isinstance(dim, int) else None


def _refuse_huge(file: OnnxFile, types: Mapping[str, _Type], batch_size: int) -> None:
    for name, (dtype, dims) in types.items():
        n_bytes = dtype.itemsize * prod(batch_size if dim == _BATCH else _length(dim) or 1 for dim in dims)
        if n_bytes > MAX_BYTES:
            problem = f"got {n_bytes:,} bytes in {shorten(name)} for {batch_size} points, expected {MAX_BYTES:,}"
            raise DataError("unsupported_model", f"{file.name}: {problem}. Export a smaller model")


def _as_facts(graph: OnnxGraph) -> dict[str, Any]:
    def tensors(found: Mapping[str, Tensor]) -> list[list[Any]]:
        return [
            [one.name, one.dtype.str, list(one.shape), list(one.tokens), one.channels_last] for one in found.values()
        ]

    return {
        "sha256": graph.sha256,
        "inputs": tensors(graph.inputs),
        "layers": tensors(graph.layers),
        "outputs": list(graph.outputs),
        "batch": graph.batch,
        "mixed": dict(graph.mixed),
    }


def _from_facts(facts: Mapping[str, Any], path: Path, memory: DigestMemory) -> OnnxGraph:
    def tensors(found: Sequence[Any]) -> dict[str, Tensor]:
        return {
            name: Tensor(name, np.dtype(dtype), tuple(shape), tuple(tokens), is_last)
            for name, dtype, shape, tokens, is_last in found
        }

    return OnnxGraph(
        path,
        facts["sha256"],
        tensors(facts["inputs"]),
        tensors(facts["layers"]),
        tuple(facts["outputs"]),
        facts["batch"],
        partial(read_onnx, path, memory),
        facts["mixed"],
    )


# --- running a model


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


def open_session(content: bytes, weights: Mapping[str, np.ndarray], name: str) -> Session:
    """Return the model in ``content``, ready to run; DataError ``unsupported_model`` if onnxruntime refuses it.

    ``weights``: the tensors of the model that lie in other files.
    """
    onnxruntime = _onnxruntime()
    options = onnxruntime.SessionOptions()
    # Fused nodes would swallow the tensors; more threads would change the order of sums.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = 4  # what goes wrong is raised
    try:
        if weights:
            values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in weights.values()]
            options.add_external_initializers(list(weights), values)
        return Session(name, onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"]))
    except Exception as error:  # onnxruntime's errors have no common class
        raise _stopped(name, "open", error) from error


def _stopped(name: str, what: str, error: Exception) -> DataError:
    problem = f"onnxruntime could not {what} it ({one_line(str(error))})"
    return DataError("unsupported_model", f"{name}: {problem}. Check that it runs, or export it again")
