"""How well a number ranks one kind of points above the others."""

import numpy as np
from jaxtyping import Bool, Float


def area_under_curve(values: Float[np.ndarray, " points"], inside: Bool[np.ndarray, " points"]) -> float:
    """Return how often a point inside has a higher value than one outside, ties counted half, in [0, 1].

    The area under the ROC curve; .5 says that the values know nothing. NaN where one of the two kinds is missing.

    Examples
    --------
    >>> area_under_curve(np.array([0.1, 0.4, 0.4, 0.9]), np.array([False, False, True, True]))
    0.875

    References
    ----------
    Mann, Whitney (1947), "On a test of whether one of two random variables is stochastically larger".
    """
    n_inside = int(inside.sum())
    n_outside = len(inside) - n_inside
    if not n_inside or not n_outside:
        return float("nan")
    from scipy.stats import rankdata  # half a second to import

    ranks = rankdata(values)[inside].sum()
    return float((ranks - n_inside * (n_inside + 1) / 2) / (n_inside * n_outside))
