"""Committed units on an object store (S3), where nothing is renamed: the receipt, put last and only once, makes one.

A unit is first committed in the local store; then its files are put below ``units/<kind>/<key>/<a name of its own>/``
and, last, its receipt at ``receipts/<kind>/<key>.json``, on the condition that none is there. A writer that is killed
leaves files that no receipt names: nobody sees them, and the next run sweeps them. Reading fetches a unit into the
local store, where every byte is checked against its manifest. The one door to object stores that are written to.

Only the holder of the lock may write. ``references/<key>.json`` lists the units that the atlas of this key is made of.
"""

import json
import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import uuid4

from lfm_tasks.errors import CorruptUnitError, FolderError
from lfm_tasks.stores.atlas.files import atlas_damages
from lfm_tasks.stores.references import AtlasReference, UnitId, parse_reference, reference_path
from lfm_tasks.stores.units.durable import StoreBusyError, verify_checksum
from lfm_tasks.stores.units.integrity import Corruption
from lfm_tasks.stores.units.marker import STORE_FILE, marker_bytes, parse_marker, why_unmarked
from lfm_tasks.stores.units.store import Receipt, UnitStore, UnitWriter, lock_unit

# The objects that lfm-atlas puts below ``units/``, ``atlas/`` and ``references/``: no other is ever removed.
_UNIT_FILE = re.compile(r"([a-z_]+)/([0-9a-f]{64})/([0-9a-f]{32})/.+")
_ATLAS_FILE = re.compile(r"([0-9a-f]{64})/.+")
_REFERENCE = re.compile(r"[0-9a-f]{64}\.json")
_PLACES = {"units", "receipts", "references", "quarantine", "atlas", "lock"}
# Answers to a conditional put: the condition does not hold, two puts have met, or what was to be replaced is gone.
_CONDITION_FAILED = ("PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey")


