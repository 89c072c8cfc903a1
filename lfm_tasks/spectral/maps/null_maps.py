"""Functional maps between rows that belong together by chance only: the null of every score."""

import numpy as np
from jaxtyping import Float, Int

# Wide products are efficient, but not wider than this many numbers (32 MiB in float32).
_LARGEST_PRODUCT = 1 << 23


def permutations_per_product(n_points: int, n_eigenpairs: int) -> int:
    """Return how many permutations `permuted_maps` takes in one matrix product.

    Depends on the sizes of one pair only: the last bits of a product depend on its shape, so the same pair must be
    multiplied in the same shapes whatever else is computed beside it.
    """
    return max(1, min(25, _LARGEST_PRODUCT // (n_points * n_eigenpairs)))


def permuted_rows(
    target_rows: Float[np.ndarray, "points target"], permutations: Int[np.ndarray, "permutations points"]
) -> Float[np.ndarray, "points columns"]:
    """Return ``target_rows`` in every permuted order, side by side, in float32: (points, permutations × target)."""
    narrow = target_rows.astype(np.float32)
    n_maps, n_points = permutations.shape
    return narrow[permutations.T].reshape(n_points, n_maps * narrow.shape[1])


def permuted_maps(
    source_rows: Float[np.ndarray, "points source"], wide_target: Float[np.ndarray, "points columns"], n_maps: int
) -> Float[np.ndarray, "permutations target source"]:
    """Return ``Φ_y[π]ᵀ Φ_x`` for every permutation π that `permuted_rows` laid out side by side.

    In float32: a null distribution of a few hundred values needs no more.
    """
    # The narrow factor first: a sixth faster than the other way round.
    product = source_rows.astype(np.float32).T @ wide_target
    return np.ascontiguousarray(product.reshape(source_rows.shape[1], n_maps, -1).transpose(1, 2, 0))
