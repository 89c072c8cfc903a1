"""The spaces of a collection are connected by maps, and so is its core."""

from lfm_tasks.stages.collection.stage import _core_first, _largest_component


def test_largest_component__is_the_first_of_several_as_large() -> None:
    assert _largest_component(6, [(0, 1), (2, 4), (4, 5)]) == [2, 4, 5]
    assert _largest_component(4, [(0, 3), (1, 2)]) == [0, 3]
    assert _largest_component(0, []) == []


def test_core__is_connected() -> None:
    # A ring of ten: the core is an arc of it, whatever the order of the pairs.
    ring = [(a, (a + 1) % 10) for a in range(10)]
    assert _core_first(list(range(10)), ring, 4) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert _core_first([0, 2, 5, 7], [(0, 7), (5, 7), (2, 5)], 3) == [0, 5, 7, 2]
