"""Lists and removes units; only for who holds the store's lock."""

import shutil
from pathlib import Path
from uuid import uuid4

from lfm_tasks.stores.units.references import Unit


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
