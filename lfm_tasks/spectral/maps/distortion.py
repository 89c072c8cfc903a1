"""Where two spaces differ: the functions of one that the map does not reach, seen on its points."""

import numpy as np
from jaxtyping import Float

from lfm_tasks.spectral.bases.eigenbasis import Basis
from lfm_tasks.spectral.maps.decoding import scaled_rows


def target_distortion(
    functional_map: Float[np.ndarray, "target source"], target: Basis, *, n_vectors: int | None = None
) -> Float[np.ndarray, " target_points"]:
    """Return, for every target point, n Σ_k (1 − σ_k²) (Φ_y u_k)²/K ≥ 0: large where the source sees it differently.

    σ_k and u_k are singular values and left singular vectors of C, which live on the target; values above 1 count as
    1. ``n_vectors`` takes only those with the smallest σ. Without it, and for the full map, the mean over the points
    is 1 − ‖C‖²/K.

    References
    ----------
    Fumero et al. (2024), "Latent Functional Maps", section 4.3; Ovsjanikov et al. (2013), "Analysis and visualization
    of maps between shapes", section 3.
    """
    left, singular, _ = np.linalg.svd(functional_map, full_matrices=True)
    return _distortion(scaled_rows(target, functional_map.shape[0]) @ left, singular, n_vectors)


def source_distortion(
    functional_map: Float[np.ndarray, "target source"], source: Basis, *, n_vectors: int | None = None
) -> Float[np.ndarray, " source_points"]:
    """Return the same for every source point, from the right singular vectors: what is lost on the way."""
    return target_distortion(np.ascontiguousarray(functional_map.T), source, n_vectors=n_vectors)


def _distortion(
    functions: Float[np.ndarray, "points vectors"], singular: Float[np.ndarray, " smaller"], n_vectors: int | None
) -> Float[np.ndarray, " points"]:
    n_modes = functions.shape[1]
    # Vectors beyond the smaller side are not reached at all.
    lost = 1 - np.minimum(np.concatenate([singular, np.zeros(n_modes - len(singular))]), 1) ** 2
    first = 0 if n_vectors is None else max(0, n_modes - n_vectors)
    return functions[:, first:] ** 2 @ lost[first:] / n_modes
