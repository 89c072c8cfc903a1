"""The files of a published atlas, written and read; `publication` puts the folder in its place."""

import io
import json
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from lfm_tasks.stores.atlas.schema import (
    ZARR,
    AtlasError,
    Manifest,
    Table,
    changed_file,
    check_version,
    columns_of,
    damages,
    filled,
    read_manifest,
)
from lfm_tasks.stores.units.durable import atomic_write, file_digest

if TYPE_CHECKING:
    import pyarrow as pa
    import xarray as xr

    from lfm_tasks.stores.atlas.zarr_store import AtlasStore


def published_key(folder: Path) -> str | None:
    """Return the key of the atlas in ``folder`` if every file of it is as published, else None."""
    try:
        return checked_key(folder)
    except AtlasError:
        return None


def checked_key(folder: Path) -> str:
    """Return the key of the atlas in ``folder``; `AtlasError` naming the first file that is not as published."""
    return checked_manifest(folder).key


def checked_manifest(folder: Path, *, read_contents: bool = True) -> Manifest:
    """Return the manifest of the atlas in ``folder``; `AtlasError` naming the first file that is not as published.

    Without contents, which of a large atlas take a second a gigabyte, files are checked by names and sizes: who reads
    one has to check its content, as `AtlasStore`, `ScoreArrays` and `checked_file` do.
    """
    again = "Run lfm-atlas run to publish it again"
    manifest = read_manifest(folder, again)
    for damage in damages(folder, manifest.files, read_contents=read_contents):
        raise AtlasError(f"{folder}: got a damaged atlas, {damage}. {again}")
    return manifest


def checked_file(folder: Path, manifest: Manifest, name: str) -> Path:
    """Return the path of a file of the atlas of this manifest; `AtlasError` if its content is not as published."""
    path = folder / name
    try:
        is_sound = file_digest(path) == manifest.files.get(name, {}).get("sha256")
    except OSError:
        is_sound = False
    if not is_sound:
        raise changed_file(folder, name)
    return path


def is_atlas(folder: Path) -> bool:
    """Return whether the manifest of ``folder`` is that of an atlas, be its files damaged or not."""
    try:
        read_manifest(folder, "")
    except AtlasError:
        return False
    return True


def atlas_damages(folder: Path) -> list[str]:
    """Return a sentence for each file of the atlas that is not as it was published."""
    try:
        manifest = read_manifest(folder, "Run lfm-atlas run to publish it again")
    except AtlasError as error:
        return [str(error)]
    return list(damages(folder, manifest.files))


def write_atlas(atlas: "xr.Dataset", groups: "Mapping[str, xr.Dataset]", folder: Path) -> None:
    """Write ``atlas.zarr``, which xarray reads as it is; ``groups`` lie in it by their paths."""
    with warnings.catch_warnings():
        # Consolidated metadata is an extension of Zarr 3, and what xarray looks for first.
        warnings.filterwarnings("ignore", message="Consolidated metadata", category=UserWarning)
        encoding = _large_chunks(atlas)
        atlas.to_zarr(folder / "atlas.zarr", zarr_format=3, consolidated=True, mode="w", encoding=encoding)
        for path, group in groups.items():
            group.to_zarr(folder / "atlas.zarr", group=path, zarr_format=3, consolidated=True, mode="w")


# Spaces on a side of a chunk, and from how many on: Zarr's own chunks have a megabyte, which of 10,000 spaces makes
# 24,000 files.
_CHUNK_SIDE, _FEWEST_SPACES = 1024, 2048


def _large_chunks(atlas: "xr.Dataset") -> dict[str, dict[str, Any]]:
    """Return the chunks of arrays of pairs of very many spaces; of few spaces Zarr chooses them."""
    if max(atlas.sizes.get("source", 0), atlas.sizes.get("target", 0)) < _FEWEST_SPACES:
        return {}
    side = {"source": _CHUNK_SIDE, "target": _CHUNK_SIDE, "half": atlas.sizes.get("half", 1)}
    return {
        str(name): {"chunks": tuple(min(side.get(str(dim), 1), atlas.sizes[dim]) for dim in array.dims)}
        for name, array in atlas.data_vars.items()
        if {"source", "target"} <= set(array.dims)
    }


def read_atlas(folder: Path) -> "xr.Dataset":
    """Return the scores of the atlas in ``folder``, loaded; of an older schema, filled up to the present one."""
    with open_scores(folder) as atlas:
        loaded: xr.Dataset = atlas.load()
        return loaded


