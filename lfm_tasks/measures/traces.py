"""Measures that follow from ‖F_yᵀF_x‖², F a factor of each space: on halves of the points too, chance in closed form.

‖F_yᵀF_x‖² is the trace of F_xF_xᵀ F_yF_yᵀ, whose moments over all permutations of the points are exact.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Shaped

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
    """

    source: Factor
    target: Factor
    value: TraceValue


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


def set_factors(rows: Rows, factor: Factor, sets: PointSets) -> SetFactors:
    """Return the factor of one space on each set of points."""
    wide = rows.astype(np.float64)
    made = list[Float[np.ndarray, "_ _"] | None]()
    for points in sets.points:
        try:
            made.append(np.ascontiguousarray(factor(wide[np.sort(sets.order[points])])))
        except np.linalg.LinAlgError:
            made.append(None)
    return tuple(made)


def factor_sums(factors: SetFactors, exchange: Exchange) -> FactorSums:
    """Return the sums of the factors of one space; ``exchange``: of the points that the first factor has."""
    grams = [None if made is None else made.T @ made.copy() for made in factors]
    energies = np.array([np.nan if gram is None else float(np.vdot(gram, gram)) for gram in grams])
    whole, gram = factors[0], grams[0]
    if whole is None or gram is None:
        return FactorSums(energies, None, 1.0)
    spread = concentration(exchange.by_unit(np.vecdot(whole @ gram, whole)))
    if not has_moments(exchange):
        return FactorSums(energies, None, spread)
    if not exchange.sets:
        return FactorSums(energies, permutation_profile(whole).sums, spread)
    sums = sums_of_factor(whole, exchange)
    return FactorSums(energies, sums, max(spread, sums.concentration))


def traces(source: SetFactors, target: SetFactors) -> Float[np.ndarray, " sets"]:
    """Return ‖F_yᵀF_x‖² on each set of points; NaN where one of both has no factor."""
    found = np.full(len(source), np.nan)
    for place, (first, second) in enumerate(zip(source, target, strict=True)):
        if first is not None and second is not None:
            # Of one array with itself NumPy takes another routine, which gives other bits.
            product = second.T @ (first.copy() if first is second else first)
            found[place] = float(np.vdot(product, product))
    return found
