"""Distortions are published rounded; a pair is published from its source to its target, however its map is stored."""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lfm_tasks.spaces import Space
from lfm_tasks.stages.kept_maps.stage import BestPairs, KeptPair, _most_alike, _rounded
from lfm_tasks.stages.scores.block import STATISTICS


def test_rounded__keeps_twelve_bits() -> None:
    values = np.random.default_rng(0).lognormal(0, 5, 1000)
    np.testing.assert_allclose(_rounded(values), values, rtol=2.5e-4)
    np.testing.assert_array_equal(_rounded(_rounded(values)), _rounded(values))
    assert np.isnan(_rounded(np.array([np.nan]))).all()


@pytest.mark.parametrize(("source", "target", "is_reversed"), [("a", "b", False), ("b", "a", True)])
def test_pair__has_one_key_in_both_directions(source: str, target: str, is_reversed: bool) -> None:
    bases: list[Any] = [SimpleNamespace(key=key) for key in (source, target)]
    pair = KeptPair(bases[0], bases[1], "z")
    assert pair.key == ("a", "b", "z")
    assert pair.is_reversed is is_reversed


@pytest.mark.parametrize("is_listed", [False, True])
def test_one_model__has_no_two_models_to_keep_a_map_of(is_listed: bool) -> None:
    spaces = [Space("digits", "a", layer) for layer in ("one", "two")]
    bases = {space: SimpleNamespace(key=space.layer, space=space) for space in spaces}
    values = np.zeros((1, 2, 1, len(STATISTICS)))
    table = SimpleNamespace(blocks=[SimpleNamespace(key="block", measures=("overlap",))])
    request = SimpleNamespace(measures={"overlap"}, correspondence=SimpleNamespace(regime="full"))
    zeros = np.zeros(1, dtype=int)
    cells = SimpleNamespace(request=request, table=table, first=0, others=zeros + 1, blocks=zeros, rows=zeros)
    scored: Any = SimpleNamespace(with_scores=lambda _: [cells] if is_listed else [])
    unit = SimpleNamespace(read=lambda _: values)
    store = SimpleNamespace(open=lambda *_: nullcontext(unit))
    run: Any = SimpleNamespace(store=store, catalog=SimpleNamespace(atlas=SimpleNamespace(measures=("overlap",))))
    found: Any = bases
    assert _most_alike(run, found, scored) == set()


def test_best_pairs__are_those_of_all_pairs_at_once() -> None:
    generator = np.random.default_rng(0)
    models = np.repeat(np.arange(5), 4)
    best, found = BestPairs(5), {}
    for first in range(len(models)):
        for rank in (1, 0):  # two measures ask for some of the pairs each
            others = np.arange(first + 1, len(models))
            others = others[(models[others] != models[first]) & ((others + first) % 3 == rank)]
            values = generator.integers(0, 4, len(others)) / 4 + 1e-11 * generator.random(len(others))
            best.take(int(models[first]), models[others], rank, values, (first, others))
            for other, value in zip(others.tolist(), values.tolist(), strict=True):
                key = int(models[first]), int(models[other])
                found.setdefault(key, []).append((rank, -round(value, 9), first, other))

    assert sorted(best.pairs()) == sorted(min(pairs)[2:] for pairs in found.values())
    assert BestPairs(2).pairs() == []
