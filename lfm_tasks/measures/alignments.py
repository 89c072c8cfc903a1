"""Measures that align directions or features of two spaces one by one: PWCCA, matching of features.

They need more than the sum of singular values that `cross_covariances` takes: singular vectors, or all correlations.
Every set of points (all, a half) needs only sums over classes of points of one product of two spaces. Chance comes from
random rotations, as there. Of matching, correlations under rotations are given the skewness and kurtosis that they have
under permutations of points: without, the largest of rectified features are too small (by .1 to 1 deviation of chance).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from cachetools import LRUCache, cached
from jaxtyping import Float

from lfm_tasks.measures.assignment import largest_assigned_means
from lfm_tasks.measures.cross_covariances import (
    MOST_LEVERAGE,
    Columns,
    Spread,
    columns_of,
    directions_of_set,
    live_on_few,
    random_corners,
    runs_of_rotations,
    span,
    spread_of,
    unevenness_of,
)
from lfm_tasks.measures.point_sets import PointSets, centered
from lfm_tasks.statistics.permutation_moments import concentration, row_energies

Rows = Float[np.ndarray, "points features"]
Corners = Float[np.ndarray, "products target source"]


@dataclass(frozen=True)
class AlignedSpace:
    """The contribution of one space to its pairs.

    Parameters
    ----------
    columns
        Columns that are multiplied with those of the other space: a centered orthonormal basis, or features less their
        medians, of unit length once centered.
    transforms
        By set: what makes its columns orthonormal there (rank, directions), or the inverse length of each feature.
    loads
        By set: the inner products of orthonormal directions with the features (directions, features); for matching, of
        all points only.
    spread
        How evenly points share what the columns, or for PWCCA the features, add.
    weight_of_points
        The largest share in the value of a direction, or feature, in which one row stands out (leverage above .3).
    cumulants
        The skewness and the excess kurtosis of features, 0 of normal ones; for matching only.
    """

    columns: Columns
    transforms: tuple[Float[np.ndarray, "..."], ...]
    loads: tuple[Float[np.ndarray, "_ features"], ...]
    spread: Spread
    weight_of_points: float
    cumulants: Float[np.ndarray, "2 features"] = field(default_factory=lambda: np.zeros((2, 0)))

    @cached_property
    def energies(self) -> Float[np.ndarray, " points"]:
        """The `row_energies` of the rows, points in the order of cells."""
        return row_energies(self.columns.rows)

    @cached_property
    def narrow_loads(self) -> Float[np.ndarray, "directions features"]:
        """The loads of all points in single precision, which is enough for what chance gives."""
        return self.loads[0].astype(np.float32)

    @cached_property
    def narrow_rows(self) -> Float[np.ndarray, "points columns"]:
        """The centered rows in single precision, which is enough for what permutations give."""
        return centered(self.columns.rows).astype(np.float32)

    @property
    def rank(self) -> int:
        """How many columns there are."""
        return self.columns.inside.shape[1]


@dataclass(frozen=True)
class AlignmentForm:
    """How a measure follows from a product of two spaces on a set of points.

    Parameters
    ----------
    prepare
        Prepares one space.
    compare
        Returns the values from the source to the target, and back, of each product (target columns, source columns) on
        the set of points that has this place.
    by_rotations
        Returns these values for the random rotations of so many points from one number to another.
    has_rotations
        Whether values under rotations of so many points are distributed as those under permutations, approximately.
    by_permutations
        Returns the value, the same both ways, of each product of unit columns of all points. Chance comes from
        permutations where that of rotations is another; without it, the measure's own function draws them.
    """

    prepare: Callable[[Rows, PointSets], AlignedSpace]
    compare: Callable[[Corners, AlignedSpace, AlignedSpace, Sequence[int]], Float[np.ndarray, "products 2"]]
    by_rotations: Callable[[int, AlignedSpace, AlignedSpace, tuple[int, int]], Float[np.ndarray, "draws 2"]]
    has_rotations: Callable[[int, AlignedSpace, AlignedSpace], bool]
    by_permutations: Callable[[Corners], Float[np.ndarray, " products"]] | None = None


def permuted_products(
    source: Float[np.ndarray, "points source"],
    targets: Float[np.ndarray, "points permuted_target"],
    n_permutations: int,
) -> Float[np.ndarray, "permutations target source"]:
    """Return the products of two spaces; ``targets``: the second under so many permutations, side by side."""
    return np.asarray((targets.T @ source).reshape(n_permutations, -1, source.shape[1]))


# PWCCA: Σ w_i ρ_i/Σ w_i, w_i = Σ_j |⟨h_i, x_j⟩| over the source's canonical variates h_i.


def _prepare_weighted(rows: Rows, sets: PointSets) -> AlignedSpace:
    space = span(rows, sets)
    basis, moved = space.columns.rows, centered(rows)
    # The features in the coordinates of the basis: U (Uᵀ X), X centered on all points.
    features = basis.T @ moved[sets.order]
    transforms, loads = [np.eye(len(features))], [features]
    for place in range(1, sets.n_sets):
        lengths, directions = directions_of_set(space, place, sets)
        transforms.append(directions / lengths)
        # ⟨h, x_j⟩ on a set: Zᵀ X there, Z = U V L⁻¹ less its mean, where U has the singular values L and vectors V.
        loads.append(lengths[:, None] * (directions.T @ features))
    spread = replace(spread_of(basis, np.ones(len(features))), concentration=concentration(row_energies(moved)))
    weight = _weight_of_points(basis, features)
    return AlignedSpace(space.columns, tuple(transforms), tuple(loads), spread, weight)


def _weight_of_points(basis: Float[np.ndarray, "points rank"], loads: Float[np.ndarray, "rank features"]) -> float:
    """Return the share of the heaviest direction that a point has nearly to itself in the weights of all directions."""
    leverages = np.vecdot(basis, basis)
    alone = basis[leverages - leverages.mean() > MOST_LEVERAGE]
    directions = alone / np.linalg.norm(alone, axis=1, keepdims=True)
    heaviest = np.abs(directions @ loads).sum(axis=1).max(initial=0.0)
    return float(max(heaviest, np.finfo(float).tiny) / np.abs(loads).sum())


def _projection_weighted(
    products: Corners, source: AlignedSpace, target: AlignedSpace, places: Sequence[int]
) -> Float[np.ndarray, "products 2"]:
    values = np.full((len(products), 2), np.nan)
    ours, theirs = ([space.transforms[place] for place in places] for space in (source, target))
    # Directions of a half that are not there are missing: those of like sizes together, mostly all.
    sizes = [(first.shape[1], second.shape[1]) for first, second in zip(ours, theirs, strict=True)]
    for size in dict.fromkeys(sizes):
        if min(size) == 0:
            continue
        some = [index for index, other in enumerate(sizes) if other == size]
        to_source, to_target = (np.stack([transforms[index] for index in some]) for transforms in (ours, theirs))
        crossed = np.swapaxes(to_target, 1, 2) @ products[some] @ to_source
        target_directions, correlations, source_directions = principal_directions(crossed)
        of_source, of_target = (np.stack([space.loads[places[index]] for index in some]) for space in (source, target))
        values[some, 0] = _weighted(correlations, source_directions, of_source)
        values[some, 1] = _weighted(correlations, target_directions, of_target)
    return values


# Correlation, relative to the largest, below which directions from squares of correlations would lose digits.
_SMALL = 1e-5


def principal_directions(
    crossed: Corners,
) -> tuple[
    Float[np.ndarray, "products pairs target"],
    Float[np.ndarray, "products pairs"],
    Float[np.ndarray, "products pairs source"],
]:
    """Return the singular vectors, as rows, and values of products: by their squares, half the time of an SVD."""
    is_tall = crossed.shape[1] >= crossed.shape[2]
    wide = np.swapaxes(crossed, 1, 2) if is_tall else crossed
    squares, directions = np.linalg.eigh(wide @ np.swapaxes(wide, 1, 2).copy())
    is_rough = ~(squares[:, 0] > _SMALL**2 * squares[:, -1])
    values, ours = np.sqrt(np.maximum(squares, 0)), np.swapaxes(directions, 1, 2)
    theirs = ours @ wide / np.where(is_rough[:, None], 1, values)[:, :, None]
    if is_rough.any():
        left, values[is_rough], theirs[is_rough] = np.linalg.svd(wide[is_rough], full_matrices=False)
        ours = np.array(ours)
        ours[is_rough] = np.swapaxes(left, 1, 2)
    return (theirs, values, ours) if is_tall else (ours, values, theirs)


def _weighted(
    correlations: Float[np.ndarray, "*draws pairs"],
    directions: Float[np.ndarray, "*draws pairs rank"],
    loads: Float[np.ndarray, "*any rank features"],
) -> Float[np.ndarray, "*draws"]:
    weights = np.abs(directions @ loads).sum(axis=-1)
    return np.asarray(np.vecdot(weights, np.clip(correlations, 0, 1)) / weights.sum(axis=-1))


@dataclass(frozen=True)
class _Rotations:
    """Singular vectors, as rows, and values of corners of some random rotations."""

    theirs: Float[np.ndarray, "rotations pairs target"]
    correlations: Float[np.ndarray, "rotations pairs"]
    ours: Float[np.ndarray, "rotations pairs source"]

    @property
    def nbytes(self) -> int:
        return self.theirs.nbytes + self.correlations.nbytes + self.ours.nbytes


@cached(LRUCache(64 << 20, getsizeof=lambda rotations: rotations.nbytes))
def _rotations(n_points: int, n_source: int, n_target: int, numbers: tuple[int, int]) -> _Rotations:
    left, correlations, ours = np.linalg.svd(random_corners(n_points, n_source, n_target, numbers), full_matrices=False)
    theirs = np.ascontiguousarray(np.swapaxes(left, 1, 2), dtype=np.float32)
    return _Rotations(theirs, correlations, ours.astype(np.float32))


def _projection_weighted_by_rotations(
    n_points: int, source: AlignedSpace, target: AlignedSpace, numbers: tuple[int, int]
) -> Float[np.ndarray, "draws 2"]:
    values = []
    for some in runs_of_rotations(source.rank, target.rank, *numbers):
        made = _rotations(n_points, source.rank, target.rank, some)
        there = _weighted(made.correlations, made.ours, source.narrow_loads)
        back = _weighted(made.correlations, made.theirs, target.narrow_loads)
        values.append(np.stack([there, back], axis=1))
    return np.concatenate(values)


def _are_spread(n_points: int, source: AlignedSpace, target: AlignedSpace) -> bool:
    return not live_on_few(source.spread, target.spread, n_points)


PROJECTION_WEIGHTED = AlignmentForm(
    _prepare_weighted, _projection_weighted, _projection_weighted_by_rotations, _are_spread
)


# Matching of features by their correlations.


def unit_features(rows: Rows) -> Float[np.ndarray, "points features"]:
    """Return centered features of unit length; those that are constant but for rounding are zero."""
    moved = centered(rows)
    lengths = np.linalg.norm(moved, axis=0)
    return np.divide(moved, lengths, out=np.zeros_like(moved), where=lengths > 0)


def mean_of_best(correlations: Float[np.ndarray, "*products target source"]) -> Float[np.ndarray, "*products"]:
    """Return the mean of each feature's largest correlation, and of both sides."""
    of_target, of_source = (correlations.max(axis=axis).mean(axis=-1, dtype=float) for axis in (-1, -2))
    return np.asarray((of_target + of_source) / 2)


