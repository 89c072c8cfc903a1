"""Reads everything a store and its published atlases hold, and says what is not as it was written."""

from dataclasses import dataclass
from pathlib import Path

from lfm_tasks.catalog import Catalog
from lfm_tasks.reasons import ReasonError
from lfm_tasks.runtime.store import remotely_locked
from lfm_tasks.stores.atlas.files import atlas_damages
from lfm_tasks.stores.named_maps import map_names, read_named_map
from lfm_tasks.stores.remote.units import RemoteUnits
from lfm_tasks.stores.remote.upkeep import current_atlas, damages_there, units_there
from lfm_tasks.stores.units.integrity import Damage, damages
from lfm_tasks.stores.units.locks import locked
from lfm_tasks.stores.units.pruning import stored_units
from lfm_tasks.stores.units.references import damaged_notes, manifest_key, read_note, read_notes
from lfm_tasks.stores.units.store import UnitStore

PURPOSE = "lfm-atlas verify"


@dataclass(frozen=True)
class Verified:
    """How many units and atlases were read, and what of them is damaged."""

    n_units: int
    n_atlases: int
    damages: tuple[Damage, ...]


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
            raise ReasonError("missing_source", f"{neither}, needs what a run has made: lfm-atlas run")
        return Verified(0, 1, _of_atlas(atlas))
    with locked(root, PURPOSE), remotely_locked(catalog, PURPOSE):
        atlases = _atlases(root, atlas)
        found = [*damages(UnitStore(root)), *_of_names(root)]
        if (key := manifest_key(atlas)) and read_note(root, key) is None:
            found.append(Damage(f"references/{key}.json", f"found no note of what the atlas {atlas} was made of"))
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


def _of_atlas(folder: Path) -> tuple[Damage, ...]:
    return tuple(Damage(str(folder), what) for what in atlas_damages(folder))


def _of_names(root: Path) -> list[Damage]:
    found = [Damage(note, "it is no note of an atlas, or not as it was written") for note in damaged_notes(root)]
    for part in ("references", "maps"):
        strays = sorted(path.name for path in (root / part).glob("*") if path.suffix != ".json" or path.is_symlink())
        found += [Damage(f"{part}/{name}", "it is nothing that lfm-atlas writes there") for name in strays]
    for name in map_names(root):
        try:
            read_named_map(root, name)
        except ReasonError as error:
            found.append(Damage(f"maps/{name}.json", str(error)))
    return found
