"""Committed units: content-addressed folders that are there whole or not at all.

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
``quarantine/<kind>-<key>-<random>/``
    Folder and receipt of a damaged unit. Nothing reads or removes them.

Every read checks the receipt, the manifest against the receipt, and every file against the manifest: Zarr alone takes a
missing chunk for fill values and a flipped bit for data.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from jaxtyping import Shaped

from lfm_tasks.errors import CorruptUnitError
from lfm_tasks.stores.units.arrays import ArrayReader, ArrayWriter
from lfm_tasks.stores.units.durable import add_checksum, atomic_write, sync_folder, sync_tree, try_lock, verify_checksum

# Part of every key. Raise it when the meaning of a stored number changes.
CONVENTION = "4"

_BLOCK_BYTES = 1 << 20


def digest(ingredients: Mapping[str, Any]) -> str:
    """Return the SHA-256 of ``ingredients`` as canonical JSON (sorted keys, no NaN), with the convention mixed in."""
    text = json.dumps({"convention": CONVENTION, **ingredients}, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def ids_digest(ids: Shaped[np.ndarray, " points"]) -> str:
    """Return the SHA-256 of an ordered list of ids; lengths are mixed in, so that no two lists collide."""
    encoded = [str(name).encode() for name in ids]
    return hashlib.sha256(b"".join(len(name).to_bytes(8, "little") + name for name in encoded)).hexdigest()


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
        """Return the writer of the unit's arrays; the folder becomes a Zarr group when it is first asked for."""
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
        if not self.has(kind, key):
            return None
        try:
            return self.receipt(kind, key)
        except CorruptUnitError:
            self.quarantine(kind, key)
            return None

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
        partial.parent.mkdir(parents=True, exist_ok=True)
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
        """Remove the unfinished units of one kind, except those whose key is in ``keep``."""
        kept = {f"{kind}-{key}{suffix}" for key in keep for suffix in ("", ".lock")}
        for path in (self.root / "partial").glob(f"{kind}-*"):
            if path.name not in kept:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
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
            self.quarantine(kind, key)
            raise CorruptUnitError(f"{error}; it was put into quarantine: run again to make it anew") from error
        reader = ArrayReader(self.unit_path(kind, key), kind)
        try:
            yield reader
        finally:
            reader.close()

    def check(self, kind: str, key: str) -> Receipt:
        """Return the receipt if every file is as committed, else raise `CorruptUnitError` naming the file."""
        receipt = self.receipt(kind, key)
        unit = self.unit_path(kind, key)
        with _as_damage(f"unit {kind}/{key}: manifest.json"):
            content = (unit / "manifest.json").read_bytes()
        # A link's content may be right, but what it points to is nobody's to keep.
        if (unit / "manifest.json").is_symlink() or hashlib.sha256(content).hexdigest() != receipt.manifest:
            raise CorruptUnitError(f"unit {kind}/{key}: manifest.json is not the one committed")
        expected: dict[str, dict[str, Any]] = json.loads(content)["files"]
        present = set(_files(unit)) - {"manifest.json"}
        for name in sorted(present ^ set(expected)):
            raise CorruptUnitError(f"unit {kind}/{key}: {name} is {'not expected' if name in present else 'missing'}")
        for name, entry in expected.items():
            path = unit / name
            with _as_damage(f"unit {kind}/{key}: {name}"):
                is_sound = not path.is_symlink() and path.stat().st_size == entry["bytes"]
                is_sound = is_sound and file_digest(path) == entry["sha256"]
            if not is_sound:
                raise CorruptUnitError(f"unit {kind}/{key}: {name} is damaged")
        return receipt

    def quarantine(self, kind: str, key: str) -> None:
        """Put a unit aside, never deleting it: the next run computes it again."""
        aside = self.root / "quarantine" / f"{kind}-{key}-{uuid4().hex}"
        aside.mkdir(parents=True)
        for source, name in ((self.receipt_path(kind, key), "receipt.json"), (self.unit_path(kind, key), "unit")):
            # Two readers may find the same damage.
            with suppress(FileNotFoundError):
                source.rename(aside / name)

    def sweep(self) -> None:
        """Remove what killed runs left half-written. Only for the run that holds the lock, before its workers start."""
        shutil.rmtree(self.root / "staging", ignore_errors=True)
        for depth in ("", "*/", "receipts/*/"):
            for partial in self.root.glob(f"{depth}.*.partial"):
                partial.unlink(missing_ok=True)

    def _publish(self, kind: str, key: str, staged: Path, facts: Mapping[str, Any]) -> None:
        atomic_write(staged / "manifest.json", _manifest(staged))
        sync_tree(staged)
        unit = self.unit_path(kind, key)
        unit.parent.mkdir(parents=True, exist_ok=True)
        manifest = file_digest(staged / "manifest.json")
        while not self.has(kind, key):
            try:
                staged.rename(unit)
            except OSError:
                # A folder without a receipt is what a killed run left between the two steps: it makes room.
                if not unit.is_dir():
                    raise
                if not self.receipt_path(kind, key).is_file():
                    aside = self.root / "staging" / f"stale-{uuid4().hex}"
                    aside.parent.mkdir(parents=True, exist_ok=True)
                    stale = unit.rename(aside)
                    shutil.rmtree(stale, ignore_errors=True)
                continue
            sync_folder(unit.parent)
            body = {"kind": kind, "key": key, "manifest": manifest, "facts": dict(facts)}
            atomic_write(self.receipt_path(kind, key), add_checksum(body))

    def unit_path(self, kind: str, key: str) -> Path:
        """Return the folder of a unit."""
        return self.root / "units" / kind / key

    def receipt_path(self, kind: str, key: str) -> Path:
        """Return the file of a receipt."""
        return self.root / "receipts" / kind / f"{key}.json"


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


def _manifest(folder: Path) -> bytes:
    entries = {
        name: {"sha256": file_digest(folder / name), "bytes": (folder / name).stat().st_size} for name in _files(folder)
    }
    return json.dumps({"version": 1, "files": entries}, sort_keys=True, indent=1).encode()


def _files(folder: Path) -> list[str]:
    """Return the names of all files below ``folder``, relative and with forward slashes, in order."""
    names = []
    for current, _, files in os.walk(folder):
        relative = Path(current).relative_to(folder)
        names += [(relative / name).as_posix() for name in files]
    return sorted(names)