@dataclass(frozen=True)
class RemoteUnitStore(UnitStore):
    """All units below an address such as ``s3://bucket/zoo``; ``root`` is this machine's copy of what it used.

    It holds addresses only, so it travels to workers; each machine's environment holds the credentials.
    """

    remote: str = ""

    @property
    def local(self) -> UnitStore:
        """The copies on this machine."""
        return UnitStore(self.root)

    def has(self, kind: str, key: str) -> bool:
        """Whether the unit is committed."""
        return bool(_file_system().exists(self._receipt_name(kind, key)))

    def receipt(self, kind: str, key: str) -> Receipt:
        """Return the receipt of a committed unit; raise `CorruptUnitError` if it was tampered with."""
        try:
            body = verify_checksum(self._read(kind, key)[1].encode())
        except ValueError as error:
            raise CorruptUnitError(f"receipt {kind}/{key} is damaged: {error}") from error
        if (body.get("kind"), body.get("key")) != (kind, key):
            raise CorruptUnitError(f"receipt {kind}/{key} is damaged: it is that of another unit")
        return Receipt(kind, key, body["manifest"], body["facts"])

    def receipts(self, kind: str) -> list[Receipt]:
        """Return the receipts of all units of one kind, by key."""
        keys = sorted(Path(name).stem for name in _file_system().find(f"{self.remote}/receipts/{kind}"))
        return [receipt for key in keys if (receipt := self.find(kind, key)) is not None]

    @contextmanager
    def commit(self, kind: str, key: str) -> Iterator[UnitWriter]:
        """Yield a writer; commit what it wrote in the local store, then in the remote one."""
        self._remove_damaged_copy(kind, key)
        with self.local.commit(kind, key) as writer:
            yield writer
        self._put(kind, key)

    @contextmanager
    def resume(self, kind: str, key: str) -> Iterator[UnitWriter]:
        """Yield a writer whose unfinished arrays outlive a kill, on this machine only; commit as `commit` does."""
        self._remove_damaged_copy(kind, key)
        with self.local.resume(kind, key) as writer:
            yield writer
        self._put(kind, key)

    def check(self, kind: str, key: str) -> Receipt:
        """Return the receipt if every file is as committed, else raise `CorruptUnitError` naming the file.

        The unit is fetched if this machine has no whole copy.
        """
        receipt = self.receipt(kind, key)
        with suppress(CorruptUnitError):
            if self.local.check(kind, key) == receipt:
                return receipt
        self._fetch(kind, key)
        return self.local.check(kind, key)

    def quarantine(self, kind: str, key: str, *, unless: Callable[[], bool] = lambda: False) -> bool:
        """Put a unit aside, locally and remotely, never deleting it; return whether it was put aside."""
        if unless():
            return False
        self.local.quarantine(kind, key)
        with suppress(FileNotFoundError):  # two readers may find the same damage
            content = _file_system().cat_file(self._receipt_name(kind, key))
            folder = _parse_receipt(content)[0] if _is_receipt(content) else uuid4().hex
            _file_system().pipe_file(f"{self.remote}/quarantine/{kind}/{key}/{folder}.json", content)
            _file_system().rm_file(self._receipt_name(kind, key))
        return True

    def sweep(self) -> None:
        """Remove what killed runs left, locally and remotely. Only for the run that holds the lock."""
        self.local.sweep()
        named, unknown = set[tuple[str, ...]](), set[tuple[str, ...]]()
        for kind, key in list_remote_units(self):
            try:
                named.add((kind, key, self._read(kind, key)[0]))
            except CorruptUnitError:  # reported, and put aside, when it is read
                unknown.add((kind, key))
        for name in objects_below(f"{self.remote}/quarantine"):
            named.add(tuple(name.removesuffix(".json").split("/")))
        matches = (_UNIT_FILE.fullmatch(name) for name in objects_below(f"{self.remote}/units"))
        written = {own[0]: own.groups() for own in matches if own is not None}
        stale = [name for name, unit in written.items() if unit not in named and unit[:2] not in unknown]
        if stale:
            _file_system().rm([f"{self.remote}/units/{name}" for name in stale])

    def remove_partial(self, kind: str, keep: Collection[str] = ()) -> None:
        """Remove the unfinished units of one kind on this machine, except those whose key is in ``keep``."""
        self.local.remove_partial(kind, keep)

    def publish_copy(self, folder: Path, key: str) -> None:
        """Put a published atlas at ``atlas/<key>/``, its reference and, last, its key into ``atlas/current.json``."""
        files, place = _file_system(), f"{self.remote}/atlas"
        pointer = f"{place}/current.json"
        former = json.loads(files.cat_file(pointer))["key"] if files.exists(pointer) else None
        here = {
            path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()
        }
        if objects_below(f"{place}/{key}") != here:
            _put_files(folder, f"{place}/{key}")
        files.pipe_file(f"{self.remote}/references/{key}.json", reference_path(self.root, key).read_bytes())
        if former == key:
            return
        files.pipe_file(pointer, json.dumps({"version": 1, "key": key}).encode())
        # Who began to read the former one can go on.
        matches = (_ATLAS_FILE.fullmatch(name) for name in objects_below(place))
        if old := [f"{place}/{own[0]}" for own in matches if own is not None and own[1] not in (key, former)]:
            files.rm(old)

    def _remove_damaged_copy(self, kind: str, key: str) -> None:
        """Put this machine's copy aside if it is damaged: else it would be put in the place of a new unit."""
        if self.local.has(kind, key) and not self.local.is_sound(kind, key):
            self.local.quarantine(kind, key)

    def _put(self, kind: str, key: str) -> None:
        if self.has(kind, key):
            return
        folder = uuid4().hex
        with lock_unit(self.root, kind, key):  # nobody changes the copy
            _put_files(self.local.unit_path(kind, key), self._folder(kind, key, folder))
            receipt = self.local.receipt_path(kind, key).read_text(encoding="utf-8")
        content = json.dumps({"folder": folder, "receipt": receipt}).encode()
        while not put_if_absent(self._receipt_name(kind, key), content):
            # Another's unit is the one, unless the answer to our own put was lost and it was sent again.
            if not self.has(kind, key):
                continue  # it was put aside meanwhile
            if self._read(kind, key)[0] != folder:
                _file_system().rm(self._folder(kind, key, folder), recursive=True)
            return

    def _read(self, kind: str, key: str) -> tuple[str, str]:
        try:
            return _parse_receipt(_file_system().cat_file(self._receipt_name(kind, key)))
        except (FileNotFoundError, ValueError, KeyError, TypeError) as error:  # what the network denies is no damage
            raise CorruptUnitError(f"receipt {kind}/{key} cannot be read: {error}") from error

    def _fetch(self, kind: str, key: str) -> None:
        """Put the files of a unit where the local store has them, and its receipt last; replace what lies there."""
        folder, content = self._read(kind, key)
        staged = self.root / "staging" / f"fetched-{uuid4().hex}"
        try:
            if not fetch_below(self._folder(kind, key, folder), staged):
                raise CorruptUnitError(f"unit {kind}/{key}: its files are missing")
            self.local.replace(kind, key, staged, content.encode())
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def _folder(self, kind: str, key: str, folder: str) -> str:
        return f"{self.remote}/units/{kind}/{key}/{folder}"

    def _receipt_name(self, kind: str, key: str) -> str:
        return f"{self.remote}/receipts/{kind}/{key}.json"


