"""The published atlas: a folder that changes whole or not at all."""

import io
import json
import os
import shutil
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet
import xarray as xr

from lfm_tasks.stores.atlas.schema import (
    ZARR,
    AtlasError,
    AtlasStore,
    Manifest,
    Table,
    check_version,
    columns_of,
    filled,
)
from lfm_tasks.stores.units.durable import atomic_write, checksum_of, swap_folders, sync_tree
from lfm_tasks.stores.units.store import file_digest

# 2: the manifest has a checksum of its own.
MANIFEST_VERSION = 2
_FILES = {"atlas.zarr", "edges.parquet", "models.parquet", "layers.parquet", "summary.json", "report.html"}
_ARROW_TYPES = {
    "string": pa.string(),
    "float64": pa.float64(),
    "int32": pa.int32(),
    "list<string>": pa.list_(pa.string()),
}


def published_key(folder: Path) -> str | None:
    """Return the key of the atlas in ``folder`` if every file of it is as published, else None."""
    try:
        return checked_key(folder)
    except AtlasError:
        return None


def checked_key(folder: Path) -> str:
    """Return the key of the atlas in ``folder``; `AtlasError` naming the first file that is not as published."""
    return checked_manifest(folder).key


def checked_manifest(folder: Path) -> Manifest:
    """Return the manifest of the atlas in ``folder``; `AtlasError` naming the first file that is not as published."""
    again = "run lfm-atlas run to publish it again"
    key, files = _manifest(folder, again)
    for damage in _damages(folder, files):
        raise AtlasError(f"{folder}: found the atlas damaged, {damage}: {again}")
    return Manifest(key, files)


def atlas_damages(folder: Path) -> list[str]:
    """Return a sentence for each file of the atlas that is not as it was published."""
    try:
        _, files = _manifest(folder, "run lfm-atlas run to publish it again")
    except AtlasError as error:
        return [str(error)]
    return list(_damages(folder, files))


