"""Measures of how well one space predicts another, or serves for prediction: linear regression, GULP."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from lfm_tasks.measures.alignments import PROJECTION_WEIGHTED
from lfm_tasks.measures.cross_covariances import WHITENED, CrossForm, Stretch, Values
from lfm_tasks.measures.measure import Invariance, Measure, Rows, centered
from lfm_tasks.measures.traces import TraceForm

_ROTATIONS: frozenset[Invariance] = frozenset({"rotation", "permutation", "scaling", "translation"})
_UNPENALISED: frozenset[Invariance] = _ROTATIONS | {"invertible"}


@dataclass(frozen=True)
class Predictor:
    """Centered rows and an orthonormal basis of their span."""

    rows: Float[np.ndarray, "points features"]
    basis: Float[np.ndarray, "points rank"]


@dataclass(frozen=True)
class RidgePredictor:
    """Centered rows at norm √n, Σ = XᵀX/n, and (Σ + λ)⁻¹."""

    rows: Float[np.ndarray, "points features"]
    covariance: Float[np.ndarray, "features features"]
    inverse: Float[np.ndarray, "features features"]


def _predictor(rows: Rows) -> Predictor:
    moved = centered(rows)
    left, values, _ = np.linalg.svd(moved, full_matrices=False)
    return Predictor(moved, left[:, values > values[0] * max(moved.shape) * np.finfo(float).eps])


def _explained(source: Predictor, target: Predictor) -> float:
    """Return the share of the source's variance that a linear map of the target predicts; NaN if that is constant."""
    if not target.basis.size:
        return float("nan")
    return float(np.square(target.basis.T @ source.rows).sum() / np.square(source.rows).sum())


# Of the largest eigenvalue: `np.linalg.pinv` drops what is smaller.
_DROPPED = 1e-15


def _ridged(penalty: float) -> Callable[[Rows], RidgePredictor]:
    def prepare(rows: Rows) -> RidgePredictor:
        moved = centered(rows)
        moved = moved * (np.sqrt(len(moved)) / np.linalg.norm(moved))
        covariance = moved.T @ moved / len(moved)
        inverse = np.linalg.pinv(covariance + penalty * np.eye(len(covariance)), hermitian=True)
        return RidgePredictor(moved, covariance, inverse)

    return prepare


def _spanned(rows: Rows) -> Float[np.ndarray, "points rank"]:
    return _predictor(rows).basis


def _of_unit_norm(rows: Rows) -> Float[np.ndarray, "points features"]:
    moved = centered(rows)
    return np.asarray(moved / np.linalg.norm(moved))


def _shrunk(penalty: float) -> Callable[[Rows], Float[np.ndarray, "points rank"]]:
    """Return the function that gives X (Σ + λ)^(-1/2)/√n, directions that `pinv` drops left out."""

    def factor(rows: Rows) -> Float[np.ndarray, "points rank"]:
        moved = _of_unit_norm(rows)  # at norm √n it would be X, and this X/√n: Σ is the same
        variances, directions = np.linalg.eigh(moved.T @ moved + penalty * np.eye(moved.shape[1]))
        kept = variances > _DROPPED * variances[-1]
        return np.asarray(moved @ (directions[:, kept] / np.sqrt(variances[kept])))

    return factor


def _unit(values: Values) -> Values:
    return values / np.linalg.norm(values)


def _shrunk_lengths(penalty: float) -> Callable[[Values], Values]:
    """Return the function that gives the singular values of the factor that `_shrunk` returns, from those of X."""
    return lambda values: _unit(values) / np.sqrt(_unit(values) ** 2 + penalty)


def _n_invertible(penalty: float) -> Callable[[Values], int]:
    """Return the function that counts the directions that `pinv` keeps, from singular values."""

    def count(values: Values) -> int:
        variances = _unit(values) ** 2 + penalty
        return int((variances > _DROPPED * variances[:1]).sum())

    return count


def _explained_share(trace: Values, source: Values, target: Values) -> Values:
    return trace


def _squared_distance(trace: Values, source: Values, target: Values) -> Values:
    return source + target - 2 * trace


def _gulp(source: RidgePredictor, target: RidgePredictor) -> float:
    """Return tr (Σ_x^-λ Σ_x)² + tr (Σ_y^-λ Σ_y)² − 2 tr Σ_x^-λ Σ_xy Σ_y^-λ Σ_yx, squared distance of predictions."""
    shrunk = [side.inverse @ side.covariance for side in (source, target)]
    cross = source.rows.T @ target.rows / len(source.rows)
    mixed = np.vdot(source.inverse @ cross, cross @ target.inverse)
    return float(np.vdot(shrunk[0].T, shrunk[0]) + np.vdot(shrunk[1].T, shrunk[1]) - 2 * mixed)


def _gulp_measure(penalty: float) -> Measure:
    shrunk = _shrunk(penalty)
    stretch = Stretch(_shrunk_lengths(penalty), _n_invertible(penalty))
    return Measure(
        _ridged(penalty),
        _gulp,
        f"squared distance between ridge predictions of any unit task, λ = {penalty:g}; centered, norm √n",
        kind="distance",
        value_range=(0.0, float("inf")),
        invariances=_UNPENALISED if penalty == 0 else _ROTATIONS,
        n_factor=1.0,
        trace=TraceForm(shrunk, shrunk, _squared_distance, (stretch, stretch)),
        source="Boix-Adserà et al. (2022), 'GULP: a prediction-based metric between representations', section 2",
    )


