"""Measures of the singular values of ZᵧᵀZₓ, Z the centered rows, perhaps whitened: on many sets of points, with chance.

Every set of points (all, a half) needs only sums over classes of points of one product of two spaces, in the
coordinates of their own singular vectors.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, runtime_checkable

import numpy as np
from cachetools import LRUCache, cached
from jaxtyping import Float, Int, Shaped

from lfm_tasks.errors import DataError
from lfm_tasks.measures.point_sets import PointSets, centered
from lfm_tasks.statistics.map_chance import wishart_factors
from lfm_tasks.statistics.permutation_moments import (
    NO_FACTOR,
    CommonFactor,
    MomentArrays,
    are_concentrated,
    concentration,
)
from lfm_tasks.statistics.resampling import FEW_DRAWS

Values = Shaped[np.ndarray, "..."]

# Share of the longest direction of all points below which one of a half is rounding.
_NO_DIRECTION = 1e-13
# Share of the longest direction above which all others keep enough digits if their squares are computed.
_FULL_DIGITS = 1e-4


@runtime_checkable
class CrossValue(Protocol):
    """The value that a `CrossForm` computes from sums of singular values."""

    def __call__(self, nuclear: Values, source: Values, target: Values, n_directions: Values) -> Values:
        """Return values from sums of singular values, the norms of both, and the smaller number of directions."""
        ...


@dataclass(frozen=True)
class Stretch:
    """A function of the singular values of centered rows U Σ Vᵀ, which gives Z = U f(Σ).

    Two are equal if they have the same functions.

    Parameters
    ----------
    lengths
        What the singular values become, falling; None: they all become 1 (whitened).
    n_kept
        How many of the singular values are kept.
    is_linear
        Whether lengths are the singular values themselves: they are then those of all points in every half, too.
    """

    lengths: Callable[[Float[np.ndarray, " values"]], Float[np.ndarray, " values"]] | None
    n_kept: Callable[[Float[np.ndarray, " values"]], int]
    is_linear: bool = False


LINEAR = Stretch(lambda values: values, len, is_linear=True)
WHITENED = Stretch(None, len)


@dataclass(frozen=True)
class CrossForm:
    """How a measure follows from the sum of singular values ‖ZᵧᵀZₓ‖_* of two spaces.

    Parameters
    ----------
    stretch
        What makes Z of the rows. Measures with the same one share the singular values of a pair.
    value
        The measure: of ‖ZᵧᵀZₓ‖_*, ‖Zₓ‖, ‖Zᵧ‖ and the smaller number of directions.
    """

    stretch: Stretch
    value: CrossValue


@dataclass(frozen=True)
class Columns:
    """Columns of a space, points in the order of cells, as means of classes of points and what rows have beside them.

    A product on a set of points is the sum of the products inside its classes and of those of their means. No digits
    cancel there, whether a set is small beside the others or far from them.

    Parameters
    ----------
    inside
        Rows less the mean of their class.
    means
        By class.
    between
        By set: what the means of its classes have beside that of the set, times √n, n the points of the class.
    sizes
        How many points each class has.
    """

    inside: Float[np.ndarray, "points columns"]
    means: Float[np.ndarray, "classes columns"]
    between: Float[np.ndarray, "sets classes columns"]
    sizes: Int[np.ndarray, " classes"]

    @property
    def rows(self) -> Float[np.ndarray, "points columns"]:
        """The rows, computed from the others."""
        return self.inside + np.repeat(self.means, self.sizes, axis=0)

    def of_set(self, place: int, sets: PointSets) -> Float[np.ndarray, "some columns"]:
        """Return the rows of a set of points less their mean."""
        beside = self.between[place] / np.sqrt(self.sizes)[:, None]
        classes = np.flatnonzero(sets.sets_of_classes[place]).tolist()
        return np.concatenate([self.inside[sets.runs_of_classes[one]] + beside[one] for one in classes])

    def squares(self, sets: PointSets) -> Float[np.ndarray, "sets columns"]:
        """Return the squared lengths of the columns on each set of points, less their means there."""
        inside = np.stack([np.square(self.inside[run]).sum(axis=0) for run in sets.runs_of_classes])
        return np.asarray(sets.sets_of_classes @ inside + np.square(self.between).sum(axis=1))


def columns_of(rows: Float[np.ndarray, "points columns"], sets: PointSets) -> Columns:
    """Return rows, in the order of cells, by class of points."""
    runs = sets.runs_of_classes
    means = np.stack([rows[run].mean(axis=0) for run in runs])
    inside = np.concatenate([rows[run] - mean for run, mean in zip(runs, means, strict=True)])
    sizes = np.array([run.stop - run.start for run in runs])
    weights = sets.sets_of_classes * sizes
    of_sets = (weights @ means) / np.maximum(weights.sum(axis=1, keepdims=True), 1)
    return Columns(inside, means, np.sqrt(weights)[:, :, None] * (means - of_sets[:, None]), sizes)


@dataclass(frozen=True)
class Span:
    """Centered rows as U Σ Vᵀ, Vᵀ left out: the columns U, and Σ."""

    columns: Columns
    values: Float[np.ndarray, " rank"]


def span(rows: Float[np.ndarray, "points features"], sets: PointSets) -> Span:
    """Return the span of rows; directions that are rounding are dropped.

    Raises
    ------
    DataError
        ``constant`` if all rows are the same.
    """
    moved = centered(rows)
    left, values, _ = np.linalg.svd(moved, full_matrices=False)
    if not values[0] > 0:
        raise constant_space()
    kept = values > values[0] * max(moved.shape) * np.finfo(float).eps
    return Span(columns_of(left[:, kept][sets.order], sets), values[kept])


def constant_space() -> DataError:
    """Return the error for a space whose rows are all the same."""
    found = "got a space whose rows are all the same, expected rows that differ"
    return DataError("constant", f"{found}. Remove it, or record another layer.")


def directions_of_set(
    space: Span, place: int, sets: PointSets, scale: Float[np.ndarray, " rank"] | None = None
) -> tuple[Float[np.ndarray, " directions"], Float[np.ndarray, "rank directions"]]:
    """Return singular values and right singular vectors of U, or of U times ``scale``, on a set of points.

    Falling; those that are rounding are left out.
    """
    rows = space.columns.of_set(place, sets)
    rows = rows if scale is None else rows * scale
    shortest = _NO_DIRECTION * (1.0 if scale is None else scale[0])
    squares, directions = np.linalg.eigh(rows.T @ rows.copy())
    if squares[0] > max(_FULL_DIGITS**2 * squares[-1], shortest**2):
        return np.sqrt(squares)[::-1], directions[:, ::-1]
    _, values, directions = np.linalg.svd(np.linalg.qr(rows, mode="r"), full_matrices=False)
    present = values > max(values[0] * max(rows.shape) * np.finfo(float).eps, shortest)
    return values[present], directions[present].T


@dataclass(frozen=True)
class SetTransforms:
    """Transforms of a span on each set of points: U times ``transforms`` are Z, up to a rotation of its columns.

    Parameters
    ----------
    transforms
        None of a linear stretch, which scales U by the singular values.
    lengths
        Of the directions of Z on all points.
    norms, energies
        ‖Z‖ and ‖ZᵀZ‖²; no energies of a linear stretch.
    n_directions
        How many there are, in the set that has most of them ``directions``; 0 on a set whose rows are all the same.
    """

    transforms: Float[np.ndarray, "sets rank directions"] | None
    lengths: Float[np.ndarray, " lengths"]
    norms: Float[np.ndarray, " sets"]
    energies: Float[np.ndarray, " sets"] | None
    n_directions: Int[np.ndarray, " sets"]


def set_transforms(space: Span, stretch: Stretch, sets: PointSets) -> SetTransforms:
    """Return the transforms of one space; directions that are not kept are columns of zeros."""
    rank = len(space.values)
    if stretch.is_linear:
        norms = np.sqrt(space.columns.squares(sets) @ space.values**2)
        norms[norms <= _NO_DIRECTION * space.values[0]] = 0
        return SetTransforms(None, space.values, norms, None, np.full(sets.n_sets, rank))
    scale = None if stretch.lengths is None else space.values
    transforms = np.zeros((sets.n_sets, rank, rank))
    norms, energies = np.zeros((2, sets.n_sets))
    n_directions = np.zeros(sets.n_sets, dtype=int)
    lengths = np.zeros(rank)
    for index in range(sets.n_sets):
        values, directions = directions_of_set(space, index, sets, scale) if index else (space.values, np.eye(rank))
        kept = min(len(values), stretch.n_kept(values))
        made = np.ones(kept) if stretch.lengths is None else stretch.lengths(values[:kept])
        if index == 0:
            lengths[:kept] = made
        else:
            # Z = X V (made/values): in the coordinates of U, X V is U Σ times the directions.
            directions = (directions if scale is None else scale[:, None] * directions) / values
        transforms[index, :, :kept] = directions[:, :kept] * made
        norms[index], energies[index], n_directions[index] = np.linalg.norm(made), (made**4).sum(), kept
    # Not a view, which would hold all of them where it is kept.
    transforms = np.ascontiguousarray(transforms[:, :, : n_directions.max()])
    return SetTransforms(transforms, lengths, norms, energies, n_directions)


@dataclass(frozen=True)
class Spread:
    """How evenly points share what the rows of Z = U D add.

    Parameters
    ----------
    concentration
        The `concentration` of Z Zᵀ.
    leverages
        Leverages of rows less their mean, those above .3, falling. If directions do not count alike: squared lengths of
        rows, those above six times their mean.
    unevenness
        Relative variance of the weights Σ_r d_r u_ir² of the rows; set to 0 if directions count alike, where `may_meet`
        takes long rows into account.
    skewness
        Of these weights.
    unevenness_of_normal
        The relative variance of the weights of normal rows, 2 Σ d_r²/(Σ d_r)².
    """

    concentration: float
    leverages: Float[np.ndarray, " some"]
    unevenness: float
    skewness: float
    unevenness_of_normal: float


# Leverage of a point of both spaces above which it counts whether these two meet: what they add to a sum of cosines if
# they do is the root of its product, and such a sum varies by about .3.
MOST_LEVERAGE = 0.3


# Squared length of a row, relative to the mean of all, above which it counts whether two of them meet.
_LONG_ROW = 6


def spread_of(basis: Float[np.ndarray, "points rank"], lengths: Float[np.ndarray, " rank"]) -> Spread:
    """Return the spread of the rows of an orthonormal basis, its directions at these lengths."""
    squares = np.square(basis)
    energies, of_normal = squares @ lengths**4, float(2 * np.square(lengths).sum() / lengths.sum() ** 2)
    rows = squares @ lengths**2
    if not np.isin(lengths, (0, 1)).all():
        long = np.sort(rows[rows > _LONG_ROW * rows.mean()])[::-1]
        return Spread(concentration(energies), long, *unevenness_of(squares @ lengths), of_normal)
    leverages = np.sort(rows - rows.mean())[::-1]
    return Spread(concentration(energies), leverages[leverages > MOST_LEVERAGE], 0.0, 0.0, of_normal)


def unevenness_of(weights: Float[np.ndarray, " points"]) -> tuple[float, float]:
    """Return the variance of weights of rows, relative to the square of their mean, and their skewness."""
    mean = weights.mean()
    steps = weights / mean - 1 if mean > 0 else np.zeros_like(weights)
    variance = float(np.square(steps).mean())
    return variance, float((steps**3).mean() / variance**1.5) if variance > 1e-12 else 0.0


def common_factor(source: Spread, target: Spread, n_points: int) -> CommonFactor:
    """Return the factor of sums of singular values over permutations of points that rotations do not have.

    Where rows differ in length, all products are larger if long rows meet. The squared norm of the product with a
    direction u of the other space is Σ_i u_i² l_π(i) on average, l the squared lengths of rows: over permutations its
    relative variance is var(u²) var(l)/(n − 1). A sum of singular values has each direction with a weight of about its
    length, and the roots of these norms. Normal rows, of which rotations are, have their part of it already. For the
    largest correlations of features, which all count alike, weights are squared lengths of rows.
    """
    of_rows = source.unevenness * target.unevenness
    variance = max(of_rows - source.unevenness_of_normal * target.unevenness_of_normal, 0.0) / n_points
    # The root of 1 + δ has half the deviation of δ, and to first order its skewness less 1.5 deviations.
    deviation = float(np.sqrt(variance)) / 2
    return CommonFactor(deviation, source.skewness * target.skewness / float(np.sqrt(n_points)) - 3 * deviation)


def live_on_few(source: Spread, target: Spread, n_points: int) -> bool:
    """Return whether both spaces live on few points: what a permutation scores then depends on whether these meet."""
    concentrations = np.array(source.concentration), np.array(target.concentration)
    return bool(are_concentrated(*concentrations, n_points, is_exact=False))


# Logarithm of the probability of what is taken for impossible: p-values near it are an order of magnitude anyway.
_LOG_NEVER = float(np.log(1e-9))
# By what the argument of the bound grows from one try to the next, and how far.
_TRIES = 0.2 * 1.3 ** np.arange(24)


def may_meet(source: Spread, target: Spread, n_points: int, beyond: float) -> bool:
    """Return whether points with a direction nearly to themselves decide how a score compares with chance.

    Rotations have no such points. If two of them meet, the sum of cosines grows by some √(h h'), h and h' their
    leverages above the mean. Two given points meet in one of n permutations. A score that lies farther beyond rotations
    than such a sum reaches in all but one of a billion permutations lies beyond permutations, too.

    Parameters
    ----------
    beyond
        How far the sum of cosines is above ten deviations beyond the mean of rotations.
    """
    first, second = np.sqrt(source.leverages), np.sqrt(target.leverages)
    if not len(first) or not len(second):
        return False
    # Never more, since no permutation has a larger sum.
    n_most = min(len(first), len(second))
    if beyond > float(first[:n_most] @ second[:n_most]):
        return False
    return beyond <= 0 or _log_chance_of_sum(first, second, n_points, beyond) > _LOG_NEVER


def _log_chance_of_sum(
    first: Float[np.ndarray, " some"], second: Float[np.ndarray, " others"], n_points: int, least: float
) -> float:
    """Return a bound of log P(S ≥ least), S the sum of the products of points that meet, as if these were independent.

    Chernoff's: P(S ≥ s) ≤ exp(Σ (exp(t w) − 1)/n − t s) for each t > 0, the sum over all w = √(h h').
    """
    # In one order of both, so that a pair has the same bits whichever is the source.
    sides = sorted((first, second), key=lambda side: (len(side), *side.tolist()))
    sums, best = np.multiply.outer(*sides), 0.0
    for t in (_TRIES / sums[0, 0]).tolist():
        bound = float(np.expm1(t * sums).sum()) / n_points - t * least
        if bound > best:
            break
        best = bound
        if best <= _LOG_NEVER:
            break
    return best


def cross_products(source: Columns, target: Columns, sets: PointSets) -> Float[np.ndarray, "sets target source"]:
    """Return the products of the columns of two spaces on each set of points, means taken off there."""
    runs, ours, theirs = sets.runs_of_classes, source.inside, target.inside
    by_run = np.empty((len(runs), theirs.shape[1], ours.shape[1]))
    # Of one array with itself NumPy takes another routine, which gives other bits.
    ours = ours.copy() if ours is theirs else ours
    for place, run in enumerate(runs):
        np.matmul(theirs[run].T, ours[run], out=by_run[place])
    inside = (sets.sets_of_classes @ by_run.reshape(len(by_run), -1)).reshape(-1, *by_run.shape[1:])
    return np.asarray(inside + np.swapaxes(target.between, 1, 2) @ source.between)


def stretched_products(
    products: Float[np.ndarray, "sets target source"], source: SetTransforms, target: SetTransforms
) -> Float[np.ndarray, "sets target_directions source_directions"]:
    """Return ZᵧᵀZₓ on each set of points, up to rotations of both."""
    if source.transforms is None or target.transforms is None:
        stretched = products * np.outer(target.lengths, source.lengths)
        # Where all rows of a set are the same, their products are rounding.
        stretched[(source.norms == 0) | (target.norms == 0)] = 0
        return stretched
    return np.asarray(np.swapaxes(target.transforms, 1, 2) @ products @ source.transforms)


# Error of a sum of singular values, relative to it, that squares of them may have.
_MOST_ROUNDING = 1e-13


def nuclear_norms(
    products: Float[np.ndarray, "sets target source"], source: SetTransforms, target: SetTransforms, stretch: Stretch
) -> Float[np.ndarray, " sets"]:
    """Return ‖ZᵧᵀZₓ‖_* on each set of points."""
    stretched = stretched_products(products, source, target)
    if stretch.lengths is not None:
        return np.asarray(np.linalg.svd(stretched, compute_uv=False).sum(axis=-1))
    # Cosines of principal angles, but for rounding. They are seldom small: squares take half the time of an SVD.
    values = np.sqrt(_squares(stretched))
    with np.errstate(divide="ignore", invalid="ignore"):
        # A square λ is known to ε times the largest, and its root to that over 2√λ.
        errors = values[:, -1] ** 2 * np.sqrt(np.square(1 / values).sum(axis=1)) / 2
        is_rough = ~(np.finfo(float).eps * errors <= _MOST_ROUNDING * values.sum(axis=1))
    if is_rough.any():
        values[is_rough] = np.linalg.svd(stretched[is_rough], compute_uv=False)
    return np.asarray(np.minimum(values, 1).sum(axis=-1))


# Rotations that every pair of these sizes is compared with: so many, or all where the score is near what they give.
_MANY_ROTATIONS = 400
# Directions from which on the many are fewer, and how many they are at least.
NARROW, _FEWEST_OF_MANY = 96, 40


def moments_of_nuclear_norm(
    source: Float[np.ndarray, " source"],
    target: Float[np.ndarray, " target"],
    n_points: int,
    found: float,
    factor: CommonFactor = NO_FACTOR,
) -> MomentArrays:
    """Return the moments of ‖ZᵧᵀP Zₓ‖_* over permutations P, by random rotations in n − 1 dimensions.

    ``source``, ``target``: the lengths of the directions of both. ``factor``: see `common_factor`. Where ``found`` lies
    10 deviations beyond the mean of 10 rotations these are all: the mean is then known to a third of a deviation, p is
    that of a Student's t. Against 3,000 permutations of ten pairs of layers the mean was within .1 deviations and the
    deviation within 5 %; of two spaces with a far class of a tenth of the points, the mean is off by .2.
    """
    ours, theirs = source[source > 0], target[target > 0]
    is_whitened = bool((ours == 1).all() and (theirs == 1).all())
    sizes = n_points, len(ours), len(theirs)
    lengths = np.outer(theirs, ours)

    def draw(numbers: tuple[int, int]) -> Float[np.ndarray, "draws 1"]:
        first, n_rotations = numbers
        if is_whitened:
            return _norms_of_corners(*sizes, n_rotations)[first:, None]
        corners = corners_from(*sizes, first, n_rotations)
        return np.concatenate([_rough_nuclear_norms(lengths * some) for some in corners])[:, None]

    return moments_by_rotations(draw, most_rotations(*sizes), np.array([found]), factor)


def moments_by_rotations(
    draw: Callable[[tuple[int, int]], Float[np.ndarray, "draws values"]],
    n_many: int,
    found: Float[np.ndarray, " values"],
    factor: CommonFactor,
) -> MomentArrays:
    """Return the moments of values over permutations of the points, by random rotations in n − 1 dimensions.

    ``draw`` returns the values of the rotations from one number to another. Where all ``found`` are far beyond the mean
    of 10 rotations (`MomentArrays.are_far`), these are all. ``factor``: see `common_factor`.
    """
    drawn = np.empty((0, len(found)))
    for n_rotations in (FEW_DRAWS, n_many):
        drawn = np.concatenate([drawn, draw((len(drawn), n_rotations))])
        moments = MomentArrays.of_draws(drawn, factor)
        if moments.are_far(found):
            break
    return moments


def most_rotations(n_points: int, n_source: int, n_target: int) -> int:
    """Return with how many rotations a score near chance is compared: 400, and fewer, at least 40, of wide spaces.

    A rotation of 768 directions takes a second. The deviation of a sum of many singular values is small beside it.
    """
    rank = max(1, min(n_source, n_target))
    return max(_FEWEST_OF_MANY, min(_MANY_ROTATIONS, round(_MANY_ROTATIONS * (NARROW / rank) ** 2)))


@lru_cache(maxsize=1024)
def _norms_of_corners(n_points: int, n_source: int, n_target: int, n_rotations: int) -> Float[np.ndarray, " rotations"]:
    corners = corners_from(n_points, n_source, n_target, 0, n_rotations)
    return np.concatenate([_rough_nuclear_norms(some) for some in corners])


def _rough_nuclear_norms(matrices: Float[np.ndarray, "some target source"]) -> Float[np.ndarray, " some"]:
    """Return sums of singular values to some seven digits."""
    return np.asarray(np.sqrt(_squares(matrices)).sum(axis=1))


def _squares(matrices: Float[np.ndarray, "some target source"]) -> Float[np.ndarray, "some values"]:
    """Return squares of singular values, rising: eigenvalues of CCᵀ or CᵀC, each known to ε times the largest."""
    wide = matrices if matrices.shape[1] <= matrices.shape[2] else np.swapaxes(matrices, 1, 2)
    # NumPy's routine for a product of one array with itself: every matrix comes here, so bits do not depend on others.
    return np.maximum(np.linalg.eigvalsh(wide @ np.swapaxes(wide, 1, 2)), 0)


# Bytes of the corners of random rotations that are made, and taken, together.
_MOST_CORNERS = 16 << 20


def runs_of_rotations(n_source: int, n_target: int, first: int, n_rotations: int) -> Iterator[tuple[int, int]]:
    """Yield the numbers of rotations that are taken together: ten, and fewer where corners take megabytes each."""
    step = max(1, min(FEW_DRAWS, _MOST_CORNERS // (8 * n_source * n_target)))
    for start in range(first, n_rotations, step):
        yield start, min(start + step, n_rotations)


def corners_from(
    n_points: int, n_source: int, n_target: int, first: int, n_rotations: int
) -> Iterator[Float[np.ndarray, "some target source"]]:
    """Yield corners of random rotations in n − 1 dimensions from one of them on, always the same ones."""
    for numbers in runs_of_rotations(n_source, n_target, first, n_rotations):
        yield random_corners(n_points, n_source, n_target, numbers)


# Bytes of corners that stay for the next pair.
MOST_ROTATIONS = 64 << 20
# Multiple of directions that corners of wide spaces are made for: a few dead features make another number of each.
_SIZE_OF_WIDE = 16


def random_corners(
    n_points: int, n_source: int, n_target: int, numbers: tuple[int, int]
) -> Float[np.ndarray, "some target source"]:
    """Return the corners of the random rotations from one number to another.

    Those of more than 96 directions are cut from corners of the next larger size, which are corners, too.
    """
    of_source, of_target = _common_size(n_source, n_points), _common_size(n_target, n_points)
    return _random_corners(n_points, of_source, of_target, numbers)[:, :n_target, :n_source]


def _common_size(n_directions: int, n_points: int) -> int:
    if not NARROW < n_directions < n_points:
        return n_directions
    return min(-(-n_directions // _SIZE_OF_WIDE) * _SIZE_OF_WIDE, n_points - 1)


@cached(LRUCache(MOST_ROTATIONS, getsizeof=lambda corners: corners.nbytes))
def _random_corners(
    n_points: int, n_source: int, n_target: int, numbers: tuple[int, int]
) -> Float[np.ndarray, "some target source"]:
    return np.stack([_random_corner(n_points, n_source, n_target, index) for index in range(*numbers)])


def _random_corner(n_points: int, n_source: int, n_target: int, index: int) -> Float[np.ndarray, "target source"]:
    """Return the upper block of Q in [A; B] = Q R with normal A and B: A R⁻¹, RᵀR = AᵀA + BᵀB."""
    generator = np.random.Generator(np.random.Philox(key=[n_points, index]))
    normal = generator.standard_normal((n_target, n_source))
    rest = wishart_factors(generator, max(n_points - 1 - n_target, 0), n_source, 1)[0]
    factor = np.linalg.cholesky(normal.T @ normal.copy() + rest @ rest.T)
    return np.asarray(np.linalg.solve(factor, normal.T).T)
