"""A head gives what the whole network gives, and is refused where a cut would not be one."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from lfm_tasks.catalog import Catalog, CatalogError, Model, read_catalog
from lfm_tasks.errors import DataError
from lfm_tasks.sources.networks.onnx_heads import Head, open_head
from lfm_tasks.sources.opening import open_source, read_dataset
from lfm_tasks.stages.inventory.stage import validate_catalog
from lfm_tasks.zoo import zoo_folder

SHIPPED = Path(__file__).parents[4] / "data_catalog.yaml"
MODELS = sorted(path.stem for path in zoo_folder().glob("*.onnx"))


def refusal(act: Callable[[], object], reason: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        act()
    assert caught.value.reason == reason


@pytest.mark.parametrize("name", MODELS)
def test_head__of_every_layer_of_the_shipped_zoo_gives_the_networks_own_output(name: str) -> None:
    catalog = read_catalog(SHIPPED)
    model = catalog.model_on(name)
    rows = read_dataset("digits", catalog)
    source = open_source(name, model, catalog, rows)
    assert rows.inputs is not None
    # Another way than the recorder's: the file as it is, by onnxruntime with its own defaults.
    session = onnxruntime.InferenceSession(zoo_folder() / f"{name}.onnx", providers=["CPUExecutionProvider"])
    (own,) = session.run(None, {"pixels": rows.inputs})
    layers = source.layer_names()
    batches = list(source.batches(layers, np.arange(len(rows.ids))))
    assert len(layers) >= 5

    for layer in layers:
        recorded = np.concatenate([batch[layer] for batch in batches])
        np.testing.assert_allclose(open_head(name, model, catalog, layer).apply(recorded), own, rtol=1e-4, atol=1e-4)


# --- small graphs

WEIGHT = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
INPUTS = np.random.default_rng(1).standard_normal((300, 4)).astype(np.float32)


def zoo(folder: Path, nodes: list[Any], outputs: list[str], pool: str = "none", head: str = "") -> Catalog:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(WEIGHT, "weight"), numpy_helper.from_array(np.array([0, 2, 2]), "shape")],
    )
    built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    (folder / "net.onnx").write_bytes(built.SerializeToString())
    np.save(folder / "inputs.npy", INPUTS)
    (folder / "data_catalog.yaml").write_text(f"""
version: 1
datasets: {{probe: {{ids: positional, inputs: {{path: inputs.npy}}}}}}
models:
  net:
    onnx: {{path: net.onnx, dataset: probe, pool: {pool}}}
    {head}
