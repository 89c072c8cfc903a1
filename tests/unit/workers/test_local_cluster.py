"""Dask's files lie in a folder that only the run's user can enter, and nothing is imported from there."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import dask
import pytest

from lfm_tasks.workers.local_cluster import scratch_folder, start_cluster


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[Path]:
    """Give the folder in which Dask makes its own."""
    with dask.config.set({"temporary-directory": str(tmp_path / "scratch")}):
        yield tmp_path / "scratch"


def is_private(folder: Path) -> bool:
    status = folder.lstat()
    return folder.is_dir() and status.st_uid == os.geteuid() and status.st_mode & 0o077 == 0


def test_scratch_folder__is_private_and_the_same_each_time(parent: Path) -> None:
    folder = scratch_folder()

    assert folder.parent == parent
    assert is_private(folder)
    assert scratch_folder() == folder


def linked(place: Path) -> None:
    (place.parent / "elsewhere").mkdir()
    place.symlink_to("elsewhere")


def of_another_user(place: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("not run: needs the rights of root, to give a folder to another user")
    place.mkdir(mode=0o700)
    os.chown(place, 65534, 65534)


def open_to_others(place: Path) -> None:
    place.mkdir()
    place.chmod(0o770)


@pytest.mark.parametrize("make", [linked, of_another_user, open_to_others, Path.touch])
def test_folder_that_others_can_enter__is_not_taken(parent: Path, make: Callable[[Path], None]) -> None:
    place = scratch_folder()
    place.rmdir()
    make(place)

    folder = scratch_folder()

    assert folder != place
    assert is_private(folder)


def import_path() -> list[str]:
    return list(sys.path)


@pytest.mark.filterwarnings("ignore")  # what Dask says of its own sockets while it closes
def test_cluster__leaves_the_path_of_imports_alone(parent: Path) -> None:
    before = list(sys.path)

    with start_cluster(1, None) as cluster, cluster.get_client() as client:
        assert sys.path == before
        assert not [path for path in client.submit(import_path).result() if path.startswith(str(parent))]
        assert cluster.scheduler.services == {}
