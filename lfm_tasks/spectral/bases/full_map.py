"""The functional map when every point is known in both spaces."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from lfm_tasks.reasons import ReasonError

# Spaces on a side of a tile: part of the convention, for the bits of a map depend on it.
TILE_SIDE = 4


def full_map(
    source_rows: Float[np.ndarray, "points source"], target_rows: Float[np.ndarray, "points target"]
) -> Float[np.ndarray, "target source"]:
    """Return C = Φ_yᵀ Φ_x: it carries coefficients of functions from the source basis to the target basis.

    Both take the same points in the same order, and their columns are orthonormal. The map back is the transpose.
    """
    return target_rows.T @ source_rows


def full_maps(
    sources: Sequence[Float[np.ndarray, "points source"]], targets: Sequence[Float[np.ndarray, "points target"]]
) -> Float[np.ndarray, "targets sources target source"]:
    """Return the maps from each source to each target, all on the same points: one product for a tile of 4 × 4.

    Half the time of one by one, which 50 columns are too few for. A tile that is not full is filled up with zeros: the
    last bits of a product depend on its shape, and those of a pair must not depend on what stands beside it.
    """
    if not 0 < len(sources) <= TILE_SIDE or not 0 < len(targets) <= TILE_SIDE:
        raise ValueError(f"found {len(sources)} sources and {len(targets)} targets, needs 1 to {TILE_SIDE} of each")
    product = _side_by_side(targets).T @ _side_by_side(sources)
    tile = product.reshape(TILE_SIDE, targets[0].shape[1], TILE_SIDE, sources[0].shape[1])
    return np.ascontiguousarray(tile.transpose(0, 2, 1, 3)[: len(targets), : len(sources)])


def _side_by_side(rows: Sequence[Float[np.ndarray, "points eigenpairs"]]) -> Float[np.ndarray, "points columns"]:
    n_points, n_columns = rows[0].shape
    wide = np.zeros((n_points, TILE_SIDE * n_columns))
    for place, own in enumerate(rows):
        wide[:, place * n_columns : (place + 1) * n_columns] = own
    return wide


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
