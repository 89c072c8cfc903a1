"""Far tails of Σ A_ij B_π(i)π(j) over permutations, where three moments do not determine them.

Of centered matrices with eigenvalues λ and μ it is about Σ λ_i μ_j/n (z_ij² − 1), z standard normal. The largest
eigenvalues give the tail its shape; what is left of the exact variance is taken as normal.
"""

from dataclasses import dataclass
from math import erfc, exp, log1p, pi, sqrt
from typing import no_type_check

import numpy as np
import scipy  # its parts are imported when they are first used
from jaxtyping import Float, Int

from lfm_tasks.compiling import compiled_reordered

# Eigenvalues that are kept of each matrix.
N_EIGENVALUES = 24
# Deviations above the mean from which on the saddle point takes over from a curve of three moments, step by step.
_FROM, _WHOLLY_FROM = 2.5, 3.5
# Below so many points all eigenvalues are computed.
_DENSE_BELOW = 128


@dataclass(frozen=True)
class Spectra:
    """The largest eigenvalues of both matrices of each pair; their products over n are weights of squares."""

    first: Float[np.ndarray, "*pairs eigenvalues"]
    second: Float[np.ndarray, "*pairs eigenvalues"]
    n_points: int

    def of(self, places: tuple[Int[np.ndarray, " some"], ...]) -> "Spectra":
        """Return the statistics of some of the pairs."""
        return Spectra(self.first[places], self.second[places], self.n_points)

    def scaled(self, factor: float) -> "Spectra":
        """Return the moments of ``factor`` times the statistic."""
        return Spectra(factor * self.first, self.second, self.n_points)


def largest_eigenvalues(matrix: Float[np.ndarray, "points points"]) -> Float[np.ndarray, " eigenvalues"]:
    """Return the 24 eigenvalues of a symmetric matrix that are largest in magnitude, then zeros."""
    n_points = len(matrix)
    values = None
    if n_points >= _DENSE_BELOW:
        start = np.random.default_rng(0).standard_normal(n_points).astype(matrix.dtype)
        try:
            values = scipy.sparse.linalg.eigsh(
                matrix, N_EIGENVALUES, which="LM", v0=start, tol=1e-3, return_eigenvectors=False
            )
        except scipy.sparse.linalg.ArpackNoConvergence:  # many of one size
            values = None
    if values is None:
        values = np.linalg.eigvalsh(matrix)
    falling = values[np.argsort(-np.abs(values))][:N_EIGENVALUES].astype(np.float64)
    return np.pad(falling, (0, N_EIGENVALUES - len(falling)))


def far_shares(
    values: Float[np.ndarray, " pairs"],
    deviations: Float[np.ndarray, " pairs"],
    shares: Float[np.ndarray, " pairs"],
    spectra: Spectra,
) -> Float[np.ndarray, " pairs"]:
    """Return P(X ≥ value): ``shares`` below 2.5 deviations, a saddle point above 3.5, a mean of logarithms between.

    Parameters
    ----------
    values
        In deviations from the mean.
    deviations
        Of the statistic, in the units of ``spectra``.
    shares
        By the curve of three moments.

    References
    ----------
    Lugannani, Rice (1980), "Saddle point approximation for the distribution of the sum of independent random
    variables".
    """
    tails = shares.copy()
    far = np.flatnonzero((values > _FROM) & (deviations > 0))
    if not len(far):
        return tails
    saddle = np.empty(len(far))
    first, second = (np.ascontiguousarray(side[far]) for side in (spectra.first, spectra.second))
    # One order of both, so that a pair has the same bits whichever is the source.
    differ = first != second
    places = np.where(differ.any(axis=1), differ.argmax(axis=1), 0)
    rows = np.arange(len(far))
    is_turned = (first[rows, places] < second[rows, places])[:, None]
    high, low = np.where(is_turned, second, first), np.where(is_turned, first, second)
    fill_saddle_shares(values[far], high / (spectra.n_points * deviations[far, None]), low, saddle)
    weight = np.clip((values[far] - _FROM) / (_WHOLLY_FROM - _FROM), 0, 1)
    tiny = np.finfo(np.float64).tiny
    logs = [np.log(np.maximum(one, tiny)) for one in (tails[far], saddle)]
    tails[far] = np.exp((1 - weight) * logs[0] + weight * logs[1])
    return tails


@compiled_reordered
@no_type_check
def fill_saddle_shares(values, first, second, shares):
    """Fill in P(Σ w (z² − 1) + rest > value), w the products of both rows, the rest normal, of variance 1 in all."""
    n_first, n_second = first.shape[1], second.shape[1]
    for pair in range(len(values)):
        value, largest, energy = values[pair], 0.0, 0.0
        for i in range(n_first):
            for j in range(n_second):
                weight = first[pair, i] * second[pair, j]
                largest = max(largest, weight)
                energy += 2 * weight * weight
        # More variance than there is, by rounding or by few points: the weights are made smaller.
        shrink = 1.0 if energy <= 1.0 else 1.0 / sqrt(energy)
        largest *= shrink
        rest = max(1.0 - energy * shrink * shrink, 0.0)
        low, high = 0.0, 0.5 / largest if largest > 1e-9 else 1e9
        t = min(value, 0.5 * high)
        for _ in range(200):
            slope, bend = rest * t, rest
            for i in range(n_first):
                for j in range(n_second):
                    weight = first[pair, i] * second[pair, j] * shrink
                    open_share = 1.0 - 2.0 * weight * t
                    slope += weight / open_share - weight
                    bend += 2.0 * weight * weight / (open_share * open_share)
            if slope > value:
                high = t
            else:
                low = t
            step = t - (slope - value) / bend
            if abs(slope - value) < 1e-9 * value:
                break
            t = step if low < step < high else 0.5 * (low + high)
        exponent, bend = 0.5 * rest * t * t, rest
        for i in range(n_first):
            for j in range(n_second):
                weight = first[pair, i] * second[pair, j] * shrink
                open_share = 1.0 - 2.0 * weight * t
                exponent -= 0.5 * log1p(-2.0 * weight * t) + weight * t
                bend += 2.0 * weight * weight / (open_share * open_share)
        length, speed = sqrt(max(2.0 * (t * value - exponent), 0.0)), t * sqrt(bend)
        density = exp(-0.5 * length * length) / sqrt(2.0 * pi)
        tail = 0.5 * erfc(length / sqrt(2.0))
        shares[pair] = min(max(tail + density * (1.0 / speed - 1.0 / length), 0.0), 1.0)
