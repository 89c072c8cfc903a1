"""The spaces of a collection are connected by maps, and so is its core."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from lfm_tasks.stages.collection.job import _shared_basis
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


def test_shared_basis__does_not_depend_on_the_order_of_spaces() -> None:
    generator = np.random.default_rng(0)
    latent = generator.standard_normal((60, 5))
    bases = [np.linalg.qr(latent + 0.5 * generator.standard_normal(latent.shape))[0] for _ in range(5)]

    def distances(order: list[int]) -> np.ndarray:
        rows = [bases[space] for space in order]

        def between(sources: Sequence[int], targets: Sequence[int]) -> np.ndarray:
            return np.array([[rows[target].T @ rows[source] for target in targets] for source in sources])

        job: Any = SimpleNamespace(n_core=4, refined={}, bases=order, config=SimpleNamespace(n_modes=3))
        maps: Any = SimpleNamespace(between=between)
        points = [one @ shared for one, shared in zip(rows, _shared_basis(job, maps).coefficients, strict=True)]
        apart = np.array([[np.linalg.norm(one - other) for other in points] for one in points])
        places = np.argsort(order)
        return apart[np.ix_(places, places)]

    np.testing.assert_allclose(distances([3, 1, 0, 2, 4]), distances([0, 1, 2, 3, 4]), atol=1e-9)
