"""Classical multidimensional scaling: points whose distances come near to given ones."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.spatial.distance import pdist, squareform


@dataclass(frozen=True)
class Scaling:
    """Points, and Kruskal's stress-1 of all their axes: √(Σ (d − δ)² / Σ d²), δ the given distances, d the points'."""

    points: Float[np.ndarray, "points axes"]
    stress: float


def classical_scaling(distances: Float[np.ndarray, "points points"], n_axes: int) -> Scaling:
    """Return the leading eigenvectors of −½ J D² J with J = I − 11ᵀ/n, each times the root of its eigenvalue.

    Axes fall in importance and have their largest entry positive. Distances that are no metric leave negative
    eigenvalues, which no axis can show: there are fewer axes then, the others are 0.

    Examples
    --------
    >>> corners = np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    >>> between = np.linalg.norm(corners[:, None] - corners, axis=2)
    >>> found = classical_scaling(between, 2)
    >>> bool(np.allclose(np.linalg.norm(found.points[:, None] - found.points, axis=2), between)), round(found.stress, 9)
    (True, 0.0)

    References
    ----------
    Borg & Groenen (2005), "Modern multidimensional scaling", chapter 12. Kruskal (1964), "Multidimensional scaling by
    optimizing goodness of fit to a nonmetric hypothesis".
    """
    squared = distances**2
    centred = squared - squared.mean(axis=0) - squared.mean(axis=1, keepdims=True) + squared.mean()
    values, vectors = np.linalg.eigh(-centred / 2)
    values, vectors = values[::-1][:n_axes], vectors[:, ::-1][:, :n_axes]
    # What rounding left of an eigenvalue 0 is no axis.
    values = np.where(values > 1e-12 * max(values.max(initial=0.0), 1e-300), values, 0.0)
    largest = np.abs(vectors).round(9).argmax(axis=0)
    signs = np.where(vectors[largest, np.arange(vectors.shape[1])] < 0, -1.0, 1.0)
    points = np.zeros((len(distances), n_axes))
    points[:, : len(values)] = vectors * signs * np.sqrt(values)
    drawn, given = pdist(points), squareform(distances, checks=False)
    size = float((drawn**2).sum())
    return Scaling(points, float(np.sqrt(((drawn - given) ** 2).sum() / size)) if size else 0.0)
