"""Upkeep of a store: prune what nothing references, verify every byte."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from lfm_tasks.catalog import Catalog
from lfm_tasks.errors import DataError
from lfm_tasks.runtime.run import remotely_locked
from lfm_tasks.stores.atlas.files import atlas_damages
from lfm_tasks.stores.named_maps import map_names, read_named_map
from lfm_tasks.stores.remote import (
    RemoteUnits,
    bytes_there,
    current_atlas,
    damages_there,
    forget_notes,
    notes_there,
    remove_there,
    units_there,
)
from lfm_tasks.stores.units.durable import locked
from lfm_tasks.stores.units.integrity import Corruption, find_corruption
from lfm_tasks.stores.units.references import (
    Unit,
    damaged_notes,
    forget,
    is_live,
    manifest_key,
    read_note,
    read_notes,
    remove_unit,
    stored_units,
    unit_bytes,
)
from lfm_tasks.stores.units.store import UnitStore

PRUNE_PURPOSE = "lfm-atlas prune"
# What every atlas notes by kind. Units of other kinds go only when an atlas that is gone named them.
NOTED = (
    "activations", "bases", "designs", "scores", "collections", "kept_maps", "embeddings", "embedded_points", "maps",
)  # fmt: skip
_KEY = re.compile(r"\b[0-9a-f]{64}\b")


@dataclass(frozen=True)
class Pruned:
    """What was removed, or would be: units as (kind, key), and their bytes; how many stay; the same of the remote."""

    units: tuple[Unit, ...]
    n_bytes: int
    n_kept: int
    remote: "Pruned | None" = None

    def count(self) -> dict[str, int]:
        """Return how many units of each kind."""
        kinds = [kind for kind, _ in self.units]
        return {kind: kinds.count(kind) for kind in sorted(set(kinds))}


def prune(catalog: Catalog, *, remove: bool) -> Pruned:
    """Return the units that nothing published was made of; with ``remove`` they are gone.

    Raises
    ------
    ReasonError
        If the catalog's atlas is not there, or its units were never noted: everything would look unneeded.
    StoreBusyError
        If a run holds the store.
    """
    root = catalog.root / catalog.atlas.store
    atlas = catalog.root / catalog.atlas.path
    key = manifest_key(atlas)
    if key is None or read_note(root, key) is None:
        found = "no atlas" if key is None else "an atlas that does not say what it was made of"
        raise DataError("missing_source", f"{atlas}: found {found}, needs one to know what to keep: lfm-atlas run")
    if lost := damaged_notes(root):
        found = f"found {lost[0]} damaged, so nobody knows which units its atlas was made of"
        raise DataError("missing_source", f"{root}: {found}, needs it whole: restore it, or remove it with its atlas")
    with locked(root, PRUNE_PURPOSE), remotely_locked(catalog, PRUNE_PURPOSE):
        # First what others use, too: it may refuse.
        there = None if catalog.atlas.remote is None else _prune_there(RemoteUnits(root, catalog.atlas.remote), remove)
        unneeded = _unneeded(root)
        n_bytes = sum(unit_bytes(root, unit) for unit in unneeded)
        n_kept = len(stored_units(root)) - len(unneeded)
        if remove:
            for unit in unneeded:
                remove_unit(root, unit)
            for note in read_notes(root):
                if not is_live(root, note):
                    forget(root, note)
    return Pruned(unneeded, n_bytes, n_kept, there)


def _prune_there(store: RemoteUnits, remove: bool) -> Pruned:
    """Do the same on an object store: what an atlas there, or one of this machine, was made of stays.

    So do units of kinds that atlases do not note, maps, which another machine may have a name for, and what they were
    fitted from.
    """
    there = notes_there(store)
    if not there or None in there.values():
        found = "no atlas" if not there else "an atlas that does not say what it was made of"
        raise DataError(
            "missing_source", f"{store.remote}: found {found}, needs one to know what to keep: lfm-atlas run"
        )
    notes = [note for note in there.values() if note] + [n for n in read_notes(store.root) if is_live(store.root, n)]
    stored = units_there(store)
    stays = {unit for unit in stored if unit[0] not in NOTED or unit[0] == "maps"}
    named = named_units(store.root).union(*(note.others for note in notes))
    named |= {key for unit in stays for key in _KEY.findall(json.dumps(dict(store.receipt(*unit).facts)))}
    kept = stays.union(*(note.units for note in notes)) | {unit for unit in stored if unit[1] in named}
    unneeded = tuple(sorted(stored - kept))
    n_bytes = sum(bytes_there(store, unit) for unit in unneeded)
    if remove:
        for unit in unneeded:
            remove_there(store, unit)
        forget_notes(store)
    return Pruned(unneeded, n_bytes, len(stored) - len(unneeded))


def _unneeded(root: Path) -> tuple[Unit, ...]:
    notes = {note: is_live(root, note) for note in read_notes(root)}
    needed = frozenset().union(*(note.units for note, live in notes.items() if live))
    named = frozenset().union(*(note.others for note, live in notes.items() if live)) | named_units(root)
    former = frozenset().union(*(note.others for note, live in notes.items() if not live))
    stored = stored_units(root)
    others = {unit for unit in stored if unit[0] not in NOTED and (unit[1] in named or unit[1] not in former)}
    # A unit that stays, such as a map that somebody named, keeps what its receipt names.
    named |= {key for unit in others for key in _names(root, unit)}
    kept = needed | others | {unit for unit in stored if unit[1] in named}
    return tuple(sorted(stored - kept))


def named_units(root: Path) -> frozenset[str]:
    """Return the keys that the files of named maps hold; of a damaged file, too."""
    texts = (path.read_text("utf-8", errors="replace") for path in (root / "maps").glob("*.json"))
    return frozenset(key for text in texts for key in _KEY.findall(text))


def _names(root: Path, unit: Unit) -> set[str]:
    path = root / "receipts" / unit[0] / f"{unit[1]}.json"
    if not path.is_file():
        return set()
    return set(_KEY.findall(json.dumps(json.loads(path.read_bytes())["body"]["facts"])))


VERIFY_PURPOSE = "lfm-atlas verify"


@dataclass(frozen=True)
class Verified:
    """How many units and atlases were read, and what of them is damaged."""

    n_units: int
    n_atlases: int
    damages: tuple[Corruption, ...]


def verify(catalog: Catalog) -> Verified:
    """Check every byte of the store, of its object store, and of the atlases published from it; nothing is changed.

    Raises
    ------
    ReasonError
        If there is neither a store nor an atlas.
    StoreBusyError
        If a run holds the store.
    """
    root, atlas = catalog.root / catalog.atlas.store, catalog.root / catalog.atlas.path
    if not root.is_dir() and catalog.atlas.remote is None:
        if not atlas.is_dir():
            neither = f"found neither the store {root} nor the atlas {atlas}"
            raise DataError("missing_source", f"{neither}, needs what a run has made: lfm-atlas run")
        return Verified(0, 1, _of_atlas(atlas))
    with locked(root, VERIFY_PURPOSE), remotely_locked(catalog, VERIFY_PURPOSE):
        atlases = _atlases(root, atlas)
        found = [*find_corruption(UnitStore(root)), *_of_names(root)]
        if (key := manifest_key(atlas)) and read_note(root, key) is None:
            found.append(Corruption(f"references/{key}.json", f"found no note of what the atlas {atlas} was made of"))
        found += [damage for folder in atlases for damage in _of_atlas(folder)]
        here = Verified(len(stored_units(root)), len(atlases), tuple(found))
        return here if catalog.atlas.remote is None else _with_remote(here, RemoteUnits(root, catalog.atlas.remote))


def _with_remote(here: Verified, store: RemoteUnits) -> Verified:
    n_units, n_atlases = len(units_there(store)), int(current_atlas(store) is not None)
    found = (*here.damages, *damages_there(store))
    return Verified(here.n_units + n_units, here.n_atlases + n_atlases, found)


def _atlases(root: Path, atlas: Path) -> list[Path]:
    """Return the atlas of the catalog, and all folders that others are noted in and still are there."""
    noted = {(root / name).resolve() for note in read_notes(root) for name in note.folders}
    return sorted({folder for folder in {*noted, atlas.resolve()} if folder.exists()})


def _of_atlas(folder: Path) -> tuple[Corruption, ...]:
    return tuple(Corruption(str(folder), what) for what in atlas_damages(folder))


def _of_names(root: Path) -> list[Corruption]:
    found = [Corruption(note, "it is no note of an atlas, or not as it was written") for note in damaged_notes(root)]
    for part in ("references", "maps"):
        strays = sorted(path.name for path in (root / part).glob("*") if path.suffix != ".json" or path.is_symlink())
        found += [Corruption(f"{part}/{name}", "it is nothing that lfm-atlas writes there") for name in strays]
    for name in map_names(root):
        try:
            read_named_map(root, name)
        except DataError as error:
            found.append(Corruption(f"maps/{name}.json", str(error)))
    return found
