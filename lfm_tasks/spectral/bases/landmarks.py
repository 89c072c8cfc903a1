"""A basis on landmarks, extended to all other points block by block: activations need not fit into memory."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Shaped
from scipy.linalg import solve_triangular
from scipy.sparse import csr_array

from lfm_tasks.reasons import ReasonError
from lfm_tasks.spectral.bases.eigenbasis import Basis, fix_signs, spectral_basis
from lfm_tasks.spectral.bases.full_map import full_map
from lfm_tasks.spectral.bases.graph import Kernel, affinity_graph, join_components
from lfm_tasks.spectral.bases.map_scores import overlap
from lfm_tasks.spectral.bases.out_of_sample import Sample, as_sample, extend_basis, new_weights
from lfm_tasks.spectral.neighbors.metric import Metric
from lfm_tasks.spectral.neighbors.search import Neighbours

# Part of the convention: ``auto`` keeps every point up to here, and takes so many landmarks beyond (docs/speed.md).
# Never by the memory of a machine, which must not change a number.
AUTO_ABOVE, AUTO_LANDMARKS = 200_000, 20_000


def n_landmarks_of(n_points: int, asked: int | Literal["auto"] | None) -> int | None:
    """Return how many landmarks a space of ``n_points`` gets, or None where every point is in its graph."""
    if asked == "auto":
        return AUTO_LANDMARKS if n_points > AUTO_ABOVE else None
    return asked if asked is not None and asked < n_points else None


@dataclass(frozen=True)
class LandmarkSpace:
    """The graph of the landmarks in one piece, in how many it was, its basis, and the landmarks as others see them."""

    sample: Sample
    graph: csr_array[Any]
    n_components: int
    basis: Basis


def landmark_space(
    activations: Shaped[np.ndarray, "landmarks features"],
    neighbours: Neighbours,
    n_eigenpairs: int,
    *,
    metric: Metric,
    kernel: Kernel,
) -> LandmarkSpace:
    """Return the space of the landmarks, from their neighbours among themselves."""
    graph, n_components = join_components(affinity_graph(neighbours, kernel=kernel), activations, metric=metric)
    sample = as_sample(activations, neighbours, metric=metric, kernel=kernel)
    return LandmarkSpace(sample, graph, n_components, spectral_basis(graph, n_eigenpairs))


def extended(space: LandmarkSpace, activations: Shaped[np.ndarray, "new features"]) -> Float[np.ndarray, "new modes"]:
    """Return the landmarks' eigenvectors on other rows, by Nyström's formula, as if each were one landmark more.

    Memory beside the result: 256 rows in float64, and 9 bytes × 256 × landmarks.
    """
    return extend_basis(space.basis, space.graph, new_weights(activations, space.sample))


def orthonormal(vectors: Float[np.ndarray, "points eigenpairs"]) -> Float[np.ndarray, "points eigenpairs"]:
    """Return orthonormal columns, signs fixed, of which the first k span what the first k of ``vectors`` do.

    Raises
    ------
    ReasonError
        ``inaccurate`` if the columns hardly differ.
    """
    for _ in range(2):  # the second time removes what rounding left of the first
        try:
            factor = np.linalg.cholesky(vectors.T @ vectors)
        except np.linalg.LinAlgError as error:
            found = "the extended eigenvectors hardly differ"
            raise ReasonError("inaccurate", f"{found}: raise graph.landmarks, or lower n_eigenpairs") from error
        vectors = vectors @ solve_triangular(factor, np.eye(len(factor)), lower=True).T
    return fix_signs(vectors)


def agreement_with_half(
    space: LandmarkSpace,
    activations: Shaped[np.ndarray, "landmarks features"],
    neighbours_of_half: Neighbours,
) -> float:
    """Return the overlap, in [0, 1], of the landmarks' basis with that of every other landmark extended to all.

    What halving the landmarks costs tells how far the basis is from that of twice as many; all points are farther.
    """
    sample, n_eigenpairs = space.sample, len(space.basis.eigenvalues)
    half = landmark_space(
        activations[::2], neighbours_of_half, n_eigenpairs, metric=sample.metric, kernel=sample.kernel
    )
    found = np.empty((len(activations), n_eigenpairs))
    found[::2], found[1::2] = half.basis.eigenvectors, extended(half, activations[1::2])
    return float(overlap(full_map(orthonormal(found), space.basis.eigenvectors)))
