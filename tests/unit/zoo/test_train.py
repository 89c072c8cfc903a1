"""The training script: its gradients are right, and it writes the same bytes twice."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from threadpoolctl import threadpool_limits

from lfm_tasks.sources.opening import digits
from lfm_tasks.zoo.networks import Network, activations, cnn, gradients, initial_weights, mlp
from lfm_tasks.zoo.train import Recipe, onnx_bytes, train_from_scratch, write_zoo

TINY = mlp((64, 12, 10), "relu")
NETWORKS = {"relu": TINY, "tanh": mlp((64, 6, 10), "tanh"), "cnn": cnn(2, 5)}


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS.keys())
def test_gradients__equal_finite_differences(network: Network) -> None:
    random = np.random.default_rng(0)
    inputs, labels = random.random((4, 64)), np.array([3, 1, 4, 1])
    weights = {name: weight.astype(np.float64) for name, weight in initial_weights(network, 0).items()}
    computed = gradients(network, weights, inputs, labels)

    def loss(name: str, place: tuple[np.intp, ...], step: float) -> float:
        perturbed = weights[name].copy()
        perturbed[place] += step
        logits = activations(network, weights | {name: perturbed}, inputs)["logits"]
        return float(np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(4), labels]))

    assert computed.keys() == weights.keys()
    for name, weight in weights.items():
        for flat in random.choice(weight.size, min(5, weight.size), replace=False):
            place = np.unravel_index(flat, weight.shape)
            slope = (loss(name, place, 1e-6) - loss(name, place, -1e-6)) / 2e-6
            assert computed[name][place] == pytest.approx(slope, abs=1e-7), name


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS.keys())
def test_onnx_bytes__computes_what_numpy_computes(network: Network) -> None:
    weights, inputs = initial_weights(network, 1), digits("probe").inputs[:7]
    session = onnxruntime.InferenceSession(onnx_bytes(network, weights, {}), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"pixels": inputs})
    np.testing.assert_allclose(logits, activations(network, weights, inputs)["logits"], atol=1e-5)


def test_training__twice_writes_the_same_bytes_and_learns() -> None:
    train = digits("train")
    with threadpool_limits(1):
        first, second = (train_from_scratch(TINY, train, Recipe(5, n_epochs=15)) for _ in range(2))
    assert onnx_bytes(TINY, first.weights, first.facts) == onnx_bytes(TINY, second.weights, second.facts)
    logits = activations(TINY, first.weights, train.inputs)["logits"]
    assert (logits.argmax(axis=1) == train.labels).mean() > 0.5


def test_training__another_seed_writes_other_bytes() -> None:
    train = digits("train")
    first, second = (train_from_scratch(TINY, train, Recipe(seed, n_epochs=1)) for seed in (5, 6))
    assert onnx_bytes(TINY, first.weights, {}) != onnx_bytes(TINY, second.weights, {})


@pytest.mark.slow
def test_write_zoo__twice_writes_the_same_files(tmp_path: Path) -> None:
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
        accuracies = write_zoo(folder)
    assert len(accuracies) == 8
    for path in folders[0].iterdir():
        assert path.read_bytes() == (folders[1] / path.name).read_bytes(), path.name
