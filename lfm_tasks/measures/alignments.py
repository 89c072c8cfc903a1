"""Measures that align directions or features of two spaces one by one: PWCCA, matching of features.

They need more than the sum of singular values that `cross_covariances` takes: singular vectors, or all correlations.
Every set of points (all, a half) needs only sums over classes of points of one product of two spaces. The chance of
PWCCA comes from random rotations, as there. That of matching comes from permutations: the largest correlations of
features that few points have are larger than those of rotations (by .7 deviations for rectified features).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy  # its parts are imported when they are first used
from cachetools import LRUCache, cached
from jaxtyping import Float, Int

from lfm_tasks.measures.cross_covariances import (
    MOST_LEVERAGE,
    CrossForm,
    Spread,
    corners_from,
    set_transforms,
    span,
    spread_of,
)
from lfm_tasks.measures.point_matrices import PointSets, centered
from lfm_tasks.statistics.permutation_moments import MomentArrays, concentration, row_energies
from lfm_tasks.statistics.resampling import FAR, FEW_DRAWS

Rows = Float[np.ndarray, "points features"]
Corner = Float[np.ndarray, "target source"]


@dataclass(frozen=True)
class AlignedSpace:
    """The contribution of one space to its pairs.

    Parameters
    ----------
    rows
        Columns that are multiplied with those of the other space: a centered orthonormal basis, or unit features less
        their medians; points in the order of cells.
    sums
        Their sums by class of points.
    transforms
        By set: what makes its columns orthonormal there (rank, directions), or the inverse length of each feature.
    loads
        By set: the inner products of the orthonormal directions with the features (directions, features); none for
        matching.
    concentration
        Of the features, whose sizes the weights of PWCCA follow.
    """

    rows: Float[np.ndarray, "points columns"]
    sums: Float[np.ndarray, "classes columns"]
    transforms: tuple[Float[np.ndarray, "..."], ...]
    loads: tuple[Float[np.ndarray, "directions features"], ...] = ()
    concentration: float = 1.0

    @cached_property
    def energies(self) -> Float[np.ndarray, " points"]:
        """The `row_energies` of the rows, points in the order of cells."""
        return row_energies(self.rows)

    @cached_property
    def spread(self) -> Spread:
        """How evenly points share what they add, if the rows are an orthonormal basis."""
        return Spread(self.concentration, spread_of(self.rows, np.ones(self.rank)).leverages)

    @cached_property
    def weight_of_points(self) -> float:
        """Share of the heaviest direction that a point has nearly to itself in the weights of all directions."""
        leverages = np.vecdot(self.rows, self.rows)
        alone = self.rows[leverages - leverages.mean() > MOST_LEVERAGE]
        directions = alone / np.linalg.norm(alone, axis=1, keepdims=True)
        heaviest = np.abs(directions @ self.loads[0]).sum(axis=1).max(initial=0.0)
        return float(max(heaviest, np.finfo(float).tiny) / np.abs(self.loads[0]).sum())

    @cached_property
    def narrow_loads(self) -> Float[np.ndarray, "directions features"]:
        """The loads of all points in single precision, which is enough for what chance gives."""
        return self.loads[0].astype(np.float32)

    @cached_property
    def narrow_rows(self) -> Float[np.ndarray, "points columns"]:
        """The centered rows in single precision, which is enough for what permutations give."""
        return centered(self.rows).astype(np.float32)

    @property
    def rank(self) -> int:
        """How many columns the rows have."""
        return self.rows.shape[1]


@dataclass(frozen=True)
class AlignmentForm:
    """How a measure follows from a product of two spaces on a set of points.

    Parameters
    ----------
    prepare
        Prepares one space.
    compare
        Returns the values from the source to the target, and back, of a product (target columns, source columns) on
        the set of points with this place.
    by_rotation
        Returns these two values for a random rotation of so many points, by its number. None: by permutations.
    """

    prepare: Callable[[Rows, PointSets], AlignedSpace]
    compare: Callable[[Corner, AlignedSpace, AlignedSpace, int], tuple[float, float]]
    by_rotation: Callable[[int, AlignedSpace, AlignedSpace, int], tuple[float, float]] | None = None


def moments_by_rotations(
    draw: Callable[[int], tuple[float, float]], n_many: int, found: tuple[float, float]
) -> tuple[MomentArrays, MomentArrays]:
    """Return the moments of both directions over permutations of the points, by random rotations in n − 1 dimensions.

    ``draw`` returns the values of one. Where both of ``found`` lie 10 deviations beyond the mean of 10 rotations these
    are all, as in `cross_covariances.moments_of_nuclear_norm`.
    """
    drawn = np.empty((0, 2))
    for n_rotations in (FEW_DRAWS, n_many):
        drawn = np.concatenate([drawn, [draw(index) for index in range(len(drawn), n_rotations)]])
        if (np.abs(np.array(found) - drawn.mean(axis=0)) > FAR * drawn.std(axis=0)).all():
            break
    mean, deviation = drawn.mean(axis=0), drawn.std(axis=0)
    is_spread = (deviation > 1e-9 * np.abs(mean)) & (len(drawn) > FEW_DRAWS)
    skewness = ((drawn - mean) ** 3).mean(axis=0) / np.where(is_spread, deviation, 1) ** 3 * is_spread
    n_draws = FEW_DRAWS if len(drawn) == FEW_DRAWS else None
    there, back = (MomentArrays(mean[[way]], deviation[[way]], skewness[[way]], n_draws=n_draws) for way in range(2))
    return there, back


def permuted_product(
    source: Float[np.ndarray, "points source"], target: Float[np.ndarray, "points target"], order: Int[np.ndarray, " _"]
) -> Corner:
    """Return the product of two spaces, the points of the second in another order."""
    return np.asarray((target[order].T @ source).astype(np.float64))


def _sums(rows: Float[np.ndarray, "points columns"], sets: PointSets) -> Float[np.ndarray, "classes columns"]:
    return np.stack([rows[run].sum(axis=0) for run in sets.runs_of_classes])


# PWCCA: Σ w_i ρ_i/Σ w_i, w_i = Σ_j |⟨h_i, x_j⟩| over the source's canonical variates h_i.

_WHITENED = CrossForm(None, len, lambda nuclear, source, target, n_directions: nuclear / n_directions)


def _prepare_weighted(rows: Rows, sets: PointSets) -> AlignedSpace:
    space = span(rows, sets)
    made = set_transforms(space, _WHITENED, sets)
    # The features in the coordinates of the basis: U (Uᵀ X), X centered on all points.
    moved = centered(rows)
    features = space.rows.T @ moved[sets.order]
    if made.transforms is None:
        raise TypeError("got a linear form, expected one with transforms")
    transforms = [
        transform[:, :n_directions]
        for transform, n_directions in zip(made.transforms, made.n_directions.tolist(), strict=True)
    ]
    loads = []
    for transform, points in zip(transforms, sets.points, strict=True):
        # ⟨h, x_j⟩ on a set: Zᵀ X there, less means; Z has none, once its own is taken off.
        inside = space.rows[points]
        inside = (inside - inside.mean(axis=0)) @ transform if len(inside) else inside @ transform
        loads.append(inside.T @ space.rows[points] @ features)
    return AlignedSpace(space.rows, space.sums, tuple(transforms), tuple(loads), concentration(row_energies(moved)))


def _projection_weighted(
    product: Corner, source: AlignedSpace, target: AlignedSpace, place: int
) -> tuple[float, float]:
    crossed = target.transforms[place].T @ product @ source.transforms[place]
    if not crossed.size:
        return np.nan, np.nan
    theirs, correlations, ours = np.linalg.svd(crossed, full_matrices=False)
    return _weighted(correlations, ours, source.loads[place]), _weighted(correlations, theirs.T, target.loads[place])


def _weighted(
    correlations: Float[np.ndarray, " pairs"],
    directions: Float[np.ndarray, "pairs rank"],
    loads: Float[np.ndarray, "rank features"],
) -> float:
    weights = np.abs(directions @ loads).sum(axis=1)
    return float(weights @ np.clip(correlations, 0, 1) / weights.sum())


def _nbytes(parts: tuple[np.ndarray, ...]) -> int:
    return sum(part.nbytes for part in parts)


@cached(LRUCache(64 << 20, getsizeof=_nbytes))
def _singular_vectors(
    n_points: int, n_source: int, n_target: int, index: int
) -> tuple[Float[np.ndarray, "target pairs"], Float[np.ndarray, " pairs"], Float[np.ndarray, "pairs source"]]:
    (corner,) = corners_from(n_points, n_source, n_target, index, index + 1)
    theirs, correlations, ours = np.linalg.svd(corner, full_matrices=False)
    return theirs.astype(np.float32), correlations, ours.astype(np.float32)


def _projection_weighted_by_rotation(
    n_points: int, source: AlignedSpace, target: AlignedSpace, index: int
) -> tuple[float, float]:
    theirs, correlations, ours = _singular_vectors(n_points, source.rank, target.rank, index)
    return _weighted(correlations, ours, source.narrow_loads), _weighted(correlations, theirs.T, target.narrow_loads)


PROJECTION_WEIGHTED = AlignmentForm(_prepare_weighted, _projection_weighted, _projection_weighted_by_rotation)


# Matching of features by their correlations.


def unit_features(rows: Rows) -> Float[np.ndarray, "points features"]:
    """Return centered features of unit length; those that are constant but for rounding are zero."""
    moved = centered(rows)
    lengths = np.linalg.norm(moved, axis=0)
    return np.divide(moved, lengths, out=np.zeros_like(moved), where=lengths > 0)


def mean_of_best(correlations: Corner) -> float:
    """Return the mean of each feature's largest correlation, and of both sides."""
    return float((correlations.max(axis=1).mean() + correlations.max(axis=0).mean()) / 2)


