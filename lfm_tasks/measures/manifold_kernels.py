"""Manifold-approximated kernel alignment: CKA of kernels on nearest neighbors, each point at its own scale (UMAP's)."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from lfm_tasks.measures.measure import ListForm, Measure, Rows, of_order_one
from lfm_tasks.measures.neighbor_chance import KernelSums, kernel_moments, kernel_sums
from lfm_tasks.measures.neighbor_loops import manifold_weights, shared_products
from lfm_tasks.measures.neighborhoods import nearest_rows
from lfm_tasks.measures.side_by_side import SideBySide

N_NEIGHBORS = 15


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
    unit = of_order_one(rows.astype(np.float64))
    return kernel_among(unit, nearest_rows(unit, min(n_neighbors, len(rows) - 1), "euclidean"))


def kernel_among(rows: Rows, nearest: Int[np.ndarray, "points neighbors"]) -> ManifoldKernel:
    """Return the `manifold_kernel` of rows whose nearest points are known."""
    n_points, unit = len(rows), of_order_one(rows.astype(np.float64))
    weights = manifold_weights(unit, nearest, np.log2(nearest.shape[1]))
    indices = np.concatenate([np.arange(n_points)[:, None], nearest], axis=1)
    values = np.concatenate([np.ones((n_points, 1)), weights], axis=1)
    kernel = ManifoldKernel(indices, values, values.sum(axis=1), 0.0)
    itself = float(_products(kernel, SideBySide.of([kernel], 1), np.arange(1))[0])
    return replace(kernel, norm=float(np.sqrt(max(itself, 0.0))))


def _products(
    one: ManifoldKernel, many: SideBySide[ManifoldKernel], chosen: Int[np.ndarray, " chosen"]
) -> Float[np.ndarray, " chosen"]:
    """Return ⟨KH, LH⟩ with H = I − 11ᵀ/n: of each row its mean is taken off."""
    both = shared_products(one.indices, one.values, many.indices, many.values, chosen)
    return np.asarray(both - np.vecdot(many.sums[chosen], one.sums) / len(one.sums))


def _alignments(
    one: ManifoldKernel, many: SideBySide[ManifoldKernel], chosen: Int[np.ndarray, " chosen"]
) -> Float[np.ndarray, "chosen 2"]:
    norms = one.norm * many.norm[chosen]
    with np.errstate(divide="ignore", invalid="ignore"):
        # Of a kernel whose rows are constant there is no value.
        found = np.where(norms > 0, _products(one, many, chosen) / norms, np.nan)
    return np.repeat(found[:, None], 2, axis=1)


def _alignment(source: ManifoldKernel, target: ManifoldKernel) -> float:
    return float(_alignments(source, SideBySide.of([target], 1), np.arange(1))[0, 0])


def _sums(kernel: ManifoldKernel) -> KernelSums:
    # Beside the diagonal, which is the first entry of each row.
    return kernel_sums(kernel.indices[:, 1:], kernel.values[:, 1:], kernel.sums, kernel.norm)


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
        lists=ListForm(kernel_among, _alignments, _sums, kernel_moments),
        smallest_n=N_NEIGHBORS + 2,
        neighbors=(N_NEIGHBORS, "euclidean"),
        source="Islam, Liu, Sarkar (2025), 'Manifold approximation leads to robust kernel alignment', arXiv:2510.22953",
    ),
}
