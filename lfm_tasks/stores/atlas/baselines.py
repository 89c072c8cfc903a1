"""The baseline: an atlas that was copied aside, whole, and is replaced whole."""

import shutil
import time
from pathlib import Path

from lfm_tasks.stores.atlas.files import publish, published_key


def promote(atlas: Path, baseline: Path) -> bool:
    """Copy the atlas over the baseline in one step; return False where it is there already."""
    key = published_key(atlas)
    if key is None:
        raise FileNotFoundError(f"{atlas}: found no whole atlas (its manifest.json must fit its files): run it again")
    if published_key(baseline) == key:
        return False
    with publish(baseline, key) as folder:
        shutil.copytree(atlas, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("manifest.json"))
    return True


def age_in_days(folder: Path) -> float:
    """Return the days since the atlas in ``folder`` was put there."""
    return max(0.0, (time.time() - (folder / "manifest.json").stat().st_mtime) / 86_400)
