"""Maps whose channels come last are pooled over their pixels, not over their channels."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from lfm_tasks.sources.networks.onnx_models import OnnxSource

N = 6
IDS = np.arange(N).astype(str)
IMAGES = np.random.default_rng(0).standard_normal((N, 3, 5, 4)).astype(np.float32)
ARRAYS = {
    "kernel": np.random.default_rng(1).standard_normal((2, 3, 1, 1)).astype(np.float32),
    "weight": np.random.default_rng(2).standard_normal((2, 2)).astype(np.float32),
    "gamma": np.full(3, 0.5, np.float32),
}


def opened(folder: Path, nodes: list[Any], images: np.ndarray, pool: str = "mean") -> OnnxSource:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", *images.shape[1:]])],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in ARRAYS.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return OnnxSource(folder / "model.onnx", images, IDS, pool=pool)


def node(kind: str, inputs: str, output: str, **attributes: Any) -> Any:
    return helper.make_node(kind, inputs.split(","), [output], **attributes)


CONVNEXT = [
    node("Conv", "x,kernel", "conv"),
    node("Transpose", "conv", "moved", perm=[0, 2, 3, 1]),
    node("MatMul", "moved,weight", "linear"),
    node("Relu", "linear", "relu"),
    node("Transpose", "relu", "back", perm=[0, 3, 1, 2]),
    node("Add", "conv,back", "sum"),
]


@pytest.mark.parametrize("pool", ["mean", "max"])
def test_layers_between_two_changes_of_the_order__are_pooled_over_their_pixels(pool: str, tmp_path: Path) -> None:
    source = opened(tmp_path, CONVNEXT, IMAGES, pool)
    reduce = np.mean if pool == "mean" else np.max
    conv = np.einsum("nchw,dc->ndhw", IMAGES, ARRAYS["kernel"][:, :, 0, 0])
    linear = np.moveaxis(conv, 1, 3) @ ARRAYS["weight"]

    (values,) = source.batches(source.layer_names(), np.arange(N))

    for name, expected in (
        ("conv", reduce(conv, axis=(2, 3))),
        ("moved", reduce(conv, axis=(2, 3))),
        ("linear", reduce(linear, axis=(1, 2))),
        ("back", reduce(np.maximum(linear, 0), axis=(1, 2))),
    ):
        np.testing.assert_allclose(values[name], expected, rtol=1e-4, atol=1e-5, err_msg=name)
    assert source.identity("linear")["shape"] == "nhwc"
    assert not {"shape"} & source.identity("conv").keys() & source.identity("sum").keys()


def test_images_that_come_with_their_channels_last__are_maps_like_that(tmp_path: Path) -> None:
    nodes = [
        node("Mul", "x,gamma", "scaled"),
        node("Transpose", "scaled", "moved", perm=[0, 3, 1, 2]),
        node("Conv", "moved,kernel", "conv"),
    ]
    images = np.ascontiguousarray(np.moveaxis(IMAGES, 1, 3))

    (values,) = opened(tmp_path, nodes, images).batches(["scaled", "moved", "conv"], np.arange(N))

    np.testing.assert_allclose(values["scaled"], images.mean(axis=(1, 2)) / 2, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(values["moved"], values["scaled"], rtol=1e-4, atol=1e-6)
    assert values["conv"].shape == (N, 2)


def test_heads_of_attention__are_no_maps(tmp_path: Path) -> None:
    nodes = [
        node("Transpose", "x", "keys", perm=[0, 2, 3, 1]),
        node("Softmax", "keys", "last"),
    ]
    source = opened(tmp_path, nodes, IMAGES)
    (values,) = source.batches(["keys"], np.arange(N))
    np.testing.assert_allclose(values["keys"], IMAGES.mean(axis=(1, 3)), rtol=1e-4, atol=1e-6)
    assert "shape" not in source.identity("keys")
