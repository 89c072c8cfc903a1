"""A measure of activations: how far the cosines of all pairs of points agree."""

import numpy as np

from lfm_tasks.measures import Measure


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Return centered rows of unit length; one at the mean stays 0."""
    centered = rows.astype(np.float64) - rows.mean(axis=0)
    lengths = np.linalg.norm(centered, axis=1, keepdims=True)
    return np.divide(centered, lengths, out=np.zeros_like(centered), where=lengths > 0)


def compare(source: np.ndarray, target: np.ndarray) -> float:
    """Return Σ cos(x_i, x_j) cos(y_i, y_j) over all pairs of points, over the same of each space with itself."""
    sides = [rows @ rows.T for rows in (source, target)]
    scale = np.linalg.norm(sides[0]) * np.linalg.norm(sides[1])
    return float(np.vdot(*sides) / scale) if scale > 0 else float("nan")


COSINE_AGREEMENT = Measure(
    unit_rows,
    compare,
    "cosine between the matrices of cosines of all pairs of centered points, in [0, 1]",
    invariances=frozenset({"rotation", "permutation", "scaling", "translation"}),
    is_quadratic=True,
    permute=lambda prepared, order: prepared[order],
)
