"""The published atlas changes whole or not at all."""

from pathlib import Path

import pytest

from lfm_tasks.stores.atlas.files import checked_key, publish, published_key, read_json, sweep, write_json
from lfm_tasks.stores.atlas.schema import AtlasError


def put(folder: Path, key: str, content: str = "content") -> None:
    with publish(folder, key) as staged:
        (staged / "summary.json").write_text(content)


def test_atlas__is_published_under_its_key(tmp_path: Path) -> None:
    put(tmp_path / "atlas", "first")
    put(tmp_path / "atlas", "second", "other")

    assert published_key(tmp_path / "atlas") == "second"
    assert (tmp_path / "atlas" / "summary.json").read_text() == "other"
    assert [path.name for path in tmp_path.iterdir()] == ["atlas"]


def test_atlas__that_fails_on_the_way_leaves_the_former_one(tmp_path: Path) -> None:
    put(tmp_path / "atlas", "first")

    def fail() -> None:
        with publish(tmp_path / "atlas", "second") as staged:
            (staged / "summary.json").write_text("half")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        fail()

    assert published_key(tmp_path / "atlas") == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["atlas"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda atlas: (atlas / "summary.json").write_text("changed"),
        lambda atlas: (atlas / "summary.json").unlink(),
        lambda atlas: (atlas / "more.txt").write_text(""),
        lambda atlas: (atlas / "manifest.json").write_text("{"),
        lambda atlas: (atlas / "manifest.json").write_text("[]"),
        lambda atlas: (atlas / "manifest.json").unlink(),
    ],
)
def test_atlas__with_any_other_file_than_published_has_no_key(damage: object, tmp_path: Path) -> None:
    put(tmp_path / "atlas", "first")
    assert callable(damage)
    damage(tmp_path / "atlas")

    assert published_key(tmp_path / "atlas") is None


def test_atlas__never_overwrites_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "atlas").mkdir()
    (tmp_path / "atlas" / "thesis.tex").write_text("years of work")

    with pytest.raises(FileExistsError, match=r"is no atlas .*choose another atlas.path"):
        put(tmp_path / "atlas", "first")

    assert (tmp_path / "atlas" / "thesis.tex").read_text() == "years of work"


def test_atlas__without_manifest_gives_way_where_it_was_ours_and_holds_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "atlas"
    with publish(folder, "first") as staged:
        (staged / "summary.json").write_text("{}")
    (folder / "manifest.json").unlink()
    (folder / "thesis.txt").write_text("mine")

    with pytest.raises(FileExistsError, match="move it away"), publish(folder, "second", is_ours=True):
        pass
    assert (folder / "thesis.txt").read_text() == "mine"
    (folder / "thesis.txt").unlink()
    with publish(folder, "second", is_ours=True):
        pass

    assert published_key(folder) == "second"


def test_sweep__brings_back_the_former_atlas_when_a_kill_left_none(tmp_path: Path) -> None:
    put(tmp_path / "atlas", "first")
    (tmp_path / "atlas").rename(tmp_path / ".atlas.0.former")
    (tmp_path / ".atlas.1.staged").mkdir()

    sweep(tmp_path / "atlas")

    assert published_key(tmp_path / "atlas") == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["atlas"]


def test_sweep__drops_the_former_atlas_when_the_new_one_is_there(tmp_path: Path) -> None:
    put(tmp_path / "atlas", "second")
    (tmp_path / ".atlas.0.former").mkdir()

    sweep(tmp_path / "atlas")

    assert [path.name for path in tmp_path.iterdir()] == ["atlas"]


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
        (lambda atlas: (atlas / "summary.json").write_text("changed"), r"summary.json is not as published: run lfm-"),
        (lambda atlas: (atlas / "summary.json").unlink(), "summary.json is missing: run lfm-atlas run"),
        (lambda atlas: (atlas / "more.txt").write_text(""), "more.txt is not part of it: run"),
        (lambda atlas: (atlas / "manifest.json").write_text("{"), "manifest.json cannot be read: run"),
        (lambda atlas: (atlas / "manifest.json").write_text("[]"), "manifest.json cannot be read: run"),
        (lambda atlas: (atlas / "manifest.json").write_bytes(b"\xff"), "manifest.json cannot be read: run"),
        (lambda atlas: (atlas / "manifest.json").unlink(), "found no atlas in .*: give its path, or run"),
    ],
)
def test_atlas__that_is_damaged_says_where_and_what_to_do(damage: object, message: str, tmp_path: Path) -> None:
    put(tmp_path / "atlas", "first")
    assert callable(damage)
    damage(tmp_path / "atlas")

    with pytest.raises(AtlasError, match=message):
        checked_key(tmp_path / "atlas")
