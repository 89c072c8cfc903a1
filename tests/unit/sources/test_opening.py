"""What a dataset says about its rows."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from lfm_tasks.catalog import Catalog
from lfm_tasks.errors import DataError
from lfm_tasks.sources.files.digests import DigestMemory
from lfm_tasks.sources.opening import _pixels_and_labels, digits, known_digests, open_source, read_dataset
from lfm_tasks.sources.raw_inputs import RawInputs

MODEL = {"activations": {"path": "{model}.npy", "dataset": "probe"}}


def catalog(folder: Path, dataset: dict[str, Any], *models: dict[str, Any]) -> Catalog:
    named = {f"m{number}": model for number, model in enumerate(models or [MODEL])}
    return Catalog.model_validate({"version": 1, "datasets": {"probe": dataset}, "models": named, "root": folder})


@pytest.mark.parametrize(
    ("saved", "ids"),
    [
        (np.array(["b", "a"]), ["b", "a"]),
        (np.array([10, 2]), ["10", "2"]),
        (np.array([10, 2], np.uint8), ["10", "2"]),
        (np.array(["é".encode(), b"a"]), ["é", "a"]),
    ],
)
def test_ids__are_text_in_the_order_of_the_file(saved: np.ndarray, ids: list[str], tmp_path: Path) -> None:
    np.save(tmp_path / "ids.npy", saved)
    assert read_dataset("probe", catalog(tmp_path, {"ids": {"path": "ids.npy"}})).ids.tolist() == ids


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        (
            np.array(["a", "b", "a", "b", "c"]),
            r"got 2 ids .* first 'a', 'b' \(in row 0 and row 2\), expected each",
        ),
        (np.array(["a", "", ""]), r"got 2 empty ids, first in row 1. Name each row"),
        (np.array([0.5, 1.5]), r"got float64 of shape \(2,\), expected one column of text or integers"),
        (np.array([["a"], ["b"]]), r"got <U1 of shape \(2, 1\)"),
        (np.array([b"\xff", b"a"]), r"got text that is not Unicode. Save it as UTF-8"),
    ],
)
def test_bad_ids__are_refused(saved: np.ndarray, message: str, tmp_path: Path) -> None:
    np.save(tmp_path / "ids.npy", saved)
    with pytest.raises(DataError, match=message) as caught:
        read_dataset("probe", catalog(tmp_path, {"ids": {"path": "ids.npy"}}))
    assert caught.value.reason == "bad_ids"


@pytest.mark.parametrize("teller", ["inputs", "labels", "activations"])
def test_positional_ids__count_the_rows_of_what_there_is(teller: str, tmp_path: Path) -> None:
    np.save(tmp_path / "inputs.npy", np.zeros((4, 2)))
    np.save(tmp_path / "labels.npy", np.array(["x", "y", "x", "y"]))
    np.save(tmp_path / "m0.npy", np.zeros((4, 3)))
    dataset = {"ids": "positional"} | ({teller: {"path": f"{teller}.npy"}} if teller != "activations" else {})

    rows = read_dataset("probe", catalog(tmp_path, dataset))

    assert rows.ids.tolist() == ["0", "1", "2", "3"]
    assert (rows.inputs is not None, rows.labels is not None) == (teller == "inputs", teller == "labels")


def test_positional_ids__that_nothing_tells_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing tells how many rows there are: m0\.npy: no such file") as caught:
        read_dataset("probe", catalog(tmp_path, {"ids": "positional"}))
    assert caught.value.reason == "bad_ids"


BAD_SIDES = {
    "length of labels": ("labels", np.arange(3), "bad_ids", r"dataset probe: got 3 labels and 2 ids, expected as many"),
    "length of inputs": ("inputs", np.zeros((3, 2)), "bad_ids", r"dataset probe: got 3 inputs and 2 ids"),
    "shape of labels": ("labels", np.zeros((2, 2)), "wrong_shape", r"got labels of shape \(2, 2\), expected one a row"),
    "type of labels": ("labels", np.zeros(2, complex), "wrong_dtype", r"got labels of type complex128"),
    "shape of inputs": ("inputs", np.zeros(2), "wrong_shape", r"got inputs of shape \(2,\), expected \(points, "),
    "type of inputs": ("inputs", np.array([["a"], ["b"]]), "wrong_dtype", r"got inputs of type <U1, expected numbers"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_SIDES)
def test_labels_and_inputs__have_to_fit_the_ids(case: str, tmp_path: Path) -> None:
    what, saved, reason, message = BAD_SIDES[case]
    np.save(tmp_path / "ids.npy", np.array(["a", "b"]))
    np.save(tmp_path / f"{what}.npy", saved)
    with pytest.raises(DataError, match=message) as caught:
        read_dataset("probe", catalog(tmp_path, {"ids": {"path": "ids.npy"}, what: {"path": f"{what}.npy"}}))
    assert caught.value.reason == reason


def test_builtin_digits__are_scikit_learns_split_in_two() -> None:
    pixels, labels = load_digits(return_X_y=True)
    train, probe = digits("train"), digits("probe")

    assert (len(train.ids), len(probe.ids)) == (1000, 797)
    assert not set(train.ids) & set(probe.ids)
    for part in (train, probe):
        rows = np.array([int(name.removeprefix("digits-")) for name in part.ids])
        np.testing.assert_array_equal(part.inputs * 16, pixels[rows])
        np.testing.assert_array_equal(part.labels, labels[rows])


def test_builtin_dataset__brings_inputs_and_labels(tmp_path: Path) -> None:
    rows = read_dataset("probe", catalog(tmp_path, {"builtin": "digits", "split": "train"}))
    assert rows.inputs is not None
    assert rows.labels is not None
    assert (len(rows.ids), rows.inputs.shape, len(rows.labels)) == (1000, (1000, 64), 1000)


def test_models_own_ids__replace_those_of_the_dataset(tmp_path: Path) -> None:
    np.save(tmp_path / "ids.npy", np.array(["a", "b", "c"]))
    np.save(tmp_path / "m0_ids.npy", np.array(["c", "a"]))
    np.save(tmp_path / "m0.npy", np.ones((2, 4)))
    own = {"activations": {**MODEL["activations"], "ids": {"path": "{model}_ids.npy"}}}
    zoo = catalog(tmp_path, {"ids": {"path": "ids.npy"}}, own)

    source = open_source("m0", zoo.model_on("m0"), zoo, read_dataset("probe", zoo))

    assert source.ids.tolist() == ["c", "a"]


def test_network__needs_inputs(tmp_path: Path) -> None:
    np.save(tmp_path / "ids.npy", np.array(["a", "b"]))
    zoo = catalog(tmp_path, {"ids": {"path": "ids.npy"}}, {"onnx": {"path": "m.onnx", "dataset": "probe"}})
    with pytest.raises(DataError, match="got no inputs in the dataset probe, expected them to run the network"):
        open_source("m0", zoo.model_on("m0"), zoo, read_dataset("probe", zoo))


def test_digits__are_those_that_scikit_learn_loads():
    pixels, labels = _pixels_and_labels()
    expected = load_digits(return_X_y=True)
    np.testing.assert_array_equal(pixels, expected[0])
    np.testing.assert_array_equal(labels, expected[1])


def test_raw_texts__bring_ids_and_labels_and_take_groups(tmp_path: Path) -> None:
    rows = [{"id": f"t{number}", "text": "words", "topic": number % 2} for number in range(4)]
    (tmp_path / "texts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    np.save(tmp_path / "groups.npy", np.array(["a", "a", "b", "b"]))
    texts = {"path": "texts.jsonl", "id": "id", "label": "topic"}

    read = read_dataset("probe", catalog(tmp_path, {"texts": texts, "groups": {"path": "groups.npy"}}))

    assert read.ids.tolist() == ["t0", "t1", "t2", "t3"]
    assert read.labels is not None
    assert read.groups is not None
    assert (read.labels.tolist(), read.groups.tolist()) == ([0, 1, 0, 1], ["a", "a", "b", "b"])
    assert isinstance(read.inputs, RawInputs)
    by_label = read_dataset("probe", catalog(tmp_path, {"texts": texts, "strata": "labels"}))
    assert by_label.strata is not None
    assert by_label.strata.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(("what", "reason"), [("labels", "bad_ids"), ("groups", "bad_groups")])
def test_files_beside_raw_texts__have_a_row_a_text(what: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("one\ntwo\n")
    np.save(tmp_path / "x.npy", np.arange(3))
    with pytest.raises(DataError, match=rf"dataset probe: got 3 {what} and 2 (texts|ids), expected as many") as caught:
        read_dataset("probe", catalog(tmp_path, {"texts": {"path": "texts.txt"}, what: {"path": "x.npy"}}))
    assert caught.value.reason == reason


def test_activations__may_lie_beside_raw_texts(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("one\ntwo\n")
    np.save(tmp_path / "m0.npy", np.ones((2, 4)))
    zoo = catalog(tmp_path, {"texts": {"path": "texts.txt"}})
    source = open_source("m0", zoo.model_on("m0"), zoo, read_dataset("probe", zoo))
    assert source.ids.tolist() == ["0", "1"]


def test_digests_of_the_last_run__are_read_once_while_they_stay(tmp_path: Path) -> None:
    zoo = catalog(tmp_path, {"ids": "positional"})
    assert known_digests(zoo).recall("a") is None
    memory = DigestMemory()
    memory.remember("a", 1)
    (tmp_path / ".lfm-atlas").mkdir()
    (tmp_path / ".lfm-atlas" / "digests.json").write_bytes(memory.as_json())
    known = known_digests(zoo)
    assert known.recall("a") == 1
    assert known_digests(zoo) is known
    memory.remember("a", 2)
    (tmp_path / ".lfm-atlas" / "new.json").write_bytes(memory.as_json())
    (tmp_path / ".lfm-atlas" / "new.json").replace(tmp_path / ".lfm-atlas" / "digests.json")
    assert known_digests(zoo).recall("a") == 2
