"""The shipped files are what their README says."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest

from lfm_tasks.sources.networks.onnx_models import OnnxSource
from lfm_tasks.sources.opening import digits
from lfm_tasks.zoo import zoo_folder

HIDDEN = ("relu1", "relu2", "relu3", "relu4")
# Accuracy on the 797 probe digits, as the README states it.
ACCURACY = {
    "mlp_s0": 0.979,
    "mlp_s1": 0.977,
    "mlp_s2": 0.972,
    "mlp_s0_finetuned": 0.957,
    "mlp_s0_permuted": 0.979,
    "mlp_untrained": 0.024,
    "cnn_s0": 0.979,
    "tanh_s0": 0.977,
}


def record(model: str, pool: str = "mean") -> dict[str, np.ndarray]:
    probe = digits("probe")
    source = OnnxSource(zoo_folder() / f"{model}.onnx", probe.inputs, probe.ids, pool=pool)
    batches = list(source.batches(source.layer_names(), np.arange(len(probe.ids))))
    return {layer: np.concatenate([batch[layer] for batch in batches]) for layer in source.layer_names()}


def test_zoo__holds_the_files_of_the_readme() -> None:
    assert sorted(path.stem for path in zoo_folder().glob("*.onnx")) == sorted(ACCURACY)
    readme = (zoo_folder() / "README.md").read_text(encoding="utf-8")
    for model, accuracy in ACCURACY.items():
        row = next(line for line in readme.splitlines() if line.startswith(f"| `{model}.onnx`"))
        assert f"| {accuracy * 100:.1f} % |" in row


def test_zoo__is_smaller_than_500_kb() -> None:
    assert sum(path.stat().st_size for path in zoo_folder().glob("*.onnx")) < 500_000


@pytest.mark.parametrize("model", ACCURACY)
def test_zoo__has_the_stated_accuracy(model: str) -> None:
    accuracy = (record(model)["logits"].argmax(axis=1) == digits("probe").labels).mean()
    assert accuracy == pytest.approx(ACCURACY[model], abs=0.002)
    facts = {entry.key: entry.value for entry in onnx.load(zoo_folder() / f"{model}.onnx").metadata_props}
    assert float(facts["probe_accuracy"]) == pytest.approx(accuracy, abs=0.002)


@pytest.mark.parametrize("model", ACCURACY)
@pytest.mark.parametrize("pool", ["mean", "flatten"])
def test_zoo__has_no_zero_rows_and_no_constant_layers(model: str, pool: str) -> None:
    for layer, activations in record(model, pool).items():
        assert activations.dtype == np.float32, layer
        lengths = np.linalg.norm(activations, axis=1, keepdims=True)
        assert lengths.min() > 1e-3, layer
        if activations.shape[1] > 1:  # the mean of an image is one number: no direction to tell points apart by
            assert len(np.unique(activations / lengths, axis=0)) == len(activations), layer


@pytest.mark.parametrize("model", ACCURACY)
def test_zoo__layers_read_well(model: str) -> None:
    probe = digits("probe")
    source = OnnxSource(zoo_folder() / f"{model}.onnx", probe.inputs, probe.ids)
    expected = [name.replace("relu", "tanh") if model == "tanh_s0" else name for name in HIDDEN]
    names = [name for name in source.layer_names() if name.startswith(("relu", "tanh", "logits"))]
    assert names == [*expected, "logits"]


def test_zoo__permuted_copy_has_the_same_units_elsewhere_times_one_factor_a_layer() -> None:
    original, copy = record("mlp_s0"), record("mlp_s0_permuted")
    for layer in HIDDEN:
        live = np.flatnonzero(original[layer].any(axis=0))
        cosines = unit_columns(original[layer][:, live]).T @ unit_columns(copy[layer])
        partner = cosines.argmax(axis=1)
        assert len(set(partner)) == len(live)
        assert np.any(partner != live), "the units stand where they stood"
        factor = np.linalg.norm(copy[layer]) / np.linalg.norm(original[layer])
        assert abs(np.log(factor)) > 0.4
        scale = np.abs(original[layer]).max()
        np.testing.assert_allclose(
            copy[layer][:, partner] / factor, original[layer][:, live], rtol=1e-5, atol=1e-5 * scale
        )
    np.testing.assert_allclose(copy["logits"], original["logits"], rtol=1e-5, atol=1e-4)


def test_zoo__permuted_copy_has_the_same_neighbors() -> None:
    original, copy = record("mlp_s0"), record("mlp_s0_permuted")
    for layer in (*HIDDEN, "logits"):
        shared = [len(a & b) for a, b in zip(neighbors(original[layer]), neighbors(copy[layer]), strict=True)]
        assert np.mean(shared) >= 0.999 * 50


def test_zoo__finetuned_is_near_its_original_and_not_equal() -> None:
    original, near, other = record("mlp_s0"), record("mlp_s0_finetuned"), record("mlp_s1")
    for layer in HIDDEN:
        to_near = alignment(original[layer], near[layer])
        assert alignment(original[layer], other[layer]) < to_near < 0.9999


@pytest.mark.parametrize(
    ("model", "base", "relation"),
    [
        ("mlp_s0_finetuned", "mlp_s0", "finetune"),
        ("mlp_s0_permuted", "mlp_s0", "copy"),
        ("mlp_s1", "", ""),
    ],
)
def test_zoo__files_say_where_they_come_from(model: str, base: str, relation: str) -> None:
    stored = onnx.load(zoo_folder() / f"{model}.onnx")
    facts = {entry.key: entry.value for entry in stored.metadata_props}
    assert (facts["base_model"], facts["base_model_relation"]) == (base, relation)
    assert facts["license"] == "apache-2.0"
    assert facts["seed"].isdigit()
    assert facts["script_version"] == "1"
    assert stored.opset_import[0].version <= 13
    assert stored.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_digits__splits_are_disjoint_and_complete() -> None:
    train, probe = digits("train"), digits("probe")
    assert (train.inputs.shape, probe.inputs.shape) == ((1000, 64), (797, 64))
    assert sorted([*train.ids, *probe.ids]) == [f"digits-{index:04d}" for index in range(1797)]
    assert all(a < b for a, b in pairwise(probe.ids))


def test_digits__ids_are_places_in_the_bundled_set() -> None:
    from sklearn.datasets import load_digits

    probe, bundled = digits("probe"), load_digits()
    index = np.array([int(name.removeprefix("digits-")) for name in probe.ids])
    np.testing.assert_array_equal(probe.inputs, bundled.data[index] / 16)
    np.testing.assert_array_equal(probe.labels, bundled.target[index])
    assert probe.inputs.dtype == np.float32
    assert (probe.inputs.min(), probe.inputs.max()) == (0, 1)


def test_digits__every_class_is_in_both_splits_in_like_number() -> None:
    for split in ("train", "probe"):
        shares = np.bincount(digits(split).labels, minlength=10) / len(digits(split).labels)
        assert shares.min() > 0.08
        assert shares.max() < 0.12


def test_zoo__is_beside_its_script() -> None:
    assert (zoo_folder() / "train.py").is_file()
    assert isinstance(zoo_folder(), Path)


def unit_columns(values: np.ndarray) -> np.ndarray:
    return values / np.maximum(np.linalg.norm(values, axis=0), 1e-30)


def neighbors(values: np.ndarray) -> list[set[int]]:
    rows = values.astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = rows @ rows.T
    np.fill_diagonal(cosines, -2)
    return [set(row) for row in np.argsort(-cosines, axis=1)[:, :50].tolist()]


def alignment(first: np.ndarray, second: np.ndarray) -> float:
    """Return the linear CKA."""
    first, second = first - first.mean(axis=0), second - second.mean(axis=0)
    cross = np.linalg.norm(first.T @ second) ** 2
    return float(cross / np.linalg.norm(first.T @ first) / np.linalg.norm(second.T @ second))
