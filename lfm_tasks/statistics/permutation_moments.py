"""Exact moments of tr(A P B Pᵀ) over all permutations P, and the p-value of one: no permutation is drawn.

``overlap`` is such a trace, with A = Φ_xΦ_xᵀ and B = Φ_yΦ_yᵀ, and so is the numerator of linear CKA, with centered Gram
matrices. A moment is a sum over ways in which indices coincide (set partitions); what one space contributes to it is
computed once and serves every partner.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import permutations
from math import factorial, prod

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array

from lfm_tasks.statistics.far_tails import Spectra
from lfm_tasks.statistics.resampling import FAR, FEW_DRAWS, Exchange, upper_share, value_below

_ORDERS = (1, 2, 3)
# Six indices of a product of third order must be able to differ.
FEWEST_POINTS = 6
_BLOCK_ROWS = 1024

# A set partition as the block of every index, numbered in order of appearance.
Partition = tuple[int, ...]


@dataclass(frozen=True)
class Profile:
    """One side of the moments: for every order and partition, the sums of ∏ A over index tuples that coincide by it."""

    n_points: int
    sums: Float[np.ndarray, " partitions"]


@dataclass(frozen=True)
class Moments:
    """Mean, standard deviation and skewness over all n! permutations."""

    mean: float
    deviation: float
    skewness: float


def permutation_profile(rows: Float[np.ndarray, "points features"]) -> Profile:
    """Return the profile of A = F Fᵀ; min(n²d/2, nd³/3) products once a space, memory n × 1,024 or d².

    Needs at least 6 points, so that six indices can be distinct.
    """
    n_points = len(rows)
    if n_points < FEWEST_POINTS:
        raise ValueError(f"got {n_points} points, expected at least {FEWEST_POINTS} for exact moments")
    return Profile(n_points, np.concatenate(_distinct_sums(_graph_sums(rows.astype(np.float64)))))


@dataclass(frozen=True)
class GraphSums:
    """Sums over a symmetric A, from which the moments of its pairs follow.

    The diagonal d, row sums r, row sums of squares q; dᵀAd, dᵀAr, rᵀAr; ``cubes`` ΣA³ entrywise, ``triangles`` tr A³.
    """

    d: Float[np.ndarray, " points"]
    r: Float[np.ndarray, " points"]
    q: Float[np.ndarray, " points"]
    d_d: float
    d_r: float
    r_r: float
    cubes: float
    triangles: float

    def by_shape(self) -> dict[tuple[tuple[int, int], ...], float]:
        """Return the sum of every connected multigraph of up to three edges."""
        d, r, q = self.d, self.r, self.q
        sums = {
            ((1, 0),): d.sum(),
            ((0, 1), (0, 1)): r.sum(),
            ((2, 0),): (d**2).sum(),
            ((0, 1), (1, 1)): d @ r,
            ((0, 2), (0, 2)): q.sum(),
            ((0, 1), (0, 1), (0, 2)): r @ r,
            ((3, 0),): (d**3).sum(),
            ((0, 1), (2, 1)): d**2 @ r,
            ((1, 1), (1, 1)): self.d_d,
            ((0, 2), (1, 2)): d @ q,
            ((0, 1), (0, 1), (1, 2)): d @ r**2,
            ((0, 1), (0, 2), (1, 1)): self.d_r,
            ((0, 3), (0, 3)): self.cubes,
            ((0, 1), (0, 2), (0, 3)): q @ r,
            ((0, 2), (0, 2), (0, 2)): self.triangles,
            ((0, 1), (0, 1), (0, 1), (0, 3)): (r**3).sum(),
            ((0, 1), (0, 1), (0, 2), (0, 2)): self.r_r,
        }
        return {shape: float(value) for shape, value in sums.items()}


def moment_sums(graphs: GraphSums) -> Float[np.ndarray, " partitions"]:
    """Return the contribution of one symmetric matrix to the moments of all its pairs, as one array."""
    return np.concatenate(_distinct_sums(graphs.by_shape()))


def directed_moment_sums(matrix: csr_array) -> Float[np.ndarray, " partitions"]:
    """Return `moment_sums` of a matrix that need not be symmetric.

    For sparse matrices with an empty diagonal, of which products are cheap.
    """
    graphs = _DirectedGraphs(matrix)
    return np.concatenate(
        [
            distinct_from_free(order)
            @ np.array([graphs.free_sum(partition) for partition in set_partitions(2 * order)])
            for order in _ORDERS
        ]
    )


def symmetric_moment_sums(matrix: csr_array) -> Float[np.ndarray, " partitions"]:
    """Return `moment_sums` of a sparse symmetric matrix with an empty diagonal."""
    n_points = matrix.shape[0]
    squared = matrix * matrix
    r, q = matrix @ np.ones(n_points), squared @ np.ones(n_points)
    cubes, triangles = float((squared * matrix).sum()), float(((matrix @ matrix) * matrix).sum())
    return moment_sums(GraphSums(np.zeros(n_points), r, q, 0.0, 0.0, float(r @ (matrix @ r)), cubes, triangles))


# The edges of a directed multigraph.
_Edges = tuple[tuple[int, int], ...]


@lru_cache(maxsize=1024)
def _connected_pieces(partition: Partition) -> tuple[_Edges, ...]:
    """Return the connected pieces of the graph of a partition, numbered so that like pieces are equal."""
    pieces = []
    for piece in _pieces(partition):
        vertices = sorted({v for edge in piece for v in edge})
        # Numbered in every way: the smallest says which graph it is.
        named = (
            tuple(sorted((numbers[vertices.index(a)], numbers[vertices.index(b)]) for a, b in piece))
            for numbers in permutations(range(len(vertices)))
        )
        pieces.append(min(named))
    return tuple(pieces)


class _DirectedGraphs:
    """Sums over directed multigraphs of up to three edges: leaves are taken off, one triangle is a product."""

    def __init__(self, matrix: csr_array) -> None:
        self._matrix, self._transposed = matrix.tocsr(), matrix.T.tocsr()
        self._known: dict[tuple[tuple[int, int], ...], float] = {}

    def free_sum(self, partition: Partition) -> float:
        """Return the product over connected pieces."""
        if any(partition[2 * e] == partition[2 * e + 1] for e in range(len(partition) // 2)):
            return 0.0
        total = 1.0
        for piece in _connected_pieces(partition):
            if piece not in self._known:
                self._known[piece] = self._sum(piece)
            total *= self._known[piece]
        return total

    def _sum(self, edges: tuple[tuple[int, int], ...]) -> float:
        weights = {v: np.ones(self._matrix.shape[0]) for edge in edges for v in edge}
        between: dict[tuple[int, int], list[int]] = {}
        for a, b in edges:
            between.setdefault((min(a, b), max(a, b)), [0, 0])[0 if a < b else 1] += 1
        while leaves := [v for v in weights if sum(v in pair for pair in between) == 1]:
            leaf = leaves[0]
            pair = next(pair for pair in between if leaf in pair)
            matrix = self._power(*between.pop(pair))
            low, high = pair
            weights[low if leaf == high else high] *= (matrix if leaf == high else matrix.T) @ weights.pop(leaf)
        if not between:
            return float(np.prod([weight.sum() for weight in weights.values()]))
        first, second, third = (self._power(*between[pair]) for pair in ((0, 1), (1, 2), (0, 2)))
        return float(((first @ second) * third).sum())

    def _power(self, forward: int, backward: int) -> csr_array:
        """Return the entrywise product of so many of the matrix and so many of its transpose."""
        factors = [self._matrix] * forward + [self._transposed] * backward
        product = factors[0]
        for factor in factors[1:]:
            product = product * factor
        return product.tocsr()


@dataclass(frozen=True)
class CommonFactor:
    """Deviation and skewness of a factor of mean 1 that multiplies every singular value, or correlation, of a pair.

    One permutation of the points has one factor.
    """

    deviation: float
    skewness: float


NO_FACTOR = CommonFactor(0.0, 0.0)


@dataclass(frozen=True)
class MomentArrays:
    """Mean, standard deviation and skewness over all n! permutations, of many pairs.

    ``spectra``: what far tails follow from; None where the three moments have to do. ``n_draws``: how many draws the
    moments are of if these are few, so that the tail is that of a Student's t; else 0.
    """

    mean: Float[np.ndarray, "*pairs"]
    deviation: Float[np.ndarray, "*pairs"]
    skewness: Float[np.ndarray, "*pairs"]
    spectra: Spectra | None = None
    n_draws: Int[np.ndarray, "*pairs"] | None = None

    def of(self, places: tuple[Int[np.ndarray, " some"], ...]) -> "MomentArrays":
        """Return the moments of some of the pairs."""
        spectra = None if self.spectra is None else self.spectra.of(places)
        n_draws = None if self.n_draws is None else self.n_draws[places]
        return MomentArrays(self.mean[places], self.deviation[places], self.skewness[places], spectra, n_draws)

    def scaled(self, factor: float) -> "MomentArrays":
        """Return the moments of ``factor`` > 0 times the statistic."""
        spectra = None if self.spectra is None else self.spectra.scaled(factor)
        return MomentArrays(factor * self.mean, factor * self.deviation, self.skewness, spectra, self.n_draws)

    @staticmethod
    def of_draws(drawn: Float[np.ndarray, "draws pairs"], factor: CommonFactor = NO_FACTOR) -> "MomentArrays":
        """Return the moments of what was drawn times a factor: of a few draws, no better than these know them."""
        mean = drawn.mean(axis=0)
        steps, by_factor = drawn - mean, mean * factor.deviation
        deviation = np.sqrt(np.square(steps).mean(axis=0) + by_factor**2)
        are_few = len(drawn) <= FEW_DRAWS
        is_spread = deviation > 1e-9 * np.abs(mean)
        third = by_factor**3 * factor.skewness
        if len(drawn) >= _FEWEST_FOR_SKEWNESS:
            third = third + (steps**3).mean(axis=0)
        skewness = third / np.where(is_spread, deviation, 1) ** 3 * is_spread
        return MomentArrays(mean, deviation, skewness, n_draws=np.full(mean.shape, len(drawn) if are_few else 0))

    def are_far(self, found: Float[np.ndarray, "*pairs"]) -> bool:
        """Return whether all lie 10 (1 + skewness) deviations beyond the mean, 10 if the skewness is not positive."""
        least = FAR * self.deviation * (1 + np.maximum(self.skewness, 0))
        return bool((np.abs(found - self.mean) > least).all())

    @staticmethod
    def together(moments: Sequence["MomentArrays | None"]) -> "MomentArrays":
        """Return the moments of pairs, none of which has spectra, as one; NaN where there are none."""
        none = np.array([np.nan])
        mean, deviation, skewness = (
            np.concatenate([none if one is None else getattr(one, name) for one in moments])
            for name in ("mean", "deviation", "skewness")
        )
        n_draws = [np.zeros(1, int) if one is None or one.n_draws is None else one.n_draws for one in moments]
        return MomentArrays(mean, deviation, skewness, n_draws=np.concatenate(n_draws))


# Draws from which on their skewness is known better (to .12) than that of a normal curve would be wrong.
_FEWEST_FOR_SKEWNESS = 400

# Product of the concentrations of two matrices, over the points, above which moments say too little of the tail; sooner
# where they are not those of all permutations: the third one within strata, those of rotations.
_MOST_CONCENTRATED, _MOST_CONCENTRATED_ROUGHLY = 0.3, 0.1


def concentration(row_energies: Float[np.ndarray, " points"]) -> float:
    """Return n Σq²/(Σq)² of the sums of squares q of a matrix's rows: 1 for all alike, n for one point alone."""
    total = float(row_energies.sum())
    return len(row_energies) * float(row_energies @ row_energies) / total**2 if total > 0 else 1.0


