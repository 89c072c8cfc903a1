"""Cosines of matched tensors: of a network and one that comes from it, and of networks that have nothing in common."""

import numpy as np
import pytest

from lfm_tasks.lineage.weights import matched_tensors, weight_agreement


def test_changed_weights__are_shared_and_others_are_apart() -> None:
    generator = np.random.default_rng(0)
    own = [generator.normal(size=(40, 30)) for _ in range(4)]
    tuned = [values + 0.3 * generator.normal(size=values.shape) for values in own]
    others = [generator.normal(size=(40, 30)) for _ in range(4)]

    shared, apart = (weight_agreement(zip(own, them, strict=True), 4) for them in (tuned, others))

    assert shared.are_shared
    assert not shared.are_apart
    assert shared.cosine == pytest.approx(1 / np.sqrt(1.09), abs=0.02)
    assert apart.are_apart
    assert not apart.are_shared


def test_few_matched_tensors__say_nothing() -> None:
    ones = np.ones((3, 3))

    for n_matched, n_tensors in ((1, 1), (2, 5)):
        found = weight_agreement([(ones, ones)] * n_matched, n_tensors)
        assert not (found.says_something)
        assert not (found.are_shared)
        assert not (found.are_apart)
    empty = weight_agreement([(ones, 0 * ones)] * 3, 3)
    assert (np.isnan(empty.cosine), empty.n_matched, empty.are_shared) == (True, 0, False)


def test_tensors__are_matched_by_name_then_by_place_among_those_of_their_shape() -> None:
    first = {"a": (2, 2), "b": (2, 2), "c": (5, 1), "d": (3, 3)}
    second = {"x": (2, 2), "b": (2, 2), "c": (1, 5), "y": (3, 3), "z": (3, 3)}

    assert matched_tensors(first, second) == [("a", "x"), ("b", "b"), ("d", "y")]
