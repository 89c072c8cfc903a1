"""Models on several datasets are opened on each; comparisons across datasets say what they lack before a run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm_tasks.catalog import read_catalog
from lfm_tasks.sources.opening import DatasetRows
from lfm_tasks.stages.inventory.correspondence import joint_labels
from lfm_tasks.stages.inventory.requests import unknown_measures
from lfm_tasks.stages.inventory.stage import Zoo, validate_catalog

ACROSS = {"sources": "m", "targets": "m/one", "dataset": "a", "target_dataset": "b"}


def opened(folder: Path, *, labels: dict[str, Any] | None = None, **sections: Any) -> Zoo:
    """Open a model with two layers on the datasets a and b; ``labels``: those of each dataset."""
    datasets = {}
    for dataset in "ab":
        np.savez(folder / f"{dataset}_m.npz", one=np.random.default_rng(0).random((40, 3)), two=np.eye(40, 3) + 1)
        np.save(folder / f"{dataset}_ids.npy", np.arange(40))
        datasets[dataset] = {"ids": {"path": f"{dataset}_ids.npy"}}
        if labels and dataset in labels:
            np.save(folder / f"{dataset}_labels.npy", labels[dataset])
            datasets[dataset]["labels"] = {"path": f"{dataset}_labels.npy"}
    sources = [{"path": "{dataset}_{model}.npz", "key": "{layer}", "dataset": dataset} for dataset in "ab"]
    content = {
        "version": 1,
        "datasets": datasets,
        "models": {"m": {"activations": sources}},
        "atlas": {"graph": {"n_neighbors": 5}, "n_eigenpairs": 5},
        **sections,
    }
    (folder / "data_catalog.yaml").write_text(json.dumps(content))
    return validate_catalog(read_catalog(folder / "data_catalog.yaml", {}), lambda *_: None)


def test_each_dataset__has_spaces_of_the_model(tmp_path: Path) -> None:
    zoo = opened(tmp_path)

    assert [tuple(one.space) for one in zoo.spaces] == [
        (dataset, "m", layer) for dataset in "ab" for layer in ("one", "two")
    ]
    assert [one.depth for one in zoo.spaces] == [0, 1, 0, 1]
    assert zoo.failures == ()
    assert zoo.across == ()


def test_model_that_one_dataset_lacks__is_there_on_the_other(tmp_path: Path) -> None:
    sources = [{"path": "a_m.npz", "key": "{layer}", "dataset": "a"}, {"path": "no/{layer}.npy", "dataset": "b"}]

    zoo = opened(tmp_path, models={"m": {"activations": sources}})

    assert {one.space.dataset for one in zoo.spaces} == {"a"}
    (failure,) = zoo.failures
    assert (failure.dataset, failure.model, failure.reason) == ("b", "m", "missing_source")
    assert failure.message.startswith("on b: no/")


def test_comparison_across__has_the_spaces_of_both_datasets_and_maps_alone(tmp_path: Path) -> None:
    zoo = opened(
        tmp_path,
        comparisons={"c": ACROSS | {"maps": {"regime": "unsupervised"}}},
        atlas={"graph": {"n_neighbors": 5}, "n_eigenpairs": 5, "measures": ["overlap", "cka_linear", "lfm"]},
    )

    (part,) = zoo.across
    assert zoo.parts == ()
    assert [tuple(space) for space in part.sources] == [("a", "m", "one"), ("a", "m", "two")]
    assert [tuple(space) for space in part.targets] == [("b", "m", "one")]
    assert (part.dataset, part.target_dataset, part.measures) == ("a", "b", ("lfm", "overlap"))
    # What no comparison asks for is not recorded.
    assert len(zoo.spaces) == 3


@pytest.mark.parametrize(
    ("labels", "reason", "message"),
    [
        ({"a": np.arange(40) % 3}, "missing_source", "got regime labels, and no labels in the dataset b"),
        (
            {"a": np.arange(40) % 3, "b": np.full(40, "x")},
            "one_class",
            r"got 0 labels that both datasets have ('0' first in a and 'x' first in b), expected at least 2. Call",
        ),
        (
            {"a": np.arange(40) % 3, "b": np.full(40, 2)},
            "one_class",
            r"got 1 labels that both datasets have ('0' first in a and '2' first in b), expected at least 2",
        ),
    ],
)
def test_comparison_from_labels__needs_two_in_common(
    labels: dict[str, Any], reason: str, message: str, tmp_path: Path
) -> None:
    zoo = opened(tmp_path, labels=labels, comparisons={"c": ACROSS | {"maps": {"regime": "labels"}}})

    assert zoo.across == ()
    (failure,) = zoo.failures
    assert (failure.model, failure.reason) == ("comparisons.c.maps", reason)
    assert failure.message.startswith(message)


def test_layer_that_one_side_lacks__is_told_of_that_side(tmp_path: Path) -> None:
    across = ACROSS | {"maps": {"regime": "unsupervised"}, "targets": "m/three"}

    (failure,) = opened(tmp_path, comparisons={"c": across}).failures

    assert (failure.dataset, failure.model, failure.reason) == ("b", "comparisons.c.targets", "unknown_layer")


def test_joint_labels__number_the_same_label_alike() -> None:
    ids = np.array(["p", "q", "r"])
    source = DatasetRows(ids, np.array([2.0, np.nan, 1.0]))
    target = DatasetRows(ids[::-1], np.array(["1.0", "cat", ""]))

    first, second = joint_labels(source, target)

    assert (first.ids.tolist(), first.classes.tolist()) == (["p", "r"], [1, 0])
    assert (second.ids.tolist(), second.classes.tolist()) == (["q", "r"], [2, 0])


@pytest.mark.parametrize(
    ("comparison", "atlas", "where", "message"),
    [
        (
            {"measures": ["lfm", "cka_linear"]},
            {},
            ("comparisons", "c", "measures", 1),
            "got 'cka_linear', expected mea",
        ),
        ({}, {"measures": ["cka_linear"]}, ("comparisons", "c"), "got no measure of maps in atlas.measures, expected"),
    ],
)
def test_measure_of_the_same_points__is_refused_across_datasets(
    comparison: dict[str, Any], atlas: dict[str, Any], where: tuple[str | int, ...], message: str
) -> None:
    across = ACROSS | {"maps": {"regime": "unsupervised"}} | comparison
    ((found, told),) = unknown_measures({"comparisons": {"c": across}, "atlas": atlas})

    assert found == where
    assert told.startswith(message)
    assert "two datasets share no points" in told
    within = {key: value for key, value in across.items() if key != "target_dataset"}
    assert unknown_measures({"comparisons": {"c": within}, "atlas": atlas}) == []
