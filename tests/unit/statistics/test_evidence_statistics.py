"""Kernels of the evidence, on matrices and points whose answer is known."""

import numpy as np
import pytest

from lfm_tasks.statistics.intervals import mean_interval, pair_interval
from lfm_tasks.statistics.model_pairs import area_under_curve, same_layer_share


def hub_matrix(n_layers: int = 6) -> np.ndarray:
    """Return layers that are each like their own counterpart, and one target that all are more alike to still."""
    values = 0.2 + 0.3 * np.eye(n_layers)
    values[:, 2] += 0.5
    return values


def test_same_layer_share__is_misled_by_a_hub_unless_means_are_taken_off() -> None:
    assert same_layer_share(hub_matrix(), is_centered=False) == pytest.approx(1 / 6)
    assert same_layer_share(hub_matrix(), is_centered=True) == 1


def test_same_layer_share__of_permuted_layers_is_the_share_of_fixed_points() -> None:
    order = np.array([0, 1, 3, 4, 5, 2])  # two stay where they are

    for is_centered in (False, True):
        assert same_layer_share(np.eye(6)[order], is_centered=is_centered) == pytest.approx(2 / 6)


def test_same_layer_share__does_not_care_about_row_and_column_offsets_once_centered() -> None:
    generator = np.random.default_rng(0)
    values = generator.random((7, 7))
    moved = values + generator.random((7, 1)) + generator.random(7)

    assert same_layer_share(moved, is_centered=True) == same_layer_share(values, is_centered=True)


def test_same_layer_share__of_equal_values_is_what_guessing_gets() -> None:
    assert same_layer_share(np.full((5, 5), 0.3), is_centered=False) == pytest.approx(0.2)
    assert same_layer_share(np.full((5, 5), 0.3), is_centered=True) == pytest.approx(0.2)


def test_same_layer_share__has_none_where_a_value_is_missing() -> None:
    values = np.eye(3)
    values[0, 1] = np.nan
    assert np.isnan(same_layer_share(values, is_centered=True))


def test_area_under_curve__is_what_counting_all_pairs_gives() -> None:
    generator = np.random.default_rng(1)
    values, inside = generator.integers(0, 8, 60).astype(float), generator.random(60) < 0.3
    ours, others = values[inside][:, None], values[~inside]

    assert area_under_curve(values, inside) == pytest.approx(((ours > others) + 0.5 * (ours == others)).mean())
    assert area_under_curve(-values, inside) == pytest.approx(1 - area_under_curve(values, inside))


def test_area_under_curve__has_none_without_both_kinds() -> None:
    assert np.isnan(area_under_curve(np.arange(3.0), np.ones(3, dtype=bool)))


def test_mean_interval__covers_the_mean_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(2)
    ends = np.array([mean_interval(generator.standard_normal(40)) for _ in range(200)])

    assert 0.88 <= ((ends[:, 0] < 0) & (ends[:, 1] > 0)).mean() <= 0.99


def test_mean_interval__is_the_same_each_time_and_none_for_one_value() -> None:
    values = np.arange(9.0)
    assert mean_interval(values) == mean_interval(values)
    assert np.isnan(mean_interval(np.array([1.0, np.nan]))).all()


def test_pair_interval__is_wider_than_one_over_pairs_where_networks_differ() -> None:
    worth = np.random.default_rng(3).standard_normal(10)
    pairs = worth[:, None] + worth  # all that varies is the networks
    between = pairs[~np.eye(10, dtype=bool)]

    low, high = pair_interval(pairs)
    narrow = mean_interval(between)

    assert low < between.mean() < high
    assert high - low > 1.5 * (narrow[1] - narrow[0])


def test_pair_interval__leaves_a_network_with_itself_out_and_needs_three() -> None:
    pairs = np.full((4, 4), 0.5)
    np.fill_diagonal(pairs, np.nan)

    assert pair_interval(pairs) == pytest.approx((0.5, 0.5))
    assert np.isnan(pair_interval(pairs[:2, :2])).all()
