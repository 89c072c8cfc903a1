"""Compilation of loops by numba: sums keep their order, so that results are reproducible bit by bit; code is cached.

numba is imported when the first loop runs: a plan, which imports the stages and runs none, does without it.
"""

from collections.abc import Callable
from functools import cached_property, update_wrapper
from typing import Any


def compiled(function: Callable[..., Any]) -> Any:
    """Return the function compiled: its sums are in the order they are written in, so their bits are, too."""
    return _Compiled(function, {"contract"})


def compiled_reordered(function: Callable[..., Any]) -> Any:
    """Return the function compiled; sums may be reordered, which makes them vector code, but never by threads."""
    return _Compiled(function, {"reassoc", "contract", "nsz"})


class _Compiled:
    """A function that numba compiles when it is first called, by Python or by another compiled function."""

    def __init__(self, function: Callable[..., Any], fastmath: set[str]) -> None:
        self.py_func, self._fastmath = function, fastmath
        update_wrapper(self, function)

    def __call__(self, *arguments: Any) -> Any:
        return self.dispatcher(*arguments)

    @cached_property
    def dispatcher(self) -> Any:
        """The function as numba has it."""
        from numba import njit, types
        from numba.extending import typeof_impl

        # Compiled functions that call this one find numba's own function in its place.
        typeof_impl.register(_Compiled)(lambda value, context: types.Dispatcher(value.dispatcher))
        options = {"nogil": True, "error_model": "numpy", "fastmath": self._fastmath}
        try:
            return njit(cache=True, **options)(self.py_func)
        except RuntimeError:
            # No folder to keep it in: neither the package's nor the user's cache can be written.
            return njit(**options)(self.py_func)