def put_if_absent(name: str, content: bytes) -> bool:
    """Put an object if there is none of this name; return whether there was none."""
    return _put_if(name, content, mode="create")


def read_object(name: str) -> tuple[bytes, str]:
    """Return an object's bytes, and the tag of this version of it."""
    tag = str(_file_system().info(name)["ETag"])
    return _file_system().cat_file(name), tag


def replace(name: str, content: bytes, tag: str) -> bool:
    """Put an object in the place of the version with this tag; return whether it was still there."""
    return _put_if(name, content, IfMatch=tag)


def delete(name: str) -> None:
    """Remove an object."""
    _file_system().rm_file(name)


def objects_below(place: str) -> dict[str, int]:
    """Return the bytes of every object below an address, by the rest of its name."""
    start = place.partition("://")[2] + "/"
    return {
        name.removeprefix(start): int(info["size"]) for name, info in _file_system().find(place, detail=True).items()
    }


def fetch_below(place: str, folder: Path) -> int:
    """Write every object below an address into a folder; return how many there are."""
    names = objects_below(place)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(_file_system().cat_file(f"{place}/{name}"))
    return len(names)


@lru_cache(maxsize=1)
def _file_system() -> Any:
    """Return the object store. No listing is kept: others write, too."""
    import fsspec

    return fsspec.filesystem("s3", use_listings_cache=False, skip_instance_cache=True)


def _put_if(name: str, content: bytes, **condition: str) -> bool:
    try:
        _file_system().pipe_file(name, content, **condition)
    except OSError as error:
        # fsspec gives some of these answers a class of their own, others none.
        answer = getattr(error.__cause__, "response", {}).get("Error", {}).get("Code")
        if isinstance(error, FileExistsError) or answer in _CONDITION_FAILED:
            return False
        raise
    return True


def _put_files(folder: Path, place: str) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            _file_system().pipe_file(f"{place}/{path.relative_to(folder).as_posix()}", path.read_bytes())


def _parse_receipt(content: bytes) -> tuple[str, str]:
    receipt = json.loads(content)
    return str(receipt["folder"]), str(receipt["receipt"])


def _is_receipt(content: bytes) -> bool:
    try:
        _parse_receipt(content)
    except (ValueError, KeyError, TypeError):
        return False
    return True


def list_remote_units(store: RemoteUnitStore) -> set[UnitId]:
    """Return all units that have a receipt in the remote store."""
    parts = (name.split("/") for name in objects_below(f"{store.remote}/receipts"))
    return {(part[0], part[1].removesuffix(".json")) for part in parts if len(part) == 2}


def claim_remote_store(remote: str) -> None:
    """Make the address a store if there is nothing: its marker is the first object below it.

    Raises
    ------
    FolderError
        If something of somebody else's is there, or the address lies inside another store.
    RemoteStoreError
        If the object store cannot be read or written to.
    """
    with _unreachable(remote):
        marker = f"{remote}/{STORE_FILE}"
        if _remote_store_id(remote) is not None:
            return
        bucket, *parts = remote.partition("://")[2].strip("/").split("/")
        for depth in range(len(parts)):
            above = "/".join([f"s3://{bucket}", *parts[:depth]])
            if _remote_store_id(above) is not None:
                inside = f"{remote}: got an address inside of the store {above}, expected one outside of it"
                raise FolderError(f"{inside}. Set another atlas.remote")
        if names := _names_at(remote):
            raise FolderError(why_unmarked(remote, names, _PLACES, is_ours={"receipts", "units"} <= names))
        put_if_absent(marker, marker_bytes())


def _remote_store_id(remote: str) -> str | None:
    try:
        return parse_marker(_file_system().cat_file(f"{remote}/{STORE_FILE}"), remote)
    except (FileNotFoundError, PermissionError):  # nobody but the owner of a place above may read there
        return None


def _names_at(remote: str) -> set[str]:
    """Return the first parts of the names of all objects below an address."""
    start = remote.partition("://")[2].rstrip("/") + "/"
    try:
        names = _file_system().ls(remote, detail=False)
    except FileNotFoundError:
        return set()
    # The console of an object store makes an empty object for a folder, under the folder's name.
    return {name.removeprefix(start).strip("/") for name in names if name.rstrip("/") + "/" != start} - {""}


