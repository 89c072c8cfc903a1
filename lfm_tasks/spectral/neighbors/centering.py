"""The center that angles between points are seen from: translation then changes neither neighbors nor anything else."""

import numpy as np
from jaxtyping import Float, Shaped

from lfm_tasks.errors import DataError
from lfm_tasks.spectral.neighbors.projections import blocks, squared_norms

# Distances within this share of the typical one count less than one another: no single point becomes the center.
_ROUNDED = 0.1
# A step this small, as a share of the typical distance, ends the search; it needs 10 to 40 steps.
_SETTLED, _MOST_STEPS = 1e-12, 500
# How often the typical distance is measured again.
_ROUNDS = 3
# A row this near to the center, as a share of the center's largest entry, has no direction but that of its rounding.
_AT_CENTER = 1e-12


def spatial_median(activations: Shaped[np.ndarray, "points features"]) -> Float[np.ndarray, " features"]:
    """Return the point m of the least Σ √(|x_i − m|² + ε²), in float64; ε is a tenth of the median distance |x_i − m|.

    It moves with the points when they are translated, rotated, permuted or scaled, as their mean does. Unlike the mean
    it hardly follows points that lie far out, or a class that moves away: their distance does not count, only their
    direction. It is unique, and no single point can hold it.

    Memory: 1,024 rows in float64 beside the activations.

    Examples
    --------
    >>> square = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0]])
    >>> spatial_median(square).round(6).tolist()
    [1.0, 1.0]
    >>> with_outlier = np.concatenate([square, [[1000.0, 1.0]]])
    >>> bool(spatial_median(with_outlier)[0] < 2), float(with_outlier[:, 0].mean())
    (True, 200.8)

    References
    ----------
    Weiszfeld (1937), "Sur le point pour lequel la somme des distances de n points donnés est minimum"; Small (1990), "A
    survey of multidimensional medians".
    """
    # A power of two leaves the values exact; squares of 1e200 would be infinite.
    scale = 2.0 ** -np.frexp(max(float(np.abs(activations[block]).max()) for block in blocks(activations)))[1]
    center = np.sum([_scaled(activations[block], scale).sum(axis=0) for block in blocks(activations)], axis=0)
    center = center / len(activations)
    # Distances from the mean are too large where points lie far out: those from the first center found are not.
    for _ in range(_ROUNDS):
        center = _rounded_median(activations, scale, center)
    return center / scale


def from_center(
    activations: Shaped[np.ndarray, "points features"], center: Float[np.ndarray, " features"] | None
) -> Float[np.ndarray, "points features"]:
    """Return the rows less the center, in float32 where they are float32 or less; as they are without a center.

    Raises
    ------
    DataError
        ``zero_rows`` if a row lies at the center: it has no direction from there.
    """
    if center is None:
        return activations
    kind = np.float32 if activations.dtype in (np.float16, np.float32) else np.float64
    rows = np.empty(activations.shape, dtype=kind)
    n_at_center, nearest = 0, _AT_CENTER * np.abs(center).max()
    for block in blocks(activations):
        rows[block] = activations[block].astype(np.float64) - center
        n_at_center += int(np.count_nonzero(np.abs(rows[block]).max(axis=1) <= nearest))
    if n_at_center:
        raise DataError(
            "zero_rows",
            f"got {n_at_center} rows at the center of all rows, from where they have no direction, expected none. "
            "Set atlas.graph.center to false, or atlas.graph.metric to euclidean.",
        )
    return rows


def center_of(activations: Shaped[np.ndarray, "points features"]) -> Float[np.ndarray, " features"] | None:
    """Return the `spatial_median` that angles are seen from; None where the search has to say what is wrong.

    Rows with NaN, or all alike, have no neighbors, wherever they are seen from.
    """
    if not np.isfinite(activations).all() or (activations == activations[0]).all():
        return None
    return spatial_median(activations)


def _rounded_median(
    activations: Shaped[np.ndarray, "points features"], scale: float, center: Float[np.ndarray, " features"]
) -> Float[np.ndarray, " features"]:
    """Return the spatial median whose ε is a share of the median distance from ``center``, by Weiszfeld's steps."""
    typical = float(np.median(_distances(activations, scale, center)))
    if not typical:
        return center
    for _ in range(_MOST_STEPS):
        total, weights = np.zeros_like(center), 0.0
        for block in blocks(activations):
            steps = _scaled(activations[block], scale) - center
            weight = 1 / np.sqrt(squared_norms(steps) + (_ROUNDED * typical) ** 2)
            total += weight @ steps
            weights += weight.sum()
        step = total / weights
        center = center + step
        if np.linalg.norm(step) <= _SETTLED * typical:
            break
    return center


def _distances(
    activations: Shaped[np.ndarray, "points features"], scale: float, center: Float[np.ndarray, " features"]
) -> Float[np.ndarray, " points"]:
    squared = [squared_norms(_scaled(activations[block], scale) - center) for block in blocks(activations)]
    return np.sqrt(np.concatenate(squared))


def _scaled(block: Shaped[np.ndarray, "block features"], scale: float) -> Float[np.ndarray, "block features"]:
    return np.asarray(block.astype(np.float64) * scale)
