"""The functional map from descriptors: independent rows in closed form, the trivial mode apart."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from lfm_tasks.errors import DataError
from lfm_tasks.spectral.bases.eigenbasis import Basis

Mask = Literal["commutativity", "resolvent"]

# The resolvent's one scale for all spectra: the bound of the normalized Laplacian.
SPECTRUM_BOUND = 2.0


@dataclass(frozen=True)
class DescriptorCoefficients:
    """One side of a fit: eigenvalues in [0, 2], and the descriptors' coefficients in the basis."""

    eigenvalues: Float[np.ndarray, " eigenpairs"]
    coefficients: Float[np.ndarray, "eigenpairs descriptors"]

    def low(self, n_eigenpairs: int) -> "DescriptorCoefficients":
        """Return the first ``n_eigenpairs`` modes."""
        return DescriptorCoefficients(self.eigenvalues[:n_eigenpairs], self.coefficients[:n_eigenpairs])


def project_descriptors(basis: Basis, descriptors: Float[np.ndarray, "points descriptors"]) -> DescriptorCoefficients:
    """Return the coefficients Φᵀ F of descriptors of unit length (so that n cancels), with the eigenvalues.

    Parameters
    ----------
    basis
        Basis of the space; unit-length eigenvectors.
    descriptors
        Functions on the points, a column each, of unit length.
    """
    return DescriptorCoefficients(basis.eigenvalues, basis.eigenvectors.T @ descriptors)


def fit_closed_form(
    source: DescriptorCoefficients, target: DescriptorCoefficients, *, mask: Mask = "resolvent", weight: float = 1.0
) -> Float[np.ndarray, "target source"]:
    """Return the C that minimizes ‖CA − B‖² + α Σ_ij C_ij² M_ij on the modes above the trivial one.

    C_00 = 1 and the rest of row and column 0 is 0. α = ``weight`` × trace(AAᵀ)/K: it grows with the descriptors, so
    that as many of them as eigenpairs, or more, never leave the fit undetermined.

    Parameters
    ----------
    source
        A and the source's eigenvalues, as `project_descriptors` returns them.
    target
        B and the target's eigenvalues; as many descriptors, in the same order, as the source has.
    mask
        M: ``commutativity`` (λ_x − λ_y)², or ``resolvent``, its bounded form.
    weight
        α in units of the mean diagonal of AAᵀ, > 0.

    Raises
    ------
    ValueError
        If the two sides have different numbers of descriptors, or ``weight`` is not positive.

    Examples
    --------
    Descriptors that agree in both spaces give the identity:

    >>> side = DescriptorCoefficients(np.array([0.0, 0.2, 0.5]), np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    >>> fit_closed_form(side, side).round(6).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]

    References
    ----------
    Fumero et al. (2024), "Latent Functional Maps", equation 2; Ren et al. (2019), "Structured regularization of
    functional map computations", section 4, for the resolvent mask.
    """
    check_fit(source, target, weight)
    inner_source, inner_target = source.coefficients[1:], target.coefficients[1:]
    penalties = penalty_strength(source, weight) * spectral_mask(
        source.eigenvalues[1:], target.eigenvalues[1:], mask=mask
    )
    return with_trivial_mode(solve_rows(inner_source, inner_target, penalties))


def solve_rows(
    source_coefficients: Float[np.ndarray, "source descriptors"],
    target_coefficients: Float[np.ndarray, "target descriptors"],
    penalties: Float[np.ndarray, "target source"],
) -> Float[np.ndarray, "target source"]:
    """Return the C that minimizes ‖CA − B‖² + Σ_ij C_ij² P_ij: row i solves (AAᵀ + diag P_i) c_i = A b_i.

    All rows in one batched solve. Everything takes part, the first mode too.
    """
    gram = source_coefficients @ source_coefficients.T
    systems = gram + penalties[:, :, None] * np.eye(len(gram))
    sides = target_coefficients @ source_coefficients.T
    return np.linalg.solve(systems, sides[:, :, None])[:, :, 0]


def spectral_mask(
    source_eigenvalues: Float[np.ndarray, " source"], target_eigenvalues: Float[np.ndarray, " target"], *, mask: Mask
) -> Float[np.ndarray, "target source"]:
    """Return M_ij ≥ 0, 0 where both eigenvalues agree.

    ``commutativity``: (λ_j − λ_i)². ``resolvent``: (a_j − b_i)²/((a_j² + 1)(b_i² + 1)), a = √(λ_x/2), b = √(λ_y/2).
    Nothing in it depends on the pair, so one factorization of a source serves every target.
    """
    if mask == "commutativity":
        return (source_eigenvalues - target_eigenvalues[:, None]) ** 2
    a = np.sqrt(source_eigenvalues / SPECTRUM_BOUND)
    b = np.sqrt(target_eigenvalues / SPECTRUM_BOUND)[:, None]
    return (a - b) ** 2 / ((a**2 + 1) * (b**2 + 1))


def penalty_strength(source: DescriptorCoefficients, weight: float) -> float:
    """Return α = ``weight`` × trace(AAᵀ)/K over the modes above the trivial one."""
    inner = source.coefficients[1:]
    return float(weight * np.einsum("ij,ij->", inner, inner) / len(inner))


def with_trivial_mode(inner: Float[np.ndarray, "inner_target inner_source"]) -> Float[np.ndarray, "target source"]:
    """Return the map with the trivial mode in front: C_00 = 1, the rest of row and column 0 zero."""
    whole = np.zeros((inner.shape[0] + 1, inner.shape[1] + 1))
    whole[0, 0] = 1
    whole[1:, 1:] = inner
    return whole


def check_fit(source: DescriptorCoefficients, target: DescriptorCoefficients, weight: float) -> None:
    """Raise ValueError unless both sides have the same descriptors and the penalty determines what they leave."""
    if source.coefficients.shape[1] != target.coefficients.shape[1]:
        raise ValueError(
            f"got {source.coefficients.shape[1]} source and {target.coefficients.shape[1]} target descriptors: "
            "both sides need the same ones, in the same order"
        )
    if weight <= 0:
        raise ValueError(f"got the weight {weight}, expected a positive one")


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
    source: DescriptorCoefficients,
    target: DescriptorCoefficients,
    operators: tuple[
        Float[np.ndarray, "descriptors source source"],
        Float[np.ndarray, "descriptors target target"],
    ],
    *,
    mask: Mask = "resolvent",
    weights: tuple[float, float] = (1.0, 0.1),
) -> Float[np.ndarray, "target source"]:
    """Return the C that minimizes ‖CA − B‖² + α Σ C_ij² M_ij + β Σ_l ‖C S_l^x − S_l^y C‖² above the trivial mode.

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
    """Return the C that minimizes ‖CA − B‖² + Σ P_ij C_ij² + β Σ_l ‖C S_l^x − S_l^y C‖², everything taking part.

    Raises
    ------
    DataError
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
    raise DataError(
        "inaccurate",
        f"got a residual of {np.linalg.norm(residual):.1e}, expected {goal:.1e}. Raise the mask's weight",
    )