def _manifest(folder: Path, again: str) -> tuple[str, Mapping[str, Mapping[str, Any]]]:
    """Return the key of an atlas, and its files by name."""
    try:
        content = (folder / "manifest.json").read_bytes()
        manifest = json.loads(content)
        key, files, version = str(manifest["key"]), manifest["files"], manifest["version"]
        expected = {(entry["sha256"], entry["bytes"]) for entry in files.values()}
    except (FileNotFoundError, NotADirectoryError) as error:
        message = f"found no atlas in {folder} (it has no manifest.json), needs the folder that lfm-atlas run published"
        raise AtlasError(f"{message}: give its path, or run lfm-atlas run") from error
    except (OSError, KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise AtlasError(f"{folder}: found the atlas damaged, manifest.json cannot be read: {again}") from error
    # Version 1 had no checksum.
    is_sound = set(manifest) == {"version", "key", "files"} if version == 1 else _manifest_bytes(key, files) == content
    if not is_sound or None in expected or (folder / "manifest.json").is_symlink():
        raise AtlasError(f"{folder}: found the atlas damaged, manifest.json is not as published: {again}")
    return key, files


def _damages(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield the files of an atlas that are not as published."""
    present = {
        Path(current, name).relative_to(folder).as_posix() for current, _, names in os.walk(folder) for name in names
    }
    for name in sorted(present ^ {*files, "manifest.json"}):
        yield f"{name} is {'not part of it' if name in present else 'missing'}"
    for name in sorted(present & files.keys()):
        path = folder / name
        try:
            is_sound = not path.is_symlink() and path.stat().st_size == files[name]["bytes"]
            is_sound = is_sound and file_digest(path) == files[name]["sha256"]
        except OSError as error:
            yield f"{name} cannot be read ({error.strerror})"
            continue
        if not is_sound:
            yield f"{name} is not as published"


def _manifest_bytes(key: str, files: Mapping[str, Any]) -> bytes:
    body = {"version": MANIFEST_VERSION, "key": key, "files": files}
    return json.dumps(body | {"sha256": checksum_of(body)}, indent=1, sort_keys=True).encode()


@contextmanager
def publish(folder: Path, key: str, *, is_ours: bool = False) -> Iterator[Path]:
    """Give an empty folder to write the atlas into; put it at ``folder`` in one step when the block ends well.

    ``is_ours``: whoever knows that an atlas was published there replaces what is left of it, if nothing else is there.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    left = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    is_free = not folder.exists() or (folder.is_dir() and (left <= _FILES if is_ours else not left))
    if not is_free and not (folder / "manifest.json").is_file():
        raise FileExistsError(
            f"{folder} exists and is no atlas (it has no manifest.json): choose another atlas.path, or move it away"
        )
    sweep(folder)
    staged = folder.with_name(f".{folder.name}.{uuid4().hex}.staged")
    staged.mkdir()
    try:
        yield staged
        names = sorted(path.relative_to(staged).as_posix() for path in staged.rglob("*") if path.is_file())
        entries = {
            name: {"sha256": file_digest(staged / name), "bytes": (staged / name).stat().st_size} for name in names
        }
        atomic_write(staged / "manifest.json", _manifest_bytes(key, entries))
        sync_tree(staged)
        former = swap_folders(staged, folder)
        if former is not None:
            shutil.rmtree(former)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what killed runs left beside the atlas; bring the former one back if they left none."""
    for former in folder.parent.glob(f".{folder.name}.*.former"):
        if folder.exists():
            shutil.rmtree(former)
        else:
            former.rename(folder)
    for staged in folder.parent.glob(f".{folder.name}.*.staged"):
        shutil.rmtree(staged)


def write_atlas(atlas: xr.Dataset, groups: Mapping[str, xr.Dataset], folder: Path) -> None:
    """Write ``atlas.zarr``, which xarray reads as it is; ``groups`` lie in it by their paths."""
    with warnings.catch_warnings():
        # Consolidated metadata is an extension of Zarr 3, and what xarray looks for first.
        warnings.filterwarnings("ignore", message="Consolidated metadata", category=UserWarning)
        atlas.to_zarr(folder / "atlas.zarr", zarr_format=3, consolidated=True, mode="w")
        for path, group in groups.items():
            group.to_zarr(folder / "atlas.zarr", group=path, zarr_format=3, consolidated=True, mode="w")


def read_atlas(folder: Path) -> xr.Dataset:
    """Return the scores of the atlas in ``folder``, loaded; of an older schema, filled up to the present one."""
    with open_scores(folder) as atlas:
        loaded: xr.Dataset = atlas.load()
        return loaded


def open_scores(folder: Path, manifest: Manifest | None = None) -> xr.Dataset:
    """Return the scores of the atlas in ``folder``, unread: arrays come from the files when they are used.

    With ``manifest`` they are that atlas's: AtlasError where another was published since.
    """
    summary = read_json(folder / "summary.json")
    check_version(summary.get("schema_version"))
    # chunks=None: xarray's own lazy arrays, no Dask graph.
    return filled(xr.open_zarr(_zarr(folder, manifest), chunks=None, consolidated=True), summary)


def read_groups(folder: Path, manifest: Manifest | None = None) -> dict[str, xr.Dataset]:
    """Return the groups beside the scores by path (``maps/digits``), loaded."""
    root = folder / ZARR
    paths = sorted(path.parent.relative_to(root).as_posix() for path in root.glob("*/*/zarr.json"))
    groups = {}
    for path in paths:
        if json.loads((root / path / "zarr.json").read_bytes())["node_type"] == "group":
            with xr.open_zarr(_zarr(folder, manifest), group=path) as group:
                groups[path] = group.load()
    return groups


def open_group(folder: Path, path: str, manifest: Manifest) -> xr.Dataset | None:
    """Return the group at ``path`` beside the scores (``maps/digits``), unread; None if there is none."""
    if f"{ZARR}/{path}/zarr.json" not in manifest.files or path.count("/") != 1:
        return None
    return xr.open_zarr(_zarr(folder, manifest), group=path, chunks=None, consolidated=True)


def _zarr(folder: Path, manifest: Manifest | None) -> "Path | AtlasStore":
    return folder / ZARR if manifest is None else AtlasStore(folder, manifest)


def write_edges(parts: Iterable[Mapping[str, Any]], folder: Path) -> None:
    """Write ``edges.parquet`` from its parts, at least one: null where a number is NaN."""
    writer = None
    try:
        for columns in parts:
            table = _arrow_table("edges", columns)
            if writer is None:
                writer = pa.parquet.ParquetWriter(folder / "edges.parquet", table.schema, compression="zstd")
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


def _arrow_table(table: Table, columns: Mapping[str, Any]) -> pa.Table:
    """Return columns of a published table as Arrow types them."""
    types = {column.name: _ARROW_TYPES[column.dtype] for column in columns_of(table)}
    return pa.table({name: pa.array(values, types[name], from_pandas=True) for name, values in columns.items()})


def edge_batches(folder: Path) -> Iterator[dict[str, list[Any]]]:
    """Yield ``edges.parquet`` in parts: columns by name, None where there is no number."""
    with pa.parquet.ParquetFile(folder / "edges.parquet") as file:
        for batch in file.iter_batches():
            yield batch.to_pydict()


def write_columns(columns: Mapping[str, Sequence[Any]], path: Path) -> None:
    """Write a Parquet table of any columns; their types are those of the values."""
    partial = io.BytesIO()
    pa.parquet.write_table(pa.table({name: pa.array(values) for name, values in columns.items()}), partial)
    atomic_write(path, partial.getvalue())


def write_table(table: Table, columns: Mapping[str, Any], folder: Path) -> None:
    """Write ``models.parquet`` or ``layers.parquet``: null where a number is NaN."""
    pa.parquet.write_table(_arrow_table(table, columns), folder / f"{table}.parquet", compression="zstd")


def write_json(content: Mapping[str, Any], path: Path) -> None:
    """Write a JSON file, keys in order."""
    path.write_text(json.dumps(content, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file."""
    content = json.loads(path.read_text())
    if not isinstance(content, dict):
        raise TypeError(f"{path.name} holds no object")
    return content


def promote(atlas: Path, baseline: Path) -> bool:
    """Copy the atlas over the baseline in one step; return False where it is there already."""
    key = published_key(atlas)
    if key is None:
        raise FileNotFoundError(f"{atlas}: found no whole atlas (its manifest.json must fit its files): run it again")
    if published_key(baseline) == key:
        return False
    with publish(baseline, key) as folder:
        shutil.copytree(atlas, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("manifest.json"))
    return True


def age_in_days(folder: Path) -> float:
    """Return the days since the atlas in ``folder`` was put there."""
    return max(0.0, (time.time() - (folder / "manifest.json").stat().st_mtime) / 86_400)
