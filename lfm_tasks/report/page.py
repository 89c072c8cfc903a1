"""The page: HTML with its styles, scripts and numbers inside; nothing is fetched, nothing is executed but our own."""

import json
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import xarray as xr

from lfm_tasks.lineage.levels import MEANINGS
from lfm_tasks.report.across import across_tables, across_view
from lfm_tasks.report.answer import answer, pair_address, points_sentence
from lfm_tasks.report.audit_page import AuditFacts, audit_helpers
from lfm_tasks.report.facts import page_facts
from lfm_tasks.report.run_dates import RunDates
from lfm_tasks.report.sections import transfer_tables
from lfm_tasks.report.tables import (
    ZooView,
    comparison_tables,
    pair_intervals,
    pair_rows,
    similarity_scale,
    zoo_view,
)
from lfm_tasks.report.templates import allowed, resource, templates

# In the order in which one uses the other; together one script.
_SCRIPTS = (
    "unpack", "elements", "zoom", "take_away", "heat_map", "marks", "choice", "model_views", "space_views", "previews",
    "tables", "search", "page",
)  # fmt: skip


def render_report(
    atlas: xr.Dataset,
    summary: Mapping[str, Any],
    groups: Mapping[str, xr.Dataset] = MappingProxyType({}),
    audit: AuditFacts | None = None,
    dates: RunDates | None = None,
) -> str:
    """Return the page as HTML. The same atlas gives the same bytes; ``groups``: what lies beside its scores.

    ``audit`` adds a section: what was checked of this atlas, and the audits before. ``dates``: when it was computed.
    """
    view = zoo_view(atlas, summary)
    facts = page_facts(atlas, groups, view)
    parts = "\n".join(resource(f"{name}.js") for name in _SCRIPTS)
    script, style = f'"use strict";\n(() => {{\n{parts}}})();\n', resource("page.css")
    return (
        templates()
        .get_template("page.html.jinja")
        .render(
            summary=summary,
            audit=audit,
            dates=dates,
            style=style,
            script=script,
            style_hash=allowed(style),
            script_hash=allowed(script),
            data=_inside_html(facts),
            facts=facts,
            has=_has(facts) | _computed(view, facts),
            view=view,
            sentences=answer(view, summary, _group_names(facts), None if audit is None else audit.facts),
            scale=similarity_scale(view),
            pairs=pair_rows(view, pair_intervals(atlas, view.measure) if view.related else {}),
            pair_address=partial(pair_address, view),
            points=points_sentence(atlas["n_points"].values),
            levels=MEANINGS,
            across=across_view(atlas, view.findings, view.measure),
            comparisons=comparison_tables(atlas),
            across_comparisons=across_tables(groups),
            transfers=transfer_tables(groups),
            **audit_helpers(""),
        )
    )


def _has(facts: Mapping[str, Any]) -> dict[str, bool]:
    """Return which views the page has: those that any dataset has."""
    datasets = facts["datasets"]
    by_measure = [of_measure for of_dataset in facts["views"] for of_measure in of_dataset]
    return {
        "maps": any(dataset["maps"] for dataset in datasets),
        "previews": any(dataset["previews"] for dataset in datasets),
        "embeddings": any(dataset["embeddings"] for dataset in datasets),
        "cycle_residual": any("cycle_residual" in of_measure["diagnostics"] for of_measure in by_measure),
    }


def _computed(view: ZooView, facts: Mapping[str, Any]) -> dict[str, bool]:
    """Return the results of the measure that models are compared by; the page names no others."""
    place = [measure["name"] for measure in facts["measures"]].index(view.measure)
    known = {name for of_dataset in facts["views"] for name in of_dataset[place]["known"]}
    return {
        "calibrated": any("calibrated" in of_dataset[place]["views"] for of_dataset in facts["views"]),
        "intervals": any(row["interval"] != "–" for row in view.findings),
        "chance": "null_mean" in known,
        "q_values": any(row["above_chance"] is not None for row in view.findings),
    }


def _group_names(facts: Mapping[str, Any]) -> list[list[str]]:
    """Return the models of each group of the tree that the page opens with."""
    if not facts["datasets"]:
        return []
    place = [measure["name"] for measure in facts["measures"]].index(facts["default_measure"])
    first = next(iter(facts["views"][0][place]["views"].values()), None)
    if first is None:
        return []
    names = [model["name"] for model in facts["datasets"][0]["models"]]
    return [[names[model] for model in first["order"][start:end]] for start, end in first["groups"]]


def _inside_html(content: Mapping[str, Any]) -> str:
    """Return JSON that no name in it can break out of: a script element ends at the first ``</``."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
