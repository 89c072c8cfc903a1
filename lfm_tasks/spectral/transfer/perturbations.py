"""Spaces that were tampered with on purpose: one class moved away from the others, one point put far out."""

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import linprog

from lfm_tasks.reasons import ReasonError

# Steps of the classifier that gives the normal; what it has not reached by then turns the direction by little.
_N_STEPS = 2000


def mean_radius(rows: Float[np.ndarray, "points features"]) -> float:
    """Return the mean distance of the points from their mean: the unit in which spaces are moved."""
    return float(np.linalg.norm(rows - rows.mean(axis=0), axis=1).mean())


def class_normal(
    rows: Float[np.ndarray, "points features"], inside: Bool[np.ndarray, " points"]
) -> Float[np.ndarray, " features"]:
    """Return the unit normal of a linear support vector machine, class against rest, pointing into the class.

    Raises
    ------
    ReasonError
        ``one_class`` unless there are points inside and outside.
    """
    if inside.all() or not inside.any():
        raise ReasonError(
            "one_class", f"found {int(inside.sum())} of {len(inside)} points in a class, needs some of both"
        )
    from sklearn.svm import LinearSVC  # takes a second to import

    # The scale of the features is none of the classifier's business: one for all of them.
    scaled = (rows - rows.mean(axis=0)) / mean_radius(rows)
    machine = LinearSVC(dual=False, max_iter=_N_STEPS, tol=1e-6).fit(scaled, inside)
    normal = machine.coef_[0]
    return np.asarray(normal / np.linalg.norm(normal))


def move_class(
    rows: Float[np.ndarray, "points features"],
    inside: Bool[np.ndarray, " points"],
    normal: Float[np.ndarray, " features"],
    distance: float,
) -> Float[np.ndarray, "points features"]:
    """Return the rows, those inside moved by ``distance`` along ``normal``; the others stay.

    References
    ----------
    Davari et al. (2023), "Reliability of CKA as a similarity measure in deep learning", section 4.
    """
    return rows + distance * np.outer(inside, normal)


def move_point(
    rows: Float[np.ndarray, "points features"], point: int, radii: float
) -> Float[np.ndarray, "points features"]:
    """Return the rows, one of them put ``radii`` mean radii away from the mean, on the side where it was."""
    mean = rows.mean(axis=0)
    away = rows[point] - mean
    moved = rows.copy()
    moved[point] = mean + radii * mean_radius(rows) * away / np.linalg.norm(away)
    return moved


def is_separable(
    rows: Float[np.ndarray, "points features"],
    inside: Bool[np.ndarray, " points"],
    direction: Float[np.ndarray, " features"],
) -> bool:
    """Return whether a hyperplane has all points inside on one side and all others on the other.

    ``direction`` is tried first; where it does not separate, a linear program tells: y_i (w·x_i + b) ≥ 1 has a
    solution, or has none.

    Examples
    --------
    Points on a line, the middle one against its neighbours:

    >>> line = np.array([[0.0], [1.0], [2.0]])
    >>> [is_separable(line, np.arange(3) == point, np.array([1.0])) for point in (0, 1, 2)]
    [True, False, True]
    """
    along = rows @ direction
    if along[inside].min() > along[~inside].max():
        return True
    scaled = (rows - rows.mean(axis=0)) / max(mean_radius(rows), np.finfo(float).tiny)
    signs = np.where(inside, 1.0, -1.0)
    sides = -signs[:, None] * np.column_stack([scaled, np.ones(len(rows))])
    found = linprog(np.zeros(sides.shape[1]), A_ub=sides, b_ub=-np.ones(len(rows)), bounds=(None, None), method="highs")
    return bool(found.status == 0)
