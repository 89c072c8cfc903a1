"""Distance correlation: any dependence between two spaces, not only a linear one."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from lfm_tasks.measures.measure import Measure, Rows, squared_distances
from lfm_tasks.statistics.centring import doubly_centred


@dataclass(frozen=True)
class Distances:
    """Doubly centred distances, and their mean square."""

    matrix: Float[np.ndarray, "points points"]
    variance: float


def _prepare(rows: Rows) -> Distances:
    matrix = doubly_centred(np.sqrt(squared_distances(rows)))
    return Distances(matrix, float(np.square(matrix).mean()))


def _compare(source: Distances, target: Distances) -> float:
    scale = np.sqrt(source.variance * target.variance)
    covariance = max(float((source.matrix * target.matrix).mean()), 0.0)
    return float(np.sqrt(covariance / scale)) if scale > 0 else float("nan")


MEASURES = {
    "distance_correlation": Measure(
        _prepare,
        _compare,
        "square root of the biased V-statistic, euclidean distances",
        invariances=frozenset({"rotation", "permutation", "scaling", "translation"}),
        is_quadratic=True,
        permute=lambda prepared, order: Distances(prepared.matrix[np.ix_(order, order)], prepared.variance),
        source="Székely, Rizzo, Bakirov (2007), 'Measuring and testing dependence by correlation of distances'",
    )
}
