"""Matching single features: every one with its most correlated partner, or one to one."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment

from lfm_tasks.measures.measure import Invariance, Measure, Rows, centred

_LI = "Li et al. (2016), 'Convergent learning: do different neural networks learn the same representations?', section 3"


@dataclass(frozen=True)
class UnitFeatures:
    """Centred features of unit length; dead ones are zero."""

    columns: Float[np.ndarray, "points features"]


def _prepare(rows: Rows) -> UnitFeatures:
    moved = centred(rows)
    lengths = np.linalg.norm(moved, axis=0)
    return UnitFeatures(np.divide(moved, lengths, out=np.zeros_like(moved), where=lengths > 0))


def _soft(source: UnitFeatures, target: UnitFeatures) -> float:
    correlations = source.columns.T @ target.columns
    return float((correlations.max(axis=1).mean() + correlations.max(axis=0).mean()) / 2)


def _hard(source: UnitFeatures, target: UnitFeatures) -> float:
    correlations = source.columns.T @ target.columns
    rows, columns = linear_sum_assignment(correlations, maximize=True)
    return float(correlations[rows, columns].mean())


_FEATURES: frozenset[Invariance] = frozenset({"permutation", "scaling", "translation"})

MEASURES = {
    "soft_match": Measure(
        _prepare,
        _soft,
        "largest signed correlation of every feature, mean of both sides' means",
        value_range=(-1.0, 1.0),
        invariances=_FEATURES,
        permute=lambda prepared, order: UnitFeatures(prepared.columns[order]),
        source=_LI,
    ),
    "hard_match": Measure(
        _prepare,
        _hard,
        "one-to-one matching of largest signed correlation, mean over min(d)",
        value_range=(-1.0, 1.0),
        invariances=_FEATURES,
        permute=lambda prepared, order: UnitFeatures(prepared.columns[order]),
        source=_LI,
    ),
}
