"""Workers killed at random, while they start too, and a job that kills every worker it meets: all else finishes."""

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lfm_tasks.workers.pool import LocalDask, WorkerDied
from tests.robustness.chaos.conftest import crowd
from tests.unit.stores.units.test_writers import assert_all_whole, commit_with_kills

pytestmark = pytest.mark.chaos
MOST_SECONDS = 120.0


def short(number: int) -> int:
    time.sleep(0.1)
    return number


def deadly(number: int) -> int:
    if number == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return short(number)


def worker_pids() -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            is_child = entry.name.isdigit() and f"PPid:\t{os.getpid()}\n" in (entry / "status").read_text()
            if is_child and b"spawn_main" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


@pytest.mark.filterwarnings("ignore")  # what Dask says of sockets that a dead worker held
@pytest.mark.parametrize("seed", range(3))
def test_workers_killed_at_random__are_restored_and_every_job_finishes(
    seed: int, figure: Callable[[str], None]
) -> None:
    workers, ended, kills = LocalDask(2), threading.Event(), list[int]()
    chance = random.Random(seed)  # noqa: S311 - moments, no secrets

    def kill() -> None:
        while not ended.wait(chance.uniform(0.2, 3)) and len(kills) < 12:
            if pids := worker_pids():
                kills.append(chance.choice(pids))
                os.kill(kills[-1], signal.SIGKILL)

    results: dict[int, Any] = {}
    began = time.monotonic()
    try:
        for number, result in workers.run(short, range(100)):
            results[number] = result
            if len(results) == 1:
                threading.Thread(target=kill, daemon=True).start()
    finally:
        ended.set()
        workers.close()
    took = time.monotonic() - began

    assert results == {number: number for number in range(100)}
    assert took <= MOST_SECONDS * crowd()
    figure(f"workers, seed {seed}: {len(kills)} killed, 100 of 100 jobs done in {took:.0f} s")


@pytest.mark.filterwarnings("ignore")
def test_job_that_kills_every_worker__is_named_and_the_others_finish(figure: Callable[[str], None]) -> None:
    workers = LocalDask(2)
    began = time.monotonic()
    try:
        results = dict(workers.run(deadly, range(20)))
    finally:
        workers.close()
    took = time.monotonic() - began

    assert isinstance(results.pop(7), WorkerDied)
    assert results == {number: number for number in range(20) if number != 7}
    assert took <= MOST_SECONDS * crowd()
    figure(f"a job that kills every worker: named, 19 of 19 others done in {took:.0f} s")


@pytest.mark.filterwarnings("ignore")
def test_worker_that_freezes_and_dies_with_results__holds_nobody_up(figure: Callable[[str], None]) -> None:
    workers = LocalDask(2)
    results: dict[int, Any] = {}
    try:
        for number, result in workers.run(short, range(40)):
            results[number] = result
            if len(results) == 5:
                frozen = worker_pids()[-1]
                os.kill(frozen, signal.SIGSTOP)
                threading.Timer(10, os.kill, [frozen, signal.SIGKILL]).start()
                began = time.monotonic()
    finally:
        workers.close()
    took = time.monotonic() - began

    assert results == {number: number for number in range(40)}
    assert took <= MOST_SECONDS * crowd()
    figure(f"a worker frozen for 10 s, then dead: 40 of 40 jobs done {took:.0f} s after")


@pytest.mark.filterwarnings("ignore")
def test_worker_that_is_stopped__is_started_anew_and_every_job_finishes(figure: Callable[[str], None]) -> None:
    workers, results = LocalDask(2), dict[int, Any]()
    began = time.monotonic()
    try:
        for number, result in workers.run(short, range(40)):
            results[number] = result
            if len(results) == 5:
                os.kill(worker_pids()[0], signal.SIGSTOP)
    finally:
        workers.close()
    took = time.monotonic() - began

    assert results == {number: number for number in range(40)}
    assert took <= MOST_SECONDS * crowd()
    figure(f"a worker stopped for good: 40 of 40 jobs done in {took:.0f} s")


def test_ten_thousand_commits_of_the_same_units_by_four_processes__fail_never(
    tmp_path: Path, figure: Callable[[str], None]
) -> None:
    n_units, n_kills = 2500, 60

    n_failed = commit_with_kills(tmp_path, n_units=n_units, n_processes=4, n_kills=n_kills)

    assert n_failed == 0
    assert_all_whole(tmp_path, n_units)
    figure(f"same units: {4 * n_units} commits by 4 processes, {n_kills} kills; none failed, {n_units} whole units")
