"""Every catalog line of docs/recording.md records a network."""

import re
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from lfm_tasks.catalog import expand_layers, read_catalog
from lfm_tasks.sources import open_head, open_source, read_dataset
from tests.torchvision_operators import define_missing_operators

PAGE = (Path(__file__).parents[2] / "docs/recording.md").read_text(encoding="utf-8")
LINES = [line for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
INPUTS = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
ZOO = """
from torch import nn

def tiny(width):
    return nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 2))
"""
# Checkpoints of the page, and the models of the test zoo that stand in for them.
STAND_INS = {"bert": "bert", "clip": "clip", "mini": "minilm-sentence", "tiny": "timm-resnet"}
CHOSEN = {"exported": ["relu1"], "built": ["0", "1"], "loaded": ["0", "1", "2"], "headed": ["relu1", "out"]}


def write_onnx(path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["relu1"]), helper.make_node("Tanh", ["relu1"], ["out"])]
    x, out = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in ("x", "out"))
    graph = helper.make_graph(nodes, "test", [x], [out])
    built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    path.write_bytes(built.SerializeToString())


def write_weights(path: Path) -> None:
    torch = pytest.importorskip("torch", reason="needs the extra [torch]")
    from safetensors.torch import save_model

    layers = (torch.nn.Linear(4, 16), torch.nn.Tanh(), torch.nn.Linear(16, 2))
    save_model(torch.nn.Sequential(*layers), path)


def test_page__has_a_line_for_each_kind() -> None:
    assert [line.split(":")[0] for line in LINES] == [*STAND_INS, *CHOSEN]


@pytest.mark.parametrize("line", LINES[: len(STAND_INS)], ids=lambda line: line.split(":")[0])
def test_line_of_the_page__records_its_checkpoint(line: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="needs the extra [hf]")
    from tests.checkpoint_zoo import write_checkpoint_zoo

    define_missing_operators()
    name = line.split(":")[0]
    stand_in = STAND_INS[name]
    base = [] if stand_in != "minilm-sentence" else ["minilm"]
    write_checkpoint_zoo(tmp_path, [*base, stand_in])
    (tmp_path / "zoo" / stand_in).rename(tmp_path / "zoo" / name)
    (tmp_path / "data_catalog.yaml").write_text(f"""
version: 1
datasets:
  docs: {{texts: {{path: texts.jsonl, text: text, id: id}}}}
  photos: {{images: {{path: "images/*/*.png", label: folder}}}}
models:
  {line}
""")
    catalog = read_catalog(tmp_path / "data_catalog.yaml", {})
    model = catalog.model_on(name)

    source = open_source(name, model, catalog, read_dataset(model.dataset, catalog))
    chosen = expand_layers(model.layers, source.layer_names())
    (batch,) = source.batches(chosen, np.arange(6))

    assert list(batch) == [f"hidden.{index:02}" for index in range(len(chosen))]


@pytest.mark.parametrize("line", LINES[len(STAND_INS) :], ids=lambda line: line.split(":")[0])
def test_line_of_the_page__records_its_network(line: str, tmp_path: Path) -> None:
    name = line.split(":")[0]
    if "torch:" in line:
        write_weights(tmp_path / f"{name}.safetensors")
        (tmp_path / "my_zoo.py").write_text(ZOO)
    else:
        write_onnx(tmp_path / f"{name}.onnx")
    np.save(tmp_path / "inputs.npy", INPUTS)
    (tmp_path / "data_catalog.yaml").write_text(
        f"version: 1\ndatasets: {{probe: {{ids: positional, inputs: {{path: inputs.npy}}}}}}\nmodels:\n  {line}\n"
    )
    catalog = read_catalog(tmp_path / "data_catalog.yaml", {}, trust_code=True)
    model = catalog.model_on(name)

    source = open_source(name, model, catalog, read_dataset("probe", catalog))
    chosen = expand_layers(model.layers, source.layer_names())
    (batch,) = source.batches(chosen, np.arange(6))

    assert list(batch) == CHOSEN[name]
    if model.head is not None:
        np.testing.assert_allclose(open_head(name, model, catalog).apply(batch["relu1"]), batch["out"], atol=1e-6)
