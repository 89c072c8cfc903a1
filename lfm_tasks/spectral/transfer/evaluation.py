"""Linear probes: how well a linear classifier reads labels from a space, before and after a transfer into it."""

from collections.abc import Callable, Iterator

import numpy as np
import scipy  # its parts are imported when they are first used
from jaxtyping import Bool, Float, Float32, Int, Shaped

from lfm_tasks.errors import DataError
from lfm_tasks.spectral.neighbors.projections import Metric
from lfm_tasks.spectral.transfer.alignment import fit_coordinates, transfer_coordinates

N_FOLDS = 5
# Strength of the probe's penalty, relative to the mean variance of its coordinates.
_RIDGE = 0.01


def stratified_folds(labels: Shaped[np.ndarray, " points"], *, seed: int = 0) -> Int[np.ndarray, " points"]:
    """Return in which of 5 folds each point is tested, [0, 5); each fold has the same share of every class.

    Raises
    ------
    DataError
        ``one_class`` for fewer than two classes, or a class of fewer than 5 points.
    """
    from sklearn.model_selection import StratifiedKFold  # takes a second to import

    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) < 2:
        raise DataError("one_class", f"got {len(classes)} classes, expected at least 2 for a probe. Give other labels")
    if counts.min() < N_FOLDS:
        rare = f"got {counts.min()} points of class {str(classes[counts.argmin()])[:60]!r}"
        raise DataError(
            "one_class", f"{rare}, expected {N_FOLDS} of each for a probe. Give more points, or fewer classes"
        )
    folds = np.empty(len(labels), dtype=np.int32)
    splitter = StratifiedKFold(N_FOLDS, shuffle=True, random_state=seed)
    for fold, (_, tested) in enumerate(splitter.split(np.empty((len(labels), 0)), labels)):
        folds[tested] = fold
    return folds


def probe_accuracy(
    rows: Float[np.ndarray, "points features"],
    labels: Shaped[np.ndarray, " points"],
    folds: Int[np.ndarray, " points"],
) -> float:
    """Return the share of points that a linear probe trained on the other folds classifies rightly, in [0, 1].

    The probe is ridge regression on the classes: its closed form has no iterations that may not converge, is the same
    for rotated and scaled copies of a space, and costs little for wide ones.
    """
    coordinates = _in_their_span(rows)
    n_right = 0
    for tested, classify in _probes(coordinates, labels, folds):
        n_right += int((classify(coordinates[tested]) == labels[tested]).sum())
    return n_right / len(rows)


def transferred_probe_accuracy(
    source_rows: Float[np.ndarray, "points source_features"],
    target_rows: Float[np.ndarray, "points target_features"],
    labels: Shaped[np.ndarray, " points"],
    folds: Int[np.ndarray, " points"],
) -> float:
    """Return the accuracy of the target's probe on the source's rows carried into the target's coordinates.

    Carried by the rotation and scale that best align the other folds' rows (orthogonal Procrustes): of the point
    itself neither probe nor alignment knows anything. A ridge map in its place would learn to solve the target's task
    from whatever in the source is linearly related to it; the rotation asks whether the geometry is shared.
    """
    source, target = _in_their_span(source_rows), _in_their_span(target_rows)
    right = 0
    for tested, classify in _probes(target, labels, folds):
        alignment = fit_coordinates(source[~tested], target[~tested], method="orthogonal")
        right += int((classify(transfer_coordinates(alignment, source[tested])) == labels[tested]).sum())
    return right / len(labels)


def train_probe(
    rows: Float[np.ndarray, "points features"], labels: Shaped[np.ndarray, " points"]
) -> Callable[[np.ndarray], np.ndarray]:
    """Return the classifier of rows of the same space: what the other functions train on each fold."""
    from sklearn.linear_model import RidgeClassifier

    strength = _RIDGE * np.square(rows - rows.mean(axis=0)).sum() / rows.shape[1]
    probe = RidgeClassifier(alpha=max(float(strength), np.finfo(float).tiny), solver="cholesky")
    classify: Callable[[np.ndarray], np.ndarray] = probe.fit(rows, labels).predict
    return classify


def _probes(
    rows: Float[np.ndarray, "points features"],
    labels: Shaped[np.ndarray, " points"],
    folds: Int[np.ndarray, " points"],
) -> Iterator[tuple[Bool[np.ndarray, " points"], Callable[[np.ndarray], np.ndarray]]]:
    """Yield, for each fold, which points are tested, and the classifier that was trained on the others."""
    for fold in np.unique(folds):
        tested = folds == fold
        yield tested, train_probe(rows[~tested], labels[~tested])


def _in_their_span(rows: Float[np.ndarray, "points features"]) -> Float[np.ndarray, "points coordinates"]:
    """Return the rows in float64; wide ones in coordinates of their own span, which keep every inner product."""
    exact = rows.astype(np.float64)
    if exact.shape[1] <= len(exact):
        return exact
    return np.ascontiguousarray(np.asarray(np.linalg.qr(exact.T, mode="r")).T)


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
    DataError
        ``one_class`` unless there are points inside and outside.
    """
    if inside.all() or not inside.any():
        raise DataError(
            "one_class", f"got {int(inside.sum())} of {len(inside)} points in a class, expected some of both"
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
    Points on a line, the middle one against its neighbors:

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
    solution = scipy.optimize.linprog(
        np.zeros(sides.shape[1]), A_ub=sides, b_ub=-np.ones(len(rows)), bounds=(None, None), method="highs"
    )
    return bool(solution.status == 0)


def tsne(
    rows: Float[np.ndarray, "points features"], *, perplexity: float = 30.0, seed: int = 0, metric: Metric = "angular"
) -> Float32[np.ndarray, "points 2"]:
    """Return the t-SNE of ``rows``: near points stay near, distances and sizes of groups mean nothing.

    Angular rows are brought to length 1, so that their distances order as the angles do. It starts from the principal
    components; on one thread the same rows give the same bytes.

    Raises
    ------
    DataError
        ``too_few_points`` unless there are more points than ``perplexity``.

    References
    ----------
    van der Maaten and Hinton (2008), "Visualizing data using t-SNE".
    """
    from sklearn.manifold import TSNE  # takes a second to import

    if len(rows) <= perplexity:
        message = f"got {len(rows)} points, expected more for t-SNE with perplexity {perplexity:g}"
        raise DataError("too_few_points", f"{message}. Lower atlas.embeddings.perplexity, or give more points")
    wide = np.pad(rows.astype(np.float64), [(0, 0), (0, max(0, 2 - rows.shape[1]))])
    if metric == "angular":
        wide /= np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), np.finfo(float).tiny)
    drawn = TSNE(perplexity=float(perplexity), init="pca", random_state=seed, n_jobs=1).fit_transform(wide)
    return np.asarray(drawn, dtype=np.float32)
