"""Bytes that stay: atomic, fsynced writes, and folders that swap whole."""

import ctypes
import errno
import os
import sys
from pathlib import Path
from uuid import uuid4

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def write_durably(path: Path, content: bytes) -> None:
    """Write ``content`` so that ``path`` holds all of it or what it held before, also after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid4().hex}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error  # the name that was asked for
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable (a rename alone is not)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Make every file and folder below ``folder`` durable."""
    for current, _, files in os.walk(folder):
        for name in files:
            descriptor = os.open(os.path.join(current, name), os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        sync_folder(Path(current))


def swap_folders(staged: Path, published: Path) -> Path | None:
    """Put ``staged`` at ``published`` in one step; return where the former content is now, if there was any.

    On Linux the two names are exchanged atomically (renameat2). Elsewhere, or on a file system without it, the old
    folder steps aside first: for a moment the name is free, and no file is ever lost.
    """
    if not published.exists():
        staged.rename(published)
        sync_folder(published.parent)
        return None
    if _exchange(staged, published):
        sync_folder(published.parent)
        return staged
    aside = published.with_name(f".{published.name}.{uuid4().hex}.former")
    published.rename(aside)
    staged.rename(published)
    sync_folder(published.parent)
    return aside


def _exchange(first: Path, second: Path) -> bool:
    """Whether the two names could be exchanged atomically."""
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "renameat2"):
        return False
    result = library.renameat2(
        ctypes.c_int(_AT_FDCWD),
        os.fsencode(first),
        ctypes.c_int(_AT_FDCWD),
        os.fsencode(second),
        ctypes.c_uint(_RENAME_EXCHANGE),
    )
    if result == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(first), None, str(second))
