"""Text that is no YAML, or hostile YAML, is one mistake with its line, and quickly."""

import time
from pathlib import Path

import pytest

from lfm_tasks.catalog import CatalogError, read_catalog


def mistakes(folder: Path, text: str) -> list[str]:
    """Return all mistakes as a person reads them, the path cut off."""
    path = folder / "data_catalog.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CatalogError) as caught:
        read_catalog(path, {})
    return [str(problem).removeprefix(str(path)) for problem in caught.value.problems]


def test_text_that_its_parser_gives_up_on__is_a_mistake_like_any_other(tmp_path: Path) -> None:
    [mistake] = mistakes(tmp_path, "version:\n  b:  # a remark\n    c\n\n")
    assert "not YAML: overlap in comment" in mistake


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version: [1\nmodels: ]", r":2: not YAML: while parsing a flow sequence"),
        (b"a: 1\nb: \xff\n", r":2: got bytes that are not UTF-8. Save the file as UTF-8"),
        (b"#" * (2**20 + 1), r"got more than 1,048,576 bytes, expected at most that"),
        (b"paths: {path: zoo/{model}.npz}", r':1: not YAML: .*quote what holds braces: {path: "zoo'),
        (b"[" * 5000, r"got hundreds of nested levels|not YAML"),
    ],
    ids=["syntax", "encoding", "size", "braces", "nesting"],
)
def test_file_that_is_no_yaml__is_told_with_its_line(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "data_catalog.yaml"
    path.write_bytes(content)
    with pytest.raises(CatalogError, match=message):
        read_catalog(path)


def test_aliases_that_explode__are_refused(tmp_path: Path) -> None:
    lines = ["x-0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"x-{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    [mistake] = mistakes(tmp_path, "\n".join(lines))
    assert "got more than 100,000 values once aliases are expanded" in mistake


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.mkdir(), "got a folder or a device, expected a file"),
        (lambda path: None, r"cannot be read \(No such file or directory\). Check the path"),
    ],
    ids=["folder", "missing"],
)
def test_path_that_is_no_file__is_told(make: object, message: str, tmp_path: Path) -> None:
    assert callable(make)
    make(tmp_path / "data_catalog.yaml")
    with pytest.raises(CatalogError, match=message):
        read_catalog(tmp_path / "data_catalog.yaml")


@pytest.mark.parametrize("text", ["[" * 5000, "{a: " * 3000, "- " * 3000 + "x", "? " * 3000])
def test_nesting__is_refused_at_once(text: str, tmp_path: Path) -> None:
    start = time.monotonic()
    assert mistakes(tmp_path, text) == [": got hundreds of nested levels, expected a few"]
    assert time.monotonic() - start < 2


def test_anchor_that_is_used_again__is_no_warning(tmp_path: Path) -> None:
    assert mistakes(tmp_path, "&a a: &a b")
