"""The page: HTML with its styles, scripts and numbers inside; nothing is fetched, nothing is executed but our own."""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import xarray as xr

from lfm_tasks.report.audit_page import AuditFacts
from lfm_tasks.report.compared import comparison_tables
from lfm_tasks.report.facts import page_facts
from lfm_tasks.report.tables import page_tables
from lfm_tasks.report.template import allowed, resource, templates
from lfm_tasks.report.transferred import transfer_tables

# In the order in which one uses the other; together one script.
_SCRIPTS = ("unpack", "elements", "heat_map", "marks", "choice", "model_views", "space_views", "page")


def render_report(
    atlas: xr.Dataset,
    summary: Mapping[str, Any],
    groups: Mapping[str, xr.Dataset] = MappingProxyType({}),
    audit: AuditFacts | None = None,
) -> str:
    """Return the page as HTML. The same atlas gives the same bytes; ``groups``: what lies beside its scores.

    ``audit`` adds a section: what was checked of this atlas, and the audits before.
    """
    facts = page_facts(atlas, summary, groups)
    parts = "\n".join(resource(f"{name}.js") for name in _SCRIPTS)
    script, style = f'"use strict";\n(() => {{\n{parts}}})();\n', resource("page.css")
    return (
        templates()
        .get_template("page.html.jinja")
        .render(
            summary=summary,
            audit=audit,
            style=style,
            script=script,
            style_hash=allowed(style),
            script_hash=allowed(script),
            data=_inside_html(facts),
            facts=facts,
            has=_has(facts),
            comparisons=comparison_tables(atlas),
            transfers=transfer_tables(groups),
            **page_tables(atlas, facts),
        )
    )


def _has(facts: Mapping[str, Any]) -> dict[str, bool]:
    """Return which views the page has: those that any dataset has."""
    datasets = facts["datasets"]
    return {
        "maps": any(dataset["maps"] for dataset in datasets),
        "embeddings": any(dataset["embeddings"] for dataset in datasets),
        "cycle_residual": any("cycle_residual" in dataset["diagnostics"] for dataset in datasets),
    }


def _inside_html(content: Mapping[str, Any]) -> str:
    """Return JSON that no name in it can break out of: a script element ends at the first ``</``."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
