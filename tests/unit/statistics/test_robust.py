"""Median and MAD: outliers in the sample do not move the scale; closeness keeps the order."""

import numpy as np
import pytest

from lfm_tasks.statistics.model_pairs import closeness, robust_scale


def test_robust_scale__of_a_normal_sample_is_its_mean_and_deviation() -> None:
    sample = np.random.default_rng(0).normal(3, 2, 20_000)

    scale = robust_scale(sample)

    assert (scale.median, scale.deviation) == (pytest.approx(3, abs=0.05), pytest.approx(2, rel=0.02))
    np.testing.assert_allclose(scale.z(np.array([3.0, 9.0])), [0, 3], atol=0.1)


def test_robust_scale__does_not_follow_a_few_outliers() -> None:
    sample = np.random.default_rng(0).normal(0, 1, 100)

    spoilt = robust_scale(np.concatenate([sample, np.full(10, 1e6)]))

    assert spoilt.deviation < 1.5


def test_robust_scale__of_equals_lets_everything_else_stand_out() -> None:
    assert robust_scale(np.full(30, 0.5)).z(np.array([0.5, 0.6])).tolist() == [0, pytest.approx(1e8)]


def test_closeness__keeps_the_order_and_holds_at_one() -> None:
    values = closeness(np.array([-0.2, 0.0, 0.5, 0.9, 0.99, 1.0, 1.0 + 1e-12]))

    assert (np.diff(values[:-1]) > 0).all()
    assert np.isfinite(values).all()
    assert values[-1] == values[-2]
