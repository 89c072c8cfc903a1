"""How well one space predicts, or serves to predict: linear regression, GULP."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from lfm_tasks.measures.measure import Invariance, Measure, Rows, centred

_ROTATIONS: frozenset[Invariance] = frozenset({"rotation", "permutation", "scaling", "translation"})
_UNPENALISED: frozenset[Invariance] = _ROTATIONS | {"invertible"}


@dataclass(frozen=True)
class Predictor:
    """Centred rows and an orthonormal basis of their span."""

    rows: Float[np.ndarray, "points features"]
    basis: Float[np.ndarray, "points rank"]


@dataclass(frozen=True)
class Ridged:
    """Centred rows at norm √n, Σ = XᵀX/n, and (Σ + λ)⁻¹."""

    rows: Float[np.ndarray, "points features"]
    covariance: Float[np.ndarray, "features features"]
    inverse: Float[np.ndarray, "features features"]


def _predictor(rows: Rows) -> Predictor:
    moved = centred(rows)
    left, values, _ = np.linalg.svd(moved, full_matrices=False)
    return Predictor(moved, left[:, values > values[0] * max(moved.shape) * np.finfo(float).eps])


def _explained(source: Predictor, target: Predictor) -> float:
    """Return the share of the source's variance that a linear map of the target predicts."""
    return float(np.square(target.basis.T @ source.rows).sum() / np.square(source.rows).sum())


def _ridged(penalty: float) -> Callable[[Rows], Ridged]:
    def prepare(rows: Rows) -> Ridged:
        moved = centred(rows)
        moved = moved * (np.sqrt(len(moved)) / np.linalg.norm(moved))
        covariance = moved.T @ moved / len(moved)
        inverse = np.linalg.pinv(covariance + penalty * np.eye(len(covariance)), hermitian=True)
        return Ridged(moved, covariance, inverse)

    return prepare


def _gulp(source: Ridged, target: Ridged) -> float:
    """Return tr (Σ_x^-λ Σ_x)² + tr (Σ_y^-λ Σ_y)² − 2 tr Σ_x^-λ Σ_xy Σ_y^-λ Σ_yx, squared distance of predictions."""
    own = [side.inverse @ side.covariance for side in (source, target)]
    cross = source.rows.T @ target.rows / len(source.rows)
    mixed = np.vdot(source.inverse @ cross, cross @ target.inverse)
    return float(np.vdot(own[0].T, own[0]) + np.vdot(own[1].T, own[1]) - 2 * mixed)


def _gulp_measure(penalty: float) -> Measure:
    return Measure(
        _ridged(penalty),
        _gulp,
        f"squared distance between ridge predictions of any unit task, λ = {penalty:g}; centred, norm √n",
        kind="distance",
        value_range=(0.0, float("inf")),
        invariances=_UNPENALISED if penalty == 0 else _ROTATIONS,
        n_factor=1.0,
        source="Boix-Adserà et al. (2022), 'GULP: a prediction-based metric between representations', section 2",
    )


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
        source="Kornblith et al. (2019), 'Similarity of neural network representations revisited', section 3",
    ),
}
