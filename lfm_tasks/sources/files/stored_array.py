"""`StoredArray`: the header of one array of a file of any kind, and its rows when they are requested."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path

import numpy as np
from jaxtyping import Int, Shaped

from lfm_tasks.errors import DataError
from lfm_tasks.sources.files.paths import Fingerprint, fingerprint, open_bytes, readable

MAX_MEMORY_BYTES = 4 * 2**30  # what must be in memory whole: compressed or column-wise arrays, ids, inputs
# Zeros deflate at most 1030 : 1, real activations hardly 20 : 1; small arrays may be all zeros.
_MAX_RATIO = 200
_MAX_BYTES_AT_ANY_RATIO = 64 * 2**20
_BLOCK_BYTES = 2**23
_PART_TEXTS = 256
_CHARACTER_BYTES = 4

ReadRows = Callable[[int, int], Shaped[np.ndarray, "rows ..."]]
RowReader = Callable[[Int[np.ndarray, " selected"]], Shaped[np.ndarray, "selected ..."]]


@dataclass(frozen=True)
class StoredArray:
    """One array of a file, its header read.

    Parameters
    ----------
    name
        How messages call the array.
    path
        The file, or the folder of files.
    fingerprint
        What `fingerprint` returned for ``path`` before the header was read.
    shape, dtype
        As the header declares them; text has the dtype ``U`` (or ``S``).
    open
        Returns a context manager whose value reads rows: from a first one up to, without, a last one.
    block_rows
        Rows that are decoded together, from multiples of this number on.
    is_read_whole
        Whether all rows are read at once, whichever are needed.
    parts
        The arrays that this one was put together from, if it was.
    """

    name: str
    path: Path
    fingerprint: Fingerprint
    shape: tuple[int, ...]
    dtype: np.dtype
    open: Callable[[], AbstractContextManager[ReadRows]]
    block_rows: int = 1
    is_read_whole: bool = False
    parts: tuple["StoredArray", ...] = ()

    @property
    def memory_bytes(self) -> int:
        """Bytes that are in memory while any of its rows are read."""
        row_bytes = prod(self.shape[1:]) * self.dtype.itemsize
        return row_bytes * (self.shape[0] if self.is_read_whole else min(self.block_rows, self.shape[0]))

    @contextmanager
    def rows(self) -> Iterator[RowReader]:
        """Yield a function from row indices to these rows; the file stays open meanwhile."""
        with ExitStack() as stack:
            with readable(self.name):
                read = stack.enter_context(self.open())
            yield lambda rows: self._gather(read, rows)

    def load(self) -> Shaped[np.ndarray, "..."]:
        """Return the whole array."""
        check_memory_size(self.name, prod(self.shape) * self.dtype.itemsize)
        with readable(self.name), self.open() as read:
            whole = read(0, self.shape[0])
        self.check_unchanged()
        return whole

    def sha256(self) -> str:
        """Return the SHA-256 of dtype, shape and values, row after row, little-endian: the same in any kind of file."""
        little = self.dtype.newbyteorder("<")
        hasher = hashlib.sha256(f"{little.str}:{self.shape}".encode())
        n_rows = max(1, _BLOCK_BYTES // max(1, prod(self.shape[1:]) * self.dtype.itemsize))
        n_rows = -(-n_rows // self.block_rows) * self.block_rows
        with readable(self.name), self.open() as read:
            for start in range(0, self.shape[0], n_rows):
                rows = np.ascontiguousarray(read(start, min(start + n_rows, self.shape[0])), dtype=little)
                hasher.update(rows.reshape(-1).view(np.uint8).data if rows.size else b"")
        self.check_unchanged()
        return hasher.hexdigest()

    def check_unchanged(self) -> None:
        """Raise DataError if the file is another one than when its header was read."""
        seen = {part.path: part.fingerprint for part in self.parts} or {self.path: self.fingerprint}
        with readable(self.name):
            is_changed = any(fingerprint(path) != before for path, before in seen.items())
        if is_changed:
            raise DataError("missing_source", f"{self.name}: the file changed while it was read. Start again")

    def _gather(self, read: ReadRows, rows: Int[np.ndarray, " selected"]) -> Shaped[np.ndarray, "selected ..."]:
        if not len(rows):
            return np.empty((0, *self.shape[1:]), self.dtype)
        if np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows))):
            with readable(self.name):
                return read(int(rows[0]), int(rows[-1]) + 1)
        order = np.argsort(rows, kind="stable")
        ascending = rows[order]
        # A gap that lies within one block costs nothing: the block is decoded anyway.
        apart = (np.diff(ascending) > 1) & (np.diff(ascending // self.block_rows) != 0)
        gathered = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for first, last in pairwise([0, *(np.flatnonzero(apart) + 1).tolist(), len(rows)]):
            chosen = ascending[first:last] - ascending[first]
            with readable(self.name):
                block = read(int(ascending[first]), int(ascending[last - 1]) + 1)
            gathered[first:last] = block if len(block) == len(chosen) == chosen[-1] + 1 else block[chosen]
        places = np.empty_like(order)
        places[order] = np.arange(len(order))
        return gathered[places]


def check_memory_size(name: str, n_bytes: int) -> None:
    """Raise DataError if ``n_bytes`` that must be in memory at once are too many.

    Parameters
    ----------
    name
        Name of the file in the message.
    n_bytes
        Memory that is needed at once (bytes).

    Raises
    ------
    DataError
        ``missing_source`` above the limit.
    """
    if n_bytes > MAX_MEMORY_BYTES:
        limit = f"at most {MAX_MEMORY_BYTES:,}: store it uncompressed, in C order"
        raise DataError("missing_source", f"{name}: got more bytes than fit into memory, expected {limit}")


def check_compression_ratio(name: str, n_bytes: int, n_packed: int) -> None:
    """Raise DataError if ``n_bytes`` from ``n_packed`` of a file are more than activations ever pack to.

    Parameters
    ----------
    name
        Name of the file in the message.
    n_bytes
        Size once unpacked (bytes).
    n_packed
        Size in the file (bytes).

    Raises
    ------
    DataError
        ``missing_source`` for a ratio that only a decompression bomb has.
    """
    ratio = n_bytes / max(n_packed, 1)
    if n_bytes > _MAX_BYTES_AT_ANY_RATIO and ratio > _MAX_RATIO:
        problem = f"got {n_bytes:,} bytes packed {ratio:.0f} : 1"
        raise DataError("missing_source", f"{name}: {problem}, expected {_MAX_RATIO} : 1 at most. Store it unpacked")


def text_array(name: str, n_texts: int, part: Callable[[int, int], Sequence[str]]) -> Shaped[np.ndarray, " texts"]:
    """Return all texts of ``part(start, stop)`` as one array; DataError if they are too large.

    A text that repeats may be stored once in the file; in the array each takes as much room as the longest.

    Parameters
    ----------
    name
        Name of the file in the message.
    n_texts
        Number of texts.
    part
        Returns the texts from ``start`` to ``stop``.
    """
    texts: list[str] = []
    longest = n_characters = 0
    for start in range(0, n_texts, _PART_TEXTS):
        texts += part(start, min(start + _PART_TEXTS, n_texts))
        lengths = [len(text) for text in texts[start:]]
        longest, n_characters = max(longest, *lengths), n_characters + sum(lengths)
        if max(longest * len(texts), n_characters) * _CHARACTER_BYTES > MAX_MEMORY_BYTES:
            problem = f"got {n_texts:,} texts, one of {longest:,} characters"
            raise DataError("missing_source", f"{name}: {problem}, expected short ones: are these ids or labels?")
    return np.array(texts, dtype=str)


@contextmanager
def raw_rows(path: Path, shape: tuple[int, ...], dtype: np.dtype, first_byte: int) -> Iterator[ReadRows]:
    """Yield a reader of rows that lie one after another from ``first_byte`` on, as they are in memory.

    Parameters
    ----------
    path
        A file, local or remote.
    shape
        Shape of the whole array, rows first.
    dtype
        Type of its numbers, byte order included.
    first_byte
        Offset of the first row (bytes).
    """
    row_bytes = prod(shape[1:]) * dtype.itemsize
    with open_bytes(path) as file:

        def read(start: int, stop: int) -> Shaped[np.ndarray, "rows ..."]:
            # Not memory-mapped: a mapped file that shrinks kills the process, a short read is an error like any other.
            content = np.empty((stop - start) * row_bytes, np.uint8)
            file.seek(first_byte + start * row_bytes)
            if file.readinto(content.data) != content.size:
                raise EOFError("the file ends too early")
            if not content.size:
                return np.empty((stop - start, *shape[1:]), dtype)
            return content.view(dtype).reshape(stop - start, *shape[1:])

        yield read
