"""The cache of a process: data of spaces kept from one block of pairs to the next, at most 256 MiB, the latest."""

from collections.abc import Callable, Hashable
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

import numpy as np
from cachetools import LRUCache

MOST_BYTES = 256 << 20
Kept = TypeVar("Kept")

# The addresses name contents: no entry is ever out of date.
_KEPT: LRUCache[Hashable, tuple[Any, int]] = LRUCache(MOST_BYTES, getsizeof=lambda entry: entry[1])


def kept(address: Hashable | None, compute: Callable[[], Kept]) -> Kept:
    """Return the value of ``compute``, computed once for each address; without an address it is not kept."""
    if address is None:
        return compute()
    if (entry := _KEPT.get(address)) is not None:
        found: Kept = entry[0]
        return found
    made = compute()
    n_bytes = _array_bytes(made)
    if n_bytes is not None and n_bytes + 4096 <= _KEPT.maxsize:
        _KEPT[address] = made, n_bytes + 4096
    return made


def _array_bytes(value: object) -> int | None:
    """Return the bytes of the arrays in a dataclass; None of anything else, whose size is not known."""
    if value is None or isinstance(value, int | float | str):
        return 0
    if isinstance(value, np.ndarray):
        return value.nbytes
    if not is_dataclass(value) or isinstance(value, type):
        return None
    sizes = [_array_bytes(getattr(value, field.name)) for field in fields(value)]
    return None if None in sizes else sum(size for size in sizes if size is not None)
