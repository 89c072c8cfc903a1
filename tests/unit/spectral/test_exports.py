"""What lfm_tasks.spectral and lfm_tasks.measures export: importable, documented, nothing heavy before it is used."""

import ast
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGES = ["lfm_tasks.spectral", "lfm_tasks.measures"]


@pytest.mark.parametrize("name", PACKAGES)
def test_exports__are_those_that_type_checkers_see(name: str) -> None:
    package = import_module(name)
    tree = ast.parse(Path(str(package.__file__)).read_text(encoding="utf-8"))
    [checked] = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        alias.asname: node.module for node in checked.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }

    assert sorted(package.__all__) == sorted(str(exported) for exported in seen)
    for exported, module in seen.items():
        assert getattr(package, str(exported)) is getattr(import_module(str(module)), str(exported))
    with pytest.raises(AttributeError, match=f"module '{name}' has no attribute 'full_mpa'"):
        package.full_mpa  # noqa: B018


@pytest.mark.parametrize(("name", "page"), list(zip(PACKAGES, ["spectral.md", "measures.md"], strict=True)))
def test_exports__are_all_documented(name: str, page: str) -> None:
    words = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]*)`", (ROOT / "docs" / page).read_text()))))
    assert words >= set(import_module(name).__all__)


def test_pages__import_from_no_deeper_module() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    deeper = [(page.name, line) for page in pages for line in page.read_text().splitlines() if "import" in line]
    assert not [found for found in deeper if re.search(r"lfm_tasks\.(spectral|measures)\.", found[1])]


def test_import__loads_nothing_heavy() -> None:
    code = "import sys, lfm_tasks.spectral, lfm_tasks.measures; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "scipy", "numba"} & set(loaded)
