"""The folder of a published atlas: what it may replace, and the one atomic step that replaces it."""

import json
import logging
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from lfm_tasks.errors import FolderError
from lfm_tasks.stores.atlas.files import is_atlas, published_key
from lfm_tasks.stores.atlas.schema import ZARR, AtlasError, Manifest, damages, manifest_bytes, read_manifest
from lfm_tasks.stores.units.durable import (
    NO_LOCKS,
    StoreBusyError,
    atomic_write,
    file_digest,
    holder_bytes,
    holder_in,
    holder_of,
    is_dropping,
    mount_points,
    swap_folders,
    sync_tree,
    try_lock,
)

logger = logging.getLogger(__name__)
# What an atlas consists of, by name: all that is known of it where its manifest is damaged.
_ATLAS_FILE = re.compile(
    r"atlas\.zarr/([^/]+/)*(zarr\.json|c(/\d+)*)|(edges|models|layers)\.parquet|summary\.json|report\.html|manifest\.json"
)
_EXPECTED = "expected no folder, an empty one, or an atlas"
_INSTEAD = "Move {} away, or name another folder. lfm-atlas removes only what it wrote"


def why_not_replaceable(folder: Path, *, was_published: bool = False) -> str | None:
    """Return why no atlas may be published at ``folder``; None if one may.

    An atlas may take the place of nothing, of an empty folder, and of an atlas: a folder whose manifest lfm-atlas
    wrote and that holds no other files or folders than it lists. Files that it lists may be damaged or missing. A
    folder without a sound manifest counts as an atlas only if ``was_published``, its ``atlas.zarr`` is that of an
    atlas, and every file has a name that atlases have. Files of file managers count for nothing. A link stands for the
    folder that it leads to.

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


def _blocked_by_file(target: Path) -> str | None:
    above = next((path for path in target.parents if os.path.lexists(path)), None)
    if above is None or above.is_dir():
        return None
    return f"{target}: got the file {above} where a folder has to be, expected a folder. Move the file away"


def _foreign(target: Path, folder: Path, *, was_published: bool) -> str | None:
    """Return a message on files in ``target``, ``folder`` in the message, that are no part of an atlas, or None."""
    try:
        files, empty_folders = _contents(target)
    except OSError as error:
        place = error.filename or target
        return f"{folder}: got {place}, which cannot be read ({error.strerror}), {_EXPECTED}. {_INSTEAD.format('it')}"
    inside = sorted(path for path in mount_points() if target in path.parents)
    if inside:
        return f"{folder}: got the mount point {inside[0]} in it, {_EXPECTED}. Unmount it, or name another folder"
    if not files and not empty_folders:
        return None
    try:
        manifest = read_manifest(target, "")
    except AtlasError:
        foreign = sorted(name for name in files if not _ATLAS_FILE.fullmatch(name)) + sorted(empty_folders)
        if was_published and not [name for name in foreign if not name.startswith(f"{ZARR}/")] and _is_zarr(target):
            return None
        holds = foreign[0] if foreign else sorted(files)[0]
        return (
            f"{folder}: got a folder with {holds} and no manifest.json of an atlas, {_EXPECTED}. "
            f"{_INSTEAD.format('the folder')}"
        )
    own_folders = {f"{path}/" for name in manifest.files for path in (name, *Path(name).parents)}
    foreign = sorted((files - manifest.files.keys() - {"manifest.json"}) | (empty_folders - own_folders))
    if not foreign:
        return None
    more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
    return (
        f"{folder}: got {foreign[0]}{more}, which the manifest of the atlas there does not list, expected only its own "
        f"files. {_INSTEAD.format('it' if len(foreign) == 1 else 'them')}"
    )


def _contents(folder: Path) -> tuple[set[str], set[str]]:
    """Return the names of all files and links below ``folder``, and of its empty folders, which end in ``/``.

    Files of file managers are left out. OSError if a folder cannot be read.
    """

    def fail(error: OSError) -> None:
        raise error

    files, empty_folders = set(), set()
    for current, folders, names in os.walk(folder, onerror=fail):
        links = [name for name in folders if os.path.islink(os.path.join(current, name))]
        paths = [path for name in (*names, *links) if not is_dropping(path := Path(current, name))]
        files |= {path.relative_to(folder).as_posix() for path in paths}
        if not folders and not paths and Path(current) != folder:
            empty_folders.add(f"{Path(current).relative_to(folder).as_posix()}/")
    return files, empty_folders


def _is_zarr(folder: Path) -> bool:
    """Return whether the arrays in ``folder`` are those of an atlas, by the attributes of their group."""
    return {"schema_version", "convention", "measures"} <= _attributes(folder).keys()


def published_convention(folder: Path) -> str | None:
    """Return the convention that the numbers of the atlas in ``folder`` follow; None where no atlas can be read."""
    return str(_attributes(folder)["convention"]) if _is_zarr(folder) else None


def _attributes(folder: Path) -> dict[str, Any]:
    try:
        attributes = json.loads((folder / ZARR / "zarr.json").read_bytes())["attributes"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return attributes if isinstance(attributes, dict) else {}


def refuse_unless_replaceable(folder: Path, *, was_published: bool = False) -> None:
    """Raise `FolderError` unless an atlas may be published at ``folder``; see `why_not_replaceable`."""
    if refusal := why_not_replaceable(folder, was_published=was_published):
        raise FolderError(refusal)


@contextmanager
def locked_atlas(folder: Path, purpose: str) -> Iterator[None]:
    """Hold the place of an atlas; raise `StoreBusyError`, naming the holder, if another process publishes there.

    The lock is a file beside the folder, which its holder removes: stores do not know of each other, and two catalogs
    may name one folder. A file system without locks gives none; there, the manifest still tells whose atlas it is.

    Raises
    ------
    FolderError
        If somebody's file has the name of the lock.
    """
    place = Path(os.path.realpath(folder))
    place.parent.mkdir(parents=True, exist_ok=True)
    path = place.with_name(f".{place.name}.lfm-atlas.lock")
    if not _may_be_lock(path):
        expected = "expected no file, or the lock of an atlas"
        raise FolderError(f"{path}: got a file that lfm-atlas did not write, {expected}. Move it away")
    with ExitStack() as held:
        try:
            is_ours = held.enter_context(try_lock(path))
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            path.unlink(missing_ok=True)
        else:
            if not is_ours:
                raise StoreBusyError(
                    f"an atlas is being published at {folder} by {holder_of(path) or 'another run'}. Wait until it has "
                    "finished, or stop it; give each catalog an atlas.path and an audit.baseline of its own"
                )
            held.callback(path.unlink, missing_ok=True)
            path.write_bytes(holder_bytes(purpose))
        yield


def _may_be_lock(path: Path) -> bool:
    """Return whether ``path`` is free, or a lock: one that was just made, or whose holder was killed then, is empty.

    The file is read once: its holder may remove it, and another process create it again, at any moment.
    """
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return False
        content = path.read_bytes()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return not content or holder_in(content) is not None


@contextmanager
def publish(folder: Path, key: str, *, catalog: str = "", was_published: bool = False) -> Iterator[Path]:
    """Give an empty folder to write the atlas into; put it at ``folder`` in one step when the block ends well.

    A link stays, and the folder that it leads to is replaced. Where the folder that gives way holds anything that is
    not as it was published, it is kept beside the atlas, as ``.<atlas>.<random>.former``; files of file managers move
    over.

    Parameters
    ----------
    folder
        Where to publish. Two processes must not publish there at once: see `locked_atlas`.
    key
        The key of the atlas.
    catalog
        Whose atlas it is: see `catalog_id`.
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
        # Before the manifest: what has one is whole, after a power cut as well.
        sync_tree(staged)
        atomic_write(staged / "manifest.json", manifest_bytes(Manifest(key, entries, catalog)))
        # The block may have taken hours.
        refuse_unless_replaceable(folder, was_published=was_published)
        _move_droppings(place, staged, entries)
        # What has no manifest would look like half an atlas under the name of a staged one.
        former = swap_folders(staged, place, exchange=is_atlas(place))
        if former is not None:
            _remove_leftover(former)
    finally:
        with suppress(OSError):
            _remove_leftover(staged)


