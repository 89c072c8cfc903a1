"""Graphs whose rows depend on chance or on their batch are refused, by the node, and otherwise by computing again."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from lfm_tasks.errors import DataError
from lfm_tasks.sources.networks.onnx_models import OnnxSource

N_POINTS = 12
INPUTS = np.random.default_rng(0).standard_normal((N_POINTS, 4)).astype(np.float32)
IDS = np.arange(N_POINTS).astype(str)
WEIGHT = np.random.default_rng(1).standard_normal((4, 4)).astype(np.float32)
TRUE, RATIO, NONE = np.array(True), np.array(0.5, np.float32), np.array(0, np.float32)
FIRST, LAST = np.array([0]), np.array([1])
NORM = {name: np.ones(4, np.float32) for name in ("scale", "bias", "mean", "var")}


def opened(
    folder: Path,
    nodes: Sequence[Any],
    arrays: dict[str, np.ndarray] | None = None,
    *,
    opset: int = 18,
    batch: Any = "b",
) -> OnnxSource:
    """Return a source of a model that goes on from ``linear``, and ends in ``last`` computed from ``mixed``."""
    inside = [
        helper.make_node("MatMul", ["x", "weight"], ["linear"]),
        *nodes,
        helper.make_node("MatMul", ["mixed", "weight"], ["last"]),
    ]
    stored = {"weight": WEIGHT, **(arrays or {})}
    graph = helper.make_graph(
        inside,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 4])],
        [helper.make_tensor_value_info("last", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return OnnxSource(folder / "model.onnx", INPUTS, IDS)


def node(kind: str, inputs: str, outputs: str = "mixed", **attributes: Any) -> Any:
    return helper.make_node(
        kind, inputs.split(",") if inputs else [], outputs.split(","), name="the node", **attributes
    )


def minus(name: str) -> Any:
    return helper.make_node("Sub", ["linear", name], ["mixed"])


IN_TRAINING, DRAWS, OVER_POINTS = "is in training mode", "draws other numbers", "computes over the points of a batch"
MIXING: dict[str, tuple[list[Any], dict[str, np.ndarray], int, str]] = {
    "normal": ([node("RandomNormalLike", "linear", "r"), minus("r")], {}, 18, DRAWS),
    "uniform": ([node("RandomUniformLike", "linear", "r"), minus("r")], {}, 18, DRAWS),
    "fixed shape": ([node("RandomNormal", "", "r", shape=[1, 4]), minus("r")], {}, 18, DRAWS),
    "bernoulli": ([helper.make_node("Sigmoid", ["linear"], ["p"]), node("Bernoulli", "p")], {}, 18, DRAWS),
    "dropout": ([node("Dropout", "linear,ratio,train")], {"ratio": RATIO, "train": TRUE}, 18, IN_TRAINING),
    "dropout by default": ([node("Dropout", "linear,,train")], {"train": TRUE}, 18, IN_TRAINING),
    "batch norm": (
        [node("BatchNormalization", "linear,scale,bias,mean,var", "mixed,m,v", training_mode=1)],
        NORM,
        18,
        IN_TRAINING,
    ),
    "old batch norm": (
        [node("BatchNormalization", "linear,scale,bias,mean,var", "mixed,m,v,old_m,old_v")],
        NORM,
        13,
        IN_TRAINING,
    ),
    "mean": ([node("ReduceMean", "linear,axes", "m"), minus("m")], {"axes": FIRST}, 18, OVER_POINTS),
    "mean from behind": ([node("ReduceMean", "linear", "m", axes=[-2]), minus("m")], {}, 17, OVER_POINTS),
    "maximum of all": ([node("ReduceMax", "linear", "m"), minus("m")], {}, 18, OVER_POINTS),
    "softmax": ([node("Softmax", "linear", axis=0)], {}, 18, OVER_POINTS),
    "sum so far": ([node("CumSum", "linear,axis")], {"axis": np.array(0)}, 18, OVER_POINTS),
}
APART: dict[str, tuple[list[Any], dict[str, np.ndarray], int]] = {
    "dropout without loss": ([node("Dropout", "linear,ratio,train")], {"ratio": NONE, "train": TRUE}, 18),
    "dropout for inference": ([node("Dropout", "linear,ratio")], {"ratio": RATIO}, 18),
    "dropout of old": ([node("Dropout", "linear", ratio=0.5)], {}, 10),
    "batch norm": ([node("BatchNormalization", "linear,scale,bias,mean,var")], NORM, 18),
    "mean of a row": ([node("ReduceMean", "linear,axes", "m"), minus("m")], {"axes": LAST}, 18),
    "no axes": ([node("ReduceMax", "linear", "m", noop_with_empty_axes=1), minus("m")], {}, 18),
    "softmax": ([node("Softmax", "linear", axis=-1)], {}, 18),
}


@pytest.mark.parametrize("name", MIXING)
def test_mixing_node__is_named_and_layers_before_it_are_recorded(tmp_path: Path, name: str) -> None:
    nodes, arrays, opset, why = MIXING[name]
    source = opened(tmp_path, nodes, arrays, opset=opset)
    for layer in ("mixed", "last"):
        with pytest.raises(DataError, match=rf"got the node 'the node' \(\w+\), which {why}.*'!last'") as caught:
            source.identity(layer)
        assert caught.value.reason == "not_a_function"
        with pytest.raises(DataError, match=why):
            next(iter(source.batches([layer], np.arange(N_POINTS))))
    source.identity("linear")
    (batch,) = source.batches(["linear"], np.arange(N_POINTS))
    np.testing.assert_allclose(batch["linear"], INPUTS @ WEIGHT, rtol=1e-5, atol=1e-6)


def test_mixing_node__gives_one_message_for_all_layers_after_it(tmp_path: Path) -> None:
    nodes, arrays, opset, _ = MIXING["dropout"]
    source, messages = opened(tmp_path, nodes, arrays, opset=opset), set()
    for layer in ("mixed", "last"):
        with pytest.raises(DataError) as caught:
            source.identity(layer)
        messages.add(str(caught.value))
    assert len(messages) == 1


@pytest.mark.parametrize("name", APART)
def test_node_that_keeps_points_apart__is_recorded(tmp_path: Path, name: str) -> None:
    nodes, arrays, opset = APART[name]
    source = opened(tmp_path, nodes, arrays, opset=opset)
    assert source.identity("last")
    assert len(list(source.batches(["mixed", "last"], np.arange(N_POINTS)))) == 1


def test_statistics_over_points__are_no_concern_where_a_batch_is_one_point(tmp_path: Path) -> None:
    nodes, arrays, opset, _ = MIXING["mean"]
    source = opened(tmp_path, nodes, arrays, opset=opset, batch=1)
    rows = np.concatenate([batch["mixed"] for batch in source.batches(["mixed"], np.arange(N_POINTS))])
    np.testing.assert_array_equal(rows, np.zeros((N_POINTS, 4)))


def test_what_no_node_tells__is_found_by_computing_rows_again(tmp_path: Path) -> None:
    # The mean over the batch as a product: with ones of its own length, which no rule knows.
    nodes = [
        helper.make_node("Transpose", ["linear"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["turned", "linear"], ["gram"]),
        helper.make_node("MatMul", ["linear", "gram"], ["mixed"]),
    ]
    source = opened(tmp_path, nodes)
    message = r"got other rows when 3 points were computed again in another batch \(1 of 2 layers\).*'!mixed'"
    with pytest.raises(DataError, match=message) as caught:
        list(source.batches(["linear", "mixed"], np.arange(N_POINTS)))
    assert caught.value.reason == "not_a_function"


@pytest.mark.parametrize("batch", [2, 3])
def test_what_no_node_tells__is_found_in_small_batches_too(tmp_path: Path, batch: int) -> None:
    nodes = [
        helper.make_node("Transpose", ["linear"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["turned", "linear"], ["gram"]),
        helper.make_node("MatMul", ["linear", "gram"], ["mixed"]),
    ]
    source = opened(tmp_path, nodes, batch=batch)
    with pytest.raises(DataError, match="computed again in another batch"):
        list(source.batches(["mixed"], np.arange(N_POINTS)))
