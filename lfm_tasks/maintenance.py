"""Upkeep of a store: prune what nothing references, verify every byte."""

import json
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from lfm_tasks.catalog import Catalog
from lfm_tasks.errors import DataError
from lfm_tasks.runtime.run import remotely_locked
from lfm_tasks.stores.atlas.files import atlas_damages
from lfm_tasks.stores.atlas.schema import manifest_key
from lfm_tasks.stores.named_maps import map_names, read_named_map
from lfm_tasks.stores.references import (
    AtlasReference,
    UnitId,
    damaged_references,
    is_live,
    missing_folders,
    read_reference,
    read_references,
    remove_reference,
    remove_unit,
    stored_units,
    unit_bytes,
)
from lfm_tasks.stores.remote.contents import (
    find_remote_corruption,
    read_remote_references,
    remote_unit_bytes,
    remove_remote_unit,
    remove_stale_references,
)
from lfm_tasks.stores.remote.store import RemoteUnitStore
from lfm_tasks.stores.units.integrity import Corruption, find_corruption
from lfm_tasks.stores.units.marker import held_store
from lfm_tasks.stores.units.store import UnitStore

PRUNE_PURPOSE = "lfm-atlas prune"
VERIFY_PURPOSE = "lfm-atlas verify"
# The kinds of units that every atlas lists in its reference. Units of other kinds are unneeded only if the reference of
# an atlas that is gone names them.
LISTED_KINDS = (
    "activations", "bases", "halves", "designs", "scores", "collections", "kept_maps", "embeddings", "embedded_points",
    "maps", "across_datasets",
    # No atlas lists these: they are needed until their collection is there.
    "cycles",
)  # fmt: skip
_KEY = re.compile(r"\b[0-9a-f]{64}\b")


@dataclass(frozen=True)
class Pruned:
    """The units, as (kind, key), that were removed or would be, their bytes, and how many units stay.

    ``remote`` says so of the object store, if there is one; ``missing`` lists folders whose atlases are not there now.
    """

    units: tuple[UnitId, ...]
    n_bytes: int
    n_kept: int
    remote: "Pruned | None" = None
    missing: tuple[str, ...] = ()

    def counts(self) -> dict[str, int]:
        """Return the number of units of each kind."""
        return dict(sorted(Counter(kind for kind, _ in self.units).items()))


def prune(catalog: Catalog, *, remove: bool, forget_missing: bool = False) -> Pruned:
    """Return the units that no published atlas needs.

    An atlas whose folder is not there, or holds none, may be on a disk that is not mounted: its units count as needed.

    Parameters
    ----------
    catalog
        Names the store and its atlas.
    remove
        Whether to remove these units.
    forget_missing
        Whether atlases that are not there count as gone.

    Raises
    ------
    DataError
        If the catalog's atlas is not there, or its units are not listed: then every unit would look unneeded; or if
        units are to be removed while another atlas of the store is not there and ``forget_missing`` is not set.
    FolderError
        If the store's folder is somebody else's.
    StoreBusyError
        If a run holds the store.
    """
    root = catalog.root / catalog.atlas.store
    atlas = catalog.root / catalog.atlas.path
    key = manifest_key(atlas)
    if key is None or read_reference(root, key) is None:
        problem = "no atlas" if key is None else "an atlas that does not say what it was made of"
        raise DataError("missing_source", f"{atlas}: got {problem}, expected one to know what to keep: lfm-atlas run")
    if damaged := damaged_references(root):
        problem = f"got {damaged[0]} damaged, so nobody knows which units its atlas was made of"
        raise DataError("missing_source", f"{root}: {problem}, expected it whole. Restore it, or remove its atlas too")
    with held_store(root, PRUNE_PURPOSE), remotely_locked(catalog, PRUNE_PURPOSE) as token:
        # The object store, which others share, comes first: it may refuse.
        url = catalog.atlas.remote
        references = read_references(root)
        missing = sorted({folder for reference in references for folder in missing_folders(root, reference)})
        if missing and remove and not forget_missing:
            names = ", ".join(os.path.normpath(root / folder) for folder in missing)
            raise DataError(
                "missing_source",
                f"{root}: got no atlas in {names}, where one was published from this store, expected it there: it may "
                "be on a disk that is not mounted. Mount it, or add --forget-missing if it is gone for good",
            )
        needed = [
            reference
            for reference in references
            if is_live(root, reference) or (not forget_missing and missing_folders(root, reference))
        ]
        remote = None if url is None else _prune_remote(RemoteUnitStore(root, url, token), needed, remove=remove)
        unneeded = _unneeded_units(root, needed)
        n_bytes = sum(unit_bytes(root, unit) for unit in unneeded)
        n_kept = len(stored_units(root)) - len(unneeded)
        if remove:
            for unit in unneeded:
                remove_unit(root, unit)
            for reference in references:
                if reference not in needed:
                    remove_reference(root, reference)
    return Pruned(unneeded, n_bytes, n_kept, remote, tuple(os.path.normpath(root / folder) for folder in missing))


