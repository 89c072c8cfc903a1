"""Distortions are published rounded; a pair is published from its source to its target, however its map is stored."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lfm_tasks.stages.kept_maps.stage import KeptPair, _rounded


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
