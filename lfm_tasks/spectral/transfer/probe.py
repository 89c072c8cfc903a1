"""Linear probes: what a linear classifier reads off a space, also after another space was carried into it."""

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from lfm_tasks.reasons import ReasonError
from lfm_tasks.spectral.transfer.alignment import fit_coordinates, transfer_coordinates

N_FOLDS = 5
# Strength of the probe's penalty, relative to the mean variance of its coordinates.
_RIDGE = 0.01


def stratified_folds(labels: Shaped[np.ndarray, " points"], *, seed: int = 0) -> Int[np.ndarray, " points"]:
    """Return in which of 5 folds each point is tested, [0, 5); each fold has the same share of every class.

    Raises
    ------
    ReasonError
        ``one_class`` for fewer than two classes, or a class of fewer than 5 points.
    """
    from sklearn.model_selection import StratifiedKFold  # takes a second to import

    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) < 2:
        raise ReasonError("one_class", f"found {len(classes)} classes, a probe needs at least 2: give other labels")
    if counts.min() < N_FOLDS:
        rare = f"found {counts.min()} points of class {str(classes[counts.argmin()])[:60]!r}"
        raise ReasonError("one_class", f"{rare}, a probe needs {N_FOLDS} of each: give more points, or fewer classes")
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
    own = _in_their_span(rows)
    right = 0
    for tested, classify in _probes(own, labels, folds):
        right += int((classify(own[tested]) == labels[tested]).sum())
    return right / len(rows)


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
