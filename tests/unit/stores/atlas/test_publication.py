"""The published atlas changes whole or not at all, and takes the place of nothing but an atlas."""

import errno
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lfm_tasks.errors import FolderError
from lfm_tasks.stores.atlas.files import atlas_damages, published_key
from lfm_tasks.stores.atlas.publication import locked_atlas, publish, sweep, why_not_replaceable
from lfm_tasks.stores.atlas.schema import catalog_id, read_manifest
from lfm_tasks.stores.units.durable import StoreBusyError


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


@pytest.mark.parametrize("name", ["notes.md", "atlas.zarr/notes.md", "manifest.json.bak", "notes/", "a/b/"])
def test_atlas_with_a_file_of_somebody__is_not_replaced_whatever_the_store_notes(name: str, tmp_path: Path) -> None:
    put(tmp_path / "atlas", "first")
    path = tmp_path / "atlas" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if name.endswith("/"):
        path.mkdir()
    else:
        path.write_text("mine")

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

    is_lost = not os.path.lexists(tmp_path / "atlas" / "summary.json")
    put(tmp_path / "atlas", "second")
    sweep(tmp_path / "atlas")

    assert published_key(tmp_path / "atlas") == "second"
    assert len(list(tmp_path.glob(".atlas.*.former"))) == (0 if is_lost else 1)


def test_listed_file_that_somebody_edited__is_kept_beside_the_new_atlas(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path / "atlas", "first")
    (tmp_path / "atlas" / "summary.json").write_text("my notes")

    put(tmp_path / "atlas", "second")
    put(tmp_path / "atlas", "third")

    [former] = tmp_path.glob(".atlas.*.former")
    assert (former / "summary.json").read_text() == "my notes"
    assert "kept a former atlas" in caplog.text
    assert "summary.json is not as published" in caplog.text
    # Who removes the atlas to have it made anew does not get the kept one back.
    shutil.rmtree(tmp_path / "atlas")
    sweep(tmp_path / "atlas")
    assert not (tmp_path / "atlas").exists()


OF_AN_ATLAS = '{"attributes": {"schema_version": 5, "convention": "4", "measures": {}}, "node_type": "group"}'


@pytest.mark.parametrize("end", ["damaged", "lost"])
def test_atlas_without_sound_manifest__is_replaced_where_the_store_notes_it_and_kept(end: str, tmp_path: Path) -> None:
    folder = tmp_path / "atlas"
    with publish(folder, "first") as staged:
        (staged / "atlas.zarr").mkdir()
        (staged / "atlas.zarr" / "zarr.json").write_text(OF_AN_ATLAS)
        (staged / "report.html").write_text("content")
    (folder / "manifest.json").unlink()
    if end == "damaged":
        (folder / "manifest.json").write_text("{")
    (folder / "thesis.txt").write_text("mine")

    assert "got a folder with thesis.txt" in (why_not_replaceable(folder, was_published=True) or "")
    (folder / "thesis.txt").unlink()
    (folder / "notes").mkdir()
    assert "got a folder with notes/" in (why_not_replaceable(folder, was_published=True) or "")
    (folder / "notes").rmdir()
    assert why_not_replaceable(folder) is not None
    with publish(folder, "second", was_published=True):
        pass
    sweep(folder)

    assert published_key(folder) == "second"
    [former] = tmp_path.glob(".atlas.*.former")
    assert (former / "report.html").read_text() == "content"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"attributes": {"schema_version": 1}}', '{"attributes": 3}'])
def test_files_with_names_of_an_atlas__are_none_without_arrays_of_ours(content: str, tmp_path: Path) -> None:
    (tmp_path / "atlas" / "atlas.zarr").mkdir(parents=True)
    (tmp_path / "atlas" / "atlas.zarr" / "zarr.json").write_text(content)
    (tmp_path / "atlas" / "report.html").write_text("years of work")

    assert why_not_replaceable(tmp_path / "atlas", was_published=True) is not None


DROPPINGS = (
    ".DS_Store",
    "Thumbs.db",
    "desktop.ini",
    ".directory",
    "._summary.json",
    "deep/.DS_Store",
    "gone/Desktop.ini",
)


def test_files_of_file_managers__count_for_nothing_and_move_over(tmp_path: Path) -> None:
    atlas = tmp_path / "atlas"
    with publish(atlas, "first") as staged:
        for name in ("deep", "gone"):
            (staged / name).mkdir()
            (staged / name / "values").write_text("content")
    for name in DROPPINGS:
        (atlas / name).write_text(f"window of {name}")
    assert published_key(atlas) == "first"
    assert atlas_damages(atlas) == []
    assert why_not_replaceable(atlas) is None

    with publish(atlas, "second") as staged:
        (staged / "deep").mkdir()
        (staged / "deep" / "values").write_text("other")

    assert published_key(atlas) == "second"
    moved = {name: atlas / name for name in DROPPINGS} | {"gone/Desktop.ini": atlas / "Desktop.ini"}
    assert {name: path.read_text() for name, path in moved.items()} == {name: f"window of {name}" for name in DROPPINGS}
    assert [path.name for path in tmp_path.iterdir()] == ["atlas"]


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to("manifest.json")], ids=["folder", "link"])
def test_folder_or_link_with_the_name_of_a_dropping__is_somebodys(make: Callable[[Path], None], tmp_path: Path) -> None:
    put(tmp_path / "atlas", "first")
    make(tmp_path / "atlas" / ".DS_Store")

    assert "got .DS_Store" in (why_not_replaceable(tmp_path / "atlas") or "")


