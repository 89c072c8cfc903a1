"""Finds units that differ from their checksums, and moves them into quarantine.

``checked.json`` keeps the names, sizes, times and inodes of the files of every unit that was checked, so that the start
of a run reads only units that changed. A bit that rots without a trace in these is found when the unit is read, and by
`find_corruption`, which reads everything.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from uuid import uuid4

from lfm_tasks.errors import CorruptUnitError
from lfm_tasks.stores.units.durable import atomic_write
from lfm_tasks.stores.units.store import UnitStore

_STAMPS = "checked.json"
# Of a receipt; a name that starts with a dot is being written.
_SUFFIX = ".json"


@dataclass(frozen=True)
class Corruption:
    """A damaged place (relative to the store or the catalog), and what is wrong there."""

    place: str
    description: str


def find_corruption(store: UnitStore) -> Iterator[Corruption]:
    """Yield everything below ``units`` and ``receipts`` that is not as committed; every byte is read."""
    yield from _strays(store.root)
    for kind, key in _all_units(store.root):
        if damage := _damage(store, kind, key):
            yield damage


def quarantine_corrupt(store: UnitStore) -> tuple[Corruption, ...]:
    """Put into quarantine what is not as committed, and return it; only for the holder of the store's lock."""
    before, sound, corrupt = _read_stamps(store.root), {}, list[Corruption]()
    for stray in _strays(store.root):
        aside = store.root / "quarantine" / f"stray-{uuid4().hex}"
        aside.parent.mkdir(exist_ok=True)
        (store.root / stray.place).rename(aside)
        corrupt.append(stray)
    for kind, key in _all_units(store.root):
        name, stamp = f"{kind}/{key}", _stamp(store, kind, key)
        if before.get(name) != stamp and (damage := _damage(store, kind, key)):
            # A folder without a receipt is what a kill leaves: it makes room when the unit is made.
            is_committed = store.receipt_path(kind, key).is_file()
            if is_committed and store.quarantine(kind, key, unless=partial(_is_sound, store, kind, key)):
                corrupt.append(damage)
            continue
        sound[name] = stamp
    if sound != before:
        atomic_write(store.root / _STAMPS, json.dumps(sound, sort_keys=True, indent=1).encode())
    return tuple(corrupt)


def quarantine_unfinished(store: UnitStore) -> None:
    """Put folders without a receipt into quarantine; only at the end of a run, which has replaced those it needs."""
    for kind, key in _all_units(store.root):
        receipt = store.receipt_path(kind, key)
        if not receipt.is_file():
            store.quarantine(kind, key, unless=receipt.is_file)


def _is_sound(store: UnitStore, kind: str, key: str) -> bool:
    return _damage(store, kind, key) is None


def _damage(store: UnitStore, kind: str, key: str) -> Corruption | None:
    place = f"units/{kind}/{key}"
    if not store.receipt_path(kind, key).is_file():
        return Corruption(place, "it has no receipt: lost, or the run that made it was stopped")
    if not _is_folder(store.unit_path(kind, key)):
        return Corruption(place, "it is missing, and its receipt is there")
    try:
        store.check(kind, key)
    except CorruptUnitError as error:
        return Corruption(place, str(error))
    return None


def _strays(root: Path) -> Iterator[Corruption]:
    """Yield the files that cannot be a unit, a receipt, or a folder of these."""
    for part, holds_units in (("units", True), ("receipts", False)):
        for kind in sorted((root / part).glob("*")):
            if not _is_folder(kind):
                yield Corruption(f"{part}/{kind.name}", "it is no folder of units")
                continue
            for path in sorted(kind.iterdir()):
                is_receipt = path.is_file() and not path.is_symlink() and path.suffix == _SUFFIX
                if not (_is_folder(path) if holds_units else is_receipt):
                    what = "folder of a unit" if holds_units else "receipt"
                    yield Corruption(f"{part}/{kind.name}/{path.name}", f"it is no {what}")


def _all_units(root: Path) -> list[tuple[str, str]]:
    """Return kind and key of all units that have a folder or a receipt, in order."""
    folders = {(path.parent.name, path.name) for path in root.glob("units/*/*") if _is_folder(path)}
    receipts = {(path.parent.name, path.stem) for path in root.glob(f"receipts/*/*{_SUFFIX}") if path.is_file()}
    return sorted(folders | receipts)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _stamp(store: UnitStore, kind: str, key: str) -> str:
    """Return a digest of names, sizes, times, inodes and modes of a unit's files: every change of a file changes it."""
    entries = []
    for path in (store.receipt_path(kind, key), *_below(store.unit_path(kind, key))):
        try:
            facts = path.lstat()
        except FileNotFoundError:
            continue
        name = path.relative_to(store.root).as_posix()
        entries.append((name, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino, facts.st_mode))
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()


def _below(folder: Path) -> list[Path]:
    return sorted(Path(current, name) for current, _, names in os.walk(folder) for name in names)


def _read_stamps(root: Path) -> dict[str, str]:
    try:
        stamps = json.loads((root / _STAMPS).read_bytes())
    except (OSError, ValueError):
        return {}
    return stamps if isinstance(stamps, dict) else {}
