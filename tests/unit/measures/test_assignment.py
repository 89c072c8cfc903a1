"""The assignment problem: the values of SciPy, whatever the shape, with and without ties."""

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from lfm_tasks.measures.assignment import largest_assigned_means

SHAPES = [(1, 1), (1, 4), (4, 1), (2, 2), (7, 12), (12, 7), (30, 30), (64, 64)]


def by_scipy(matrices: np.ndarray) -> list[float]:
    return [float(one[linear_sum_assignment(one, maximize=True)].mean()) for one in matrices]


def _matrices(kind: str, shape: tuple[int, int]) -> np.ndarray:
    generator = np.random.default_rng(sum(shape))
    values = generator.standard_normal((20, *shape))
    if kind == "unrelated":
        return values
    if kind == "a permutation in noise":
        best = np.eye(*shape)[:, generator.permutation(shape[1])]
        return best + 0.1 * values
    if kind == "few values":
        return np.round(values)
    if kind == "all alike":
        return np.full_like(values, 0.25)
    if kind == "rows and columns of zeros":
        return values * (generator.random((20, shape[0], 1)) < 0.6) * (generator.random((20, 1, shape[1])) < 0.6)
    # Equal but for the last bits.
    return 1 + 1e-16 * generator.integers(0, 4, values.shape)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "kind",
    [
        "unrelated", "a permutation in noise", "few values", "all alike", "rows and columns of zeros",
        "equal but for rounding",
    ],
)  # fmt: skip
def test_means__are_those_of_scipy(kind: str, shape: tuple[int, int]) -> None:
    matrices = _matrices(kind, shape)
    np.testing.assert_allclose(largest_assigned_means(matrices), by_scipy(matrices), rtol=1e-13, atol=1e-15)
    narrow = matrices.astype(np.float32)
    np.testing.assert_allclose(largest_assigned_means(narrow), by_scipy(narrow.astype(float)), rtol=1e-13, atol=1e-15)


def test_means__do_not_depend_on_order_or_sign_of_all_entries() -> None:
    generator = np.random.default_rng(0)
    matrices = generator.standard_normal((5, 40, 33))
    shuffled = matrices[:, generator.permutation(40)][:, :, generator.permutation(33)]
    means = largest_assigned_means(matrices)
    np.testing.assert_allclose(largest_assigned_means(shuffled), means, rtol=1e-12)
    np.testing.assert_allclose(largest_assigned_means(matrices - 7), means - 7, rtol=1e-12)
    np.testing.assert_array_equal(largest_assigned_means(np.swapaxes(matrices, 1, 2)), means)


def test_matrices__with_entries_that_are_not_finite_have_no_mean() -> None:
    matrices = np.arange(27.0).reshape(3, 3, 3)
    matrices[0, 1, 1], matrices[2, 0, 2] = np.nan, np.inf
    means = largest_assigned_means(matrices)
    assert np.isnan(means[[0, 2]]).all()
    assert means[1] == by_scipy(matrices[1:2])[0]
    assert largest_assigned_means(matrices[:0]).shape == (0,)
