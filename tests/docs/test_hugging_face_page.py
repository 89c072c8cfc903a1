"""docs/hugging_face.md: its catalog is what ``init --from`` writes and is valid; its messages are those of the code."""

import re
from pathlib import Path

import pytest

from lfm_tasks.catalog import read_catalog

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "hugging_face.md").read_text(encoding="utf-8")
CATALOG = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[1]  # type: ignore[index]
TABLE = PAGE.partition("## What is refused")[2]
CELLS = re.findall(r"^\| `([^|]+?)` \|", TABLE, re.MULTILINE)
MESSAGES = [message for cell in CELLS for message in cell.split("`, `")]
# Sentences stand in several literals.
PLACES = [ROOT / "lfm_tasks" / "sources" / folder for folder in ("checkpoints", "files")]
SOURCES = "".join(path.read_text(encoding="utf-8") for place in PLACES for path in place.glob("*.py"))
JOINED = re.sub(r'"\s*f?"|\{problem\}\. ', "", SOURCES)


def test_page__has_a_catalog_that_is_valid(tmp_path: Path) -> None:
    (tmp_path / "data_catalog.yaml").write_text(CATALOG)

    catalog = read_catalog(tmp_path / "data_catalog.yaml")

    assert list(catalog.discover) == ["language", "sentences", "vision", "timm"]
    assert list(catalog.models) == ["clip-text", "clip-vision"]


def test_page__has_the_messages_of_the_code() -> None:
    assert len(MESSAGES) > 20
    for message in MESSAGES:
        for sentence in message.split(". "):
            assert sentence in JOINED, message


def test_page__shows_what_init_writes(checkpoint_zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from lfm_tasks.drafting import draft_catalog

    written = draft_catalog(checkpoint_zoo / "zoo", checkpoint_zoo).text
    shown = {line for line in CATALOG.splitlines() if not line.startswith(("audit", "  sentences", "  timm"))}

    assert shown <= set(written.splitlines())
