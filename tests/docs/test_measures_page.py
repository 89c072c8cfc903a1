"""docs/measures.md names every measure, docs/catalog.md every graph kernel."""

import re
from fnmatch import fnmatchcase
from pathlib import Path

from lfm_tasks.measures.registry import shipped_measures
from lfm_tasks.spectral.bases.full_map import MAP_SCORES
from lfm_tasks.spectral.bases.graph_kernels import KERNELS

DOCS = Path(__file__).parents[2] / "docs"
ROWS = [
    row.split("|")[1] for row in (DOCS / "measures.md").read_text(encoding="utf-8").splitlines() if row[:3] == "| `"
]


def named(cells: list[str]) -> list[str]:
    """Return the patterns of names in the table: ``a_1``, `_2` stands for ``a_1`` and ``a_2``."""
    patterns = []
    for cell in cells:
        names = re.findall(r"`([^`]+)`", cell)
        stem = names[0].rsplit("_", 1)[0]
        patterns += [stem + name if name[0] == "_" else name for name in names]
    return patterns


def test_measures_page__names_every_measure_and_how_many_there_are() -> None:
    # Those of the paper, for `reproduce`, stand in docs/evidence.md.
    patterns = [*named(ROWS), "lfm_raw", "lfm_unsquared"]
    assert [name for name in shipped_measures() if not any(fnmatchcase(name, pattern) for pattern in patterns)] == []
    assert [name for name in MAP_SCORES if name not in patterns] == []
    assert f"All {len(shipped_measures())} give the values" in (DOCS / "measures.md").read_text(encoding="utf-8")
    assert f"[{len(shipped_measures())} other measures]" in (DOCS.parent / "README.md").read_text(encoding="utf-8")


def test_catalog_page__names_every_graph_kernel() -> None:
    [line] = [line for line in (DOCS / "catalog.md").read_text(encoding="utf-8").splitlines() if "    kernel: " in line]
    # "distance" is the paper's, for `reproduce` alone.
    assert sorted(re.findall(r"\w+", line.replace("kernel:", ""))) == sorted(KERNELS.keys() - {"distance"})
