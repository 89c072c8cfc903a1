"""What an atlas holds, at a glance."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

_SHOWN_FAILURES = 10


def as_text(summary: Mapping[str, Any], datasets: Sequence[str], measures: Sequence[str]) -> str:
    """Return a few lines."""
    lines = [f"{name:<10} {value}" for name, value in _facts(summary, datasets, measures).items()]
    return "\n".join([f"<lfm-atlas: {summary['title']}>", *lines])


def as_html(summary: Mapping[str, Any], datasets: Sequence[str], measures: Sequence[str]) -> str:
    """Return a table for notebooks; every name is escaped."""
    facts = _facts(summary, datasets, measures)
    cells = [(escape(name), escape(value)) for name, value in facts.items()]
    rows = "".join(f'<tr><th scope="row">{name}</th><td>{value}</td></tr>' for name, value in cells)
    return f"<table><caption>{escape(summary['title'])}</caption><tbody>{rows}</tbody></table>"


def _facts(summary: Mapping[str, Any], datasets: Sequence[str], measures: Sequence[str]) -> dict[str, str]:
    counts = summary["counts"]
    facts = {
        "spaces": f"{counts['spaces']} of {counts['models']} models",
        "pairs": f"{counts['directed_pairs']} directed, {counts['directed_pairs_without_score']} without a score",
        "datasets": ", ".join(datasets),
        "measures": ", ".join(measures),
        "models": ", ".join(entry["name"] for entry in summary["models"]),
    }
    failures = [
        f"{'/'.join(filter(None, (failure['model'], failure['layer'])))} [{failure['reason']}]"
        for failure in summary["failures"]
    ]
    if failures:
        more = f" and {len(failures) - _SHOWN_FAILURES} more" if len(failures) > _SHOWN_FAILURES else ""
        facts["failed"] = ", ".join(failures[:_SHOWN_FAILURES]) + more
    return facts
