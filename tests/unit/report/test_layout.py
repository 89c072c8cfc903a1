"""Where models stand: the tree, the groups in it, the map where one is honest."""

import numpy as np

from lfm_tasks.report.layout import MOST_STRESS, dendrogram, groups_in, planar_map

SIMILARITY = np.array([[1, 0.1, 0.9, 0.2], [0.1, 1, 0.2, 0.8], [0.9, 0.2, 1, 0.1], [0.2, 0.8, 0.1, 1]])


def test_dendrogram__puts_alike_models_together_and_says_how_high_the_last_join_is() -> None:
    tree = dendrogram(SIMILARITY)

    assert {frozenset(tree.order[:2]), frozenset(tree.order[2:])} == {frozenset((0, 2)), frozenset((1, 3))}
    assert len(tree.xs) == len(tree.ys) == 3
    assert max(max(line) for line in tree.xs) == 1
    np.testing.assert_allclose(tree.height, 1 - np.mean([0.1, 0.2, 0.2, 0.1]))
    assert sorted(tree.joins) == [(0, 2), (0, 4), (2, 4)]


def test_dendrogram__of_two_models_has_no_line() -> None:
    assert dendrogram(np.eye(2)).xs == []


def test_groups__are_the_largest_branches_of_one_family() -> None:
    tree = dendrogram(SIMILARITY)
    is_family = SIMILARITY > 0.5

    assert groups_in(tree, is_family) == [(0, 2), (2, 4)]
    assert groups_in(tree, np.ones((4, 4), dtype=bool)) == [(0, 4)]
    assert groups_in(tree, np.zeros((4, 4), dtype=bool)) == []


def test_planar_map__finds_points_of_a_plane_and_no_map_of_a_simplex() -> None:
    corners = np.random.default_rng(0).random((12, 2))
    distances = np.linalg.norm(corners[:, None] - corners, axis=2)

    drawn = planar_map(distances)

    assert drawn.stress < 1e-6
    found = np.linalg.norm(drawn.points[:, None] - drawn.points, axis=2)
    np.testing.assert_allclose(found, distances, atol=1e-6)
    assert planar_map(1 - np.eye(40)).stress > MOST_STRESS


def test_planar_map__has_no_more_stress_than_classical_scaling_and_is_the_same_each_time() -> None:
    from lfm_tasks.statistics.model_pairs import classical_scaling

    points = np.random.default_rng(1).random((15, 6))
    distances = np.linalg.norm(points[:, None] - points, axis=2)

    first, again = planar_map(distances), planar_map(distances)

    assert first.stress < classical_scaling(distances, 2).stress
    np.testing.assert_array_equal(first.points, again.points)


def test_planar_map__of_one_model_and_of_equals_is_drawn() -> None:
    assert planar_map(np.zeros((1, 1))).stress == 0
    assert np.isfinite(planar_map(np.zeros((3, 3))).points).all()
