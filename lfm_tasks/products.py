"""The precision in which an entry of a matrix product has the same bits wherever it stands among the others.

A pair of spaces is multiplied with different companions in different runs, at different places of a product, and must
have the same score in all of them. OpenBLAS computes entries in registers of several rows and columns. Its kernels for
AVX-512 add up in one order for all of them. Those for AVX2 (Haswell, and AMD's Zen) do not in single precision, where
an entry depends on its column modulo 12; in double precision they do, except in last rows that do not fill a register.
"""

from functools import lru_cache
from typing import Any

import numpy as np

from lfm_tasks.threads import one_thread

# Double precision: the numbers of rows of both sides are multiples of this.
ROWS_OF_A_REGISTER = 4


@lru_cache(maxsize=1)
def narrow_type() -> type[np.floating[Any]]:
    """Return float32 if products in single precision do not depend on places on this machine, else float64."""
    generator = np.random.default_rng(0)
    with one_thread():
        for n_rows, n_numbers in ((96, 2500), (48, 300)):
            sides = generator.standard_normal((2, n_numbers)).astype(np.float32)
            first, second = (np.repeat(side[None], n_rows, axis=0) for side in sides)
            product = first @ second.T
            if (product != product[0, 0]).any():
                return np.float64
    return np.float32
