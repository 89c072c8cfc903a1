"""The compiled product of a graph and a block of eight columns.

Its arguments carry no types: numba takes them from the arrays, and a checked function cannot be compiled.
"""

from typing import no_type_check

import numpy as np

from lfm_tasks.spectral.neighbors.jit import compiled_reordered

# Columns of a block: one cache line of float64.
WIDTH = 8


@compiled_reordered
@no_type_check
def add_product(starts, columns, weights, factors, block, result, own, old):
    """Set ``result`` to ``factors * (W @ block) + own * block + old * result``; no weights means that all are 1.

    Several rows are summed before they are added: the running total waits for itself otherwise.
    """
    total = np.zeros(WIDTH)
    for i in range(len(block)):
        total[:] = 0
        e, end = np.int64(starts[i]), np.int64(starts[i + 1])
        if len(weights) == 0:
            while e + 8 <= end:
                x0, x1, x2, x3 = block[columns[e]], block[columns[e + 1]], block[columns[e + 2]], block[columns[e + 3]]
                x4, x5, x6 = block[columns[e + 4]], block[columns[e + 5]], block[columns[e + 6]]
                x7 = block[columns[e + 7]]
                for c in range(WIDTH):
                    total[c] += ((x0[c] + x1[c]) + (x2[c] + x3[c])) + ((x4[c] + x5[c]) + (x6[c] + x7[c]))
                e += 8
            while e < end:
                x0 = block[columns[e]]
                for c in range(WIDTH):
                    total[c] += x0[c]
                e += 1
        else:
            while e + 4 <= end:
                x0, x1, x2, x3 = block[columns[e]], block[columns[e + 1]], block[columns[e + 2]], block[columns[e + 3]]
                w0, w1, w2, w3 = weights[e], weights[e + 1], weights[e + 2], weights[e + 3]
                for c in range(WIDTH):
                    total[c] += (w0 * x0[c] + w1 * x1[c]) + (w2 * x2[c] + w3 * x3[c])
                e += 4
            while e < end:
                x0, w0 = block[columns[e]], weights[e]
                for c in range(WIDTH):
                    total[c] += w0 * x0[c]
                e += 1
        for c in range(WIDTH):
            result[i, c] = factors[i] * total[c] + own * block[i, c] + old * result[i, c]
