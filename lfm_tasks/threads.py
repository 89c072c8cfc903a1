"""One BLAS thread: what workers have, and the calls that people make from Python.

On a busy machine the threads of BLAS wait for each other: a fit of many small products takes ten times as long. And
sums in another order have other last bits: with one thread a call gives what a run gives.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController


@contextmanager
def one_thread() -> Iterator[None]:
    """Limit the BLAS and OpenMP libraries of this process to one thread while the block, or the function, runs.

    Examples
    --------
    >>> @one_thread()
    ... def product(x: float) -> float:
    ...     return x * x
    >>> product(2.0)
    4.0
    """
    with _thread_pools(len(sys.modules)).limit(limits=1):
        yield


@lru_cache(maxsize=1)
def _thread_pools(n_modules: int) -> "ThreadpoolController":
    """Return the thread pools of the loaded libraries; searches them (3 ms) again when more modules are loaded."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
