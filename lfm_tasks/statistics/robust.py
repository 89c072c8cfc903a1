"""How far values stand out from a sample that may hold a few outliers itself."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

# The median absolute deviation of a normal distribution, in standard deviations, is 1 / 1.4826.
_NORMAL = 1.4826
# A similarity of 1 would be infinitely close; this one counts as equal.
_EQUAL = 1e-4


@dataclass(frozen=True)
class RobustScale:
    """Median and median absolute deviation (scaled to standard deviations of a normal sample)."""

    median: float
    deviation: float

    def z(self, values: Float[np.ndarray, " values"]) -> Float[np.ndarray, " values"]:
        """Return how many deviations each value lies above the median."""
        return (values - self.median) / self.deviation


def robust_scale(sample: Float[np.ndarray, " sample"], *, least: float = 1e-9) -> RobustScale:
    """Return median and deviation of a sample, at least ``least``: up to half of the sample may be outliers.

    Examples
    --------
    >>> robust_scale(np.array([1.0, 2.0, 3.0, 4.0, 100.0])).median
    3.0
    """
    median = float(np.median(sample))
    deviation = _NORMAL * float(np.median(np.abs(sample - median)))
    return RobustScale(median, max(deviation, least))


def closeness(similarities: Float[np.ndarray, "*values"]) -> Float[np.ndarray, "*values"]:
    """Return −log(1 − s) of calibrated similarities: steps near 1 count as much as they are rare.

    Unrelated models spread over tenths, relatives over hundredths below 1: on this scale both are told apart by one
    width.

    Examples
    --------
    >>> closeness(np.array([0.0])).tolist()
    [-0.0]
    """
    return -np.log(np.maximum(1 - similarities, _EQUAL))
