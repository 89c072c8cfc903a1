"""Measures that follow from ‖F_yᵀF_x‖², F a factor of each space: on halves of the points too, chance in closed form.

‖F_yᵀF_x‖² is the trace of F_xF_xᵀ F_yF_yᵀ, whose moments over all permutations of the points are exact.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Float, Shaped

from lfm_tasks.measures.cross_covariances import (
    SetTransforms,
    Span,
    Stretch,
    constant_space,
    cross_products,
    set_transforms,
    span,
    stretched_products,
)
from lfm_tasks.measures.point_sets import PointSets, centered
from lfm_tasks.statistics.exchange_moments import has_moments, trace_sums_of_factor
from lfm_tasks.statistics.permutation_moments import concentration, row_energies
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
        from one product of two spaces. None: they are not functions of singular values. ValueError for linear ones.
    """

    source: Factor
    target: Factor
    value: TraceValue
    stretches: tuple[Stretch, Stretch] | None = None

    def __post_init__(self) -> None:
        if any(stretch.is_linear for stretch in self.stretches or ()):
            raise ValueError("got a linear stretch, expected one whose directions are those of each set of points")


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


# One factor for each set of `PointSets`, its rows in their order; None where the rows have none.
SetFactors = tuple[Float[np.ndarray, "_ _"] | None, ...]


@dataclass(frozen=True)
class FactoredSpace:
    """One space by its factors on each set of points: as source, and as target, the same object if they are alike."""

    sides: tuple[SetFactors, SetFactors]

    def whole(self, side: int) -> Float[np.ndarray, "points rank"] | None:
        """Return the factor of all points, as source (0) or target (1)."""
        return self.sides[side][0]

    def energies(self, side: int) -> Float[np.ndarray, " sets"]:
        """Return ‖FᵀF‖² on each set; NaN where there is no factor."""
        grams = [None if made is None else made.T @ made.copy() for made in self.sides[side]]
        return np.array([np.nan if gram is None else float(np.vdot(gram, gram)) for gram in grams])


# F Fᵀ of each set of points, see `_packed`; None where the rows have no factor, or no direction.
SetMatrices = tuple[Float[np.ndarray, " _"] | None, ...]


@dataclass(frozen=True)
class MatrixSpace:
    """One space by F Fᵀ, F its factor on each set of points: as source, and as target, the same object if alike.

    ``factors``: those of all points.
    """

    factors: tuple[Float[np.ndarray, "_ _"] | None, Float[np.ndarray, "_ _"] | None]
    sides: tuple[SetMatrices, SetMatrices]

    def whole(self, side: int) -> Float[np.ndarray, "points rank"] | None:
        """Return the factor of all points, as source (0) or target (1)."""
        return self.factors[side]

    def energies(self, side: int) -> Float[np.ndarray, " sets"]:
        """Return ‖FᵀF‖² on each set; NaN where there is no factor."""
        return _inner_products(self.sides[side], self.sides[side])


@dataclass(frozen=True)
class StretchedSpace:
    """One space by its singular vectors: its factors, as source and as target, are these, stretched, on each set."""

    span: Span
    sides: tuple[SetTransforms, SetTransforms]
    sets: PointSets

    def whole(self, side: int) -> Float[np.ndarray, "points rank"] | None:
        """Return the factor of all points, in their order."""
        lengths, ordered = self.sides[side].lengths, self.span.columns.rows
        rows = np.empty_like(ordered)
        rows[self.sets.order] = ordered * lengths
        return rows[:, lengths > 0]

    def energies(self, side: int) -> Float[np.ndarray, " sets"]:
        """Return ‖FᵀF‖² on each set; NaN where there is no direction."""
        energies = self.sides[side].energies
        if energies is None:
            raise TypeError("got a linear stretch, expected one with energies")
        return np.where(self.sides[side].n_directions > 0, energies, np.nan)


TraceSpace = FactoredSpace | MatrixSpace | StretchedSpace
# How a space is held for its pairs: as one of these.
TraceKind = Literal["factors", "matrices", "directions"]

# With fewer points a feature, products of singular vectors and of directions for each set of points are more work than
# other ways. With still fewer, F Fᵀ takes no more memory than F of all sets, and a pair n² in place of n r².
_POINTS_PER_FEATURE, _POINTS_OF_MATRICES = 5, 3


def trace_kind(form: TraceForm, n_points: int, rank: int) -> TraceKind:
    """Return how spaces of up to so many directions are held."""
    if n_points <= _POINTS_OF_MATRICES * rank:
        return "matrices"
    return "directions" if form.stretches is not None and _POINTS_PER_FEATURE * rank <= n_points else "factors"


def trace_space(rows: Rows, form: TraceForm, sets: PointSets, kind: TraceKind) -> TraceSpace:
    """Return the contribution of one space to its pairs.

    Raises
    ------
    DataError
        ``constant`` if all rows are the same.
    """
    if kind == "directions" and form.stretches is not None:
        space, (of_source, of_target) = span(rows, sets), form.stretches
        source = set_transforms(space, of_source, sets)
        target = source if of_source is of_target else set_transforms(space, of_target, sets)
        return StretchedSpace(space, (source, target), sets)
    if not centered(rows).any():
        raise constant_space()
    is_symmetric = form.source is form.target
    if kind == "factors":
        factors = set_factors(rows, form.source, sets)
        return FactoredSpace((factors, factors if is_symmetric else set_factors(rows, form.target, sets)))
    as_source = _set_matrices(rows, form.source, sets)
    as_target = as_source if is_symmetric else _set_matrices(rows, form.target, sets)
    return MatrixSpace((as_source[0], as_target[0]), (as_source[1], as_target[1]))


