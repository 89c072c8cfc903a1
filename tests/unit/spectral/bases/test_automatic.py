"""Numbers of neighbors and eigenpairs that follow the points: scores on few and on many points mean the same."""

from collections.abc import Callable

import numpy as np
import pytest

from lfm_tasks.config import AtlasConfig, GraphConfig
from lfm_tasks.spectral.bases.automatic import AUTO_ABOVE, AUTO_LANDMARKS, BasisNumbers, basis_numbers, n_landmarks_of
from lfm_tasks.spectral.bases.full_map import full_map, overlap
from lfm_tasks.spectral.bases.space import spectral_space
from lfm_tasks.statistics.resampling import calibrated


@pytest.mark.parametrize("n_points", [2, 3, 6, 7, 10, 20, 60, 200, 2_000, 19_999, 20_000, 10**7])
def test_automatic_numbers__suit_any_number_of_points(n_points: int) -> None:
    n_neighbors, n_eigenpairs = basis_numbers(n_points)
    assert 1 <= n_neighbors < n_points
    assert n_eigenpairs >= 2
    assert n_eigenpairs < n_points or n_points == 2
    fewer = basis_numbers(n_points - 1)
    assert fewer.n_neighbors <= n_neighbors <= 251
    assert fewer.n_eigenpairs <= n_eigenpairs <= 63


def test_given_numbers__stay_as_they_are() -> None:
    assert basis_numbers(10, 50, 20) == BasisNumbers(50, 20)
    assert AtlasConfig(graph=GraphConfig(n_neighbors=30), n_eigenpairs=9).numbers(5_000) == (30, 9)


def test_numbers_of_an_atlas__follow_the_points_in_the_graph() -> None:
    assert AtlasConfig().numbers(2_000) == (50, 40)
    assert AtlasConfig(max_points=2_000).numbers(100_000) == (50, 40)
    assert AtlasConfig(graph=GraphConfig(landmarks=2_000)).numbers(100_000) == (50, 40)
    assert AtlasConfig(graph=GraphConfig(landmarks=2_000)).numbers(1_000) == AtlasConfig().numbers(1_000)


def test_n_landmarks__by_a_rule_of_sizes_only() -> None:
    assert n_landmarks_of(AUTO_ABOVE, "auto") is None
    assert n_landmarks_of(AUTO_ABOVE + 1, "auto") == AUTO_LANDMARKS
    assert n_landmarks_of(1000, 100) == 100
    assert n_landmarks_of(100, 100) is None
    assert n_landmarks_of(10**9, None) is None


def two_views(n_points: int) -> tuple[np.ndarray, np.ndarray]:
    """Return two noisy views of the same points in twelve clusters that touch."""
    generator = np.random.default_rng(n_points)
    centers = np.random.default_rng(0).standard_normal((12, 6))
    points = centers[generator.integers(0, 12, n_points)] + 0.6 * generator.standard_normal((n_points, 6))
    first, second = np.random.default_rng(1).standard_normal((2, 6, 20))
    noise = 0.4 * generator.standard_normal((2, n_points, 20))
    return np.tanh(points @ first) + noise[0] + 1, np.tanh(points @ second) + noise[1]


def range_over_points(numbers: Callable[[int], BasisNumbers]) -> float:
    """Return by how much the calibrated overlap of two views moves with the number of points."""
    scores = []
    for n_points in (200, 500, 1_200):
        views, of_basis = two_views(n_points), numbers(n_points)
        bases = [spectral_space(view, kernel="binary", **of_basis._asdict()).basis.eigenvectors for view in views]
        n_modes = of_basis.n_eigenpairs - 1
        scores.append(calibrated(float(overlap(full_map(*bases))), n_modes / n_points))
    return max(scores) - min(scores)


def test_automatic_numbers__give_two_spaces_one_score_on_few_and_on_many_points() -> None:
    assert range_over_points(basis_numbers) < 0.06
    assert range_over_points(lambda n_points: BasisNumbers(50, 50)) > 0.12
