"""Digests of files are remembered as long as the files are what they were, and never longer."""

import hashlib
import json
import os
import time
from pathlib import Path

import pytest

from lfm_tasks.errors import DataError
from lfm_tasks.sources.files import digests
from lfm_tasks.sources.files.digests import DigestMemory, file_digest


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a file that counts as old: nobody waits two seconds for it."""
    monkeypatch.setattr(digests, "_TICK", 0)
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    return path


def reopened(memory: DigestMemory, folder: Path) -> DigestMemory:
    (folder / "digests.json").write_bytes(memory.as_json())
    return DigestMemory.read(folder / "digests.json")


def test_digest__is_the_sha256_of_the_content_and_taken_once(file: Path, tmp_path: Path) -> None:
    memory = DigestMemory()
    expected = hashlib.sha256(b"one").hexdigest()
    assert [file_digest(file, memory) for _ in range(3)] == [expected] * 3
    assert (memory.n_hashed, memory.is_changed) == (1, True)

    again = reopened(memory, tmp_path)

    assert file_digest(file, again) == expected
    assert (again.n_hashed, again.is_changed) == (0, False)
    assert file_digest(file) == expected


@pytest.mark.parametrize("change", ["content", "same size and time", "replaced", "longer"])
def test_changed_file__is_hashed_again(change: str, file: Path, tmp_path: Path) -> None:
    memory = DigestMemory()
    before, status = file_digest(file, memory), file.stat()
    again = reopened(memory, tmp_path)
    content = b"longer" if change == "longer" else b"two"
    if change == "replaced":
        (tmp_path / "other").write_bytes(content)
        (tmp_path / "other").replace(file)
    else:
        file.write_bytes(content)
    if change in ("same size and time", "replaced"):
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))

    assert file_digest(file, again) == hashlib.sha256(content).hexdigest() != before
    assert (again.n_hashed, again.is_changed) == (1, True)


def test_file_that_is_younger_than_a_tick__is_not_remembered(tmp_path: Path) -> None:
    path = tmp_path / "young"
    path.write_bytes(b"one")
    memory = DigestMemory()
    file_digest(path, memory)
    file_digest(path, memory)
    assert (memory.n_hashed, json.loads(memory.as_json())["files"]) == (2, {})
    assert time.time_ns() - path.stat().st_ctime_ns < digests._TICK


def test_what_is_no_longer_used__is_forgotten(file: Path, tmp_path: Path) -> None:
    memory = DigestMemory()
    file_digest(file, memory)
    memory.remember("layers of x", ["a", 1])
    memory.remember("layers of y", ["b"])
    again = reopened(memory, tmp_path)
    assert again.recall("layers of x") == ["a", 1]
    assert again.recall("layers of z") is None
    assert again.is_changed
    content = json.loads(again.as_json())
    assert (content["files"], content["facts"]) == ({}, {"layers of x": ["a", 1]})


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"files": 3, "facts": {}}', b"\xff", b'{"version": 1}'])
def test_damaged_memory__remembers_nothing(content: bytes, file: Path, tmp_path: Path) -> None:
    (tmp_path / "digests.json").write_bytes(content)
    memory = DigestMemory.read(tmp_path / "digests.json")
    assert file_digest(file, memory) == hashlib.sha256(b"one").hexdigest()


@pytest.mark.parametrize("entry", [None, 3, [], ["x"], [3, 1, 2, 3], {"sha": 1}])
def test_damaged_entry__is_hashed_again(entry: object, file: Path) -> None:
    known = {"version": 1, "files": {os.path.abspath(file): entry}, "facts": {}}
    memory = DigestMemory(known)
    assert file_digest(file, memory) == hashlib.sha256(b"one").hexdigest()
    assert memory.n_hashed == 1


def test_missing_file__is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing: cannot be read \(No such file or directory\)"):
        file_digest(tmp_path / "nothing", DigestMemory())
