"""A reader of ``.tab`` files: a row of numbers a point, separated by tabs, without a line of names."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from lfm_tasks.errors import DataError
from lfm_tasks.sources import Format, ReadRows, StoredArray, check_memory_size, fingerprint, open_bytes


def open_tab(path: Path, name: str, key: str | None) -> StoredArray:
    """Return the table in a ``.tab`` as (points, columns).

    Raises
    ------
    DataError
        ``missing_source`` for a key, since the file is one table, or for more than fits into memory; ``wrong_shape``
        for a file without rows.
    """
    if key is not None:
        raise DataError("missing_source", f"{name}: got key: {key} for a file of one table. Remove the key")
    # Before anything is read: whoever changes the file from now on is noticed.
    version = fingerprint(path)
    shape = _shape(path, name)
    dtype = np.dtype(np.float64)
    check_memory_size(name, shape[0] * shape[1] * dtype.itemsize)

    @contextmanager
    def rows() -> Iterator[ReadRows]:
        # The file is open in this block only. A damaged number is an error that lfm-atlas tells with the file's name.
        with open_bytes(path) as file:
            table = np.loadtxt(file, dtype, comments=None, delimiter="\t", ndmin=2, encoding="utf-8")
        yield lambda start, stop: table[start:stop]

    return StoredArray(name, path, version, shape, dtype, rows, is_read_whole=True)


def _shape(path: Path, name: str) -> tuple[int, int]:
    """Return rows and columns: text has no header that says so, so the lines are counted, one in memory at a time."""
    with open_bytes(path) as file:
        first = file.readline()
        n_rows = bool(first) + sum(1 for _ in file)
    if not n_rows:
        raise DataError("wrong_shape", f"{name}: got no rows, expected at least one. Write it again")
    return n_rows, first.count(b"\t") + 1


FORMAT = Format(open_tab)
