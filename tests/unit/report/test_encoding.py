"""Numbers of the page: pack_matrix, summarized by model, put in order."""

import base64
import zlib
from collections.abc import Callable

import numpy as np
import pytest

from lfm_tasks.report.encoding import (
    best_matches,
    leads,
    matches_on_page,
    model_similarity,
    pack_bytes,
    pack_matrix,
    pack_matrix_if_any,
)
from lfm_tasks.statistics.model_pairs import best_match


@pytest.mark.parametrize("is_symmetric", [False, True])
def test_pack_matrix__holds_values_to_half_a_thousandth(
    is_symmetric: bool, unpacked: Callable[..., np.ndarray]
) -> None:
    values = np.random.default_rng(0).uniform(-1, 1, (7, 7))
    values[2, 3] = values[3, 2] = np.nan
    values = (values + values.T) / 2 if is_symmetric else values

    stored = pack_matrix(values)

    assert stored["symmetric"] == is_symmetric
    np.testing.assert_allclose(unpacked(stored), values, atol=0.000501)


def test_pack_matrix__gives_large_values_the_room_they_need(unpacked: Callable[..., np.ndarray]) -> None:
    values = np.array([[2e6, -0.25, np.nan]])

    np.testing.assert_allclose(unpacked(pack_matrix(values)), values, atol=2e6 / 32767)


def test_pack_matrix_if_any__is_none_without_a_value() -> None:
    assert pack_matrix_if_any(np.full((2, 2), np.nan)) is None


def test_pack_bytes__gives_each_entry_127_steps() -> None:
    values = np.array([[1.0, -0.5, 0.0], [1e-6, 2e-6, np.nan], [0.0, 0.0, 0.0]])

    stored = pack_bytes(values)

    steps = np.frombuffer(zlib.decompress(base64.b64decode(stored["steps"])), dtype=np.int8).reshape(3, 3)
    restored = steps * np.array(stored["units"])[:, None]
    np.testing.assert_allclose(restored, np.nan_to_num(values), atol=0.004, rtol=0.01)
    np.testing.assert_allclose(restored[1], [1e-6, 2e-6, 0], atol=1e-8)


def test_model_similarity__averages_best_matches_of_both_directions() -> None:
    values = np.array(
        [
            [1, 0.1, 0.8, 0.2, 0.3],
            [0.1, 1, 0.5, 0.4, 0.6],
            [0.8, 0.5, 1, 0, 0],
            [0.2, 0.4, 0, 1, 0],
            [0.3, 0.6, 0, 0, 1],
        ]
    )

    similarity = model_similarity(values, [[0, 1], [2, 3, 4]])

    # From the first: .8 and .6; from the second: .8, .4, .6.
    np.testing.assert_allclose(similarity, [[1, (0.7 + 0.6) / 2], [(0.7 + 0.6) / 2, 1]])


def test_best_matches__are_not_misled_by_a_layer_that_is_like_everything() -> None:
    block = np.array([[0.6, 0.7, 0.3], [0.3, 0.8, 0.4], [0.2, 0.7, 0.6]])
    values = np.block([[np.eye(3), block], [block.T, np.eye(3)]])

    matches = best_matches(values, [[0, 1, 2], [3, 4, 5]])

    assert block.argmax(axis=1).tolist() == [1, 1, 1]
    assert matches[:3, 1].tolist() == [0, 1, 2]


def test_model_similarity__is_that_of_the_kernel_also_where_values_are_missing() -> None:
    values = np.random.default_rng(0).random((6, 6))
    values[1, 2:4] = values[:, 5] = np.nan
    groups = [[0, 1], [2, 3, 4], [5]]

    directed = np.array([[best_match(values[np.ix_(a, b)]) for b in groups[:2]] for a in groups[:2]])

    found = model_similarity(values, groups)
    np.testing.assert_allclose(found[:2, :2], (directed + directed.T) / 2)
    assert np.isnan(found[:, 2]).all()


def test_matches__that_a_half_of_the_points_does_not_repeat_are_marked() -> None:
    block = np.array([[0.9, 0.1, 0.2], [0.1, 0.8, 0.3], [0.2, 0.3, 0.7]])
    values = np.block([[np.eye(3), block], [block.T, np.eye(3)]])
    other = values.copy()
    other[:3, 3:] = other[:3, 3:][[0, 2, 1]]

    matches = matches_on_page(values, [values, other], [[0, 1, 2], [3, 4, 5]])

    assert matches[:3, 1].tolist() == [0, -3, -4]
    assert matches_on_page(values, [], [[0, 1, 2], [3, 4, 5]])[:3, 1].tolist() == [0, 1, 2]


def test_lead__is_clear_where_its_interval_is_above_zero_and_unknown_without_halves() -> None:
    similarity = np.array([[1, 0.9, 0.5], [0.9, 1, 0.6], [0.5, 0.6, 1]])
    noise = np.array([0.2, -0.2, 0.2, -0.2])
    halves = np.repeat(similarity[..., None], 4, axis=-1)
    halves[2, 0], halves[0, 2] = 0.5 + noise, 0.5 + noise

    found = list(leads(similarity, halves))

    assert [(one.nearest, one.second) for one in found if one] == [(1, 2), (0, 2), (1, 0)]
    assert [one.is_clear for one in found if one][2] is False
    assert [one.is_clear for one in leads(similarity, halves[..., :0]) if one] == [None, None, None]
    alone = leads(np.array([[1.0, np.nan], [np.nan, 1.0]]), np.empty((2, 2, 0)))
    assert list(alone) == [None, None]
