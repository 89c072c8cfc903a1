"""Counts the rows of Arrow IPC data by its headers alone; pyarrow reads all values to tell.

A message is the bytes FFFFFFFF (left out before Arrow 0.15), the length of its metadata, metadata, then the values:
https://arrow.apache.org/docs/format/Columnar.html#encapsulated-message-format. Metadata is a flatbuffer: a table whose
first number leads back to a list of where its fields are: https://flatbuffers.dev/internals.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from io import SEEK_END
from typing import Any

_KINDS = {1: "schema", 2: "dictionary", 3: "record batch"}
_MOST_METADATA = 2**28  # bytes: lists a few hundred bytes of every column


@dataclass(frozen=True)
class Message:
    """One message: its first byte, its kind, its number of rows, and the bytes of its values, packed and unpacked."""

    offset: int
    kind: str
    n_rows: int
    value_bytes: int
    unpacked_bytes: int


def ipc_messages(file: Any, start: int) -> Iterator[Message]:
    """Yield the messages from byte ``start`` on, up to the end mark or the end of the file; ValueError if damaged."""
    size, offset = file.seek(0, SEEK_END), start
    while offset + 8 <= size:
        file.seek(offset)
        head = file.read(8)
        n_mark = 4 if head[:4] == b"\xff\xff\xff\xff" else 0
        n_metadata = int.from_bytes(head[n_mark : n_mark + 4], "little")
        if not n_metadata:
            return
        first = offset + n_mark + 4
        if n_metadata > min(_MOST_METADATA, size - first):
            raise ValueError(f"a message of {n_metadata:,} bytes at byte {offset:,} of {size:,}")
        file.seek(first)
        metadata = _Table(file.read(n_metadata))
        kind, value_bytes = _KINDS.get(metadata.integer(1, 1), "unknown message"), metadata.integer(3, 8)
        if first + n_metadata + value_bytes > size:
            raise ValueError(f"the values of the message at byte {offset:,} end after byte {size:,}")
        header = metadata.table(2) if kind in ("record batch", "dictionary") else None
        batch = header.table(1) if header is not None and kind == "dictionary" else header
        n_rows = 0 if batch is None or kind == "dictionary" else batch.integer(0, 8)
        unpacked_bytes = 0 if batch is None else _unpacked_bytes(file, batch, first + n_metadata, size)
        yield Message(offset, kind, n_rows, value_bytes, unpacked_bytes)
        offset = first + n_metadata + value_bytes


def _unpacked_bytes(file: Any, batch: "_Table", first_value: int, size: int) -> int:
    """Return how many bytes the buffers of a batch declare to unpack to; 0 if they are not packed."""
    if not batch.has(3):
        return 0
    total = 0
    for start, length in batch.buffers(2):
        if length and 0 <= first_value + start <= size - 8:
            file.seek(first_value + start)
            declared = int.from_bytes(file.read(8), "little", signed=True)
            total += length if declared == -1 else declared
    return total


@dataclass(frozen=True)
class _Table:
    """A table of a flatbuffer, at ``place``; the first one of the bytes if that is None."""

    content: bytes
    place: int | None = None

    def integer(self, field: int, n_bytes: int) -> int:
        """Return a whole number of the table; 0 where the field is left out."""
        at = self._find(field)
        return 0 if at is None else self._read(at, n_bytes)

    def table(self, field: int) -> "_Table":
        """Return the table that a field leads to."""
        at = self._find(field)
        if at is None:
            raise ValueError("a message without a header")
        return _Table(self.content, at + self._read(at, 4))

    def has(self, field: int) -> bool:
        """Return whether the table has the field."""
        return self._find(field) is not None

    def buffers(self, field: int) -> Iterator[tuple[int, int]]:
        """Yield first byte and length of each buffer that a field lists."""
        at = self._find(field)
        if at is not None:
            vector = at + self._read(at, 4)
            for index in range(self._read(vector, 4)):
                yield self._read(vector + 4 + 16 * index, 8), self._read(vector + 12 + 16 * index, 8)

    def _find(self, field: int) -> int | None:
        place = self._read(0, 4) if self.place is None else self.place
        fields = place - self._read(place, 4, signed=True)
        known = 4 + 2 * field < self._read(fields, 2)
        offset = self._read(fields + 4 + 2 * field, 2) if known else 0
        return place + offset if offset else None

    def _read(self, at: int, n_bytes: int, *, signed: bool = False) -> int:
        if not 0 <= at <= len(self.content) - n_bytes:
            raise ValueError("a message whose metadata lead out of it")
        return int.from_bytes(self.content[at : at + n_bytes], "little", signed=signed)
