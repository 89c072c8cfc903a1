"""Scores of a functional map; every function works on stacks of maps (..., target eigenpairs, source eigenpairs)."""

import numpy as np
from jaxtyping import Float


def lfm(maps: Float[np.ndarray, "*stack target source"]) -> Float[np.ndarray, "*stack"]:
    """Return the LFM similarity without the trivial mode: 1 − ‖off(CᵀC)‖²/‖CᵀC‖² with C[1:, 1:], in [0, 1].

    Two unrelated spaces get about .5, whatever their size; any orthogonal C gets 1. Asymmetric.

    References
    ----------
    Fumero et al. (2024), "Latent Functional Maps", section 3.3; with the trivial mode: `lfm_raw`.
    """
    return lfm_raw(maps[..., 1:, 1:])


def lfm_raw(maps: Float[np.ndarray, "*stack target source"]) -> Float[np.ndarray, "*stack"]:
    """Return the paper's score 1 − ‖off(CᵀC)‖²/‖CᵀC‖², trivial mode kept; it flatters unrelated spaces."""
    diagonal, total = _gram_energies(maps)
    return _ratio(diagonal, total)


def lfm_unsquared(maps: Float[np.ndarray, "*stack target source"]) -> Float[np.ndarray, "*stack"]:
    """Return 1 − ‖off(CᵀC)‖/‖CᵀC‖ (norms not squared, trivial mode kept): what the paper's figure 3 shows."""
    diagonal, total = _gram_energies(maps)
    return np.asarray(1 - np.sqrt(np.maximum(1 - _ratio(diagonal, total), 0)))


def overlap(maps: Float[np.ndarray, "*stack target source"]) -> Float[np.ndarray, "*stack"]:
    """Return ‖C[1:, 1:]‖²/(min(K_x, K_y) − 1), in [0, 1]: the mean squared cosine of the principal angles.

    1: both bases span the same functions; about K/n by chance. Symmetric.
    """
    inner = maps[..., 1:, 1:]
    return np.asarray(_energy(inner) / min(inner.shape[-2:]))


def capped_overlap(maps: Float[np.ndarray, "*stack target source"]) -> Float[np.ndarray, "*stack"]:
    """Return the same with singular values above 1 counted as 1: those of a fitted map may be anything.

    Equal to `overlap` where C = Φ_yᵀ Φ_x.
    """
    inner = maps[..., 1:, 1:]
    wide = inner if inner.shape[-2] <= inner.shape[-1] else np.swapaxes(inner, -1, -2)
    squares = np.linalg.eigvalsh(wide @ np.swapaxes(wide, -1, -2))
    return np.asarray(np.clip(squares, 0, 1).sum(axis=-1) / wide.shape[-2])


def diagonality(maps: Float[np.ndarray, "*stack target source"]) -> Float[np.ndarray, "*stack"]:
    """Return ‖diag C‖²/‖C‖², in [0, 1]."""
    diagonal = np.diagonal(maps, axis1=-2, axis2=-1)
    return _ratio(np.asarray(np.einsum("...i,...i->...", diagonal, diagonal)), _energy(maps))


def orthogonality_error(maps: Float[np.ndarray, "*stack target source"]) -> Float[np.ndarray, "*stack"]:
    """Return ‖CᵀC − I‖²/K ≥ 0."""
    gram = np.swapaxes(maps, -1, -2) @ maps
    error = gram - np.eye(maps.shape[-1])
    return np.asarray(_energy(error) / maps.shape[-1])


def commutativity_error(
    maps: Float[np.ndarray, "*stack target source"],
    source_eigenvalues: Float[np.ndarray, "*#stack source"],
    target_eigenvalues: Float[np.ndarray, "*#stack target"],
) -> Float[np.ndarray, "*stack"]:
    """Return ‖Λ_y C − C Λ_x‖²/‖C‖² ≥ 0."""
    error = maps * (target_eigenvalues[..., :, None] - source_eigenvalues[..., None, :])
    return _ratio(_energy(error), _energy(maps))


def _gram_energies(
    maps: Float[np.ndarray, "*stack target source"],
) -> tuple[Float[np.ndarray, "*stack"], Float[np.ndarray, "*stack"]]:
    """Return ‖diag(CᵀC)‖² and ‖CᵀC‖²."""
    gram = np.swapaxes(maps, -1, -2) @ maps
    diagonal = np.diagonal(gram, axis1=-2, axis2=-1)
    return np.asarray(np.einsum("...i,...i->...", diagonal, diagonal)), _energy(gram)


def _energy(maps: Float[np.ndarray, "*stack target source"]) -> Float[np.ndarray, "*stack"]:
    """Return ‖C‖²; as an array even for one map, which einsum would give as a scalar."""
    return np.asarray(np.einsum("...ij,...ij->...", maps, maps))


def _ratio(part: Float[np.ndarray, "*stack"], whole: Float[np.ndarray, "*stack"]) -> Float[np.ndarray, "*stack"]:
    """Return part/whole; a map that is all zero has no score."""
    if np.any(whole == 0):
        raise ValueError("found a map of zeros only, which has no score")
    return np.asarray(part / whole)
