"""The files of the evidence: Parquet tables, SVG figures, one JSON, one page."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lfm_tasks.catalog import Catalog
from lfm_tasks.experiments.finding import Finding, Refused, Table
from lfm_tasks.experiments.page import render_evidence
from lfm_tasks.figures.svg import standalone
from lfm_tasks.runtime.versions import versions
from lfm_tasks.stores.atlas.files import write_columns
from lfm_tasks.stores.units.durable import write_durably

SCHEMA_VERSION = 1


def write_findings(catalog: Catalog, found: Sequence[Finding | Refused], output: Path) -> None:
    """Write what was found; a file that an earlier run left and this one has no content for stays."""
    for finding in found:
        if isinstance(finding, Finding):
            for table in finding.tables:
                write_columns(_columns(table), output / "tables" / f"{finding.name}-{table.name}.parquet")
            for figure in finding.figures:
                path = output / "figures" / f"{finding.name}-{figure.name}.svg"
                write_durably(path, standalone(figure.svg).encode())
    facts = _facts(catalog, found)
    text = json.dumps(facts, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False)
    write_durably(output / "evidence.json", f"{text}\n".encode())
    write_durably(output / "evidence.html", render_evidence(found, facts).encode())


def _facts(catalog: Catalog, found: Sequence[Finding | Refused]) -> dict[str, Any]:
    """Return what programs read: settings, seeds, claims and the rows of all tables that the page shows."""
    findings = [finding for finding in found if isinstance(finding, Finding)]
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
            one.name: {"reason": one.reason, "message": one.message} for one in found if isinstance(one, Refused)
        },
    }


def _plain_rows(table: Table) -> list[dict[str, Any]]:
    return [{name: _plain(value) for name, value in row.items()} for row in table.rows]


def _plain(value: Any) -> Any:
    """Return a value as JSON holds it: NaN is none."""
    return None if isinstance(value, float) and value != value else value


def _columns(table: Table) -> Mapping[str, list[Any]]:
    names = list(dict.fromkeys(name for row in table.rows for name in row))
    return {name: [_plain(row.get(name)) for row in table.rows] for name in names}
