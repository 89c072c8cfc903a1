"""Pearson's type III curve, standardised: scipy.stats has it too, and takes half a second of every worker to import."""

import numpy as np
from scipy.special import gammainc, gammaincc, gammainccinv, gammaincinv, ndtr, ndtri

# Below this skewness the curve is a normal one to all digits that matter; scipy.stats draws the line here as well.
_SMALLEST_SKEWNESS = 1.6e-5


def upper_share(value: float, skewness: float) -> float:
    """Return P(X > ``value``) for the curve of mean 0, deviation 1 and this skewness.

    With a = 4/s² and x = a + 2z/s it is Q(a, x) for s > 0, and P(a, x) for s < 0: incomplete gamma functions.
    """
    if abs(skewness) < _SMALLEST_SKEWNESS:
        return float(ndtr(-value))
    shape = 4 / skewness**2
    place = np.maximum(shape + 2 * value / skewness, 0.0)
    return float(gammaincc(shape, place) if skewness > 0 else gammainc(shape, place))


def value_below(share: float, skewness: float) -> float:
    """Return the value that a ``share`` of the same curve lies below."""
    if abs(skewness) < _SMALLEST_SKEWNESS:
        return float(ndtri(share))
    shape = 4 / skewness**2
    place = gammaincinv(shape, share) if skewness > 0 else gammainccinv(shape, share)
    return float((place - shape) * skewness / 2)
