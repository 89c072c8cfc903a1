"""Shared nearest neighbors: how many, which, in what order, and how alike they are weighted."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from lfm_tasks.measures.measure import Invariance, Measure, Rows

N_NEIGHBORS = 10
_ROTATIONS: frozenset[Invariance] = frozenset({"rotation", "permutation", "scaling"})
_BLOCK_ROWS = 1024


@dataclass(frozen=True)
class Neighborhoods:
    """The nearest rows of every row, nearest first, without itself."""

    indices: Int[np.ndarray, "points neighbors"]


@dataclass(frozen=True)
class WeightedNeighborhoods:
    """Inner products of unit rows, each with its nearest ones; and which pairs these are: 1 where there is one."""

    products: csr_array
    mask: csr_array


def nearest_by_cosine(rows: Rows, n_neighbors: int = N_NEIGHBORS) -> Neighborhoods:
    """Return the nearest rows by cosine, in blocks: memory is points × 1,024."""
    units = _unit_rows(rows)
    indices = np.empty((len(units), n_neighbors), dtype=np.int64)
    for start in range(0, len(units), _BLOCK_ROWS):
        block = slice(start, min(start + _BLOCK_ROWS, len(units)))
        indices[block] = _nearest(units[block] @ units.T, np.arange(block.start, block.stop), n_neighbors)
    return Neighborhoods(indices)


def of_graph(indices: Int[np.ndarray, "points neighbors"]) -> Neighborhoods:
    """Return the first ten of neighbors that are there already, nearest first."""
    return Neighborhoods(indices[:, :N_NEIGHBORS])


def neighbors_among(
    indices: Int[np.ndarray, "points neighbors"], kept: Int[np.ndarray, " kept"], n_neighbors: int = N_NEIGHBORS
) -> Int[np.ndarray, "kept nearest"] | None:
    """Return the nearest neighbors among some of the points, numbered among these; None if too few are known.

    What remains of the nearest of all points is the nearest of the points that remain.
    """
    place = np.full(len(indices), -1)
    place[kept] = np.arange(len(kept))
    left = place[indices[kept]]
    present = left >= 0
    if indices.shape[1] < n_neighbors or present.sum(axis=1).min() < n_neighbors:
        return None
    first = np.argsort(~present, axis=1, kind="stable")[:, :n_neighbors]
    return np.take_along_axis(left, first, axis=1)


def permuted_neighborhoods(neighborhoods: Neighborhoods, order: Int[np.ndarray, " points"]) -> Neighborhoods:
    """Return the neighbors of the same rows in another order: row i is what row order[i] was."""
    return Neighborhoods(np.argsort(order)[neighborhoods.indices[order]])


def shared_counts(source: Neighborhoods, target: Neighborhoods) -> Int[np.ndarray, " points"]:
    """Return how many neighbors every point has in both spaces."""
    n_points = len(source.indices)
    offsets = n_points * np.arange(n_points)[:, None]
    shared = np.intersect1d(source.indices + offsets, target.indices + offsets, assume_unique=True)
    return np.bincount(shared // n_points, minlength=n_points)


def mutual_knn(source: Neighborhoods, target: Neighborhoods) -> float:
    """Return the mean share of a point's neighbors that it has in both spaces; chance is k/(n − 1)."""
    return float(shared_counts(source, target).mean() / source.indices.shape[1])


def _jaccard(source: Neighborhoods, target: Neighborhoods) -> float:
    shared = shared_counts(source, target)
    return float((shared / (2 * source.indices.shape[1] - shared)).mean())


def _rank_similarity(source: Neighborhoods, target: Neighborhoods) -> float:
    """Return Σ 2/((1 + |r − r'|)(r + r')) over shared neighbors, ranks r from 1, over its largest value; mean."""
    is_same = source.indices[:, :, None] == target.indices[:, None, :]
    r, s = np.arange(source.indices.shape[1])[:, None], np.arange(target.indices.shape[1])
    agreement = (is_same * (2 / ((1 + np.abs(r - s)) * (r + s + 2)))).sum(axis=(1, 2))
    most = np.concatenate([[1.0], np.cumsum(1 / np.arange(1, source.indices.shape[1] + 1))])
    return min(float((agreement / most[is_same.sum(axis=(1, 2))]).mean()), 1.0)


