"""References from atlases to units: the store keeps, for each published atlas, which units it is made of.

A reference lies in ``references/<key of the atlas>.json``. It counts as long as one of its folders holds that atlas;
units that no reference names may be pruned.
"""

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from lfm_tasks.stores.atlas.schema import manifest_key
from lfm_tasks.stores.units.durable import add_checksum, atomic_write, verify_checksum
from lfm_tasks.stores.units.store import lock_unit

UnitId = tuple[str, str]  # kind and key


@dataclass(frozen=True)
class AtlasReference:
    """The units that one atlas is made of.

    Parameters
    ----------
    key
        The key of the atlas.
    units
        Its units.
    section_keys
        Keys of units that sections are made of, whose kind the atlas does not know.
    folders
        Where it was published, relative to the store.
    catalogs
        For folders that a catalog published it to: the file of this catalog, relative to the store.
    """

    key: str
    units: frozenset[UnitId]
    section_keys: frozenset[str]
    folders: tuple[str, ...]
    catalogs: Mapping[str, str] = field(default_factory=dict)


def write_reference(
    root: Path,
    key: str,
    units: Mapping[str, Iterable[str]],
    section_keys: Iterable[str],
    folder: Path,
    catalog: Path | None = None,
) -> None:
    """Write the units of the atlas in ``folder`` into the store at ``root`` as a reference; keep its other folders.

    ``catalog``: the file of the catalog that the atlas is published by.
    """
    former = read_reference(root, key)
    folders = sorted({_relative(root, folder), *(former.folders if former else ())})
    catalogs = dict(former.catalogs) if former else {}
    catalogs |= {} if catalog is None else {_relative(root, folder): _relative(root, catalog)}
    content = {
        "catalogs": catalogs,
        "folders": folders,
        "units": {kind: sorted(set(keys)) for kind, keys in units.items()},
        "others": sorted(set(section_keys)),
    }
    _write(root, key, content)


def add_reference_folder(root: Path, key: str, folder: Path, catalog: Path | None = None) -> None:
    """Add a folder, and its catalog, to the reference of an atlas; nothing if the atlas has no reference."""
    former = read_reference(root, key)
    if former is None:
        return
    units: dict[str, list[str]] = {}
    for kind, unit_key in former.units:
        units.setdefault(kind, []).append(unit_key)
    write_reference(root, key, units, former.section_keys, folder, catalog)


def read_reference(root: Path, key: str) -> AtlasReference | None:
    """Return the reference of an atlas; None if there is none, or it is damaged."""
    try:
        return parse_reference(key, reference_path(root, key).read_bytes())
    except (OSError, ValueError):
        return None


def parse_reference(key: str, content: bytes) -> AtlasReference:
    """Return the reference that was written as these bytes; ValueError if they are damaged."""
    body = verify_checksum(content)
    units = frozenset((kind, unit_key) for kind, keys in body["units"].items() for unit_key in keys)
    others, folders = frozenset(body["others"]), tuple(body["folders"])
    return AtlasReference(key, units, others, folders, body.get("catalogs", {}))


def read_references(root: Path) -> list[AtlasReference]:
    """Return all sound references of a store."""
    return [reference for key in _keys(root) if (reference := read_reference(root, key)) is not None]


def damaged_references(root: Path) -> list[str]:
    """Return the files of the references that are damaged, relative to ``root``."""
    return [f"references/{key}.json" for key in _keys(root) if read_reference(root, key) is None]


def holds_atlas(root: Path, folder: Path) -> bool:
    """Return whether a reference names ``folder``: an atlas was published there, be it damaged now or not."""
    return any(_relative(root, folder) in reference.folders for reference in read_references(root))


def publisher(root: Path, key: str, folder: Path) -> Path | None:
    """Return the file of the catalog that published the atlas of this key to ``folder``; None if no reference says."""
    reference = read_reference(root, key)
    catalog = None if reference is None else reference.catalogs.get(_relative(root, folder))
    return None if catalog is None else Path(os.path.normpath(root / catalog))


def is_live(root: Path, reference: AtlasReference) -> bool:
    """Return whether one of the folders still holds the atlas (damaged ones count: they may be repaired)."""
    return any(manifest_key(root / folder) == reference.key for folder in reference.folders)


def missing_folders(root: Path, reference: AtlasReference) -> tuple[str, ...]:
    """Return the folders of an atlas that is not live where there is no atlas at all: not mounted, perhaps.

    A folder that holds another atlas is not among them: there, this one was replaced.
    """
    if is_live(root, reference):
        return ()
    return tuple(folder for folder in reference.folders if manifest_key(root / folder) is None)


def remove_reference(root: Path, reference: AtlasReference) -> None:
    """Remove a reference."""
    reference_path(root, reference.key).unlink(missing_ok=True)


def _keys(root: Path) -> list[str]:
    return sorted(path.stem for path in (root / "references").glob("*.json"))


def _write(root: Path, key: str, content: Mapping[str, object]) -> None:
    text = add_checksum(content)
    path = reference_path(root, key)
    if path.is_symlink() or not path.is_file() or path.read_bytes() != text:
        atomic_write(path, text)


def reference_path(root: Path, key: str) -> Path:
    """Return the file of an atlas's reference."""
    return root / "references" / f"{key}.json"


def _relative(root: Path, folder: Path) -> str:
    # Relative, so that a store and its atlas can be moved together.
    return Path(os.path.relpath(folder, root)).as_posix()


def stored_units(root: Path) -> set[UnitId]:
    """Return all units of a store, including those that a kill left without a receipt."""
    folders = {(path.parent.name, path.name) for path in root.glob("units/*/*") if path.is_dir()}
    receipts = {(path.parent.name, path.stem) for path in root.glob("receipts/*/*.json")}
    return folders | receipts


def unit_bytes(root: Path, unit: UnitId) -> int:
    """Return the bytes that a unit's files take."""
    kind, key = unit
    return sum(path.stat().st_size for path in (root / "units" / kind / key).rglob("*") if path.is_file())


def remove_unit(root: Path, unit: UnitId) -> None:
    """Remove a unit: its receipt first, so that a kill leaves no receipt of a unit that is gone."""
    kind, key = unit
    with lock_unit(root, kind, key):
        (root / "receipts" / kind / f"{key}.json").unlink(missing_ok=True)
        folder = root / "units" / kind / key
        if folder.is_dir():
            aside = root / "staging" / f"pruned-{uuid4().hex}"
            aside.parent.mkdir(exist_ok=True)
            shutil.rmtree(folder.rename(aside))