def row_energies(rows: Float[np.ndarray, "points features"]) -> Float[np.ndarray, " points"]:
    """Return the sums of squares of the rows of X Xᵀ, X the centered rows."""
    moved = rows - rows.mean(axis=0)
    return np.asarray(np.vecdot(moved @ (moved.T @ moved.copy()), moved))


def are_concentrated(
    sources: Float[np.ndarray, "*pairs"], targets: Float[np.ndarray, "*pairs"], n_points: int, *, is_exact: bool
) -> Bool[np.ndarray, "*pairs"]:
    """Return whether both matrices of a pair, by their `concentration`, have most of their energy in few points.

    What a permutation scores then depends on whether these few meet: no curve of moments holds for it. ``is_exact``:
    whether moments are those of all permutations.
    """
    most = _MOST_CONCENTRATED if is_exact else _MOST_CONCENTRATED_ROUGHLY
    return np.asarray(sources * targets > most * n_points)


def live_on_few_units(
    source: Float[np.ndarray, " points"], target: Float[np.ndarray, " points"], exchange: Exchange
) -> bool:
    """Return whether two spaces `are_concentrated`, by their `row_energies`, on few of what changes places.

    Few permutations then say too little, however far a score lies beyond them: in none of them may the few have met.
    """
    source, target = exchange.by_unit(source), exchange.by_unit(target)
    spreads = np.array(concentration(source)), np.array(concentration(target))
    return bool(are_concentrated(*spreads, len(source), is_exact=False))


