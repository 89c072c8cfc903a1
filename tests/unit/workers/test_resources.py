"""Workers declare their memory, and each job goes to one that can hold it."""

from types import SimpleNamespace

import pytest

from lfm_tasks.workers.resources import MEMORY, declare_memory, group_by_memory


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
    workers = {size: {"resources": {} if size is None else {MEMORY: size}} for size in sizes}
    client = SimpleNamespace(scheduler_info=lambda n_workers: {"workers": workers})

    assert list(group_by_memory(client, range(3), [3, 6, 16])) == groups
    assert list(group_by_memory(client, range(3), [])) == [(None, [0, 1, 2])]
