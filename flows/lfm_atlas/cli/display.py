"""Tables and progress bars in the terminal."""

import json
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lfm_tasks.runtime.run import Announce

if TYPE_CHECKING:
    from lfm_tasks.published.answers import Table


_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# What no terminal says about its width gets.
_WIDE = 160


def print_tables(tables: Iterable["Table"]) -> None:
    """Write tables to stdout."""
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else _WIDE, highlight=False)
    for table in tables:
        console.print(Text(visible(table.title), style="bold"))
        if not table.rows:
            continue
        drawn = RichTable(box=None, pad_edge=False, header_style="dim")
        names = list(table.shown) or list(dict.fromkeys(name for row in table.rows for name in row))
        names = [name for name in names if any(row.get(name) not in (None, "") for row in table.rows)]
        for name in names:
            numbers = all(isinstance(row.get(name), int | float | None) for row in table.rows)
            drawn.add_column(Text(visible(name)), justify="right" if numbers else "left", overflow="fold")
        for row in table.rows:
            drawn.add_row(*(Text(visible(cell(row.get(name)))) for name in names))
        console.print(drawn)


def cell(value: Any) -> str:
    """Return a value as it stands in a table: numbers to three digits, nothing where there is none."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}" if value == 0 or 1e-3 <= abs(value) < 1e6 else f"{value:.1e}"
    return str(value)


def visible(text: str) -> str:
    """Return ``text`` with control and other unseen characters written out, so that a terminal only shows them."""
    return "".join(
        character.encode("unicode_escape").decode() if unicodedata.category(character) in _UNSEEN else character
        for character in text
    )


def as_json(content: Mapping[str, Any]) -> str:
    """Return one object; all but ASCII is escaped, for the same reason."""
    return json.dumps(content, indent=1, allow_nan=False)


def silently(stage: str, done: int, total: int) -> None:
    """Announce nothing."""


@contextmanager
def progress() -> Iterator[Announce]:
    """Give a function that shows (stage, done, total) on stderr."""
    if not sys.stderr.isatty():
        yield _line
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description:<12}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        def announce(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            # A stage with nothing to do is done.
            bars.update(tasks[stage], completed=done or (total == 0), total=max(total, 1))

        yield announce


def _line(stage: str, done: int, total: int) -> None:
    if total and done in (0, total):
        sys.stderr.write(f"{stage}: {done}/{total}\n")
        sys.stderr.flush()
