"""The functional map when every point is known in both spaces."""

import numpy as np
from jaxtyping import Float

from lfm_tasks.reasons import ReasonError


def full_map(
    source_rows: Float[np.ndarray, "points source"], target_rows: Float[np.ndarray, "points target"]
) -> Float[np.ndarray, "target source"]:
    """Return C = Φ_yᵀ Φ_x: it carries coefficients of functions from the source basis to the target basis.

    Both take the same points in the same order, and their columns are orthonormal. The map back is the transpose.
    """
    return target_rows.T @ source_rows


def whitened_rows(rows: Float[np.ndarray, "points eigenpairs"]) -> Float[np.ndarray, "points eigenpairs"]:
    """Return Φ G^(-1/2) with G = ΦᵀΦ: a part of a basis, made orthonormal on the points that are left.

    Symmetric whitening moves the columns least. With it `full_map` of two partial bases has singular values ≤ 1, and
    the map back is still the transpose.

    Raises
    ------
    ReasonError
        ``little_overlap`` if the points left do not determine the basis.
    """
    values, vectors = np.linalg.eigh(rows.T @ rows)
    if len(rows) < rows.shape[1] or values[0] <= 1e-10 * values[-1]:
        raise ReasonError(
            "little_overlap",
            f"found {len(rows)} common points, too few to tell {rows.shape[1]} eigenvectors apart: lower n_eigenpairs",
        )
    return rows @ (vectors / np.sqrt(values)) @ vectors.T
