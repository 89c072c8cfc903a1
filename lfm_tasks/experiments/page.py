"""The page of the evidence: every experiment with its figures, its numbers, and what they say of the claims."""

from collections.abc import Mapping, Sequence
from typing import Any

from lfm_tasks.experiments.finding import Finding, Refused
from lfm_tasks.report.template import allowed, resource, templates


def render_evidence(found: Sequence[Finding | Refused], facts: Mapping[str, Any]) -> str:
    """Return the page as HTML: no script, nothing fetched."""
    style = resource("page.css") + resource("evidence.css")
    page = templates().get_template("evidence.html.jinja")
    findings = [one for one in found if isinstance(one, Finding)]
    return page.render(
        findings=findings,
        refused=[one for one in found if isinstance(one, Refused)],
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
