"""One file for the arrays of a unit: their Zarr group as a ZIP archive, stored and not compressed.

A base has six small arrays, which are thirteen files: two thousand of them would be most of a store's files.
"""

from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import zarr
from zarr.storage import MemoryStore

PACKED = "arrays.zip"
# The time of every entry, as early as ZIP can say: the same arrays are the same bytes.
_NO_TIME = (1980, 1, 1, 0, 0, 0)
# What a group says of itself: Zarr looks for it before each new array, so it stays to the end.
_OF_GROUP = "zarr.json"


class PackedGroup:
    """A Zarr group that is written into an archive little by little: what is not moved there yet is in memory."""

    def __init__(self, folder: Path) -> None:
        self._archive = ZipFile(folder / PACKED, "x", ZIP_STORED)
        self._entries: dict[str, Any] = {}
        self.group = zarr.create_group(MemoryStore(self._entries), zarr_format=3)

    def move(self) -> None:
        """Move what was written to ``group`` into the archive."""
        for name in sorted(self._entries.keys() - {_OF_GROUP}):
            self._move(name)

    def close(self) -> None:
        """Write what is left; nothing can be added then."""
        try:
            self.move()
            self._move(_OF_GROUP)
        finally:
            self._archive.close()

    def _move(self, name: str) -> None:
        self._archive.writestr(ZipInfo(name, _NO_TIME), self._entries.pop(name).as_numpy_array().data)
