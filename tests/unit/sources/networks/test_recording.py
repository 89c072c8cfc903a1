"""The same network, once as ONNX and once as PyTorch, is recorded as the same activations, layer by layer."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from lfm_tasks.catalog import read_catalog
from lfm_tasks.sources.opening import open_source, read_dataset
from lfm_tasks.zoo.networks import Network, Weights, activations, cnn, initial_weights, mlp
from lfm_tasks.zoo.train import onnx_bytes

pytest.importorskip("torch", reason="needs the extra [torch]")

ZOO = """
from collections import OrderedDict

from torch import nn

KINDS = {
    "linear": lambda layer: nn.Linear(layer["n_in"], layer["n_out"]),
    "conv": lambda layer: nn.Conv2d(layer["n_in"], layer["n_out"], 3, padding=1),
    "relu": lambda layer: nn.ReLU(inplace=True),
    "tanh": lambda layer: nn.Tanh(),
    "pool": lambda layer: nn.AvgPool2d(2),
    "image": lambda layer: nn.Unflatten(1, layer["image"]),
    "flatten": lambda layer: nn.Flatten(),
}

def network(layers):
    return nn.Sequential(OrderedDict((layer["name"], KINDS[layer["kind"]](layer)) for layer in layers))
"""
NETWORKS: dict[str, Network] = {
    "relu": mlp((64, 32, 32, 10), "relu"),
    "tanh": mlp((64, 48, 24, 10), "tanh"),
    "cnn": cnn(8, 32),
}


def weights_of(network: Network) -> Weights:
    """Return weights whose biases are not zero."""
    generator = np.random.default_rng(1)
    found = initial_weights(network, 0)
    return {
        name: value + generator.standard_normal(value.shape).astype(np.float32) / 10 if value.ndim == 1 else value
        for name, value in found.items()
    }


def write(folder: Path, network: Network) -> None:
    weights = weights_of(network)
    (folder / "net.onnx").write_bytes(onnx_bytes(network, weights, {}))
    # PyTorch keeps linear weights as (out, in).
    turned = {name: np.ascontiguousarray(value.T) if value.ndim == 2 else value for name, value in weights.items()}
    save_file(turned, folder / "net.safetensors")
    (folder / "twin_zoo.py").write_text(ZOO)
    layers = [
        {"kind": step.kind, "name": step.name, "n_in": step.n_in, "n_out": step.n_out, "image": list(step.image)}
        for step in network
    ]
    (folder / "data_catalog.yaml").write_text(f"""
version: 1
datasets: {{digits: {{builtin: digits}}}}
models:
  exported: {{onnx: {{path: net.onnx, dataset: digits, pool: flatten}}}}
  built:
    torch:
      factory: "twin_zoo:network"
      args: {{layers: {layers}}}
      weights: net.safetensors
      dataset: digits
      pool: flatten
      batch_size: 64
""")


@pytest.mark.parametrize("name", NETWORKS)
def test_layers__are_recorded_alike_from_onnx_and_pytorch(name: str, tmp_path: Path) -> None:
    network = NETWORKS[name]
    write(tmp_path, network)
    catalog = read_catalog(tmp_path / "data_catalog.yaml", {}, trust_code=True)
    rows = read_dataset("digits", catalog)
    layers = [step.name for step in network]
    recorded = {}
    for model in ("exported", "built"):
        source = open_source(model, catalog.model_on(model), catalog, rows)
        assert list(source.layer_names()) == layers
        batches = list(source.batches(layers, np.arange(len(rows.ids))))
        recorded[model] = {layer: np.concatenate([batch[layer] for batch in batches]) for layer in layers}

    assert rows.inputs is not None
    by_numpy = activations(network, weights_of(network), rows.inputs)
    for layer in layers:
        exported, built = recorded["exported"][layer], recorded["built"][layer]
        assert np.ptp(exported) > 0.1
        np.testing.assert_allclose(built, exported, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(built, by_numpy[layer].reshape(len(built), -1), rtol=1e-5, atol=1e-5)