def mean_of_matched(correlations: Corner) -> float:
    """Return the mean correlation of features matched one to one, their sum as large as can be."""
    rows, columns = scipy.optimize.linear_sum_assignment(correlations, maximize=True)
    return float(correlations[rows, columns].mean())


def _prepare_features(rows: Rows, sets: PointSets) -> AlignedSpace:
    # Less the median: a far point would take the mean with it, and what is left of the others would be rounding.
    lengths = np.linalg.norm(centered(rows), axis=0)
    wide = rows.astype(np.float64)
    columns = np.divide(wide - np.median(wide, axis=0), lengths, out=np.zeros_like(wide), where=lengths > 0)[sets.order]
    inverses = []
    for points in sets.points:
        lengths = np.linalg.norm(centered(columns[points]), axis=0)
        inverses.append(np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0))
    return AlignedSpace(columns, _sums(columns, sets), tuple(inverses))


def matching(of_correlations: Callable[[Corner], float]) -> AlignmentForm:
    """Return the form of a measure of the correlations of all features of two spaces."""

    def compare(product: Corner, source: AlignedSpace, target: AlignedSpace, place: int) -> tuple[float, float]:
        correlations = target.transforms[place][:, None] * product * source.transforms[place]
        value = of_correlations(np.clip(correlations, -1, 1))
        return value, value

    return AlignmentForm(_prepare_features, compare)
