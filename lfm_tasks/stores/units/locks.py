"""One writer a store: a lock that the operating system frees when its holder dies."""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path


class StoreBusyError(RuntimeError):
    """Another run holds the store."""


@contextmanager
def locked(folder: Path, purpose: str) -> Iterator[None]:
    """Hold the store at ``folder`` for one run; raise `StoreBusyError` at once, naming the holder, if it is taken.

    The lock is an advisory ``flock`` on ``folder/lock``: it falls with its process, so no stale lock can stay behind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreBusyError(
                f"the store {folder} is in use by {_holder(path)}: wait until it has finished, or stop it; "
                "runs with another atlas.store do not get in each other's way"
            ) from None
        os.ftruncate(descriptor, 0)
        started = datetime.now(UTC).isoformat(" ", "seconds")
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "purpose": purpose, "started": started}
        os.pwrite(descriptor, json.dumps(holder).encode(), 0)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def held(path: Path) -> Iterator[bool]:
    """Hold the lock file at ``path``; give False if another process holds it already."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def _holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_text())
        return f"'{holder['purpose']}' (process {holder['pid']} on {holder['host']}, started {holder['started']})"
    except (ValueError, KeyError, TypeError):
        return "another run"
