"""Files that are complete or absent: atomic writes, checksums, manifests, locks."""

import ctypes
import errno
import fcntl
import hashlib
import json
import os
import re
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from lfm_tasks.errors import CorruptUnitError

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def atomic_write(path: Path, content: bytes) -> None:
    """Write ``content`` so that ``path`` holds all of it or what it held before, also after a power cut."""
    make_folder(path.parent)
    partial = path.with_name(f".{path.name}.{uuid4().hex}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error  # not the name of the partial file
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def read_regular(path: Path) -> bytes:
    """Return the bytes of a file; OSError if it is none, or a pipe, which would be waited for."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return path.read_bytes()


def make_folder(folder: Path) -> None:
    """Make ``folder`` and its parents where they are missing, and make their names durable."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


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


def swap_folders(staged: Path, published: Path, *, exchange: bool = True) -> Path | None:
    """Put ``staged`` at ``published`` in one step; return where the former content is now, if there was any.

    On Linux the two names are exchanged atomically (renameat2). Elsewhere, on a file system without it, or without
    ``exchange``, the former folder is renamed to ``.<name>.<random>.former`` first: for a moment there is no folder of
    this name, and no file is ever lost.
    """
    if not published.exists():
        staged.rename(published)
        sync_folder(published.parent)
        return None
    if exchange and _exchange(staged, published):
        sync_folder(published.parent)
        return staged
    aside = published.with_name(f".{published.name}.{uuid4().hex}.former")
    try:
        published.rename(aside)
        staged.rename(published)
    except BaseException:
        # Ctrl+C between the two would leave nothing at this name.
        if aside.exists() and not published.exists():
            aside.rename(published)
        raise
    sync_folder(published.parent)
    return aside


# Files that file managers and file systems leave in any folder that somebody looks at.
_DROPPING = re.compile(r"\.DS_Store|\._.+|(eh)?thumbs\.db|desktop\.ini|\.directory|\.nfs[0-9a-f]{8,}", re.IGNORECASE)


def is_dropping(path: Path) -> bool:
    """Return whether ``path`` is a file that a file manager left there, such as ``.DS_Store``; a link is none."""
    return _DROPPING.fullmatch(path.name) is not None and path.is_file() and not path.is_symlink()


def why_not_writable(folder: Path) -> OSError | None:
    """Return the error that making a file in ``folder`` would end in, None if it may be made; nothing is changed.

    Of a folder that is not there, the one above it counts that is.
    """
    there = next(path for path in (folder, *folder.parents) if os.path.exists(path))
    if not there.is_dir():
        return NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(there))
    effective = os.access in os.supports_effective_ids
    if os.access(there, os.W_OK | os.X_OK, effective_ids=effective):
        return None
    is_read_only = bool(os.statvfs(there).f_flag & os.ST_RDONLY)
    code = errno.EROFS if is_read_only else errno.EACCES
    return OSError(code, os.strerror(code), str(there))


