"""The published atlas changes whole or not at all."""

from pathlib import Path

import pytest

from lfm_tasks.errors import FolderError
from lfm_tasks.stores.atlas.files import (
    checked_key,
    publish,
    published_key,
    read_json,
    sweep,
    why_not_replaceable,
    write_json,
)
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


REFUSED = [
    ("thesis.tex", "got a folder with thesis.tex and no manifest.json of an atlas"),
    ("manifest.json", "got a folder with manifest.json and no manifest.json of an atlas"),
    ("atlas.zarr/zarr.json", "got a folder with atlas.zarr/zarr.json and no manifest.json of an atlas"),
]


@pytest.mark.parametrize(("name", "message"), REFUSED)
def test_folder_of_something_else__is_never_replaced(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "atlas" / name).parent.mkdir(parents=True)
    (tmp_path / "atlas" / name).write_text("years of work")

    with pytest.raises(FolderError, match=f"{message}, expected .*Move the folder away"):
        put(tmp_path / "atlas", "first")

    assert (tmp_path / "atlas" / name).read_text() == "years of work"


@pytest.mark.parametrize("name", ["notes.md", "atlas.zarr/notes.md", "manifest.json.bak", ".DS_Store"])
def test_atlas_with_a_file_of_somebody__is_not_replaced_whatever_the_store_notes(name: str, tmp_path: Path) -> None:
    put(tmp_path / "atlas", "first")
    (tmp_path / "atlas" / name).parent.mkdir(exist_ok=True)
    (tmp_path / "atlas" / name).write_text("mine")

    for was_published in (False, True):
        refusal = why_not_replaceable(tmp_path / "atlas", was_published=was_published)
        assert refusal is not None
        assert f"got {name}, which the manifest of the atlas there does not list" in refusal
        assert "Move it away, or name another folder" in refusal


def test_link_in_an_atlas__is_a_file_of_somebody(tmp_path: Path) -> None:
    put(tmp_path / "atlas", "first")
    (tmp_path / "atlas" / "thesis").symlink_to(tmp_path)

    assert "got thesis, which" in (why_not_replaceable(tmp_path / "atlas") or "")


def test_more_than_one_foreign_file__are_counted(tmp_path: Path) -> None:
    put(tmp_path / "atlas", "first")
    for name in ("b.md", "a.md", "c.md"):
        (tmp_path / "atlas" / name).touch()

    assert "got a.md and 2 more, which" in (why_not_replaceable(tmp_path / "atlas") or "")


@pytest.mark.parametrize(
    "damage",
    [
        lambda atlas: (atlas / "summary.json").write_text("changed"),
        lambda atlas: (atlas / "summary.json").unlink(),
        lambda atlas: ((atlas / "summary.json").unlink(), (atlas / "summary.json").mkdir()),
        lambda atlas: ((atlas / "summary.json").unlink(), (atlas / "summary.json").symlink_to("manifest.json")),
    ],
)
def test_atlas_with_damaged_files_that_it_lists__is_replaced(damage: object, tmp_path: Path) -> None:
    put(tmp_path / "atlas", "first")
    assert callable(damage)
    damage(tmp_path / "atlas")

    put(tmp_path / "atlas", "second")

    assert published_key(tmp_path / "atlas") == "second"


