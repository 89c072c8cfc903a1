"""Multi-scale CKA and distance correlation: powers of a Markov matrix; all layers of a network in one operator.

A matrix A of all pairs of points whose rows sum to 0 (inner products, or distances, doubly centered) becomes a Markov
matrix by P = 11ᵀ/n + A/(n |min A|): its entries are at least 0, its rows sum to 1, and it is symmetric. Since A1 = 0,
Pᵗ = 11ᵀ/n + (A/(n |min A|))ᵗ, and the cosine of two such powers, doubly centered, is that of Aᵗ and Bᵗ: the shift and
the scale drop out. t = 1 is CKA, or the square of distance correlation. The product of the Markov matrices of several
layers, last layer first, is alternating diffusion: 11ᵀ/n plus the product of the layers' A.

References
----------
Khandait, Gerken (2026), "From layers to networks: comparing neural representations via diffusion geometry"; Lederman,
Talmon (2018), "Learning the geometry of common latent variables using alternating-diffusion"; Schoenberg (1938),
"Metric spaces and positive definite functions": −A of euclidean distances has no negative eigenvalue.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
from jaxtyping import Float, Int

from lfm_tasks.measures.measure import (
    Invariance,
    Measure,
    Rows,
    TraceChance,
    centered,
    of_order_one,
    squared_distances,
)
from lfm_tasks.measures.traces import TraceForm, Values
from lfm_tasks.statistics.exchange_moments import TraceSums, trace_sums_of_factor, trace_sums_of_matrix
from lfm_tasks.statistics.permutation_moments import doubly_centered
from lfm_tasks.statistics.resampling import Exchange

_ORTHOGONAL: frozenset[Invariance] = frozenset({"rotation", "permutation", "scaling", "translation"})
# Up to so many points matrices are held whole. Rows of a block of distances; passes of a subspace iteration.
MOST_WHOLE, _BLOCK_ROWS, _PASSES = 3000, 512, 3
# Leading eigenvectors of a matrix of more points, at most.
LEADING = 256
# Of the largest direction of a power, below which one is rounding.
_NO_SHARE = 1e-9
# Of the energy of a power of distances, what the eigenvectors that are left out may have.
_LEFT_OUT = 1e-9
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
        shares = (values / values[0] if values[0] > 0 else np.zeros_like(values)) ** power
        # What is left out adds less than rounding to any product.
        kept = max(1, int((shares > _NO_SHARE).sum()))
        return np.asarray(left[:, :kept] * shares[:kept])

    return factor


def _cosine(trace: Values, source: Values, target: Values) -> Values:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(trace / np.sqrt(source * target))


def _cosine_of_factors(source: PowerFactor, target: PowerFactor) -> float:
    energies = source.energy * target.energy
    trace = float(np.square(target.factor.T @ source.factor).sum())
    return trace / float(np.sqrt(energies)) if energies > 0 else float("nan")


def _multiscale_cka(power: int) -> Measure:
    factor = power_factor(power)

    def prepare(rows: Rows) -> PowerFactor:
        made = factor(rows)
        return PowerFactor(made, float(np.square(made.T @ made).sum()))

    def permute(prepared: PowerFactor, order: Int[np.ndarray, " points"]) -> PowerFactor:
        return replace(prepared, factor=prepared.factor[order])

    return Measure(
        prepare,
        _cosine_of_factors,
        f"linear CKA of the Markov matrices' power t = {power}; t = 1 is cka_linear",
        invariances=_ORTHOGONAL,
        n_factor=1.0,
        smallest_n=6,
        permute=permute,
        trace=TraceForm(factor, factor, _cosine),
        source=_SOURCE,
    )


def _multiscale_distance_correlation(power: int) -> Measure:
    def prepare(rows: Rows) -> PowerMatrix | PowerFactor:
        if len(rows) > MOST_WHOLE:
            return leading_factor(rows, power)
        return PowerMatrix(_power(centered_distances(rows), power))

    def compare(source: PowerMatrix | PowerFactor, target: PowerMatrix | PowerFactor) -> float:
        if isinstance(source, PowerMatrix) and isinstance(target, PowerMatrix):
            cosine = float(np.vdot(source.matrix, target.matrix))
        elif isinstance(source, PowerFactor) and isinstance(target, PowerFactor):
            cosine = _cosine_of_factors(source, target)
        else:
            raise TypeError("got a matrix and a factor, expected two spaces on the same points")
        # NaN stays: max() would return the 0.
        return float(np.sqrt(cosine)) if not cosine <= 0 else 0.0

    def permute(prepared: PowerMatrix | PowerFactor, order: Int[np.ndarray, " points"]) -> PowerMatrix | PowerFactor:
        if isinstance(prepared, PowerFactor):
            return replace(prepared, factor=prepared.factor[order])
        return PowerMatrix(prepared.matrix[np.ix_(order, order)])

    return Measure(
        prepare,
        compare,
        f"distance correlation of the Markov matrices' power t = {power}; t = 1 is distance_correlation",
        invariances=_ORTHOGONAL,
        smallest_n=6,
        is_quadratic=True,
        has_value_for_many=True,
        permute=permute,
        trace_chance=TraceChance(_trace_sums, _root, np.square),
        source=_SOURCE,
    )


def _root(cosines: Float[np.ndarray, " pairs"]) -> Float[np.ndarray, " pairs"]:
    """Return the roots of cosines; one of a curve of chance may be below 0, as none of a pair is."""
    return np.sqrt(np.maximum(cosines, 0))


def _trace_sums(prepared: PowerMatrix | PowerFactor, exchange: Exchange) -> TraceSums:
    """Return the contribution of one power of unit norm to the moments of cosines; NaN stays."""
    if isinstance(prepared, PowerMatrix):
        return trace_sums_of_matrix(prepared.matrix, exchange)
    with np.errstate(invalid="ignore", divide="ignore"):
        return trace_sums_of_factor(prepared.factor / np.sqrt(np.sqrt(prepared.energy)), exchange)


def leading_factor(rows: Rows, power: int, n_most: int = LEADING) -> PowerFactor:
    """Return F with F Fᵀ near Aᵗ, A the doubly centered distances: their leading eigenvectors, none held whole.

    −A has no negative eigenvalue (Schoenberg 1938), so that F = U λ^(t/2). As many eigenvectors are taken as leave less
    than 1e-9 of ‖Aᵗ‖², and at most ``n_most``. Against whole matrices of 2,500 points, values of ReLU layers differ by
    less than 2e-7. Spaces of many independent features would need more vectors for t = 2: 200 of them, 3e-4.
    """
    multiply, energy = _centered_distances_times(of_order_one(rows.astype(np.float64)))
    generator = np.random.default_rng(0)
    n_points, n_taken = len(rows), min(32, n_most)
    basis = np.empty((n_points, 0))
    while True:
        n_tried = min(2 * n_taken, n_points)
        start = generator.standard_normal((n_points, n_tried - basis.shape[1]))
        basis, values = _subspace(multiply, np.concatenate([basis, start], axis=1))
        largest = max(float(values[0]), 0.0)
        if largest == 0:
            return PowerFactor(np.full((n_points, 1), np.nan), 0.0)
        shares = np.maximum(values[:n_taken], 0) / largest
        left = max(energy / largest**2 - float(np.square(shares).sum()), 0.0) * shares[-1] ** (2 * power - 2)
        if left <= _LEFT_OUT * float((shares ** (2 * power)).sum()) or n_taken >= min(n_most, n_points):
            break
        n_taken = min(2 * n_taken, n_most)
    factor = basis[:, :n_taken] * shares ** (power / 2)
    return PowerFactor(factor, float(np.square(factor.T @ factor).sum()))


def _subspace(
    multiply: Callable[[Float[np.ndarray, "points columns"]], Float[np.ndarray, "points columns"]],
    start: Float[np.ndarray, "points columns"],
) -> tuple[Float[np.ndarray, "points columns"], Float[np.ndarray, " columns"]]:
    """Return the largest eigenpairs by subspace iteration; those of the first half have converged."""
    basis = np.linalg.qr(start)[0]
    for _ in range(_PASSES):
        basis = np.linalg.qr(multiply(basis))[0]
    values, vectors = np.linalg.eigh(basis.T @ multiply(basis))
    return basis @ vectors[:, ::-1], values[::-1]


def _centered_distances_times(
    rows: Float[np.ndarray, "points features"],
) -> tuple[Callable[[Float[np.ndarray, "points columns"]], Float[np.ndarray, "points columns"]], float]:
    """Return a function that multiplies by −A, A the doubly centered distances, made in blocks; and ‖A‖²."""
    moved = rows - rows.mean(axis=0)
    squares = np.vecdot(moved, moved)

    def blocks() -> Iterator[tuple[slice, Float[np.ndarray, "block points"]]]:
        for start in range(0, len(moved), _BLOCK_ROWS):
            block = slice(start, min(start + _BLOCK_ROWS, len(moved)))
            distances = np.sqrt(np.maximum(squares[block, None] + squares - 2 * (moved[block] @ moved.T), 0))
            distances[np.arange(block.stop - start), np.arange(start, block.stop)] = 0
            yield block, distances

    sums = np.concatenate([distances.sum(axis=1) for _, distances in blocks()])
    energy = float(squares.sum() * 2 * len(moved) - 2 * np.square(moved.sum(axis=0)).sum())
    energy += float(sums.sum() ** 2 / len(moved) ** 2 - 2 * np.square(sums).sum() / len(moved))

    def multiply(vectors: Float[np.ndarray, "points columns"]) -> Float[np.ndarray, "points columns"]:
        inner = vectors - vectors.mean(axis=0)
        product = np.concatenate([distances @ inner for _, distances in blocks()])
        return np.asarray(product.mean(axis=0) - product)

    return multiply, energy


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
