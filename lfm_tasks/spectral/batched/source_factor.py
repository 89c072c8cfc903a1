"""One factorisation of a source space, after which the map to any target is two matrix products."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Complex, Float

from lfm_tasks.spectral.maps.closed_form import (
    SPECTRUM_BOUND,
    Described,
    Mask,
    check_fit,
    penalty_strength,
    with_trivial_mode,
)


@dataclass(frozen=True)
class SourceFactor:
    """The poles Λ (Im > 0), L, and N A of M(μ)⁻¹ = 2 Re L (μ − Λ)⁻¹ N, for the modes above the trivial one."""

    mask: Mask
    poles: Complex[np.ndarray, " inner"]
    left: Complex[np.ndarray, "inner_modes inner"]
    right: Complex[np.ndarray, "inner descriptors"]


def factor_source(source: Described, *, mask: Mask = "resolvent", weight: float = 1.0) -> SourceFactor:
    """Return what the fits from ``source`` to any target share.

    Row i of the map solves M(μ_i) c_i = f_i A b_i, where M(μ) = μ²P + μQ + S is quadratic in one number of the row:

    - ``commutativity``: μ = λ_i, f = 1, P = αI, Q = −2α diag(λ), S = AAᵀ + α diag(λ²);
    - ``resolvent``: μ = √(λ_i/2), f = μ² + 1, and with a = √(λ/2), q = 1/(a² + 1):
      P = AAᵀ + α diag(q), Q = −2α diag(qa), S = AAᵀ + α diag(qa²).

    The linearisation [[0, I], [−P⁻¹S, −P⁻¹Q]] = XΛX⁻¹ gives L (top rows of X) and N (right half of X⁻¹, times P⁻¹).
    Its eigenvalues come in conjugate pairs, so half of them are kept.

    References
    ----------
    Tisseur, Meerbergen (2001), "The quadratic eigenvalue problem", section 3.
    """
    check_fit(source, source, weight)
    leading, linear, constant = _quadratic(source, mask, penalty_strength(source, weight))
    n_modes = len(leading)
    inverse = np.linalg.inv(leading)
    companion = np.block([[np.zeros((n_modes, n_modes)), np.eye(n_modes)], [-inverse @ constant, -inverse @ linear]])
    poles, vectors = np.linalg.eig(companion)
    right = np.linalg.solve(vectors, np.vstack([np.zeros_like(inverse), inverse]) @ source.coefficients[1:])
    upper = poles.imag > 0
    return SourceFactor(mask, poles[upper], vectors[:n_modes, upper], right[upper])


def fit_map_from_factor(
    factor: SourceFactor, target: Described, *, single_precision: bool = False
) -> Float[np.ndarray, "target source"]:
    """Return the same C as `fit_map`: ((f B (NA)ᵀ)_i / (μ_i − Λ)) Lᵀ, twice its real part.

    ``single_precision`` computes in float32 (relative error about 1e-6): half the time.
    """
    complex_type, real_type = (np.complex64, np.float32) if single_precision else (np.complex128, np.float64)
    numbers, factors = row_numbers(target.eigenvalues[1:], factor.mask)
    rows = (target.coefficients[1:] * factors[:, None]).astype(real_type)
    spread = rows @ factor.right.astype(complex_type).T
    resolvents = (1 / (numbers[:, None] - factor.poles)).astype(complex_type)
    inner = 2 * ((spread * resolvents) @ factor.left.astype(complex_type).T).real
    return with_trivial_mode(inner)


def _quadratic(
    source: Described, mask: Mask, strength: float
) -> tuple[
    Float[np.ndarray, "inner inner"],
    Float[np.ndarray, "inner inner"],
    Float[np.ndarray, "inner inner"],
]:
    """Return P, Q and S of M(μ) = μ²P + μQ + S."""
    values = source.eigenvalues[1:]
    inner = source.coefficients[1:]
    gram = inner @ inner.T
    if mask == "commutativity":
        return strength * np.eye(len(gram)), -2 * strength * np.diag(values), gram + strength * np.diag(values**2)
    a = np.sqrt(values / SPECTRUM_BOUND)
    q = strength / (a**2 + 1)
    return gram + np.diag(q), -2 * np.diag(q * a), gram + np.diag(q * a**2)


def row_numbers(
    eigenvalues: Float[np.ndarray, "*inner"], mask: Mask
) -> tuple[Float[np.ndarray, "*inner"], Float[np.ndarray, "*inner"]]:
    """Return μ_i and f_i of every row."""
    if mask == "commutativity":
        return eigenvalues, np.ones_like(eigenvalues)
    b = np.sqrt(eigenvalues / SPECTRUM_BOUND)
    return b, b**2 + 1
