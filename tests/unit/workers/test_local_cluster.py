"""Dask's files lie in a folder that only the run's user can enter, and nothing is imported from there."""

import os
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import dask
import pytest

from lfm_tasks.sources.checkpoints.devices import OWN_GPU
from lfm_tasks.workers import local_cluster
from lfm_tasks.workers.local_cluster import scratch_folder, start_cluster
from lfm_tasks.workers.pool import LocalDask


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


def on_own_gpu(number: int) -> tuple[str | None, float, float]:
    start = time.monotonic()
    time.sleep(0.1)
    return os.environ.get(OWN_GPU), start, time.monotonic()


def test_gpus__have_one_job_at_a_time_each_on_a_worker_of_its_own(
    parent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_cluster, "n_gpus", lambda: 1)
    workers = LocalDask(2)

    found = dict(workers.run(on_own_gpu, range(12), [], ["cuda", "cuda:0", "cpu"] * 4))
    workers.close()

    on_gpu = sorted(found[number][1:] for number in range(12) if number % 3 < 2)
    assert {found[number][0] for number in range(12) if number % 3 < 2} == {"0"}
    assert all(end <= start for (_, end), (start, _) in pairwise(on_gpu))
    assert None in {found[number][0] for number in range(2, 12, 3)}


def status_of(address: str) -> int:
    try:
        with urllib.request.urlopen(address, timeout=60) as answer:  # noqa: S310 - our own loopback address
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_dashboard__answers_to_who_knows_its_address_and_changes_nothing(parent: Path) -> None:
    pytest.importorskip("bokeh")
    announced: list[str] = []
    workers = LocalDask(1, announce=announced.append)

    assert dict(workers.run(abs, [-1])) == {0: 1}
    assert dict(workers.run(abs, [-2])) == {0: 2}
    (address,) = announced
    server, secret = re.fullmatch(r"(http://127\.0\.0\.1:\d+)/([\w-]{32})/status", address).groups()  # type: ignore[union-attr]
    known = {path: status_of(f"{server}/{secret}/{path}") for path in ("status", "tasks", "health", "json/counts.json")}
    prefixes = set(workers._cluster.scheduler.task_prefixes)
    unknown = {
        status_of(f"{server}/{path}") for path in ("", "status", "health", "sitemap.json", f"{secret[:-1]}/status")
    }
    changing = {status_of(f"{server}/{secret}/{path}") for path in ("api/v1/retire_workers", "proxy/1/127.0.0.1")}
    workers.close()

    assert known == {"status": 200, "tasks": 200, "health": 200, "json/counts.json": 404}
    assert (unknown, changing) == ({404}, {404})
    assert prefixes == {"abs"}
