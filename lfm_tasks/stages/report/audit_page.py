"""The page of an audit: what was checked, what was found, the null beside it, and the audits before."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined


def render_audit(facts: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> str:
    """Return the page as HTML: no script, nothing fetched."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    style, page = (
        files(__package__).joinpath("web", name).read_text("utf-8") for name in ("page.css", "audit.html.jinja")
    )
    names = [check["name"] for check in facts["checks"]]
    return environment.from_string(page).render(audit=facts, history=list(reversed(history)), names=names, style=style)
