"""Differences between the rows of one layer as two programs compute it: absolute, relative, in units of rounding."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

_TINY = np.finfo(np.float64).tiny


@dataclass(frozen=True)
class Precision:
    """A floating-point type: bits of its significand, exponent of its smallest normal number, and its default limit.

    Parameters
    ----------
    name
        How reports call it.
    n_bits
        Bits of the significand, the implicit one included.
    least_exponent
        The smallest normal number is 2 to the power of this.
    largest
        The largest finite number.
    tolerance
        How far a row may be off by default, relative to the largest magnitude in it: what rounding in this type adds
        up to in a network of a few dozen layers.
    """

    name: str
    n_bits: int
    least_exponent: int
    largest: float
    tolerance: float

    def ulp(self, values: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """Return the distance from each value's magnitude to the next number of the type.

        Examples
        --------
        >>> PRECISIONS["float16"].ulp(np.array([1.0, 3.0])).tolist()
        [0.0009765625, 0.001953125]
        """
        exponents = np.frexp(values)[1]
        return np.ldexp(1.0, np.maximum(exponents - 1, self.least_exponent) - (self.n_bits - 1))

    def holds(self, values: Float[np.ndarray, "*shape"]) -> bool:
        """Return whether every finite value is a number of this type."""
        finite = values[np.isfinite(values)]
        if len(finite) and np.abs(finite).max() > self.largest:
            return False
        steps = finite / self.ulp(finite)
        return bool((steps == np.rint(steps)).all())


# From the coarsest on.
PRECISIONS = {
    one.name: one
    for one in (
        Precision("bfloat16", 8, -126, 3.3895313892515355e38, 6e-2),
        Precision("float16", 11, -14, 65504.0, 1e-2),
        Precision("float32", 24, -126, float(np.finfo(np.float32).max), 1e-5),
        Precision("float64", 53, -1022, float(np.finfo(np.float64).max), 1e-9),
    )
}
# Number of rows from which the type of a layer's numbers is inferred.
_ROWS_FOR_TYPE = 64


def precision_of(rows: Shaped[np.ndarray, "points features"]) -> Precision:
    """Return the coarsest type that holds all of the numbers: an array of float32 may hold numbers of bfloat16.

    Whole numbers say nothing about the type: an array of them has the type that it is stored in.
    """
    stored = PRECISIONS.get(rows.dtype.name, PRECISIONS["float64"])
    sample = rows[:: max(1, len(rows) // _ROWS_FOR_TYPE)].astype(np.float64)
    finite = sample[np.isfinite(sample)]
    if (finite == np.rint(finite)).all():
        return stored
    return next(one for one in PRECISIONS.values() if one is stored or one.holds(finite))


def coarser(first: Precision, second: Precision) -> Precision:
    """Return the one with the shorter significand."""
    return min(first, second, key=lambda one: one.n_bits)


@dataclass(frozen=True)
class RowDifferences:
    """How each row of the candidate differs from the reference's.

    ``relative`` is the largest difference in a row over the largest magnitude in the reference's row: 0 where both are
    0, infinite where one side has NaN or infinite values that the other lacks. ``typical_ulps`` is the median over the
    entries of a row. Norms are in units of the largest number of the row on either side.
    """

    absolute: Float[np.ndarray, " points"]
    relative: Float[np.ndarray, " points"]
    largest_ulps: Float[np.ndarray, " points"]
    typical_ulps: Float[np.ndarray, " points"]
    cosine: Float[np.ndarray, " points"]
    reference_norm: Float[np.ndarray, " points"]
    candidate_norm: Float[np.ndarray, " points"]
    n_not_finite: Int[np.ndarray, "points 2"]

    def beyond(self, tolerance: float) -> Bool[np.ndarray, " points"]:
        """Return which rows are off by more than ``tolerance``."""
        return self.relative > tolerance


_BLOCK_NUMBERS = 1 << 21


def row_differences(
    reference: Shaped[np.ndarray, "points features"],
    candidate: Shaped[np.ndarray, "points features"],
    precision: Precision,
) -> RowDifferences:
    """Return the differences of the rows, computed in float64, some rows at a time; ``precision``: what an ulp is of.

    Examples
    --------
    >>> rows = np.array([[1.0, 2.0], [0.0, 4.0]])
    >>> row_differences(rows, rows + [[0.0, 0.0], [0.5, 0.0]], PRECISIONS["float32"]).relative.tolist()
    [0.0, 0.125]
    """
    n_rows = max(1, _BLOCK_NUMBERS // max(1, reference.shape[1]))
    blocks = [
        _of_block(
            reference[start : start + n_rows].astype(np.float64),
            candidate[start : start + n_rows].astype(np.float64),
            precision,
        )
        for start in range(0, len(reference), n_rows)
    ]
    return RowDifferences(*(np.concatenate(parts) for parts in zip(*blocks, strict=True)))


def _of_block(a: np.ndarray, b: np.ndarray, precision: Precision) -> tuple[np.ndarray, ...]:
    lacks = np.stack([(~np.isfinite(a)).sum(axis=1), (~np.isfinite(b)).sum(axis=1)], axis=1)
    same = (a == b) | (np.isnan(a) & np.isnan(b))  # the same infinity is the same number
    both_finite = np.isfinite(a) & np.isfinite(b)
    with np.errstate(over="ignore"):  # of opposite numbers near the largest that there is
        apart = np.abs(np.where(both_finite, a, 0.0) - np.where(both_finite, b, 0.0))
    magnitude = np.where(np.isfinite(a), np.abs(a), 0.0).max(axis=1)
    is_wrong = (~same & ~both_finite).any(axis=1)
    absolute = np.where(is_wrong, np.inf, apart.max(axis=1))
    # Difference before quotient: a row of zeros that stays a row of zeros is off by nothing.
    relative = np.where(absolute > 0, absolute / np.maximum(magnitude, _TINY), 0.0)
    ulps = apart / precision.ulp(np.where(both_finite, np.maximum(np.abs(a), np.abs(b)), 0.0))
    finite_a, finite_b = np.where(both_finite, a, 0.0), np.where(both_finite, b, 0.0)
    # In units of the largest number of either row: squares of very large ones are no numbers.
    largest = np.maximum(np.abs(finite_a).max(axis=1), np.abs(finite_b).max(axis=1))
    unit = np.where(largest > 0, largest, 1.0)[:, None]
    finite_a, finite_b = finite_a / unit, finite_b / unit
    norms = np.linalg.norm(finite_a, axis=1), np.linalg.norm(finite_b, axis=1)
    product = norms[0] * norms[1]
    cosine = np.where(
        product > 0, np.einsum("ij,ij->i", finite_a, finite_b) / np.maximum(product, _TINY), (norms[0] == norms[1])
    )
    return (
        absolute, relative, np.where(is_wrong, np.inf, ulps.max(axis=1)), np.median(ulps, axis=1),
        cosine.astype(np.float64), *norms, lacks,
    )  # fmt: skip
