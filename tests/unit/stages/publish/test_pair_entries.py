"""Pairs of spaces of pairs of bases: the same as pair by pair."""

from itertools import combinations_with_replacement

import numpy as np

from lfm_tasks.stages.publish.pair_entries import SpacesOfBases


def test_pairs_of_spaces__are_those_of_their_bases() -> None:
    rng = np.random.default_rng(0)
    # Some bases of several spaces, some of none; some spaces without one.
    basis_of = rng.integers(-1, 12, size=20)
    bases = np.array([pair for pair in combinations_with_replacement(range(12), 2) if rng.random() < 0.7])
    pairs, which = SpacesOfBases.of(basis_of.tolist(), 12).pairs(bases)

    found = {tuple(pair): tuple(bases[index]) for pair, index in zip(pairs.tolist(), which, strict=True)}
    expected = {
        (first, second): of_pair
        for first, second in combinations_with_replacement(range(20), 2)
        if (of_pair := tuple(sorted(basis_of[[first, second]]))) in set(map(tuple, bases))
    }
    assert len(pairs) == len(expected)
    assert found == expected
