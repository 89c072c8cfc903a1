"""The page: HTML with its styles, scripts and numbers inside; nothing is fetched, nothing is executed but our own."""

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from types import MappingProxyType
from typing import Any

import xarray as xr
from jinja2 import Environment, StrictUndefined

from lfm_tasks.stages.report.charts import bokeh_script, heat_map
from lfm_tasks.stages.report.compared import comparison_tables
from lfm_tasks.stages.report.facts import page_facts
from lfm_tasks.stages.report.tables import page_tables


def render_report(
    atlas: xr.Dataset, summary: Mapping[str, Any], groups: Mapping[str, xr.Dataset] = MappingProxyType({})
) -> str:
    """Return the page as HTML. The same atlas gives the same bytes; ``groups``: what lies beside its scores."""
    facts = page_facts(atlas)
    scripts = [bokeh_script(), _resource("page.js")]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_resource("page.html.jinja")).render(
        summary=summary,
        style=_resource("page.css"),
        scripts=scripts,
        hashes=" ".join(f"'sha256-{_sha256(script)}'" for script in scripts),
        data=_inside_html({"facts": facts, "charts": {name: heat_map(name) for name in ("models", "layers")}}),
        facts=facts,
        comparisons=comparison_tables(atlas),
        **page_tables(atlas, facts),
    )


def _resource(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _sha256(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _inside_html(content: Mapping[str, Any]) -> str:
    """Return JSON that no name in it can break out of: a script element ends at the first ``</``."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
