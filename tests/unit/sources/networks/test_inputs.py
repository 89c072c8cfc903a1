"""Networks of several inputs: arrays by name, from the dataset's file or files of their own, and masks of tokens."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from lfm_tasks.catalog import CatalogError, read_catalog
from lfm_tasks.errors import DataError
from lfm_tasks.sources.opening import open_source, read_dataset
from lfm_tasks.sources.source import Source

N_POINTS, N_TOKENS = 9, 5
generator = np.random.default_rng(0)
TOKENS = generator.integers(1, 20, (N_POINTS, N_TOKENS))
MASK = (np.arange(N_TOKENS) < generator.integers(1, N_TOKENS + 1, (N_POINTS, 1))).astype(np.int64)
TABLE = generator.standard_normal((20, 3)).astype(np.float32)
KEYS = "{input_ids: input_ids, attention_mask: attention_mask}"
FILES = '{input_ids: {path: "{dataset}.npz", key: input_ids}, attention_mask: {path: masks.npy}}'
ZOO = """
import numpy as np
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(torch.from_numpy(np.load("table.npy")))
        self.scores = nn.Identity()

    def forward(self, input_ids, attention_mask):
        hidden = self.embedding(input_ids)
        self.scores(hidden @ hidden.transpose(1, 2))
        return hidden * attention_mask[..., None]
"""


def write(folder: Path, kind: str, options: str) -> Path:
    np.savez(folder / "probe.npz", input_ids=TOKENS, attention_mask=MASK)
    np.save(folder / "masks.npy", MASK)
    np.save(folder / "floats.npy", MASK * 0.5)
    np.save(folder / "short.npy", MASK[:4])
    np.save(folder / "table.npy", TABLE)
    (folder / "inputs_zoo.py").write_text(ZOO)
    ids = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["b", "s"]) for name in ("input_ids", "attention_mask")
    ]
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["embedding"]),
        helper.make_node("Transpose", ["embedding"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["embedding", "turned"], ["scores"]),
        helper.make_node("Cast", ["attention_mask"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["embedding", "axes"], ["sum"], keepdims=0),
    ]
    stored = [numpy_helper.from_array(TABLE, "table"), numpy_helper.from_array(np.array([1]), "axes")]
    out = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "test", ids, out, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "net.onnx").write_bytes(model.SerializeToString())
    network = {"onnx": "path: net.onnx", "torch": "factory: 'inputs_zoo:Net'"}[kind]
    (folder / "data_catalog.yaml").write_text(f"""
