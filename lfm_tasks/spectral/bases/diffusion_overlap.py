"""Diffusion overlap: how alike random walks on two graphs are after some steps, from their functional map."""

import numpy as np
from jaxtyping import Float


def diffusion_overlap(
    maps: Float[np.ndarray, "*stack target source"],
    source_eigenvalues: Float[np.ndarray, "*#stack source"],
    target_eigenvalues: Float[np.ndarray, "*#stack target"],
    n_steps: int,
) -> Float[np.ndarray, "*stack"]:
    """Return the cosine of (1 − L_x)ᵗ and (1 − L_y)ᵗ on the functions of both bases, trivial modes dropped, in [0, 1].

    Σ_ij μ_jᵗ ν_iᵗ C_ij² / √(Σ_j μ_j²ᵗ Σ_i ν_i²ᵗ) with μ = 1 − λ_x, ν = 1 − λ_y, t = ``n_steps``. Each step of a walk
    forgets the rougher functions; with t = 0 and equally many eigenpairs it is `overlap`. It is the CKA, in Laplacian
    coordinates, of the powers of the Markov matrices D⁻¹W of both graphs, so far as their bases hold them.

    Parameters
    ----------
    maps
        C = Φ_yᵀ Φ_x of bases on the same points.
    source_eigenvalues, target_eigenvalues
        Of the normalized Laplacians, the smallest first; those above 1 count as 1.
    n_steps
        How many steps the walk takes, at least 0.

    Examples
    --------
    >>> eigenvalues = np.array([0.0, 0.2, 0.5])
    >>> float(diffusion_overlap(np.eye(3), eigenvalues, eigenvalues, 4).round(9))
    1.0
    """
    source, target = (np.clip(1 - side[..., 1:], 0, 1) ** n_steps for side in (source_eigenvalues, target_eigenvalues))
    squares = np.square(maps[..., 1:, 1:])
    product = (target[..., None, :] @ squares @ source[..., :, None])[..., 0, 0]
    norms = np.sqrt(np.square(source).sum(axis=-1) * np.square(target).sum(axis=-1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(product / norms)
