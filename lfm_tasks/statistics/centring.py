"""centring.py."""

import numpy as np
from jaxtyping import Float


def doubly_centred(kernel: Float[np.ndarray, "points points"]) -> Float[np.ndarray, "points points"]:
    """Return HKH: row and column means taken away."""
    return kernel - kernel.mean(axis=0) - kernel.mean(axis=1, keepdims=True) + kernel.mean()
