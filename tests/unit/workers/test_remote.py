"""Clusters that a catalog names: workers are checked before they work, and what is missing is a sentence."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import walk_tb
from types import SimpleNamespace
from typing import Any

import dask
import pytest
from dask.distributed import Client, LocalCluster, Scheduler, SpecCluster, Worker, get_worker

from lfm_tasks import __version__
from lfm_tasks.catalog import Catalog, on_scheduler, read_catalog
from lfm_tasks.stores.remote.objects import S3Objects
from lfm_tasks.stores.units.durable import locked
from lfm_tasks.workers import remote
from lfm_tasks.workers.dask_config import dask_settings
from lfm_tasks.workers.pool import ClusterError
from lfm_tasks.workers.remote import Readiness, RemoteDask
from lfm_tasks.workers.resources import GPU, MEMORY

CATALOG = """
version: 1
datasets: {probe: {ids: positional}}
models: {a: {activations: {path: a.npy, dataset: probe}}}
"""


def catalog_with(folder: Path, cluster: str = "{}") -> Catalog:
    (folder / "data_catalog.yaml").write_text(f"{CATALOG}cluster: {cluster}\n")
    return read_catalog(folder / "data_catalog.yaml", {})


def doubled(number: int) -> int:
    return 2 * number


@contextmanager
def standing(n_threads: int) -> Iterator[str]:
    # As the page of clusters asks for: Dask's own settings pause a worker in a process as large as that of the tests.
    with dask_settings(), LocalCluster(
        n_workers=1, threads_per_worker=n_threads, processes=False, host="127.0.0.1", dashboard_address="127.0.0.1:0",
        protocol="tcp", memory_limit="1GiB",
    ) as cluster:  # fmt: skip
        yield cluster.scheduler_address


def test_scheduler_that_runs_already__does_the_work_and_goes_on(tmp_path: Path) -> None:
    with standing(1) as address, locked(tmp_path / ".lfm-atlas", "test"):
        for _ in range(2):
            workers = RemoteDask(on_scheduler(catalog_with(tmp_path), address))
            assert dict(workers.run(doubled, [1, 2, 3])) == {0: 2, 1: 4, 2: 6}
            workers.close()


def test_worker_with_two_threads__is_refused(tmp_path: Path) -> None:
    with standing(2) as address, locked(tmp_path / ".lfm-atlas", "test"):
        workers = RemoteDask(on_scheduler(catalog_with(tmp_path), address))
        with pytest.raises(ClusterError, match=r"has 2 threads, expected 1 .* Start dask worker --nthreads 1"):
            list(workers.run(doubled, [1]))
        workers.close()


@contextmanager
def unequal(*sizes: int | None, gpus: int = 0) -> Iterator[str]:
    """Give a scheduler with a worker of each size (bytes), named by it; None: one that declares none.

    The first ``gpus`` of them offer a GPU.
    """
    offers = [
        ({MEMORY: size} if size else {}) | ({GPU: 1} if number < gpus else {}) for number, size in enumerate(sizes)
    ]
    workers = {
        str(size): {"cls": Worker, "options": {"nthreads": 1, "preload": [], "resources": offer or None}}
        for size, offer in zip(sizes, offers, strict=True)
    }
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}}
    with SpecCluster(workers=workers, scheduler=scheduler) as cluster:
        yield cluster.scheduler_address


def where(number: int) -> str:
    time.sleep(0.02)
    return str(get_worker().name)


SMALL, LARGE = 1 << 30, 4 << 30


def test_heavy_jobs__go_to_the_worker_that_can_hold_them(tmp_path: Path) -> None:
    needs = [SMALL // 2, 2 * SMALL] * 10
    with unequal(SMALL, LARGE) as address, locked(tmp_path / ".lfm-atlas", "test"):
        workers = RemoteDask(on_scheduler(catalog_with(tmp_path), address))
        found = dict(workers.run(where, range(20), needs))
        assert workers.memory_limit == LARGE
        workers.close()

    assert {found[number] for number in range(1, 20, 2)} == {str(LARGE)}
    assert str(SMALL) in {found[number] for number in range(0, 20, 2)}


@pytest.mark.parametrize("sizes", [(SMALL,), (SMALL, LARGE), (None,), (None, SMALL)])
def test_jobs_that_no_worker_says_it_can_hold__wait_for_none(tmp_path: Path, sizes: tuple[int | None, ...]) -> None:
    with unequal(*sizes) as address, locked(tmp_path / ".lfm-atlas", "test"):
        workers = RemoteDask(on_scheduler(catalog_with(tmp_path), address))
        assert len(dict(workers.run(where, range(4), [8 * LARGE] * 4))) == 4
        assert workers.memory_limit == (None if None in sizes else max(filter(None, sizes)))
        workers.close()


def test_worker_that_declares_nothing__takes_whatever_no_worker_is_too_small_for(tmp_path: Path) -> None:
    with unequal(None, LARGE) as address, locked(tmp_path / ".lfm-atlas", "test"):
        workers = RemoteDask(on_scheduler(catalog_with(tmp_path), address))
        assert set(dict(workers.run(where, range(12), [LARGE] * 12)).values()) == {"None", str(LARGE)}
        workers.close()
    with unequal(None, SMALL, LARGE) as address, locked(tmp_path / ".lfm-atlas", "test"):
        workers = RemoteDask(on_scheduler(catalog_with(tmp_path), address))
        assert set(dict(workers.run(where, range(6), [LARGE] * 6)).values()) == {str(LARGE)}
        workers.close()


def test_jobs_on_a_gpu__go_to_the_worker_that_offers_one(tmp_path: Path) -> None:
    devices = ["cpu", "cuda"] * 6
    with unequal(SMALL, LARGE, gpus=1) as address, locked(tmp_path / ".lfm-atlas", "test"):
        workers = RemoteDask(on_scheduler(catalog_with(tmp_path), address))
        # More than its worker declares: that is no reason to wait for ever.
        found = dict(workers.run(where, range(12), [2 * SMALL] * 12, devices))
        workers.close()

    assert {found[number] for number in range(1, 12, 2)} == {str(SMALL)}
    assert {found[number] for number in range(0, 12, 2)} == {str(LARGE)}


def test_jobs_on_a_gpu_that_no_worker_offers__are_refused_before_the_first_job(tmp_path: Path) -> None:
    with unequal(SMALL, LARGE) as address, locked(tmp_path / ".lfm-atlas", "test"):
        workers = RemoteDask(on_scheduler(catalog_with(tmp_path), address))
        with pytest.raises(ClusterError, match=r"device: cuda and no worker that offers a GPU, .*--resources GPU=1"):
            list(workers.run(Path.touch, [tmp_path / "started"] * 2, [], ["cpu", "cuda"]))
        workers.close()

    assert not (tmp_path / "started").exists()


def worker(n_threads: int = 1) -> Any:
    return SimpleNamespace(address="tcp://10.0.0.7:1", state=SimpleNamespace(nthreads=n_threads))


def test_worker_of_another_version_or_without_the_store__is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(objects: S3Objects, name: str) -> None:
        raise PermissionError(f"{objects.place}/{name}")

    monkeypatch.setattr(S3Objects, "read", unreachable)
    (tmp_path / "lock").write_text("ours")
    other = Readiness(str(tmp_path), "", "ours")
    other.version = "0.0.1"

    with pytest.raises(ClusterError, match=rf"has lfm-atlas {__version__}, expected 0.0.1 as the run has"):
        other.setup(worker())
    with pytest.raises(ClusterError, match=r"10.0.0.7:1 does not see the store .*, expected it at this path"):
        Readiness(str(tmp_path), "", "theirs").setup(worker())
    with pytest.raises(ClusterError, match="does not see the store"):
        Readiness(str(tmp_path / "none"), "", "ours").setup(worker())
    with pytest.raises(
        ClusterError,
        match=r"cannot read nowhere \(PermissionError: nowhere/lock\), expected it to. Install the extra remote",
    ):
        Readiness(str(tmp_path), "nowhere", "ours").setup(worker())
    Readiness(str(tmp_path), "", "ours").setup(worker())


def test_scheduler_that_does_not_answer__is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "CONNECT_SECONDS", 1)
    workers = RemoteDask(on_scheduler(catalog_with(tmp_path), "tcp://127.0.0.1:1"))

    with (
        locked(tmp_path / ".lfm-atlas", "test"),
        pytest.raises(
            ClusterError, match=r"the scheduler tcp://127.0.0.1:1 cannot be reached \(.*\). Check its address"
        ),
    ):
        list(workers.run(doubled, [1]))


def test_client_that_cannot_start__is_closed_at_once_and_not_at_the_end_of_python() -> None:
    with (
        standing(1) as address,
        dask.config.set({"distributed.comm.require-encryption": True}),
        pytest.raises(ClusterError, match="encryption required") as caught,
        remote.connect({"address": address}, 1),
    ):
        pass

    clients = set()
    assert caught.value.__cause__ is not None
    for frame, _ in walk_tb(caught.value.__cause__.__traceback__):
        clients |= {one for one in frame.f_locals.values() if isinstance(one, Client)}
    assert [client.status for client in clients] == ["closed"]


def test_scheduler_without_workers__is_waited_for_and_told(tmp_path: Path) -> None:
    with (
        LocalCluster(
            n_workers=0, processes=False, host="127.0.0.1", dashboard_address="127.0.0.1:0", protocol="tcp"
        ) as cluster,
        locked(tmp_path / ".lfm-atlas", "test"),
    ):
        section = f"{{type: address, scheduler: '{cluster.scheduler_address}', wait_seconds: 1}}"
        with pytest.raises(ClusterError, match=r"no worker came within 1 s. Look at the queue"):
            list(RemoteDask(catalog_with(tmp_path, section)).run(doubled, [1]))
