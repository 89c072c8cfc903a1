"""The documentation site: generated pages are complete, every page is reachable, internal links lead somewhere."""

import re
import runpy
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from lfm_atlas.cli.main import app
from lfm_tasks.catalog import catalog_schema
from lfm_tasks.measures.registry import shipped_measures
from lfm_tasks.stores.atlas.schema import Table, columns_of

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text(encoding="utf-8")
LANGUAGES = ("python", "text")
PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md")])
GENERATED: dict[str, Any] = runpy.run_path(str(DOCS / "_extensions/generated_reference.py"))["GENERATED"]
LINK = re.compile(r"(?<!!)\[[^]]*\]\(([^)#\s]*)(?:#([^)\s]+))?\)")


def anchors(page: Path) -> set[str]:
    """Return the link targets of a page's headings, as code hosts and the site name them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def toctree(page: Path) -> list[str]:
    """Return the pages that a page's toctrees name, relative to docs/, without suffix."""
    trees = re.findall(r"^```\{toctree\}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    lines = [line for tree in trees for line in tree.splitlines() if line and not line.startswith(":")]
    targets = [re.sub(r"^.*<(.+)>$", r"\1", line) for line in lines]
    return [str((page.parent / target).resolve().relative_to(DOCS)) for target in targets]


def test_commands__are_all_there() -> None:
    text = GENERATED["commands"]()
    names = [name for name in app if not name.startswith("-")]
    assert len(names) > 20
    assert [name for name in names if f"\n## lfm-atlas {name}\n" not in text] == []
    assert " -m " not in text


def test_catalog_keys__are_all_there() -> None:
    schema, text = catalog_schema(), GENERATED["catalog"]()
    for name, definition in [("", schema), *schema["$defs"].items()]:
        assert all(f"| `{key}` |" in text for key in definition.get("properties", ())), name
    assert all(f"({target})=" in text for target in re.findall(r"\]\(#(\w+)\)", text))


def test_columns_and_measures__are_all_there() -> None:
    columns, measures = GENERATED["columns"](), GENERATED["measures"]()
    assert all(f"| `{column.name}` |" in columns for table in get_args(Table) for column in columns_of(table))
    assert all(f"| `{name}` |" in measures for name in shipped_measures())
    assert f"{len(shipped_measures())} other measures" in (DOCS / "index.md").read_text(encoding="utf-8")


def test_every_page__is_in_the_contents_once() -> None:
    listed = [target for page in PAGES if page.is_relative_to(DOCS) for target in toctree(page)]
    pages = [page.relative_to(DOCS).with_suffix("") for page in (*DOCS.rglob("*.md"), *DOCS.rglob("*.ipynb"))]
    assert sorted(["index", *listed]) == sorted(map(str, pages))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_internal_links__lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    broken = []
    for target, heading in LINK.findall(text):
        file = (page.parent / target).resolve() if target else page
        if re.match(r"https?:|mailto:", target):
            continue
        if not file.exists() or (heading and file.suffix == ".md" and heading not in anchors(file)):
            broken.append(f"{target}#{heading}")
    assert broken == []


def test_pictures__are_there_and_used() -> None:
    used = {
        (page.parent / target).resolve()
        for page in PAGES
        for target in re.findall(r"!\[[^]]*\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    }
    assert sorted(used) == sorted(path for path in DOCS.glob("images/*") if path.suffix in {".png", ".svg"})


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_first_example__prints_what_stands_there(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    code, printed = (re.findall(rf"^```{kind}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)[0] for kind in LANGUAGES)

    exec(compile(code, page, "exec"), {})  # noqa: S102 - our own page

    number = re.compile(r"\d+\.\d+")
    found = capsys.readouterr().out
    assert number.sub("0.0", found).split() == number.sub("0.0", printed).split()
    np.testing.assert_allclose(*([float(one) for one in number.findall(text)] for text in (found, printed)), atol=0.005)


def test_readme__has_python_that_reads_an_atlas(zoo_folder_built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(zoo_folder_built)
    [code] = [code for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "open_atlas(" in code]

    exec(compile(code, "README.md", "exec"), {})  # noqa: S102 - our own page


def test_readme__has_the_two_set_up_commands() -> None:
    assert "\npython -m pip install . && lfm-atlas run\n" in README
    assert '\npython -m pip install ".[test]" && python -m pytest -n 2 --dist loadfile\n' in README