def test_atlas_without_sound_manifest__is_replaced_only_where_the_store_notes_it_and_nothing_else_is_there(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "atlas"
    put(folder, "first")
    (folder / "manifest.json").write_text("{")
    (folder / "thesis.txt").write_text("mine")

    assert "got a folder with thesis.txt" in (why_not_replaceable(folder, was_published=True) or "")
    (folder / "thesis.txt").unlink()
    assert why_not_replaceable(folder) is not None
    with publish(folder, "second", was_published=True):
        pass

    assert published_key(folder) == "second"


FOREIGN = [
    '{"version": 1, "key": "k", "files": {}, "name": "app"}',
    '{"version": 1, "key": "k", "files": {"manifest.json": {"sha256": "0", "bytes": 3}}}',
    '{"version": 2, "key": "k", "files": {}, "sha256": "0"}',
    '{"key": "k"}',
    "{}",
]


@pytest.mark.parametrize("content", FOREIGN)
def test_manifest_of_somebody__is_no_manifest_of_an_atlas(content: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(content)

    assert why_not_replaceable(tmp_path) is not None


def test_nothing_and_empty_folders__may_give_way(tmp_path: Path) -> None:
    (tmp_path / "empty" / "below").mkdir(parents=True)

    assert why_not_replaceable(tmp_path / "new" / "deep") is None
    assert why_not_replaceable(tmp_path / "empty") is None


def test_file_or_link_in_the_way__is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("gone")
    (tmp_path / "loop").symlink_to("loop")

    assert "got a file, expected no folder" in (why_not_replaceable(tmp_path / "file") or "")
    assert "where a folder has to be" in (why_not_replaceable(tmp_path / "file" / "atlas") or "")
    for name in ("link", "loop"):
        assert "Mount or make that folder, or remove the link" in (why_not_replaceable(tmp_path / name) or "")


def test_file_put_into_the_atlas_while_the_run_computes__stops_the_publication(tmp_path: Path) -> None:
    put(tmp_path / "atlas", "first")

    def write() -> None:
        with publish(tmp_path / "atlas", "second"):
            (tmp_path / "atlas" / "notes.md").write_text("mine")

    with pytest.raises(FolderError, match=r"got notes\.md"):
        write()

    assert (tmp_path / "atlas" / "notes.md").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["atlas"]


def test_link__stays_and_the_folder_that_it_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "disk" / "real").mkdir(parents=True)
    (tmp_path / "atlas").symlink_to("disk/real")

    put(tmp_path / "atlas", "first")
    put(tmp_path / "atlas", "second")

    assert (tmp_path / "atlas").is_symlink()
    assert published_key(tmp_path / "disk" / "real") == "second"
    assert sorted(path.name for path in tmp_path.rglob(".*")) == []


RANDOM = "0123456789abcdef" * 2


def test_sweep__brings_back_the_former_atlas_when_a_kill_left_none(tmp_path: Path) -> None:
    put(tmp_path / "atlas", "first")
    (tmp_path / "atlas").rename(tmp_path / f".atlas.{RANDOM}.former")
    (tmp_path / f".atlas.{RANDOM}.staged").mkdir()

    sweep(tmp_path / "atlas")

    assert published_key(tmp_path / "atlas") == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["atlas"]


def test_sweep__drops_the_former_atlas_when_the_new_one_is_there(tmp_path: Path) -> None:
    put(tmp_path / "atlas", "first")
    (tmp_path / "atlas").rename(tmp_path / f".atlas.{RANDOM}.former")
    put(tmp_path / "atlas2", "second")
    (tmp_path / "atlas2").rename(tmp_path / "atlas")

    sweep(tmp_path / "atlas")

    assert [path.name for path in tmp_path.iterdir()] == ["atlas"]


@pytest.mark.parametrize("name", [".atlas.backup.former", ".atlas.1.staged", f".atlas.{RANDOM}.former.tar"])
def test_sweep__leaves_what_is_not_named_like_a_leftover(name: str, tmp_path: Path) -> None:
    put(tmp_path / "atlas", "first")
    (tmp_path / name).mkdir()
    (tmp_path / name / "thesis.tex").write_text("years of work")

    sweep(tmp_path / "atlas")

    assert (tmp_path / name / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("kind", ["staged", "former"])
def test_sweep__keeps_a_former_atlas_that_holds_a_file_of_somebody(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path / "atlas", "first")
    (tmp_path / "atlas" / "notes.md").write_text("mine")
    (tmp_path / "atlas").rename(tmp_path / f".atlas.{RANDOM}.{kind}")
    put(tmp_path / "other", "second")
    (tmp_path / "other").rename(tmp_path / "atlas")

    sweep(tmp_path / "atlas")
    sweep(tmp_path / "atlas")

    assert (tmp_path / f".atlas.{RANDOM}.former" / "notes.md").read_text() == "mine"
    assert "kept a former atlas" in caplog.text


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
