"""The training of the shipped zoo: ``python -m lfm_tasks.zoo.train [FOLDER]`` writes its eight files.

The same machine writes the same bytes each time.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from lfm_tasks.sources.opening import Digits, digits
from lfm_tasks.zoo.networks import Kind, Layer, Network, Weights, activations, cnn, gradients, initial_weights, mlp

# Old enough for every onnxruntime of the last years.
_OPSET = 13
_IR_VERSION = 7

SCRIPT_VERSION = "1"  # stands in every file; raise it when a file changes

MLP = mlp((64, 96, 48, 24, 16, 10), "relu")  # shrinking, so that neighboring layers are not alike
WIDE = mlp((64, 80, 64, 64, 48, 10), "tanh")
CNN = cnn(n_channels=16, n_hidden=48)

FACTORS = {"linear1": 1.7, "linear2": 0.6, "linear3": 3.1, "linear4": 0.23}
TURN = 10  # degrees by which the fine-tuned network's digits are turned


@dataclass(frozen=True)
class Recipe:
    """How long and how hard to train: Adam, its rate falling to 0 along half a cosine."""

    seed: int
    n_epochs: int = 80
    batch_size: int = 50
    rate: float = 2e-3
    decay: float = 1e-2  # of the weights, a step, times the rate
    noise: float = 0.2  # standard deviation, added to every pixel, drawn again in every epoch


@dataclass(frozen=True)
class Trained:
    """A network, its weights, and the facts that stand in its file."""

    network: Network
    weights: Weights
    facts: dict[str, str]


def write_zoo(folder: Path) -> dict[str, float]:
    """Train all eight networks, write them into ``folder``, and return the accuracy of each on the probe."""
    probe = digits("probe")
    accuracies = {}
    with threadpool_limits(1):  # the order of sums, and so the bytes, would depend on the threads
        for name, trained in train_zoo(digits("train")).items():
            accuracies[name] = accuracy(trained, probe)
            facts = trained.facts | {"probe_accuracy": f"{accuracies[name]:.4f}"}
            (folder / f"{name}.onnx").write_bytes(onnx_bytes(trained.network, trained.weights, facts))
    return accuracies


def train_zoo(train: Digits) -> dict[str, Trained]:
    """Return the eight networks by name."""
    zoo = {f"mlp_s{seed}": train_from_scratch(MLP, train, Recipe(seed)) for seed in range(3)}
    original = zoo["mlp_s0"]
    zoo["mlp_s0_finetuned"] = _finetuned(original, train)
    zoo["mlp_s0_permuted"] = permuted_copy(original, seed=11)
    zoo["mlp_untrained"] = Trained(MLP, initial_weights(MLP, 3), _facts(seed=3))
    zoo["cnn_s0"] = train_from_scratch(CNN, train, Recipe(0, n_epochs=40))
    zoo["tanh_s0"] = train_from_scratch(WIDE, train, Recipe(0))
    return zoo


def train_from_scratch(network: Network, train: Digits, recipe: Recipe) -> Trained:
    """Return ``network`` trained on the digits as they are."""
    return Trained(network, fit(network, initial_weights(network, recipe.seed), train, recipe), _facts(recipe.seed))


def permuted_copy(original: Trained, seed: int) -> Trained:
    """Return a network of the same function: its hidden units permuted, each hidden layer times its factor.

    ReLU(c x) = c ReLU(x) for c > 0, so what a layer is multiplied by, the next one divides by.
    """
    random = np.random.default_rng(seed)
    order, factor = np.arange(64), 1.0
    weights: Weights = {}
    for layer in original.network:
        if layer.kind == "linear":
            next_factor = FACTORS.get(layer.name, 1.0)
            next_order = random.permutation(layer.n_out) if layer.name in FACTORS else np.arange(layer.n_out)
            weight, bias = original.weights[f"{layer.name}.weight"], original.weights[f"{layer.name}.bias"]
            permuted = weight[order][:, next_order].astype(np.float64) * (next_factor / factor)
            weights[f"{layer.name}.weight"] = permuted.astype(np.float32)
            weights[f"{layer.name}.bias"] = (bias[next_order].astype(np.float64) * next_factor).astype(np.float32)
            order, factor = next_order, next_factor
    return Trained(original.network, weights, _facts(seed, base_model="mlp_s0", base_model_relation="copy"))


def fit(network: Network, weights: Weights, train: Digits, recipe: Recipe) -> Weights:
    """Return the weights after training by Adam (Kingma & Ba 2015) with decoupled decay."""
    random = np.random.default_rng((recipe.seed, 1))
    n_steps = recipe.n_epochs * (len(train.labels) // recipe.batch_size)
    weights = dict(weights)
    mean = {name: np.zeros_like(weight) for name, weight in weights.items()}
    square = {name: np.zeros_like(weight) for name, weight in weights.items()}
    for step in range(n_steps):
        if step % (n_steps // recipe.n_epochs) == 0:
            order = random.permutation(len(train.labels))
            noise = recipe.noise * random.standard_normal(train.inputs.shape)
            images = (train.inputs + noise).astype(np.float32)
        batch, order = order[: recipe.batch_size], order[recipe.batch_size :]
        rate = recipe.rate * (1 + np.cos(np.pi * step / n_steps)) / 2
        for name, gradient in gradients(network, weights, images[batch], train.labels[batch]).items():
            mean[name] = 0.9 * mean[name] + 0.1 * gradient
            square[name] = 0.999 * square[name] + 0.001 * gradient**2
            unbiased = mean[name] / (1 - 0.9 ** (step + 1))
            scale = np.sqrt(square[name] / (1 - 0.999 ** (step + 1))) + 1e-8
            update = unbiased / scale + recipe.decay * weights[name] * (weights[name].ndim > 1)
            weights[name] = (weights[name] - rate * update).astype(np.float32)
    return weights


def accuracy(trained: Trained, shown: Digits) -> float:
    """Return the share of digits that the network classifies correctly, in [0, 1]."""
    logits = activations(trained.network, trained.weights, shown.inputs)["logits"]
    return float((logits.argmax(axis=1) == shown.labels).mean())


def turned(shown: Digits) -> Digits:
    """Return digits turned by `TURN` degrees."""
    from scipy.ndimage import rotate

    images = rotate(shown.inputs.reshape(-1, 8, 8), TURN, axes=(2, 1), reshape=False, order=1)
    return replace(shown, inputs=images.reshape(-1, 64).astype(np.float32))


def _finetuned(original: Trained, train: Digits) -> Trained:
    weights = fit(original.network, original.weights, turned(train), Recipe(seed=10, n_epochs=15, rate=1e-3))
    facts = _facts(10, base_model="mlp_s0", base_model_relation="finetune")
    return Trained(original.network, weights, facts | {"changed_task": f"digits turned by {TURN} degrees"})


def _facts(seed: int, base_model: str = "", base_model_relation: str = "") -> dict[str, str]:
    """Return the facts of a network, as its file states them."""
    return {
        "base_model": base_model,
        "base_model_relation": base_model_relation,
        "license": "apache-2.0",
        "script": "lfm_tasks/zoo/train.py",
        "script_version": SCRIPT_VERSION,
        "seed": str(seed),
    }


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


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    for model, share in write_zoo(target).items():
        sys.stdout.write(f"{model}: {share:.1%} of the 797 probe digits\n")
