"""Over 50 zoos drawn by seed: planted copies and fine-tunes are found, and nothing else is.

Each zoo has 8 networks of scikit-learn, of other widths, activations and lengths of training, on the digits that
the shipped zoo learned from; a copy of one with its units in another order and scaled; and another trained further on
noisy digits. Nothing is declared.
"""

import copy
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML
from sklearn.neural_network import MLPClassifier

from lfm_atlas.cli.main import app
from lfm_tasks.sources.opening import digits

# The default limit was chosen on the zoos of seeds 0 to 59 and 100 to 149; these are others.
FIRST_SEED, N_ZOOS, N_NETWORKS = 200, 50, 8
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


def audit(folder: Path, models: dict[str, dict[str, np.ndarray]]) -> dict[str, Any]:
    folder.mkdir()
    np.save(folder / "ids.npy", digits("probe").ids)
    for name, recorded in models.items():
        np.savez(folder / f"{name}.npz", **recorded)
    source = {"activations": {"path": "{model}.npz", "key": "{layer}", "dataset": "probe"}}
    atlas = {"measures": ["overlap"], "intervals": {"n_splits": 0}}
    catalog = {
        "version": 1,
        "datasets": {"probe": {"ids": {"path": "ids.npy"}}},
        "models": dict.fromkeys(models, source),
        "atlas": atlas,
    }
    with (folder / "data_catalog.yaml").open("w") as file:
        yaml = YAML()
        yaml.representer.ignore_aliases = lambda data: True
        yaml.dump(catalog, file)
    app(["audit", str(folder / "data_catalog.yaml"), "--no-prefect", "--no-dask"], result_action="return_value")
    return {check["name"]: check for check in json.loads((folder / "audits" / "audit.json").read_text())["checks"]}


@pytest.mark.slow
def test_planted_relatives__are_found_in_95_of_100_zoos_and_others_told_in_at_most_5(tmp_path: Path) -> None:
    copies = tunes = alarms = 0
    for seed in range(FIRST_SEED, FIRST_SEED + N_ZOOS):
        models, copied, tuned = draw_zoo(seed)
        checks = audit(tmp_path / f"zoo{seed}", models)
        duplicates = [{row["source"], row["target"]} for row in checks["near_duplicate"]["findings"]]
        relatives = {row["source"] + " " + row["target"]: row["z"] for row in checks["undeclared_lineage"]["findings"]}
        found = [*duplicates, *(set(pair.split()) for pair in relatives)]
        copies += copied in duplicates
        tunes += tuned in found
        alarms += any(pair not in (copied, tuned) for pair in found)
        print(seed, copied in duplicates, tuned in found, relatives)  # noqa: T201 - shown when it fails, or by -s

    assert copies >= 0.95 * N_ZOOS, f"{copies} copies"
    assert tunes >= 0.95 * N_ZOOS, f"{tunes} fine-tunes"
    assert alarms <= 0.05 * N_ZOOS, f"{alarms} audits with a false alarm"
