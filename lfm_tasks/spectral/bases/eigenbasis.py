"""The spectral basis of a space: the low eigenvectors of its graph's normalized Laplacian."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int, UInt
from scipy.linalg import cholesky, eigh, solve_triangular
from scipy.sparse import csr_array, diags_array
from scipy.sparse.csgraph import connected_components, reverse_cuthill_mckee
from scipy.sparse.linalg import eigsh

from lfm_tasks.errors import DataError

# Columns of a block; degree of the polynomial. It is odd, so what lies below the damped interval is never large.
_WIDTH, _DEGREE = 8, 5
# Plain block steps that the interval is found with, and how many times the wanted eigenvalues lie above its end.
_SURVEY_STEPS, _ABOVE = 10, 2.5
# Largest residual, in the polynomial's own scale, of the wanted pairs and of the one behind the cut; in the
# matrix's it is some thirty times smaller, and the last one's eigenvalue is off by its square.
_WANTED, _BEHIND = 1e-9, 1e-6
# Columns, in wanted pairs, at the first look and at most; the interval is lowered after so many.
_FIRST, _MOST, _LOWER_AFTER = 2.5, 8, 4


@dataclass(frozen=True)
class _Operator:
    """P = D^(-1) W, which is D^(-1/2) W D^(-1/2) on rows divided by ``root``."""

    starts: Int[np.ndarray, " starts"]
    columns: UInt[np.ndarray, " edges"]
    weights: Float[np.ndarray, " weighted"]
    inverse: Float[np.ndarray, " points"]
    root: Float[np.ndarray, "points 1"]

    def step(
        self, block: np.ndarray, result: np.ndarray, scale: float, block_factor: float, result_factor: float
    ) -> None:
        """Set ``result`` to ``scale P block + own block + old result``."""
        from lfm_tasks.spectral.bases.graph import add_product

        add_product(
            self.starts, self.columns, self.weights, scale * self.inverse, block, result, block_factor, result_factor
        )

    def product(self, vectors: Float[np.ndarray, "points some"]) -> Float[np.ndarray, "points some"]:
        """Return the normalized adjacency times ``vectors``."""
        products = np.empty(vectors.shape)
        for first in range(0, vectors.shape[1], _WIDTH):
            part = vectors[:, first : first + _WIDTH]
            block, result = np.zeros((len(part), _WIDTH)), np.zeros((len(part), _WIDTH))
            block[:, : part.shape[1]] = part / self.root
            self.step(block, result, 1.0, 0.0, 0.0)
            products[:, first : first + _WIDTH] = (result * self.root)[:, : part.shape[1]]
        return products

    def filtered(
        self, block: Float[np.ndarray, "points 8"], interval: tuple[float, float]
    ) -> Float[np.ndarray, "points 8"]:
        """Return the Chebyshev polynomial that is within ±1 on ``interval`` and grows above it."""
        half, middle = (interval[1] - interval[0]) / 2, (interval[1] + interval[0]) / 2
        before, now = block / self.root, np.zeros(block.shape)
        self.step(before, now, 1 / half, -middle / half, 0.0)
        for _ in range(_DEGREE - 1):
            before, now = now, before
            self.step(before, now, 2 / half, -2 * middle / half, -1.0)
        return now * self.root


def filtered_eigenpairs(
    graph: csr_array[Any], n_eigenpairs: int
) -> tuple[Float[np.ndarray, " eigenpairs"], Float[np.ndarray, "points eigenpairs"]] | None:
    """Return the largest eigenpairs of the normalized adjacency, or None if they are not all found for certain.

    A Krylov space of blocks of eight needs few polynomials of a high degree, and its products read a graph once for
    eight columns. The damped interval is guessed from a short survey of the spectrum. It changes the time, never which
    pairs are found: the polynomial grows above it, and pairs count only where it exceeds 1; where too few do, the
    interval is lowered. What a block start might have missed is looked for with a fresh one, orthogonal to all pairs.

    References
    ----------
    Zhou, Saad (2007), "A Chebyshev-Davidson algorithm for large symmetric eigenproblems"; Grimes, Lewis, Simon (1994),
    "A shifted block Lanczos algorithm".
    """
    # Neighbors side by side: what a product reads is then mostly in the cache.
    order = reverse_cuthill_mckee(graph, symmetric_mode=True)
    operator = _operator(graph, order)
    try:
        low, high = _survey(operator, n_eigenpairs)
        for _ in range(3):
            space = _wanted_space(operator, n_eigenpairs, (low, high))
            if space is not None:
                break
            high = (low + high) / 2
        else:
            return None
        products = operator.product(space)
        values, rotation = np.linalg.eigh(space.T @ products)
        vectors = space @ rotation
        complete = _largest_left(operator, vectors, (low, high)) <= values[0] + 1e-8
    except np.linalg.LinAlgError:
        # A block lost its rank: the graph has fewer different eigenvalues than steps.
        return None
    return (values[::-1], vectors[np.argsort(order), ::-1]) if complete else None


def _operator(graph: csr_array[Any], order: Int[np.ndarray, " points"]) -> _Operator:
    degrees = np.asarray(graph.sum(axis=1)).ravel()[order]
    binary = bool((graph.data == 1).all())
    weights = np.ones(graph.nnz, dtype=np.int8) if binary else graph.data.astype(np.float64)
    ordered = csr_array((weights, graph.indices, graph.indptr), shape=graph.shape)[order][:, order]
    return _Operator(
        ordered.indptr.astype(np.int64),
        ordered.indices.astype(np.uint32),
        np.empty(0) if binary else ordered.data,
        1 / degrees,
        np.sqrt(degrees)[:, None],
    )


def _survey(operator: _Operator, n_eigenpairs: int) -> tuple[float, float]:
    """Return the interval to damp: from the smallest Ritz value to where about 2.5 times the wanted lie above.

    Ritz values of a few block steps, each standing for a share of the spectrum as large as its weight in the start.
    """
    n_points = len(operator.inverse)
    block = _orthonormal(np.random.default_rng(1).standard_normal((n_points, _WIDTH)))[0]
    size = _WIDTH * _SURVEY_STEPS
    projected = np.zeros((size + _WIDTH, size + _WIDTH))
    before, factor = np.zeros(block.shape), np.zeros((_WIDTH, _WIDTH))
    for first in range(0, size, _WIDTH):
        product = operator.product(block) - before @ factor.T
        diagonal = block.T @ product
        before, (block, factor) = block, _orthonormal(product - block @ diagonal)
        projected[first : first + _WIDTH, first : first + _WIDTH] = (diagonal + diagonal.T) / 2
        projected[first + _WIDTH : first + 2 * _WIDTH, first : first + _WIDTH] = factor
    values, vectors = np.linalg.eigh(projected[:size, :size])
    shares = np.square(vectors[:_WIDTH, ::-1]).sum(axis=0) * n_points / _WIDTH
    above = np.cumsum(shares) - shares / 2
    return float(values[0]), float(np.interp(_ABOVE * n_eigenpairs, above, values[::-1]))


def _wanted_space(
    operator: _Operator, n_eigenpairs: int, interval: tuple[float, float]
) -> Float[np.ndarray, "points eigenpairs"] | None:
    """Return an orthonormal basis of the wanted eigenvectors; None if the interval reaches too high, or all fails."""
    n_points = len(operator.inverse)
    looks = [-(-int(share * n_eigenpairs) // _WIDTH) for share in (_FIRST, _MOST)]
    n_most = min(looks[1] + 4, n_points // (2 * _WIDTH))
    stride = max(2, looks[0] // 8)
    space = np.empty((n_points, _WIDTH * n_most), order="F")
    projected = np.zeros((_WIDTH * (n_most + 1), _WIDTH * n_most))
    block = _orthonormal(np.random.default_rng(0).standard_normal((n_points, _WIDTH)))[0]
    for index in range(n_most):
        added, size = slice(_WIDTH * index, _WIDTH * (index + 1)), _WIDTH * (index + 1)
        space[:, added] = block
        known, block = space[:, :size], operator.filtered(block, interval)
        # Twice is enough (Parlett), and once is not: the largest eigenvalues are some hundred times the wanted. Nearly
        # all lies along the last two blocks, so the first time those are enough.
        for first in (max(0, size - 2 * _WIDTH), 0):
            coefficients = known[:, first:].T @ block
            projected[first:size, added] += coefficients
            block -= known[:, first:] @ coefficients
        block, factor = _orthonormal(block)
        if index < looks[0] or (index - looks[0]) % stride:
            continue
        values, rotation = np.linalg.eigh(projected[:size, :size], UPLO="U")
        wanted = rotation[:, : -n_eigenpairs - 1 : -1]
        residuals = np.linalg.norm(factor @ wanted[-_WIDTH:], axis=0)
        if values[-n_eigenpairs] > 1 and residuals[:-1].max() <= _WANTED and residuals[-1] <= _BEHIND:
            return known @ wanted
        if values[-n_eigenpairs] <= 1 and size > _LOWER_AFTER * n_eigenpairs:
            return None
    return None


def _largest_left(
    operator: _Operator, vectors: Float[np.ndarray, "points eigenpairs"], interval: tuple[float, float]
) -> float:
    """Return the largest eigenvalue that a fresh block finds beside ``vectors``."""
    block = np.random.default_rng(2).standard_normal((len(vectors), _WIDTH))
    for step in range(3):
        block = operator.filtered(block, interval) if step else block
        block = _orthonormal(block - vectors @ (vectors.T @ block))[0]
    return float(np.linalg.eigvalsh(block.T @ operator.product(block))[-1])


def _orthonormal(
    block: Float[np.ndarray, "points 8"],
) -> tuple[Float[np.ndarray, "points 8"], Float[np.ndarray, "8 8"]]:
    """Return Q with QᵀQ = I and R with ``block`` = QR, by two Cholesky factors."""
    total = np.eye(block.shape[1])
    for _ in range(2):
        factor = cholesky(block.T @ block)
        block = block @ solve_triangular(factor, np.eye(len(factor)))
        total = factor @ total
    return block, total


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
    """Return the first eigenpairs of the normalized Laplacian of ``graph``.

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
    DataError
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
        raise ValueError(f"got n_eigenpairs {n_eigenpairs}, expected at least 1")
    if n_points <= n_eigenpairs:
        raise DataError(
            "too_few_points",
            f"got {n_points} points, expected at least {n_eigenpairs + 1} for {n_eigenpairs} eigenpairs. "
            "Lower n_eigenpairs, or give more points",
        )
    n_components = int(connected_components(graph, directed=False)[0])
    if n_components != 1:
        raise DataError(
            "disconnected",
            f"got a graph of {n_components} components, expected 1. Raise n_neighbors, or join the components first",
        )
    affinities, vectors, solver = _largest(graph, n_eigenpairs + 1)
    eigenvalues = np.clip(1 - affinities, 0, 2)
    return Basis(eigenvalues[:-1], fix_signs(vectors[:, :-1]), float(eigenvalues[-1]), solver)


