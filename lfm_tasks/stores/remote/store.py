"""Committed units in an object store, where nothing is renamed: the receipt, put last and only once, makes a unit.

A unit is first committed in the local store; then its files are put below ``units/<kind>/<key>/<a name of its own>/``
and, last, its receipt at ``receipts/<kind>/<key>.json``, on the condition that none is there. A writer that is killed
leaves files that no receipt names: nobody sees them, and a later run sweeps them. Reading fetches a unit into the local
store, where every byte is checked against its manifest.

Only the holder of the lock may write. ``references/<key>.json`` lists the units that the atlas of this key is made of.
"""

import json
import re
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import uuid4

from lfm_tasks.errors import CorruptUnitError, FolderError
from lfm_tasks.stores.references import UnitId, reference_path
from lfm_tasks.stores.remote.lock import LOCK, LockLostError, RemoteLock, held
from lfm_tasks.stores.remote.objects import CLOCK, RemoteStoreError, S3Objects
from lfm_tasks.stores.units.durable import verify_checksum
from lfm_tasks.stores.units.marker import STORE_FILE, marker_bytes, parse_marker, why_unmarked
from lfm_tasks.stores.units.store import Receipt, UnitStore, UnitWriter, lock_unit

# The objects that lfm-atlas puts below ``units/`` and ``atlas/``: no other is ever removed.
_UNIT_FILE = re.compile(r"([a-z_]+)/([0-9a-f]{64})/([0-9a-f]{32})/.+")
_ATLAS_FILE = re.compile(r"([0-9a-f]{64})/(.+)")
_KEY = re.compile(r"[0-9a-f]{64}")
_PLACES = {"units", "receipts", "references", "quarantine", "atlas", LOCK, CLOCK}
_POINTER = "atlas/current.json"
# Files that no receipt names are left alone for this long (seconds): their writer may be about to put the receipt.
GRACE_SECONDS = 600.0


