"""Classical scaling: points where distances are of a space, Kruskal's stress where they are not, others' numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import pdist, squareform
from sklearn.manifold import ClassicalMDS

from lfm_tasks.statistics.model_pairs import classical_scaling


def test_classical_scaling__keeps_distances_and_has_no_more_axes_than_they_need() -> None:
    points = np.random.default_rng(0).standard_normal((30, 3))
    distances = np.linalg.norm(points[:, None] - points, axis=2)

    found = classical_scaling(distances, 5)

    np.testing.assert_allclose(pdist(found.points), pdist(points), atol=1e-9)
    assert found.stress < 1e-9
    assert (found.points[:, 3:] == 0).all()
    assert 0 < classical_scaling(distances, 2).stress < 0.5
    assert classical_scaling(np.zeros((3, 3)), 2).points.tolist() == [[0, 0]] * 3


def test_classical_scaling__of_points_in_the_plane_is_these_points_without_stress() -> None:
    points = np.random.default_rng(0).standard_normal((9, 2))

    found = classical_scaling(squareform(pdist(points)), 2)

    np.testing.assert_allclose(pdist(found.points), pdist(points))
    assert found.stress < 1e-12


def test_classical_scaling__is_that_of_scikit_learn_and_kruskal() -> None:
    distances = squareform(pdist(np.random.default_rng(1).standard_normal((12, 6))))

    found = classical_scaling(distances, 2)

    other = ClassicalMDS(n_components=2, metric="precomputed").fit_transform(distances)
    np.testing.assert_allclose(np.abs(found.points), np.abs(other), atol=1e-9)
    drawn, given_distances = pdist(other), squareform(distances)
    assert found.stress == pytest.approx(np.sqrt(((drawn - given_distances) ** 2).sum() / (drawn**2).sum()))


@given(st.permutations(range(7)))
def test_classical_scaling__does_not_depend_on_the_order_of_the_points(order: list[int]) -> None:
    distances = squareform(pdist(np.random.default_rng(2).standard_normal((7, 4))))

    shuffled = classical_scaling(distances[np.ix_(order, order)], 2)

    np.testing.assert_allclose(shuffled.points, classical_scaling(distances, 2).points[order], atol=1e-7)


@pytest.mark.parametrize("n_points", [1, 2])
def test_classical_scaling__of_few_points_has_no_stress(n_points: int) -> None:
    found = classical_scaling(0.5 * (1 - np.eye(n_points)), 2)

    assert found.points.shape == (n_points, 2)
    assert found.stress == pytest.approx(0, abs=1e-12)
