"""Pairs counted by classes: the same as pair by pair."""

from itertools import product

import numpy as np
import pytest

from lfm_tasks.stages.inventory.alike import Sides, alike, first_shared_pair, n_pairs_of_two


def random_sides(rng: np.random.Generator, n_items: int) -> Sides:
    sources, targets = (np.flatnonzero(rng.random(n_items) < 0.4) for _ in range(2))
    return sources, targets


def pairs_of(sides: Sides) -> set[tuple[int, int]]:
    one_way = set(product(sides[0].tolist(), sides[1].tolist()))
    return one_way | {(target, source) for source, target in one_way}


@pytest.mark.parametrize("seed", range(10))
def test_pairs__are_those_of_a_list_of_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    comparisons = [random_sides(rng, 15) for _ in range(seed % 4)]
    listed = {frozenset(pair) for sides in comparisons for pair in pairs_of(sides)}
    assert n_pairs_of_two(15, comparisons) == sum(len(pair) == 2 for pair in listed)


@pytest.mark.parametrize("seed", range(10))
def test_first_shared_pair__is_the_lowest_of_both(seed: int) -> None:
    rng = np.random.default_rng(seed)
    one, other = random_sides(rng, 6), random_sides(rng, 6)
    assert first_shared_pair(6, one, other) == min(pairs_of(one) & pairs_of(other), default=None)


def test_items__are_alike_if_they_are_in_the_same_subsets() -> None:
    groups = alike(5, [np.array([0, 1, 2]), np.array([2, 3]), np.array([], dtype=int)])
    assert groups.classes[0] == groups.classes[1]
    assert len(set(groups.classes[[1, 2, 3, 4]].tolist())) == 4
    assert groups.sizes[groups.classes].tolist() == [2, 2, 1, 1, 1]
    assert len(alike(0, []).sizes) == 0
    assert n_pairs_of_two(0, []) == 0
    assert first_shared_pair(0, (np.array([], dtype=int),) * 2, (np.array([], dtype=int),) * 2) is None


def test_two_hundred_thousand_items__are_counted_at_once() -> None:
    everything = np.arange(200_000)
    assert n_pairs_of_two(200_000, [(everything, everything)]) == 200_000 * 199_999 // 2
