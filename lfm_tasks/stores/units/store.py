"""Committed units: content-addressed folders, either complete or absent.

A unit is a set of arrays (`LAYOUTS` lists them by kind) under a key, the digest of all that decides their values.

``staging/<kind>-<key>-<random>/``
    A unit that is being written: its arrays (in most kinds packed into ``arrays.zip``), then ``manifest.json`` with
    SHA-256 and size of every file. Removed by the next run that holds the lock.
``partial/<kind>-<key>/``
    Instead of staging, for a unit that outlives a kill: ``unit/`` and the ``journal`` of its writer.
``units/<kind>/<key>/``
    The staged folder, fsynced and then renamed.
``receipts/<kind>/<key>.json``
    Written last: SHA-256 of the manifest, facts, and a checksum of the receipt itself. Only a receipt makes a unit
    count; a folder without one is replaced when the unit is computed again.
``locks/<first two digits of the SHA-256 of kind/key>.lock``
    Held by the one process that publishes the unit or moves it away. The files stay; a lock falls with its process.
``quarantine/<kind>-<key>-<random>/``
    Folder and receipt of a damaged unit. Nothing reads or removes them.

Every read checks the receipt, the manifest against the receipt, and every file against the manifest: Zarr alone takes a
missing chunk for fill values and a flipped bit for data.
"""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from jaxtyping import Shaped

from lfm_tasks.errors import CorruptUnitError
from lfm_tasks.stores.units.arrays import ArrayReader, ArrayWriter
from lfm_tasks.stores.units.durable import (
    add_checksum,
    atomic_write,
    check_folder,
    make_folder,
    manifest_of,
    sync_folder,
    sync_tree,
    try_lock,
    verify_checksum,
    wait_for_lock,
)

# Part of every key. Raise it when the meaning of a stored number changes.
CONVENTION = "13"

_BLOCK_BYTES = 1 << 20
# The names of folders that are being written or removed, and of files.
_STAGED = re.compile(r"[a-z_]+-(.{1,12}-)?[0-9a-f]{32}")
_PARTIAL = re.compile(r"\..+\.[0-9a-f]{32}\.partial")


