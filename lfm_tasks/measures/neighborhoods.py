"""Shared nearest neighbors: how many, which, in what order, and how alike they are weighted."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from lfm_tasks.measures.measure import Invariance, Measure, Rows

N_NEIGHBORS = 10
_ROTATIONS: frozenset[Invariance] = frozenset({"rotation", "permutation", "scaling"})
_BLOCK_ROWS = 1024
# Neighbors beyond which sorting whole rows takes less time than inserting each into a list.
_MOST_INSERTED = 256


@dataclass(frozen=True)
class Neighborhoods:
    """The nearest rows of every row, nearest first, without itself."""

    indices: Int[np.ndarray, "points neighbors"]


@dataclass(frozen=True)
class WeightedNeighborhoods:
    """The nearest rows of every row; their inner products, of unit rows; which are mutual; HSIC₁ with itself."""

    indices: Int[np.ndarray, "points neighbors"]
    products: Float[np.ndarray, "points neighbors"]
    are_mutual: Bool[np.ndarray, "points neighbors"]
    with_itself: float


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
    # A copy: what is kept of a space must not keep its whole graph.
    return Neighborhoods(indices[:, :N_NEIGHBORS].copy())


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
    from lfm_tasks.measures.neighbor_loops import rank_agreement  # numba, which takes .3 s to import

    return min(float(rank_agreement(source.indices, target.indices, _RANK_WEIGHTS, _MOST_AGREEMENT)), 1.0)


def _weighted(rows: Rows) -> WeightedNeighborhoods:
    units, indices = _unit_rows(rows), nearest_by_cosine(rows).indices
    n_points = len(indices)
    products = np.concatenate(
        [
            np.einsum("if,ikf->ik", units[start : start + _BLOCK_ROWS], units[indices[start : start + _BLOCK_ROWS]])
            for start in range(0, n_points, _BLOCK_ROWS)
        ]
    )
    there = n_points * np.arange(n_points)[:, None] + indices
    back = n_points * indices + np.arange(n_points)[:, None]
    weighted = WeightedNeighborhoods(indices, products, np.isin(back, there), 0.0)
    return replace(weighted, with_itself=_hsic(weighted, weighted)[0])


def _cknna(source: WeightedNeighborhoods, target: WeightedNeighborhoods) -> float:
    """Return CKA by HSIC₁ on the pairs that are neighbors in both spaces, over what each has with itself."""
    return _cknna_both_ways(source, target)[0]


def _cknna_both_ways(source: WeightedNeighborhoods, target: WeightedNeighborhoods) -> tuple[float, float]:
    scale = float(np.sqrt(source.with_itself * target.with_itself)) + 1e-6
    there, back = _hsic(source, target)
    return there / scale, back / scale


def _hsic(source: WeightedNeighborhoods, target: WeightedNeighborhoods) -> tuple[float, float]:
    """Return HSIC₁ of both kernels on the pairs that are neighbors in both spaces, and with the two exchanged.

    Neither has a diagonal or needs to be symmetric (Song et al. 2012, equation 5).
    """
    from lfm_tasks.measures.neighbor_loops import shared_sums  # numba, which takes .3 s to import

    n = len(source.indices)
    product, of_source, of_target, there, back = shared_sums(
        source.indices, source.products, source.are_mutual, target.indices, target.products, target.are_mutual
    )
    fixed = product + of_source * of_target / ((n - 1) * (n - 2))
    return (fixed - 2 * there / (n - 2)) / (n * (n - 3)), (fixed - 2 * back / (n - 2)) / (n * (n - 3))


def _permuted_weighted(prepared: WeightedNeighborhoods, order: Int[np.ndarray, " points"]) -> WeightedNeighborhoods:
    """Return the rows in another order: row i is row order[i] of the input."""
    indices = np.argsort(order)[prepared.indices[order]]
    return replace(prepared, indices=indices, products=prepared.products[order], are_mutual=prepared.are_mutual[order])


def _unit_rows(rows: Rows) -> Float[np.ndarray, "points features"]:
    wide = rows.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    return np.divide(wide, lengths, out=np.zeros_like(wide), where=lengths > 0)


def _nearest(
    products: Float[np.ndarray, "block points"], row_indices: Int[np.ndarray, " block"], n_neighbors: int
) -> Int[np.ndarray, "block neighbors"]:
    from lfm_tasks.measures.neighbor_loops import largest_of_rows  # numba, which takes .3 s to import

    if n_neighbors >= products.shape[1]:
        raise ValueError(f"got {n_neighbors} neighbors of {products.shape[1]} points, expected fewer")
    if n_neighbors <= _MOST_INSERTED:
        return np.asarray(largest_of_rows(products, row_indices, n_neighbors))
    products[np.arange(len(row_indices)), row_indices] = -np.inf
    return np.argsort(-products, axis=1, kind="stable")[:, :n_neighbors]


_PLACES = np.arange(N_NEIGHBORS)
_RANK_WEIGHTS = 2 / ((1 + np.abs(_PLACES[:, None] - _PLACES)) * (_PLACES[:, None] + _PLACES + 2))
# Of none, one, … shared neighbors: a point that shares none agrees by 0.
_MOST_AGREEMENT = np.concatenate([[1.0], np.cumsum(1 / (1 + _PLACES))])
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
        neighbors=(N_NEIGHBORS, "angular"),
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
        neighbors=(N_NEIGHBORS, "angular"),
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
        compare_both_ways=_cknna_both_ways,
        smallest_n=N_NEIGHBORS + 2,
        needs_directions=True,
        neighbors=(N_NEIGHBORS, "angular"),
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
        neighbors=(N_NEIGHBORS, "angular"),
        source="Wang et al. (2020), 'Towards understanding the instability of network embedding'",
    ),
}