def mean_of_matched(correlations: Float[np.ndarray, "*products target source"]) -> Float[np.ndarray, "*products"]:
    """Return the mean correlation of features matched one to one, their sum as large as can be."""
    *outer, n_target, n_source = correlations.shape
    return largest_assigned_means(correlations.reshape(-1, n_target, n_source)).reshape(outer)


def _prepare_features(rows: Rows, sets: PointSets) -> AlignedSpace:
    # Less the median: a far point would take the mean with it, and what is left of the others would be rounding.
    lengths = np.linalg.norm(centered(rows), axis=0)
    wide = rows.astype(np.float64)
    columns = np.divide(wide - np.median(wide, axis=0), lengths, out=np.zeros_like(wide), where=lengths > 0)[sets.order]
    inverses = []
    for points in sets.points:
        lengths = np.linalg.norm(centered(columns[points]), axis=0)
        inverses.append(np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0))
    moved = centered(columns)
    products = moved.T @ moved.copy()
    squares, directions = np.linalg.eigh(products)
    loads = np.sqrt(np.maximum(squares, 0))[:, None] * directions.T
    spread = _spread_of_features(moved, products)
    weight, cumulants = 1 / max(1, moved.shape[1]), _cumulants(moved)
    return AlignedSpace(columns_of(columns, sets), tuple(inverses), (loads,), spread, weight, cumulants)