def moments_of_pairs(
    sources: Float[np.ndarray, "sources partitions"], targets: Float[np.ndarray, "targets partitions"], n_points: int
) -> MomentArrays:
    """Return the moments of Σ A_ij B_π(i)π(j) of every source with every target, from their `moment_sums`."""
    rows = [moments_of_aligned(one[None], targets, n_points) for one in sources]
    mean, deviation, skewness = (
        np.stack([getattr(row, name) for row in rows]) for name in ("mean", "deviation", "skewness")
    )
    return MomentArrays(mean, deviation, skewness)


def moments_of_aligned(
    sources: Float[np.ndarray, "#pairs partitions"], targets: Float[np.ndarray, "#pairs partitions"], n_points: int
) -> MomentArrays:
    """Return the moments of `moments_of_pairs` of each source with the target beside it."""
    edges = np.cumsum([0, *(len(set_partitions(2 * order)) for order in _ORDERS)])
    raw = []
    for order, start, stop in zip(_ORDERS, edges, edges[1:], strict=False):
        # Sum by sum, not as a matrix product: its last bits would depend on how many pairs there are.
        products = sources[:, start:stop] * targets[:, start:stop]
        raw.append((products / arrangements(order, n_points)).sum(axis=1))
    mean = raw[0]
    variance = np.maximum(raw[1] - mean**2, 0.0)
    third = raw[2] - 3 * mean * raw[1] + 2 * mean**3
    with np.errstate(divide="ignore", invalid="ignore"):
        skewness = np.where(variance > 1e-10 * mean**2, third / variance**1.5, 0.0)
    return MomentArrays(mean, np.sqrt(variance), np.nan_to_num(skewness))