def basis_quality(graph: csr_array[Any], basis: Basis) -> BasisQuality:
    """Return how well ``basis`` solves the eigenproblem of ``graph``."""
    vectors = basis.eigenvectors
    residuals = vectors - normalized_adjacency(graph) @ vectors - vectors * basis.eigenvalues
    return BasisQuality(
        residual=float(np.linalg.norm(residuals, axis=0).max()),
        orthonormality=float(np.abs(vectors.T @ vectors - np.eye(vectors.shape[1])).max()),
        n_zero_eigenvalues=int(np.count_nonzero(basis.eigenvalues < ZERO)),
        eigengap=float(basis.next_eigenvalue - basis.eigenvalues[-1]),
    )


def normalized_adjacency(graph: csr_array[Any]) -> csr_array[Any]:
    """Return D^(-1/2) W D^(-1/2): the normalized Laplacian is I minus it."""
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
    """Return the largest eigenpairs of the normalized adjacency, and what found them."""
    n_points = graph.shape[0]
    solver = choose_solver(n_points, n_eigenpairs)
    if solver == "filtered":
        if (eigenpairs := filtered_eigenpairs(graph, n_eigenpairs)) is not None:
            return *eigenpairs, solver
        solver = "lanczos after filtered"
    matrix = normalized_adjacency(graph)
    if solver == "dense":
        values, vectors = eigh(matrix.toarray(), subset_by_index=(n_points - n_eigenpairs, n_points - 1))
    else:
        # A fixed start that no symmetry of the points can be orthogonal to; ARPACK's own is random.
        start = np.random.default_rng(0).standard_normal(n_points)
        values, vectors = eigsh(matrix, k=n_eigenpairs, which="LA", v0=start, tol=0)
    order = np.argsort(-values, kind="stable")
    return values[order], vectors[:, order], solver
