"""Folders of others, mounts and links where an atlas is to be published; Ctrl+C and kills at every step of it."""

import builtins
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lfm_tasks.errors import FolderError
from lfm_tasks.stores.atlas.files import published_key
from lfm_tasks.stores.atlas.publication import publish, sweep, why_not_replaceable
from lfm_tasks.stores.units import durable
from tests.robustness.safety.conftest import audit, command, edit, everything, run

pytestmark = pytest.mark.safety


@pytest.mark.parametrize("section", ["atlas.path", "audit.baseline", "audit.path", "atlas.store"])
def test_folder_of_somebody__is_refused_by_every_command_before_anything_is_computed(
    section: str, zoo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (zoo / "site").mkdir()
    (zoo / "site" / "manifest.json").write_text('{"name": "app"}')
    (zoo / "site" / "report.html").write_text("years of work")
    (zoo / "site" / "thesis.tex").write_text("years of work")
    first, key = section.split(".")
    edit(zoo, **{first: {key: "site"}})
    before = everything(zoo)

    commands = [lambda: command("validate", zoo), lambda: command("plan", zoo), lambda: audit(zoo)]
    commands += [lambda: run(zoo)] if first == "atlas" else []
    for call in commands:
        assert call() == 2
        assert f": {section}: {zoo}/site: got " in capsys.readouterr().err

    assert everything(zoo) == before


def test_file_put_into_the_atlas__stops_the_next_run_which_names_it(
    zoo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(zoo) == 0
    (zoo / "atlas" / "notes.md").write_text("mine")
    edit(zoo, atlas={"measures": ["cka_linear"]})

    assert run(zoo) == 2
    assert "got notes.md, which the manifest of the atlas there does not list" in capsys.readouterr().err
    assert (zoo / "atlas" / "notes.md").read_text() == "mine"

    (zoo / "atlas" / "notes.md").rename(zoo / "notes.md")
    assert run(zoo) == 0


def test_folder_inside_of_another_atlas__is_refused(zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(zoo) == 0
    shutil.move(zoo / "atlas", zoo / "other")
    for section in ("atlas.path", "audit.baseline", "audit.path", "atlas.store"):
        first, key = section.split(".")
        edit(zoo, "second.yaml", **{first: {key: "other/inside"}})
        assert command("validate", zoo, catalog="second.yaml") == 2
        assert f"got a folder inside of the atlas {zoo / 'other'}" in capsys.readouterr().err


@pytest.mark.parametrize("is_bind", [False, True], ids=["tmpfs", "bind"])
@pytest.mark.parametrize("key", ["atlas.path", "audit.baseline"])
def test_mount_point__is_refused_before_anything_is_computed(
    key: str, is_bind: bool, zoo: Path, mounts: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (zoo / "elsewhere").mkdir()
    mounts(zoo / "mounted out", zoo / "elsewhere" if is_bind else None)
    section, name = key.split(".")
    edit(zoo, **{section: {name: "mounted out"}})

    assert audit(zoo) == 2

    told = capsys.readouterr().err
    assert "got a mount point, which cannot change places" in told
    assert "such as mounted out/atlas" in told
    assert not (zoo / ".lfm-atlas").exists()
    edit(zoo, **{section: {name: "mounted out/atlas"}})
    assert audit(zoo) in (0, 3)
    assert published_key(zoo / "mounted out" / "atlas") is not None


def test_mount_point_inside_of_an_atlas__is_refused(tmp_path: Path, mounts: Callable[..., Path]) -> None:
    with publish(tmp_path / "atlas", "first"):
        pass
    mounts(tmp_path / "atlas" / "disk")

    assert "got the mount point" in (why_not_replaceable(tmp_path / "atlas") or "")


def test_link_to_a_folder_on_a_mount__keeps_leading_there(zoo: Path, mounts: Callable[..., Path]) -> None:
    disk = mounts(zoo / "disk")
    (disk / "out").mkdir()
    (zoo / "atlas").symlink_to("disk/out")

    assert run(zoo) == 0
    edit(zoo, atlas={"n_eigenpairs": 5})
    assert run(zoo) == 0

    assert (zoo / "atlas").is_symlink()
    assert [path.name for path in disk.iterdir()] == ["out"]


def test_link_that_leads_nowhere__is_refused_before_anything_is_computed(
    zoo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (zoo / "atlas").symlink_to("gone")

    assert run(zoo) == 2

    assert "Mount or make that folder, or remove the link" in capsys.readouterr().err
    assert not (zoo / ".lfm-atlas").exists()


class Interruption:
    """Calls ``end`` before the ``last``-th change of the disk."""

    def __init__(self, last: int, end: Callable[[], object]) -> None:
        self.last, self.end, self.count = last, end, 0

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("fsync", "rename", "replace", "mkdir", "unlink", "rmdir"):
            monkeypatch.setattr(os, name, self.counted(getattr(os, name)))
        monkeypatch.setattr(durable, "_exchange", self.counted(durable._exchange))
        plain = builtins.open
        monkeypatch.setattr(builtins, "open", self.counted(plain))

    def counted(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self.count += 1
            if self.count == self.last:
                self.end()
            return plain(*arguments, **options)

        return call


def put(folder: Path, key: str) -> None:
    with publish(folder, key) as staged:
        (staged / "atlas.zarr").mkdir()
        (staged / "atlas.zarr" / "zarr.json").write_text(key)
        (staged / "summary.json").write_text(key)


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("can_exchange", [True, False], ids=["exchange", "two renames"])
def test_ctrl_c_at_every_step_of_a_publication__leaves_the_old_or_the_new_atlas_whole(
    can_exchange: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not can_exchange:
        monkeypatch.setattr(durable, "_exchange", lambda *_: False)
    ends = []
    for step in range(1, 200):
        folder = tmp_path / str(step) / "atlas"
        put(folder, "old")
        interruption = Interruption(step, interrupt)
        with monkeypatch.context() as patch:
            interruption.install(patch)
            try:
                put(folder, "new")
            except KeyboardInterrupt:
                pass
            else:
                break
        ends.append(published_key(folder))
        assert ends[-1] in ("old", "new"), step
        put(folder, "next")
        assert published_key(folder) == "next"
        assert [path.name for path in folder.parent.iterdir()] == ["atlas"], step
    assert {"old", "new"} == set(ends)
    assert len(ends) > 15


@pytest.mark.parametrize("can_exchange", [True, False], ids=["exchange", "two renames"])
def test_kill_at_every_step_of_a_publication__leaves_the_old_or_the_new_atlas_whole(
    can_exchange: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not can_exchange:
        monkeypatch.setattr(durable, "_exchange", lambda *_: False)
    ends = []
    for step in range(1, 200):
        folder = tmp_path / str(step) / "atlas"
        put(folder, "old")
        child = os.fork()
        if child == 0:
            Interruption(step, lambda: os.kill(os.getpid(), signal.SIGKILL)).install(monkeypatch)
            put(folder, "new")
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) == 0:
            break
        if can_exchange:
            assert published_key(folder) in ("old", "new"), step
        # Without an exchange there is no folder for a moment: the next run brings it back, first of all.
        sweep(folder)
        ends.append(published_key(folder))
        assert ends[-1] in ("old", "new"), step
        put(folder, "next")
        assert published_key(folder) == "next"
        assert [path.name for path in folder.parent.iterdir()] == ["atlas"], step
    assert {"old", "new"} == set(ends)
    assert len(ends) > 15


def test_run_that_finds_a_foreign_folder_late__ends_with_a_folder_error(zoo: Path, build: Any) -> None:
    (zoo / "atlas").mkdir()
    (zoo / "atlas" / "thesis.tex").write_text("years of work")

    with pytest.raises(FolderError, match=r"got a folder with thesis\.tex"):
        build(zoo)

    assert not (zoo / ".lfm-atlas").exists()
