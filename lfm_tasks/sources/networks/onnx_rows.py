"""Finds the nodes of an ONNX graph after which a row depends on more than its input: random or mixing ones."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from lfm_tasks.catalog.names import shorten
from lfm_tasks.sources.networks.onnx_file import protobuf_messages

_RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial")
_REDUCTIONS = ("Mean", "Sum", "SumSquare", "Max", "Min", "Prod", "L1", "L2", "LogSum", "LogSumExp")
# Operators that compute along one axis, with the axis that they take without an attribute.
_ALONG_AXIS = {"Softmax": -1, "LogSoftmax": -1, "Hardmax": -1, "LpNormalization": -1, "TopK": -1}
_DRAWS = "draws other numbers in each run"
_TRAINING = "is in training mode"
_STATISTICS = "computes over the points of a batch"


def tensors_read(node: Any) -> set[str]:
    """Return the names that a node reads: a subgraph of If, Loop or Scan reads outer tensors without listing them."""
    return {
        read
        for inner in protobuf_messages(node)
        if inner.DESCRIPTOR.name == "NodeProto"
        for read in inner.input
        if read
    }


def flowing_from(names: set[str], graph: Any) -> Iterator[tuple[Any, list[str]]]:
    """Yield the nodes that the values of ``names`` flow into, with their outputs, in graph order."""
    reached = set(names)
    for node in graph.node:
        if node.op_type in ("Shape", "Size"):
            continue
        if tensors_read(node) & reached:
            outputs = [output for output in node.output if output]
            reached.update(outputs)
            yield node, outputs


def mixed_tensors(model: Any, batches: Mapping[str, int]) -> dict[str, str]:
    """Return the tensors that are no function of the row, each with the first node that makes it one, in words.

    Parameters
    ----------
    model
        An ``onnx.ModelProto``.
    batches
        The number of dimensions of each float tensor whose first one is the batch; empty where a batch is one point.
    """
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)
    constants = _constants(model.graph)
    mixed: dict[str, str] = {}
    for node in model.graph.node:
        why = _why_mixed(node, opset, constants, batches)
        made = [output for output in node.output if output and output not in mixed]
        if why and made:
            what = f"the node {shorten(node.name or made[0])} ({node.op_type}), which {why}"
            reached = [name for _, outputs in flowing_from(set(made), model.graph) for name in outputs]
            mixed |= {name: what for name in [*made, *reached] if name not in mixed}
    return mixed


def _why_mixed(node: Any, opset: int, constants: Mapping[str, np.ndarray], batches: Mapping[str, int]) -> str:
    """Return why the rows of a node's outputs depend on more than their inputs; "" if they do not."""
    for inner in protobuf_messages(node):
        if inner.DESCRIPTOR.name != "NodeProto":
            continue
        if inner.op_type in _RANDOM:
            return _DRAWS
        if _is_training(inner, opset, constants):
            return _TRAINING
    n_dims = batches.get(node.input[0], 0) if node.input else 0
    return _STATISTICS if n_dims and 0 in _axes(node, n_dims, opset, constants) else ""


def _is_training(node: Any, opset: int, constants: Mapping[str, np.ndarray]) -> bool:
    attributes = {attribute.name: attribute for attribute in node.attribute}
    if node.op_type == "BatchNormalization":
        if opset < 7:
            return "is_test" not in attributes or attributes["is_test"].i == 0
        if opset < 14:
            return sum(bool(output) for output in node.output) > 1
        return "training_mode" in attributes and attributes["training_mode"].i != 0
    if node.op_type == "Dropout":
        if opset < 7:
            return "is_test" not in attributes or attributes["is_test"].i == 0
        if opset < 12 or len(node.input) < 3 or node.input[2] not in constants:
            return False
        ratio = constants.get(node.input[1], np.array(0.5)) if node.input[1] else np.array(0.5)
        return bool(constants[node.input[2]].any()) and bool(ratio.any())
    return False


def _axes(node: Any, n_dims: int, opset: int, constants: Mapping[str, np.ndarray]) -> set[int]:
    """Return the axes that a node computes over, counted from the first; empty for operators that keep points apart."""
    attributes = {attribute.name: attribute for attribute in node.attribute}
    kind = node.op_type
    if kind == "DynamicQuantizeLinear":
        return set(range(n_dims))
    if kind == "MeanVarianceNormalization":
        axes = list(attributes["axes"].ints) if "axes" in attributes else [0, 2, 3]
    elif kind in _ALONG_AXIS:
        default = 1 if opset < 13 and kind != "LpNormalization" else _ALONG_AXIS[kind]
        axes = [attributes["axis"].i if "axis" in attributes else default]
    elif kind == "CumSum":
        axes = constants.get(node.input[1], np.array([-1])).reshape(-1).tolist()
    elif kind.startswith("Reduce") and kind[len("Reduce") :] in _REDUCTIONS:
        given = node.input[1] if len(node.input) > 1 else ""
        if "axes" in attributes:
            axes = list(attributes["axes"].ints)
        elif given:
            axes = constants.get(given, np.array([-1])).reshape(-1).tolist()
        else:
            axes = []
        keeps_all = "noop_with_empty_axes" in attributes and attributes["noop_with_empty_axes"].i
        axes = axes or ([] if keeps_all else list(range(n_dims)))
    else:
        axes = []
    return {axis % n_dims for axis in axes if -n_dims <= axis < n_dims}


def _constants(graph: Any) -> dict[str, np.ndarray]:
    """Return the small tensors that are fixed in the graph: axes, ratios and flags."""
    from onnx import TensorProto, numpy_helper

    stored = {tensor.name: tensor for tensor in graph.initializer if len(tensor.dims) < 2}
    for node in graph.node:
        if node.op_type == "Constant" and node.output:
            for attribute in node.attribute:
                if attribute.name == "value" and len(attribute.t.dims) < 2:
                    stored[node.output[0]] = attribute.t
    small = {
        name: tensor
        for name, tensor in stored.items()
        if tensor.data_location != TensorProto.EXTERNAL and (not tensor.dims or tensor.dims[0] <= 64)
    }
    constants = {}
    for name, tensor in small.items():
        with suppress(ValueError, TypeError):  # damaged: onnxruntime refuses it, if a node reads it
            constants[name] = numpy_helper.to_array(tensor)
    return constants
