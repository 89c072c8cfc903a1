"""What an experiment comes to: tables, figures, and what they say of the paper's claims."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Verdict = Literal["supported", "partly", "not supported", "not tested"]
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Claim:
    """What was published, what was found here, and whether the one supports the other."""

    published: str
    found: str
    verdict: Verdict


@dataclass(frozen=True)
class Table:
    """Rows with the same columns; ``is_shown``: on the page, not only in its file."""

    name: str
    caption: str
    rows: Sequence[Row]
    is_shown: bool = True


@dataclass(frozen=True)
class Figure:
    """A drawing, as SVG that stands by itself in a page, and what it shows."""

    name: str
    caption: str
    svg: str


@dataclass(frozen=True)
class Finding:
    """One experiment, done; ``settings`` were fixed before its numbers were looked at."""

    name: str
    title: str
    question: str
    settings: Mapping[str, Any]
    claims: Sequence[Claim]
    figures: Sequence[Figure]
    tables: Sequence[Table]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Refused:
    """One experiment that the catalog has not got what it needs for."""

    name: str
    title: str
    reason: str
    message: str