def test_manifest__tells_whose_atlas_it_is_by_the_way_to_the_catalog(tmp_path: Path) -> None:
    project, other = tmp_path / "project", tmp_path / "other"
    for folder in (project, other):
        folder.mkdir()
    with publish(project / "atlas", "first", catalog=catalog_id(project / "zoo.yaml", project / "atlas")):
        pass
    (other / "link").symlink_to(project)

    ours = read_manifest(project / "atlas", "").catalog
    assert ours == catalog_id(project / "zoo.yaml", other / "link" / "atlas")
    assert ours == catalog_id(other / "link" / "zoo.yaml", project / "atlas")
    assert ours == catalog_id(other / "zoo.yaml", other / "atlas")  # a project that was moved or copied
    assert ours != catalog_id(project / "second.yaml", project / "atlas")
    assert ours != catalog_id(other / "zoo.yaml", project / "atlas")


HOLD = """
import sys
from pathlib import Path
from lfm_tasks.stores.atlas.publication import locked_atlas
with locked_atlas(Path(sys.argv[1]), "the other"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_processes__do_not_publish_at_one_place_at_once(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("atlas")
    command = [sys.executable, "-c", HOLD, str(tmp_path / "atlas")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(StoreBusyError, match=r"an atlas is being published at .*link by 'the other' \(process"),
            locked_atlas(tmp_path / "link", "mine"),
        ):
            pass
        with locked_atlas(tmp_path / "elsewhere", "mine"):
            pass
        other.kill()

    # A lock falls with its process, which leaves an empty or a full file.
    with locked_atlas(tmp_path / "atlas", "mine"):
        assert (tmp_path / ".atlas.lfm-atlas.lock").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["link"]


@pytest.mark.parametrize(
    "make", [lambda path: path.write_text("mine"), Path.mkdir, os.mkfifo, lambda path: path.symlink_to("x")]
)
def test_file_of_somebody_with_the_name_of_the_lock__is_left_alone(
    make: Callable[[Path], object], tmp_path: Path
) -> None:
    (tmp_path / "x").write_text("mine")
    make(tmp_path / ".atlas.lfm-atlas.lock")
    before = sorted(path.lstat() for path in tmp_path.iterdir())

    with (
        pytest.raises(FolderError, match="got a file that lfm-atlas did not write"),
        locked_atlas(tmp_path / "atlas", "a"),
    ):
        pass

    assert sorted(path.lstat() for path in tmp_path.iterdir()) == before


def test_file_system_without_locks__publishes_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)

    with locked_atlas(tmp_path / "atlas", "mine"):
        put(tmp_path / "atlas", "first")

    assert [path.name for path in tmp_path.iterdir()] == ["atlas"]


FOREIGN = [
    '{"version": 1, "key": "k", "files": {}, "name": "app"}',
    '{"version": 1, "key": "k", "files": {"manifest.json": {"sha256": "0", "bytes": 3}}}',
    '{"version": 3, "key": "k", "files": {}, "catalog": "", "sha256": "0"}',
    '{"version": 2, "key": "k", "files": {}, "sha256": "0"}',
    '{"key": "k"}',
    "{}",
]


@pytest.mark.parametrize("content", FOREIGN)
def test_manifest_of_somebody__is_no_manifest_of_an_atlas(content: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(content)

    assert why_not_replaceable(tmp_path) is not None


def test_nothing_and_an_empty_folder__may_give_way(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "folders" / "deep" / "below").mkdir(parents=True)

    assert why_not_replaceable(tmp_path / "new" / "deep") is None
    assert why_not_replaceable(tmp_path / "empty") is None
    assert "got a folder with deep/below/ and no manifest" in (why_not_replaceable(tmp_path / "folders") or "")


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


def publish_again_and_again(folder: Path, name: str, n_times: int) -> None:
    n_published = 0
    while n_published < n_times:
        try:
            with locked_atlas(folder, name):
                sweep(folder)
                put(folder, f"{name} {n_published}", name * 1000)
            n_published += 1
        except StoreBusyError:
            continue


def test_processes_that_publish_at_one_place_and_are_killed__never_meet_each_others_work(tmp_path: Path) -> None:
    # Children of a clean process: a fork of this one takes the threads' locks of all tests before it along.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lfm_tasks.stores.atlas.publication"])
    folder = tmp_path / "atlas"

    def start(name: str, n_times: int) -> multiprocessing.process.BaseProcess:
        worker = context.Process(target=publish_again_and_again, args=(folder, name, n_times))
        worker.start()
        return worker

    steady = [start(name, 40) for name in ("a", "b")]
    for number in range(10):
        victim = start(f"victim {number}", 10**6)
        victim.join(0.05 * number)
        victim.kill()
        victim.join()
    for worker in steady:
        worker.join(120)

    assert [worker.exitcode for worker in steady] == [0, 0]
    with locked_atlas(folder, "last"):
        sweep(folder)
    assert published_key(folder) is not None
    assert [path.name for path in tmp_path.iterdir()] == ["atlas"]
