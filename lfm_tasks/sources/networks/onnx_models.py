"""Records activations by running an ONNX model, the same bits every time on one machine type; cuts heads off models."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped

from lfm_tasks.catalog.models import Model
from lfm_tasks.catalog.names import did_you_mean, fill_pattern, shorten
from lfm_tasks.catalog.sections import Catalog
from lfm_tasks.errors import DataError
from lfm_tasks.sources.networks.onnx_graph import (
    OnnxGraph,
    Session,
    Tensor,
    open_session,
    read_layers,
    read_onnx,
    runtime_version,
    tensors_read,
)
from lfm_tasks.sources.networks.recording import Recorder


class OnnxSource:
    """A `Source` of the layers of one ONNX model, run on ``inputs`` by onnxruntime on one CPU thread.

    Opening reads and checks the file; the network runs when batches are asked for.
    """

    def __init__(
        self,
        path: Path,
        inputs: Shaped[np.ndarray, "points ..."],
        ids: Shaped[np.ndarray, " points"],
        *,
        pool: str = "none",
        batch_size: int = 256,
    ) -> None:
        self._graph = read_layers(read_onnx(path), batch_size)
        self._recorder = Recorder(path.name, inputs, ids, pool, batch_size)
        self._check_inputs(inputs)

    @property
    def ids(self) -> Shaped[np.ndarray, " points"]:
        """Sample ids, one for each input."""
        return self._recorder.ids

    @property
    def batch_rows(self) -> int:
        """Rows that are computed together."""
        return self._recorder.batch_rows

    def layer_names(self) -> tuple[str, ...]:
        """Return all layers, as `read_layers` finds them, in the order of the graph."""
        return tuple(self._graph.layers)

    def layer_shapes(self) -> dict[str, tuple[int | None, ...]]:
        """Return the shape of one point in each layer, before pooling; None where only a run can tell."""
        return {name: layer.shape for name, layer in self._graph.layers.items()}

    def identity(self, layer: str) -> Mapping[str, str]:
        """Return what decides the values of ``layer``: model, inputs, pooling, batches, and what records it."""
        return {
            "kind": "onnx",
            "model": self._graph.file.sha256,
            "layer": self._graph.layer(layer).name,
            "onnxruntime": runtime_version(),
            **self._recorder.identity,
        }

    def batches(
        self, layers: Sequence[str], rows: Int[np.ndarray, " selected"]
    ) -> Iterator[Mapping[str, Float[np.ndarray, "batch features"]]]:
        """Yield ``rows`` of each layer, pooled; float32, or float64 where the model computes in it.

        Raises
        ------
        DataError
            ``unknown_layer``; ``wrong_shape`` if the pooling does not fit a layer, or a tensor is not a row a point;
            ``not_finite`` for NaN or infinite inputs or outputs; ``unsupported_model`` if onnxruntime stops.
        """
        names = list(dict.fromkeys(layers))
        for name in names:
            self._recorder.check_pooling(name, self._graph.layer(name).shape)
        session = open_session(self._graph.with_outputs(names), self._recorder.name)
        entry = self._graph.input
        for batch in self._recorder.batches(rows):
            values = session.run(names, {entry.name: self._recorder.input_batch(batch, entry.dtype)})
            yield {name: self._recorder.pooled(name, value, batch) for name, value in zip(names, values, strict=True)}

    def _check_inputs(self, inputs: Shaped[np.ndarray, "points ..."]) -> None:
        name, needed, shape_of_point = self._recorder.name, self._graph.input, inputs.shape[1:]
        fits = len(shape_of_point) == len(needed.shape) and all(
            wanted in (None, length) for wanted, length in zip(needed.shape, shape_of_point, strict=True)
        )
        if not fits:
            shape = ", ".join(["points", *("any" if length is None else str(length) for length in needed.shape)])
            message = f"found inputs of shape {inputs.shape}, needs ({shape})"
            raise DataError("wrong_shape", f"{name}: {message}: reshape the dataset's inputs")
        if not np.can_cast(inputs.dtype, needed.dtype, casting="same_kind"):
            message = f"found inputs of type {inputs.dtype}, needs {needed.dtype}"
            raise DataError("wrong_dtype", f"{name}: {message}: convert the dataset's inputs")


_BATCH_ROWS = 256
_RESULT = "the output of the head"


@dataclass(frozen=True)
class Head:
    """From ``layer``, as it was recorded, to ``output``."""

    layer: Tensor
    output: str
    session: Session

    def apply(self, rows: Float[np.ndarray, "points features"]) -> Float[np.ndarray, "points outputs"]:
        """Return the output for activations of the layer: recorded ones, or others carried into its space.

        Raises
        ------
        DataError
            ``wrong_shape`` for other features than the layer's, ``not_finite`` for NaN or infinite activations,
            ``unsupported_model`` if onnxruntime stops.
        """
        shape = [length for length in self.layer.shape if length is not None]
        known = len(shape) == len(self.layer.shape)
        if rows.ndim != 2 or (known and rows.shape[1] != prod(shape)):
            needed = f"(points, {prod(shape) if known else 'features'})"
            problem = f"found activations of shape {rows.shape}, needs {needed}, as {self.layer.name} was recorded"
            raise DataError("wrong_shape", f"{self.session.name}: {problem}: carry them into that space first")
        if not np.isfinite(rows).all():
            problem = "found NaN or infinite activations, needs finite numbers: mend what made them"
            raise DataError("not_finite", f"{self.session.name}: {problem}")
        shaped = np.ascontiguousarray(rows.reshape(len(rows), *shape) if known else rows, dtype=self.layer.dtype)
        parts = [
            self.session.run([_RESULT], {self.layer.name: shaped[start : start + _BATCH_ROWS]})[0]
            for start in range(0, max(1, len(shaped)), _BATCH_ROWS)
        ]
        return np.concatenate([part.reshape(len(part), prod(part.shape[1:])) for part in parts])


def cut_head(graph: OnnxGraph, layer: str, output: str | None, pool: str) -> Head:
    """Return the head of a model from ``layer``, recorded with ``pool``, to ``output`` (None: the model's only one).

    Raises
    ------
    DataError
        ``unknown_layer`` for a layer or output that is not there; ``unsupported_model`` if pooling lost what the head
        needs, or the output depends on the input by another way than through the layer.
    """
    start = graph.layer(layer)
    _check_lossless(graph, start, pool)
    end = _output(graph, start.name, output)
    nodes = list(_nodes_between(graph, start.name, end))
    return Head(start, end, open_session(_cut(graph, start, end, nodes), graph.file.name))


def _check_lossless(graph: OnnxGraph, layer: Tensor, pool: str) -> None:
    if len(layer.shape) < 2 or (pool == "flatten" and None not in layer.shape):
        return
    shape = f"({', '.join('any' if length is None else str(length) for length in layer.shape)})"
    problem = f"found points of shape {shape} in {shorten(layer.name)}, pooled by {pool}"
    advice = "set pool: flatten" if None not in layer.shape else "export it with these dimensions fixed"
    message = f"{problem}, needs a layer recorded without loss for a head: {advice}, or start at a later layer"
    raise DataError("unsupported_model", f"{graph.file.name}: {message}")


def _output(graph: OnnxGraph, layer: str, output: str | None) -> str:
    known = (*graph.file.outputs, *graph.layers)
    if output is None:
        if len(graph.file.outputs) != 1:
            problem = f"found {len(graph.file.outputs)} outputs ({', '.join(map(shorten, graph.file.outputs[:6]))})"
            advice = f"name it with head: {{layer: {layer}, output: x}}"
            raise DataError("unknown_layer", f"{graph.file.name}: {problem}, needs one: {advice}")
        return graph.file.outputs[0]
    if output not in known:
        problem = f"found no output {shorten(output)}"
        raise DataError("unknown_layer", f"{graph.file.name}: {problem}{did_you_mean(output, known)}")
    return output


def _nodes_between(graph: OnnxGraph, start: str, end: str) -> Iterator[Any]:
    """Yield the nodes that make ``end`` out of ``start``, last first; DataError if they need the input too."""
    proto = graph.file.model.graph
    wanted, nodes = {end} - {start}, []
    for node in reversed(proto.node):
        if wanted & set(node.output):
            nodes.append(node)
            wanted |= tensors_read(node) - {start}
    of_input, of_layer = {graph.input.name}, {start}  # tensors that depend on the input, on the layer
    for node in proto.node:
        read = tensors_read(node)
        of_input.update(node.output if read & of_input else ())
        of_layer.update(node.output if read & of_layer else ())
    if end not in of_layer:
        problem = f"found {shorten(end)}, which does not depend on {shorten(start)}"
        raise DataError(
            "unsupported_model", f"{graph.file.name}: {problem}: choose a layer before it, or another output"
        )
    for node in reversed(nodes):
        beside = sorted((tensors_read(node) & of_input) - of_layer)
        if beside and of_layer & set(node.output):
            problem = f"found that {shorten(end)} depends on {shorten(beside[0])} as well as on {shorten(start)}"
            message = "a head needs a layer that all ways lead through: start at a later layer, where they have met"
            raise DataError("unsupported_model", f"{graph.file.name}: {problem}, {message}")
        yield node


def _cut(graph: OnnxGraph, start: Tensor, end: str, nodes: list[Any]) -> bytes:
    """Return the bytes of a model of ``nodes`` alone."""
    import onnx
    from onnx import helper

    read = {name for node in nodes for name in tensors_read(node)}
    cut = onnx.ModelProto()
    cut.CopyFrom(graph.file.model)
    for stored in (cut.graph.initializer, cut.graph.sparse_initializer):
        kept = [tensor for tensor in stored if getattr(tensor, "values", tensor).name in read]
        del stored[:]
        stored.extend(kept)
    del cut.graph.input[:], cut.graph.node[:], cut.graph.value_info[:], cut.graph.quantization_annotation[:]
    element = helper.np_dtype_to_tensor_dtype(start.dtype)
    cut.graph.input.append(helper.make_tensor_value_info(start.name, element, ["batch", *start.shape]))
    # A name of its own: the layer may be the output itself.
    cut.graph.node.extend([*nodes, helper.make_node("Identity", [end], [_RESULT])])
    cut.graph.output.append(onnx.ValueInfoProto(name=_RESULT))
    return bytes(cut.SerializeToString())


def open_head(model_name: str, model: Model, catalog: Catalog, layer: str | None = None) -> Head:
    """Return the part of ``model`` from a layer (``layer``, or the catalog's ``head.layer``) to the output.

    Raises
    ------
    DataError
        ``missing_source`` if the model has no graph to cut or no layer is named; and as `cut_head` does.
    """
    start = layer or (model.head.layer if model.head else None)
    if model.onnx is None:
        problem = "found no onnx, needs an ONNX graph to cut: export the network"
        raise DataError("missing_source", f"model {model_name}: {problem}")
    if start is None:
        problem = "found no head, needs the layer that it starts from: add head: {layer: relu1}"
        raise DataError("missing_source", f"model {model_name}: {problem}")
    path = catalog.root / fill_pattern(model.onnx.path, model=model_name, dataset=model.onnx.dataset)
    graph = read_layers(read_onnx(path), 1)
    return cut_head(graph, start, model.head.output if model.head else None, model.onnx.pool)
