"""The lock of a store in an object store: one object, changed on conditions only, so that it has one holder at a time.

The object is absent, free, or held. Nobody removes it: a removal cannot be made to depend on what is removed.

=========  ==============================================================================================
take       absent: put on the condition that there is none. Free, or held but not renewed for
           `LEASE_SECONDS`: replaced on the condition that it is the version that was read.
renew      the holder replaces it on the same condition, every `RENEW_SECONDS`.
release    the holder replaces it by a free one, on the same condition.
check      before the holder, or one of its workers, writes what counts: it reads whose the lock is.
=========  ==============================================================================================

Every version differs, so that no tag comes twice. Ages are differences of the store's own clock, the time of the lock
against that of an object just written: clocks of machines do not matter. A holder that was asleep while another took
the lock finds that out before its next write. So does a worker that is still busy when its run has ended.
"""

import json
import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import uuid4

from lfm_tasks.errors import one_line
from lfm_tasks.stores.remote.objects import Objects, RemoteStoreError, StoredObject
from lfm_tasks.stores.units.durable import StoreBusyError

LOCK = "lock"
# A holder that has not renewed its lock for this long is dead, and how often a holder renews it (seconds).
LEASE_SECONDS = 120.0
RENEW_SECONDS = 20.0
# How often one looks again when another has changed the lock between the look and the change.
N_TRIES = 10
# Raise it when earlier versions would take what this one writes for something else.
_VERSION = 1

logger = logging.getLogger(__name__)


class LockLostError(RemoteStoreError):
    """A lock that is not the run's any more: it must not write."""


class LockDamagedError(RemoteStoreError):
    """An object in the lock's place that this version cannot read: nobody knows whether a run holds the store."""


@dataclass(frozen=True)
class RemoteLock:
    """The lock of a store as one run sees it; ``token`` is the run's, and its workers have the same."""

    objects: Objects
    token: str
    purpose: str = ""

    def take(self) -> None:
        """Take the lock.

        Raises
        ------
        StoreBusyError
            If a run holds it; the message names that one.
        LockDamagedError
            If what lies there is no lock.
        """
        for _ in range(N_TRIES):
            try:
                found = self.objects.read(LOCK)
            except FileNotFoundError:
                if self.objects.put_if_absent(LOCK, self._version()):
                    return
                continue  # another put one, or this put was sent twice and its first try arrived
            holder = self._parse(found)
            if holder["token"] == self.token:
                return
            if holder["token"] is not None and not self._has_expired(found):
                break
            if self.objects.replace(LOCK, self._version(), found.tag):
                return
        else:
            holder = {}
        raise StoreBusyError(
            f"the store {self.objects.place} is in use by {_named(holder)}. Wait until it has finished, or stop it; "
            f"a lock of a dead run falls after {LEASE_SECONDS:.0f} s"
        )

    def renew(self) -> None:
        """Renew the lease; raise `LockLostError` if the lock is not this run's any more."""
        self._replace(self._version())

    def release(self) -> None:
        """Make the lock free; raise `LockLostError` if it is not this run's any more."""
        self._replace(_free_version())

    def check(self) -> StoredObject:
        """Return the lock; raise `LockLostError` if it is not this run's any more."""
        try:
            found = self.objects.read(LOCK)
        except FileNotFoundError:
            raise self._lost("no lock") from None
        holder = self._parse(found)
        if holder["token"] != self.token:
            raise self._lost("a lock that is free" if holder["token"] is None else f"the lock of {_named(holder)}")
        return found

    def _replace(self, version: bytes) -> None:
        for _ in range(N_TRIES):
            if self.objects.replace(LOCK, version, self.check().tag):
                return
            with suppress(FileNotFoundError):
                if self.objects.read(LOCK).content == version:
                    return  # this put was sent twice, and its first try arrived
        raise self._lost("a lock that others change all the time")

    def _version(self) -> bytes:
        """Return the lock as this run holds it: new bytes, and so a new tag, each time."""
        who = {"token": self.token, "pid": os.getpid(), "host": socket.gethostname(), "purpose": self.purpose}
        return json.dumps({"version": _VERSION, **who, "change": uuid4().hex}).encode()

    def _has_expired(self, found: StoredObject) -> bool:
        return (self.objects.now() - found.modified).total_seconds() >= LEASE_SECONDS

    def _lost(self, found: str) -> LockLostError:
        return LockLostError(
            f"{self.objects.place}: got {found}, expected that of this run: it was not renewed for "
            f"{LEASE_SECONDS:.0f} s, or the run has ended. Nothing more is written there; run again when no other run "
            "holds it"
        )

    def _parse(self, found: StoredObject) -> dict[str, Any]:
        try:
            holder = json.loads(found.content)
            version, token = holder["version"], holder["token"]
        except (ValueError, KeyError, TypeError):
            raise self._damaged(found) from None
        if isinstance(version, int) and version > _VERSION:
            newer = f"got a lock of a newer version of lfm-atlas (format {version}), expected format {_VERSION}"
            raise LockDamagedError(f"{self.objects.place}: {newer}. Use the newer version, or name another store")
        if version != _VERSION or not (token is None or isinstance(token, str)):
            raise self._damaged(found)
        return dict(holder)

    def _damaged(self, found: StoredObject) -> LockDamagedError:
        shown = one_line(found.content[:60].decode(errors="replace"), 60)
        age = (self.objects.now() - found.modified).total_seconds()
        return LockDamagedError(
            f"{self.objects.place}: got a lock that names no holder ({len(found.content)} bytes, '{shown}', put "
            f"{_time(found.modified)}, {age:.0f} s ago by the store's clock), expected one that lfm-atlas has put. "
            f"Make sure that no run writes to this store, then remove it: {removal_command(self.objects.place)}"
        )


def removal_command(place: str) -> str:
    """Return the command that removes the lock of the store at an address; it needs what a run needs."""
    return f"""python -c "import fsspec; fsspec.filesystem('s3').rm_file('{place}/{LOCK}')\""""


@contextmanager
def held(objects: Objects, purpose: str) -> Iterator[str]:
    """Hold the lock while the block runs, renewing it; yield the token with which others check it.

    Raises
    ------
    StoreBusyError
        If a run holds it; the message names that one.
    LockDamagedError
        If what lies there is no lock.
    """
    lock = RemoteLock(objects, uuid4().hex, purpose)
    lock.take()
    ended = threading.Event()
    renewing = threading.Thread(target=_renew, args=(lock, ended), name="lfm-atlas lock", daemon=True)
    renewing.start()
    is_done = False
    try:
        yield lock.token
        is_done = True
    finally:
        ended.set()
        renewing.join()
        try:
            lock.release()
        except RemoteStoreError as error:
            # Another's lock is left alone, and this run's falls by itself. The run reports what ended it.
            if is_done:
                logger.warning("%s", error)


def _renew(lock: RemoteLock, ended: threading.Event) -> None:
    while not ended.wait(RENEW_SECONDS):
        try:
            lock.renew()
        except (LockLostError, LockDamagedError):
            return  # the next write says so
        except RemoteStoreError:
            continue  # what the network denies now, it may allow before the lease ends


def _free_version() -> bytes:
    return json.dumps({"version": _VERSION, "token": None, "change": uuid4().hex}).encode()


def _named(holder: dict[str, Any]) -> str:
    if not holder.get("purpose"):
        return "other runs, which take turns"
    words = (one_line(str(holder.get(name, "?")), 80) for name in ("purpose", "pid", "host"))
    return "'{}' (process {} on {})".format(*words)


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
