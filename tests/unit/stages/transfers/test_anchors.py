"""Anchors: read from files that people write, drawn from common ids, and refused with what is wrong with them."""

from pathlib import Path

import numpy as np
import pytest

from lfm_tasks.errors import DataError
from lfm_tasks.stages.transfers.job import AnchorSpec, choose_anchors, read_pairs

IDS = np.array([f"p{number:02}" for number in range(20)], dtype=np.dtypes.StringDType())


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
        ("a.txt", "a\nb\n", "few_anchors", "found 2 anchors, needs at least 3: give more ids"),
        ("a.txt", "", "few_anchors", "found 0 anchors"),
        ("a.txt", "a\nb\na\n", "bad_anchors", "found the source id 'a' more than once among 3, needs each once"),
        ("a.csv", "a,x\nb,x\nc,y\n", "bad_anchors", "found the target id 'x' more than once"),
        ("a.txt", "a\n\nb\n", "bad_anchors", "found an empty source id in row 2, needs an id in every line"),
        ("a.csv", "a,x\nb\n", "wrong_shape", r"found rows of 1, 2 columns, needs one column of ids, or two"),
        ("a.csv", "a,x,y\n", "wrong_shape", "found rows of 3 columns"),
        ("a.npy", np.ones(4), "wrong_dtype", "found float64, needs ids: text or whole numbers"),
        ("a.npy", np.ones((4, 3), int), "wrong_shape", r"found the shape \(4, 3\), needs one column of ids, or two"),
        ("a.dat", "a", "missing_source", "found a .dat file, needs one of .npy"),
        ("a.npy", "no array", "missing_source", "a.npy: cannot be read"),
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
    refusal("wrong_dtype", "found no UTF-8 text with commas", lambda: read_pairs(tmp_path / "a.csv"))


def test_drawn__are_common_ids_that_do_not_depend_on_what_else_there_is() -> None:
    few = IDS[3:]
    known = AnchorSpec("anchors", 5, seed=1)
    whole, part = choose_anchors(known, IDS, IDS), choose_anchors(known, IDS, few)
    names, others = IDS[whole.source].tolist(), IDS[part.source].tolist()

    assert names == IDS[whole.target].tolist()
    assert others == few[part.target].tolist()
    assert set(names) - set(IDS[:3].tolist()) <= set(others)
    assert names != IDS[choose_anchors(AnchorSpec("anchors", 5, seed=2), IDS, IDS).source].tolist()
    refusal("few_anchors", "found 17 common ids, and 18 anchors were asked for", lambda: choose_anchors(
        AnchorSpec("anchors", 18), IDS, few
    ))  # fmt: skip


def test_named__are_rows_of_both_spaces_and_unknown_ones_are_refused() -> None:
    pairs = (("p01", "p05"), ("p02", "p19"), ("p03", "p04"))
    anchors = choose_anchors(AnchorSpec(pairs=pairs), IDS, IDS[4:])
    assert anchors.source.tolist() == [1, 2, 3]
    assert anchors.target.tolist() == [1, 15, 0]
    wrong = AnchorSpec(pairs=(*pairs, ("p04", "q05")))
    refusal("bad_anchors", "found 1 of 4 anchors that the target space does not have, first 'q05'; did you", lambda: (
        choose_anchors(wrong, IDS, IDS[4:])
    ))  # fmt: skip
