"""Files and folders that change whole or not at all."""

import errno
from pathlib import Path

import pytest

from lfm_tasks.stores.units import durable
from lfm_tasks.stores.units.durable import atomic_write, swap_folders


def test_write__replaces_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.json"
    atomic_write(path, b"first, longer")
    atomic_write(path, b"second")

    assert path.read_bytes() == b"second"
    assert list(path.parent.iterdir()) == [path]


def test_write__that_fails_keeps_the_former_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.json"
    atomic_write(path, b"first")

    def full_disk(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(durable.os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        atomic_write(path, b"second")

    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_write__that_may_not_names_the_file_that_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_right(path: Path, mode: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", no_right)

    with pytest.raises(PermissionError, match=r"'[^']*/file.json'$"):
        atomic_write(tmp_path / "file.json", b"first")


def folder(path: Path, content: str) -> Path:
    path.mkdir()
    (path / "file").write_text(content)
    return path


@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "step aside"])
def test_swap__puts_the_new_folder_in_place_and_keeps_the_former(
    exchange: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exchange:
        monkeypatch.setattr(durable.sys, "platform", "other")
    staged, published = folder(tmp_path / "staged", "new"), folder(tmp_path / "atlas", "old")

    former = swap_folders(staged, published)

    assert (published / "file").read_text() == "new"
    assert former is not None
    assert (former / "file").read_text() == "old"


def test_swap__needs_no_former_folder(tmp_path: Path) -> None:
    assert swap_folders(folder(tmp_path / "staged", "new"), tmp_path / "atlas") is None
    assert (tmp_path / "atlas" / "file").read_text() == "new"


def test_swap__says_which_folders_it_could_not_exchange(tmp_path: Path) -> None:
    published = folder(tmp_path / "atlas", "old")
    with pytest.raises(OSError, match="No such file") as caught:
        swap_folders(tmp_path / "gone", published)

    assert (caught.value.filename, caught.value.filename2) == (str(tmp_path / "gone"), str(published))
    assert (published / "file").read_text() == "old"