def _set_matrices(
    rows: Rows, factor: Factor, sets: PointSets
) -> tuple[Float[np.ndarray, "points rank"] | None, SetMatrices]:
    """Return the factor of all points, and the matrix of each set."""
    factors = set_factors(rows, factor, sets)
    return factors[0], tuple(map(_packed, factors))


# Rows of F Fᵀ that are computed together.
_ROWS_AT_ONCE = 256


def _packed(factor: Float[np.ndarray, "points rank"] | None) -> Float[np.ndarray, " entries"] | None:
    """Return F Fᵀ without most of what mirrors the rest: the rest times √2, so that inner products are the same."""
    if factor is None or not factor.size:
        return None
    n_points = len(factor)
    starts = range(0, n_points, _ROWS_AT_ONCE)
    packed = np.empty(sum(min(_ROWS_AT_ONCE, n_points - start) * (n_points - start) for start in starts))
    filled = 0
    for start in starts:
        product = factor[start : start + _ROWS_AT_ONCE] @ factor[start:].T
        product[:, _ROWS_AT_ONCE:] *= np.sqrt(2)
        packed[filled : filled + product.size] = product.ravel()
        filled += product.size
    return packed


def set_factors(rows: Rows, factor: Factor, sets: PointSets) -> SetFactors:
    """Return the factor of rows on each set of points."""
    wide = rows.astype(np.float64)
    made = list[Float[np.ndarray, "_ _"] | None]()
    for points in sets.points:
        try:
            made.append(np.ascontiguousarray(factor(wide[np.sort(sets.order[points])])))
        except np.linalg.LinAlgError:
            made.append(None)
    return tuple(made)


def factor_sums(space: TraceSpace, side: int, exchange: Exchange) -> FactorSums:
    """Return the sums of one space as source (0) or target (1); ``exchange``: of its points."""
    energies, whole = space.energies(side), space.whole(side)
    if whole is None:
        return FactorSums(energies, None, 1.0)
    if not has_moments(exchange):
        return FactorSums(energies, None, concentration(exchange.by_unit(row_energies(whole))))
    made = trace_sums_of_factor(whole, exchange)
    return FactorSums(energies, made.sums, made.concentration)


def traces(first: TraceSpace, second: TraceSpace) -> Float[np.ndarray, "2 sets"]:
    """Return ‖F_yᵀF_x‖² on each set of points, from the first space to the second, and back.

    NaN where one of both has no direction.
    """
    if isinstance(first, StretchedSpace) and isinstance(second, StretchedSpace):
        products = cross_products(first.span.columns, second.span.columns, first.sets)
        return _both_ways(partial(_stretched, products), first.sides, second.sides)
    if isinstance(first, MatrixSpace) and isinstance(second, MatrixSpace):
        return _both_ways(_inner_products, first.sides, second.sides)
    if isinstance(first, FactoredSpace) and isinstance(second, FactoredSpace):
        return _both_ways(_factored, first.sides, second.sides)
    raise TypeError(f"got {type(first).__name__} and {type(second).__name__}, expected spaces of one kind")


Side = TypeVar("Side")


def _both_ways(
    cross: Callable[[Side, Side], Float[np.ndarray, " sets"]], first: tuple[Side, Side], second: tuple[Side, Side]
) -> Float[np.ndarray, "2 sets"]:
    """Return the traces of the first space as source with the second as target, and of the second with the first."""
    there = cross(first[0], second[1])
    return np.stack([there, there if first[0] is first[1] else cross(first[1], second[0])])


def _stretched(
    products: Float[np.ndarray, "sets second first"], first: SetTransforms, second: SetTransforms
) -> Float[np.ndarray, " sets"]:
    stretched = stretched_products(products, first, second).reshape(len(products), -1)
    is_empty = np.minimum(first.n_directions, second.n_directions) == 0
    return np.where(is_empty, np.nan, np.vecdot(stretched, stretched))


def _factored(first: SetFactors, second: SetFactors) -> Float[np.ndarray, " sets"]:
    found = np.full(len(first), np.nan)
    for place, (ours, theirs) in enumerate(zip(first, second, strict=True)):
        if ours is not None and theirs is not None and ours.size and theirs.size:
            # Of one array with itself NumPy takes another routine, which gives other bits.
            product = theirs.T @ (ours.copy() if ours is theirs else ours)
            found[place] = float(np.vdot(product, product))
    return found


def _inner_products(first: SetMatrices, second: SetMatrices) -> Float[np.ndarray, " sets"]:
    return np.array(
        [
            np.nan if ours is None or theirs is None else float(np.vdot(ours, theirs))
            for ours, theirs in zip(first, second, strict=True)
        ]
    )