@lru_cache(maxsize=256)
def arrangements(order: int, n_points: int) -> Float[np.ndarray, " partitions"]:
    """Return n (n − 1) … (n − b + 1) for the b blocks of each partition; not to be written to."""
    blocks = [max(partition) + 1 for partition in set_partitions(2 * order)]
    found = np.array([prod(n_points - k for k in range(n_blocks)) for n_blocks in blocks], dtype=float)
    found.flags.writeable = False
    return found


def permutation_moments(source: Profile, target: Profile) -> Moments:
    """Return the moments of tr(A P B Pᵀ) = ‖F_yᵀ P F_x‖² over uniformly drawn permutations.

    E Tʳ = Σ over partitions of 2r indices into b blocks of D_A D_B/(n (n − 1) … (n − b + 1)), D the sums over distinct
    indices.

    References
    ----------
    Kazi-Aoual et al. (1995), "Refined approximations to permutation tests for multivariate inference", for the centered
    case; the sums over partitions by Möbius inversion hold for any A.
    """
    if source.n_points != target.n_points:
        raise ValueError(f"got {source.n_points} and {target.n_points} points, expected the same points")
    moments = moments_of_pairs(source.sums[None], target.sums[None], source.n_points)
    return Moments(float(moments.mean[0, 0]), float(moments.deviation[0, 0]), float(moments.skewness[0, 0]))


def upper_tail(moments: Moments, value: float) -> float:
    """Return P(T ≥ value) by Pearson's type III curve with these moments; resolves far smaller p than permutations.

    Never 0. An approximation: within a few percent of the truth in the upper tail, less good near the median of very
    skewed traces (a few points that dominate all others).
    """
    if moments.deviation == 0:
        return 1.0
    tail = upper_share((value - moments.mean) / moments.deviation, moments.skewness)
    return max(tail, float(np.finfo(np.float64).tiny))


def upper_quantile(moments: Moments, probability: float) -> float:
    """Return the value that a share 1 − ``probability`` of the permutations exceeds, by the curve of `upper_tail`."""
    return float(moments.mean + moments.deviation * value_below(probability, moments.skewness))


@cache
def set_partitions(n_indices: int) -> tuple[Partition, ...]:
    """Return all set partitions of indices: 2, 15 and 203 of 2, 4 and 6."""

    def grow(partial: list[int]) -> Iterator[Partition]:
        if len(partial) == n_indices:
            yield tuple(partial)
            return
        for block in range(max(partial, default=-1) + 2):
            yield from grow([*partial, block])

    return tuple(grow([]))


@cache
def distinct_from_free(order: int) -> Float[np.ndarray, "partitions partitions"]:
    """Return the matrix that takes sums over free values of the blocks to sums over distinct values.

    Blocks that may coincide are merged in every way, with the Möbius coefficient ∏ (−1)^(m − 1) (m − 1)!, m blocks made
    one.
    """
    partitions = set_partitions(2 * order)
    place = {partition: index for index, partition in enumerate(partitions)}
    matrix = np.zeros((len(partitions),) * 2)
    for row, partition in enumerate(partitions):
        for merge in set_partitions(max(partition) + 1):
            sign = prod((-1) ** (int(m) - 1) * factorial(int(m) - 1) for m in np.bincount(merge))
            matrix[row, place[_numbered([merge[block] for block in partition])]] += sign
    return matrix