version: 1
datasets: {{probe: {{ids: positional, inputs: {{path: probe.npz, key: input_ids}}}}}}
models: {{net: {{{kind}: {{{network}, dataset: probe, {options}}}}}}}
""")
    return folder / "data_catalog.yaml"


def opened(folder: Path, kind: str, options: str, monkeypatch: pytest.MonkeyPatch) -> Source:
    if kind == "torch":
        pytest.importorskip("torch", reason="needs the extra [torch]")
    monkeypatch.chdir(folder)
    catalog = read_catalog(write(folder, kind, options), {}, trust_code=True)
    return open_source("net", catalog.model_on("net"), catalog, read_dataset("probe", catalog))


def recorded(source: Source, layer: str) -> Any:
    return np.concatenate([batch[layer] for batch in source.batches([layer], np.arange(N_POINTS))])


def masked_mean() -> np.ndarray:
    rows = TABLE[TOKENS] * MASK[..., None]
    return np.asarray(rows.sum(axis=1) / MASK.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("kind", ["onnx", "torch"])
@pytest.mark.parametrize("inputs", [KEYS, FILES])
@pytest.mark.parametrize("mask", ["attention_mask", "{path: masks.npy}"])
def test_named_inputs__are_fed_and_padding_is_left_out(
    tmp_path: Path, kind: str, inputs: str, mask: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = opened(tmp_path, kind, f"inputs: {inputs}, mask: {mask}, pool: mean", monkeypatch)
    np.testing.assert_allclose(recorded(source, "embedding"), masked_mean(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["onnx", "torch"])
def test_named_inputs__without_a_mask_all_tokens_count(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = opened(tmp_path, kind, f"inputs: {KEYS}, pool: mean", monkeypatch)
    np.testing.assert_allclose(recorded(source, "embedding"), TABLE[TOKENS].mean(axis=1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["onnx", "torch"])
def test_named_inputs__and_masks_are_part_of_the_identity(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = opened(tmp_path, kind, f"inputs: {FILES}, mask: attention_mask, pool: mean", monkeypatch)
    first = before.identity("embedding")
    catalog = read_catalog(tmp_path / "data_catalog.yaml", {}, trust_code=True)
    np.save(tmp_path / "masks.npy", np.ones_like(MASK))
    after = open_source("net", catalog.model_on("net"), catalog, read_dataset("probe", catalog)).identity("embedding")
    assert {key for key in first if first[key] != after[key]} == {"inputs", "mask"}


def test_masked_layers_of_onnx__are_those_of_points_or_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = opened(tmp_path, "onnx", f"inputs: {KEYS}, mask: attention_mask, pool: mean", monkeypatch)
    assert source.layer_names() == ("embedding", "sum")
    with pytest.raises(DataError, match="got the layer 'scores', whose size follows from the longest text"):
        source.identity("scores")


def test_masked_layers_of_pytorch__are_refused_where_the_mask_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "wide.npy", np.ones((N_POINTS, N_TOKENS + 1), dtype=np.int64))
    source = opened(tmp_path, "torch", f"inputs: {KEYS}, mask: {{path: wide.npy}}, pool: mean", monkeypatch)
    with pytest.raises(DataError, match=r"embedding gives \(5, 3\) a point, where 6 tokens are needed that the mask"):
        source.identity("embedding")


@pytest.mark.parametrize("kind", ["onnx", "torch"])
@pytest.mark.parametrize(
    ("options", "reason", "message"),
    [
        ("inputs: {input_ids: nothing, attention_mask: attention_mask}", "missing_source", "nothing"),
        ("inputs: {input_ids: {path: short.npy}}", "bad_ids", "got 4 rows of input_ids and 9 ids, expected one row"),
        (f"inputs: {KEYS}, mask: {{path: floats.npy}}", "wrong_shape", r"expected \(points, tokens\) of 0 and 1"),
        (f"inputs: {KEYS}, mask: attention_mask, pool: flatten", "wrong_shape", "pool: flatten beside a mask"),
    ],
)
def test_named_inputs__say_what_is_wrong(
    tmp_path: Path, kind: str, options: str, reason: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        recorded(opened(tmp_path, kind, options, monkeypatch), "embedding")
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            "inputs: {input_id: input_ids, attention_mask: attention_mask}",
            "got the input 'input_id', which it lacks; did",
        ),
        ("inputs: {input_ids: input_ids}", "got nothing for the inputs 'attention_mask', expected an array for each"),
        ("max_tokens: 8", "got max_tokens and inputs of numbers, expected a dataset of raw inputs"),
        ("preprocess: {size: 8}", "got preprocess and inputs of numbers"),
    ],
)
def test_named_inputs_of_onnx__are_those_of_the_graph(
    tmp_path: Path, options: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match=message):
        opened(tmp_path, "onnx", options, monkeypatch)


@pytest.mark.parametrize(
    "options",
    [
        "inputs: {x: 3}",
        "inputs: [x]",
        "mask: 3",
        "preprocess: {size: 8, crop: 9}",
        "preprocess: {size: 8, std: [0, 1, 1]}",
    ],
)
def test_catalog__refuses_inputs_that_cannot_be(tmp_path: Path, options: str) -> None:
    with pytest.raises(CatalogError, match=r"models\.net"):
        read_catalog(write(tmp_path, "onnx", options), {})


@pytest.mark.parametrize("kind", ["onnx", "torch"])
def test_named_inputs__need_no_inputs_of_the_dataset(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "torch":
        pytest.importorskip("torch", reason="needs the extra [torch]")
    path = write(tmp_path, kind, f"inputs: {FILES}, mask: attention_mask, pool: mean")
    np.save(tmp_path / "ids.npy", np.arange(N_POINTS))
    path.write_text(
        path.read_text().replace("ids: positional, inputs: {path: probe.npz, key: input_ids}", "ids: {path: ids.npy}")
    )
    monkeypatch.chdir(tmp_path)
    catalog = read_catalog(path, {}, trust_code=True)
    source = open_source("net", catalog.model_on("net"), catalog, read_dataset("probe", catalog))
    np.testing.assert_allclose(recorded(source, "embedding"), masked_mean(), rtol=1e-5, atol=1e-6)
