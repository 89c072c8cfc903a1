"""Compiling loops that numpy has no words for; the machine code stays on disk for the next process."""

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(function: Callable[..., Any]) -> Any:
    """Return the function compiled: its sums are in the order they are written in, so their bits are, too."""
    options = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:
        # No folder to keep it in: neither the package's nor the user's cache can be written.
        return njit(**options)(function)