def _distinct_sums(graphs: dict[tuple[tuple[int, int], ...], float]) -> tuple[Float[np.ndarray, " _"], ...]:
    """Return, for each order, the sums over index tuples that coincide by each partition, and in no other way."""
    return tuple(
        distinct_from_free(order) @ np.array([_free_sum(partition, graphs) for partition in set_partitions(2 * order)])
        for order in _ORDERS
    )


def _numbered(blocks: Sequence[int]) -> Partition:
    first: dict[int, int] = {}
    return tuple(first.setdefault(block, len(first)) for block in blocks)


def _free_sum(partition: Partition, graphs: dict[tuple[tuple[int, int], ...], float]) -> float:
    """Return Σ ∏ A[block of i_l, block of j_l] over all values of the blocks: a product over connected pieces."""
    return prod(graphs[shape] for shape in _shapes(partition))


@lru_cache(maxsize=1024)
def _shapes(partition: Partition) -> tuple[tuple[tuple[int, int], ...], ...]:
    """Return the shapes of the connected pieces of the graph of a partition."""
    return tuple(_shape(piece) for piece in _pieces(partition))


def _pieces(partition: Partition) -> Iterator[list[tuple[int, ...]]]:
    """Yield the connected pieces of the graph of a partition, as edges from and to the blocks that a pair lies in."""
    edges = [partition[2 * e : 2 * e + 2] for e in range(len(partition) // 2)]
    while edges:
        piece, rest = [edges[0]], edges[1:]
        while joined := [edge for edge in rest if set(edge) & {v for e in piece for v in e}]:
            piece += joined
            rest = [edge for edge in rest if edge not in joined]
        yield piece
        edges = rest


def _shape(edges: list[tuple[int, ...]]) -> tuple[tuple[int, int], ...]:
    """Return the shape of a connected multigraph of up to three edges: (loops, other ends) of each vertex, sorted."""
    ends: dict[int, list[int]] = {}
    for first, second in edges:
        ends.setdefault(first, [0, 0])
        ends.setdefault(second, [0, 0])
        if first == second:
            ends[first][0] += 1
        else:
            ends[first][1] += 1
            ends[second][1] += 1
    return tuple(sorted((loops, others) for loops, others in ends.values()))


def _graph_sums(rows: Float[np.ndarray, "points features"]) -> dict[tuple[tuple[int, int], ...], float]:
    """Return the sum of every connected multigraph of up to three edges over A = F Fᵀ.

    With d the diagonal, r the row sums and q the row sums of squares of A, all but ΣA³ come from F and FᵀF.
    """
    gram = rows.T @ rows
    d = np.einsum("ij,ij->i", rows, rows)
    r = rows @ rows.sum(axis=0)
    q = np.einsum("ij,jk,ik->i", rows, gram, rows, optimize=True)
    d_f, r_f = d @ rows, r @ rows
    triangles = float(np.trace(gram @ gram @ gram))
    sums = GraphSums(d, r, q, float(d_f @ d_f), float(d_f @ r_f), float(r_f @ r_f), _sum_of_cubes(rows), triangles)
    return sums.by_shape()


def _sum_of_cubes(rows: Float[np.ndarray, "points features"]) -> float:
    """Return Σ_ij A_ij³: over all pairs of points, or as ‖Σ_i f_i ⊗ f_i ⊗ f_i‖² where that is less work."""
    n_points, n_features = rows.shape
    starts = range(0, n_points, _BLOCK_ROWS)
    total = 0.0
    if 3 * n_points < 2 * n_features**2:
        for start in starts:
            products = rows[start : start + _BLOCK_ROWS] @ rows[start:].T
            cubes = products * products * products
            diagonal_cubes = cubes[:, :_BLOCK_ROWS].sum()
            total += float(2 * cubes.sum() - diagonal_cubes)
        return total
    for first in range(n_features):
        # What of the tensor has ``first`` as its lowest index, which may stand in three places.
        slab = np.zeros((n_features - first,) * 2)
        for start in starts:
            block = rows[start : start + _BLOCK_ROWS, first:]
            slab += (block * block[:, :1]).T @ block
        squares = np.square(slab)
        total += float(3 * (squares[1:, 1:].sum() + squares[0, 1:].sum()) + squares[0, 0])
    return total


def doubly_centered(matrix: Float[np.ndarray, "points points"]) -> Float[np.ndarray, "points points"]:
    """Return HMH: row and column means taken away."""
    return matrix - matrix.mean(axis=0) - matrix.mean(axis=1, keepdims=True) + matrix.mean()
