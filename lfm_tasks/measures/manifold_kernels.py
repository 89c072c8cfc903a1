"""Manifold-approximated kernel alignment: CKA of kernels on nearest neighbors, each point at its own scale (UMAP's)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from lfm_tasks.measures.measure import Measure, Rows, of_order_one, squared_distances

N_NEIGHBORS = 15
# Halvings of the interval that a scale lies in: to the last digits of float64.
_HALVINGS = 60


@dataclass(frozen=True)
class ManifoldKernel:
    """The kernel of each point on its nearest ones and itself, a row a point; its row sums; its norm, rows centered."""

    matrix: csr_array[Any]
    sums: Float[np.ndarray, " points"]
    norm: float


def manifold_kernel(rows: Rows, n_neighbors: int = N_NEIGHBORS) -> ManifoldKernel:
    """Return k_ij = exp(−(d_ij − ρ_i)/σ_i) for the nearest j of each i, and k_ii = 1.

    ρ_i is the distance of the nearest point; σ_i is such that Σ_j k_ij = log₂ n_neighbors, the point itself left out.
    Where too many neighbors are as near as the nearest for any σ, they weigh 1 and all others 0.
    """
    n_points = len(rows)
    k = min(n_neighbors, n_points - 1)
    squared = squared_distances(of_order_one(rows.astype(np.float64)))
    np.fill_diagonal(squared, np.inf)
    nearest = np.argpartition(squared, k - 1, axis=1)[:, :k]
    distances = np.sqrt(np.take_along_axis(squared, nearest, axis=1))
    beyond = distances - distances.min(axis=1, keepdims=True)
    weights = np.exp(-beyond / _scales(beyond)[:, None])
    indices = np.concatenate([np.arange(n_points)[:, None], nearest], axis=1)
    values = np.concatenate([np.ones((n_points, 1)), weights], axis=1)
    matrix = csr_array((values.ravel(), indices.ravel(), (k + 1) * np.arange(n_points + 1)), shape=(n_points, n_points))
    sums = values.sum(axis=1)
    return ManifoldKernel(matrix, sums, float(np.sqrt(max(_product(matrix, sums, matrix, sums), 0.0))))


def _scales(beyond: Float[np.ndarray, "points neighbors"]) -> Float[np.ndarray, " points"]:
    """Return σ of each point with Σ_j exp(−beyond_ij/σ_i) = log₂ k, by halving; tiny where no σ is small enough."""
    k = beyond.shape[1]
    wanted = np.log2(k)
    largest = beyond.max(axis=1)
    # With this σ every term is at least wanted/k; a point whose neighbors are equally far takes any σ.
    high = np.where(largest > 0, largest / np.log(k / wanted), 1.0) if k > 2 else np.where(largest > 0, largest, 1.0)
    low = np.zeros_like(high)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        is_small = np.exp(-beyond / middle[:, None]).sum(axis=1) < wanted
        low, high = np.where(is_small, middle, low), np.where(is_small, high, middle)
    return high


def _product(
    source: csr_array[Any],
    source_sums: Float[np.ndarray, " points"],
    target: csr_array[Any],
    target_sums: Float[np.ndarray, " points"],
) -> float:
    """Return ⟨KH, LH⟩ with H = I − 11ᵀ/n: of each row its mean is taken off."""
    return float(source.multiply(target).sum() - source_sums @ target_sums / source.shape[0])


def _alignment(source: ManifoldKernel, target: ManifoldKernel) -> float:
    norms = source.norm * target.norm
    product = _product(source.matrix, source.sums, target.matrix, target.sums)
    return product / norms if norms > 0 else float("nan")


def _permuted(kernel: ManifoldKernel, order: Int[np.ndarray, " points"]) -> ManifoldKernel:
    """Return the kernel of the same rows in another order: row i is what row order[i] was."""
    return ManifoldKernel(kernel.matrix[order][:, order], kernel.sums[order], kernel.norm)


MEASURES = {
    "mka_15": Measure(
        manifold_kernel,
        _alignment,
        "CKA of UMAP's directed weights of the 15 nearest, euclidean, and of the point itself; rows centered",
        value_range=(-1.0, 1.0),
        invariances=frozenset({"rotation", "permutation", "scaling", "translation"}),
        permute=_permuted,
        smallest_n=N_NEIGHBORS + 2,
        source="Islam, Liu, Sarkar (2025), 'Manifold approximation leads to robust kernel alignment', arXiv:2510.22953",
    ),
}
