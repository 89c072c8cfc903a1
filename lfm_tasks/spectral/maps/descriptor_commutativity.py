"""The map whose descriptors also commute as operators: one linear problem, solved without writing it out."""

import numpy as np
from jaxtyping import Float

from lfm_tasks.reasons import ReasonError
from lfm_tasks.spectral.bases.eigenbasis import Basis
from lfm_tasks.spectral.maps.closed_form import (
    Described,
    Mask,
    check_fit,
    penalty_strength,
    spectral_mask,
    with_trivial_mode,
)


def descriptor_operators(
    basis: Basis, descriptors: Float[np.ndarray, "points descriptors"]
) -> Float[np.ndarray, "descriptors eigenpairs eigenpairs"]:
    """Return S_l = Φᵀ diag(√n f_l) Φ: multiplication by each descriptor, seen in the basis.

    The √n makes operators of unit descriptors comparable between spaces of different size.
    """
    vectors = basis.eigenvectors
    scale = np.sqrt(len(vectors))
    return np.stack([vectors.T @ (vectors * (scale * column)[:, None]) for column in descriptors.T])


def fit_commuting_map(
    source: Described,
    target: Described,
    operators: tuple[
        Float[np.ndarray, "descriptors source source"],
        Float[np.ndarray, "descriptors target target"],
    ],
    *,
    mask: Mask = "resolvent",
    weights: tuple[float, float] = (1.0, 0.1),
) -> Float[np.ndarray, "target source"]:
    """Return the C that minimises ‖CA − B‖² + α Σ C_ij² M_ij + β Σ_l ‖C S_l^x − S_l^y C‖² above the trivial mode.

    ``weights`` are those of the mask (α = weight × trace(AAᵀ)/K) and β ≥ 0. C_00 = 1, the rest of row and column 0 is
    0, and row and column 0 of the operators take no part. Conjugate gradients on the normal equations; the K² × K²
    matrix is never built.

    References
    ----------
    Fumero et al. (2024), "Latent Functional Maps", equation 4; Nogneng, Ovsjanikov (2017), "Informative descriptor
    preservation via commutativity for shape matching", equation 4.
    """
    check_fit(source, target, weights[0])
    penalties = penalty_strength(source, weights[0]) * spectral_mask(
        source.eigenvalues[1:], target.eigenvalues[1:], mask=mask
    )
    inner = solve_commuting(
        source.coefficients[1:],
        target.coefficients[1:],
        penalties,
        (operators[0][:, 1:, 1:], operators[1][:, 1:, 1:]),
        strength=weights[1],
    )
    return with_trivial_mode(inner)


def solve_commuting(
    source_coefficients: Float[np.ndarray, "source descriptors"],
    target_coefficients: Float[np.ndarray, "target descriptors"],
    penalties: Float[np.ndarray, "target source"],
    operators: tuple[Float[np.ndarray, "l source source"], Float[np.ndarray, "l target target"]],
    *,
    strength: float,
) -> Float[np.ndarray, "target source"]:
    """Return the C that minimises ‖CA − B‖² + Σ P_ij C_ij² + β Σ_l ‖C S_l^x − S_l^y C‖², everything taking part.

    Raises
    ------
    ReasonError
        ``inaccurate`` if the residual does not fall below 1e-10 of the right side.
    """
    gram = source_coefficients @ source_coefficients.T
    of_source, of_target = operators
    squared_source = strength * np.einsum("lij,ljk->ik", of_source, of_source, optimize=True)
    squared_target = strength * np.einsum("lij,ljk->ik", of_target, of_target, optimize=True)
    # Side by side, so that Σ_l S_l^y C S_l^x is two wide products.
    wide_target = np.hstack(list(of_target))

    def apply(matrix: Float[np.ndarray, "target source"]) -> Float[np.ndarray, "target source"]:
        crossed = wide_target @ (matrix @ of_source).reshape(-1, matrix.shape[1])
        return matrix @ (gram + squared_source) + penalties * matrix + squared_target @ matrix - 2 * strength * crossed

    crossed_diagonal = np.einsum("lii,ljj->ij", of_target, of_source, optimize=True)
    diagonal = np.diag(gram + squared_source) + penalties + np.diag(squared_target)[:, None]
    diagonal = np.maximum(diagonal - 2 * strength * crossed_diagonal, 1e-14 * diagonal.max())
    return _conjugate_gradients(apply, target_coefficients @ source_coefficients.T, diagonal)


def _conjugate_gradients(apply, side, diagonal, *, tolerance: float = 1e-10):  # type: ignore[no-untyped-def]
    """Return the solution of a symmetric positive definite system on matrices, scaled by its diagonal."""
    solution = np.zeros_like(side)
    residual = side.copy()
    scaled = residual / diagonal
    direction = scaled
    energy = float(np.vdot(residual, scaled))
    goal = tolerance * float(np.linalg.norm(side))
    for _ in range(10 * side.size):
        if np.linalg.norm(residual) <= goal:
            return solution
        image = apply(direction)
        step = energy / float(np.vdot(direction, image))
        solution = solution + step * direction
        residual = residual - step * image
        scaled = residual / diagonal
        energy, before = float(np.vdot(residual, scaled)), energy
        direction = scaled + (energy / before) * direction
    raise ReasonError(
        "inaccurate",
        f"found a residual of {np.linalg.norm(residual):.1e}, needs {goal:.1e}: raise the mask's weight",
    )