# Deviations of a feature beyond which a point stands out in it.
_STANDS_OUT = 5.5


def _spread_of_features(
    columns: Float[np.ndarray, "points features"], products: Float[np.ndarray, "features features"]
) -> Spread:
    """Return the spread of centered columns of unit length; a point's leverage: its share in those it stands out in."""
    squares, n_alive = np.square(columns), max(float(products.trace()), 1.0)
    stands_out = squares > min(MOST_LEVERAGE, _STANDS_OUT**2 / len(columns))
    leverages = np.sort(np.where(stands_out, squares, 0).sum(axis=1))[::-1]
    energies = np.vecdot(columns @ products, columns)
    return Spread(
        concentration(energies),
        leverages[leverages > 0],
        *unevenness_of(squares.sum(axis=1)),
        float(2 * np.square(products).sum() / n_alive**2),
    )


def _cumulants(columns: Float[np.ndarray, "points features"]) -> Float[np.ndarray, "2 features"]:
    """Return the skewness and the excess kurtosis of centered columns of unit length, or zero."""
    n_points, squares = len(columns), np.square(columns)
    skewness = np.sqrt(n_points) * np.einsum("ij,ij->j", squares, columns)
    kurtosis = n_points * np.square(squares).sum(axis=0) - 3
    return np.stack([skewness, np.where(squares.any(axis=0), kurtosis, 0)])


