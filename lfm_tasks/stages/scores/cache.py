"""The caches of a process: data of spaces kept from one block of pairs to the next, the latest.

Numbers that are small beside what they take to compute (sums for chance, lists of neighbors) have a cache of their own:
rows, and what measures prepare of them, are large and would drive them out.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

import numpy as np
from cachetools import LRUCache

MOST_BYTES = 256 << 20
# Of rows and prepared spaces, and of one of them.
MOST_SPACES, LARGEST_SPACE = 384 << 20, 4 << 20
# Of a value that travels with jobs.
LARGEST_SHARED = 64 << 10
Kept = TypeVar("Kept")

# The addresses name contents: no entry is ever out of date.
_KEPT: LRUCache[Hashable, tuple[Any, int]] = LRUCache(MOST_BYTES, getsizeof=lambda entry: entry[1])
_SPACES: LRUCache[Hashable, tuple[Any, int]] = LRUCache(MOST_SPACES, getsizeof=lambda entry: entry[1])


def kept(address: Hashable | None, compute: Callable[[], Kept]) -> Kept:
    """Return the value of ``compute``, computed once for each address; without an address it is not kept."""
    return _kept_in(_KEPT, MOST_BYTES, 1.0, address, compute)


def keep(address: Hashable | None, value: object) -> None:
    """Keep a value in place of the one that is kept under an address."""
    if address is not None:
        _put_in(_KEPT, MOST_BYTES, 1.0, address, value)


def add_kept(entries: Mapping[Hashable, Any]) -> None:
    """Keep values that another process computed."""
    for address, value in entries.items():
        if address not in _KEPT:
            keep(address, value)


def is_small(value: object) -> bool:
    """Return whether a value is small enough to travel from one process to all others."""
    n_bytes = _array_bytes(value)
    return n_bytes is not None and n_bytes <= LARGEST_SHARED


def kept_space(address: Hashable | None, compute: Callable[[], Kept]) -> Kept:
    """Return the value of ``compute``, the rows of a space or what is prepared of them, as `kept` does.

    Half as many bytes again are counted for what the value itself computes later, such as rows in single precision.
    """
    return _kept_in(_SPACES, LARGEST_SPACE, 1.5, address, compute)


def _kept_in(
    cache: LRUCache[Hashable, tuple[Any, int]],
    largest: int,
    growth: float,
    address: Hashable | None,
    compute: Callable[[], Kept],
) -> Kept:
    if address is None:
        return compute()
    if (entry := cache.get(address)) is not None:
        found: Kept = entry[0]
        return found
    made = compute()
    _put_in(cache, largest, growth, address, made)
    return made


def _put_in(
    cache: LRUCache[Hashable, tuple[Any, int]], largest: int, growth: float, address: Hashable, made: object
) -> None:
    n_bytes = _array_bytes(made)
    if n_bytes is not None and n_bytes + 4096 <= largest:
        cache[address] = made, int(growth * n_bytes) + 4096


def _array_bytes(value: object) -> int | None:
    """Return the bytes of the arrays in a dataclass or a tuple; None of anything else, whose size is not known."""
    if value is None or isinstance(value, int | float | str):
        return 0
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, tuple):
        sizes = [_array_bytes(part) for part in value]
    elif is_dataclass(value) and not isinstance(value, type):
        sizes = [_array_bytes(getattr(value, field.name)) for field in fields(value)]
    else:
        return None
    return None if None in sizes else sum(size for size in sizes if size is not None)
