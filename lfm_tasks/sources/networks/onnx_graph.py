"""Finds the layers of an ONNX model, and turns them into outputs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from lfm_tasks.catalog.names import check_layer_name, shorten
from lfm_tasks.catalog.problems import did_you_mean
from lfm_tasks.reasons import ReasonError
from lfm_tasks.sources.networks.onnx_files import MAX_BYTES, OnnxFile, brief, messages

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
        """Return the layer called ``name``; ReasonError ``unknown_layer`` if there is none."""
        if name in self.layers:
            return self.layers[name]
        found = f"{self.file.name}: found no layer {shorten(name)}"
        if any(name in node.output for node in self.file.model.graph.node):
            advice = "that tensor is not a float (batch, ...): choose another"
            raise ReasonError("unknown_layer", f"{found}, needs a row a point: {advice}")
        raise ReasonError("unknown_layer", found + did_you_mean(name, self.layers))

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
    ReasonError
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
        raise ReasonError("unknown_layer", f"{file.name}: found no float tensor (batch, ...), needs one to record")
    for name in layers:
        try:
            check_layer_name(name)
        except ValueError as error:
            raise ReasonError("unsupported_model", f"{file.name}: {error}") from error
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
        found = f"found {len(inputs)} inputs ({names}), needs one, for the dataset's inputs"
        raise ReasonError("unsupported_model", f"{file.name}: {found}: export it with the others fixed")
    entry = inputs[0]
    dims = entry.type.tensor_type.shape.dim
    if not dims:
        found = f"found an input {shorten(entry.name)} without dimensions, needs (batch, ...)"
        raise ReasonError("unsupported_model", f"{file.name}: {found}: export it with its shape")
    if dims[0].HasField("dim_value"):
        found = f"found a batch fixed at {dims[0].dim_value}, needs a dynamic one"
        raise ReasonError("unsupported_model", f"{file.name}: {found}: export it with a dynamic first axis")
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
        found = f"found types or shapes that do not fit ({brief(error)})"
        raise ReasonError("unsupported_model", f"{file.name}: {found}: export it again") from error
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
            found = f"found {n_bytes:,} bytes in {shorten(name)} for {batch_size} points, needs at most {MAX_BYTES:,}"
            raise ReasonError("unsupported_model", f"{file.name}: {found}: export a smaller model")


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
    return {read for inner in messages(node) if inner.DESCRIPTOR.name == "NodeProto" for read in inner.input if read}
