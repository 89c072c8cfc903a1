"""Positions of models in the charts: a tree of similarities, its groups, and a map where distances allow one."""

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
# Starts beside the classical scaling, and entries of all their distances, at most; a start counts as better by so much.
_N_STARTS, _MOST_ENTRIES, _BETTER = 16, 10_000, 1e-4
# What Kruskal (1964) calls a stress-1 up to this; above the last one no map is drawn.
_WORDS = {0.025: "excellent", 0.05: "good", 0.1: "fair", MOST_STRESS: "poor"}


def planar_map(distances: Float[np.ndarray, "points points"]) -> Scaling:
    """Return the points of a plane whose distances are nearest to the given ones: SMACOF from several starts.

    Stress-1 is `Scaling.stress`. The first start is the classical scaling, the others are drawn from a fixed seed, so
    that the same distances give the same points; axes lie along the most spread, largest coordinates are positive.

    References
    ----------
    de Leeuw & Mair (2009), "Multidimensional scaling using majorization: SMACOF in R".
    """
    n_points = len(distances)
    if not n_points:
        return Scaling(np.empty((0, 2)), 0.0)
    n_drawn = min(_N_STARTS, _MOST_ENTRIES // n_points**2)
    size = distances.mean() * np.random.default_rng(0).standard_normal((n_drawn, n_points, 2))
    points = np.concatenate([classical_scaling(distances, 2).points[None], size])
    drawn = _apart(points)
    stress = _stress(drawn, distances)
    for _ in range(_N_STEPS):
        ratio = np.divide(distances, drawn, out=np.zeros_like(drawn), where=drawn > 0)
        points = (ratio.sum(axis=2)[..., None] * points - ratio @ points) / n_points
        drawn = _apart(points)
        before, stress = stress, _stress(drawn, distances)
        if (before - stress < _SETTLED).all():
            break
    best = int(np.flatnonzero(stress <= stress.min() + _BETTER)[0])
    return Scaling(_turned(points[best]), float(stress[best]))


def quality(stress: float) -> str:
    """Return Kruskal's word for a stress-1; "none" above `MOST_STRESS`.

    Examples
    --------
    >>> quality(0.08), quality(0.3)
    ('fair', 'none')
    """
    return next((word for most, word in _WORDS.items() if stress <= most), "none")


def nearest_kept(points: Float[np.ndarray, "points axes"], distances: Float[np.ndarray, "points points"]) -> list[bool]:
    """Return for each point whether the one drawn nearest to it is a nearest one by the given distances."""
    drawn, given = (np.where(np.eye(len(distances)) > 0, np.inf, one) for one in (_apart(points), distances))
    nearest = given[np.arange(len(given)), drawn.argmin(axis=1)]
    return [bool(near) for near in nearest <= given.min(axis=1) + 1e-6]


def _turned(points: Float[np.ndarray, "points axes"]) -> Float[np.ndarray, "points axes"]:
    centered = points - points.mean(axis=0)
    turned = centered @ np.linalg.eigh(centered.T @ centered)[1][:, ::-1]
    largest = np.abs(turned).round(6).argmax(axis=0)
    return np.asarray(turned * np.where(turned[largest, np.arange(turned.shape[1])] < 0, -1.0, 1.0))


def _apart(points: Float[np.ndarray, "*starts points axes"]) -> Float[np.ndarray, "*starts points points"]:
    across, along = (points[..., :, None, axis] - points[..., None, :, axis] for axis in (0, 1))
    return np.sqrt(across * across + along * along)


def _stress(
    drawn: Float[np.ndarray, "*starts points points"], distances: Float[np.ndarray, "points points"]
) -> Float[np.ndarray, "*starts"]:
    size = (drawn**2).sum(axis=(-2, -1))
    off = ((drawn - distances) ** 2).sum(axis=(-2, -1))
    return np.sqrt(np.divide(off, size, out=np.zeros_like(size), where=size > 0))