def _move_droppings(place: Path, staged: Path, entries: Mapping[str, Any]) -> None:
    """Copy what file managers left in the former atlas into the new one, as near as possible to where it lay."""
    for current, _, names in os.walk(place):
        for path in (Path(current, name) for name in names):
            name = path.relative_to(place)
            if name.as_posix() in entries or not is_dropping(path):
                continue
            above = next(folder for folder in name.parents if (staged / folder).is_dir())
            if not os.path.lexists(staged / above / name.name):
                with suppress(FileNotFoundError):  # an .nfs file goes when it is closed
                    shutil.copy2(path, staged / above / name.name)


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
        # One that was kept because it is not as published is nothing to bring back.
        if os.path.lexists(place) or published_key(former) is None:
            _remove_leftover(former)
        else:
            former.rename(place)
    for staged in (path for path in leftovers if path.suffix == ".staged"):
        _remove_leftover(staged)


def _remove_leftover(folder: Path) -> None:
    """Remove a staged or former atlas; keep it, as ``.former``, if anything in it is not as it was published."""
    if folder.is_symlink() or not folder.is_dir():
        return
    # A staged atlas has no manifest until it is complete; until then all of it was written by a run.
    is_complete = (folder / "manifest.json").exists() or folder.suffix == ".former"
    changed = _changed(folder) if is_complete else None
    if changed is None:
        shutil.rmtree(folder)
        return
    kept = folder.with_suffix(".former")
    if kept != folder:
        folder.rename(kept)
    logger.warning("%s: kept a former atlas, since not all in it is as it was published: %s", kept, changed)


def _changed(folder: Path) -> str | None:
    """Return the changes in a former atlas that would be lost, in words; None if all its files are as published."""
    if (refusal := _foreign(folder, folder, was_published=False)) is not None:
        return refusal
    try:
        manifest = read_manifest(folder, "")
    except AtlasError:
        return None  # an empty folder
    # A file that is missing was lost before.
    present = {name: entry for name, entry in manifest.files.items() if os.path.lexists(folder / name)}
    return next(damages(folder, present), None)


def promote(atlas: Path, baseline: Path, *, catalog: str = "", was_published: bool = False) -> bool:
    """Copy the atlas over the baseline in one step; return False where it is there already.

    ``was_published``: whether the store notes that a baseline was published there. Raises as `publish`.
    """
    key = published_key(atlas)
    if key is None:
        raise FileNotFoundError(f"{atlas}: got no whole atlas (its manifest.json must fit its files). Run it again")
    if published_key(baseline) == key and read_manifest(baseline, "").catalog == catalog:
        return False
    files = read_manifest(atlas, "").files
    with publish(baseline, key, catalog=catalog, was_published=was_published) as folder:
        for name in files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(atlas / name, folder / name)
    return True
