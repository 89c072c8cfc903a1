"""What is recorded from ONNX models, and what is refused before anything runs."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lfm_tasks.errors import DataError
from lfm_tasks.sources.networks.onnx_models import OnnxSource

N_POINTS = 10
INPUTS = np.random.default_rng(0).standard_normal((N_POINTS, 4)).astype(np.float32)
IDS = np.array([f"point-{index}" for index in range(N_POINTS)])
WEIGHT = np.random.default_rng(1).standard_normal((4, 3)).astype(np.float32)


def model(
    nodes: Sequence[Any],
    arrays: dict[str, np.ndarray] | None = None,
    dims: Sequence[Any] = ("batch", 4),
    **options: Any,
) -> Any:
    """Return a model with the input ``x`` whose last node puts out its output."""
    dtype = options.pop("dtype", TensorProto.FLOAT)
    extra = options.pop("extra_inputs", [])
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", dtype, dims), *extra],
        [helper.make_tensor_value_info(nodes[-1].output[0], options.pop("out_dtype", dtype), None)],
        [numpy_helper.from_array(array, name) for name, array in (arrays or {}).items()],
    )
    opsets = [helper.make_opsetid("", 13), *options.pop("opsets", [])]
    return helper.make_model(graph, opset_imports=opsets, ir_version=7, **options)


def two_layers() -> Any:
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["linear"]),
        helper.make_node("Relu", ["linear"], ["relu"]),
        helper.make_node("ReduceSum", ["relu", "axis"], ["sum"], keepdims=1),
    ]
    return model(nodes, {"weight": WEIGHT, "axis": np.array([1])})


def saved(built: Any, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(built.SerializeToString())
    return path


def opened(built: Any, folder: Path, inputs: np.ndarray = INPUTS, **options: Any) -> OnnxSource:
    return OnnxSource(saved(built, folder), inputs, np.arange(len(inputs)).astype(str), **options)


def reshaped(shape: Sequence[int], dims: Sequence[Any] = ("batch", 4)) -> Any:
    return model([helper.make_node("Reshape", ["x", "shape"], ["maps"])], {"shape": np.array(shape)}, dims)


def recorded(source: OnnxSource, layer: str, rows: Sequence[int] | None = None) -> np.ndarray:
    chosen = np.arange(len(source.ids)) if rows is None else np.array(rows)
    return np.concatenate([batch[layer] for batch in source.batches([layer], chosen)])


def refusal(act: Callable[[], object], reason: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        act()
    assert caught.value.reason == reason


# --- what is recorded


def test_onnx_source__records_hidden_tensors_in_graph_order(tmp_path: Path) -> None:
    source = OnnxSource(saved(two_layers(), tmp_path), INPUTS, IDS)
    assert source.layer_names() == ("linear", "relu", "sum")
    assert source.layer_shapes() == {"linear": (3,), "relu": (3,), "sum": (1,)}
    np.testing.assert_array_equal(source.ids, IDS)
    np.testing.assert_allclose(recorded(source, "linear"), INPUTS @ WEIGHT, rtol=1e-5, atol=1e-6)
    assert recorded(source, "relu").dtype == np.float32


def test_onnx_source__gives_the_rows_asked_for_in_their_order(tmp_path: Path) -> None:
    source = OnnxSource(saved(two_layers(), tmp_path), INPUTS, IDS)
    rows = [7, 0, 7, 3]
    np.testing.assert_allclose(recorded(source, "linear", rows), (INPUTS @ WEIGHT)[rows], rtol=1e-5, atol=1e-6)


def test_onnx_source__batches_end_where_they_should(tmp_path: Path) -> None:
    source = OnnxSource(saved(two_layers(), tmp_path), INPUTS, IDS, batch_size=4)
    batches = list(source.batches(["relu", "linear"], np.arange(9)))
    assert [len(batch["relu"]) for batch in batches] == [4, 4, 1]
    assert list(batches[0]) == ["relu", "linear"]
    assert list(source.batches(["relu"], np.arange(0))) == []


def test_onnx_source__two_openings_give_the_same_bits(tmp_path: Path) -> None:
    path = saved(two_layers(), tmp_path)
    first, second = (recorded(OnnxSource(path, INPUTS, IDS), "relu") for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_onnx_source__a_layer_alone_has_the_bits_it_has_among_others(tmp_path: Path) -> None:
    source = OnnxSource(saved(two_layers(), tmp_path), INPUTS, IDS)
    (together,) = source.batches(["sum", "relu", "linear"], np.arange(N_POINTS))
    assert recorded(source, "relu").tobytes() == together["relu"].tobytes()


def test_onnx_source__shuffled_with_their_ids_rows_keep_their_bits(tmp_path: Path) -> None:
    path, order = saved(two_layers(), tmp_path), np.random.default_rng(2).permutation(N_POINTS)
    straight, shuffled = OnnxSource(path, INPUTS, IDS), OnnxSource(path, INPUTS[order], IDS[order])
    by_id = [recorded(source, "relu", np.argsort(source.ids).tolist()) for source in (straight, shuffled)]
    assert by_id[0].tobytes() == by_id[1].tobytes()


def test_onnx_source__a_graph_named_after_other_batches_still_has_layers(tmp_path: Path) -> None:
    built = two_layers()
    built.graph.value_info.append(helper.make_tensor_value_info("relu", TensorProto.FLOAT, [1, 3]))
    assert "relu" in opened(built, tmp_path).layer_names()


def test_onnx_source__leaves_out_what_is_no_layer(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Identity", ["weight"], ["constant"]),
        helper.make_node("Cast", ["x"], ["integers"], to=TensorProto.INT64),
        helper.make_node("Transpose", ["x"], ["turned"], perm=[1, 0]),
        helper.make_node("ReduceSum", ["x", "axis"], ["one_number"], keepdims=0),
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Relu", ["x"], ["relu"]),
    ]
    source = opened(model(nodes, {"weight": WEIGHT, "axis": np.array([1])}), tmp_path)
    assert source.layer_names() == ("relu",)
    refusal(lambda: source.identity("turned"), "unknown_layer", "got no layer 'turned', expected a row a point")


def test_onnx_source__an_unknown_first_dimension_is_checked_when_it_runs(tmp_path: Path) -> None:
    source = opened(reshaped([-1, 2]), tmp_path)
    assert source.layer_shapes() == {"maps": (2,)}
    refusal(
        lambda: recorded(source, "maps"), "wrong_shape", r"maps: got \(20, 2\) for 10 points, expected a row a point"
    )


# --- pooling


@pytest.mark.parametrize(
    ("pool", "expected"),
    [
        ("flatten", lambda maps: maps.reshape(N_POINTS, -1)),
        ("mean", lambda maps: maps.mean(axis=(2, 3))),
        ("max", lambda maps: maps.max(axis=(2, 3))),
    ],
)
def test_onnx_source__pools_feature_maps(tmp_path: Path, pool: str, expected: Callable[..., np.ndarray]) -> None:
    inputs = np.random.default_rng(3).standard_normal((N_POINTS, 8)).astype(np.float32)
    source = opened(reshaped([0, 2, 2, 2], ("batch", 8)), tmp_path, inputs, pool=pool)
    assert source.layer_shapes() == {"maps": (2, 2, 2)}
    np.testing.assert_allclose(recorded(source, "maps"), expected(inputs.reshape(-1, 2, 2, 2)), rtol=1e-6)


@pytest.mark.parametrize(
    ("pool", "expected"),
    [
        ("mean", lambda tokens: tokens.mean(axis=1)),
        ("max", lambda tokens: tokens.max(axis=1)),
        ("cls", lambda tokens: tokens[:, 0]),
        ("last", lambda tokens: tokens[:, -1]),
        ("flatten", lambda tokens: tokens.reshape(N_POINTS, -1)),
    ],
)
def test_onnx_source__pools_tokens(tmp_path: Path, pool: str, expected: Callable[..., np.ndarray]) -> None:
    source = opened(reshaped([0, 2, 2]), tmp_path, pool=pool)
    np.testing.assert_allclose(recorded(source, "maps"), expected(INPUTS.reshape(-1, 2, 2)), rtol=1e-6)


def test_onnx_source__asks_for_pooling(tmp_path: Path) -> None:
    source = opened(reshaped([0, 2, 2, 1]), tmp_path)
    refusal(lambda: recorded(source, "maps"), "wrong_shape", r"model.onnx: maps: .*Write pool: mean or max or flatten")


def test_onnx_source__asks_for_pooling_where_only_a_run_can_tell(tmp_path: Path) -> None:
    inputs = INPUTS.reshape(N_POINTS, 2, 2)
    source = opened(model([helper.make_node("Relu", ["x"], ["relu"])], dims=("batch", "tokens", 2)), tmp_path, inputs)
    assert source.layer_shapes() == {"relu": (None, 2)}
    refusal(lambda: recorded(source, "relu"), "wrong_shape", "model.onnx: relu: .*Write pool: mean or")


# --- identity


def test_identity__names_everything_that_decides_the_values(tmp_path: Path) -> None:
    source = opened(two_layers(), tmp_path, pool="mean")
    identity = source.identity("relu")
    assert {"kind", "model", "inputs", "layer", "pool", "recorder", "onnxruntime", "batch_size"} == set(identity)
    assert (identity["kind"], identity["layer"], identity["pool"]) == ("onnx", "relu", "mean")
    assert str(tmp_path) not in str(identity)
    assert identity == opened(two_layers(), tmp_path, pool="mean").identity("relu")


def test_identity__changes_with_model_inputs_layer_and_pooling(tmp_path: Path) -> None:
    other_model = two_layers()
    other_model.doc_string = "another"
    changed = INPUTS.copy()
    changed[3, 3] += 1
    identities = [
        opened(two_layers(), tmp_path).identity("relu"),
        opened(two_layers(), tmp_path).identity("linear"),
        opened(two_layers(), tmp_path, changed).identity("relu"),
        opened(two_layers(), tmp_path, pool="mean").identity("relu"),
        opened(other_model, tmp_path).identity("relu"),
    ]
    assert len({str(dict(identity)) for identity in identities}) == len(identities)


# --- refused: files


def test_onnx_source__refuses_a_missing_file(tmp_path: Path) -> None:
    saved(two_layers(), tmp_path)
    path = tmp_path / "modle.onnx"
    refusal(
        lambda: OnnxSource(path, INPUTS, IDS), "missing_source", "modle.onnx: no such file; did you mean 'model.onnx'"
    )


@pytest.mark.parametrize("content", [b"", b"\x80\x04\x95 a pickle", b"<html>not found</html>", b"\x08\x07"])
def test_onnx_source__refuses_what_is_not_onnx(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    refusal(
        lambda: OnnxSource(path, INPUTS, IDS), "damaged_source", "model.onnx: got no ONNX model in it, expected one"
    )


def test_onnx_source__refuses_a_truncated_file(tmp_path: Path) -> None:
    path = saved(two_layers(), tmp_path)
    path.write_bytes(path.read_bytes()[:-20])
    refusal(lambda: OnnxSource(path, INPUTS, IDS), "damaged_source", "got no ONNX model in it")


def test_onnx_source__refuses_a_folder(tmp_path: Path) -> None:
    refusal(lambda: OnnxSource(tmp_path, INPUTS, IDS), "missing_source", "no such file")


def test_onnx_source__says_what_the_system_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(two_layers(), tmp_path)

    def denied(_path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", denied)
    refusal(lambda: OnnxSource(path, INPUTS, IDS), "missing_source", "cannot be read: Permission denied")


def test_onnx_source__refuses_a_file_above_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with path.open("wb") as file:
        file.truncate(2**31 + 1)  # a hole: takes no room
    refusal(lambda: OnnxSource(path, INPUTS, IDS), "unsupported_model", "got over 2,147,483,648 bytes")


# --- refused: what reaches outside the file, or runs somebody's code


def external(tensor: Any, location: str) -> Any:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


@pytest.mark.parametrize("location", ["../../secret", "/etc/passwd", "", "a/../../secret", "..\\\\secret"])
def test_onnx_source__refuses_data_outside_its_folder_without_looking_at_it(tmp_path: Path, location: str) -> None:
    built = two_layers()
    external(built.graph.initializer[0], location)
    message = "got the values of 'weight' in .*, expected a file in the same folder"
    refusal(lambda: opened(built, tmp_path), "unsupported_model", message)


def test_onnx_source__refuses_a_link_to_data_outside_its_folder(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(WEIGHT.tobytes())
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo/weights.bin").symlink_to(tmp_path / "secret")
    built = two_layers()
    external(built.graph.initializer[0], "weights.bin")
    refusal(lambda: opened(built, tmp_path / "zoo"), "unsupported_model", "expected a file in the same folder")


def test_onnx_source__reads_data_where_the_hubs_cache_links_both_files(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    built = two_layers()
    external(built.graph.initializer[0], "weights.bin")
    (tmp_path / "blobs/0a").write_bytes(built.SerializeToString())
    (tmp_path / "blobs/0b").write_bytes(WEIGHT.tobytes())
    (tmp_path / "snapshot/model.onnx").symlink_to(tmp_path / "blobs/0a")
    (tmp_path / "snapshot/weights.bin").symlink_to(tmp_path / "blobs/0b")
    source = OnnxSource(tmp_path / "snapshot/model.onnx", INPUTS, IDS)
    np.testing.assert_allclose(recorded(source, "linear"), INPUTS @ WEIGHT, rtol=1e-5, atol=1e-6)


def test_onnx_source__says_which_data_file_is_missing(tmp_path: Path) -> None:
    built = two_layers()
    external(built.graph.initializer[0], "absent.bin")
    message = "got no 'absent.bin' beside it, which holds the values of 'weight'. Copy both files"
    refusal(lambda: opened(built, tmp_path), "missing_source", message)


@pytest.mark.parametrize(("offset", "length"), [("4", "48"), ("0", "44"), ("-4", "48"), ("x", "48"), ("0", "52")])
def test_onnx_source__refuses_data_that_do_not_fit(tmp_path: Path, offset: str, length: str) -> None:
    (tmp_path / "weights.bin").write_bytes(WEIGHT.tobytes())
    built = two_layers()
    tensor = external(built.graph.initializer[0], "weights.bin")
    tensor.external_data.add(key="offset", value=offset)
    tensor.external_data.add(key="length", value=length)
    message = r"got values of 'weight' in weights.bin that do not fit \(float32, \(4, 3\)\), expected 48 bytes"
    refusal(lambda: opened(built, tmp_path), "damaged_source", message)


@pytest.mark.parametrize("width", [3, 20_000])  # small tensors are put into the model, large ones mapped into memory
def test_onnx_source__reads_data_beside_the_file_which_are_part_of_its_identity(tmp_path: Path, width: int) -> None:
    weight = np.random.default_rng(5).standard_normal((4, width)).astype(np.float32)
    built = model([helper.make_node("MatMul", ["x", "weight"], ["linear"])], {"weight": weight})
    inside = OnnxSource(saved(built, tmp_path), INPUTS, IDS)
    expected = recorded(inside, "linear")
    onnx.save(built, tmp_path / "beside.onnx", save_as_external_data=True, location="beside.data", size_threshold=0)
    beside = OnnxSource(tmp_path / "beside.onnx", INPUTS, IDS)

    assert recorded(beside, "linear").tobytes() == expected.tobytes()

    before = beside.identity("linear")
    content = bytearray((tmp_path / "beside.data").read_bytes())
    content[3] ^= 1
    (tmp_path / "beside.data").write_bytes(content)
    changed = OnnxSource(tmp_path / "beside.onnx", INPUTS, IDS).identity("linear")
    assert {key for key in before if before[key] != changed[key]} == {"model"}


def test_onnx_source__reads_data_of_a_subgraph(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(WEIGHT.tobytes())
    hidden = external(numpy_helper.from_array(WEIGHT, "hidden"), "weights.bin")
    out = helper.make_tensor_value_info("chosen", TensorProto.FLOAT, None)
    branch = helper.make_graph([helper.make_node("Constant", [], ["chosen"], value=hidden)], "branch", [], [out])
    nodes = [
        helper.make_node("If", ["condition"], ["values"], then_branch=branch, else_branch=branch),
        helper.make_node("MatMul", ["x", "values"], ["linear"]),
    ]
    source = opened(model(nodes, {"condition": np.array(True)}), tmp_path)
    np.testing.assert_allclose(recorded(source, "linear"), INPUTS @ WEIGHT, rtol=1e-5, atol=1e-6)


def test_onnx_source__refuses_a_reference_to_a_file_without_the_flag(tmp_path: Path) -> None:
    built = two_layers()
    built.graph.initializer[0].external_data.add(key="location", value="weights.bin")
    refusal(lambda: opened(built, tmp_path), "unsupported_model", "with values in another file and its own")


@pytest.mark.parametrize("domain", ["com.stranger", "com.microsoft", "ai.onnx.preview.training"])
def test_onnx_source__refuses_operators_outside_the_standard(tmp_path: Path, domain: str) -> None:
    node = helper.make_node("EPContext", ["x"], ["y"], domain=domain)
    built = model([node], opsets=[helper.make_opsetid(domain, 1)])
    refusal(lambda: opened(built, tmp_path), "unsupported_model", f"got an operator of the domain '{domain}'")


def test_onnx_source__refuses_a_function_of_the_models_own(tmp_path: Path) -> None:
    built = two_layers()
    body, opsets = [helper.make_node("Relu", ["a"], ["b"])], [helper.make_opsetid("", 13)]
    built.functions.append(helper.make_function("", "Own", ["a"], ["b"], body, opsets))
    refusal(lambda: opened(built, tmp_path), "unsupported_model", "got functions of its own, expected plain nodes")


def test_onnx_source__refuses_training_graphs(tmp_path: Path) -> None:
    built = two_layers()
    built.training_info.add().algorithm.name = "step"
    refusal(lambda: opened(built, tmp_path), "unsupported_model", "got training graphs, expected the network alone")


# --- refused: graphs


def test_onnx_source__refuses_an_operator_that_onnx_does_not_know(tmp_path: Path) -> None:
    built = model([helper.make_node("Rleu", ["x"], ["y"])])
    refusal(lambda: opened(built, tmp_path), "unsupported_model", "breaks the rules of ONNX .*Rleu")


def test_onnx_source__refuses_an_unknown_layer_and_offers_near_ones(tmp_path: Path) -> None:
    source = opened(two_layers(), tmp_path)
    refusal(lambda: source.identity("rleu"), "unknown_layer", "got no layer 'rleu'; did you mean 'relu'")
    refusal(lambda: recorded(source, "rleu"), "unknown_layer", "got no layer 'rleu'")


def test_onnx_source__refuses_a_graph_without_layers(tmp_path: Path) -> None:
    built = model([helper.make_node("Shape", ["x"], ["shape"])], out_dtype=TensorProto.INT64)
    refusal(lambda: opened(built, tmp_path), "unknown_layer", r"got no float tensor \(batch, ...\)")


def test_onnx_source__refuses_layer_names_that_cannot_be_seen(tmp_path: Path) -> None:
    built = model([helper.make_node("Relu", ["x"], ["re\x1blu"])])
    refusal(lambda: opened(built, tmp_path), "unsupported_model", "got invisible or control characters")


def test_onnx_source__refuses_several_inputs(tmp_path: Path) -> None:
    mask = helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["batch", 4])
    built = model([helper.make_node("Mul", ["x", "mask"], ["y"])], extra_inputs=[mask])
    message = r"got 1 array for 2 inputs \('x', 'mask'\), expected one for each. Write inputs: {x: {path: x.npy}, mask"
    refusal(lambda: opened(built, tmp_path), "unsupported_model", message)


@pytest.mark.parametrize("batch", [1, 2, 4, 16])
def test_onnx_source__runs_a_fixed_batch_in_its_size(tmp_path: Path, batch: int) -> None:
    dynamic = OnnxSource(saved(two_layers(), tmp_path), INPUTS, IDS)
    expected = {layer: recorded(dynamic, layer) for layer in dynamic.layer_names()}
    built = two_layers()
    built.graph.input[0].type.tensor_type.shape.dim[0].dim_value = batch
    source = opened(built, tmp_path)

    assert (source.layer_names(), source.batch_rows) == (dynamic.layer_names(), batch)
    batches = list(source.batches(["relu"], np.arange(N_POINTS)))
    assert [len(one["relu"]) for one in batches] == [min(batch, N_POINTS - at) for at in range(0, N_POINTS, batch)]
    for layer, values in expected.items():
        np.testing.assert_allclose(recorded(source, layer), values, rtol=1e-5, atol=1e-6)


def test_onnx_source__finds_layers_whose_fixed_batch_is_a_number(tmp_path: Path) -> None:
    built = reshaped([5, 2, 2], dims=(5, 4))
    source = opened(built, tmp_path, pool="flatten")
    np.testing.assert_array_equal(recorded(source, "maps"), INPUTS)


def test_onnx_source__refuses_two_fixed_batches(tmp_path: Path) -> None:
    mask = helper.make_tensor_value_info("mask", TensorProto.FLOAT, [3, 4])
    built = model([helper.make_node("Mul", ["x", "mask"], ["y"])], dims=(2, 4), extra_inputs=[mask])
    refusal(lambda: opened(built, tmp_path), "unsupported_model", "got inputs for batches of 2, 3, expected one size")


def test_onnx_source__refuses_an_input_without_dimensions(tmp_path: Path) -> None:
    built = model([helper.make_node("Relu", ["x"], ["y"])], dims=())
    refusal(lambda: opened(built, tmp_path), "unsupported_model", "got an input 'x' without dimensions")


def test_onnx_source__says_why_shapes_cannot_be_inferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise onnx.shape_inference.InferenceError("(op_type:MatMul) Incompatible dimensions")

    monkeypatch.setattr(onnx.shape_inference, "infer_shapes", fails)
    message = r"got types or shapes that do not fit \(.*Incompatible dimensions\). Export it again"
    refusal(lambda: opened(two_layers(), tmp_path), "unsupported_model", message)


def test_onnx_source__says_what_onnxruntime_says_when_shapes_do_not_fit(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("MatMul", ["y", "weight"], ["z"])]
    source = opened(model(nodes, {"weight": np.ones((5, 3), np.float32)}), tmp_path)
    refusal(lambda: recorded(source, "y"), "unsupported_model", "onnxruntime could not open it .*MatMul")


def test_onnx_source__refuses_huge_tensors_before_running(tmp_path: Path) -> None:
    nodes = [helper.make_node("Expand", ["x", "shape"], ["y"])]
    built = model(nodes, {"shape": np.array([10_000_000, 1, 4])})
    refusal(lambda: opened(built, tmp_path), "unsupported_model", "for 256 points, expected 2,147,483,648")


def test_onnx_source__refuses_stored_tensors_that_declare_too_much(tmp_path: Path) -> None:
    built = two_layers()
    built.graph.initializer[0].dims[:] = [2**40, 2**40]
    refusal(lambda: opened(built, tmp_path), "unsupported_model", "got a tensor of shape .* expected at most")


def test_onnx_source__refuses_stored_tensors_that_hold_less_than_they_declare(tmp_path: Path) -> None:
    built = two_layers()
    built.graph.initializer[0].dims[:] = [4, 3000]
    refusal(lambda: opened(built, tmp_path), "unsupported_model", r"breaks the rules of ONNX \(.*raw_data size")


def test_onnx_source__says_what_onnxruntime_says_when_it_stops(tmp_path: Path) -> None:
    nodes = [helper.make_node("Gather", ["weight", "far"], ["row"]), helper.make_node("Add", ["x", "row"], ["y"])]
    built = model(nodes, {"weight": np.ones((2, 4), np.float32), "far": np.array([7])})
    refusal(lambda: recorded(opened(built, tmp_path), "y"), "unsupported_model", "onnxruntime could not run it")


# --- refused: inputs and values


def test_onnx_source__refuses_inputs_of_another_shape(tmp_path: Path) -> None:
    message = r"got inputs of shape \(10, 2, 2\), expected \(points, 4\): reshape"
    refusal(lambda: opened(two_layers(), tmp_path, INPUTS.reshape(N_POINTS, 2, 2)), "wrong_shape", message)
    refusal(lambda: opened(two_layers(), tmp_path, INPUTS[:, :3]), "wrong_shape", r"got inputs of shape \(10, 3\)")


def test_onnx_source__refuses_inputs_of_another_type(tmp_path: Path) -> None:
    built = model([helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)], dtype=TensorProto.INT64, out_dtype=1)
    refusal(lambda: opened(built, tmp_path), "wrong_dtype", "got inputs of type float32, expected int64")
    integers = np.arange(40).reshape(N_POINTS, 4)
    np.testing.assert_array_equal(recorded(opened(built, tmp_path, integers), "y"), integers)


def test_onnx_source__refuses_integers_that_do_not_fit(tmp_path: Path) -> None:
    built = model([helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)], dtype=TensorProto.INT32, out_dtype=1)
    source = opened(built, tmp_path, np.full((3, 4), 2**40))
    refusal(lambda: recorded(source, "y"), "wrong_dtype", "got inputs of int64 beyond int32")


def test_onnx_source__refuses_another_number_of_ids(tmp_path: Path) -> None:
    path = saved(two_layers(), tmp_path)
    refusal(lambda: OnnxSource(path, INPUTS, IDS[:9]), "bad_ids", "got 10 inputs and 9 ids, expected one id an input")


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_onnx_source__refuses_inputs_that_are_not_finite(tmp_path: Path, value: float) -> None:
    inputs = INPUTS.astype(np.float64)
    inputs[6, 1] = value
    source = opened(two_layers(), tmp_path, inputs)
    message = r"got NaN or infinite inputs as float32, first in row 6 \(id 6\), expected finite numbers"
    refusal(lambda: recorded(source, "relu", [9, 6]), "not_finite", message)


def test_onnx_source__refuses_outputs_that_are_not_finite(tmp_path: Path) -> None:
    inputs = np.ones((N_POINTS, 4), np.float32)
    inputs[8, 2] = -1
    source = opened(model([helper.make_node("Log", ["x"], ["y"])]), tmp_path, inputs)
    message = r"y: got 1 NaN or infinite values among 2 rows, first in row 8 \(id 8\), column 2"
    refusal(lambda: recorded(source, "y", [0, 8]), "not_finite", message)


# --- start-up


def test_onnx_models__importing_them_leaves_onnx_alone() -> None:
    module = "lfm_tasks.sources.networks.onnx_models"
    code = f"import sys, {module}; print(not {{'onnx', 'onnxruntime'}}.isdisjoint(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_onnx_source__double_precision_stays(tmp_path: Path) -> None:
    built = model([helper.make_node("Relu", ["x"], ["y"])], dtype=TensorProto.DOUBLE)
    assert recorded(opened(built, tmp_path), "y").dtype == np.float64


def test_onnx_source__half_precision_stays(tmp_path: Path) -> None:
    built = model([helper.make_node("Relu", ["x"], ["y"])], dtype=TensorProto.FLOAT16)
    assert recorded(opened(built, tmp_path), "y").dtype == np.float16


def test_onnx_source__opens_a_file_that_onnx_itself_saved(tmp_path: Path) -> None:
    onnx.save(two_layers(), tmp_path / "saved.onnx")
    assert OnnxSource(tmp_path / "saved.onnx", INPUTS, IDS).layer_names() == ("linear", "relu", "sum")


def test_onnxruntime__is_imported_without_its_telemetry(tmp_path: Path) -> None:
    code = "from lfm_tasks.sources.networks.onnx_graph import runtime_version; print(runtime_version())"
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment |= {"TMPDIR": str(tmp_path), "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert [path.name for path in tmp_path.rglob("*")] == []
