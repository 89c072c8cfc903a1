"""The page of an audit: what was checked, what was found, the null beside it, and the audits before."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lfm_tasks.report.template import allowed, resource, templates


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
