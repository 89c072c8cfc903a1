"""One file for the arrays of a unit: their Zarr group as a ZIP archive, stored and not compressed.

A base has six small arrays, which are thirteen files: two thousand of them would be most of a store's files.
"""

import shutil
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile, ZipInfo

PACKED = "arrays.zip"
# The time of every entry, as early as ZIP can say: the same arrays are the same bytes.
_NO_TIME = (1980, 1, 1, 0, 0, 0)


def pack(folder: Path) -> None:
    """Replace all that lies in a unit's folder by one archive of it."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    with ZipFile(folder / PACKED, "x", ZIP_STORED) as archive:
        for path in paths:
            entry = ZipInfo(path.relative_to(folder).as_posix(), _NO_TIME)
            with path.open("rb") as content, archive.open(entry, "w", force_zip64=True) as packed:
                shutil.copyfileobj(content, packed, 1 << 20)
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != PACKED:
            path.unlink()
