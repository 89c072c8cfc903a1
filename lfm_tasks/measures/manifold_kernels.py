"""Manifold-approximated kernel alignment: CKA of kernels on nearest neighbors, each point at its own scale (UMAP's)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int, Shaped

from lfm_tasks.measures.measure import ListForm, Measure, Rows, of_order_one
from lfm_tasks.measures.neighbor_chance import KernelSums, kernel_moments, kernel_sums
from lfm_tasks.measures.neighbor_loops import shared_products
from lfm_tasks.measures.neighborhoods import blocks_of_neighbors, nearest_rows, side_by_side

N_NEIGHBORS = 15
# Steps in which a scale is found, at most; terms exp(-800) are 0.
_MOST_STEPS, _NO_TERM = 60, 800


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
    distances = np.empty(nearest.shape)
    for block in blocks_of_neighbors(nearest, unit.shape[1]):
        steps = unit[nearest[block]] - unit[block, None]
        distances[block] = np.sqrt(np.vecdot(steps, steps))
    beyond = distances - distances.min(axis=1, keepdims=True)
    weights = np.exp(-beyond / _scales(beyond)[:, None])
    indices = np.concatenate([np.arange(n_points)[:, None], nearest], axis=1)
    values = np.concatenate([np.ones((n_points, 1)), weights], axis=1)
    kernel = ManifoldKernel(indices, values, values.sum(axis=1), 0.0)
    itself = float(_products(kernel, _stacked([kernel]), np.arange(1))[0])
    return replace(kernel, norm=float(np.sqrt(max(itself, 0.0))))


def _scales(beyond: Float[np.ndarray, "points neighbors"]) -> Float[np.ndarray, " points"]:
    """Return σ of each point with Σ_j exp(−beyond_ij/σ_i) = log₂ k; tiny where no σ is small enough."""
    k = beyond.shape[1]
    wanted = np.log2(k)
    largest = beyond.max(axis=1)
    # With this σ every term is at least wanted/k; a point whose neighbors are equally far takes any σ.
    high = np.where(largest > 0, largest / np.log(k / wanted), 1.0) if k > 2 else np.where(largest > 0, largest, 1.0)
    # The sum is convex in 1/σ, and too large at first: Newton's steps come nearer from one side.
    inverse = 1 / high
    most = _NO_TERM / np.where(beyond > 0, beyond, np.inf).min(axis=1, initial=np.inf, where=beyond > 0)
    for _ in range(_MOST_STEPS):
        terms = np.exp(-beyond * inverse[:, None])
        slope = np.vecdot(terms, beyond)
        step = np.maximum(terms.sum(axis=1) - wanted, 0) / np.where(slope > 0, slope, 1.0)
        step[slope <= 0] = 0.0
        reached = np.minimum(inverse + step, np.maximum(most, inverse))
        if (reached - inverse <= 4 * np.finfo(float).eps * inverse).all():
            break
        inverse = reached
    return np.asarray(1 / inverse)


@dataclass(frozen=True)
class _StackedKernels:
    """Many kernels, those of one point next to each other."""

    indices: Shaped[np.ndarray, "points spaces neighbors"]
    values: Float[np.ndarray, "points spaces neighbors"]
    sums: Float[np.ndarray, "spaces points"]
    norms: Float[np.ndarray, " spaces"]


def _stacked(kernels: Sequence[ManifoldKernel]) -> _StackedKernels:
    indices, values = (side_by_side([getattr(one, name) for one in kernels]) for name in ("indices", "values"))
    return _StackedKernels(
        indices, values, np.stack([one.sums for one in kernels]), np.array([one.norm for one in kernels])
    )


def _products(
    one: ManifoldKernel, many: _StackedKernels, chosen: Int[np.ndarray, " chosen"]
) -> Float[np.ndarray, " chosen"]:
    """Return ⟨KH, LH⟩ with H = I − 11ᵀ/n: of each row its mean is taken off."""
    both = shared_products(one.indices, one.values, many.indices, many.values, chosen)
    return np.asarray(both - np.vecdot(many.sums[chosen], one.sums) / len(one.sums))


def _alignments(
    one: ManifoldKernel, many: _StackedKernels, chosen: Int[np.ndarray, " chosen"]
) -> Float[np.ndarray, "chosen 2"]:
    norms = one.norm * many.norms[chosen]
    with np.errstate(divide="ignore", invalid="ignore"):
        # Of a kernel whose rows are constant there is no value.
        found = np.where(norms > 0, _products(one, many, chosen) / norms, np.nan)
    return np.repeat(found[:, None], 2, axis=1)


def _alignment(source: ManifoldKernel, target: ManifoldKernel) -> float:
    return float(_alignments(source, _stacked([target]), np.arange(1))[0, 0])


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
        lists=ListForm(kernel_among, _stacked, _alignments, _sums, kernel_moments),
        smallest_n=N_NEIGHBORS + 2,
        neighbors=(N_NEIGHBORS, "euclidean"),
        source="Islam, Liu, Sarkar (2025), 'Manifold approximation leads to robust kernel alignment', arXiv:2510.22953",
    ),
}
