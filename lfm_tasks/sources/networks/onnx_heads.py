"""Cuts the head off an ONNX model: from a recorded layer to the output, for activations of other networks, too."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from jaxtyping import Float

from lfm_tasks.catalog.models import ModelOnDataset
from lfm_tasks.catalog.names import did_you_mean, shorten
from lfm_tasks.catalog.sections import Catalog
from lfm_tasks.errors import DataError
from lfm_tasks.sources.files.digests import DigestMemory
from lfm_tasks.sources.networks.onnx_graph import OnnxGraph, Session, Tensor, open_graph, open_session
from lfm_tasks.sources.networks.onnx_models import onnx_path
from lfm_tasks.sources.networks.onnx_rows import tensors_read

_BATCH_ROWS = 256
_RESULT = "the output of the head"


@dataclass(frozen=True)
class Head:
    """From ``layer``, as it was recorded, to ``output``; ``batch``: how many rows it takes, where that is fixed."""

    layer: Tensor
    output: str
    session: Session
    batch: int | None = None

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
            problem = f"got activations of shape {rows.shape}, expected {needed}, as {self.layer.name} was recorded"
            raise DataError("wrong_shape", f"{self.session.name}: {problem}: carry them into that space first")
        if not np.isfinite(rows).all():
            problem = "got NaN or infinite activations, expected finite numbers. Correct their source"
            raise DataError("not_finite", f"{self.session.name}: {problem}")
        shaped = np.ascontiguousarray(rows.reshape(len(rows), *shape) if known else rows, dtype=self.layer.dtype)
        n_rows = self.batch or _BATCH_ROWS
        parts = [self._part(shaped[start : start + n_rows]) for start in range(0, max(1, len(shaped)), n_rows)]
        return np.concatenate([part.reshape(len(part), prod(part.shape[1:])) for part in parts])

    def _part(self, rows: np.ndarray) -> np.ndarray:
        """Return the output of one batch, which is filled up with its own rows where its size is fixed."""
        n_rows = self.batch or len(rows)
        filled = rows[np.arange(n_rows) % len(rows)] if 0 < len(rows) < n_rows else rows
        return self.session.run([_RESULT], {self.layer.name: filled})[0][: len(rows)]


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
    file = graph.load()
    nodes = list(_nodes_between(graph, file.model.graph, start.name, end))
    cut = _cut(file.model, start, end, nodes)
    kept = {tensor.name for tensor in cut.graph.initializer}
    weights = {name: values for name, values in file.weights.items() if name in kept}
    return Head(start, end, open_session(bytes(cut.SerializeToString()), weights, graph.name), graph.batch)


def _check_lossless(graph: OnnxGraph, layer: Tensor, pool: str) -> None:
    if len(layer.shape) < 2 or (pool == "flatten" and None not in layer.shape):
        return
    shape = f"({', '.join('any' if length is None else str(length) for length in layer.shape)})"
    problem = f"got points of shape {shape} in {shorten(layer.name)}, pooled by {pool}"
    advice = "Set pool: flatten" if None not in layer.shape else "Export it with these dimensions fixed"
    message = f"{problem}, expected a layer recorded without loss for a head. {advice}, or start at a later layer"
    raise DataError("unsupported_model", f"{graph.name}: {message}")


def _output(graph: OnnxGraph, layer: str, output: str | None) -> str:
    known = (*graph.outputs, *graph.layers)
    if output is None:
        if len(graph.outputs) != 1:
            problem = f"got {len(graph.outputs)} outputs ({', '.join(map(shorten, graph.outputs[:6]))})"
            advice = f"Name it with head: {{layer: {layer}, output: x}}"
            raise DataError("unknown_layer", f"{graph.name}: {problem}, expected one. {advice}")
        return graph.outputs[0]
    if output not in known:
        problem = f"got no output {shorten(output)}"
        raise DataError("unknown_layer", f"{graph.name}: {problem}{did_you_mean(output, known)}")
    return output


def _nodes_between(graph: OnnxGraph, proto: Any, start: str, end: str) -> Iterator[Any]:
    """Yield the nodes that make ``end`` out of ``start``, last first; DataError if they need the input too."""
    wanted, nodes = {end} - {start}, []
    for node in reversed(proto.node):
        if wanted & set(node.output):
            nodes.append(node)
            wanted |= tensors_read(node) - {start}
    of_input, of_layer = set(graph.inputs), {start}  # tensors that depend on the input, on the layer
    for node in proto.node:
        read = tensors_read(node)
        of_input.update(node.output if read & of_input else ())
        of_layer.update(node.output if read & of_layer else ())
    if end not in of_layer:
        problem = f"got {shorten(end)}, which does not depend on {shorten(start)}"
        raise DataError("unsupported_model", f"{graph.name}: {problem}. Choose a layer before it, or another output")
    for node in reversed(nodes):
        beside = sorted((tensors_read(node) & of_input) - of_layer)
        if beside and of_layer & set(node.output):
            problem = f"got that {shorten(end)} depends on {shorten(beside[0])} as well as on {shorten(start)}"
            message = "a head needs a layer that all ways lead through. Start at a later layer, where they have met"
            raise DataError("unsupported_model", f"{graph.name}: {problem}, {message}")
        yield node


def _cut(model: Any, start: Tensor, end: str, nodes: list[Any]) -> Any:
    """Return a model of ``nodes`` alone."""
    import onnx
    from onnx import helper

    read = {name for node in nodes for name in tensors_read(node)}
    cut = onnx.ModelProto()
    cut.CopyFrom(model)
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
    return cut


def open_head(
    model_name: str,
    model: ModelOnDataset,
    catalog: Catalog,
    layer: str | None = None,
    memory: DigestMemory | None = None,
) -> Head:
    """Return the part of ``model`` from a layer (``layer``, or the catalog's ``head.layer``) to the output.

    Parameters
    ----------
    model_name
        Name of the model in the catalog.
    model
        The model on one dataset.
    catalog
        The catalog of the model.
    layer
        Layer whose activations the head reads; None: ``head.layer`` of the catalog.
    memory
        Digests of files from earlier runs: unchanged files are not hashed again.

    Raises
    ------
    DataError
        ``missing_source`` if the model has no graph to cut or no layer is named; and as `cut_head` does.
    """
    start = layer or (model.head.layer if model.head else None)
    if model.onnx is None:
        problem = "got no onnx, expected an ONNX graph to cut. Export the network"
        raise DataError("missing_source", f"model {model_name}: {problem}")
    if start is None:
        problem = "got no head, expected the layer that it starts from. Add head: {layer: relu1}"
        raise DataError("missing_source", f"model {model_name}: {problem}")
    graph = open_graph(onnx_path(model_name, model.onnx, catalog), 1, memory)
    return cut_head(graph, start, model.head.output if model.head else None, model.onnx.pool)
