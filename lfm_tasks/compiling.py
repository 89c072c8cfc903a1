"""How loops are compiled: their sums keep their order, so that their bits do, and what is compiled is kept on disk."""

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(function: Callable[..., Any]) -> Any:
    """Return the function compiled: its sums are in the order they are written in, so their bits are, too."""
    return _compiled(function, {"contract"})


def compiled_reordered(function: Callable[..., Any]) -> Any:
    """Return the function compiled; sums may be reordered, which makes them vector code, but never by threads."""
    return _compiled(function, {"reassoc", "contract", "nsz"})


def _compiled(function: Callable[..., Any], fastmath: set[str]) -> Any:
    options = {"nogil": True, "error_model": "numpy", "fastmath": fastmath}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:
        # No folder to keep it in: neither the package's nor the user's cache can be written.
        return njit(**options)(function)
