"""The published atlas: a folder that changes whole or not at all."""

import io
import json
import logging
import os
import re
import shutil
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet
import xarray as xr

from lfm_tasks.errors import FolderError
from lfm_tasks.stores.atlas.schema import (
    ZARR,
    AtlasError,
    AtlasStore,
    Manifest,
    Table,
    check_version,
    columns_of,
    damages,
    filled,
    manifest_bytes,
    read_manifest,
)
from lfm_tasks.stores.units.durable import atomic_write, file_digest, mount_points, swap_folders, sync_tree

logger = logging.getLogger(__name__)
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
    key, files = read_manifest(folder, again)
    for damage in damages(folder, files):
        raise AtlasError(f"{folder}: found the atlas damaged, {damage}: {again}")
    return Manifest(key, files)


def atlas_damages(folder: Path) -> list[str]:
    """Return a sentence for each file of the atlas that is not as it was published."""
    try:
        _, files = read_manifest(folder, "run lfm-atlas run to publish it again")
    except AtlasError as error:
        return [str(error)]
    return list(damages(folder, files))


# What an atlas consists of, by name: all that is known of it where its manifest is damaged.
_ATLAS_FILE = re.compile(
    r"atlas\.zarr/([^/]+/)*(zarr\.json|c(/\d+)*)|(edges|models|layers)\.parquet|summary\.json|report\.html|manifest\.json"
)
_EXPECTED = "expected no folder, an empty one, or an atlas"
_INSTEAD = "Move {} away, or name another folder. lfm-atlas removes only what it wrote"


def why_not_replaceable(folder: Path, *, was_published: bool = False) -> str | None:
    """Return why no atlas may be published at ``folder``; None if one may.

    An atlas may take the place of nothing, of an empty folder, and of an atlas: a folder whose manifest lfm-atlas
    wrote and that holds no other files than it lists. Files that it lists may be damaged or missing. A folder without a
    sound manifest counts as an atlas only if ``was_published`` and every file has a name that atlases have. A link
    stands for the folder that it leads to.

    Parameters
    ----------
    folder
        Where an atlas or a baseline is to be published.
    was_published
        Whether the store notes that an atlas was published there.
    """
    target = Path(os.path.realpath(folder))
    if folder.is_symlink() and not target.is_dir():
        return (
            f"{folder}: got a link to {target}, which is no folder, expected a link to a folder. "
            "Mount or make that folder, or remove the link"
        )
    if not os.path.lexists(target):
        return _blocked_by_file(target)
    if not target.is_dir():
        return f"{folder}: got a file, {_EXPECTED}. {_INSTEAD.format('it')}"
    if target in mount_points() or os.path.ismount(target):
        return (
            f"{folder}: got a mount point, which cannot change places with a new atlas in one step, expected a folder "
            f"on a disk. Name a folder inside of it, such as {folder.name}/atlas, or mount the folder above"
        )
    return _foreign(target, folder, was_published=was_published)


def is_atlas(folder: Path) -> bool:
    """Return whether the manifest of ``folder`` is that of an atlas, be its files damaged or not."""
    try:
        read_manifest(folder, "")
    except AtlasError:
        return False
    return True


def _blocked_by_file(target: Path) -> str | None:
    above = next((path for path in target.parents if os.path.lexists(path)), None)
    if above is None or above.is_dir():
        return None
    return f"{target}: got the file {above} where a folder has to be, expected a folder. Move the file away"


def _foreign(target: Path, folder: Path, *, was_published: bool) -> str | None:
    """Return what in the folder ``target``, called ``folder`` in the message, is no part of an atlas; None: nothing."""
    try:
        names = _file_names(target)
    except OSError as error:
        place = error.filename or target
        return f"{folder}: got {place}, which cannot be read ({error.strerror}), {_EXPECTED}. {_INSTEAD.format('it')}"
    inside = sorted(path for path in mount_points() if target in path.parents)
    if inside:
        return f"{folder}: got the mount point {inside[0]} in it, {_EXPECTED}. Unmount it, or name another folder"
    if not names:
        return None
    try:
        _, files = read_manifest(target, "")
    except AtlasError:
        foreign = sorted(name for name in names if not _ATLAS_FILE.fullmatch(name))
        if was_published and not foreign:
            return None
        holds = foreign[0] if foreign else sorted(names)[0]
        return (
            f"{folder}: got a folder with {holds} and no manifest.json of an atlas, {_EXPECTED}. "
            f"{_INSTEAD.format('the folder')}"
        )
    foreign = sorted(names - files.keys() - {"manifest.json"})
    if not foreign:
        return None
    more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
    return (
        f"{folder}: got {foreign[0]}{more}, which the manifest of the atlas there does not list, expected only its own "
        f"files. {_INSTEAD.format('it' if len(foreign) == 1 else 'them')}"
    )


def _file_names(folder: Path) -> set[str]:
    """Return the names of all files and links below ``folder``; OSError if a folder cannot be read."""

    def fail(error: OSError) -> None:
        raise error

    names = set()
    for current, folders, files in os.walk(folder, onerror=fail):
        links = [name for name in folders if os.path.islink(os.path.join(current, name))]
        names |= {Path(current, name).relative_to(folder).as_posix() for name in (*files, *links)}
    return names