def digest(ingredients: Mapping[str, Any]) -> str:
    """Return the SHA-256 of ``ingredients`` as canonical JSON (sorted keys, no NaN), with the convention mixed in."""
    text = json.dumps({"convention": CONVENTION, **ingredients}, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def ids_digest(ids: Shaped[np.ndarray, " points"]) -> str:
    """Return the SHA-256 of an ordered list of ids; lengths are mixed in, so that no two lists collide."""
    encoded = [str(name).encode() for name in ids]
    return hashlib.sha256(b"".join(len(name).to_bytes(8, "little") + name for name in encoded)).hexdigest()


def array_digest(values: Shaped[np.ndarray, "..."]) -> str:
    """Return the SHA-256 of an array of numbers: its dtype, shape and bytes."""
    little = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    header = json.dumps([little.dtype.str, little.shape])
    return hashlib.sha256(header.encode() + little.tobytes()).hexdigest()


class RowsDigest:
    """The digest of an array that arrives in batches of rows: the same for any batches."""

    def __init__(self, ids: Shaped[np.ndarray, " points"]) -> None:
        self.ids = ids_digest(ids)
        self._hasher = hashlib.sha256(self.ids.encode())
        self._header: str | None = None

    def update(self, rows: Shaped[np.ndarray, "batch features"]) -> None:
        """Mix in the next rows."""
        header = f"{rows.dtype.newbyteorder('<').str}:{rows.shape[1]}"
        if self._header is None:
            self._header = header
            self._hasher.update(header.encode())
        elif header != self._header:
            raise ValueError(f"batches differ: {self._header} first, {header} now; they must be alike")
        little = np.ascontiguousarray(rows, dtype=rows.dtype.newbyteorder("<"))
        data = little.data.cast("B") if little.size else memoryview(b"")
        for start in range(0, len(data), _BLOCK_BYTES):
            self._hasher.update(data[start : start + _BLOCK_BYTES])

    def hexdigest(self) -> str:
        """Return the digest so far."""
        return self._hasher.hexdigest()


@dataclass(frozen=True)
class Receipt:
    """The proof that a unit is complete, and the small facts about it that later stages plan with.

    ``manifest`` is the SHA-256 of the unit's ``manifest.json``.
    """

    kind: str
    key: str
    manifest: str
    facts: Mapping[str, Any]


@dataclass
class UnitWriter:
    """An unfinished unit: its writer adds arrays by name, and facts.

    ``journal`` is a file beside the folder of a unit that outlives a kill, in which the writer notes its progress;
    None for other units.
    """

    folder: Path
    kind: str
    facts: dict[str, Any] = field(default_factory=dict)
    journal: Path | None = None

    @cached_property
    def arrays(self) -> ArrayWriter:
        """Return the writer of the unit's arrays; the folder becomes a Zarr group at the first call."""
        return ArrayWriter(self.folder, self.kind)

    def close(self) -> None:
        """End the writing of arrays."""
        arrays: ArrayWriter | None = self.__dict__.pop("arrays", None)
        if arrays is not None:
            arrays.close()

    def clear(self) -> None:
        """Remove all that lies in the folder, the journal as well."""
        self.close()
        shutil.rmtree(self.folder)
        self.folder.mkdir()
        if self.journal is not None:
            self.journal.unlink(missing_ok=True)


@dataclass(frozen=True)
class UnitStore:
    """All committed units below one folder. It holds a path only, so it travels to workers."""

    root: Path

    def has(self, kind: str, key: str) -> bool:
        """Return whether the unit is committed: its receipt and folder exist. Its content is checked by `open`."""
        return self.receipt_path(kind, key).is_file() and self.unit_path(kind, key).is_dir()

    def receipt(self, kind: str, key: str) -> Receipt:
        """Return the receipt of a committed unit; raise `CorruptUnitError` if it was tampered with."""
        try:
            body = verify_checksum(self.receipt_path(kind, key).read_bytes())
        except OSError as error:
            raise CorruptUnitError(f"receipt {kind}/{key} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise CorruptUnitError(f"receipt {kind}/{key} is damaged: {error}") from error
        if (body.get("kind"), body.get("key")) != (kind, key):
            raise CorruptUnitError(f"receipt {kind}/{key} is damaged: it is that of another unit")
        return Receipt(kind, key, body["manifest"], body["facts"])

    def find(self, kind: str, key: str) -> Receipt | None:
        """Return the receipt of a unit, or None; a damaged one is put into quarantine: the unit is computed again."""
        receipt: Receipt | None = None

        def is_sound() -> bool:
            nonlocal receipt
            with suppress(CorruptUnitError):
                receipt = self.receipt(kind, key)
            return receipt is not None

        if self.has(kind, key) and not is_sound():
            self.quarantine(kind, key, unless=is_sound)
        return receipt

    def receipts(self, kind: str) -> list[Receipt]:
        """Return the receipts of all units of one kind, by key."""
        keys = sorted(path.stem for path in (self.root / "receipts" / kind).glob("*.json"))
        return [receipt for key in keys if (receipt := self.find(kind, key)) is not None]

    @contextmanager
    def commit(self, kind: str, key: str) -> Iterator[UnitWriter]:
        """Yield a writer; commit what it wrote when the block ends, or leave nothing behind when the block raises."""
        staged = self.root / "staging" / f"{kind}-{key[:12]}-{uuid4().hex}"
        staged.mkdir(parents=True)
        writer = UnitWriter(staged, kind)
        try:
            yield writer
            writer.close()
            self._publish(kind, key, staged, writer.facts)
        finally:
            with suppress(OSError):  # a full disk: the error is on its way already
                writer.close()
            shutil.rmtree(staged, ignore_errors=True)

    @contextmanager
    def resume(self, kind: str, key: str) -> Iterator[UnitWriter]:
        """Yield a writer whose unfinished arrays stay when the block raises or is killed; commit when the block ends.

        The next `resume` of the unit yields the same folder, whose content the writer has to check. While another
        process writes the same unit, this is `commit`. `remove_partial` removes what nobody goes on with.
        """
        partial = self.root / "partial" / f"{kind}-{key}"
        make_folder(partial.parent)
        with try_lock(partial.with_suffix(".lock")) as is_ours:
            if not is_ours:
                with self.commit(kind, key) as writer:
                    yield writer
                return
            (partial / "unit").mkdir(parents=True, exist_ok=True)
            writer = UnitWriter(partial / "unit", kind, journal=partial / "journal")
            yield writer
            writer.close()
            self._publish(kind, key, partial / "unit", writer.facts)
            shutil.rmtree(partial, ignore_errors=True)

    def remove_partial(self, kind: str, keep: Collection[str] = ()) -> None:
        """Remove the unfinished units of one kind, except those whose key is in ``keep`` or that are being written."""
        kept = {f"{kind}-{key}" for key in keep}
        own = re.compile(rf"({re.escape(kind)}-[0-9a-f]{{64}})(\.lock)?")
        names = {match[1] for path in _below(self.root, "partial/*") if (match := own.fullmatch(path.name))}
        for name in sorted(names - kept):
            partial = self.root / "partial" / name
            with try_lock(partial.with_suffix(".lock")) as is_ours:
                if is_ours:
                    shutil.rmtree(partial, ignore_errors=True)
                    partial.with_suffix(".lock").unlink(missing_ok=True)
        with suppress(OSError):  # not there, or not empty
            (self.root / "partial").rmdir()

    @contextmanager
    def open(self, kind: str, key: str) -> Iterator[ArrayReader]:
        """Yield a reader of a unit, every byte of which is checked first.

        A unit that is not as committed is put into quarantine and raises `CorruptUnitError`: the next run computes it
        again.
        """
        try:
            self.check(kind, key)
        except CorruptUnitError as error:
            if self.quarantine(kind, key, unless=lambda: self.is_sound(kind, key)):
                raise CorruptUnitError(f"{error}; it was put into quarantine. Run again to compute it again") from error
        reader = ArrayReader(self.unit_path(kind, key), kind)
        try:
            yield reader
        finally:
            reader.close()

    def check(self, kind: str, key: str) -> Receipt:
        """Return the receipt if every file is as committed, else raise `CorruptUnitError` naming the file."""
        receipt = self.receipt(kind, key)
        check_folder(self.unit_path(kind, key), receipt.manifest, f"unit {kind}/{key}")
        return receipt

    def is_sound(self, kind: str, key: str) -> bool:
        """Return whether every file of the unit is as committed."""
        with suppress(CorruptUnitError):
            self.check(kind, key)
            return True
        return False

    def quarantine(self, kind: str, key: str, *, unless: Callable[[], bool] = lambda: False) -> bool:
        """Put a unit aside, never deleting it: the next run computes it again; return whether it was put aside.

        Parameters
        ----------
        kind, key
            The unit.
        unless
            Called once no other process publishes the unit or moves it: whether it is to stay after all, because
            another process has moved it aside and computed it again meanwhile.
        """
        with lock_unit(self.root, kind, key):
            if unless():
                return False
            aside = self.root / "quarantine" / f"{kind}-{key}-{uuid4().hex}"
            make_folder(aside)
            # The receipt goes first: no receipt is ever without its unit.
            for source, name in ((self.receipt_path(kind, key), "receipt.json"), (self.unit_path(kind, key), "unit")):
                with suppress(FileNotFoundError):  # two readers may find the same damage
                    source.rename(aside / name)
            return True

    def sweep(self) -> None:
        """Remove what killed runs left half-written. Only for the run that holds the lock, before its workers start.

        Leftovers are recognized by the random part of their names, 32 hexadecimal digits. Links are not followed.
        """
        staging = self.root / "staging"
        for folder in _below(self.root, "staging/*"):
            if _STAGED.fullmatch(folder.name) and folder.is_dir():
                # At once: a worker that outlives its run must never publish what is half removed.
                with suppress(FileNotFoundError):
                    shutil.rmtree(folder.rename(staging / f"swept-{uuid4().hex}"), ignore_errors=True)
        with suppress(OSError):  # not there, or not empty
            staging.rmdir()
        for pattern in (".*", "maps/.*", "references/.*", "runs/.*", "receipts/*/.*"):
            for partial in _below(self.root, pattern):
                if _PARTIAL.fullmatch(partial.name) and partial.is_file():
                    partial.unlink(missing_ok=True)

    def _publish(self, kind: str, key: str, staged: Path, facts: Mapping[str, Any]) -> None:
        manifest = manifest_of(staged)
        # Not by `atomic_write`, which makes folders: what another run has swept must not come back empty.
        (staged / "manifest.json").write_bytes(manifest)
        sync_tree(staged)
        digest = hashlib.sha256(manifest).hexdigest()
        body = {"kind": kind, "key": key, "manifest": digest, "facts": dict(facts)}
        with lock_unit(self.root, kind, key) as is_locked:
            self._place(kind, key, staged, digest, add_checksum(body), is_locked=is_locked)

    def replace(self, kind: str, key: str, staged: Path, receipt: bytes) -> None:
        """Commit a whole folder with its receipt in the place of what lies there, unless that is the same, and sound.

        ValueError if the receipt is damaged.
        """
        manifest = verify_checksum(receipt)["manifest"]
        with lock_unit(self.root, kind, key) as is_locked:
            receipt_path = self.receipt_path(kind, key)
            is_same = receipt_path.is_file() and receipt_path.read_bytes() == receipt
            if is_same and _holds(self.unit_path(kind, key), manifest):
                return  # another process was first
            receipt_path.unlink(missing_ok=True)
            if os.path.lexists(self.unit_path(kind, key)):
                self._remove_folder(self.unit_path(kind, key))
            self._place(kind, key, staged, manifest, receipt, is_locked=is_locked)

    def _place(self, kind: str, key: str, staged: Path, manifest: str, receipt: bytes, *, is_locked: bool) -> None:
        """Commit a whole folder, unless another process was first.

        Under the lock, a folder without a receipt is what a killed process left. If it holds the same bytes it is
        committed as it lies; else it makes room. Where the file system has no locks another process may be about to
        write its receipt, so only the former is done.
        """
        unit, receipt_path = self.unit_path(kind, key), self.receipt_path(kind, key)
        make_folder(unit.parent)
        while not self.has(kind, key):
            if not os.path.lexists(unit):
                if is_locked:  # else it may be that of another process, which has just placed the folder
                    receipt_path.unlink(missing_ok=True)
                try:
                    staged.rename(unit)
                except OSError as error:
                    if is_locked or error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                        raise
                    continue
            elif not _holds(unit, manifest):
                if not is_locked:
                    problem = f"got a folder without a receipt, expected {manifest[:12]} in it, or no folder"
                    advice = "The file system has no locks that would tell whether it is being written"
                    raise OSError(errno.EEXIST, f"{problem}. {advice}. Stop all runs and remove it", str(unit))
                self._remove_folder(unit)
                continue
            sync_folder(unit.parent)
            atomic_write(receipt_path, receipt)

    def _remove_folder(self, unit: Path) -> None:
        aside = self.root / "staging" / f"stale-{uuid4().hex}"
        make_folder(aside.parent)
        shutil.rmtree(unit.rename(aside), ignore_errors=True)

    def unit_path(self, kind: str, key: str) -> Path:
        """Return the folder of a unit."""
        return self.root / "units" / kind / key

    def receipt_path(self, kind: str, key: str) -> Path:
        """Return the file of a receipt."""
        return self.root / "receipts" / kind / f"{key}.json"


def lock_unit(root: Path, kind: str, key: str) -> AbstractContextManager[bool]:
    """Hold a unit of the store at ``root``; no process publishes it or moves it away but the one that holds it.

    It yields whether there is a lock: some file systems have none. A process holds one unit at a time.
    """
    shard = hashlib.sha256(f"{kind}/{key}".encode()).hexdigest()[:2]
    return wait_for_lock(root / "locks" / f"{shard}.lock")


def _below(root: Path, pattern: str) -> Iterator[Path]:
    """Yield the files below ``root`` that match a pattern of names, without links and their targets."""
    for path in sorted(root.glob(pattern)):
        parts = path.relative_to(root).parts
        if not any(root.joinpath(*parts[: depth + 1]).is_symlink() for depth in range(len(parts))):
            yield path


def _holds(unit: Path, manifest: str) -> bool:
    with suppress(CorruptUnitError):
        check_folder(unit, manifest, unit.name)
        return True
    return False
