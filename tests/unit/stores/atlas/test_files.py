"""Files of an atlas are read as they were published, or refused."""

from pathlib import Path

import pytest

from lfm_tasks.stores.atlas.files import checked_key, read_json, write_json
from lfm_tasks.stores.atlas.publication import publish
from lfm_tasks.stores.atlas.schema import AtlasError


def put(folder: Path, key: str, content: str = "content") -> None:
    with publish(folder, key) as staged:
        (staged / "summary.json").write_text(content)


def test_json__holds_no_nan_and_comes_back(tmp_path: Path) -> None:
    write_json({"b": 1.5, "a": "ü"}, tmp_path / "x.json")
    assert read_json(tmp_path / "x.json") == {"a": "ü", "b": 1.5}
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json({"a": float("nan")}, tmp_path / "y.json")
    (tmp_path / "z.json").write_text("[]")
    with pytest.raises(TypeError, match=r"z\.json holds no object"):
        read_json(tmp_path / "z.json")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda atlas: (atlas / "summary.json").write_text("changed"), r"summary.json is not as published. Run lfm-"),
        (lambda atlas: (atlas / "summary.json").unlink(), "summary.json is missing. Run lfm-atlas run"),
        (lambda atlas: (atlas / "more.txt").write_text(""), "more.txt is not part of it. Run"),
        (lambda atlas: (atlas / "manifest.json").write_text("{"), "manifest.json cannot be read. Run"),
        (lambda atlas: (atlas / "manifest.json").write_text("[]"), "manifest.json cannot be read. Run"),
        (lambda atlas: (atlas / "manifest.json").write_bytes(b"\xff"), "manifest.json cannot be read. Run"),
        (lambda atlas: (atlas / "manifest.json").unlink(), "got no atlas in .*. Give its path, or run"),
    ],
)
def test_atlas__that_is_damaged_says_where_and_what_to_do(damage: object, message: str, tmp_path: Path) -> None:
    put(tmp_path / "atlas", "first")
    assert callable(damage)
    damage(tmp_path / "atlas")

    with pytest.raises(AtlasError, match=message):
        checked_key(tmp_path / "atlas")
