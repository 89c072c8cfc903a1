"""Plain technical English: words that have a standard term do not come back, in pages, help or code."""

import io
import re
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from lfm_atlas.cli.main import app

ROOT = Path(__file__).parents[2]
# A word, and what a technical writer uses in its place.
LOCAL_WORDS = {
    "told": "reported, known, distinguished",
    "said": "reported, set, specified",
    "asked": "requested",
    "whoever": "anyone who, users who",
    "anew": "again",
    "mend": "fix",
    "mends": "fixes",
    "mended": "fixed",
    "neighbour": "neighbor",
    "neighbours": "neighbors",
    "colour": "color",
    "behaviour": "behavior",
    "normalised": "normalized",
    "centre": "center",
}
PATTERN = re.compile(rf"\b({'|'.join(LOCAL_WORDS)})\b", re.IGNORECASE)
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), *(path for path in ROOT.glob("*.md") if path.name != "CHANGELOG.md")])
NOTEBOOKS = sorted((ROOT / "docs").rglob("*.ipynb"))
MODULES = sorted([*(ROOT / "lfm_tasks").rglob("*.py"), *(ROOT / "flows").rglob("*.py")])


def local_words(text: str) -> list[str]:
    """Return the local words of a text, code left out."""
    text = re.sub(r"^```.*?^```|`[^`]*`", "", text, flags=re.DOTALL | re.MULTILINE)
    return [word.lower() for word in PATTERN.findall(text)]


def texts(module: str) -> Iterator[str]:
    """Yield the comments and the strings of a module: docstrings, messages; names of variables are left out."""
    for token in tokenize.generate_tokens(io.StringIO(module).readline):
        kind = tokenize.tok_name[token.type]
        if kind in {"COMMENT", "STRING"} or kind.startswith("FSTRING_MIDDLE"):
            is_formatted = kind == "STRING" and "f" in re.match(r"\w*", token.string)[0].lower()
            yield re.sub(r"\{[^{}]*\}", "", token.string) if is_formatted else token.string


@pytest.mark.parametrize("page", [*PAGES, *NOTEBOOKS], ids=lambda page: str(page.relative_to(ROOT)))
def test_page__has_standard_words(page: Path) -> None:
    found = local_words(page.read_text(encoding="utf-8"))
    assert found == [], f"{Counter(found)}: write { {word: LOCAL_WORDS[word] for word in found} }"


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(ROOT)))
def test_module__has_standard_words(module: Path) -> None:
    found = [word for text in texts(module.read_text(encoding="utf-8")) for word in local_words(text)]
    assert found == [], f"{Counter(found)}: write { {word: LOCAL_WORDS[word] for word in found} }"


def test_help__has_standard_words() -> None:
    text = app.generate_docs(output_format="markdown", usage_name="lfm-atlas")
    assert local_words(text.replace("`", "")) == []


@pytest.mark.parametrize("planted", ["It is told.", "Whoever reads it", "the colour"])
def test_local_word__is_seen(planted: str) -> None:
    assert len(local_words(planted)) == 1
    assert local_words(f"`{planted}`") == []


@pytest.mark.parametrize("planted", ['"""It is told."""', "x = 1  # it is told", 'f"it is told {told}"'])
def test_local_word_in_code__is_seen(planted: str) -> None:
    assert [word for text in texts(planted) for word in local_words(text)] == ["told"]


def test_name_of_a_variable__may_be_any_word() -> None:
    assert [word for text in texts('told = f"got {told[0]!r} of {said}"') for word in local_words(text)] == []
