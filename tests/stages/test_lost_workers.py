"""Workers that are lost are replaced, a start that fails is tried again, a close that hangs costs nothing."""

from types import SimpleNamespace
from typing import Any

import dask.distributed
import pytest

from lfm_tasks.stages.workers import N_STARTS, LocalDask, _replace_lost


class Cluster:
    def __init__(self, *states: str) -> None:
        self.status = SimpleNamespace(name="running")
        self.workers = {
            number: SimpleNamespace(status=SimpleNamespace(name=name)) for number, name in enumerate(states)
        }
        self.asked: list[int] = []

    def scale(self, n_workers: int) -> None:
        self.asked.append(n_workers)

    def close(self, timeout: float) -> None:
        raise TimeoutError


@pytest.mark.parametrize(
    ("states", "asked"),
    [(("running", "running"), []), (("running", "closed"), [2]), (("failed",), [2]), (("starting", "running"), [])],
)
def test_worker_that_is_gone__is_replaced(states: tuple[str, ...], asked: list[int]) -> None:
    cluster = Cluster(*states)

    _replace_lost(cluster, 2)

    assert cluster.asked == asked
    assert not [worker for worker in cluster.workers.values() if worker.status.name in ("closed", "failed")]


def test_start_of_workers__is_tried_again_and_then_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def fails(**settings: Any) -> None:
        tried.append(settings["n_workers"])
        raise RuntimeError("Nanny failed to start.")

    monkeypatch.setattr(dask.distributed, "LocalCluster", fails)

    with pytest.raises(RuntimeError, match=r"found 2 workers that could not be started .*lower cluster.n_workers"):
        list(LocalDask(2).run(str, ["job"]))
    assert tried == [2] * N_STARTS


def test_cluster_that_does_not_close__costs_nothing() -> None:
    workers = LocalDask(1)
    workers._cluster = Cluster()

    workers.close()

    assert workers._cluster is None


def test_scheduler_that_is_gone__is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*_: object) -> Any:
        raise dask.distributed.CancelledError("job")

    workers = LocalDask(1)
    monkeypatch.setattr(workers, "_finished", lost)

    with pytest.raises(
        RuntimeError, match="found Dask's scheduler gone, needs it: run again, what was finished is kept"
    ):
        list(workers.run(str, ["job"]))
