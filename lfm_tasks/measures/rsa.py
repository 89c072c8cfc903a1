"""Representational similarity analysis: correlation of dissimilarity matrices."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from lfm_tasks.measures.measure import Measure, Rows, squared_distances
from lfm_tasks.measures.point_matrices import MatrixForm, correlation_matrix, distance_matrix, rank_matrix
from lfm_tasks.statistics.permutation_moments import doubly_centered

_KRIEGESKORTE = "Kriegeskorte et al. (2008), 'Representational similarity analysis', section 'Comparing dissimilarity'"


@dataclass(frozen=True)
class Dissimilarities:
    """1 − Pearson correlation of every two rows (or its ranks), centered and of unit length."""

    values: Float[np.ndarray, " pairs"]


def _prepare_ranks(transform: Callable[[np.ndarray], np.ndarray]) -> Callable[[Rows], Dissimilarities]:
    def prepare(rows: Rows) -> Dissimilarities:
        moved = rows.astype(np.float64)
        moved = moved - moved.mean(axis=1, keepdims=True)
        lengths = np.linalg.norm(moved, axis=1, keepdims=True)
        moved = np.divide(moved, lengths, out=np.zeros_like(moved), where=lengths > 0)
        values = transform(1 - (moved @ moved.T)[np.triu_indices(len(rows), k=1)])
        values = values - values.mean()
        length = np.linalg.norm(values)
        return Dissimilarities(values / length if length > 0 else np.full_like(values, np.nan))

    return prepare


def _correlation(source: Dissimilarities, target: Dissimilarities) -> float:
    return float(source.values @ target.values)


def _rsa(transform: Callable[[np.ndarray], np.ndarray], convention: str, matrix: MatrixForm | None = None) -> Measure:
    return Measure(
        _prepare_ranks(transform),
        _correlation,
        convention,
        value_range=(-1.0, 1.0),
        is_quadratic=True,
        # Pearson correlation of rows takes away each row's own mean: features may be reordered, not turned.
        invariances=frozenset({"permutation", "scaling"}),
        matrix=matrix,
        source=_KRIEGESKORTE,
    )


def _ranks(values: Float[np.ndarray, " pairs"]) -> Float[np.ndarray, " pairs"]:
    from scipy.stats import rankdata  # half a second to import

    # Equal dissimilarities differ by rounding, which is no order.
    return rankdata(values.round(12))


@dataclass(frozen=True)
class Distances:
    """Doubly centered distances, and their mean square."""

    matrix: Float[np.ndarray, "points points"]
    variance: float


def _prepare_distances(rows: Rows) -> Distances:
    matrix = doubly_centered(np.sqrt(squared_distances(rows)))
    return Distances(matrix, float(np.square(matrix).mean()))


def _compare(source: Distances, target: Distances) -> float:
    scale = np.sqrt(source.variance * target.variance)
    covariance = max(float((source.matrix * target.matrix).mean()), 0.0)
    return float(np.sqrt(covariance / scale)) if scale > 0 else float("nan")


MEASURES = {
    "rsa_pearson_rdm_spearman": _rsa(
        _ranks, "1 − Pearson between rows; Spearman between the upper triangles", rank_matrix()
    ),
    "rsa_pearson_rdm_pearson": _rsa(
        lambda values: values, "1 − Pearson between rows; Pearson between the triangles", correlation_matrix()
    ),
    "distance_correlation": Measure(
        _prepare_distances,
        _compare,
        "square root of the biased V-statistic, euclidean distances",
        invariances=frozenset({"rotation", "permutation", "scaling", "translation"}),
        is_quadratic=True,
        matrix=distance_matrix(),
        permute=lambda prepared, order: Distances(prepared.matrix[np.ix_(order, order)], prepared.variance),
        source="Székely, Rizzo, Bakirov (2007), 'Measuring and testing dependence by correlation of distances'",
    ),
}
