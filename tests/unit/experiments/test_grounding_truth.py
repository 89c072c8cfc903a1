"""What catalogs declare of their networks: who takes part in which grounding, halves, and what is refused."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from lfm_tasks.errors import DataError
from lfm_tasks.experiments.grounding_truth import disagreement, divergence, known_datasets, usable_groundings
from lfm_tasks.experiments.source_zoo import SourceZoo
from lfm_tasks.spaces import Space
from lfm_tasks.stages.activations.stage import RecordedSpace


def source(meta: dict[str, dict[str, Any]], root: Path = Path(), n_layers: int = 3) -> SourceZoo:
    """Return a zoo with recorded layers of these networks."""
    spaces = tuple(
        RecordedSpace(Space("probe", name, f"layer{depth}"), f"{name}{depth}", depth / 2, "", "", 10, 4)
        for name in meta
        for depth in range(n_layers)
    )
    models = {name: SimpleNamespace(meta=known) for name, known in meta.items()}
    return cast(SourceZoo, SimpleNamespace(catalog=SimpleNamespace(models=models, root=root), spaces=spaces))


def noisy(n: int = 4) -> dict[str, dict[str, Any]]:
    return {f"n{share}_{i}": {"groups": {"noise": share}} for share in (0, 0.5) for i in range(n)}


def test_groups__are_told_apart_in_both_halves() -> None:
    [dataset] = known_datasets(source(noisy()))
    assert list(usable_groundings([dataset])) == ["noise"]
    for half in dataset.halves():
        assert half.group_numbers("noise").tolist() == [1, 1, 0, 0]
    assert [network.name for network in dataset.halves()[0].networks] == ["n0.5_0", "n0.5_2", "n0_0", "n0_2"]


def test_families__stay_together_and_are_a_grounding() -> None:
    meta: dict[str, dict[str, Any]] = {f"base{i}": {} for i in range(4)}
    meta |= {f"tuned{i}": {"base_model": f"base{i}"} for i in range(4)}
    [dataset] = known_datasets(source(meta))
    first, second = dataset.halves()
    assert [network.name for network in first.networks] == ["base0", "base2", "tuned0", "tuned2"]
    assert first.group_numbers("lineage").tolist() == [0, 1, 0, 1]
    assert len(second) == 4
    numbers, facts = first.units()
    assert numbers.tolist() == [0, 1, 0, 1]
    assert len(set(facts)) == 1


def test_seeds__with_an_accuracy_are_asked_for_accuracy_and_layers() -> None:
    meta = {f"s{i}": {"accuracy": 0.9 + i / 100} for i in range(6)} | noisy()
    [dataset] = known_datasets(source(meta))
    assert list(usable_groundings([dataset])) == ["accuracy", "noise", "layer_order", "layer_matching"]
    half = dataset.halves()[0]
    assert {half.networks[place].name for place in half.with_grounding("layer_matching")} <= {f"s{i}" for i in range(6)}


@pytest.mark.parametrize(
    ("known", "reason", "message"),
    [
        ({"groups": "noisy"}, "wrong_dtype", "got groups: noisy in its meta, expected a value for each name"),
        (
            {"groups": {"noise": [1, 2]}},
            "wrong_dtype",
            "got .* expected a value for each name: groups: {label_noise: 0.5}",
        ),
        ({"groups": {"lineage": 1}}, "bad_name", "got the group lineage in its meta, the name of another grounding"),
        ({"accuracy": 91}, "wrong_dtype", "got accuracy: 91 in its meta, expected a number from 0 to 1"),
        ({"accuracy": True}, "wrong_dtype", "got accuracy: True in its meta, expected a number from 0 to 1"),
        ({"outputs": "none.npy"}, "missing_source", "got no readable array at outputs: none.npy"),
        ({"outputs": "flat.npy"}, "wrong_shape", r"got \(10,\) in outputs: flat.npy, expected floating-point numbers"),
        ({"outputs": "logits.npy"}, "not_finite", "got rows that are no probabilities .* Store the softmax"),
    ],
)
def test_declarations__that_cannot_be_true_are_refused(
    tmp_path: Path, known: dict[str, Any], reason: str, message: str
) -> None:
    np.save(tmp_path / "flat.npy", np.ones(10))
    np.save(tmp_path / "logits.npy", np.full((10, 3), 2.0))
    with pytest.raises(DataError, match=f"model odd: {message}") as refused:
        known_datasets(source(noisy() | {"odd": known}, tmp_path))
    assert refused.value.reason == reason


def test_outputs__of_other_points_are_refused(tmp_path: Path) -> None:
    for name, n_points in (("a", 10), ("b", 9)):
        np.save(tmp_path / f"{name}.npy", np.full((n_points, 2), 0.5))
    with pytest.raises(DataError, match=r"got outputs of \(10, 2\) for a and \(9, 2\) for b, expected the same points"):
        known_datasets(source({name: {"outputs": f"{name}.npy"} for name in ("a", "b")}, tmp_path))


def test_catalogs__that_know_too_little_are_refused() -> None:
    catalogs: list[dict[str, dict[str, Any]]] = [{"a": {}, "b": {}}, noisy(2), {"a": {"groups": {"noise": 0}}}]
    for meta in catalogs:
        with pytest.raises(
            DataError, match="too little known of them that a score could agree with, expected two groups"
        ):
            known_datasets(source(meta))


def test_outputs__differ_by_their_answers_and_by_their_probabilities() -> None:
    sure, unsure = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[0.5, 0.5], [0.5, 0.5]])
    swapped = sure[::-1]
    assert disagreement([sure, unsure, swapped])[0].tolist() == [0.0, 0.5, 1.0]
    found = divergence([sure, unsure, swapped])
    assert found[0, 2] == pytest.approx(1.0)
    # H(.75, .25) − H(.5, .5)/2, in bits.
    assert found[0, 1] == found[1, 0] == pytest.approx(0.811278 - 0.5, abs=1e-6)
