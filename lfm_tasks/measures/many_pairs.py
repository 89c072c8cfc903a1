"""P-values of many pairs: the best of several layers, and discoveries over a whole atlas."""

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import false_discovery_control


def best_of(p_values: Float[np.ndarray, "... layers"]) -> Float[np.ndarray, "..."]:
    """Return 1 − (1 − min p)^m over the last axis: what the smallest of m p-values is worth (Šidák 1967).

    Exact for independent layers, on the safe side for layers that go together.
    """
    n_layers = p_values.shape[-1]
    return np.asarray(-np.expm1(n_layers * np.log1p(-np.minimum(p_values.min(axis=-1), 1 - 1e-16))))


def discoveries(p_values: Float[np.ndarray, " pairs"], *, rate: float = 0.05) -> Bool[np.ndarray, " pairs"]:
    """Return which pairs stand out when at most ``rate`` of those named may be chance (Benjamini, Hochberg 1995).

    NaN, a pair without a p-value, is never one.
    """
    found = np.zeros(len(p_values), dtype=bool)
    present = ~np.isnan(p_values)
    if present.any():
        found[present] = false_discovery_control(p_values[present]) <= rate
    return found
