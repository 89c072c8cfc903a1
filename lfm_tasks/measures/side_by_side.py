"""Many prepared spaces in one array for each of their fields, so that a compiled loop compares one with all."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, Generic, TypeVar, cast

import numpy as np

Space = TypeVar("Space")

# Spaces whose lists lie together.
IN_GROUP = 8


@dataclass(frozen=True)
class SideBySide(Generic[Space]):
    """Spaces of one kind, a dataclass, by field.

    Lists of points, of n × k numbers, are groups × n × 8 × k: those of one point of eight spaces lie next to each
    other, and eight spaces stay in a processor's cache. Places of points are in the smallest type that holds them.
    Other fields are spaces × n, or one number a space.
    """

    kind: type[Space]
    arrays: dict[str, np.ndarray]

    @classmethod
    def of(cls, spaces: Iterable[Space], n_spaces: int) -> "SideBySide[Space]":
        """Return so many spaces side by side; each may be made when its turn comes."""
        arrays: dict[str, np.ndarray] = {}
        kind: type[Space] | None = None
        for place, space in enumerate(spaces):
            kind = type(space)
            for field in fields(cast("Any", space)):
                value = np.asarray(getattr(space, field.name))
                if field.name not in arrays:
                    arrays[field.name] = np.empty(_shape(value, n_spaces), dtype=_narrow(value))
                if value.ndim == 2:
                    arrays[field.name][place // IN_GROUP, :, place % IN_GROUP] = value
                else:
                    arrays[field.name][place] = value
        if kind is None:
            raise ValueError("got no space, expected one or more")
        return cls(kind, arrays)

    def __getattr__(self, name: str) -> np.ndarray:
        """Return the array of one field."""
        if name in self.__dict__.get("arrays", {}):
            return self.arrays[name]
        raise AttributeError(name)

    def space(self, place: int) -> Space:
        """Return one of the spaces."""
        values: dict[str, Any] = {}
        for name, array in self.arrays.items():
            if array.ndim == 4:
                one = np.ascontiguousarray(array[place // IN_GROUP, :, place % IN_GROUP])
                values[name] = one.astype(np.int64) if one.dtype.kind == "u" else one
            else:
                values[name] = array[place] if array.ndim == 2 else float(array[place])
        return self.kind(**values)


def _shape(value: np.ndarray, n_spaces: int) -> tuple[int, ...]:
    if value.ndim < 2:
        return (n_spaces, *value.shape)
    return (-(-n_spaces // IN_GROUP), len(value), IN_GROUP, value.shape[1])


def _narrow(value: np.ndarray) -> np.dtype[Any]:
    if value.dtype.kind == "i" and value.ndim == 2:
        return np.dtype(np.uint16 if len(value) <= 1 << 16 else np.int32)
    return value.dtype
