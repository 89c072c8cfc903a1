"""Procrustes distances and shape metrics: what is left after the best rotation."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from lfm_tasks.measures.alignments import matching, mean_of_best, mean_of_matched, unit_features
from lfm_tasks.measures.cross_covariances import LINEAR, WHITENED, CrossForm, Stretch, Values
from lfm_tasks.measures.measure import Invariance, Measure, Rows, centered

_RIGID: frozenset[Invariance] = frozenset({"rotation", "permutation", "translation"})
_SCALED: frozenset[Invariance] = frozenset({"scaling"})
_WHITENED: frozenset[Invariance] = frozenset({"scaling", "invertible"})
_BY_ALPHA = {1.0: _SCALED, 0.0: _WHITENED}
_SHAPES = "Williams et al. (2021), 'Generalized shape metrics on neural representations', section 2"


@dataclass(frozen=True)
class NormalizedRows:
    """Centered, perhaps whitened rows, and their norm."""

    rows: Float[np.ndarray, "points features"]
    norm: float


def _shape(rows: Float[np.ndarray, "points features"]) -> NormalizedRows:
    return NormalizedRows(rows, float(np.linalg.norm(rows)))


def permuted_rows(shape: NormalizedRows, order: Int[np.ndarray, " points"]) -> NormalizedRows:
    """Return the shape with its rows in another order."""
    return NormalizedRows(shape.rows[order], shape.norm)


def _unit(rows: Rows) -> NormalizedRows:
    moved = centered(rows)
    norm = np.linalg.norm(moved)
    return _shape(moved / norm if norm > 0 else moved)


def nuclear_norm(source: NormalizedRows, target: NormalizedRows) -> float:
    """Return ‖YᵀX‖_*, the inner product after the best rotation; for n < d through the rows' own span."""
    product = target.rows.T @ source.rows
    if min(product.shape) > len(source.rows):
        # Same singular values, smaller matrix: X = Q_x R_x with n × n factors.
        product = np.linalg.qr(target.rows.T)[1] @ np.linalg.qr(source.rows.T)[1].T
    return float(np.linalg.svd(product, compute_uv=False).sum())


def _distance(source: NormalizedRows, target: NormalizedRows) -> float:
    squared = source.norm**2 + target.norm**2 - 2 * nuclear_norm(source, target)
    return float(np.sqrt(max(squared, 0.0)))


def _angle(source: NormalizedRows, target: NormalizedRows) -> float:
    scale = source.norm * target.norm
    return float(np.arccos(np.clip(nuclear_norm(source, target) / scale, -1, 1))) if scale > 0 else float("nan")


def _partly_whitened(alpha: float) -> Callable[[Rows], NormalizedRows]:
    """Return a function to X (αI + (1 − α)(XᵀX)^(-½)), null directions dropped."""

    def prepare(rows: Rows) -> NormalizedRows:
        left, values, right = np.linalg.svd(centered(rows), full_matrices=False)
        kept = values > values[0] * max(rows.shape) * np.finfo(float).eps
        scaled = alpha * values[kept] + (1 - alpha)
        return _shape((left[:, kept] * scaled) @ right[kept])

    return prepare


def _distance_of(nuclear: Values, source: Values, target: Values, n_directions: Values) -> Values:
    return np.sqrt(np.maximum(source**2 + target**2 - 2 * nuclear, 0))


def _cosine_of(nuclear: Values, source: Values, target: Values) -> Values:
    """Return the cosine; NaN where all rows of a set of points are the same, and their product is rounding."""
    return nuclear / np.where(source * target > 0, source * target, np.nan)


def _unit_distance_of(nuclear: Values, source: Values, target: Values, n_directions: Values) -> Values:
    return np.sqrt(np.maximum(2 - 2 * _cosine_of(nuclear, source, target), 0))


def _angle_of(nuclear: Values, source: Values, target: Values, n_directions: Values) -> Values:
    return np.arccos(np.clip(_cosine_of(nuclear, source, target), -1, 1))


def _cross_form(alpha: float) -> CrossForm:
    stretches = {0.0: WHITENED, 1.0: LINEAR}
    return CrossForm(stretches.get(alpha) or Stretch(lambda values: alpha * values + (1 - alpha), len), _angle_of)


def _angular(alpha: float, convention: str, n_factor: float = 0.0) -> Measure:
    return Measure(
        _partly_whitened(alpha),
        _angle,
        convention,
        kind="distance",
        is_metric=True,
        value_range=(0.0, float(np.pi / 2)),
        invariances=_RIGID | _BY_ALPHA.get(alpha, frozenset()),
        n_factor=n_factor,
        permute=permuted_rows,
        cross=_cross_form(alpha),
        source=_SHAPES,
    )


_LI = "Li et al. (2016), 'Convergent learning: do different neural networks learn the same representations?', section 3"


@dataclass(frozen=True)
class UnitFeatures:
    """Centered features of unit length; dead ones are zero."""

    columns: Float[np.ndarray, "points features"]


def _prepare(rows: Rows) -> UnitFeatures:
    return UnitFeatures(unit_features(rows))


def _of_correlations(value: Callable[[np.ndarray], np.ndarray]) -> Callable[[UnitFeatures, UnitFeatures], float]:
    return lambda source, target: float(value(target.columns.T @ source.columns))


_FEATURES: frozenset[Invariance] = frozenset({"permutation", "scaling", "translation"})

MEASURES = {
    "procrustes_centered": Measure(
        lambda rows: _shape(centered(rows)),
        _distance,
        "centered, not scaled: in the units of the spaces",
        kind="distance",
        is_metric=True,
        value_range=(0.0, float("inf")),
        invariances=_RIGID,
        permute=permuted_rows,
        cross=CrossForm(LINEAR, _distance_of),
        source="Schönemann (1966), 'A generalized solution of the orthogonal Procrustes problem'",
    ),
    "procrustes_centered_unit_norm": Measure(
        _unit,
        _distance,
        "centered, scaled to norm 1",
        kind="distance",
        is_metric=True,
        value_range=(0.0, float(np.sqrt(2))),
        invariances=_RIGID | _SCALED,
        permute=permuted_rows,
        cross=CrossForm(LINEAR, _unit_distance_of),
        source=_SHAPES,
    ),
    "shape_angular_alpha_1": _angular(1.0, "arccos of the nuclear-norm cosine, centered"),
    "shape_angular_alpha_half": _angular(0.5, "half whitened, XᵀX not normalized: depends on the scale"),
    "shape_angular_alpha_0": _angular(0.0, "whitened: 0 for n ≤ d, whatever the spaces", n_factor=1.0),
    "soft_match": Measure(
        _prepare,
        _of_correlations(mean_of_best),
        "largest signed correlation of every feature, mean of both sides' means",
        value_range=(-1.0, 1.0),
        invariances=_FEATURES,
        permute=lambda prepared, order: UnitFeatures(prepared.columns[order]),
        alignment=matching(mean_of_best),
        source=_LI,
    ),
    "hard_match": Measure(
        _prepare,
        _of_correlations(mean_of_matched),
        "one-to-one matching of largest signed correlation, mean over min(d)",
        value_range=(-1.0, 1.0),
        invariances=_FEATURES,
        permute=lambda prepared, order: UnitFeatures(prepared.columns[order]),
        alignment=matching(mean_of_matched),
        source=_LI,
    ),
}
