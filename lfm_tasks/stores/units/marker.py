"""The marker of a store, ``store.json``, which distinguishes a store from other folders.

It is the first file of a store, sealed by a checksum, with a random id. A folder that holds anything and has no marker
is refused before anything is written into it. ``lfm_tasks.stores.remote`` has the same for object stores.
"""

import errno
import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from lfm_tasks.errors import FolderError
from lfm_tasks.stores.units.durable import (
    add_checksum,
    holder_of,
    is_dropping,
    locked,
    make_folder,
    read_regular,
    sync_folder,
    verify_checksum,
)

STORE_FILE = "store.json"
_SCHEMA = "lfm-atlas store"
# Raise it when an earlier version would take what this one writes for damaged.
_VERSION = 1
# What runs make in a store beside its marker; a new name goes here, and into the table in docs/architecture.md.
STORE_FOLDERS = frozenset(
    {"locks", "maps", "partial", "prefect", "quarantine", "receipts", "references", "runs", "staging", "units"}
)
STORE_FILES = frozenset({"lock", "checked.json", "digests.json"})
# The marker, while it is being written; what a new disk holds.
_UNFINISHED = re.compile(rf"\.{re.escape(STORE_FILE)}\.[0-9a-f]{{32}}\.partial|lost\+found")
# How file systems answer that cannot give a file a second name.
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)


def store_id(root: Path) -> str | None:
    """Return the id of the store at ``root``; None if there is none, or its marker is damaged or a link."""
    path = root / STORE_FILE
    try:
        return None if path.is_symlink() else parse_marker(read_regular(path), str(root))
    except OSError:
        return None


def marker_bytes() -> bytes:
    """Return the marker of a new store."""
    return add_checksum({"schema": _SCHEMA, "version": _VERSION, "id": uuid4().hex})


def parse_marker(content: bytes, place: str) -> str | None:
    """Return the id in the marker of the store at ``place``; None if these bytes are no marker.

    Raises
    ------
    FolderError
        If a newer version of lfm-atlas has written the store: this one would call it damaged.
    """
    try:
        body = verify_checksum(content)
    except ValueError:
        return None
    if body.get("schema") == _SCHEMA and isinstance(body.get("version"), int) and body["version"] > _VERSION:
        found = f"got a store written by a newer version of lfm-atlas (format {body['version']})"
        needed = f"expected format {_VERSION}, which this version reads"
        raise FolderError(f"{place}: {found}, {needed}. Use the newer version, or name another store")
    if (body.get("schema"), body.get("version")) != (_SCHEMA, _VERSION) or not isinstance(body.get("id"), str):
        return None
    return str(body["id"])


def why_no_store(root: Path) -> str | None:
    """Return why the folder ``root`` must not be used as a store; None if it is one, or may become one."""
    if not os.path.lexists(root):
        return None
    if not root.is_dir():
        problem = "got a file or a link that leads nowhere, expected a folder"
        return f"{root}: {problem}. Move it away, or name another store"
    # Before the marker is read: another process may make the store between the two.
    names = [name for name in sorted(os.listdir(root)) if not _counts_for_nothing(root / name)]
    if store_id(root) is None:
        is_ours = holder_of(root / "lock") is not None
        return why_unmarked(str(root), names, STORE_FOLDERS | STORE_FILES, is_ours=is_ours) if names else None
    for name in sorted(STORE_FOLDERS | STORE_FILES):
        path = root / name
        if path.is_symlink() or (os.path.lexists(path) and path.is_dir() != (name in STORE_FOLDERS)):
            kind = "folder" if name in STORE_FOLDERS else "file"
            problem = f"got the link {name}" if path.is_symlink() else f"got {name}, which is no {kind},"
            return f"{root}: {problem} in the store, expected a {kind} of its own. Remove it, or name another store"
    return None


def why_unmarked(place: str, names: Collection[str], known: Collection[str], *, is_ours: bool) -> str:
    """Return why a place that holds ``names`` and no sound marker is no store, and what to do.

    Parameters
    ----------
    place
        The folder, or the address in an object store.
    names
        What lies in it.
    known
        The names that lie in a store.
    is_ours
        Whether something else than the marker tells that lfm-atlas made it.
    """
    foreign = sorted(set(names) - set(known) - {STORE_FILE})
    if is_ours and not foreign:
        return (
            f"{place}: got a store without a sound {STORE_FILE}, damaged or made by an earlier lfm-atlas, expected one "
            "with it. Remove the store, and the next run computes it again; or name another one"
        )
    shown = foreign or sorted(names)
    more = f" and {len(shown) - 3} more" if len(shown) > 3 else ""
    return (
        f"{place}: got a folder with {', '.join(shown[:3])}{more} that is no store of lfm-atlas (it has no sound "
        f"{STORE_FILE}), expected no folder, an empty one or a store. Name another store, or move the folder away"
    )


def claim_store(root: Path) -> None:
    """Make ``root`` a store if there is none: its marker is the first file in it. Nothing else is changed.

    Raises
    ------
    FolderError
        If the folder is somebody else's; see `why_no_store`.
    """
    if refusal := why_no_store(root):
        raise FolderError(refusal)
    if store_id(root) is not None:
        return
    # The first of two processes makes the store: the second name of a file is never put over another.
    make_folder(root)
    new = root / f".{STORE_FILE}.{uuid4().hex}.partial"
    try:
        with new.open("xb") as file:
            file.write(marker_bytes())
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(new, root / STORE_FILE)
        except FileExistsError:
            pass
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            new.rename(root / STORE_FILE)
    finally:
        new.unlink(missing_ok=True)
    sync_folder(root)


@contextmanager
def held_store(root: Path, purpose: str) -> Iterator[None]:
    """Hold the store at ``root``, which is made if there is none; raises as `claim_store` and `locked`."""
    claim_store(root)
    with locked(root, purpose):
        yield


def _counts_for_nothing(path: Path) -> bool:
    return is_dropping(path) or _UNFINISHED.fullmatch(path.name) is not None
