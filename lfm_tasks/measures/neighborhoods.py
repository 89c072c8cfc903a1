"""Shared nearest neighbors: how many, which, in what order, and how alike they are weighted."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from lfm_tasks.measures.measure import Invariance, ListForm, Measure, Rows
from lfm_tasks.measures.neighbor_chance import (
    MaskedSums,
    RankSums,
    masked_moments,
    masked_sums,
    rank_moments,
    rank_sums,
)
from lfm_tasks.measures.neighbor_loops import largest_of_rows, mutual_entries, rank_agreements, shared_sums
from lfm_tasks.measures.side_by_side import SideBySide
from lfm_tasks.statistics.permutation_moments import MomentArrays

N_NEIGHBORS = 10
Metric = Literal["angular", "euclidean"]
_ROTATIONS: frozenset[Invariance] = frozenset({"rotation", "permutation", "scaling"})
_BLOCK_ROWS = 1024
# Points below which what `masked_moments` and `rank_moments` leave out can be seen.
_FEWEST_OF_CHANCE = 200
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


def nearest_rows(rows: Rows, n_neighbors: int, metric: Metric) -> Int[np.ndarray, "points neighbors"]:
    """Return the nearest rows of every row, nearest first, without itself, in blocks: memory is points × 1,024.

    Of rows that are equally far, those before others. ``metric``: by direction, or by distance.
    """
    wide = _unit_rows(rows) if metric == "angular" else rows - rows.mean(axis=0, dtype=np.float64)
    # The nearest by distance are those of the largest x·y − ‖y‖²/2.
    offsets = np.zeros(len(wide)) if metric == "angular" else np.vecdot(wide, wide) / 2
    indices = np.empty((len(wide), n_neighbors), dtype=np.int64)
    for start in range(0, len(wide), _BLOCK_ROWS):
        block = slice(start, min(start + _BLOCK_ROWS, len(wide)))
        closeness = wide[block] @ wide.T
        closeness -= offsets
        indices[block] = _nearest(closeness, np.arange(block.start, block.stop), n_neighbors)
    return indices


def nearest_by_cosine(rows: Rows, n_neighbors: int = N_NEIGHBORS) -> Neighborhoods:
    """Return the nearest rows by cosine."""
    return Neighborhoods(nearest_rows(rows, n_neighbors, "angular"))


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
    return float(_rank_similarities(source, SideBySide.of([target], 1), np.arange(1))[0, 0])


def _rank_similarities(
    one: Neighborhoods, many: SideBySide[Neighborhoods], chosen: Int[np.ndarray, " chosen"]
) -> Float[np.ndarray, "chosen 2"]:
    found = rank_agreements(one.indices, many.indices, chosen, _RANK_WEIGHTS, _MOST_AGREEMENT)
    return np.repeat(np.minimum(found, 1.0)[:, None], 2, axis=1)


def _neighbors_only(rows: Rows, indices: Int[np.ndarray, "points neighbors"]) -> Neighborhoods:
    """Return a space of which only the neighbors count."""
    return Neighborhoods(indices)


def _rank_sums(space: Neighborhoods) -> RankSums:
    return rank_sums(space.indices)


def _rank_moments(sources: Sequence[RankSums], targets: Sequence[RankSums], n_points: int) -> MomentArrays:
    return rank_moments(sources, targets, _RANK_WEIGHTS, _MOST_AGREEMENT, n_points)


def _weighted(rows: Rows) -> WeightedNeighborhoods:
    return _weighted_among(rows, nearest_by_cosine(rows).indices)


def _weighted_among(rows: Rows, indices: Int[np.ndarray, "points neighbors"]) -> WeightedNeighborhoods:
    units = _unit_rows(rows)
    products = np.empty(indices.shape)
    for block in _blocks_of_neighbors(indices, units.shape[1]):
        products[block] = np.einsum("if,ikf->ik", units[block], units[indices[block]])
    weighted = WeightedNeighborhoods(indices, products, mutual_entries(indices), 0.0)
    return replace(weighted, with_itself=float(_hsic(weighted, SideBySide.of([weighted], 1), np.arange(1))[0, 0]))


def _cknna(source: WeightedNeighborhoods, target: WeightedNeighborhoods) -> float:
    """Return CKA by HSIC₁ on the pairs that are neighbors in both spaces, over what each has with itself."""
    return _cknna_both_ways(source, target)[0]


def _cknna_both_ways(source: WeightedNeighborhoods, target: WeightedNeighborhoods) -> tuple[float, float]:
    there, back = _cknna_of_many(source, SideBySide.of([target], 1), np.arange(1))[0].tolist()
    return there, back


def _cknna_of_many(
    one: WeightedNeighborhoods, many: SideBySide[WeightedNeighborhoods], chosen: Int[np.ndarray, " chosen"]
) -> Float[np.ndarray, "chosen 2"]:
    scales = np.sqrt(one.with_itself * many.with_itself[chosen]) + 1e-6
    return np.asarray(_hsic(one, many, chosen) / scales[:, None])


def _cknna_sums(space: WeightedNeighborhoods) -> MaskedSums:
    return masked_sums(space.indices, space.products, space.are_mutual, space.with_itself)


def _hsic(
    one: WeightedNeighborhoods, many: SideBySide[WeightedNeighborhoods], chosen: Int[np.ndarray, " chosen"]
) -> Float[np.ndarray, "chosen 2"]:
    """Return HSIC₁ of both kernels on the pairs that are neighbors in both spaces, and with the two exchanged.

    Neither has a diagonal or needs to be symmetric (Song et al. 2012, equation 5).
    """
    n = len(one.indices)
    others = many.indices, many.products, many.are_mutual
    sums = shared_sums(one.indices, one.products, one.are_mutual, *others, chosen)
    product, of_one, of_other = sums[:, 0], sums[:, 1], sums[:, 2]
    fixed = product + of_one * of_other / ((n - 1) * (n - 2))
    return np.asarray((fixed[:, None] - 2 * sums[:, 3:] / (n - 2)) / (n * (n - 3)))


def _permuted_weighted(prepared: WeightedNeighborhoods, order: Int[np.ndarray, " points"]) -> WeightedNeighborhoods:
    """Return the rows in another order: row i is row order[i] of the input."""
    indices = np.argsort(order)[prepared.indices[order]]
    return replace(prepared, indices=indices, products=prepared.products[order], are_mutual=prepared.are_mutual[order])


def _unit_rows(rows: Rows) -> Float[np.ndarray, "points features"]:
    wide = rows.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    return np.divide(wide, lengths, out=np.zeros_like(wide), where=lengths > 0)


def _blocks_of_neighbors(indices: Int[np.ndarray, "points neighbors"], n_features: int) -> Iterator[slice]:
    """Yield runs of points whose neighbors' features are looked at together: 4 million numbers."""
    n_rows = max(1, (1 << 22) // (indices.shape[1] * n_features))
    yield from (slice(start, start + n_rows) for start in range(0, len(indices), n_rows))


def _nearest(
    products: Float[np.ndarray, "block points"], row_indices: Int[np.ndarray, " block"], n_neighbors: int
) -> Int[np.ndarray, "block neighbors"]:
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
        lists=ListForm(_weighted_among, _cknna_of_many, _cknna_sums, masked_moments, _FEWEST_OF_CHANCE),
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
        lists=ListForm(_neighbors_only, _rank_similarities, _rank_sums, _rank_moments, _FEWEST_OF_CHANCE),
        smallest_n=N_NEIGHBORS + 2,
        needs_directions=True,
        neighbors=(N_NEIGHBORS, "angular"),
        source="Wang et al. (2020), 'Towards understanding the instability of network embedding'",
    ),
}
