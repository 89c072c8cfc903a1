"""The spectral basis of a space: the low eigenvectors of its graph's normalised Laplacian."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from scipy.linalg import eigh
from scipy.sparse import csr_array, diags_array
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import eigsh

from lfm_tasks.reasons import ReasonError
from lfm_tasks.spectral.bases.chebyshev_lanczos import filtered_eigenpairs

# Below this size the dense solver is as fast, and it cannot miss an eigenvalue.
_DENSE_BELOW = 400
# From so many points on compiled block products pay for their start; up to so many their blocks fit in memory.
_FILTERED_FROM, _FILTERED_TO = 5_000, 200_000
# An eigenvalue counts as 0 below this.
ZERO = 1e-8


Solver = Literal["dense", "lanczos", "filtered", "lanczos after filtered"]


@dataclass(frozen=True)
class Basis:
    """Eigenvalues in [0, 2], ascending; unit-length eigenvectors, largest entry positive; the next eigenvalue.

    ``solver`` is what found them, None where that is not known.
    """

    eigenvalues: Float[np.ndarray, " eigenpairs"]
    eigenvectors: Float[np.ndarray, "points eigenpairs"]
    next_eigenvalue: float
    solver: Solver | None = None


@dataclass(frozen=True)
class BasisQuality:
    """How well a basis solves its problem: largest |Lv − λv|, largest |ΦᵀΦ − I|, eigenvalues at 0, gap at the cut."""

    residual: float
    orthonormality: float
    n_zero_eigenvalues: int
    eigengap: float


def spectral_basis(graph: csr_array[Any], n_eigenpairs: int) -> Basis:
    """Return the first eigenpairs of the normalised Laplacian of ``graph``.

    Solves ``L v = λ v`` with ``L = I − D^(-1/2) W D^(-1/2)``, so every λ lies in [0, 2]. They are the algebraically
    largest of ``D^(-1/2) W D^(-1/2)``: ordering by magnitude would mix in the highest frequencies. The start vector is
    fixed, and so are the signs. From 5,000 points on by `filtered_eigenpairs`, by Lanczos where that is not certain.

    Parameters
    ----------
    graph
        Symmetric edge weights ``W``, all ≥ 0, connected.
    n_eigenpairs
        How many to keep, the one of eigenvalue 0 included; 1 ≤ n_eigenpairs < points.

    Raises
    ------
    ReasonError
        ``disconnected`` if the graph falls apart, ``too_few_points`` if it has no more points than eigenpairs.

    Examples
    --------
    The ring of four points has the eigenvalues 1 − cos(2πj/4):

    >>> ring = csr_array(np.roll(np.eye(4), 1, axis=0) + np.roll(np.eye(4), -1, axis=0))
    >>> spectral_basis(ring, 3).eigenvalues.round(6).tolist()
    [0.0, 1.0, 1.0]

    References
    ----------
    von Luxburg (2007), "A tutorial on spectral clustering", section 3.2.
    """
    n_points = graph.shape[0]
    if n_eigenpairs < 1:
        raise ValueError(f"n_eigenpairs is {n_eigenpairs}, needs at least 1")
    if n_points <= n_eigenpairs:
        raise ReasonError(
            "too_few_points",
            f"found {n_points} points, {n_eigenpairs} eigenpairs need at least {n_eigenpairs + 1}: "
            "lower n_eigenpairs, or give more points",
        )
    n_components = int(connected_components(graph, directed=False)[0])
    if n_components != 1:
        raise ReasonError(
            "disconnected",
            f"graph has {n_components} components, needs 1: raise n_neighbors, or join the components first",
        )
    affinities, vectors, solver = _largest(graph, n_eigenpairs + 1)
    eigenvalues = np.clip(1 - affinities, 0, 2)
    return Basis(eigenvalues[:-1], fix_signs(vectors[:, :-1]), float(eigenvalues[-1]), solver)


def basis_quality(graph: csr_array[Any], basis: Basis) -> BasisQuality:
    """Return how well ``basis`` solves the eigenproblem of ``graph``."""
    vectors = basis.eigenvectors
    residuals = vectors - normalised_adjacency(graph) @ vectors - vectors * basis.eigenvalues
    return BasisQuality(
        residual=float(np.linalg.norm(residuals, axis=0).max()),
        orthonormality=float(np.abs(vectors.T @ vectors - np.eye(vectors.shape[1])).max()),
        n_zero_eigenvalues=int(np.count_nonzero(basis.eigenvalues < ZERO)),
        eigengap=float(basis.next_eigenvalue - basis.eigenvalues[-1]),
    )


def normalised_adjacency(graph: csr_array[Any]) -> csr_array[Any]:
    """Return D^(-1/2) W D^(-1/2): the normalised Laplacian is I minus it."""
    scale = diags_array(1 / np.sqrt(np.asarray(graph.sum(axis=1)).ravel()))
    return csr_array(scale @ graph @ scale)


def fix_signs(vectors: Float[np.ndarray, "points eigenpairs"]) -> Float[np.ndarray, "points eigenpairs"]:
    """Return the vectors with their largest entry positive; near-ties (1e-6) are broken by the lowest row."""
    magnitudes = np.abs(vectors)
    decisive = (magnitudes >= (1 - 1e-6) * magnitudes.max(axis=0)).argmax(axis=0)
    signs = np.sign(vectors[decisive, np.arange(vectors.shape[1])])
    return vectors * signs


def choose_solver(n_points: int, n_eigenpairs: int) -> Solver:
    """Return how so many eigenpairs are found: a table of the convention, never measured on the spot (docs/speed.md).

    ``dense`` below 400 points and from half of all pairs on; ``filtered`` from 5,000 to 200,000 points if they are ten
    times the pairs; else ``lanczos``.
    """
    if n_points < _DENSE_BELOW or n_eigenpairs >= n_points // 2:
        return "dense"
    if _FILTERED_FROM <= n_points <= _FILTERED_TO and n_points >= 10 * n_eigenpairs:
        return "filtered"
    return "lanczos"


def _largest(
    graph: csr_array[Any], n_eigenpairs: int
) -> tuple[Float[np.ndarray, " eigenpairs"], Float[np.ndarray, "points eigenpairs"], Solver]:
    """Return the largest eigenpairs of the normalised adjacency, and what found them."""
    n_points = graph.shape[0]
    solver = choose_solver(n_points, n_eigenpairs)
    if solver == "filtered":
        if (found := filtered_eigenpairs(graph, n_eigenpairs)) is not None:
            return *found, solver
        solver = "lanczos after filtered"
    matrix = normalised_adjacency(graph)
    if solver == "dense":
        values, vectors = eigh(matrix.toarray(), subset_by_index=(n_points - n_eigenpairs, n_points - 1))
    else:
        # A fixed start that no symmetry of the points can be orthogonal to; ARPACK's own is random.
        start = np.random.default_rng(0).standard_normal(n_points)
        values, vectors = eigsh(matrix, k=n_eigenpairs, which="LA", v0=start, tol=0)
    order = np.argsort(-values, kind="stable")
    return values[order], vectors[:, order], solver
