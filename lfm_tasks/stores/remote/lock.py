"""One run at a time on an object store: a lock that is put only if there is none, and renewed while held."""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from uuid import uuid4

from lfm_tasks.stores.remote.units import delete, put_if_absent, read_object, replace
from lfm_tasks.stores.units.durable import StoreBusyError

# A holder that has not renewed its lock for this long is dead (seconds), and how often it renews it.
LEASE_SECONDS = 120.0
RENEW_SECONDS = 20.0


class RemoteStoreError(RuntimeError):
    """An object store that cannot be written to."""


@contextmanager
def locked_remotely(remote: str, purpose: str) -> Iterator[None]:
    """Hold the store at ``remote`` for one run; `StoreBusyError` naming the holder if it is taken.

    A lock that nobody renews any more gives way after `LEASE_SECONDS`; clocks of machines must agree to some seconds.
    """
    name = f"{remote}/lock"
    holder = {"token": uuid4().hex, "pid": os.getpid(), "host": socket.gethostname(), "purpose": purpose}
    try:
        is_ours = put_if_absent(name, _renewed(holder))
    except Exception as error:  # file systems of fsspec have no common class of errors
        why = f"{type(error).__name__}: {error}"
        message = (
            f"{remote} cannot be written to ({why}): check the address, and the AWS_... variables of the environment"
        )
        raise RemoteStoreError(f"{message}; its package is in the extra remote") from error
    if not is_ours:
        content, tag = read_object(name)
        found = json.loads(content)
        if time.time() - found["renewed"] < LEASE_SECONDS or not replace(name, _renewed(holder), tag):
            raise StoreBusyError(
                f"the store {remote} is in use by '{found['purpose']}' (process {found['pid']} on {found['host']}): "
                f"wait until it has finished, or stop it; a lock of a dead run falls after {LEASE_SECONDS:.0f} s"
            )
    ended = threading.Event()
    renewing = threading.Thread(target=_renew, args=(name, holder, ended), daemon=True)
    renewing.start()
    try:
        yield
    finally:
        ended.set()
        renewing.join()
        with suppress(FileNotFoundError):  # another took it, and has finished
            if json.loads(read_object(name)[0])["token"] == holder["token"]:
                delete(name)


def _renew(name: str, holder: dict[str, object], ended: threading.Event) -> None:
    while not ended.wait(RENEW_SECONDS):
        try:
            content, tag = read_object(name)
            if json.loads(content)["token"] != holder["token"] or not replace(name, _renewed(holder), tag):
                return  # another took it, because we were too slow: receipts are conditional, so no unit is torn
        except FileNotFoundError:
            return
        except OSError:
            continue  # what the network denies now, it may allow before the lease ends


def _renewed(holder: dict[str, object]) -> bytes:
    return json.dumps(holder | {"renewed": time.time()}).encode()
