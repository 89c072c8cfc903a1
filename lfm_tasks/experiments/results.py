"""Results of the experiments: claims, tables and figures, written as files, as JSON and as a page."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Literal

from lfm_tasks.catalog import Catalog
from lfm_tasks.report.templates import allowed, resource, templates
from lfm_tasks.runtime.run import versions
from lfm_tasks.stores.atlas.files import write_columns
from lfm_tasks.stores.outputs import is_page
from lfm_tasks.stores.units.durable import atomic_write

# The version of evidence.json: programs that read it compare.
EVIDENCE_VERSION = 2

ClaimStatus = Literal["supported", "partly", "not supported", "not tested"]
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Estimate:
    """A value and its interval; the ends are NaN where there is none."""

    value: float
    low: float = float("nan")
    high: float = float("nan")

    def __str__(self) -> str:
        """Return all three, to three digits."""
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class Claim:
    """A published statement, the measurement here, and whether it supports the statement."""

    published: str
    measured: str
    status: ClaimStatus


def claim_status(value: float, supported: float, partly: float) -> ClaimStatus:
    """Return ``supported`` from one value on, ``partly`` from another one on, ``not supported`` below both."""
    return "supported" if value >= supported else "partly" if value >= partly else "not supported"


@dataclass(frozen=True)
class ResultTable:
    """Rows with the same columns; the page shows a table if ``is_shown``, its file exists anyway."""

    name: str
    caption: str
    rows: Sequence[Row]
    is_shown: bool = True


@dataclass(frozen=True)
class ResultFigure:
    """A chart, as SVG for a page, and a caption that says what it shows."""

    name: str
    caption: str
    svg: str


@dataclass(frozen=True)
class ExperimentResult:
    """The result of one experiment; its ``settings`` were fixed before its numbers were known."""

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
    """One experiment that the catalog lacks something for, and what."""

    name: str
    title: str
    reason: str
    message: str


def write_results(catalog: Catalog, results: Sequence[ExperimentResult | SkippedExperiment], output: Path) -> None:
    """Write all tables, figures, ``evidence.json`` and ``evidence.html``.

    A file of an earlier run that these results have no content for stays.
    """
    for result in results:
        if isinstance(result, ExperimentResult):
            for table in result.tables:
                write_columns(_columns(table), output / "tables" / f"{result.name}-{table.name}.parquet")
            for figure in result.figures:
                path = output / "figures" / f"{result.name}-{figure.name}.svg"
                atomic_write(path, standalone(figure).encode())
    facts = _facts(catalog, results)
    text = json.dumps(facts, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False)
    atomic_write(output / "evidence.json", f"{text}\n".encode())
    atomic_write(output / "evidence.html", render_evidence(results, facts).encode())


# What is written into the folder of the evidence, beside its atlas and store.
WRITTEN = ("tables", "figures", "zoos", "evidence.json", "evidence.html")


def is_evidence_file(path: Path) -> bool:
    """Return whether a file is the page or the JSON of evidence, by its content."""
    if path.suffix == ".html":
        return is_page(path)
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and {"schema_version", "experiments", "refused"} <= content.keys()


def standalone(figure: ResultFigure) -> str:
    """Return a figure as an SVG file: on white, whatever shows it, its caption as its title."""
    head, _, body = figure.svg.partition(">")
    title = f"<title>{escape(figure.caption)}</title>"
    paper = '<rect width="100%" height="100%" fill="#ffffff"/>'
    return f'{head} xmlns="http://www.w3.org/2000/svg" color="#1b1f24">{title}{paper}{body}\n'


def render_evidence(results: Sequence[ExperimentResult | SkippedExperiment], facts: Mapping[str, Any]) -> str:
    """Return the page as HTML: no script, nothing fetched."""
    style = resource("page.css") + resource("evidence.css")
    page = templates().get_template("evidence.html.jinja")
    completed = [one for one in results if isinstance(one, ExperimentResult)]
    return page.render(
        results=completed,
        refused=[one for one in results if isinstance(one, SkippedExperiment)],
        facts=facts,
        claims=[(result, claim) for result in completed for claim in result.claims],
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


def _facts(catalog: Catalog, results: Sequence[ExperimentResult | SkippedExperiment]) -> dict[str, Any]:
    """Return the machine-readable result: settings, seeds, claims and the rows of all tables on the page."""
    return {
        "schema_version": EVIDENCE_VERSION,
        "versions": versions(),
        "settings": {"graph": catalog.atlas.graph.model_dump(), "n_eigenpairs": catalog.atlas.n_eigenpairs},
        "models": sorted(catalog.models),
        "experiments": {
            result.name: {
                "title": result.title,
                "question": result.question,
                "settings": result.settings,
                "claims": [
                    {"published": claim.published, "found": claim.measured, "status": claim.status}
                    for claim in result.claims
                ],
                "tables": {table.name: _plain_rows(table) for table in result.tables if table.is_shown},
                "notes": list(result.notes),
            }
            for result in results
            if isinstance(result, ExperimentResult)
        },
        "refused": {
            one.name: {"reason": one.reason, "message": one.message}
            for one in results
            if isinstance(one, SkippedExperiment)
        },
    }


def _plain_rows(table: ResultTable) -> list[dict[str, Any]]:
    return [{name: _plain(value) for name, value in row.items()} for row in table.rows]


def _plain(value: Any) -> Any:
    """Return a value as JSON holds it: null for NaN."""
    return None if isinstance(value, float) and value != value else value


def _columns(table: ResultTable) -> Mapping[str, list[Any]]:
    names = list(dict.fromkeys(name for row in table.rows for name in row))
    return {name: [_plain(row.get(name)) for row in table.rows] for name in names}
