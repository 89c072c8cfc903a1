"""Writes a network as an ONNX file: the same bytes for the same weights."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lfm_tasks.zoo.networks import Kind, Layer, Network, Weights

# Old enough for every onnxruntime of the last years.
_OPSET = 13
_IR_VERSION = 7


def onnx_bytes(network: Network, weights: Weights, facts: Mapping[str, str]) -> bytes:
    """Return ``network`` as an ONNX file: input ``pixels`` (batch, 64); every tensor is named like its layer."""
    from onnx import TensorProto, helper, numpy_helper

    arrays = dict(weights)
    nodes = []
    source = "pixels"
    for layer in network:
        nodes.append(_NODE[layer.kind](layer, source))
        source = layer.name
        if layer.kind == "image":
            arrays[f"{layer.name}.shape"] = np.array([0, *layer.image], np.int64)  # 0: the batch stays as it is
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info(source, TensorProto.FLOAT, ["batch", network[-1].n_out])],
        [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in arrays.items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION, producer_name="lfm-atlas zoo"
    )
    helper.set_model_props(model, dict(sorted(facts.items())))
    return bytes(model.SerializeToString(deterministic=True))


def _node(operator: str, layer: Layer, *inputs: str, **attributes: Any) -> Any:
    from onnx import helper

    return helper.make_node(operator, inputs, [layer.name], layer.name, **attributes)


def _weighted(operator: str, **attributes: Any) -> Callable[[Layer, str], Any]:
    return lambda layer, source: _node(
        operator, layer, source, f"{layer.name}.weight", f"{layer.name}.bias", **attributes
    )


def _plain(operator: str, **attributes: Any) -> Callable[[Layer, str], Any]:
    return lambda layer, source: _node(operator, layer, source, **attributes)


_NODE: dict[Kind, Callable[[Layer, str], Any]] = {
    "linear": _weighted("Gemm"),
    "conv": _weighted("Conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    "relu": _plain("Relu"),
    "tanh": _plain("Tanh"),
    "pool": _plain("AveragePool", kernel_shape=[2, 2], strides=[2, 2]),
    "image": lambda layer, source: _node("Reshape", layer, source, f"{layer.name}.shape"),
    "flatten": _plain("Flatten", axis=1),
}