@dataclass(frozen=True)
class RemoteUnitStore(UnitStore):
    """All units below an address such as ``s3://bucket/zoo``; ``root`` is this machine's copy of what it used.

    It holds addresses only, so it travels to workers; each machine's environment holds the credentials. ``token`` is
    that of the lock's holder, who alone may write; who only reads has none.
    """

    remote: str = ""
    token: str = ""

    @property
    def objects(self) -> S3Objects:
        """The objects at the address."""
        return S3Objects(self.remote)

    @property
    def local(self) -> UnitStore:
        """The copies on this machine."""
        return UnitStore(self.root)

    def check_lock(self) -> None:
        """Raise `LockLostError` if the lock is another's, or nobody's: then nothing may be written any more."""
        if self.token:
            RemoteLock(self.objects, self.token).check()

    def has(self, kind: str, key: str) -> bool:
        """Whether the unit is committed."""
        return self.objects.exists(receipt_name(kind, key))

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
        keys = sorted(Path(name).stem for name in self.objects.below(f"receipts/{kind}"))
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
            content = self.objects.read(receipt_name(kind, key)).content
            folder = parse_receipt(content)[0] if _is_receipt(content) else uuid4().hex
            self.objects.put(f"quarantine/{kind}/{key}/{folder}.json", content)
            self.objects.delete(receipt_name(kind, key))
        return True

    def sweep(self) -> None:
        """Remove what killed runs left, locally and remotely. Only for the run that holds the lock."""
        self.local.sweep()
        written: dict[tuple[str, ...], list[str]] = {}
        newest: dict[tuple[str, ...], datetime] = {}
        for name, facts in self.objects.below("units").items():
            if own := _UNIT_FILE.fullmatch(name):
                written.setdefault(own.groups(), []).append(f"units/{name}")
                newest[own.groups()] = max(newest.get(own.groups(), facts.modified), facts.modified)
        if not written:
            return
        now = self.objects.now()
        old = {unit for unit, put in newest.items() if (now - put).total_seconds() >= GRACE_SECONDS}
        # After the files: a unit that is committed meanwhile is named here.
        named, unknown = set[tuple[str, ...]](), set[tuple[str, ...]]()
        for kind, key in self.stored_remotely():
            try:
                named.add((kind, key, self._read(kind, key)[0]))
            except CorruptUnitError:  # reported, and put aside, when it is read
                unknown.add((kind, key))
        for name in self.objects.below("quarantine"):
            named.add(tuple(name.removesuffix(".json").split("/")))
        stale = [name for unit in old - named if unit[:2] not in unknown for name in written[unit]]
        self.check_lock()
        self.objects.delete(*stale)

    def stored_remotely(self) -> set[UnitId]:
        """Return all units that have a receipt in the object store."""
        parts = (name.split("/") for name in self.objects.below("receipts"))
        return {(part[0], part[1].removesuffix(".json")) for part in parts if len(part) == 2}

    def remove_partial(self, kind: str, keep: Collection[str] = ()) -> None:
        """Remove the unfinished units of one kind on this machine, except those whose key is in ``keep``."""
        self.local.remove_partial(kind, keep)

    def current_atlas(self) -> str | None:
        """Return the key of the atlas that the object store publishes now; None if there is none.

        If what names it is damaged, it is the one that was put last.
        """
        return self._pointer().key

    def names_current_atlas(self) -> bool:
        """Whether the pointer to the published atlas is sound or absent."""
        pointer = self._pointer()
        return pointer.is_sound or not pointer.tag

    def publish_copy(self, folder: Path, key: str) -> None:
        """Put a published atlas at ``atlas/<key>/``, its reference and, last, its key into ``atlas/current.json``."""
        self.check_lock()
        former = self._pointer()
        here = {
            path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()
        }
        if not self._has_files(key, here):
            self.objects.put_files(folder, f"atlas/{key}")
        self.objects.put(f"references/{key}.json", reference_path(self.root, key).read_bytes())
        if not self._has_files(key, here):
            raise RemoteStoreError(f"{self.remote}: files of atlas/{key} are gone that were just put there. Run again")
        if former.is_sound and former.key == key:
            return
        self.check_lock()
        content = json.dumps({"version": 1, "key": key}).encode()
        if former.tag:
            is_put = self.objects.replace(_POINTER, content, former.tag)
        else:
            is_put = self.objects.put_if_absent(_POINTER, content)
        if not is_put and self._pointer().key != key:
            raise LockLostError(f"{self.remote}: another run has published an atlas there meanwhile. Run again")
        # Who began to read the former one can go on.
        matches = (_ATLAS_FILE.fullmatch(name) for name in self.objects.below("atlas"))
        old = [f"atlas/{own[0]}" for own in matches if own is not None and own[1] not in (key, former.key)]
        self.check_lock()
        self.objects.delete(*old)

    def _has_files(self, key: str, sizes: dict[str, int]) -> bool:
        there = self.objects.below(f"atlas/{key}")
        return all(name in there and there[name].size == size for name, size in sizes.items())

    def _pointer(self) -> "_Pointer":
        try:
            found = self.objects.read(_POINTER)
        except FileNotFoundError:
            return _Pointer(None, "", is_sound=False)
        try:
            key = str(json.loads(found.content)["key"])
        except (ValueError, KeyError, TypeError):
            key = ""
        if _KEY.fullmatch(key):
            return _Pointer(key, found.tag, is_sound=True)
        matches = ((_ATLAS_FILE.fullmatch(name), facts) for name, facts in self.objects.below("atlas").items())
        put = [(facts.modified, own[1]) for own, facts in matches if own is not None and own[2] == "manifest.json"]
        return _Pointer(max(put)[1] if put else None, found.tag, is_sound=False)

    def _remove_damaged_copy(self, kind: str, key: str) -> None:
        """Put this machine's copy aside if it is damaged: else it would be put in the place of a new unit."""
        if self.local.has(kind, key) and not self.local.is_sound(kind, key):
            self.local.quarantine(kind, key)

    def _put(self, kind: str, key: str) -> None:
        if self.has(kind, key):
            return
        self.check_lock()
        folder = uuid4().hex
        with lock_unit(self.root, kind, key):  # nobody changes the copy
            self.objects.put_files(self.local.unit_path(kind, key), unit_folder(kind, key, folder))
            receipt = self.local.receipt_path(kind, key).read_text(encoding="utf-8")
        content = json.dumps({"folder": folder, "receipt": receipt}).encode()
        self.check_lock()
        while not self.objects.put_if_absent(receipt_name(kind, key), content):
            # Another's unit is the one, unless the answer to our own put was lost and it was sent again.
            if not self.has(kind, key):
                continue  # it was put aside meanwhile
            if self._read(kind, key)[0] != folder:
                place = unit_folder(kind, key, folder)
                self.objects.delete(*(f"{place}/{name}" for name in self.objects.below(place)))
            return

    def _read(self, kind: str, key: str) -> tuple[str, str]:
        try:
            return parse_receipt(self.objects.read(receipt_name(kind, key)).content)
        except (FileNotFoundError, ValueError, KeyError, TypeError) as error:  # what the network denies is no damage
            raise CorruptUnitError(f"receipt {kind}/{key} cannot be read: {error}") from error

    def _fetch(self, kind: str, key: str) -> None:
        """Put the files of a unit where the local store has them, and its receipt last; replace what lies there."""
        folder, content = self._read(kind, key)
        staged = self.root / "staging" / f"fetched-{uuid4().hex}"
        try:
            if not self.objects.fetch(unit_folder(kind, key, folder), staged):
                raise CorruptUnitError(f"unit {kind}/{key}: its files are missing")
            self.local.replace(kind, key, staged, content.encode())
        finally:
            shutil.rmtree(staged, ignore_errors=True)


