"""Multi-scale CKA and distance correlation: powers of a Markov matrix; all layers of a network in one operator.

A matrix A of all pairs of points whose rows sum to 0 (inner products, or distances, doubly centered) becomes a Markov
matrix by P = 11ᵀ/n + A/(n |min A|): its entries are at least 0, its rows sum to 1, and it is symmetric. Since A1 = 0,
Pᵗ = 11ᵀ/n + (A/(n |min A|))ᵗ, and the cosine of two such powers, doubly centered, is that of Aᵗ and Bᵗ: the shift and
the scale drop out. t = 1 is CKA, or the square of distance correlation. The product of the Markov matrices of several
layers, last layer first, is alternating diffusion: 11ᵀ/n plus the product of the layers' A.

References
----------
Khandait, Gerken (2026), "From layers to networks: comparing neural representations via diffusion geometry"; Lederman,
Talmon (2018), "Learning the geometry of common latent variables using alternating-diffusion".
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from jaxtyping import Float, Int

from lfm_tasks.measures.measure import Invariance, Measure, Rows, centered, of_order_one, squared_distances
from lfm_tasks.measures.traces import TraceForm, Values
from lfm_tasks.statistics.permutation_moments import doubly_centered

_ORTHOGONAL: frozenset[Invariance] = frozenset({"rotation", "permutation", "scaling", "translation"})
_SOURCE = "after Khandait, Gerken (2026), 'From layers to networks', arXiv:2605.15901"


@dataclass(frozen=True)
class PowerFactor:
    """F with F Fᵀ = (X Xᵀ)ᵗ for centered rows X, and ‖FᵀF‖²."""

    factor: Float[np.ndarray, "points rank"]
    energy: float


@dataclass(frozen=True)
class PowerMatrix:
    """The power of a doubly centered matrix of distances, of unit norm; NaN where all points are equal."""

    matrix: Float[np.ndarray, "points points"]


def power_factor(power: int) -> Callable[[Rows], Float[np.ndarray, "points rank"]]:
    """Return a function to U Sᵗ, X = U S Vᵀ the centered rows; S relative to the largest."""

    def factor(rows: Rows) -> Float[np.ndarray, "points rank"]:
        left, values, _ = np.linalg.svd(centered(rows), full_matrices=False)
        shares = values / values[0] if values[0] > 0 else np.zeros_like(values)
        return np.asarray(left * shares**power)

    return factor


def _cosine(trace: Values, source: Values, target: Values) -> Values:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(trace / np.sqrt(source * target))


def _multiscale_cka(power: int) -> Measure:
    factor = power_factor(power)

    def prepare(rows: Rows) -> PowerFactor:
        made = factor(rows)
        return PowerFactor(made, float(np.square(made.T @ made).sum()))

    def compare(source: PowerFactor, target: PowerFactor) -> float:
        energies = source.energy * target.energy
        trace = float(np.square(target.factor.T @ source.factor).sum())
        return trace / float(np.sqrt(energies)) if energies > 0 else float("nan")

    def permute(prepared: PowerFactor, order: Int[np.ndarray, " points"]) -> PowerFactor:
        return PowerFactor(prepared.factor[order], prepared.energy)

    return Measure(
        prepare,
        compare,
        f"linear CKA of the Markov matrices' power t = {power}; t = 1 is cka_linear",
        invariances=_ORTHOGONAL,
        n_factor=1.0,
        smallest_n=6,
        permute=permute,
        trace=TraceForm(factor, factor, _cosine),
        source=_SOURCE,
    )


def _multiscale_distance_correlation(power: int) -> Measure:
    def prepare(rows: Rows) -> PowerMatrix:
        return PowerMatrix(_power(centered_distances(rows), power))

    def compare(source: PowerMatrix, target: PowerMatrix) -> float:
        return float(np.sqrt(max(float(np.vdot(source.matrix, target.matrix)), 0.0)))

    def permute(prepared: PowerMatrix, order: Int[np.ndarray, " points"]) -> PowerMatrix:
        return PowerMatrix(prepared.matrix[np.ix_(order, order)])

    return Measure(
        prepare,
        compare,
        f"distance correlation of the Markov matrices' power t = {power}; t = 1 is distance_correlation",
        invariances=_ORTHOGONAL,
        smallest_n=6,
        is_quadratic=True,
        permute=permute,
        source=_SOURCE,
    )


def centered_products(rows: Rows) -> Float[np.ndarray, "points points"]:
    """Return the inner products of centered rows, the longest row's with itself at most 1."""
    moved = of_order_one(centered(rows))
    products = moved @ moved.T
    largest = float(np.diag(products).max(initial=0.0))
    return products / largest if largest > 0 else products


def centered_distances(rows: Rows) -> Float[np.ndarray, "points points"]:
    """Return euclidean distances with the means of rows and of columns taken away, in the unit of their mean."""
    distances = np.sqrt(squared_distances(of_order_one(rows.astype(np.float64))))
    mean = float(distances.mean())
    return doubly_centered(distances / mean if mean > 0 else distances)


def fused_operator(
    layers: Sequence[Float[np.ndarray, "points _"]],
    matrix_of: Callable[[Rows], Float[np.ndarray, "points points"]],
    *,
    power: int = 1,
) -> Float[np.ndarray, "points points"]:
    """Return (A_L ⋯ A_2 A_1)ᵗ of unit norm: all layers of a network, first layer first, by alternating diffusion.

    The cosine of two networks is the sum of the products of all entries, ``np.vdot``. NaN where a layer is constant.

    Parameters
    ----------
    layers
        The activations of each layer on the same points.
    matrix_of
        Returns a matrix of all pairs of points whose rows and columns sum to 0: `centered_products` for CKA,
        `centered_distances` for distance correlation.
    power
        How often the walk goes through all layers, t.

    Examples
    --------
    Of one layer it is CKA:

    >>> generator = np.random.default_rng(0)
    >>> layer, other = generator.standard_normal((2, 20, 3))
    >>> fused = [fused_operator([rows], centered_products) for rows in (layer, other)]
    >>> from lfm_tasks.measures.cka import MEASURES
    >>> bool(np.isclose(np.vdot(*fused), MEASURES["cka_linear"](layer, other)))
    True
    """
    matrices = [_unit(matrix_of(rows)) for rows in layers]
    return _power(reduce(lambda product, matrix: _unit(matrix @ product), matrices), power)


def _power(matrix: Float[np.ndarray, "points points"], power: int) -> Float[np.ndarray, "points points"]:
    """Return a power of a matrix at unit norm, each product brought to it."""
    unit = _unit(matrix)
    found = unit
    for _ in range(power - 1):
        found = _unit(found @ unit)
    return found


def _unit(matrix: Float[np.ndarray, "points points"]) -> Float[np.ndarray, "points points"]:
    norm = float(np.linalg.norm(matrix))
    return matrix / norm if norm > 0 else np.full_like(matrix, np.nan)


MEASURES = {
    "multiscale_cka_t_2": _multiscale_cka(2),
    "multiscale_cka_t_4": _multiscale_cka(4),
    "multiscale_distance_correlation_t_2": _multiscale_distance_correlation(2),
    "multiscale_distance_correlation_t_4": _multiscale_distance_correlation(4),
}
