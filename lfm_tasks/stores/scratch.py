"""Arrays that are filled before they are published: in memory, or in files without a name where they are large."""

import os
import tempfile
from math import prod
from pathlib import Path

import numpy as np

# Larger arrays (bytes) lie in files: 3,500 spaces by two measures have less in memory.
LARGE_BYTES = 1 << 30


def filled_array(shape: tuple[int, ...], value: float, dtype: type, folder: Path) -> np.ndarray:
    """Return an array of one value; a large one lies in a file that has no name and goes with the array.

    The system then writes to the disk what memory has no room for.

    Parameters
    ----------
    shape, value, dtype
        As in `numpy.full`.
    folder
        Where a large array's file lies; made if it is missing.

    Raises
    ------
    OSError
        If the disk has no room for a large array: at once, and not when it is filled.
    """
    n_bytes = prod(shape) * np.dtype(dtype).itemsize
    if n_bytes <= LARGE_BYTES:
        return np.full(shape, value, dtype)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):  # not on macOS
            os.posix_fallocate(file.fileno(), 0, n_bytes)
        array: np.ndarray = np.asarray(np.memmap(file, dtype, "w+", shape=shape))
    if value != 0:
        array[...] = value
    return array
