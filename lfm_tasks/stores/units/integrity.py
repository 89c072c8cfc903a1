"""Whether everything in a store is as it was committed, and what is not out of the way.

What was checked once is remembered in ``checked.json`` by the names, sizes, times and inodes of its files: a unit that
nobody touched is not read again at the start of every run. Bits that rot without a trace in these are found when the
unit is read, and by `damages`, which reads everything.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from lfm_tasks.stores.units.durable import atomic_write
from lfm_tasks.stores.units.store import CorruptUnitError, UnitStore

_MEMORY = "checked.json"
# A receipt's name ends so; what starts with a dot is being written.
_ENDING = ".json"


@dataclass(frozen=True)
class Corruption:
    """What is not as it was written: where (relative to the store or the catalog), and what was found there."""

    place: str
    found: str


def find_corruption(store: UnitStore) -> Iterator[Corruption]:
    """Yield everything below ``units`` and ``receipts`` that is not as it was committed; every byte is read."""
    yield from _strays(store.root)
    for kind, key in _named(store.root):
        if damage := _damage(store, kind, key):
            yield damage


def quarantine_corrupt(store: UnitStore) -> tuple[Corruption, ...]:
    """Put into quarantine what is not as it was committed, and return it; only for who holds the store's lock."""
    before, sound, found = _remembered(store.root), {}, list[Corruption]()
    for stray in _strays(store.root):
        aside = store.root / "quarantine" / f"stray-{uuid4().hex}"
        aside.parent.mkdir(exist_ok=True)
        (store.root / stray.place).rename(aside)
        found.append(stray)
    for kind, key in _named(store.root):
        name, stamp = f"{kind}/{key}", _stamp(store, kind, key)
        if before.get(name) != stamp and (damage := _damage(store, kind, key)):
            # A folder without a receipt is what a kill leaves: it makes room when the unit is made.
            if store.receipt_path(kind, key).is_file():
                store.quarantine(kind, key)
                found.append(damage)
            continue
        sound[name] = stamp
    if sound != before:
        atomic_write(store.root / _MEMORY, json.dumps(sound, sort_keys=True, indent=1).encode())
    return tuple(found)


def quarantine_unfinished(store: UnitStore) -> None:
    """Put folders without a receipt into quarantine; only at the end of a run, which has made what it needs of them."""
    for kind, key in _named(store.root):
        if not store.receipt_path(kind, key).is_file():
            store.quarantine(kind, key)


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
    """Yield what cannot be a unit, a receipt, or a folder of these."""
    for part, holds_units in (("units", True), ("receipts", False)):
        for kind in sorted((root / part).glob("*")):
            if not _is_folder(kind):
                yield Corruption(f"{part}/{kind.name}", "it is no folder of units")
                continue
            for path in sorted(kind.iterdir()):
                is_receipt = path.is_file() and not path.is_symlink() and path.suffix == _ENDING
                if not (_is_folder(path) if holds_units else is_receipt):
                    what = "folder of a unit" if holds_units else "receipt"
                    yield Corruption(f"{part}/{kind.name}/{path.name}", f"it is no {what}")


def _named(root: Path) -> list[tuple[str, str]]:
    """Return all (kind, key) of which there is a folder or a receipt, in order."""
    folders = {(path.parent.name, path.name) for path in root.glob("units/*/*") if _is_folder(path)}
    receipts = {(path.parent.name, path.stem) for path in root.glob(f"receipts/*/*{_ENDING}") if path.is_file()}
    return sorted(folders | receipts)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _stamp(store: UnitStore, kind: str, key: str) -> str:
    """Return a digest of what the file system says of a unit's files: every change of them changes it."""
    told = []
    for path in (store.receipt_path(kind, key), *_below(store.unit_path(kind, key))):
        try:
            facts = path.lstat()
        except FileNotFoundError:
            continue
        name = path.relative_to(store.root).as_posix()
        told.append((name, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino, facts.st_mode))
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _below(folder: Path) -> list[Path]:
    return sorted(Path(current, name) for current, _, names in os.walk(folder) for name in names)


def _remembered(root: Path) -> dict[str, str]:
    try:
        remembered = json.loads((root / _MEMORY).read_bytes())
    except (OSError, ValueError):
        return {}
    return remembered if isinstance(remembered, dict) else {}