def find_remote_corruption(store: RemoteUnitStore) -> Iterator[Corruption]:
    """Yield the units and files of the remote atlas that are damaged; every byte is fetched and checked."""
    scratch = store.root / "staging" / f"verified-{uuid4().hex}"
    other = RemoteUnitStore(scratch, store.remote)  # a machine that has no copies
    try:
        for kind, key in sorted(list_remote_units(store)):
            try:
                other.check(kind, key)
            except CorruptUnitError as error:
                yield Corruption(f"{store.remote}/units/{kind}/{key}", str(error))
            shutil.rmtree(other.local.unit_path(kind, key), ignore_errors=True)
        if (current := current_remote_atlas(store)) is not None:
            place = f"{store.remote}/atlas/{current}"
            (scratch / "atlas").mkdir(parents=True)
            fetch_below(place, scratch / "atlas")
            yield from (Corruption(place, damage) for damage in atlas_damages(scratch / "atlas"))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def current_remote_atlas(store: RemoteUnitStore) -> str | None:
    """Return the key of the atlas that the remote store publishes now; None if there is none."""
    try:
        return str(json.loads(read_object(f"{store.remote}/atlas/current.json")[0])["key"])
    except FileNotFoundError:
        return None


def read_remote_references(store: RemoteUnitStore) -> dict[str, AtlasReference | None]:
    """Return the reference of each remote atlas by its key; None where it is missing or damaged."""
    keys = sorted({name.partition("/")[0] for name in objects_below(f"{store.remote}/atlas") if "/" in name})
    return {key: _read_reference(store, key) for key in keys}


def remove_stale_references(store: RemoteUnitStore) -> None:
    """Remove the references of atlases that are not in the remote store any more."""
    live = {f"{key}.json" for key in read_remote_references(store)}
    for name in objects_below(f"{store.remote}/references").keys() - live:
        if _REFERENCE.fullmatch(name):
            delete(f"{store.remote}/references/{name}")


def remote_unit_bytes(store: RemoteUnitStore, unit: UnitId) -> int:
    """Return the bytes that a unit's files take in the remote store."""
    return sum(objects_below(f"{store.remote}/units/{unit[0]}/{unit[1]}").values())


def remove_remote_unit(store: RemoteUnitStore, unit: UnitId) -> None:
    """Remove a unit: its receipt first, so that a kill leaves no receipt of a unit that is gone."""
    kind, key = unit
    delete(f"{store.remote}/receipts/{kind}/{key}.json")
    place = f"{store.remote}/units/{kind}/{key}"
    for name in objects_below(place):
        delete(f"{place}/{name}")


def _read_reference(store: RemoteUnitStore, key: str) -> AtlasReference | None:
    try:
        return parse_reference(key, read_object(f"{store.remote}/references/{key}.json")[0])
    except (FileNotFoundError, ValueError):
        return None


# A holder that has not renewed its lock for this long is dead (seconds), and how often it renews it.
LEASE_SECONDS = 120.0
RENEW_SECONDS = 20.0


class RemoteStoreError(RuntimeError):
    """An object store that cannot be written to."""


@contextmanager
def locked_remotely(remote: str, purpose: str) -> Iterator[None]:
    """Hold the store at ``remote`` for one run; it is made if there is none. Raises as `claim_remote_store`.

    `StoreBusyError`, naming the holder, if the store is taken.

    A lock that nobody renews any more gives way after `LEASE_SECONDS`; clocks of machines must agree to some seconds.
    """
    name = f"{remote}/lock"
    holder = {"token": uuid4().hex, "pid": os.getpid(), "host": socket.gethostname(), "purpose": purpose}
    claim_remote_store(remote)
    with _unreachable(remote):
        is_ours = put_if_absent(name, _renewed(holder))
    if not is_ours:
        content, tag = read_object(name)
        other = json.loads(content)
        if time.time() - other["renewed"] < LEASE_SECONDS or not replace(name, _renewed(holder), tag):
            raise StoreBusyError(
                f"the store {remote} is in use by '{other['purpose']}' (process {other['pid']} on {other['host']}): "
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


@contextmanager
def _unreachable(remote: str) -> Iterator[None]:
    """Turn what an object store answers that cannot be read or written to into a `RemoteStoreError`."""
    try:
        yield
    except FolderError:
        raise
    except Exception as error:  # file systems of fsspec have no common class of errors
        why = f"{type(error).__name__}: {error}"
        message = (
            f"{remote} cannot be written to ({why}): check the address, and the AWS_... variables of the environment"
        )
        raise RemoteStoreError(f"{message}; its package is in the extra remote") from error


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
