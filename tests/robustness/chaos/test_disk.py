"""A disk that is full, read-only or taken away: a sentence, the published atlas as it was, the next run goes on."""

import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

pytestmark = pytest.mark.chaos
N_LEVELS = 14
NOBODY = 65534
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root may mount, and become somebody else")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Give a disk of 24 MB of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a disk here: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture
def two_atlases(
    tmp_path: Path, tiny_zoo: Callable[..., Path], in_child: Callable[..., Any]
) -> Callable[[Path], dict[str, bytes]]:
    """Publish an atlas in a folder and write the catalog of another one there; return the files of that."""

    def make(folder: Path) -> dict[str, bytes]:
        other = tiny_zoo(tmp_path / "other", 3)
        assert in_child(other).code == 0
        tiny_zoo(folder, 3, n_eigenpairs=3)
        assert in_child(folder).code == 0
        tiny_zoo(folder, 3)
        return contents(other / "atlas")

    return make


def free_bytes(place: Path) -> int:
    return shutil.disk_usage(place).free


@as_root
def test_disk_full_at_any_level__is_told_and_the_next_run_goes_on(
    disk: Path, two_atlases: Any, in_child: Callable[..., Any], figure: Callable[[str], None]
) -> None:
    folder = disk / "zoo"
    expected = two_atlases(folder)
    old = contents(folder / "atlas")
    before = disk.parent / "before"
    shutil.copytree(folder, before)
    used = free_bytes(disk)
    assert in_child(folder).code == 0
    needed = used - free_bytes(disk)
    for level in range(N_LEVELS):
        shutil.rmtree(folder)
        shutil.copytree(before, folder)
        filler = disk / "filler"
        with filler.open("wb") as file:
            file.write(bytes(free_bytes(disk) - needed * level // N_LEVELS))

        ended = in_child(folder)

        assert ended.code == 1, level
        assert "got no space left on the disk" in ended.error, ended.error
        assert "free some, then run again" in ended.error
        assert contents(folder / "atlas") == old, level
        filler.unlink()
        assert in_child(folder).code == 0, level
        assert contents(folder / "atlas") == expected, level
    figure(f"full disk at {N_LEVELS} levels of the {needed / 1e3:.0f} kB that a run needs: told, nothing lost, goes on")


def test_file_size_limit_at_any_level__is_told_and_the_next_run_goes_on(
    tmp_path: Path, two_atlases: Any, in_child: Callable[..., Any], figure: Callable[[str], None]
) -> None:
    folder = tmp_path / "zoo"
    expected, limits = two_atlases(folder), (0, 100, 700, 3000)
    old = contents(folder / "atlas")
    for limit in limits:

        def bound(limit: int = limit) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

        ended = in_child(folder, prepare=bound)

        assert ended.code == 1, limit
        assert "got a file beyond the size limit (ulimit -f), expected a higher limit" in ended.error, ended.error
        assert contents(folder / "atlas") == old, limit
    assert in_child(folder).code == 0
    assert contents(folder / "atlas") == expected
    figure(f"file size limit at {len(limits)} levels: nothing lost, goes on")


@as_root
def test_read_only_disk__is_told(disk: Path, two_atlases: Any, in_child: Callable[..., Any]) -> None:
    folder = disk / "zoo"
    expected = two_atlases(folder)
    old = contents(folder / "atlas")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)

    ended = in_child(folder)

    assert ended.code == 1
    assert "got a read-only disk, expected one to write to. Choose another place" in ended.error
    assert contents(folder / "atlas") == old
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    assert in_child(folder).code == 0
    assert contents(folder / "atlas") == expected


@as_root
def test_rights_lost_at_any_moment__are_told_and_the_next_run_goes_on(
    two_atlases: Any, in_child: Callable[..., Any], figure: Callable[[str], None]
) -> None:
    place = Path(mkdtemp())
    place.chmod(0o755)
    folder = place / "zoo"
    expected = two_atlases(folder)
    before = place / "before"
    shutil.copytree(folder, before)
    old = contents(folder / "atlas")

    def open_to_nobody() -> None:
        for current, _, names in os.walk(folder):
            os.chmod(current, 0o755)  # noqa: S103 - pytest's own folders are root's alone
            for path in (current, *(os.path.join(current, name) for name in names)):
                os.chown(path, NOBODY, NOBODY)

    def become_nobody() -> None:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)

    open_to_nobody()
    n_operations, moments = len(in_child(folder, prepare=become_nobody).operations), 8
    for moment in range(moments):
        shutil.rmtree(folder)
        shutil.copytree(before, folder)
        open_to_nobody()

        ended = in_child(folder, 1 + moment * n_operations * 9 // (10 * moments), "rights", become_nobody)

        assert ended.code == 1, moment
        assert "permission denied. Choose a place that you may write to" in ended.error, ended.error
        assert contents(folder / "atlas") == old, moment
        open_to_nobody()
        assert in_child(folder, prepare=become_nobody).code == 0, moment
        assert contents(folder / "atlas") == expected, moment
    shutil.rmtree(place)
    figure(f"rights lost at {moments} moments: told, nothing lost, goes on")
