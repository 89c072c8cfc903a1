"""docs/parity.md and docs/upgrade.md leave no kind of fault, no map and no kind of file out."""

import re
from pathlib import Path

from lfm_tasks.parity.differences import PRECISIONS
from lfm_tasks.parity.stage import FAULTS
from lfm_tasks.parity.transformations import KINDS
from lfm_tasks.upgrades.adapters import ADAPTERS
from lfm_tasks.upgrades.bulk import OUTPUT_TYPES
from lfm_tasks.upgrades.writers import WRITERS

DOCS = Path(__file__).parents[2] / "docs"
PARITY, UPGRADE = ((DOCS / name).read_text(encoding="utf-8") for name in ("parity.md", "upgrade.md"))


def test_parity__names_every_kind_and_type() -> None:
    assert [kind for kind in (*KINDS, *FAULTS) if f"`{kind}`" not in PARITY] == []
    for precision in PRECISIONS.values():
        assert re.search(rf"{precision.tolerance:.0e} for {precision.name}".replace("e-0", "e-0?"), PARITY)


def test_upgrade__names_every_map_and_kind_of_file() -> None:
    assert [name for name in ADAPTERS if f"`{name}`" not in UPGRADE] == []
    assert [suffix for suffix in WRITERS if suffix not in UPGRADE and suffix != ".hdf5"] == []
    assert [name for name in OUTPUT_TYPES if name not in UPGRADE] == []
