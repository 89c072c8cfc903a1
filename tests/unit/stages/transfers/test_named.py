"""A map by name: its anchors are read from files that people write, it is fitted once, and listed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm_tasks.catalog import read_catalog
from lfm_tasks.errors import DataError
from lfm_tasks.runtime.session import open_run
from lfm_tasks.stages.transfers.job import AnchorSpec
from lfm_tasks.stages.transfers.named import find_space, fit_named_map, named_maps_as_lines, read_pairs
from lfm_tasks.stores.named_maps import NamedMap
from lfm_tasks.zoo import write_start


def refusal(reason: str, message: str, act: object) -> None:
    with pytest.raises(DataError, match=message) as caught:
        act()  # type: ignore[operator]
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "c\na\nb\n"),
        ("a.csv", "c\na\nb"),
        ("a.csv", "\ufeffc\r\na\r\n\r\nb\r\n"),
        ("a.npy", np.array(["c", "a", "b"])),
        ("a.npy", np.array([["c", "c"], ["a", "a"], ["b", "b"]])),
        ("a.csv", "c, c\na,a\nb,b\n"),
    ],
)
def test_files__of_one_and_of_two_columns_give_pairs_in_order(tmp_path: Path, name: str, content: object) -> None:
    path = tmp_path / name
    if isinstance(content, str):
        path.write_text(content, encoding="utf-8")
    else:
        np.save(path, content)
    assert read_pairs(path) == (("a", "a"), ("b", "b"), ("c", "c"))


def test_two_columns__are_source_and_target(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x1,y3\nx2,y2\nx3,y1\n")
    assert read_pairs(tmp_path / "a.csv") == (("x1", "y3"), ("x2", "y2"), ("x3", "y1"))
    np.save(tmp_path / "a.npy", np.array([[1, 30], [2, 20], [3, 10]]))
    assert read_pairs(tmp_path / "a.npy") == (("1", "30"), ("2", "20"), ("3", "10"))


@pytest.mark.parametrize(
    ("name", "content", "reason", "message"),
    [
        ("a.txt", "a\nb\n", "few_anchors", "got 2 anchors, expected at least 3. Give more ids"),
        ("a.txt", "", "few_anchors", "got 0 anchors"),
        ("a.txt", "a\nb\na\n", "bad_anchors", "got the source id 'a' more than once among 3, expected each once"),
        ("a.csv", "a,x\nb,x\nc,y\n", "bad_anchors", "got the target id 'x' more than once"),
        ("a.txt", "a\n\nb\n", "bad_anchors", "got an empty source id in row 2, expected an id in every line"),
        ("a.csv", "a,x\nb\n", "wrong_shape", r"got rows of 1, 2 columns, expected one column of ids, or two"),
        ("a.csv", "a,x,y\n", "wrong_shape", "got rows of 3 columns"),
        ("a.npy", np.ones(4), "wrong_dtype", "got float64, expected ids: text or whole numbers"),
        ("a.npy", np.ones((4, 3), int), "wrong_shape", r"got the shape \(4, 3\), expected one column of ids, or two"),
        ("a.dat", "a", "missing_source", "got a .dat file, expected one of .npy"),
        ("a.npy", "no array", "damaged_source", "a.npy: cannot be read"),
    ],
)
def test_files__that_are_no_anchors_are_refused(
    tmp_path: Path, name: str, content: object, reason: str, message: str
) -> None:
    path = tmp_path / name
    if isinstance(content, str):
        path.write_text(content)
    else:
        np.save(path, content)
    refusal(reason, message, lambda: read_pairs(path))


def test_files__that_are_not_there_or_no_text_are_refused(tmp_path: Path) -> None:
    refusal("missing_source", r"no.csv: cannot be read \(No such file", lambda: read_pairs(tmp_path / "no.csv"))
    refusal("missing_source", r"no.txt: no such file", lambda: read_pairs(tmp_path / "no.txt"))
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00a")
    refusal("wrong_dtype", "got no UTF-8 text with commas", lambda: read_pairs(tmp_path / "a.csv"))


def fitted(folder: Path, source: str, target: str, anchor_spec: AnchorSpec) -> Any:
    catalog = read_catalog(folder / "data_catalog.yaml")
    with open_run(catalog, lambda *_: None, in_process=True) as run:
        return fit_named_map(run, source, target, anchor_spec)


def test_spaces__of_two_datasets_are_refused(tmp_path: Path) -> None:
    write_start(tmp_path)
    path = tmp_path / "data_catalog.yaml"
    text = path.read_text().replace("datasets:\n", "datasets:\n  train: {builtin: digits, split: train}\n")
    path.write_text(text.replace('{model}.onnx", dataset: digits}', '{model}.onnx", dataset: train}', 1))
    with pytest.raises(DataError, match="got mlp_s0/relu4 on the dataset train and mlp_s1/relu4 on digits, expected"):
        fitted(tmp_path, "mlp_s0/relu4", "mlp_s1/relu4", AnchorSpec())


def test_map__is_another_one_where_the_head_is(tmp_path: Path) -> None:
    write_start(tmp_path)
    first = fitted(tmp_path, "mlp_s0/relu4", "mlp_s1/relu4", AnchorSpec())
    again = fitted(tmp_path, "mlp_s0/relu4", "mlp_s1/relu4", AnchorSpec())
    seeded = fitted(tmp_path, "mlp_s0/relu4", "mlp_s1/relu4", AnchorSpec(seed=1))
    path = tmp_path / "data_catalog.yaml"
    wanted = "\n  mlp_s1:\n    head: {layer: relu4, output: relu4}"
    path.write_text(path.read_text().replace("\n  mlp_s1:", wanted))
    other = fitted(tmp_path, "mlp_s0/relu4", "mlp_s1/relu4", AnchorSpec())

    assert (first.is_new, again.is_new, seeded.is_new, other.is_new) == (True, False, True, True)
    assert first.named == again.named
    assert first.facts["own_accuracy"] > 0.97
    assert other.facts["own_accuracy"] < 0.5


@pytest.mark.parametrize(
    ("name", "reason", "message"),
    [
        ("model7/layer0", "missing_source", "got no model 'model7' in the catalog; did you mean"),
        (
            "model0",
            "unknown_layer",
            "got no space 'model0', expected model/layer with a layer that the catalog chooses",
        ),
        ("model0/layer9", "unknown_layer", "got no space 'model0/layer9', expected model/layer"),
    ],
)
def test_space__that_is_not_there_is_refused(
    tmp_path: Path, related_spaces: Any, write_zoo: Callable[..., Path], name: str, reason: str, message: str
) -> None:
    catalog = read_catalog(write_zoo(tmp_path, related_spaces(2)) / "data_catalog.yaml")
    assert find_space(catalog, "model0/layer0").space.name == "model0/layer0"
    refusal(reason, message, lambda: find_space(catalog, name))


def test_named_maps__are_listed_one_a_line() -> None:
    maps = [
        NamedMap("short", "probe", "a/x", "b/x", "anchors", 12, "0" * 64),
        NamedMap("a-longer-name", "probe", "a/x", "b/y", "full", 0, "1" * 64),
    ]
    assert named_maps_as_lines(maps).split("\n") == [
        "short          a/x -> b/x  12 anchors",
        "a-longer-name  a/x -> b/y  full",
    ]
    assert named_maps_as_lines([]) == ""
