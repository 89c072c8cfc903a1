"""Counts the rows of Arrow IPC data by its headers alone; pyarrow would read all values to do so.

A message is the bytes FFFFFFFF (left out before Arrow 0.15), the length of its metadata, metadata, then the values:
https://arrow.apache.org/docs/format/Columnar.html#encapsulated-message-format. Metadata is a flatbuffer: a table whose
first number leads back to a list of where its fields are: https://flatbuffers.dev/internals.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from io import SEEK_END
from itertools import pairwise
from typing import Any

FILE_MAGIC = b"ARROW1"
_MOST_PADDING = 128  # bytes between messages; polars aligns them to 64
_TRAILER_BYTES = 4 + len(FILE_MAGIC)

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


def stream_messages(file: Any) -> Iterator[Message]:
    """Yield the messages of a stream, up to the end mark or the end of the file; ValueError if damaged."""
    size, offset = file.seek(0, SEEK_END), 0
    while offset + 8 <= size:
        read = _message_at(file, offset, size)
        if read is None:
            return
        message, offset = read
        yield message


def file_messages(file: Any) -> list[Message]:
    """Return the messages that the footer of a file lists, dictionaries first; ValueError if damaged.

    Between them may lie what no footer lists, such as the padding of polars:
    https://arrow.apache.org/docs/format/Columnar.html#ipc-file-format.
    """
    size = file.seek(0, SEEK_END)
    file.seek(max(0, size - _TRAILER_BYTES))
    trailer = file.read(_TRAILER_BYTES)
    n_footer = int.from_bytes(trailer[:4], "little")
    if len(trailer) < _TRAILER_BYTES or trailer[4:] != FILE_MAGIC or not 0 < n_footer <= min(_MOST_METADATA, size):
        raise ValueError("a file without a footer: it is cut off")
    file.seek(size - _TRAILER_BYTES - n_footer)
    footer = _Table(file.read(n_footer))
    found, ends = [], []
    for field, kind in ((2, "dictionary"), (3, "record batch")):
        for offset, _, _ in footer.blocks(field):
            read = _message_at(file, offset, size) if 0 <= offset <= size - 8 else None
            if read is None or read[0].kind != kind:
                raise ValueError(f"a footer that lists no {kind} at byte {offset:,}")
            found.append(read[0])
            ends.append((offset, read[1]))
    ends.sort()
    for (_, end), (start, _) in pairwise([*ends, (size - _TRAILER_BYTES - n_footer, 0)]):
        if not 0 <= start - end <= _MOST_PADDING:
            problem = "messages which overlap" if start < end else f"no message in {start - end:,} bytes"
            raise ValueError(f"a footer that lists {problem}")
    return found


def _message_at(file: Any, offset: int, size: int) -> tuple[Message, int] | None:
    """Return the message at a byte, and the first byte behind its values; None for the end mark."""
    file.seek(offset)
    head = file.read(8)
    n_mark = 4 if head[:4] == b"\xff\xff\xff\xff" else 0
    n_metadata = int.from_bytes(head[n_mark : n_mark + 4], "little")
    if not n_metadata:
        return None
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
    message = Message(offset, kind, n_rows, value_bytes, unpacked_bytes)
    return message, first + n_metadata + value_bytes


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

    def blocks(self, field: int) -> Iterator[tuple[int, int, int]]:
        """Yield first byte, bytes of metadata and bytes of values of each message that a field of a footer lists."""
        at = self._find(field)
        if at is not None:
            vector = at + self._read(at, 4)
            for index in range(self._read(vector, 4)):
                place = vector + 4 + 24 * index
                yield self._read(place, 8), self._read(place + 8, 4), self._read(place + 16, 8)

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