@dataclass(frozen=True)
class _Pointer:
    """The content of ``atlas/current.json``: a key, None without an atlas; its tag, "" if it is absent."""

    key: str | None
    tag: str
    is_sound: bool


def receipt_name(kind: str, key: str) -> str:
    """Return the name of a unit's receipt."""
    return f"receipts/{kind}/{key}.json"


def unit_folder(kind: str, key: str, folder: str = "") -> str:
    """Return the name below which the files of a unit lie, or, with ``folder``, those of one writer."""
    return f"units/{kind}/{key}/{folder}".rstrip("/")


def parse_receipt(content: bytes) -> tuple[str, str]:
    """Return the folder that a receipt names, and the receipt of the local store in it.

    Raises
    ------
    ValueError, KeyError, TypeError
        If it is no receipt.
    """
    receipt = json.loads(content)
    return str(receipt["folder"]), str(receipt["receipt"])


def _is_receipt(content: bytes) -> bool:
    try:
        parse_receipt(content)
    except (ValueError, KeyError, TypeError):
        return False
    return True


def claim_remote_store(remote: str) -> None:
    """Make the address a store if there is nothing: its marker is the first object below it.

    Raises
    ------
    FolderError
        If something of somebody else's is there, or the address lies inside another store.
    RemoteStoreError
        If the object store cannot be read or written to.
    """
    if _store_id(remote) is not None:
        return
    bucket, *parts = remote.partition("://")[2].strip("/").split("/")
    for depth in range(len(parts)):
        above = "/".join([f"s3://{bucket}", *parts[:depth]])
        if _store_id(above) is not None:
            inside = f"{remote}: got an address inside of the store {above}, expected one outside of it"
            raise FolderError(f"{inside}. Set another atlas.remote")
    if names := set(S3Objects(remote).first_names()):
        raise FolderError(why_unmarked(remote, names, _PLACES, is_ours={"receipts", "units"} <= names))
    S3Objects(remote).put_if_absent(STORE_FILE, marker_bytes())


@contextmanager
def locked_remotely(remote: str, purpose: str) -> Iterator[str]:
    """Hold the store at ``remote`` for one run, and yield its token; the store is made if there is none.

    Raises as `claim_remote_store` and `lfm_tasks.stores.remote.lock.held`.
    """
    claim_remote_store(remote)
    with held(S3Objects(remote), purpose) as token:
        yield token


def _store_id(remote: str) -> str | None:
    try:
        return parse_marker(S3Objects(remote).read(STORE_FILE).content, remote)
    except FileNotFoundError:
        return None
    except RemoteStoreError as error:
        if isinstance(error.__cause__, PermissionError):  # nobody but the owner of a place above may read there
            return None
        raise