_INVERTIBLE: frozenset[Invariance] = frozenset({"rotation", "permutation", "scaling", "translation", "invertible"})
_ORTHOGONAL: frozenset[Invariance] = _INVERTIBLE - {"invertible"}
_SVCCA = "Raghu et al. (2017), 'SVCCA', section 2"


@dataclass(frozen=True)
class CanonicalBasis:
    """An orthonormal basis of the centered rows' column span, largest singular value first, and the rows themselves."""

    basis: Float[np.ndarray, "points rank"]
    rows: Float[np.ndarray, "points features"]


def _prepare(keep: Callable[[Float[np.ndarray, " values"]], int]) -> Callable[[Rows], CanonicalBasis]:
    def prepare(rows: Rows) -> CanonicalBasis:
        moved = centered(rows)
        left, values, _ = np.linalg.svd(moved, full_matrices=False)
        rank = int((values > values[0] * max(moved.shape) * np.finfo(float).eps).sum())
        return CanonicalBasis(left[:, : min(rank, keep(values[:rank]))], moved)

    return prepare


def permuted_basis(directions: CanonicalBasis, order: Int[np.ndarray, " points"]) -> CanonicalBasis:
    """Return the directions with their rows in another order."""
    return CanonicalBasis(directions.basis[order], directions.rows[order])


def canonical_correlations(source: CanonicalBasis, target: CanonicalBasis) -> Float[np.ndarray, " smaller"]:
    """Return the cosines of the principal angles between both spans, largest first."""
    return np.clip(np.linalg.svd(target.basis.T @ source.basis, compute_uv=False), 0, 1)


def _mean(source: CanonicalBasis, target: CanonicalBasis) -> float:
    return float(canonical_correlations(source, target).mean())


def _projection_weighted(source: CanonicalBasis, target: CanonicalBasis) -> float:
    """Return Σ w_i ρ_i/Σ w_i, w_i = Σ_j |⟨h_i, x_j⟩| over the source's canonical variates h_i."""
    left, correlations, _ = np.linalg.svd(source.basis.T @ target.basis, full_matrices=False)
    weights = np.abs((source.basis @ left).T @ source.rows).sum(axis=1)
    return float(weights @ np.clip(correlations, 0, 1) / weights.sum())


def _share(power: int) -> Callable[[Float[np.ndarray, " values"]], int]:
    """Return a function to how many singular values hold 99 % of their sum, or of their squares'."""

    def keep(values: Float[np.ndarray, " values"]) -> int:
        shares = np.cumsum(values**power) / np.sum(values**power)
        return int(np.searchsorted(shares, 0.99 * (1 - 1e-12))) + 1

    return keep


def _svcca(keep: Callable[[Float[np.ndarray, " values"]], int], convention: str) -> Measure:
    return Measure(
        _prepare(keep),
        _mean,
        convention,
        invariances=_ORTHOGONAL,
        permute=permuted_basis,
        cross=CrossForm(Stretch(np.ones_like, keep), _mean_of),
        source=_SVCCA,
    )


def _mean_of(nuclear: Values, source: Values, target: Values, n_directions: Values) -> Values:
    return nuclear / n_directions


MEASURES = {
    "gulp_lambda_0": _gulp_measure(0.0),
    "gulp_lambda_0.01": _gulp_measure(0.01),
    "gulp_lambda_1": _gulp_measure(1.0),
    "linear_regression_r2": Measure(
        _predictor,
        _explained,
        "R² of the source predicted by the target; 1 for n ≤ d of the target; asymmetric",
        is_symmetric=False,
        invariances=_ROTATIONS,
        n_factor=1.0,
        trace=TraceForm(_of_unit_norm, _spanned, _explained_share, (Stretch(_unit, len), WHITENED)),
        source="Kornblith et al. (2019), 'Similarity of neural network representations revisited', section 3",
    ),
    "cca_mean": Measure(
        _prepare(len),
        _mean,
        "mean canonical correlation over min(d); 1 for n ≤ d, whatever the spaces",
        invariances=_INVERTIBLE,
        n_factor=1.0,
        permute=permuted_basis,
        cross=CrossForm(WHITENED, _mean_of),
        source="Hotelling (1936), 'Relations between two sets of variates'",
    ),
    "svcca_10_dims": _svcca(lambda values: 10, "the 10 largest singular directions of each"),
    "svcca_variance_99": _svcca(_share(2), "the directions that hold 99 % of the variance"),
    "svcca_singular_values_99": _svcca(_share(1), "the directions that hold 99 % of the sum of singular values"),
    "pwcca_textbook_x_to_y": Measure(
        _prepare(len),
        _projection_weighted,
        "canonical correlations weighted by what of the source they carry; asymmetric; not determined for d₁ + d₂ ≥ n",
        is_symmetric=False,
        invariances=frozenset({"scaling", "translation", "permutation"}),
        n_factor=1.0,
        permute=permuted_basis,
        alignment=PROJECTION_WEIGHTED,
        source="Morcos et al. (2018), 'Insights on representational similarity with canonical correlation', section 3",
    ),
}
