"""From layers to models: summaries of matrices whose answer is known."""

import numpy as np
import pytest

from lfm_tasks.statistics.model_pairs import (
    best_match,
    best_match_p_values,
    depth_aligned,
    match_layers,
    mean_match,
    model_distances,
)


def test_layers__are_matched_in_spite_of_a_hub() -> None:
    # Layers of the target in the order 2, 0, 1, and the source's layer 1 is like everything.
    values = np.eye(3)[[2, 0, 1]] * 0.3 + 0.4
    values[:, 1] += 0.35
    assert list(values.argmax(axis=1)) == [1, 1, 1]
    matching = match_layers(values)
    assert list(matching.matched) == [2, 0, 1]
    np.testing.assert_allclose(matching.margin, 0.3)


def test_layers_without_all_values__are_not_matched_and_one_layer_has_no_margin() -> None:
    missing = match_layers(np.array([[0.3, np.nan]]))
    assert list(missing.matched) == [-1]
    assert np.isnan(missing.margin).all()
    single = match_layers(np.array([[0.3], [0.4]]))
    assert list(single.matched) == [0, 0]
    assert np.isnan(single.margin).all()


def test_summaries__of_a_known_matrix() -> None:
    values = np.array([[0.9, 0.1, np.nan], [0.2, 0.4, 0.6]])
    assert best_match(values) == pytest.approx(0.75)
    assert mean_match(values) == pytest.approx(np.mean([0.9, 0.1, 0.2, 0.4, 0.6]))
    assert depth_aligned(values, np.array([0.0, 1.0]), np.array([0.0, 0.5, 1.0])) == pytest.approx(0.75)
    assert np.isnan(best_match(np.full((2, 2), np.nan)))


def test_p_values_of_best_matches__pay_for_the_choice() -> None:
    found = best_match_p_values(np.array([[0.01, 0.5, 0.9], [np.nan, 0.01, 0.5], [np.nan] * 3]))
    np.testing.assert_allclose(found[0], 1 - 0.99**3)
    np.testing.assert_allclose(found[1], 1 - 0.99**3)
    assert np.isnan(found[2])


def test_distances__are_one_at_chance_and_zero_with_itself() -> None:
    found = model_distances(np.array([[0.99, 0.0, np.nan], [0.0, 1.0, 1.2], [np.nan, 1.2, 1.0]]))
    np.testing.assert_allclose(found, [[0, 1, 1], [1, 0, 0], [1, 0, 0]])