def _prune_remote(store: RemoteUnitStore, needed: list[AtlasReference], *, remove: bool) -> Pruned:
    """Prune an object store: what an atlas there, or one of this machine, needs stays.

    So do units of the kinds that atlases do not list, maps, which another machine may have a name for, and the units
    that these were computed from.
    """
    remote_references = read_remote_references(store)
    if not remote_references or None in remote_references.values():
        problem = "no atlas" if not remote_references else "an atlas that does not say what it was made of"
        raise DataError(
            "missing_source", f"{store.remote}: got {problem}, expected one to know what to keep: lfm-atlas run"
        )
    references = [reference for reference in remote_references.values() if reference]
    references += needed
    stored = store.stored_remotely()
    unlisted = {unit for unit in stored if unit[0] not in LISTED_KINDS or unit[0] == "maps"}
    named = named_units(store.root).union(*(reference.section_keys for reference in references))
    named |= {key for unit in unlisted for key in _KEY.findall(json.dumps(dict(store.receipt(*unit).facts)))}
    kept = unlisted.union(*(reference.units for reference in references))
    kept |= {unit for unit in stored if unit[1] in named}
    unneeded = tuple(sorted(stored - kept))
    n_bytes = sum(remote_unit_bytes(store, unit) for unit in unneeded)
    if remove:
        for unit in unneeded:
            remove_remote_unit(store, unit)
        remove_stale_references(store)
    return Pruned(unneeded, n_bytes, len(stored) - len(unneeded))


def _unneeded_units(root: Path, needed: list[AtlasReference]) -> tuple[UnitId, ...]:
    gone = [reference for reference in read_references(root) if reference not in needed]
    listed = frozenset().union(*(reference.units for reference in needed))
    named = frozenset().union(*(reference.section_keys for reference in needed)) | named_units(root)
    formerly_named = frozenset().union(*(reference.section_keys for reference in gone))
    stored = stored_units(root)
    unlisted = {
        unit for unit in stored if unit[0] not in LISTED_KINDS and (unit[1] in named or unit[1] not in formerly_named)
    }
    # A unit that stays, such as a named map, keeps the units that its receipt names.
    named |= {key for unit in unlisted for key in _keys_in_receipt(root, unit)}
    kept = listed | unlisted | {unit for unit in stored if unit[1] in named}
    return tuple(sorted(stored - kept))


def named_units(root: Path) -> frozenset[str]:
    """Return the keys in the files of named maps, damaged files included."""
    texts = (path.read_text("utf-8", errors="replace") for path in (root / "maps").glob("*.json"))
    return frozenset(key for text in texts for key in _KEY.findall(text))


def _keys_in_receipt(root: Path, unit: UnitId) -> set[str]:
    path = root / "receipts" / unit[0] / f"{unit[1]}.json"
    if not path.is_file():
        return set()
    return set(_KEY.findall(json.dumps(json.loads(path.read_bytes())["body"]["facts"])))


@dataclass(frozen=True)
class Verified:
    """How many units and atlases were read, and which of them are damaged."""

    n_units: int
    n_atlases: int
    damages: tuple[Corruption, ...]


def verify(catalog: Catalog) -> Verified:
    """Check every byte of the store, of its object store, and of the atlases published from it; nothing is changed.

    Raises
    ------
    DataError
        If there is neither a store nor an atlas.
    FolderError
        If the store's folder is somebody else's.
    StoreBusyError
        If a run holds the store.
    """
    root, atlas = catalog.root / catalog.atlas.store, catalog.root / catalog.atlas.path
    if not root.is_dir() and catalog.atlas.remote is None:
        if not atlas.is_dir():
            neither = f"got neither the store {root} nor the atlas {atlas}"
            raise DataError("missing_source", f"{neither}, expected what a run has made: lfm-atlas run")
        return Verified(0, 1, _corruption_of_atlas(atlas))
    with held_store(root, VERIFY_PURPOSE), remotely_locked(catalog, VERIFY_PURPOSE):
        atlases = _atlases(root, atlas)
        corruption = [*find_corruption(UnitStore(root)), *_corruption_of_names(root)]
        if (key := manifest_key(atlas)) and read_reference(root, key) is None:
            place, description = f"references/{key}.json", f"got no note of what the atlas {atlas} was made of"
            corruption.append(Corruption(place, description))
        corruption += [damage for folder in atlases for damage in _corruption_of_atlas(folder)]
        local = Verified(len(stored_units(root)), len(atlases), tuple(corruption))
        url = catalog.atlas.remote
        return local if url is None else _with_remote(local, RemoteUnitStore(root, url))


def _with_remote(local: Verified, store: RemoteUnitStore) -> Verified:
    n_units, n_atlases = len(store.stored_remotely()), int(store.current_atlas() is not None)
    damages = (*local.damages, *find_remote_corruption(store))
    return Verified(local.n_units + n_units, local.n_atlases + n_atlases, damages)


def _atlases(root: Path, atlas: Path) -> list[Path]:
    """Return the folders of the catalog's atlas and of all others that references list, where they still exist."""
    referenced = {(root / name).resolve() for reference in read_references(root) for name in reference.folders}
    return sorted({folder for folder in {*referenced, atlas.resolve()} if folder.exists()})


def _corruption_of_atlas(folder: Path) -> tuple[Corruption, ...]:
    return tuple(Corruption(str(folder), damage) for damage in atlas_damages(folder))


def _corruption_of_names(root: Path) -> list[Corruption]:
    """Return damaged references and named maps, and files beside them that do not belong there."""
    description = "it is no note of an atlas, or not as it was written"
    corruption = [Corruption(reference, description) for reference in damaged_references(root)]
    for part in ("references", "maps"):
        strays = sorted(path.name for path in (root / part).glob("*") if path.suffix != ".json" or path.is_symlink())
        corruption += [Corruption(f"{part}/{name}", "it is nothing that lfm-atlas writes there") for name in strays]
    for name in map_names(root):
        try:
            read_named_map(root, name)
        except DataError as error:
            corruption.append(Corruption(f"maps/{name}.json", str(error)))
    return corruption
