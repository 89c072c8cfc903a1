"""Finds the maps of an ONNX graph whose channels come last: convolutions take and give them first, others do not."""

from collections.abc import Mapping
from typing import Any

_TO_LAST, _TO_FIRST = [0, 2, 3, 1], [0, 3, 1, 2]
# What gives channels first whatever it reads, and what gives another order of values.
_FIRST = (
    *("Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "BatchNormalization", "InstanceNormalization"),
    *("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool", "DepthToSpace", "SpaceToDepth"),
)
_OTHER_ORDER = ("Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Einsum", "Shape", "Size")
# What gives values in the places of those that it reads.
_ONE_BY_ONE = (
    *("Add", "Sub", "Mul", "Div", "Pow", "Cast", "Clip", "Identity", "Neg", "Relu", "Sigmoid", "Tanh", "Erf", "Pad"),
)
_MAP_DIMS = 4


def channels_last(graph: Any, n_dims: Mapping[str, int]) -> frozenset[str]:
    """Return the maps, tensors (points, height, width, channels), that lie behind or before a change of this order.

    Parameters
    ----------
    graph
        An ``onnx.GraphProto``.
    n_dims
        The number of dimensions of each tensor for which it is known.
    """
    maps = {name for name, count in n_dims.items() if count == _MAP_DIMS}
    feeding: set[str] = set()  # maps with channels first, which a convolution reads
    last: set[str] = set()
    for node in reversed(graph.node):
        reads, gives = maps & set(node.input), maps & set(node.output)
        if node.op_type in _FIRST or (node.op_type in _ONE_BY_ONE and gives & feeding):
            feeding |= reads
        if (_order(node) == _TO_FIRST and gives & feeding) or (node.op_type in _ONE_BY_ONE and gives & last):
            last |= reads
    first: set[str] = set()
    for node in graph.node:
        reads, gives = maps & set(node.input), maps & set(node.output)
        keeps_order = node.op_type not in (*_FIRST, *_OTHER_ORDER)
        # Transpositions of attention heads have the same order, but no convolution before them.
        if (_order(node) == _TO_LAST and reads & first) or (keeps_order and reads & last):
            last |= gives
        elif node.op_type in _FIRST or (keeps_order and reads & first):
            first |= gives
    return frozenset(last)


def _order(node: Any) -> list[int] | None:
    """Return the order that a transposition gives the axes; None for another node."""
    if node.op_type != "Transpose":
        return None
    return next((list(attribute.ints) for attribute in node.attribute if attribute.name == "perm"), None)
