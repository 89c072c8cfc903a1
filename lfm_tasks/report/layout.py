"""Where models stand in the charts: a tree of likeness, groups in it, and a map of the zoo where one is honest."""

from dataclasses import dataclass

import numpy as np
import scipy  # its parts are imported when they are first used
from jaxtyping import Bool, Float

from lfm_tasks.statistics.model_pairs import Scaling, classical_scaling, model_distances


@dataclass(frozen=True)
class Tree:
    """Average linkage of 1 − similarity.

    Attributes
    ----------
    order
        The models from the first leaf to the last.
    xs, ys
        The lines: across from 0 (alike) to 1 (the last join), along one unit a model, the first at 0.5.
    height
        Distance of the last join; 0 without one.
    joins
        For each join the leaves below it, as a range of places in ``order``; the nearest first.
    """

    order: list[int]
    xs: list[list[float]]
    ys: list[list[float]]
    height: float
    joins: list[tuple[int, int]]


def dendrogram(similarity: Float[np.ndarray, "models models"]) -> Tree:
    """Return the tree of models; without lines for fewer than three."""
    n_models = len(similarity)
    if n_models < 3:
        return Tree(list(range(n_models)), [], [], 0.0, [])
    hierarchy = scipy.cluster.hierarchy
    distances = scipy.spatial.distance.squareform(model_distances(similarity), checks=False)
    joined = hierarchy.linkage(distances, method="average", optimal_ordering=True)
    tree = hierarchy.dendrogram(joined, no_plot=True)
    highest = max(max(line) for line in tree["dcoord"])
    along = [[position / 10 for position in line] for line in tree["icoord"]]
    across = [[height / (highest or 1.0) for height in line] for line in tree["dcoord"]]
    order = [int(leaf) for leaf in tree["leaves"]]
    return Tree(order, across, along, float(highest), _ranges(joined, order))


def _ranges(joined: np.ndarray, order: list[int]) -> list[tuple[int, int]]:
    """Return the leaves below each join of a linkage, as a range of places in ``order``."""
    place = {leaf: at for at, leaf in enumerate(order)}
    below = [(place[leaf], place[leaf] + 1) for leaf in range(len(order))]
    for left, right in joined[:, :2].astype(int):
        below.append((min(below[left][0], below[right][0]), max(below[left][1], below[right][1])))
    return below[len(order) :]


# More than this share of the pairs of a group are of one family.
_OF_ONE_FAMILY = 0.5


def groups_in(tree: Tree, is_family: Bool[np.ndarray, "models models"]) -> list[tuple[int, int]]:
    """Return the largest branches of the tree whose pairs mostly are of one family, as ranges of ``tree.order``."""
    found: list[tuple[int, int]] = []
    for start, end in reversed(tree.joins):  # the last join first
        if any(first <= start and end <= last for first, last in found):
            continue
        members = tree.order[start:end]
        pairs = is_family[np.ix_(members, members)][np.triu_indices(len(members), 1)]
        if pairs.mean() > _OF_ONE_FAMILY:
            found.append((start, end))
    return sorted(found)


# Kruskal's stress-1 above which a map shows other distances than those that it was given.
MOST_STRESS = 0.2
_N_STEPS, _SETTLED = 500, 1e-7


def planar_map(distances: Float[np.ndarray, "points points"]) -> Scaling:
    """Return the points of a plane whose distances are nearest to the given ones, by SMACOF from the classical scaling.

    Stress-1 is `Scaling.stress`. The same distances give the same points: no random start is tried.

    References
    ----------
    de Leeuw & Mair (2009), "Multidimensional scaling using majorization: SMACOF in R".
    """
    points, n_points = classical_scaling(distances, 2).points, len(distances)
    stress = _stress(points, distances)
    for _ in range(_N_STEPS):
        drawn = np.linalg.norm(points[:, None] - points, axis=2)
        ratio = np.divide(distances, drawn, out=np.zeros_like(drawn), where=drawn > 0)
        points = (ratio.sum(axis=1)[:, None] * points - ratio @ points) / n_points
        before, stress = stress, _stress(points, distances)
        if before - stress < _SETTLED:
            break
    return Scaling(points - points.mean(axis=0) if n_points else points, stress)


def _stress(points: Float[np.ndarray, "points axes"], distances: Float[np.ndarray, "points points"]) -> float:
    drawn = np.linalg.norm(points[:, None] - points, axis=2)
    size = float((drawn**2).sum())
    return float(np.sqrt(((drawn - distances) ** 2).sum() / size)) if size else 0.0