def _weighted(rows: Rows) -> WeightedNeighborhoods:
    units, indices = _unit_rows(rows), nearest_by_cosine(rows).indices
    n_points, n_neighbors = indices.shape
    values = np.concatenate(
        [
            np.einsum("if,ikf->ik", units[start : start + _BLOCK_ROWS], units[indices[start : start + _BLOCK_ROWS]])
            for start in range(0, n_points, _BLOCK_ROWS)
        ]
    ).ravel()
    places = indices.ravel(), n_neighbors * np.arange(n_points + 1)
    # Pairs whose product is 0 are neighbors, too.
    products, mask = (csr_array((of, *places), shape=(n_points, n_points)) for of in (values, np.ones_like(values)))
    return WeightedNeighborhoods(products, mask)


def _cknna(source: WeightedNeighborhoods, target: WeightedNeighborhoods) -> float:
    """Return CKA by HSIC₁ on the pairs that are neighbors in both spaces, over what each has with itself."""
    cross = _hsic(source.products.multiply(target.mask), target.products.multiply(source.mask))
    with_itself = [_hsic(side.products, side.products) for side in (source, target)]
    return cross / (float(np.sqrt(with_itself[0] * with_itself[1])) + 1e-6)


def _hsic(first: csr_array, second: csr_array) -> float:
    """Return HSIC₁ of two kernels without a diagonal that need not be symmetric (Song et al. 2012, equation 5)."""
    n = first.shape[0]
    product = float(first.multiply(second.T).sum()) + float(first.sum() * second.sum()) / ((n - 1) * (n - 2))
    # The sum of all entries of their matrix product.
    both = float(first.sum(axis=0) @ second.sum(axis=1))
    return (product - 2 * both / (n - 2)) / (n * (n - 3))


def _permuted_weighted(prepared: WeightedNeighborhoods, order: Int[np.ndarray, " points"]) -> WeightedNeighborhoods:
    """Return the rows in another order: row i is row order[i] of the input."""
    products, mask = (of[order][:, order] for of in (prepared.products, prepared.mask))
    return WeightedNeighborhoods(products, mask)


def _unit_rows(rows: Rows) -> Float[np.ndarray, "points features"]:
    wide = rows.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    return np.divide(wide, lengths, out=np.zeros_like(wide), where=lengths > 0)


def _nearest(
    products: Float[np.ndarray, "block points"], row_indices: Int[np.ndarray, " block"], n_neighbors: int
) -> Int[np.ndarray, "block neighbors"]:
    products[np.arange(len(row_indices)), row_indices] = -np.inf
    chosen = np.argpartition(-products, n_neighbors - 1, axis=1)[:, :n_neighbors]
    order = np.argsort(-np.take_along_axis(products, chosen, axis=1), axis=1, kind="stable")
    return np.take_along_axis(chosen, order, axis=1)


_COUNTS = np.arange(N_NEIGHBORS + 1)

MEASURES = {
    "mutual_knn_10_cosine": Measure(
        nearest_by_cosine,
        mutual_knn,
        "share of the 10 nearest by cosine, the point itself excluded, that are common",
        of_shared_neighbors=_COUNTS / N_NEIGHBORS,
        invariances=_ROTATIONS,
        permute=permuted_neighborhoods,
        of_cosine_neighbors=of_graph,
        smallest_n=N_NEIGHBORS + 2,
        needs_directions=True,
        source="Huh et al. (2024), 'The Platonic representation hypothesis', appendix A",
    ),
    "jaccard_knn_10_cosine": Measure(
        nearest_by_cosine,
        _jaccard,
        "common over united neighbors, 10 nearest by cosine",
        of_shared_neighbors=_COUNTS / (2 * N_NEIGHBORS - _COUNTS),
        invariances=_ROTATIONS,
        permute=permuted_neighborhoods,
        of_cosine_neighbors=of_graph,
        smallest_n=N_NEIGHBORS + 2,
        needs_directions=True,
        source="Schumacher et al. (2021), 'The effects of randomness on the stability of node embeddings'",
    ),
    "cknna_10_l2": Measure(
        _weighted,
        _cknna,
        "CKA (HSIC₁) of unit rows on pairs among the 10 nearest in both, denominator + 1e-6; not quite symmetric",
        is_symmetric=False,
        value_range=(-1.0, 1.0),
        invariances=_ROTATIONS,
        permute=_permuted_weighted,
        smallest_n=N_NEIGHBORS + 2,
        needs_directions=True,
        source="Huh et al. (2024), 'The Platonic representation hypothesis', appendix A",
    ),
    "rank_similarity_10": Measure(
        nearest_by_cosine,
        _rank_similarity,
        "agreement of the ranks of common neighbors, 10 nearest by cosine",
        invariances=_ROTATIONS,
        permute=permuted_neighborhoods,
        of_cosine_neighbors=of_graph,
        smallest_n=N_NEIGHBORS + 2,
        needs_directions=True,
        source="Wang et al. (2020), 'Towards understanding the instability of network embedding'",
    ),
}