def mount_points() -> frozenset[Path]:
    """Return all mount points of this system, bind mounts too, which `os.path.ismount` misses; none off Linux."""
    try:
        lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    except OSError:
        return frozenset()
    escaped = (line.split(b" ")[4] for line in lines)
    octal = (re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), place) for place in escaped)
    return frozenset(Path(os.fsdecode(place)) for place in octal)


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two names atomically; return False where the system cannot."""
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


# What stands before and after the body; with the body that is every byte of the file.
_START = b'{"body": '
_END = re.compile(rb', "sha256": "([0-9a-f]{64})"\}\Z')
_END_BYTES = len(b', "sha256": ""}') + 64


def add_checksum(body: Mapping[str, Any]) -> bytes:
    """Return ``body`` as JSON, with its SHA-256 beside it; the same body gives the same bytes."""
    text = _text(body)
    return b'%s%s, "sha256": "%s"}' % (_START, text, hashlib.sha256(text).hexdigest().encode())


def verify_checksum(content: bytes) -> dict[str, Any]:
    """Return the body; ValueError unless these are, byte for byte, what `add_checksum` made of it."""
    try:
        body = json.loads(content)["body"]
        is_sound = isinstance(body, dict) and (_is_sealed(content) or _indented(body) == content)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"it is no sealed file ({type(error).__name__})") from error
    if not is_sound:
        raise ValueError("its checksum does not fit")
    return dict(body)


def checksum_of(body: Mapping[str, Any]) -> str:
    """Return the SHA-256 of ``body`` as JSON."""
    return hashlib.sha256(_text(body)).hexdigest()


def _text(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True).encode()


def _is_sealed(content: bytes) -> bool:
    end = _END.fullmatch(content, max(0, len(content) - _END_BYTES))
    if end is None or not content.startswith(_START):
        return False
    return hashlib.sha256(content[len(_START) : end.start()]).hexdigest().encode() == end[1]


def _indented(body: Mapping[str, Any]) -> bytes:
    """Return ``body`` with its checksum as earlier versions wrote it: indented, which is ten times as slow."""
    return json.dumps({"body": body, "sha256": checksum_of(body)}, sort_keys=True, indent=1).encode()


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def manifest_of(folder: Path) -> bytes:
    """Return the manifest of a folder: SHA-256 and size of every file in it, as JSON."""
    entries = {
        name: {"sha256": file_digest(folder / name), "bytes": (folder / name).stat().st_size} for name in _files(folder)
    }
    return json.dumps({"version": 1, "files": entries}, sort_keys=True, indent=1).encode()


def check_folder(unit: Path, manifest: str, what: str) -> None:
    """Raise `CorruptUnitError` naming the file, unless the folder holds what the manifest of this SHA-256 lists."""
    with _as_damage(f"{what}: manifest.json"):
        content = (unit / "manifest.json").read_bytes()
    # A link's content may be right, but what it points to is nobody's to keep.
    if (unit / "manifest.json").is_symlink() or hashlib.sha256(content).hexdigest() != manifest:
        raise CorruptUnitError(f"{what}: manifest.json is not the one committed")
    expected: dict[str, dict[str, Any]] = json.loads(content)["files"]
    present = set(_files(unit)) - {"manifest.json"}
    for name in sorted(present ^ set(expected)):
        raise CorruptUnitError(f"{what}: {name} is {'not expected' if name in present else 'missing'}")
    for name, entry in expected.items():
        path = unit / name
        with _as_damage(f"{what}: {name}"):
            is_sound = not path.is_symlink() and path.stat().st_size == entry["bytes"]
            is_sound = is_sound and file_digest(path) == entry["sha256"]
        if not is_sound:
            raise CorruptUnitError(f"{what}: {name} is damaged")


@contextmanager
def _as_damage(what: str) -> Iterator[None]:
    """Turn the error of a file that is missing, no file, or unreadable into a `CorruptUnitError`."""
    try:
        yield
    except OSError as error:
        # Too many open files or no memory say nothing about the file.
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR):
            raise
        raise CorruptUnitError(f"{what} cannot be read: {error.strerror}") from error


def _files(folder: Path) -> list[str]:
    """Return the names of all files below ``folder``, relative and with forward slashes, in order."""
    names = []
    for current, _, files in os.walk(folder):
        relative = Path(current).relative_to(folder)
        names += [(relative / name).as_posix() for name in files]
    return sorted(names)


class StoreBusyError(RuntimeError):
    """Another run holds the store."""


@contextmanager
def locked(folder: Path, purpose: str) -> Iterator[None]:
    """Hold the store at ``folder`` for one run; raise `StoreBusyError` at once, naming the holder, if it is taken.

    The lock is an advisory ``flock`` on ``folder/lock``: it falls with its process, so no stale lock can stay behind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "lock"
    # A link is not followed: the file that it leads to would be emptied.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    is_ours = True
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            is_ours = False
        except OSError as error:
            raise _refused_lock(error, path) from error
        if not is_ours:
            raise StoreBusyError(
                f"the store {folder} is in use by {holder_of(path) or 'another run'}. Wait until it has finished, or "
                "stop it; runs with another atlas.store do not get in each other's way"
            )
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, holder_bytes(purpose), 0)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def try_lock(path: Path) -> Iterator[bool]:
    """Hold the lock file at ``path``; yield False if another process holds it already.

    The holder may remove the file: who waits for the lock of a removed file takes that of the new one.
    """
    descriptor, is_ours = -1, True
    try:
        while is_ours and (descriptor < 0 or not _is_file_at(descriptor, path)):
            if descriptor >= 0:
                os.close(descriptor)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                is_ours = False
            except OSError as error:
                raise _refused_lock(error, path) from error
        yield is_ours
    finally:
        if descriptor >= 0:
            os.close(descriptor)


@contextmanager
def wait_for_lock(path: Path) -> Iterator[bool]:
    """Hold the lock file at ``path`` once every other process has let go; yield False where there are no locks.

    The file stays, so all processes lock the same one. The lock falls with its process.
    """
    make_folder(path.parent)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


# How file systems answer that have no locks, or no room for one more.
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


def _refused_lock(error: OSError, path: Path) -> OSError:
    if error.errno not in NO_LOCKS:
        return error
    problem = f"got no lock from this file system ({error.strerror}), expected one, so that runs do not get mixed up"
    return OSError(error.errno, f"{problem}. Put atlas.store on a file system with flock", str(path))


def _is_file_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


_HOLDER = {"pid", "host", "purpose", "started"}


def holder_bytes(purpose: str) -> bytes:
    """Return the bytes that the holder of a lock writes into its file."""
    started = datetime.now(UTC).isoformat(" ", "seconds")
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "purpose": purpose, "started": started}
    return json.dumps(holder).encode()


def holder_of(path: Path) -> str | None:
    """Return in words who wrote a lock file; None if it was no holder of a lock, or it cannot be read."""
    try:
        return holder_in(read_regular(path))
    except OSError:
        return None


def holder_in(content: bytes) -> str | None:
    """Return in words who wrote the content of a lock file; None if it was no holder of a lock."""
    try:
        holder = json.loads(content)
        if holder.keys() != _HOLDER:
            return None
    except (ValueError, AttributeError, RecursionError):
        return None
    return f"'{holder['purpose']}' (process {holder['pid']} on {holder['host']}, started {holder['started']})"
