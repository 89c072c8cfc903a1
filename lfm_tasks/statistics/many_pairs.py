"""P-values of many pairs: the best of several layers, and false discoveries over a whole atlas."""

import numpy as np
from jaxtyping import Float


def best_of(p_values: Float[np.ndarray, "... layers"]) -> Float[np.ndarray, "..."]:
    """Return 1 − (1 − min p)^m over the last axis: what the smallest of m p-values is worth (Šidák 1967).

    Exact for independent layers, on the safe side for layers that go together.
    """
    n_layers = p_values.shape[-1]
    return np.asarray(-np.expm1(n_layers * np.log1p(-np.minimum(p_values.min(axis=-1), 1 - 1e-16))))


def false_discovery_rates(p_values: Float[np.ndarray, " pairs"]) -> Float[np.ndarray, " pairs"]:
    """Return for each pair the share of chance finds to expect if it, and all with a smaller p-value, are named.

    Benjamini and Hochberg (1995). NaN, a pair without a p-value, stays NaN and counts for nothing.
    """
    rates = np.full(len(p_values), np.nan)
    present = ~np.isnan(p_values)
    if present.any():
        from scipy.stats import false_discovery_control  # half a second to import

        rates[present] = false_discovery_control(p_values[present])
    return rates
