"""The page of an audit, and the audit's part of the page of an atlas."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from lfm_tasks.report.parity import depth_profile
from lfm_tasks.report.templates import allowed, resource, templates

# What each status means for the reader: the word of `lfm_tasks.report.answer.Sentence`.
_URGENCY = {"fail": "act", "error": "act", "warn": "look", "unjudged": "look"}
_GLYPHS = {"pass": "✓", "warn": "!", "unjudged": "?", "fail": "✗", "error": "✗", "skipped": "–"}
# Findings of a check, and audits of the history, that the page shows.
MOST_FINDINGS = 500


@dataclass(frozen=True)
class AuditFacts:
    """The content of ``audit.json``, and the lines of the history, the oldest first."""

    facts: Mapping[str, Any]
    past: Sequence[Mapping[str, Any]]

    @property
    def first(self) -> list[Mapping[str, Any]]:
        """The broken checks, those that fail the audit first."""
        broken = [check for check in self.facts["checks"] if check["status"] in _URGENCY]
        return sorted(broken, key=lambda check: (not check["enforced"], _URGENCY[check["status"]]))

    @property
    def passed(self) -> list[str]:
        """The names of the checks that passed."""
        return [check["name"] for check in self.facts["checks"] if check["status"] == "pass"]

    @property
    def ports(self) -> dict[str, Mapping[str, Any]]:
        """The comparisons of the catalog's ports, layer by layer, by the names of their checks."""
        return {port["check"]: port for port in self.facts.get("parity", ())}

    @property
    def names(self) -> list[str]:
        """The names of the checks."""
        return [check["name"] for check in self.facts["checks"]]

    def strip(self, name: str) -> list[tuple[str, str, str]]:
        """Return (status, sign, words) of a check in each audit of the history, the oldest first."""
        return [_cell(past["time"], past["checks"].get(name, {})) for past in self.past]

    @property
    def verdicts(self) -> list[tuple[str, str, str]]:
        """The verdict of each audit of the history, as `strip` has those of a check."""
        return [_cell(past["time"], {"status": past["verdict"]}) for past in self.past]


def _cell(time: str, check: Mapping[str, Any]) -> tuple[str, str, str]:
    status = check.get("status", "")
    observed = f", observed {check['observed']:.4g}" if check.get("observed") is not None else ""
    return status, _GLYPHS.get(status, " "), f"{time}: {status or 'not there'}{observed}"


def urgency(check: Mapping[str, Any]) -> str:
    """Return the word for how urgent a check is: act, look or fine."""
    return _URGENCY.get(check["status"], "fine")


def finding_address(finding: Mapping[str, Any], page: str) -> str | None:
    """Return the address of the pair that a finding is about, on the page of the atlas; None if it is about no pair.

    ``page``: the file of that page; "" on the page itself.

    Examples
    --------
    >>> finding_address({"dataset": "digits", "source": "a/relu", "target": "b"}, "report.html")
    'report.html#dataset=digits&source=a&source_layer=relu&target=b&part=layers'
    """
    if not finding.get("source") or not finding.get("target"):
        return None
    state = {name: finding[name] for name in ("dataset", "measure") if finding.get(name)}
    for side in ("source", "target"):
        model, _, layer = str(finding[side]).partition("/")
        state |= {side: model} | ({f"{side}_layer": layer} if layer else {})
    return f"{page}#{urlencode(state | {'part': 'layers'})}"


def histograms(check: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the histograms of a check as they are drawn: places from 0 to 1 along the axis, heights from 0 to 1.

    `lfm_tasks.checks.histograms.histogram` makes them: ``limit`` and ``found`` are in the unit of the values.
    """
    return [_drawn(one) for one in check["null"].get("histograms", ())]


def _drawn(one: Mapping[str, Any]) -> dict[str, Any]:
    most, low, long = max(one["counts"]), one["low"], one["high"] - one["low"]
    bars = [
        {"x": place / len(one["counts"]), "width": 0.9 / len(one["counts"]), "height": max(count / most, 0.03)}
        for place, count in enumerate(one["counts"])
        if count
    ]
    found = [(value - low) / long for value in one["found"]]
    return {**one, "bars": bars, "found_at": found, "limit_at": min(max((one["limit"] - low) / long, 0.0), 1.0)}


def audit_helpers(page: str) -> dict[str, Any]:
    """Return the functions of the audit's template; ``page``: the file of the atlas's page, "" on that page itself."""
    return {
        "urgency": urgency,
        "histograms": histograms,
        "most_findings": MOST_FINDINGS,
        "finding_address": lambda finding: finding_address(finding, page),
        "finding_columns": finding_columns,
        "shown": shown,
        "depth_profile": depth_profile,
        "is_alone": bool(page),
    }


def finding_columns(check: Mapping[str, Any]) -> list[str]:
    """Return the columns of the findings of a check in which any finding has a value."""
    columns = dict.fromkeys(column for finding in check["findings"] for column in finding)
    return [name for name in columns if any(row.get(name) not in (None, "") for row in check["findings"])]


def shown(value: Any) -> str:
    """Return a value of a finding as text."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(shown, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def render_audit(audit: AuditFacts) -> str:
    """Return the page as HTML: no script, nothing fetched."""
    style = resource("page.css")
    page = templates().get_template("audit.html.jinja")
    return page.render(audit=audit, style=style, style_hash=allowed(style), **audit_helpers("report.html"))
