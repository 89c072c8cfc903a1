"""A space as the kernels see it: its activations, its neighbours, its graph, its basis."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.sparse import csr_array

from lfm_tasks.spectral.bases.eigenbasis import Basis, spectral_basis
from lfm_tasks.spectral.bases.graph import Kernel, affinity_graph, join_components
from lfm_tasks.spectral.neighbors.metric import Metric
from lfm_tasks.spectral.neighbors.search import Neighbours, exact_neighbours


@dataclass(frozen=True)
class SpectralSpace:
    """Activations with the neighbours, the graph in one piece and the basis that were made of them."""

    activations: Float[np.ndarray, "points features"]
    neighbours: Neighbours
    graph: csr_array[Any]
    basis: Basis

    def __len__(self) -> int:
        """Return the number of points."""
        return len(self.activations)


def spectral_space(
    activations: Float[np.ndarray, "points features"],
    *,
    n_eigenpairs: int = 50,
    n_neighbors: int | None = None,
    metric: Metric = "angular",
    kernel: Kernel = "inverse",
) -> SpectralSpace:
    """Return the space of ``activations``, its graph joined into one piece.

    The defaults are those for few anchors: a dense graph (`dense_neighbors`) with edges of weight 1/d.

    Raises
    ------
    ReasonError
        ``too_few_points``, ``constant`` or ``zero_rows`` if no such graph or basis exists.

    Examples
    --------
    >>> ring = np.array([[np.cos(angle), np.sin(angle)] for angle in np.arange(12) * np.pi / 6])
    >>> space = spectral_space(ring, n_eigenpairs=3, n_neighbors=2, kernel="binary")
    >>> len(space), space.basis.eigenvalues.round(3).tolist()
    (12, [0.0, 0.134, 0.134])
    """
    neighbours = exact_neighbours(activations, n_neighbors or dense_neighbors(len(activations)), metric=metric)
    graph, _ = join_components(affinity_graph(neighbours, kernel=kernel), activations, metric=metric)
    return SpectralSpace(activations, neighbours, graph, spectral_basis(graph, n_eigenpairs))


def dense_neighbors(n_points: int) -> int:
    """Return a quarter of the points, at most 300: with few anchors sparse graphs fail where dense ones work."""
    return max(1, min(300, n_points // 4))
