"""Workers declare their memory, and each job goes to one that can hold it."""

import resource
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lfm_tasks.catalog import Catalog
from lfm_tasks.catalog.cluster import LocalCluster
from lfm_tasks.workers import resources as machine
from lfm_tasks.workers.cgroups import Limit
from lfm_tasks.workers.resources import (
    GPU,
    LEAST_BYTES,
    MEMORY,
    declare_memory,
    group_by_request,
    memory_limit,
    n_workers,
    offered_gpus,
    what_limits,
)

GIB = 1 << 30


def client_of(*offers: dict[str, int]) -> Any:
    """Return a client of a scheduler whose workers offer these resources."""
    workers = {f"tcp://10.0.0.{number}:1": {"resources": offer} for number, offer in enumerate(offers)}
    return SimpleNamespace(scheduler_info=lambda n_workers: {"workers": workers})


@pytest.mark.parametrize(("resources", "limit", "declared"), [({}, 7, 7), ({MEMORY: 5}, 7, 5), ({}, None, None)])
def test_worker__declares_its_limit_unless_it_was_told_another(
    resources: dict[str, int], limit: int | None, declared: int | None
) -> None:
    state = SimpleNamespace(total_resources=dict(resources), available_resources=dict(resources))
    declare_memory(SimpleNamespace(state=state, memory_manager=SimpleNamespace(memory_limit=limit)))
    assert state.total_resources.get(MEMORY) == state.available_resources.get(MEMORY) == declared


@pytest.mark.parametrize(
    ("sizes", "groups"),
    [
        ((4, 4), [(None, [0, 1, 2])]),
        ((4, 8), [({MEMORY: 8}, [1]), (None, [0, 2])]),
        ((None, 8), [(None, [0, 1, 2])]),
        ((2, 4, 8), [({MEMORY: 8}, [1]), ({MEMORY: 4}, [0]), (None, [2])]),
    ],
)
def test_jobs__request_the_smallest_worker_that_holds_them_and_nothing_where_none_does(
    sizes: tuple[int | None, ...], groups: list[tuple[dict[str, int] | None, list[int]]]
) -> None:
    client = client_of(*({} if size is None else {MEMORY: size} for size in sizes))

    assert list(group_by_request(client, range(3), [3, 6, 16])) == groups
    assert list(group_by_request(client, range(3), [])) == [(None, [0, 1, 2])]
    assert list(group_by_request(client, range(3), [3, 6, 16], ["cpu"] * 3)) == groups


@pytest.mark.parametrize(
    ("offers", "groups"),
    [
        # A worker with a GPU, and a larger one without: the memory of that one is no help.
        (({MEMORY: 4, GPU: 1}, {MEMORY: 8}), [({MEMORY: 8}, [1]), ({GPU: 1}, [2, 3]), (None, [0])]),
        (
            ({MEMORY: 4, GPU: 1}, {MEMORY: 8, GPU: 1}),
            [({GPU: 1, MEMORY: 8}, [3]), ({MEMORY: 8}, [1]), ({GPU: 1}, [2]), (None, [0])],
        ),
        (({GPU: 1},), [({GPU: 1}, [2, 3]), (None, [0, 1])]),
        # GPUs with names, of a local cluster.
        (
            ({GPU: 1, "cuda:0": 1}, {GPU: 1, "cuda:1": 1}, {}),
            [({GPU: 1, "cuda:1": 1}, [3]), ({GPU: 1}, [2]), (None, [0, 1])],
        ),
    ],
)
def test_jobs_on_a_gpu__request_it_and_the_memory_of_workers_that_have_one(
    offers: tuple[dict[str, int], ...], groups: list[tuple[dict[str, int] | None, list[int]]]
) -> None:
    needs, devices = [3, 6, 3, 6], ["cpu", "cpu", "cuda", "cuda:1"]

    assert list(group_by_request(client_of(*offers), range(4), needs, devices)) == groups


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps"])
def test_jobs_on_a_gpu_that_no_worker_offers__are_refused(device: str) -> None:
    with pytest.raises(LookupError, match=rf"device: {device} and no worker that offers a GPU.*--resources GPU=1"):
        list(group_by_request(client_of({MEMORY: 8}, {}), range(2), [1, 1], ["cpu", device]))


@pytest.mark.parametrize(("workers", "gpus"), [(1, 0), (1, 1), (1, 4), (3, 2), (2, 3)])
def test_gpus_of_a_machine__are_dealt_to_its_workers_each_once(workers: int, gpus: int) -> None:
    offers = [offered_gpus(number, workers, gpus) for number in range(workers)]

    assert sorted(name for offer in offers for name in offer if name != GPU) == [f"cuda:{gpu}" for gpu in range(gpus)]
    assert [bool(offer) for offer in offers] == [number < gpus for number in range(workers)]
    assert all(offer[GPU] == 1 and f"cuda:{number}" in offer for number, offer in enumerate(offers) if offer)


@pytest.fixture
def set_limits(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make this a machine of 8 cores and 64 GiB with these limits."""

    def set_all(quota: float | None = None, group: int | None = None, alone: int = -1) -> None:
        monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set(range(8)))
        monkeypatch.setattr(machine.os, "sysconf", lambda name: {"SC_PAGE_SIZE": 4096}.get(name, 64 * GIB // 4096))
        monkeypatch.setattr(machine, "cpu_quota", lambda: None if quota is None else Limit(quota, "/cpu.max"))
        monkeypatch.setattr(machine, "group_memory", lambda: None if group is None else Limit(group, "/memory.max"))
        limits = {resource.RLIMIT_AS: (alone, -1)}
        monkeypatch.setattr(machine.resource, "getrlimit", lambda which: limits.get(which, (-1, -1)))

    return set_all


def local(**settings: Any) -> Catalog:
    return cast(Catalog, SimpleNamespace(cluster=LocalCluster(**settings)))


@pytest.mark.parametrize(
    ("limits", "workers", "n_bytes", "said_by"),
    [
        ({}, 8, 8 * GIB, ("", "")),
        ({"quota": 2.5, "group": 64 * GIB}, 2, 32 * GIB, ("/cpu.max", "")),
        ({"quota": 0.5}, 1, 64 * GIB, ("/cpu.max", "")),
        ({"quota": 400.0, "group": 16 * GIB}, 8, 2 * GIB, ("", "/memory.max")),
        ({"group": GIB}, 2, GIB // 2, ("/memory.max: 400 MiB a worker", "/memory.max")),
        ({"group": GIB // 8}, 1, GIB // 8, ("/memory.max: 400 MiB a worker", "/memory.max")),
        ({"alone": GIB}, 8, GIB, ("", "ulimit -v")),
        ({"alone": 20 * GIB}, 8, 8 * GIB, ("", "")),
    ],
)
def test_local_workers__have_what_the_smallest_limit_leaves(
    set_limits: Any, limits: dict[str, Any], workers: int, n_bytes: int, said_by: tuple[str, str]
) -> None:
    set_limits(**limits)
    assert n_workers(local()) == workers
    assert memory_limit(local()) == n_bytes
    assert what_limits(local()) == said_by


def test_what_the_catalog_says__is_taken_at_its_word(set_limits: Any) -> None:
    set_limits(quota=2.0, group=GIB)
    written = local(n_workers=5, memory_limit="3GiB")
    assert (n_workers(written), memory_limit(written), what_limits(written)) == (5, 3 * GIB, ("", ""))
    assert LEAST_BYTES < GIB
