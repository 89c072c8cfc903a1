"""Where models stand: the tree, the groups in it, the map where one is honest."""

import numpy as np

from lfm_tasks.report.layout import MOST_STRESS, dendrogram, groups_in, nearest_kept, planar_map, quality

SIMILARITY = np.array([[1, 0.1, 0.9, 0.2], [0.1, 1, 0.2, 0.8], [0.9, 0.2, 1, 0.1], [0.2, 0.8, 0.1, 1]])
# Similarities of the eight models of the shipped zoo, below the diagonal.
SHIPPED = [
    [0, 0, 0, 0, 0, 0, 0, 0],
    [0.7093, 0, 0, 0, 0, 0, 0, 0],
    [0.7176, 0.8773, 0, 0, 0, 0, 0, 0],
    [0.7093, 1.0000, 0.8773, 0, 0, 0, 0, 0],
    [0.7085, 0.7346, 0.7244, 0.7346, 0, 0, 0, 0],
    [0.6976, 0.7033, 0.7064, 0.7033, 0.6885, 0, 0, 0],
    [0.5585, 0.5023, 0.5042, 0.5023, 0.5036, 0.4809, 0, 0],
    [0.7454, 0.7229, 0.7277, 0.7229, 0.7054, 0.6908, 0.5275, 0],
]


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
    assert planar_map(np.zeros((0, 0))).points.shape == (0, 2)
    assert planar_map(np.zeros((1, 1))).stress == 0
    assert planar_map(np.zeros((1, 1))).points.tolist() == [[0, 0]]
    assert planar_map(1 - np.eye(2)).stress < 1e-9
    assert np.isfinite(planar_map(np.zeros((3, 3))).points).all()


def test_planar_map__is_not_the_one_that_the_classical_scaling_leads_to_where_another_is_better() -> None:
    # Eight models of the shipped zoo: from the classical scaling alone SMACOF ends at .19996, a hair below the limit.
    similarity = np.array(SHIPPED)
    apart = 1 - (similarity + similarity.T)

    drawn = planar_map(apart - np.diag(np.diag(apart)))

    assert 0.19 < drawn.stress < 0.194


def test_planar_map__lies_along_its_axes_whichever_start_was_best() -> None:
    points = np.random.default_rng(2).random((9, 2)) * (3, 1)
    distances = np.linalg.norm(points[:, None] - points, axis=2)

    found = planar_map(distances).points

    covariance = found.T @ found
    assert abs(covariance[0, 1]) < 1e-9 * covariance[0, 0]
    assert covariance[0, 0] > covariance[1, 1]
    assert (found[np.abs(found).argmax(axis=0), [0, 1]] > 0).all()
    mirrored = np.linalg.norm((points * (-1, 1))[:, None] - points * (-1, 1), axis=2)
    np.testing.assert_allclose(planar_map(mirrored).points, found, atol=1e-6)


def test_quality__has_the_words_of_kruskal_and_none_above_the_limit() -> None:
    assert [quality(stress) for stress in (0, 0.025, 0.05, 0.1, 0.101, MOST_STRESS, 0.201)] == [
        "excellent", "excellent", "good", "fair", "poor", "poor", "none"
    ]  # fmt: skip


def test_nearest_kept__says_of_which_points_the_plane_shows_a_nearest_one() -> None:
    distances = np.array([[0, 1, 2, 2], [1, 0, 2, 2], [2, 2, 0, 2], [2, 2, 2, 0]], dtype=float)
    line = np.array([[0, 0], [1, 0], [1.5, 0], [4, 0]], dtype=float)

    # Of the last two points any other one is a nearest one; the second is drawn beside the third.
    assert nearest_kept(line, distances) == [True, False, True, True]