# Of all pairs of features that are not constant, the root mean square of the skewness, and of the excess kurtosis, of
# their correlation over permutations above which the expansion does not hold; and points below which it does not, since
# correlations of few have few values. Below these limits means were within .2 deviations of 1,000 permutations for some
# 50 kinds of made data, and deviations within 10 %. At a kurtosis of .5 they were off by 1 and by a half, with 14 to 50
# points by .4 and by a quarter.
_MOST_SKEWNESS, _MOST_KURTOSIS, _FEWEST_POINTS = 0.3, 0.1, 100


def _has_correlations_by_rotations(n_points: int, source: AlignedSpace, target: AlignedSpace) -> bool:
    if n_points < max(_FEWEST_POINTS, source.rank + 1, target.rank + 1):
        return False
    (skew_source, kurtosis_source), (skew_target, kurtosis_target) = (
        np.sqrt(np.square(space.cumulants).sum(axis=1) / max(1, np.count_nonzero(space.cumulants[1])))
        for space in (source, target)
    )
    is_even = bool(skew_source * skew_target <= _MOST_SKEWNESS * np.sqrt(n_points))
    is_even &= bool(kurtosis_source * kurtosis_target <= _MOST_KURTOSIS * n_points)
    return is_even and not live_on_few(source.spread, target.spread, n_points)


def _correlations_by_rotations(
    n_points: int, source: AlignedSpace, target: AlignedSpace, numbers: tuple[int, int]
) -> Float[np.ndarray, "draws target source"]:
    """Return correlations of features under random rotations, with the third and fourth moments of permutations.

    Cornish and Fisher (1938), "Moments and cumulants in the specification of distributions": of a standard normal z,
    z + (z² − 1) γ/6 + (z³ − 3z) κ/24 − (2z³ − 5z) γ²/36 has the skewness γ and the excess kurtosis κ, if these are
    small. A correlation x·Py of unit columns has γ = γₓ γᵧ/√n and κ = κₓ κᵧ/n over permutations P, to first order.
    """
    scale = np.float32(np.sqrt(n_points - 1))
    corners = _narrow_corners(n_points, source.rank, target.rank, numbers)
    z = target.narrow_loads.T @ (corners @ (scale * source.narrow_loads))
    (skew_source, kurtosis_source), (skew_target, kurtosis_target) = source.cumulants, target.cumulants
    gamma = (np.outer(skew_target, skew_source) / np.sqrt(n_points)).astype(np.float32)
    kappa = (np.outer(kurtosis_target, kurtosis_source) / n_points).astype(np.float32)
    # The same polynomial, by powers of z.
    cubic = kappa / 24 - gamma**2 / 18
    linear = 1 - kappa / 8 + gamma**2 * np.float32(5 / 36)
    squares = np.square(z)
    found = squares * cubic
    found += linear
    found *= z
    squares -= 1
    squares *= gamma / 6
    found += squares
    found /= scale
    return found


@cached(LRUCache(64 << 20, getsizeof=lambda corners: corners.nbytes))
def _narrow_corners(
    n_points: int, n_source: int, n_target: int, numbers: tuple[int, int]
) -> Float[np.ndarray, "some target source"]:
    return random_corners(n_points, n_source, n_target, numbers).astype(np.float32)


def matching(of_correlations: Callable[[Corners], Float[np.ndarray, " products"]]) -> AlignmentForm:
    """Return the form of a measure of the correlations of all features of two spaces."""

    def compare(
        products: Corners, source: AlignedSpace, target: AlignedSpace, places: Sequence[int]
    ) -> Float[np.ndarray, "products 2"]:
        ours, theirs = (np.stack([space.transforms[place] for place in places]) for space in (source, target))
        correlations = theirs[:, :, None] * products
        correlations *= ours[:, None, :]
        values = of_correlations(np.clip(correlations, -1, 1, out=correlations))
        return np.stack([values, values], axis=1)

    def by_rotations(
        n_points: int, source: AlignedSpace, target: AlignedSpace, numbers: tuple[int, int]
    ) -> Float[np.ndarray, "draws 2"]:
        runs = runs_of_rotations(source.rank, target.rank, *numbers)
        drawn = [of_correlations(_correlations_by_rotations(n_points, source, target, some)) for some in runs]
        return np.repeat(np.concatenate(drawn)[:, None], 2, axis=1)

    return AlignmentForm(_prepare_features, compare, by_rotations, _has_correlations_by_rotations, of_correlations)
