"""The spaces of a collection are connected by maps, and so is its core."""

import numpy as np

from lfm_tasks.stages.collection.stage import _core_first, _largest_component


def known(n_spaces: int, pairs: list[tuple[int, int]]) -> np.ndarray:
    both = np.zeros((n_spaces, n_spaces), dtype=bool)
    for a, b in pairs:
        both[a, b] = both[b, a] = True
    return both


def test_largest_component__is_the_first_of_several_as_large() -> None:
    assert _largest_component(known(6, [(0, 1), (2, 4), (4, 5)])) == [2, 4, 5]
    assert _largest_component(known(4, [(0, 3), (1, 2)])) == [0, 3]
    assert _largest_component(known(0, [])) == []


def test_core__is_connected() -> None:
    # A ring of ten: the core is an arc of it, whatever the order of the pairs.
    ring = known(10, [(a, (a + 1) % 10) for a in range(10)])
    assert _core_first(list(range(10)), ring, 4) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert _core_first([0, 2, 5, 7], known(8, [(0, 7), (5, 7), (2, 5)]), 3) == [0, 5, 7, 2]
