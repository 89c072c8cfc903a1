"""Files and folders that change whole or not at all, checksums, and locks that do not outlive their holder."""

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

from lfm_tasks.stores.units import durable
from lfm_tasks.stores.units.durable import (
    StoreBusyError,
    add_checksum,
    atomic_write,
    checksum_of,
    locked,
    swap_folders,
    verify_checksum,
)


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


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"body": {}}', b'{"body": {}, "sha256": ""}', b"\xff"])
def test_sealed_file__is_read_only_as_it_was_written(content: bytes) -> None:
    assert verify_checksum(add_checksum({"a": [1, 0.1]})) == {"a": [1, 0.1]}
    with pytest.raises(ValueError, match=r"it is no sealed file|its checksum does not fit"):
        verify_checksum(content)
    with pytest.raises(ValueError, match="its checksum does not fit"):
        verify_checksum(add_checksum({"a": 1}).replace(b"1", b"2", 1))
    with pytest.raises(ValueError, match="its checksum does not fit"):
        verify_checksum(add_checksum({"a": 1}) + b"\n")


def test_sealed_file__of_an_older_version_is_read_too() -> None:
    body = {"b": [1, {"sha256": "0"}], "a": "é"}
    older = json.dumps({"body": body, "sha256": checksum_of(body)}, sort_keys=True, indent=1).encode()
    assert verify_checksum(older) == verify_checksum(add_checksum(body)) == body
    with pytest.raises(ValueError, match="its checksum does not fit"):
        verify_checksum(older.replace(b"1,", b"2,", 1))


def test_sealed_file__tells_a_change_of_any_byte() -> None:
    sealed = add_checksum({"body": {"sha256": "0" * 64}, "b": [1, 2.5, "é"]})
    for place in range(len(sealed)):
        for changed in (sealed[:place] + sealed[place + 1 :], sealed[:place] + b"7" + sealed[place + 1 :]):
            if changed != sealed:
                with pytest.raises(ValueError, match=r"it is no sealed file|its checksum does not fit"):
                    verify_checksum(changed)


HOLD = """
import sys, time
from pathlib import Path
from lfm_tasks.stores.units.durable import locked
with locked(Path(sys.argv[1]), "nightly run"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_lock__is_refused_with_its_holder_and_falls_with_it(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StoreBusyError, match=rf"in use by 'nightly run' \(process {holder.pid} on .*\)\. Wait"):
            locked(tmp_path, "mine").__enter__()
    finally:
        holder.kill()
        holder.communicate()

    with locked(tmp_path, "mine"):
        assert json.loads((tmp_path / "lock").read_text())["purpose"] == "mine"


def test_lock__that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("thesis")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "lock").symlink_to(tmp_path / "thesis.txt")

    with pytest.raises(OSError, match="symbolic links"), locked(tmp_path / "store", "a test"):
        pass

    assert (tmp_path / "thesis.txt").read_text() == "thesis"


def test_lock__is_free_again_after_its_block(tmp_path: Path) -> None:
    for purpose in ("first", "second"):
        with locked(tmp_path, purpose):
            pass


def test_lock__with_unreadable_holder_is_refused_all_the_same(tmp_path: Path) -> None:
    with locked(tmp_path, "first"):
        (tmp_path / "lock").write_text("rubbish")
        with pytest.raises(StoreBusyError, match="in use by another run"):
            locked(tmp_path, "second").__enter__()
