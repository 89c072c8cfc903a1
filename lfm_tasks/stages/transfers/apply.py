"""A stored map is applied to the rows of a file, tile by tile, into a .npy that appears whole or not at all."""

import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import numpy as np
from jaxtyping import Float, Shaped

from lfm_tasks.errors import DataError, FolderError
from lfm_tasks.sources.files.formats import open_array
from lfm_tasks.sources.files.paths import readable
from lfm_tasks.sources.files.stored_array import StoredArray
from lfm_tasks.spectral.transfer.alignment import Alignment, transfer_coordinates
from lfm_tasks.stores.named_maps import NamedMap
from lfm_tasks.stores.outputs import check_output_file
from lfm_tasks.stores.units.durable import sync_folder
from lfm_tasks.stores.units.store import UnitStore

# Rows that are multiplied together: always so many, so that the bits do not depend on how many are read at once.
TILE_ROWS = 256
_CHUNK_BYTES = 32 * 2**20


def apply_map_to_file(
    store: UnitStore, named: NamedMap, source: str, output: Path, *, force: bool = False
) -> tuple[int, int]:
    """Write the rows of a file in the coordinates of the map's target; return the shape of the result.

    Rows of float64 and of whole numbers become float64, rows of float16 and float32 become float32.

    Parameters
    ----------
    store
        Holds the map.
    named
        The map.
    source
        The file with rows in the source's coordinates, or file#key.
    output
        The .npy file to write.
    force
        Whether to overwrite ``output``.

    Raises
    ------
    DataError
        ``missing_source``, ``wrong_dtype``, ``wrong_shape`` and ``not_finite`` for the rows; ``bad_name`` for an
        output that exists (without ``force``), has no folder or is not called .npy.
    """
    check_output(output, force)
    array = _open(source)
    alignment = read_map(store, named)
    n_features, n_results = alignment.source_matrix.shape
    if len(array.shape) != 2 or array.shape[1] != n_features:
        problem = f"found the shape {array.shape}, needs (points, {n_features}), as {named.source} was recorded"
        raise DataError("wrong_shape", f"{array.name}: {problem}: give activations of that layer")
    if array.dtype.kind not in "fiu":
        problem = f"found {array.dtype}, needs real numbers"
        raise DataError("wrong_dtype", f"{array.name}: {problem}: convert them to float32")
    dtype = np.dtype("<f4") if array.dtype.kind == "f" and array.dtype.itemsize <= 4 else np.dtype("<f8")
    partial = output.with_name(f".{output.name}.{uuid4().hex}.partial")
    shape = (array.shape[0], n_results)
    try:
        with partial.open("wb") as file:
            header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for rows in _chunks(array, _chunk_rows(n_features, n_results)):
                file.write(np.ascontiguousarray(apply_map(alignment, rows), dtype=dtype).data)
            file.flush()
            os.fsync(file.fileno())
        array.check_unchanged()
        check_output(output, force)
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(output.absolute().parent)
    return shape


def apply_map(
    alignment: Alignment, rows: Float[np.ndarray, "points source_features"]
) -> Float[np.ndarray, "points target_features"]:
    """Return the rows in the target's coordinates, float64, computed in tiles of `TILE_ROWS`."""
    moved = np.empty((len(rows), alignment.source_matrix.shape[1]))
    for start in range(0, len(rows), TILE_ROWS):
        tile = slice(start, start + TILE_ROWS)
        moved[tile] = transfer_coordinates(alignment, rows[tile].astype(np.float64))
    return moved


def read_map(store: UnitStore, named: NamedMap) -> Alignment:
    """Return the stored map.

    Raises
    ------
    DataError
        ``missing_source`` if its unit is not in the store any more.
    CorruptUnitError
        If it is damaged.
    """
    if not store.has("maps", named.key):
        problem = f"found the name {named.name!r} and not its map, which was removed from the store"
        raise DataError("missing_source", f"{problem}: lfm-atlas map {named.source} {named.target} fits it again")
    with store.open("maps", named.key) as unit:
        return Alignment(unit.read("source_mean"), unit.read("target_mean"), unit.read("matrix"))


def check_output(output: Path, force: bool) -> None:
    """Raise DataError ``bad_name`` if nothing may be written to ``output``."""
    if output.suffix != ".npy":
        raise DataError("bad_name", f"{output}: found the output {output.name!r}, needs a name that ends in .npy")
    if not output.absolute().parent.is_dir():
        raise DataError("bad_name", f"{output}: found no folder {str(output.parent)!r}: make it first")
    try:
        check_output_file(output, force=force)
    except FolderError as error:
        raise DataError("bad_name", str(error)) from error


def _open(source: str) -> StoredArray:
    path, mark, key = source.rpartition("#")
    if not mark or Path(source).exists():
        path, key = source, ""
    return open_array(Path(path), path, key or None)


def _chunk_rows(n_features: int, n_results: int) -> int:
    n_rows = _CHUNK_BYTES // (8 * (n_features + n_results))
    return max(1, n_rows // TILE_ROWS) * TILE_ROWS


def _chunks(array: StoredArray, n_rows: int) -> Iterator[Shaped[np.ndarray, "points features"]]:
    """Yield the rows in chunks; DataError ``not_finite`` at the first row that is not finite."""
    with readable(array.name), array.open() as read:
        for start in range(0, array.shape[0], n_rows):
            rows = read(start, min(start + n_rows, array.shape[0]))
            finite = np.isfinite(rows).all(axis=1)
            if not finite.all():
                problem = f"found NaN or infinite values, first in row {start + int(np.argmin(finite))}"
                raise DataError("not_finite", f"{array.name}: {problem}, needs finite numbers: mend these rows")
            yield rows