def open_scores(folder: Path, manifest: Manifest | None = None) -> "xr.Dataset":
    """Return the scores of the atlas in ``folder``, unread: arrays come from the files when they are used.

    With ``manifest`` they are that atlas's: AtlasError where another was published since.
    """
    import xarray as xr  # a plan does without it

    summary = read_json(folder / "summary.json")
    check_version(summary.get("schema_version"))
    # chunks=None: xarray's own lazy arrays, no Dask graph.
    return filled(xr.open_zarr(_zarr(folder, manifest), chunks=None, consolidated=True), summary)


def read_groups(folder: Path, manifest: Manifest | None = None) -> "dict[str, xr.Dataset]":
    """Return the groups beside the scores by path (``maps/digits``), loaded."""
    import xarray as xr

    root = folder / ZARR
    paths = sorted(path.parent.relative_to(root).as_posix() for path in root.glob("*/*/zarr.json"))
    groups = {}
    for path in paths:
        if json.loads((root / path / "zarr.json").read_bytes())["node_type"] == "group":
            with xr.open_zarr(_zarr(folder, manifest), group=path) as group:
                groups[path] = group.load()
    return groups


def open_group(folder: Path, path: str, manifest: Manifest) -> "xr.Dataset | None":
    """Return the group at ``path`` beside the scores (``maps/digits``), unread; None if there is none."""
    if f"{ZARR}/{path}/zarr.json" not in manifest.files or path.count("/") != 1:
        return None
    import xarray as xr

    return xr.open_zarr(_zarr(folder, manifest), group=path, chunks=None, consolidated=True)


def _zarr(folder: Path, manifest: Manifest | None) -> "Path | AtlasStore":
    from lfm_tasks.stores.atlas.zarr_store import AtlasStore

    return folder / ZARR if manifest is None else AtlasStore(folder, manifest)


@dataclass(frozen=True)
class Coded:
    """A column of few different values: ``codes`` are the places of its rows in ``values``.

    Arrow takes them from there. As objects of Python they take longer than all numbers beside them.
    """

    values: Sequence[Any]
    codes: Int[np.ndarray, " rows"]


def write_edges(parts: Iterable[Mapping[str, Any]], folder: Path) -> None:
    """Write ``edges.parquet`` from its parts: null where a number is NaN; without any, a table without rows."""
    from pyarrow import parquet

    writer = None
    try:
        for columns in parts:
            table = _arrow_table("edges", columns)
            if writer is None:
                writer = parquet.ParquetWriter(folder / "edges.parquet", table.schema, compression="zstd")
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()
    if writer is None:
        write_table("edges", {column.name: [] for column in columns_of("edges")}, folder)


def _arrow_table(table: Table, columns: Mapping[str, Any]) -> "pa.Table":
    """Return columns of a published table as Arrow types them."""
    import pyarrow as pa  # readers of arrays do not wait for it

    arrow_types = {
        "string": pa.string(),
        "float64": pa.float64(),
        "int32": pa.int32(),
        "list<string>": pa.list_(pa.string()),
    }
    types = {column.name: arrow_types[column.dtype] for column in columns_of(table)}
    return pa.table(
        {
            name: pa.array(column.values, types[name]).take(pa.array(column.codes))
            if isinstance(column, Coded)
            else pa.array(column, types[name], from_pandas=True)
            for name, column in columns.items()
        }
    )


def edge_batches(folder: Path, manifest: Manifest) -> Iterator[dict[str, list[Any]]]:
    """Yield ``edges.parquet`` in parts, at least one: columns by name, None where there is no number."""
    from pyarrow import parquet

    with parquet.ParquetFile(checked_file(folder, manifest, "edges.parquet")) as file:
        if not file.metadata.num_rows:
            yield file.schema_arrow.empty_table().to_pydict()
        for batch in file.iter_batches():
            yield batch.to_pydict()


def write_columns(columns: Mapping[str, Sequence[Any]], path: Path) -> None:
    """Write a Parquet table of any columns; their types are those of the values."""
    import pyarrow as pa
    from pyarrow import parquet

    partial = io.BytesIO()
    parquet.write_table(pa.table({name: pa.array(values) for name, values in columns.items()}), partial)
    atomic_write(path, partial.getvalue())


def write_table(table: Table, columns: Mapping[str, Any], folder: Path) -> None:
    """Write a table whole: ``models.parquet`` or ``layers.parquet``; null where a number is NaN."""
    from pyarrow import parquet

    parquet.write_table(_arrow_table(table, columns), folder / f"{table}.parquet", compression="zstd")


def write_json(content: Mapping[str, Any], path: Path) -> None:
    """Write a JSON file, keys in order."""
    text = json.dumps(content, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False)
    path.write_text(f"{text}\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise TypeError(f"{path.name} holds no object")
    return content


def age_in_days(folder: Path) -> float:
    """Return the days since the atlas in ``folder`` was put there."""
    return max(0.0, (time.time() - (folder / "manifest.json").stat().st_mtime) / 86_400)
