"""Local workers: lost ones are replaced, a start that fails is tried again, a close that hangs costs nothing."""

import logging
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import dask.distributed
import pytest
from dask.utils import parse_timedelta
from distributed.scheduler import NoValidWorkerError

from lfm_tasks.errors import DataError
from lfm_tasks.workers import local_cluster, pool
from lfm_tasks.workers.dask_config import DASK_SETTINGS, dask_settings
from lfm_tasks.workers.pool import (
    N_STARTS,
    ClusterError,
    InProcess,
    JobFailure,
    LocalDask,
    StoppedWorkers,
    WorkerDied,
    is_relevant_record,
    is_stopped,
    replace_lost_workers,
)
from lfm_tasks.workers.resources import MEMORY


class Cluster:
    def __init__(self, *states: str) -> None:
        self.status = SimpleNamespace(name="running")
        self.workers = {
            number: SimpleNamespace(status=SimpleNamespace(name=name)) for number, name in enumerate(states)
        }
        self.scaled_to: list[int] = []

    def scale(self, n_workers: int) -> None:
        self.scaled_to.append(n_workers)

    def close(self, timeout: float) -> None:
        raise TimeoutError


@pytest.mark.parametrize(
    ("states", "scaled_to"),
    [(("running", "running"), []), (("running", "closed"), [2]), (("failed",), [2]), (("starting", "running"), [])],
)
def test_worker_that_is_gone__is_replaced(states: tuple[str, ...], scaled_to: list[int]) -> None:
    cluster = Cluster(*states)

    replace_lost_workers(cluster, 2)

    assert cluster.scaled_to == scaled_to
    assert not [worker for worker in cluster.workers.values() if worker.status.name in ("closed", "failed")]


@pytest.fixture
def idle() -> Iterator["subprocess.Popen[bytes]"]:
    """Give a process that waits."""
    with subprocess.Popen(["/bin/sleep", "600"]) as process:
        yield process
        process.kill()


def test_worker_that_stays_stopped__is_ended(idle: "subprocess.Popen[bytes]") -> None:
    cluster, stopped = SimpleNamespace(workers={0: SimpleNamespace(pid=idle.pid)}), StoppedWorkers()
    os.kill(idle.pid, signal.SIGSTOP)
    while not is_stopped(idle.pid):
        time.sleep(0.01)

    for _ in range(pool.N_STOPPED_CHECKS - 1):
        stopped.check(cluster)
    assert idle.poll() is None

    stopped.check(cluster)
    assert idle.wait(10) == -signal.SIGKILL
    stopped.check(cluster)


def test_worker_that_goes_on__is_left_alone(idle: "subprocess.Popen[bytes]") -> None:
    cluster, stopped = SimpleNamespace(workers={0: SimpleNamespace(pid=idle.pid)}), StoppedWorkers()
    for sent, expected in ((signal.SIGSTOP, True), (signal.SIGCONT, False)) * 2:
        os.kill(idle.pid, sent)
        while is_stopped(idle.pid) is not expected:
            time.sleep(0.01)
        for _ in range(pool.N_STOPPED_CHECKS - 1):
            stopped.check(cluster)

    assert idle.poll() is None


def test_process_that_is_gone_or_busy__is_not_stopped() -> None:
    assert not is_stopped(os.getpid())
    assert not is_stopped(2**22 + 1)


def test_start_of_workers__is_tried_again_and_then_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def fails(n_workers: int, memory_limit: int | None, *, with_dashboard: bool) -> None:
        assert not with_dashboard
        tried.append(n_workers)
        raise RuntimeError("Nanny failed to start.")

    monkeypatch.setattr(local_cluster, "start_cluster", fails)

    with pytest.raises(RuntimeError, match=r"got 2 workers that could not be started .*Lower cluster.n_workers"):
        list(LocalDask(2).run(str, ["job"]))
    assert tried == [2] * N_STARTS


