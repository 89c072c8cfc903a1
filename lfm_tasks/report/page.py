"""The page: HTML with its styles, scripts and numbers inside; nothing is fetched, nothing is executed but our own."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType
from typing import Any

import xarray as xr
from jinja2 import Environment, FunctionLoader, StrictUndefined

from lfm_tasks.report.across import across_tables
from lfm_tasks.report.facts import comparison_tables, page_facts, page_tables
from lfm_tasks.report.sections import transfer_tables


def templates() -> Environment:
    """Return the templates: what they are given is text, never markup."""
    return Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(resource),
    )


def resource(name: str) -> str:
    """Return a template, a style or a script."""
    return files(__package__).joinpath("web", name).read_text(encoding="utf-8")


def allowed(content: str) -> str:
    """Return the source expression of a content security policy that allows this script or style alone."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


@dataclass(frozen=True)
class AuditFacts:
    """What ``audit.json`` says, and the lines of history, the oldest first."""

    facts: Mapping[str, Any]
    past: Sequence[Mapping[str, Any]]

    @property
    def names(self) -> list[str]:
        """The names of the checks."""
        return [check["name"] for check in self.facts["checks"]]

    @property
    def history(self) -> list[Mapping[str, Any]]:
        """The audits, the latest first."""
        return list(reversed(self.past))


def render_audit(audit: AuditFacts) -> str:
    """Return the page as HTML: no script, nothing fetched."""
    style = resource("page.css")
    page = templates().get_template("audit.html.jinja")
    return page.render(audit=audit, style=style, style_hash=allowed(style))


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
            across_comparisons=across_tables(groups),
            transfers=transfer_tables(groups),
            **page_tables(atlas, summary, facts),
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
