"""What an experiment comes to: tables, figures, and what they say of the paper's claims."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from lfm_tasks.catalog import Catalog
from lfm_tasks.figures.svg import standalone
from lfm_tasks.report.page import allowed, resource, templates
from lfm_tasks.runtime.run import versions
from lfm_tasks.stores.atlas.files import write_columns
from lfm_tasks.stores.units.durable import atomic_write

ClaimStatus = Literal["supported", "partly", "not supported", "not tested"]
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Claim:
    """What was published, what was found here, and whether the one supports the other."""

    published: str
    found: str
    verdict: ClaimStatus


@dataclass(frozen=True)
class ResultTable:
    """Rows with the same columns; ``is_shown``: on the page, not only in its file."""

    name: str
    caption: str
    rows: Sequence[Row]
    is_shown: bool = True


@dataclass(frozen=True)
class ResultFigure:
    """A drawing, as SVG that stands by itself in a page, and what it shows."""

    name: str
    caption: str
    svg: str


@dataclass(frozen=True)
class ExperimentResult:
    """One experiment, done; ``settings`` were fixed before its numbers were looked at."""

    name: str
    title: str
    question: str
    settings: Mapping[str, Any]
    claims: Sequence[Claim]
    figures: Sequence[ResultFigure]
    tables: Sequence[ResultTable]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class SkippedExperiment:
    """One experiment that the catalog has not got what it needs for."""

    name: str
    title: str
    reason: str
    message: str


def render_evidence(found: Sequence[ExperimentResult | SkippedExperiment], facts: Mapping[str, Any]) -> str:
    """Return the page as HTML: no script, nothing fetched."""
    style = resource("page.css") + resource("evidence.css")
    page = templates().get_template("evidence.html.jinja")
    findings = [one for one in found if isinstance(one, ExperimentResult)]
    return page.render(
        findings=findings,
        refused=[one for one in found if isinstance(one, SkippedExperiment)],
        facts=facts,
        claims=[(finding, claim) for finding in findings for claim in finding.claims],
        shown=_shown,
        style=style,
        style_hash=allowed(style),
    )


def _shown(value: Any) -> str:
    """Return a cell's text: numbers to three digits, a dash where there is none."""
    if value is None or (isinstance(value, float) and value != value):
        return "–"
    if isinstance(value, float):
        return f"{value:.3f}" if value == 0 or abs(value) >= 1e-3 else f"{value:.1e}"
    return str(value)


SCHEMA_VERSION = 1


def write_results(catalog: Catalog, found: Sequence[ExperimentResult | SkippedExperiment], output: Path) -> None:
    """Write what was found; a file that an earlier run left and this one has no content for stays."""
    for finding in found:
        if isinstance(finding, ExperimentResult):
            for table in finding.tables:
                write_columns(_columns(table), output / "tables" / f"{finding.name}-{table.name}.parquet")
            for figure in finding.figures:
                path = output / "figures" / f"{finding.name}-{figure.name}.svg"
                atomic_write(path, standalone(figure.svg).encode())
    facts = _facts(catalog, found)
    text = json.dumps(facts, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False)
    atomic_write(output / "evidence.json", f"{text}\n".encode())
    atomic_write(output / "evidence.html", render_evidence(found, facts).encode())


def _facts(catalog: Catalog, found: Sequence[ExperimentResult | SkippedExperiment]) -> dict[str, Any]:
    """Return what programs read: settings, seeds, claims and the rows of all tables that the page shows."""
    findings = [finding for finding in found if isinstance(finding, ExperimentResult)]
    return {
        "schema_version": SCHEMA_VERSION,
        "versions": versions(),
        "settings": {"graph": catalog.atlas.graph.model_dump(), "n_eigenpairs": catalog.atlas.n_eigenpairs},
        "models": sorted(catalog.models),
        "experiments": {
            finding.name: {
                "title": finding.title,
                "question": finding.question,
                "settings": finding.settings,
                "claims": [asdict(claim) for claim in finding.claims],
                "tables": {table.name: _plain_rows(table) for table in finding.tables if table.is_shown},
                "notes": list(finding.notes),
            }
            for finding in findings
        },
        "refused": {
            one.name: {"reason": one.reason, "message": one.message}
            for one in found
            if isinstance(one, SkippedExperiment)
        },
    }


def _plain_rows(table: ResultTable) -> list[dict[str, Any]]:
    return [{name: _plain(value) for name, value in row.items()} for row in table.rows]


def _plain(value: Any) -> Any:
    """Return a value as JSON holds it: NaN is none."""
    return None if isinstance(value, float) and value != value else value


def _columns(table: ResultTable) -> Mapping[str, list[Any]]:
    names = list(dict.fromkeys(name for row in table.rows for name in row))
    return {name: [_plain(row.get(name)) for row in table.rows] for name in names}
