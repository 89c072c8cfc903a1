"""Manifold-approximated kernel alignment: CKA of kernels on nearest neighbors, each point at its own scale (UMAP's)."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from lfm_tasks.measures.measure import Measure, Rows, of_order_one

N_NEIGHBORS = 15
# Halvings of the interval that a scale lies in: to the last digits of float64.
_HALVINGS = 60
_BLOCK_ROWS = 1024


@dataclass(frozen=True)
class ManifoldKernel:
    """The kernel of each point on itself and its nearest ones, a row a point; its row sums; its norm, rows centered."""

    indices: Int[np.ndarray, "points neighbors"]
    values: Float[np.ndarray, "points neighbors"]
    sums: Float[np.ndarray, " points"]
    norm: float


def manifold_kernel(rows: Rows, n_neighbors: int = N_NEIGHBORS) -> ManifoldKernel:
    """Return k_ij = exp(−(d_ij − ρ_i)/σ_i) for the nearest j of each i, and k_ii = 1.

    ρ_i is the distance of the nearest point; σ_i is such that Σ_j k_ij = log₂ n_neighbors, the point itself left out.
    Where too many neighbors are as near as the nearest for any σ, they weigh 1 and all others 0.
    """
    n_points = len(rows)
    nearest, distances = _nearest(of_order_one(rows.astype(np.float64)), min(n_neighbors, n_points - 1))
    beyond = distances - distances.min(axis=1, keepdims=True)
    weights = np.exp(-beyond / _scales(beyond)[:, None])
    indices = np.concatenate([np.arange(n_points)[:, None], nearest], axis=1)
    values = np.concatenate([np.ones((n_points, 1)), weights], axis=1)
    kernel = ManifoldKernel(indices, values, values.sum(axis=1), 0.0)
    return replace(kernel, norm=float(np.sqrt(max(_product(kernel, kernel), 0.0))))


def _nearest(
    rows: Float[np.ndarray, "points features"], k: int
) -> tuple[Int[np.ndarray, "points neighbors"], Float[np.ndarray, "points neighbors"]]:
    """Return the k nearest of every row, in no order, and their distances; in blocks: memory is points × 1,024."""
    moved = rows - rows.mean(axis=0)
    squares = np.vecdot(moved, moved)
    nearest, distances = np.empty((len(rows), k), dtype=np.int64), np.empty((len(rows), k))
    for start in range(0, len(rows), _BLOCK_ROWS):
        block = slice(start, min(start + _BLOCK_ROWS, len(rows)))
        squared = np.maximum(squares[block, None] + squares - 2 * (moved[block] @ moved.T), 0)
        squared[np.arange(block.stop - start), np.arange(start, block.stop)] = np.inf
        nearest[block] = np.argpartition(squared, k - 1, axis=1)[:, :k]
        distances[block] = np.sqrt(np.take_along_axis(squared, nearest[block], axis=1))
    return nearest, distances


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


def _product(source: ManifoldKernel, target: ManifoldKernel) -> float:
    """Return ⟨KH, LH⟩ with H = I − 11ᵀ/n: of each row its mean is taken off."""
    from lfm_tasks.measures.neighbor_loops import shared_product  # numba, which takes .3 s to import

    both = shared_product(source.indices, source.values, target.indices, target.values)
    return float(both - source.sums @ target.sums / len(source.sums))


def _alignment(source: ManifoldKernel, target: ManifoldKernel) -> float:
    norms = source.norm * target.norm
    return _product(source, target) / norms if norms > 0 else float("nan")


def _permuted(kernel: ManifoldKernel, order: Int[np.ndarray, " points"]) -> ManifoldKernel:
    """Return the kernel of the same rows in another order: row i is what row order[i] was."""
    indices = np.argsort(order)[kernel.indices[order]]
    return replace(kernel, indices=indices, values=kernel.values[order], sums=kernel.sums[order])


MEASURES = {
    "mka_15": Measure(
        manifold_kernel,
        _alignment,
        "CKA of UMAP's directed weights of the 15 nearest, euclidean, and of the point itself; rows centered",
        value_range=(-1.0, 1.0),
        invariances=frozenset({"rotation", "permutation", "scaling", "translation"}),
        permute=_permuted,
        smallest_n=N_NEIGHBORS + 2,
        neighbors=(N_NEIGHBORS, "euclidean"),
        source="Islam, Liu, Sarkar (2025), 'Manifold approximation leads to robust kernel alignment', arXiv:2510.22953",
    ),
}
