"""Tails of sums of weighted squares against closed forms, and of permutations against draws."""

import numpy as np
import pytest
from scipy.stats import chi2, norm

from lfm_tasks.statistics.far_tails import Spectra, far_shares, fill_saddle_shares, largest_eigenvalues


def saddle(values, first, second):
    shares = np.empty(len(values))
    rows = [np.tile(np.asarray(side, dtype=float), (len(values), 1)) for side in (first, second)]
    fill_saddle_shares(np.asarray(values, dtype=float), *rows, shares)
    return shares


@pytest.mark.parametrize("n_squares", [1, 3, 24])
def test_saddle__of_equal_weights_is_chi_squared(n_squares):
    values = np.array([2.0, 3, 4, 6, 10, 30])
    weights = np.full(n_squares, 1 / np.sqrt(2 * n_squares))
    expected = chi2.sf(n_squares + values * np.sqrt(2 * n_squares), n_squares)
    np.testing.assert_allclose(saddle(values, weights, [1.0]), expected, rtol=0.08 if n_squares == 1 else 0.03)
    # Both factors may have either sign.
    np.testing.assert_allclose(saddle(values, -weights, [-1.0]), expected, rtol=0.08 if n_squares == 1 else 0.03)


def test_saddle__without_weights_is_normal_and_of_negative_ones_thinner():
    values = np.array([2.0, 3, 5, 9])
    np.testing.assert_allclose(saddle(values, [0.0], [1.0]), norm.sf(values), rtol=1e-6)
    below = saddle(np.array([2.0, 2.5]), np.full(24, -1 / np.sqrt(48)), [1.0])
    np.testing.assert_allclose(below, chi2.cdf(24 - np.array([2.0, 2.5]) * np.sqrt(48), 24), rtol=0.05)


def test_saddle__falls_and_stays_a_probability():
    values = np.linspace(2.6, 300, 200)
    shares = saddle(values, [0.5, 0.2, -0.1], [0.8, 0.3])
    assert (np.diff(shares) <= 0).all()
    assert ((shares >= 0) & (shares < 0.05)).all()


def test_far_shares__leave_what_is_near_and_pass_over_in_steps():
    spectra = Spectra(np.ones((4, 1)) * 10, np.ones((4, 1)), 10)
    shares = np.array([0.3, 0.01, 1e-3, 1e-4])
    found = far_shares(np.array([1.0, 2.5, 3.0, 4.0]), np.full(4, np.sqrt(2)), shares, spectra)
    exact = saddle([3.0, 4.0], [1 / np.sqrt(2)], [1.0])
    np.testing.assert_array_equal(found[:2], shares[:2])
    np.testing.assert_allclose(found[2:], [np.sqrt(exact[0] * 1e-3), exact[1]])


@pytest.mark.parametrize("n_points", [10, 300])
def test_largest_eigenvalues__are_those_of_all_in_magnitude(n_points):
    factors = np.random.default_rng(0).standard_normal((n_points, 30)) * np.geomspace(1, 0.01, 30)
    matrix = (factors * np.resize([1, -1], 30)) @ factors.T
    expected = np.linalg.eigvalsh(matrix)
    expected = expected[np.argsort(-np.abs(expected))][:24]
    found = largest_eigenvalues(matrix)
    np.testing.assert_allclose(found[: len(expected)], expected, rtol=1e-2, atol=1e-3 * abs(expected[0]))
    assert not found[len(expected) :].any()
