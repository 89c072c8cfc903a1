"""Rates of operations on this machine: four kinds are timed, in .04 s and on one thread."""

import time
from collections.abc import Callable, Mapping
from math import prod

import numpy as np
from scipy.sparse import random_array

from lfm_tasks.runtime.load import Load
from lfm_tasks.threads import one_thread

# Seconds of one operation of each kind on the machine that the shipped figures are from: two cores of an AMD EPYC.
RATES: Mapping[str, float] = {
    "products": 1.6e-11,
    "decompositions": 3.4e-10,
    "entries": 5.0e-10,
    "calls": 5.6e-7,
    "bytes": 3.5e-9,
    "units": 6e-3,
    "tasks": 1.5e-2,
    "seconds": 1.0,
}


def measured_rates() -> dict[str, float]:
    """Return the seconds of one operation of each kind on this machine.

    Products, decompositions, entries and calls are timed: the thread's CPU time, the best of a few, so that other work
    of the machine hardly counts. The other kinds are slower or faster than `RATES` by as much as these are on average.
    """
    generator = np.random.default_rng(0)
    square = np.ones((512, 512), dtype=np.float32)
    symmetric = generator.standard_normal((160, 160))
    symmetric = symmetric + symmetric.T
    graph = random_array((2000, 2000), density=0.02, rng=generator, format="csr")
    vector = generator.standard_normal(2000)
    few = vector[:10]
    with one_thread():
        timed = {
            "products": thread_seconds(lambda: square @ square) / 512**3,
            "decompositions": thread_seconds(lambda: np.linalg.eigh(symmetric)) / 160**3,
            "entries": thread_seconds(lambda: graph @ vector) / graph.nnz,
            "calls": thread_seconds(lambda: [np.add(few, 1) for _ in range(1000)]) / 1000,
        }
    slower = prod(seconds / RATES[kind] for kind, seconds in timed.items()) ** (1 / len(timed))
    return {kind: timed.get(kind, slower * seconds) for kind, seconds in RATES.items()}


def load_seconds(load: Load, rates: Mapping[str, float] = RATES) -> float:
    """Return the CPU seconds of a load; KeyError for a kind of operation without a rate."""
    return sum(rates[kind] * amount for kind, amount in load.work.items())


def thread_seconds(function: Callable[[], object], n_times: int = 7) -> float:
    """Return the CPU seconds of this thread in a call of the function: the least of a few calls."""
    spent = []
    for _ in range(n_times):
        start = time.thread_time()
        function()
        spent.append(time.thread_time() - start)
    # A clock that is too coarse for a fast function must not make it free.
    return max(min(spent), 1e-7)