def refuse_unless_replaceable(folder: Path, *, was_published: bool = False) -> None:
    """Raise `FolderError` unless an atlas may be published at ``folder``; see `why_not_replaceable`."""
    if refusal := why_not_replaceable(folder, was_published=was_published):
        raise FolderError(refusal)


@contextmanager
def publish(folder: Path, key: str, *, was_published: bool = False) -> Iterator[Path]:
    """Give an empty folder to write the atlas into; put it at ``folder`` in one step when the block ends well.

    A link stays, and the folder that it leads to is replaced.

    Parameters
    ----------
    folder
        Where to publish.
    key
        The key of the atlas.
    was_published
        Whether the store notes that an atlas was published there.

    Raises
    ------
    FolderError
        If something else than an atlas is there, before the block or when it ends.
    """
    refuse_unless_replaceable(folder, was_published=was_published)
    place = Path(os.path.realpath(folder))
    place.parent.mkdir(parents=True, exist_ok=True)
    sweep(place)
    staged = place.with_name(f".{place.name}.{uuid4().hex}.staged")
    staged.mkdir()
    try:
        yield staged
        names = sorted(path.relative_to(staged).as_posix() for path in staged.rglob("*") if path.is_file())
        entries = {
            name: {"sha256": file_digest(staged / name), "bytes": (staged / name).stat().st_size} for name in names
        }
        atomic_write(staged / "manifest.json", manifest_bytes(key, entries))
        sync_tree(staged)
        # The block may have taken hours.
        refuse_unless_replaceable(folder, was_published=was_published)
        former = swap_folders(staged, place)
        if former is not None:
            _remove_leftover(former)
    finally:
        with suppress(OSError):
            _remove_leftover(staged)


def sweep(folder: Path) -> None:
    """Remove what killed runs left beside the atlas; bring the former one back if they left none.

    Leftovers are recognized by the random part of their names, 32 hexadecimal digits; others' folders stay.
    """
    place = Path(os.path.realpath(folder))
    pattern = re.compile(rf"\.{re.escape(place.name)}\.[0-9a-f]{{32}}\.(staged|former)")
    if not place.parent.is_dir():
        return
    leftovers = [path for path in sorted(place.parent.iterdir()) if pattern.fullmatch(path.name)]
    for former in (path for path in leftovers if path.suffix == ".former" and path.is_dir()):
        if os.path.lexists(place):
            _remove_leftover(former)
        else:
            former.rename(place)
    for staged in (path for path in leftovers if path.suffix == ".staged"):
        _remove_leftover(staged)


def _remove_leftover(folder: Path) -> None:
    """Remove a staged or former atlas; keep it, as ``.former``, if it holds a file that is no part of it."""
    if folder.is_symlink() or not folder.is_dir():
        return
    # A staged atlas has no manifest until it is complete; until then all of it was written by a run.
    is_complete = (folder / "manifest.json").exists() or folder.suffix == ".former"
    refusal = _foreign(folder, folder, was_published=True) if is_complete else None
    if refusal is None:
        shutil.rmtree(folder)
        return
    kept = folder.with_suffix(".former")
    if kept != folder:
        folder.rename(kept)
    logger.warning("%s: kept a former atlas, since it holds what is no part of it: %s", kept, refusal)


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
    """Write ``edges.parquet`` from its parts: null where a number is NaN; without any, a table without rows."""
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
    if writer is None:
        write_table("edges", {column.name: [] for column in columns_of("edges")}, folder)


def _arrow_table(table: Table, columns: Mapping[str, Any]) -> pa.Table:
    """Return columns of a published table as Arrow types them."""
    types = {column.name: _ARROW_TYPES[column.dtype] for column in columns_of(table)}
    return pa.table({name: pa.array(values, types[name], from_pandas=True) for name, values in columns.items()})


def edge_batches(folder: Path) -> Iterator[dict[str, list[Any]]]:
    """Yield ``edges.parquet`` in parts, at least one: columns by name, None where there is no number."""
    with pa.parquet.ParquetFile(folder / "edges.parquet") as file:
        if not file.metadata.num_rows:
            yield file.schema_arrow.empty_table().to_pydict()
        for batch in file.iter_batches():
            yield batch.to_pydict()


def write_columns(columns: Mapping[str, Sequence[Any]], path: Path) -> None:
    """Write a Parquet table of any columns; their types are those of the values."""
    partial = io.BytesIO()
    pa.parquet.write_table(pa.table({name: pa.array(values) for name, values in columns.items()}), partial)
    atomic_write(path, partial.getvalue())


def write_table(table: Table, columns: Mapping[str, Any], folder: Path) -> None:
    """Write a table whole: ``models.parquet`` or ``layers.parquet``; null where a number is NaN."""
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


def promote(atlas: Path, baseline: Path, *, was_published: bool = False) -> bool:
    """Copy the atlas over the baseline in one step; return False where it is there already.

    ``was_published``: whether the store notes that a baseline was published there. Raises as `publish`.
    """
    key = published_key(atlas)
    if key is None:
        raise FileNotFoundError(f"{atlas}: found no whole atlas (its manifest.json must fit its files): run it again")
    if published_key(baseline) == key:
        return False
    with publish(baseline, key, was_published=was_published) as folder:
        shutil.copytree(atlas, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("manifest.json"))
    return True


def age_in_days(folder: Path) -> float:
    """Return the days since the atlas in ``folder`` was put there."""
    return max(0.0, (time.time() - (folder / "manifest.json").stat().st_mtime) / 86_400)
