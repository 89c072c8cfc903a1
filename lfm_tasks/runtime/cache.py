"""Values that a process makes once: the oldest are forgotten when they take too much memory."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """What knows how much memory it takes."""

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        ...


Value = TypeVar("Value", bound=Sized)


@dataclass
class Remembered(Generic[Value]):
    """What was made, by what decides it: content addresses, so nothing here is ever out of date.

    ``largest``: what takes more memory than this is not kept.
    """

    most_bytes: int
    largest: int | None = None
    _values: dict[Hashable, Value] = field(default_factory=dict)
    _n_bytes: int = 0

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """Return the value under ``key``, made now if need be."""
        if key not in self._values:
            value = make()
            if self.largest is not None and value.nbytes > self.largest:
                return value
            self._values[key] = value
            self._n_bytes += value.nbytes
            while self._n_bytes > self.most_bytes and len(self._values) > 1:
                self._n_bytes -= self._values.pop(next(iter(self._values))).nbytes
        return self._values[key]
