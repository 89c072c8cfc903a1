"""CSV of the long table, safe to open in a spreadsheet."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lfm_tasks.published.atlas import Atlas
from lfm_tasks.stores.atlas.files import edge_batches
from lfm_tasks.stores.units.durable import write_durably

# A cell that begins so is a formula to some spreadsheet: https://owasp.org/www-community/attacks/CSV_Injection
FORMULA_PREFIXES = ("=", "+", "-", "@", "\t", "\r", "\n")


def export_csv(atlas: Atlas, output: Path) -> None:
    """Write ``edges.parquet`` as CSV (RFC 4180, UTF-8): texts in quotes, numbers bare, nothing where there is none.

    ``comparisons`` are joined by spaces, which their names do not have.
    """
    lines: list[str] = []
    for batch in edge_batches(atlas.folder):
        lines = lines or [_line(batch)]
        lines += [_line(row) for row in zip(*batch.values(), strict=True)]
    write_durably(output, "".join(f"{line}\r\n" for line in lines).encode())


def neutral(text: str) -> str:
    """Return ``text`` as no spreadsheet runs it: with ``'`` before it if it begins like a formula, or with ``'``.

    Examples
    --------
    >>> neutral("=1+1"), neutral("layer1"), neutral("'quoted'")
    ("'=1+1", 'layer1', "''quoted'")
    """
    return f"'{text}" if text.startswith((*FORMULA_PREFIXES, "'")) else text


def original(cell: str) -> str:
    """Return what `neutral` was given: the cell without one leading ``'``."""
    return cell.removeprefix("'")


def _line(values: Iterable[Any]) -> str:
    return ",".join(map(_cell, values))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, int | float):
        return repr(value)
    text = neutral(value if isinstance(value, str) else " ".join(value)).replace('"', '""')
    return f'"{text}"'
