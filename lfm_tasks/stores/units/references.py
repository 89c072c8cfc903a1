"""Which units an atlas was made of: noted in the store for each published folder, so that others can be pruned.

A note lies in ``references/<key of the atlas>.json``; it counts as long as one of its folders holds that atlas.
"""

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from lfm_tasks.stores.units.durable import add_checksum, atomic_write, verify_checksum

Unit = tuple[str, str]


@dataclass(frozen=True)
class Note:
    """The units of one atlas as (kind, key), keys of sections whose kind it does not know, where it was published."""

    key: str
    units: frozenset[Unit]
    others: frozenset[str]
    folders: tuple[str, ...]


def note_units(root: Path, key: str, units: Mapping[str, Iterable[str]], others: Iterable[str], folder: Path) -> None:
    """Note what the atlas in ``folder`` was made of, in the store at ``root``."""
    known = read_note(root, key)
    folders = sorted({_relative(root, folder), *(known.folders if known else ())})
    content = {
        "folders": folders,
        "units": {kind: sorted(set(keys)) for kind, keys in units.items()},
        "others": sorted(set(others)),
    }
    _write(root, key, content)


def note_folder(root: Path, key: str, folder: Path) -> None:
    """Note that the atlas of this key lies in another folder, too; nothing where its units were never noted."""
    known = read_note(root, key)
    if known is None:
        return
    units: dict[str, list[str]] = {}
    for kind, unit in known.units:
        units.setdefault(kind, []).append(unit)
    note_units(root, key, units, known.others, folder)


def read_note(root: Path, key: str) -> Note | None:
    """Return what was noted of an atlas; None: nothing, or its note is damaged."""
    try:
        return note_of(key, note_path(root, key).read_bytes())
    except (OSError, ValueError):
        return None


def note_of(key: str, sealed: bytes) -> Note:
    """Return the note that was written as these bytes; ValueError if they are none."""
    content = verify_checksum(sealed)
    units = frozenset((kind, unit) for kind, keys in content["units"].items() for unit in keys)
    return Note(key, units, frozenset(content["others"]), tuple(content["folders"]))


def read_notes(root: Path) -> list[Note]:
    """Return all notes of a store."""
    return [note for key in _keys(root) if (note := read_note(root, key)) is not None]


def damaged_notes(root: Path) -> list[str]:
    """Return the names of notes that are not as they were written: of which atlas's units nobody knows."""
    return [f"references/{key}.json" for key in _keys(root) if read_note(root, key) is None]


def holds_atlas(root: Path, folder: Path) -> bool:
    """Return whether an atlas was published in ``folder``, as far as the store knows; damaged or not."""
    return any(_relative(root, folder) in note.folders for note in read_notes(root))


def is_live(root: Path, note: Note) -> bool:
    """Return whether one of its folders still holds the atlas (damaged ones count: they may be mended)."""
    return any(manifest_key(root / folder) == note.key for folder in note.folders)


def forget(root: Path, note: Note) -> None:
    """Remove a note."""
    note_path(root, note.key).unlink(missing_ok=True)


def manifest_key(folder: Path) -> str | None:
    """Return the key that an atlas's manifest names, without checking its files; None: there is no atlas."""
    try:
        return str(json.loads((folder / "manifest.json").read_bytes())["key"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _keys(root: Path) -> list[str]:
    return sorted(path.stem for path in (root / "references").glob("*.json"))


def _write(root: Path, key: str, content: Mapping[str, object]) -> None:
    text = add_checksum(content)
    path = note_path(root, key)
    if path.is_symlink() or not path.is_file() or path.read_bytes() != text:
        atomic_write(path, text)


def note_path(root: Path, key: str) -> Path:
    """Return the file of an atlas's note."""
    return root / "references" / f"{key}.json"


def _relative(root: Path, folder: Path) -> str:
    # Relative, so that a store and its atlas can be moved together.
    return Path(os.path.relpath(folder, root)).as_posix()


def stored_units(root: Path) -> set[Unit]:
    """Return all units of a store as (kind, key), those as well that a kill left without a receipt."""
    folders = {(path.parent.name, path.name) for path in root.glob("units/*/*") if path.is_dir()}
    receipts = {(path.parent.name, path.stem) for path in root.glob("receipts/*/*.json")}
    return folders | receipts


def unit_bytes(root: Path, unit: Unit) -> int:
    """Return the bytes that a unit's files take."""
    kind, key = unit
    return sum(path.stat().st_size for path in (root / "units" / kind / key).rglob("*") if path.is_file())


def remove_unit(root: Path, unit: Unit) -> None:
    """Remove a unit: its receipt first, so that a kill leaves no word of what is gone."""
    kind, key = unit
    (root / "receipts" / kind / f"{key}.json").unlink(missing_ok=True)
    folder = root / "units" / kind / key
    if folder.is_dir():
        aside = root / "staging" / f"pruned-{uuid4().hex}"
        aside.parent.mkdir(exist_ok=True)
        shutil.rmtree(folder.rename(aside))
