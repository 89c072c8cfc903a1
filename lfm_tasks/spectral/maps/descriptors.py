"""Descriptors: functions on the points of a space that mean the same in every space."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import dijkstra

from lfm_tasks.errors import DataError
from lfm_tasks.spectral.bases.eigenbasis import Basis, normalized_adjacency
from lfm_tasks.spectral.neighbors.search import Neighbors, comparable_rows


@dataclass(frozen=True)
class Anchors:
    """Known pairs: row ``source[i]`` of the source space and row ``target[i]`` of the target space are one point."""

    source: Int[np.ndarray, " anchors"]
    target: Int[np.ndarray, " anchors"]

    def __len__(self) -> int:
        """Return how many pairs are known."""
        return len(self.source)

    def take(self, chosen: np.ndarray) -> "Anchors":
        """Return the pairs that ``chosen`` (indices or a mask) selects."""
        return Anchors(self.source[chosen], self.target[chosen])

    def reversed(self) -> "Anchors":
        """Return the pairs with source and target exchanged."""
        return Anchors(self.target, self.source)


def check_anchors(anchors: Anchors, n_source: int, n_target: int) -> Anchors:
    """Return ``anchors`` if they are at least two distinct pairs of existing rows.

    Raises
    ------
    DataError
        ``few_anchors`` below two, ``bad_anchors`` if a row is repeated or outside its space.

    Examples
    --------
    >>> len(check_anchors(Anchors(np.array([4, 0]), np.array([1, 2])), n_source=5, n_target=3))
    2
    """
    if len(anchors.source) != len(anchors.target):
        raise ValueError(f"got {len(anchors.source)} source and {len(anchors.target)} target rows, expected pairs")
    check_anchor_rows(anchors.source, n_source)
    check_anchor_rows(anchors.target, n_target)
    return anchors


def check_anchor_rows(rows: Int[np.ndarray, " anchors"], n_points: int) -> None:
    """Raise `DataError` unless ``rows`` are at least two distinct rows of a space of ``n_points``."""
    if len(rows) < 2:
        raise DataError("few_anchors", f"got {len(rows)} anchors, expected at least 2. Give more known pairs")
    outside = rows[(rows < 0) | (rows >= n_points)]
    if len(outside):
        raise DataError(
            "bad_anchors",
            f"got anchor row {outside[0]} in a space of {n_points} points: rows count from 0 to {n_points - 1}",
        )
    values, counts = np.unique(rows, return_counts=True)
    if (counts > 1).any():
        raise DataError(
            "bad_anchors", f"got anchor row {values[counts > 1][0]} more than once. Give each row one partner"
        )


def cosine_descriptors(
    activations: Float[np.ndarray, "points features"], anchors: Int[np.ndarray, " anchors"]
) -> Float[np.ndarray, "points anchors"]:
    """Return 1 − cos(x, anchor) for every point and anchor, in [0, 2].

    Examples
    --------
    >>> rows = np.array([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]])
    >>> cosine_descriptors(rows, np.array([0, 1])).tolist()
    [[0.0, 1.0], [1.0, 0.0], [2.0, 1.0]]
    """
    check_anchor_rows(anchors, len(activations))
    if not activations.any(axis=1).all():
        raise DataError("zero_rows", "got all-zero rows, which have no direction. Use geodesic descriptors")
    rows = comparable_rows(activations, "angular")
    return np.asarray(np.clip(1 - rows @ rows[anchors].T, 0, 2))


def geodesic_descriptors(
    neighbors: Neighbors, anchors: Int[np.ndarray, " anchors"]
) -> Float[np.ndarray, "points anchors"]:
    """Return exp(−d²), in (0, 1], with d the length of the shortest path to each anchor along neighbor edges.

    An edge is as long as its two points are apart, whatever the kernel that weighs the graph.

    Raises
    ------
    DataError
        ``disconnected`` if an anchor cannot be reached from every point.

    Examples
    --------
    >>> steps = Neighbors(np.array([[1], [2], [1]]), np.array([[0.5], [0.5], [0.5]]))
    >>> geodesic_descriptors(steps, np.array([0, 2])).round(3).tolist()
    [[1.0, 0.368], [0.779, 0.779], [0.368, 1.0]]
    """
    n_points, n_neighbors = neighbors.indices.shape
    check_anchor_rows(anchors, n_points)
    # A stored zero is no edge: copies of one point are as good as touching.
    lengths = np.maximum(neighbors.distances.astype(np.float64), 1e-12).ravel()
    rows = np.repeat(np.arange(n_points), n_neighbors)
    graph = coo_array((lengths, (rows, neighbors.indices.ravel())), shape=(n_points, n_points)).tocsr()
    distances = dijkstra(graph, directed=False, indices=anchors).T
    if np.isinf(distances).any():
        n_apart = int(np.isinf(distances).any(axis=1).sum())
        raise DataError("disconnected", f"got {n_apart} points without a path to some anchor. Raise n_neighbors")
    return np.exp(-(distances**2))


def landmark_heat_descriptors(
    basis: Basis, anchors: Int[np.ndarray, " anchors"], *, times: tuple[float, ...] = (1.0, 4.0, 16.0)
) -> Float[np.ndarray, "points descriptors"]:
    """Return Σ_k exp(−t λ_k) φ_k(anchor) φ_k(x): the heat that has reached x from each anchor, for every time t > 0.

    Columns: all anchors at the first time, then at the next.
    """
    check_anchor_rows(anchors, len(basis.eigenvectors))
    vectors = basis.eigenvectors
    return np.hstack([(vectors * np.exp(-t * basis.eigenvalues)) @ vectors[anchors].T for t in times])


def landmark_heat_coefficients(
    basis: Basis, anchors: Int[np.ndarray, " anchors"], *, times: tuple[float, ...] = (1.0, 4.0, 16.0)
) -> Float[np.ndarray, "eigenpairs descriptors"]:
    """Return Φᵀ of `landmark_heat_descriptors` as `unit_descriptors` makes them, without laying them out on the points.

    Φ is orthonormal, so they are exp(−t λ_k) φ_k(anchor), 0 in the trivial mode, columns of unit length: K numbers a
    descriptor instead of n.

    Raises
    ------
    DataError
        As `landmark_heat_descriptors` and `unit_descriptors`.
    """
    check_anchor_rows(anchors, len(basis.eigenvectors))
    at_anchors = basis.eigenvectors[anchors].T
    whole = np.hstack([np.exp(-t * basis.eigenvalues)[:, None] * at_anchors for t in times])
    lengths = _moving_lengths(np.linalg.norm(whole[1:], axis=0), np.linalg.norm(whole, axis=0))
    return np.vstack([np.zeros((1, whole.shape[1])), whole[1:] / lengths])


def label_descriptors(
    graph: csr_array[Any], labels: Int[np.ndarray, " points"], *, classes: Int[np.ndarray, " classes"]
) -> Float[np.ndarray, "points classes"]:
    """Return D^(-1/2) W D^(-1/2) 1_c for every class c: its indicator, smoothed by one step on the graph.

    ``classes`` are the labels that make columns, in their order: the same ones for both spaces.

    Raises
    ------
    DataError
        ``one_class`` for fewer than two classes, or a class without a point.
    """
    absent = np.setdiff1d(classes, labels)
    if len(np.unique(classes)) < 2 or len(absent):
        raise DataError(
            "one_class",
            f"got {len(np.unique(classes))} classes, {len(absent)} of them without a point; needs 2 or more, each "
            "with points. Take the classes that both spaces have, or use anchors",
        )
    indicators = (labels[:, None] == classes).astype(np.float64)
    return np.asarray(normalized_adjacency(graph) @ indicators)


def heat_signatures(basis: Basis, n_descriptors: int = 10) -> Float[np.ndarray, "points descriptors"]:
    """Return the heat kernel signatures Σ_k exp(−t λ_k) φ_k(x)², t log-spaced between 4 ln 10/λ_max and 4 ln 10/λ_1.

    They know no anchor and no label: weak, and equal for points that a symmetry of the space exchanges.

    References
    ----------
    Sun, Ovsjanikov, Guibas (2009), "A concise and provably informative multi-scale signature", section 4.
    """
    values, squares = _moving_modes(basis)
    times = np.geomspace(4 * np.log(10) / values[-1], 4 * np.log(10) / values[0], n_descriptors)
    heat = np.exp(-np.outer(values, times))
    return np.asarray(squares @ (heat / heat.sum(axis=0)))


def wave_signatures(basis: Basis, n_descriptors: int = 10) -> Float[np.ndarray, "points descriptors"]:
    """Return the wave kernel signatures Σ_k w_k(e) φ_k(x)², w_k(e) ∝ exp(−(e − ln λ_k)²/2σ²) with sum 1.

    The energies e lie evenly between the logarithms of the first and the last eigenvalue; σ is their spacing.

    References
    ----------
    Aubry, Schlickewei, Cremers (2011), "The wave kernel signature", section 3.
    """
    values, squares = _moving_modes(basis)
    energies, spacing = np.linspace(np.log(values[0]), np.log(values[-1]), max(n_descriptors, 2), retstep=True)
    width = max(float(spacing), 1e-9)
    weights = np.exp(-((energies[:n_descriptors] - np.log(values)[:, None]) ** 2) / (2 * width**2))
    return np.asarray(squares @ (weights / weights.sum(axis=0)))


def unit_descriptors(
    basis: Basis, descriptors: Float[np.ndarray, "points descriptors"]
) -> Float[np.ndarray, "points descriptors"]:
    """Return f − φ_0 φ_0ᵀ f for every descriptor, at unit length; without this near-constant ones drown the rest.

    Raises
    ------
    DataError
        ``constant`` if nothing of a descriptor is left beside the trivial mode.
    """
    trivial = basis.eigenvectors[:, :1]
    moving = descriptors - trivial @ (trivial.T @ descriptors)
    return moving / _moving_lengths(np.linalg.norm(moving, axis=0), np.linalg.norm(descriptors, axis=0))


def _moving_lengths(
    moving: Float[np.ndarray, " descriptors"], whole: Float[np.ndarray, " descriptors"]
) -> Float[np.ndarray, " descriptors"]:
    """Return the lengths without the trivial mode; DataError ``constant`` if nothing of a descriptor is left."""
    flat = moving <= 1e-10 * whole
    if flat.any():
        raise DataError(
            "constant",
            f"got {int(flat.sum())} descriptors that are constant over the space. Drop them, or choose other anchors",
        )
    return moving


def _moving_modes(basis: Basis) -> tuple[Float[np.ndarray, " modes"], Float[np.ndarray, "points modes"]]:
    """Return the eigenvalues and squared eigenvectors without the trivial mode, scaled to mean 1."""
    if len(basis.eigenvalues) < 3:
        message = f"got {len(basis.eigenvalues)} eigenpairs"
        raise DataError("too_few_points", f"{message}, expected at least 3 for signatures. Raise n_eigenpairs")
    return basis.eigenvalues[1:], len(basis.eigenvectors) * basis.eigenvectors[:, 1:] ** 2
