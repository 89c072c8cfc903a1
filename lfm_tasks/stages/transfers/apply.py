"""Carries the rows of a file through a stored map, tile by tile, into a .npy that appears whole or not at all."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from jaxtyping import Float, Int, Shaped

from lfm_tasks.catalog import Catalog
from lfm_tasks.catalog.names import fill
from lfm_tasks.errors import DataError
from lfm_tasks.sources.files.formats import open_array
from lfm_tasks.sources.files.paths import readable
from lfm_tasks.sources.files.stored_array import StoredArray
from lfm_tasks.sources.networks.onnx_models import Head, open_head
from lfm_tasks.sources.opening import DatasetRows, read_dataset
from lfm_tasks.spaces import Space
from lfm_tasks.spectral.transfer.alignment import Alignment, transfer_coordinates
from lfm_tasks.stores.named_maps import NamedMap
from lfm_tasks.stores.units.durable import sync_folder
from lfm_tasks.stores.units.store import UnitStore, digest, file_digest, ids_digest

# Rows that are multiplied together: always these, so that the bits do not depend on how many are read at once.
TILE_ROWS = 256
_CHUNK_BYTES = 32 * 2**20


def apply_map_to_file(
    store: UnitStore, named: NamedMap, source: str, output: Path, *, force: bool = False
) -> tuple[int, int]:
    """Write the rows of ``source`` (a file, or file#key) in the target's coordinates; return the shape of the result.

    float64 stays float64, as whole numbers become; float16 and float32 come as float32.

    Raises
    ------
    ReasonError
        ``missing_source``, ``wrong_dtype``, ``wrong_shape`` and ``not_finite`` for the rows; ``bad_name`` for an
        output that exists (without ``force``), has no folder or is not called .npy.
    """
    check_output(output, force)
    array = _open(source)
    alignment = read_map(store, named)
    n_features, n_results = alignment.source_matrix.shape
    if len(array.shape) != 2 or array.shape[1] != n_features:
        found = f"found the shape {array.shape}, needs (points, {n_features}), as {named.source} was recorded"
        raise DataError("wrong_shape", f"{array.name}: {found}: give activations of that layer")
    if array.dtype.kind not in "fiu":
        found = f"found {array.dtype}, needs real numbers"
        raise DataError("wrong_dtype", f"{array.name}: {found}: convert them to float32")
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
    ReasonError
        ``missing_source`` if its unit is not in the store any more.
    CorruptUnitError
        If it is damaged.
    """
    if not store.has("maps", named.key):
        found = f"found the name {named.name!r} and not its map, which was removed from the store"
        raise DataError("missing_source", f"{found}: lfm-atlas map {named.source} {named.target} fits it again")
    with store.open("maps", named.key) as unit:
        return Alignment(unit.read("source_mean"), unit.read("target_mean"), unit.read("matrix"))


def check_output(output: Path, force: bool) -> None:
    """Raise DataError ``bad_name`` if nothing may be written to ``output``."""
    if output.suffix != ".npy":
        raise DataError("bad_name", f"{output}: found the output {output.name!r}, needs a name that ends in .npy")
    if not output.absolute().parent.is_dir():
        raise DataError("bad_name", f"{output}: found no folder {str(output.parent)!r}: make it first")
    if output.is_dir() or (output.exists() and not force):
        found = "found a folder, needs a file" if output.is_dir() else "found the file, which is not overwritten"
        raise DataError("bad_name", f"{output}: {found}: choose another name, or give --force")


def _open(source: str) -> StoredArray:
    path, mark, key = source.rpartition("#")
    if not mark or Path(source).exists():
        path, key = source, ""
    return open_array(Path(path), path, key or None)


def _chunk_rows(n_features: int, n_results: int) -> int:
    n_rows = _CHUNK_BYTES // (8 * (n_features + n_results))
    return max(1, n_rows // TILE_ROWS) * TILE_ROWS


def _chunks(array: StoredArray, n_rows: int) -> Iterator[Shaped[np.ndarray, "points features"]]:
    """Yield the rows in chunks, the finite ones: DataError ``not_finite`` at the first that is not."""
    with readable(array.name), array.open() as read:
        for start in range(0, array.shape[0], n_rows):
            rows = read(start, min(start + n_rows, array.shape[0]))
            finite = np.isfinite(rows).all(axis=1)
            if not finite.all():
                found = f"found NaN or infinite values, first in row {start + int(np.argmin(finite))}"
                raise DataError("not_finite", f"{array.name}: {found}, needs finite numbers: mend these rows")
            yield rows


@dataclass(frozen=True)
class ClassLabels:
    """The class of each id of a dataset: ``names`` in order, ``classes`` their numbers; ids in ascending order."""

    ids: Shaped[np.ndarray, " points"]
    classes: Int[np.ndarray, " points"]
    names: Shaped[np.ndarray, " classes"]

    def of(self, ids: Shaped[np.ndarray, " some"]) -> Int[np.ndarray, " some"]:
        """Return the numbers of the classes of some ids; −1 for ids that have none."""
        known = dict(zip(self.ids.tolist(), self.classes.tolist(), strict=True))
        return np.array([known.get(name, -1) for name in ids.tolist()], dtype=np.int64)

    @property
    def key(self) -> str:
        """The content address."""
        own = {"ids": ids_digest(self.ids), "classes": self.classes.tolist(), "names": self.names.astype(str).tolist()}
        return digest({"kind": "labels", **own})


def class_labels(rows: DatasetRows) -> ClassLabels | None:
    """Return the classes of a dataset's ids; None where it has no labels."""
    if rows.labels is None:
        return None
    order = np.argsort(rows.ids, kind="stable")
    names, classes = np.unique(rows.labels[order], return_inverse=True)
    return ClassLabels(rows.ids[order], classes, names)


@dataclass(frozen=True)
class Stitched:
    """A head, and what it should say: output number c stands for the label c."""

    head: Head
    labels: ClassLabels

    def accuracy(self, rows: Float[np.ndarray, "points features"], ids: Shaped[np.ndarray, " points"]) -> float:
        """Return the share of rows that the head names rightly, among those whose ids have a label."""
        wanted = self.labels.of(ids)
        known = wanted >= 0
        named = self.head.apply(rows[known].astype(np.float32)).argmax(axis=1)
        return float((named == self.labels.names[wanted[known]]).mean()) if known.any() else np.nan


def stitching_ingredients(space: Space, catalog: Catalog) -> dict[str, Any]:
    """Return what decides a stitched accuracy beside the activations, for a digest: the network's file."""
    model = catalog.models[space.model]
    if model.onnx is None:
        return {}
    path = catalog.root / fill(model.onnx.path, model=space.model, dataset=model.onnx.dataset)
    output = model.head.output if model.head else None
    return {"head": file_digest(path), "layer": space.layer, "output": output, "pool": model.onnx.pool}


def open_stitching(space: Space, catalog: Catalog, labels: ClassLabels | None) -> Stitched:
    """Return the head that starts at ``space``.

    Raises
    ------
    ReasonError
        ``missing_source`` if there are no labels that count classes; and as `open_head`.
    """
    if labels is None:
        raise DataError("missing_source", f"found no labels in the dataset {space.dataset}: add labels to it")
    if labels.names.dtype.kind not in "iu" or labels.names.min() < 0:
        found = f"found labels of type {labels.names.dtype}, needs class numbers from 0, as the head's outputs are"
        raise DataError("wrong_dtype", f"dataset {space.dataset}: {found}: number them")
    return Stitched(open_head(space.model, catalog.models[space.model], catalog, space.layer), labels)


def space_labels(space: Space, catalog: Catalog) -> ClassLabels | None:
    """Return the classes of the dataset that a space is seen through."""
    return class_labels(read_dataset(space.dataset, catalog))