""")
    return read_catalog(folder / "data_catalog.yaml")


def test_head__of_a_fixed_batch_and_data_beside_the_file_gives_the_networks_own_output(tmp_path: Path) -> None:
    wide = np.random.default_rng(2).standard_normal((4, 9000)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["linear"]),
        helper.make_node("Relu", ["linear"], ["relu"]),
        helper.make_node("MatMul", ["relu", "wide"], ["out"]),
    ]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [7, 4])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(WEIGHT, "weight"), numpy_helper.from_array(wide, "wide")],
    )
    built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    catalog = zoo(tmp_path, nodes[:1], ["linear"])
    onnx.save(built, tmp_path / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)

    out = opened(catalog, "relu").apply(np.maximum(INPUTS @ WEIGHT, 0))

    np.testing.assert_allclose(out, np.maximum(INPUTS @ WEIGHT, 0) @ wide, rtol=1e-4, atol=1e-4)


def opened(catalog: Catalog, layer: str | None = None) -> Head:
    return open_head("net", catalog.model_on("net"), catalog, layer)


def with_a_skip() -> list[Any]:
    return [
        helper.make_node("Relu", ["x"], ["first"]),
        helper.make_node("MatMul", ["first", "weight"], ["middle"]),
        helper.make_node("Add", ["first", "middle"], ["sum"]),
        helper.make_node("Tanh", ["sum"], ["out"]),
    ]


def test_head__starts_where_all_ways_have_met(tmp_path: Path) -> None:
    catalog = zoo(tmp_path, with_a_skip(), ["out"], head="head: {layer: sum}")
    first = np.maximum(INPUTS, 0)
    total = first + first @ WEIGHT
    np.testing.assert_allclose(opened(catalog).apply(total), np.tanh(total), atol=1e-6)
    np.testing.assert_allclose(opened(catalog, "first").apply(first), np.tanh(total), atol=1e-5)
    assert opened(catalog).apply(total[:0]).shape == (0, 4)


def test_head__beside_a_skip_connection_names_the_other_tensor(tmp_path: Path) -> None:
    catalog = zoo(tmp_path, with_a_skip(), ["out"])
    message = r"got that 'out' depends on 'first' as well as on 'middle', a head needs a layer that all ways lead"
    refusal(lambda: opened(catalog, "middle"), "unsupported_model", message)


def test_head__beside_the_input_names_the_input(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["relu"]), helper.make_node("Add", ["relu", "x"], ["out"])]
    message = "'out' depends on 'x' as well as on 'relu'"
    refusal(lambda: opened(zoo(tmp_path, nodes, ["out"]), "relu"), "unsupported_model", message)


def test_head__reads_what_a_subgraph_reads(tmp_path: Path) -> None:
    branch = helper.make_graph(
        [helper.make_node("Add", ["relu", "x"], ["chosen"])],
        "branch",
        [],
        [helper.make_tensor_value_info("chosen", TensorProto.FLOAT, None)],
    )
    nodes = [
        helper.make_node("Relu", ["x"], ["relu"]),
        helper.make_node("Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True))),
        helper.make_node("If", ["yes"], ["out"], then_branch=branch, else_branch=branch),
    ]
    catalog = zoo(tmp_path, nodes, ["out"])
    refusal(lambda: opened(catalog, "relu"), "unsupported_model", "'out' depends on 'x' as well as on 'relu'")


def maps() -> list[Any]:
    return [
        helper.make_node("Reshape", ["x", "shape"], ["maps"]),
        helper.make_node("Softmax", ["maps"], ["out"], axis=1),
        helper.make_node("ReduceMax", ["maps"], ["top"], axes=[2], keepdims=0),
    ]


def test_head__gives_flattened_rows_their_shape_back(tmp_path: Path) -> None:
    catalog = zoo(tmp_path, maps(), ["out", "top"], pool="flatten", head="head: {layer: maps, output: top}")
    np.testing.assert_array_equal(opened(catalog).apply(INPUTS), INPUTS.reshape(-1, 2, 2).max(axis=2))


@pytest.mark.parametrize("pool", ["mean", "cls", "none"])
def test_head__refuses_layers_that_pooling_lost(tmp_path: Path, pool: str) -> None:
    catalog = zoo(tmp_path, maps(), ["out"], pool=pool)
    message = rf"got points of shape \(2, 2\) in 'maps', pooled by {pool}, expected .* without loss .*Set pool: flatten"
    refusal(lambda: opened(catalog, "maps"), "unsupported_model", message)


def test_head__refuses_names_that_are_not_there(tmp_path: Path) -> None:
    catalog = zoo(tmp_path, maps(), ["out", "top"], pool="flatten", head="head: {layer: maps, output: tap}")
    refusal(lambda: opened(catalog), "unknown_layer", "got no output 'tap'; did you mean 'top'")
    refusal(lambda: opened(catalog, "mapps"), "unknown_layer", "got no layer 'mapps'; did you mean 'maps'")


def test_head__asks_which_of_several_outputs(tmp_path: Path) -> None:
    catalog = zoo(tmp_path, maps(), ["out", "top"], pool="flatten")
    message = r"got 2 outputs \('out', 'top'\), expected one. Name it with head: \{layer: maps, output: x\}"
    refusal(lambda: opened(catalog, "maps"), "unknown_layer", message)
    refusal(lambda: opened(catalog), "missing_source", "got no head, expected the layer .*Add head:")


def test_head__refuses_an_output_before_the_layer(tmp_path: Path) -> None:
    catalog = zoo(tmp_path, with_a_skip(), ["out"], head="head: {layer: sum, output: first}")
    message = "got 'first', which does not depend on 'sum'. Choose a layer before it"
    refusal(lambda: opened(catalog), "unsupported_model", message)


def test_head__refuses_rows_of_another_space(tmp_path: Path) -> None:
    head = opened(zoo(tmp_path, with_a_skip(), ["out"]), "sum")
    refusal(lambda: head.apply(INPUTS[:, :3]), "wrong_shape", r"got .* \(300, 3\), expected \(points, 4\), as sum was")
    refusal(lambda: head.apply(np.full((2, 4), np.nan)), "not_finite", "got NaN or infinite activations, expected")


def test_head__of_activations_on_disk_is_refused(tmp_path: Path) -> None:
    zoo(tmp_path, with_a_skip(), ["out"])
    files = Model.model_validate({"activations": {"path": "a.npy", "dataset": "probe"}}).on("probe")
    catalog = read_catalog(tmp_path / "data_catalog.yaml")
    refusal(
        lambda: open_head("net", files, catalog, "sum"), "missing_source", "model net: got no onnx, expected an ONNX"
    )
    text = (tmp_path / "data_catalog.yaml").read_text().replace("onnx: {path: net.onnx", "activations: {path: a.npy")
    (tmp_path / "data_catalog.yaml").write_text(f"{text}    head: {{layer: a}}\n")
    with pytest.raises(CatalogError, match="got head beside activations, expected onnx: only an ONNX graph can be cut"):
        read_catalog(tmp_path / "data_catalog.yaml")


def test_validate__says_that_a_head_is_none(tmp_path: Path) -> None:
    catalog = zoo(tmp_path, with_a_skip(), ["out"], head="head: {layer: middle}")
    [failure] = validate_catalog(catalog, lambda *_: None).failures
    assert "depends on 'first' as well as on 'middle'" in failure.message


@pytest.mark.parametrize(
    ("layers", "layer", "message"),
    [
        ("'*'", "suum", r"^head: net\.onnx: got no layer 'suum'; did you mean 'sum'\?$"),
        (
            "'!sum'",
            "sum",
            r"^head: got 'sum', which layers leaves out, .* recorded. Add it to layers; there is first,",
        ),
        ("summ", "sum", "^no layer matches 'summ'"),
    ],
)
def test_validate__wants_a_head_to_start_from_a_recorded_layer(
    layers: str, layer: str, message: str, tmp_path: Path
) -> None:
    catalog = zoo(tmp_path, with_a_skip(), ["out"], head=f"layers: [{layers}]\n    head: {{layer: {layer}}}")
    found = validate_catalog(catalog, lambda *_: None)
    [failure] = found.failures
    assert (failure.reason, failure.stage, found.spaces) == ("unknown_layer", "validate", ())
    assert re.search(message, failure.message)
