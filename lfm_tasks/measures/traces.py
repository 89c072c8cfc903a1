"""Measures that follow from ‖F_yᵀF_x‖², F a factor of each space: on halves of the points too, chance in closed form.

‖F_yᵀF_x‖² is the trace of F_xF_xᵀ F_yF_yᵀ, whose moments over all permutations of the points are exact.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Shaped

from lfm_tasks.measures.cross_covariances import SetTransforms, Span, Stretch, cross_products, stretched_products
from lfm_tasks.measures.point_matrices import PointSets
from lfm_tasks.statistics.exchange_moments import has_moments, sums_of_factor
from lfm_tasks.statistics.permutation_moments import concentration, permutation_profile
from lfm_tasks.statistics.resampling import Exchange
from lfm_tasks.statistics.strata_moments import ExchangeSums

Values = Shaped[np.ndarray, "..."]
Rows = Float[np.ndarray, "points features"]
Factor = Callable[[Rows], Float[np.ndarray, "points rank"]]


@runtime_checkable
class TraceValue(Protocol):
    """The value that a `TraceForm` computes from ‖F_yᵀF_x‖², ‖F_xᵀF_x‖², ‖F_yᵀF_y‖²."""

    def __call__(self, trace: Values, source: Values, target: Values) -> Values:
        """Return the measure, monotone in the first."""
        ...


@dataclass(frozen=True)
class TraceForm:
    """How a measure follows from the factors of two spaces.

    Parameters
    ----------
    source, target
        The factor of the rows of a space as source, and as target; the same function for a symmetric measure.
    value
        The measure.
    stretches
        What makes these factors, but for rotations, of the singular vectors of a space: then all sets of points follow
        from one product of two spaces. None: they are not functions of singular values.
    """

    source: Factor
    target: Factor
    value: TraceValue
    stretches: tuple[Stretch, Stretch] | None = None


@dataclass(frozen=True)
class FactorSums:
    """A few numbers of the factor F of a space, which its pairs need and which are kept.

    Parameters
    ----------
    energies
        ‖FᵀF‖² on each set; NaN where there is no factor.
    chance
        `permutation_profile` of all points, or their sums by strata or groups; None where chance is drawn.
    concentration
        Of the rows of F Fᵀ, or of groups of them, all points.
    """

    energies: Float[np.ndarray, " sets"]
    chance: Float[np.ndarray, " partitions"] | ExchangeSums | None
    concentration: float


@dataclass(frozen=True)
class FactoredSpace:
    """One space as source, or as target, by its factor on each set of points, rows in their order; None: has none."""

    factors: tuple[Float[np.ndarray, "_ _"] | None, ...]

    @property
    def whole(self) -> Float[np.ndarray, "points rank"] | None:
        """The factor of all points."""
        return self.factors[0]

    @property
    def energies(self) -> Float[np.ndarray, " sets"]:
        """‖FᵀF‖² on each set; NaN where there is no factor."""
        grams = [None if made is None else made.T @ made.copy() for made in self.factors]
        return np.array([np.nan if gram is None else float(np.vdot(gram, gram)) for gram in grams])


@dataclass(frozen=True)
class StretchedSpace:
    """One space as source, or as target, by its singular vectors: its factors are these, stretched, on each set."""

    span: Span
    transforms: SetTransforms
    sets: PointSets

    @property
    def whole(self) -> Float[np.ndarray, "points rank"] | None:
        """The factor of all points, in their order."""
        rows = np.empty_like(self.span.rows)
        rows[self.sets.order] = self.span.rows * self.transforms.lengths
        return rows[:, self.transforms.lengths > 0]

    @property
    def energies(self) -> Float[np.ndarray, " sets"]:
        """‖FᵀF‖² on each set."""
        return self.transforms.energies


TraceSpace = FactoredSpace | StretchedSpace


# Points for each feature, with fewer of which a product of factors for each set of points is less work than one product
# of singular vectors, and two of all directions for each set.
_POINTS_PER_FEATURE = 5


def are_stretched(n_points: int, rank: int) -> bool:
    """Return whether traces of spaces of up to so many directions follow from singular vectors, if they can."""
    return _POINTS_PER_FEATURE * rank <= n_points


def factored(rows: Rows, factor: Factor, sets: PointSets) -> FactoredSpace:
    """Return one space by its factor on each set of points."""
    wide = rows.astype(np.float64)
    made = list[Float[np.ndarray, "_ _"] | None]()
    for points in sets.points:
        try:
            made.append(np.ascontiguousarray(factor(wide[np.sort(sets.order[points])])))
        except np.linalg.LinAlgError:
            made.append(None)
    return FactoredSpace(tuple(made))


def factor_sums(space: TraceSpace, exchange: Exchange) -> FactorSums:
    """Return the sums of one space; ``exchange``: of its points."""
    energies, whole = space.energies, space.whole
    if whole is None:
        return FactorSums(energies, None, 1.0)
    spread = concentration(exchange.by_unit(np.vecdot(whole @ (whole.T @ whole.copy()), whole)))
    if not has_moments(exchange):
        return FactorSums(energies, None, spread)
    if not exchange.sets:
        return FactorSums(energies, permutation_profile(whole).sums, spread)
    sums = sums_of_factor(whole, exchange)
    return FactorSums(energies, sums, max(spread, sums.concentration))


def traces(source: TraceSpace, target: TraceSpace) -> Float[np.ndarray, " sets"]:
    """Return ‖F_yᵀF_x‖² on each set of points; NaN where one of both has no direction."""
    if isinstance(source, StretchedSpace) and isinstance(target, StretchedSpace):
        sets, sides = source.sets, (source.transforms, target.transforms)
        products = stretched_products(cross_products(source.span, target.span, sets), *sides)
        products = products.reshape(sets.n_sets, -1)
        is_empty = np.minimum(sides[0].n_directions, sides[1].n_directions) == 0
        return np.where(is_empty, np.nan, np.vecdot(products, products))
    if isinstance(source, StretchedSpace) or isinstance(target, StretchedSpace):
        raise TypeError("got a space by its factors and one by its singular vectors, expected both of one kind")
    found = np.full(len(source.factors), np.nan)
    for place, (first, second) in enumerate(zip(source.factors, target.factors, strict=True)):
        if first is not None and second is not None and first.size and second.size:
            # Of one array with itself NumPy takes another routine, which gives other bits.
            product = second.T @ (first.copy() if first is second else first)
            found[place] = float(np.vdot(product, product))
    return found