def test_cluster_that_does_not_close__costs_nothing() -> None:
    local = LocalDask(1)
    local._cluster = Cluster()

    local.close()

    assert local._cluster is None


@pytest.mark.parametrize(("deadly", "blamed"), [({3}, [3]), (set(), [])])
def test_neighbor_of_a_deadly_job__is_not_blamed(
    deadly: set[int], blamed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[list[int]] = []

    def finished(_: object, function: Any, jobs: dict[int, int], needs: list[int], devices: list[str]) -> Any:
        """Jobs 2 and 3 die with company; alone, only the deadly ones do."""
        assert list(needs) == [10, 11, 12, 13, 14]
        assert devices == ["cpu", "cuda", "cpu", "cpu", "cpu"]
        tried.append(list(jobs))
        for index, job in jobs.items():
            dies = index in (2, 3) if len(jobs) > 1 else index in deadly
            yield index, (WorkerDied("failed", "died") if dies else function(job), 0)

    monkeypatch.setattr(pool, "_results_as_completed", finished)

    results = dict(LocalDask(2).run(str, range(5), range(10, 15), ["cpu", "cuda", "cpu", "cpu", "cpu"]))

    assert tried == [[0, 1, 2, 3, 4], [2], [3]]
    assert [index for index, result in results.items() if isinstance(result, JobFailure)] == blamed
    assert len(results) == 5


def test_result_on_a_worker_that_died__is_given_up_within_a_minute() -> None:
    n_tries = 1 + DASK_SETTINGS["distributed.comm.retry.count"]

    assert n_tries * parse_timedelta(DASK_SETTINGS["distributed.comm.timeouts.connect"]) <= 60


def test_workers_that_are_gone_for_good__are_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*_: object) -> Any:
        raise NoValidWorkerError("job", set(), set(), {MEMORY: 8 << 30}, 60.0)

    monkeypatch.setattr(pool, "_results_as_completed", lost)

    with pytest.raises(ClusterError, match=r"all workers that may take a task are gone, and none came back .* Look at"):
        list(LocalDask(2).run(str, ["job"]))


def test_scheduler_that_is_gone__is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*_: object) -> Any:
        raise dask.distributed.CancelledError("job")

    monkeypatch.setattr(pool, "_results_as_completed", lost)

    with pytest.raises(
        RuntimeError, match=r"got no Dask scheduler any more, expected it to run. Run again; finished work is kept"
    ):
        list(LocalDask(1).run(str, ["job"]))


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        ("Failed to communicate with scheduler during heartbeat.", False),
        ("Compute Failed\nKey:       job-0\nTraceback: ...", False),
        ("Worker is at 81% memory usage", True),
    ],
)
def test_missed_heartbeat_and_failed_job__are_left_out_of_the_log(message: str, wanted: bool) -> None:
    record = logging.LogRecord("distributed.worker", logging.ERROR, __file__, 1, message, None, None)

    assert is_relevant_record(record) is wanted


def test_dask_settings__are_not_changed_by_who_reads_them() -> None:
    before = deepcopy(DASK_SETTINGS)
    with dask_settings():
        dask.config.get("distributed.scheduler.http.routes").append("a.route")

    assert before == DASK_SETTINGS


def test_error_of_a_job__is_its_result_and_the_others_go_on() -> None:
    def halved(number: int) -> float:
        if number == 1:
            raise DataError("not_finite", "got NaN")
        return 6 / number

    results = dict(InProcess().run(halved, [0, 1, 2]))

    assert results == {
        0: JobFailure("failed", "ZeroDivisionError: division by zero"),
        1: JobFailure("not_finite", "got NaN"),
        2: 3.0,
    }


def test_full_disk__ends_the_run() -> None:
    def write(_: int) -> None:
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        list(InProcess().run(write, [0]))


def test_large_jobs__reach_a_worker_without_a_warning() -> None:
    local = LocalDask(1)
    try:
        assert list(local.run(len, [b"pairs" * (1 << 22)])) == [(0, 5 << 22)]
    finally:
        local.close()
