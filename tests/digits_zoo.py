"""Zoos of digits, drawn by seed: networks of scikit-learn, a copy of one, another that was trained further.

Each zoo has 8 networks of other widths, activations and lengths of training, on the digits that the shipped zoo learned
from; a copy of one with its units in another order and scaled; and another trained further on noisy digits.
"""

import copy
import warnings
from collections.abc import Callable

import numpy as np
from sklearn.neural_network import MLPClassifier

from lfm_tasks.sources.opening import digits

N_NETWORKS = 8
WIDTHS = ((64, 48), (48, 32), (96, 64), (64, 64))
ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"relu": lambda x: np.maximum(x, 0), "tanh": np.tanh}


def trained(network: MLPClassifier, inputs: np.ndarray, labels: np.ndarray) -> MLPClassifier:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has not converged: short training is on purpose
        return network.fit(inputs, labels)


def layers(network: MLPClassifier, inputs: np.ndarray) -> dict[str, np.ndarray]:
    found, rows = {}, inputs
    for number, (weights, bias) in enumerate(zip(network.coefs_[:-1], network.intercepts_[:-1], strict=True)):
        rows = found[f"hidden{number}"] = ACTIVATIONS[network.activation](rows @ weights + bias)
    return found | {"logits": rows @ network.coefs_[-1] + network.intercepts_[-1]}


def draw_zoo(seed: int) -> tuple[dict[str, dict[str, np.ndarray]], set[str], set[str]]:
    """Return activations by model and layer, the pair of the copy, and that of the fine-tune."""
    generator = np.random.default_rng(seed)
    train, probe = digits("train"), digits("probe")
    networks = [
        trained(
            MLPClassifier(
                WIDTHS[generator.integers(4)],
                activation=("relu", "tanh")[generator.integers(2)],
                max_iter=int(generator.integers(25, 60)),
                random_state=int(generator.integers(1 << 30)),
                learning_rate_init=3e-3,
            ),
            train.inputs,
            train.labels,
        )
        for _ in range(N_NETWORKS)
    ]
    models = {f"m{number}": layers(network, probe.inputs) for number, network in enumerate(networks)}
    copied, tuned = generator.choice(N_NETWORKS, 2, replace=False)
    models["copy"] = {
        name: rows[:, generator.permutation(rows.shape[1])] * generator.uniform(0.3, 3)
        for name, rows in models[f"m{copied}"].items()
    }
    further = copy.deepcopy(networks[tuned])
    further.set_params(warm_start=True, max_iter=int(generator.integers(5, 20)))
    noisy = np.clip(train.inputs + generator.normal(0, 0.15, train.inputs.shape), 0, 1)
    models["finetune"] = layers(trained(further, noisy, train.labels), probe.inputs)
    return models, {"copy", f"m{copied}"}, {"finetune", f"m{tuned}"}
