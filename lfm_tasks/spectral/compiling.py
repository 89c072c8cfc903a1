"""Loops compiled by numba: one thread, kept on disk for the next process."""

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(function: Callable[..., Any]) -> Any:
    """Return the function compiled, kept on disk for the next process."""
    # Sums may be reordered (that is what makes them vector code), but never by a number of threads: there is one.
    options = {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "nsz"}}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:
        # No folder to keep it in: neither the package's nor the user's cache can be written.
        return njit(**options)(function)
