"""Files of an audit: ``audit.json`` for programs, JUnit for CI, a page for people, a line of history."""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

from lfm_tasks.checks import Finding
from lfm_tasks.report.audit_page import AuditFacts, render_audit
from lfm_tasks.stores.outputs import HISTORY, history_lines
from lfm_tasks.stores.units.durable import atomic_write

Status = Literal["pass", "warn", "fail", "error", "unjudged", "skipped"]


@dataclass(frozen=True)
class CheckResult:
    """The result of a check, as ``audit.json`` holds it: its status, and the `Measurement` that this comes from.

    pass: within the limit. fail: beyond it. warn: beyond it, not enforced. error: the check could not be evaluated.
    unjudged: what is there cannot be judged, and that is not enforced. skipped: there is nothing to measure.
    ``seconds``: how long its evaluation took.
    """

    name: str
    status: Status
    enforced: bool
    observed: float | None = None
    threshold: float | None = None
    message: str = ""
    findings: tuple[Finding, ...] = ()
    null: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def breaks(self) -> bool:
        """Whether the audit as a whole cannot pass because of it."""
        return self.enforced and self.status in ("fail", "error")


AUDIT_VERSION = 1
_N_PAST = 30


def write_audit(
    folder: Path, facts: Mapping[str, Any], results: tuple[CheckResult, ...], report: Callable[[AuditFacts], str]
) -> None:
    """Write all files of one audit, each whole or not at all; the history grows by a line.

    ``report`` renders the page of the atlas with a section of the audit.
    """
    history = [*read_history(folder), history_line(facts)]
    _write(folder / HISTORY, "".join(json.dumps(line, sort_keys=True) + "\n" for line in history))
    _write(folder / "audit.json", json.dumps(facts, indent=1, allow_nan=False, ensure_ascii=False) + "\n")
    _write(folder / "audit.junit.xml", junit(results, str(facts["time"])))
    shown = AuditFacts(facts, history[-_N_PAST:])
    _write(folder / "audit.html", render_audit(shown))
    _write(folder / "report.html", report(shown))


def history_line(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the line of ``history.jsonl`` for an audit."""
    kept = ("time", "verdict", "atlas", "baseline", "promoted", "computed")
    checks = {check["name"]: {"status": check["status"], "observed": check["observed"]} for check in facts["checks"]}
    return {name: facts[name] for name in kept} | {"checks": checks}


def read_history(folder: Path) -> list[dict[str, Any]]:
    """Return all earlier audits, the oldest first; ValueError for a line that no audit wrote."""
    path = folder / HISTORY
    return list(history_lines(path)) if path.is_file() else []


def junit(results: tuple[CheckResult, ...], time: str) -> str:
    """Return the checks as a JUnit suite: a test case each, with its seconds; ``time``: of the audit, UTC."""
    elements = {
        "fail": "failure", "error": "error", "unjudged": "skipped", "skipped": "skipped", "warn": "system-out"
    }  # fmt: skip
    counted = Counter(elements.get(result.status) for result in results)
    suite = ElementTree.Element(
        "testsuite", name="lfm-atlas audit", tests=str(len(results)), failures=str(counted["failure"]),
        errors=str(counted["error"]), skipped=str(counted["skipped"]),
        time=f"{sum(result.seconds for result in results):.3f}", timestamp=time[:19],
    )  # fmt: skip
    for result in results:
        names = {"classname": "audit", "name": result.name, "time": f"{result.seconds:.3f}"}
        case = ElementTree.SubElement(suite, "testcase", names)
        if result.status in elements:
            element = ElementTree.SubElement(case, elements[result.status])
            # XML cannot hold control characters; messages quote what errors say.
            text = "".join(character if character.isprintable() else " " for character in result.message)
            if result.status == "warn":
                element.text = f"warning: {text}"
            else:
                element.set("message", text)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(suite, encoding="unicode") + "\n"


def _write(path: Path, text: str) -> None:
    atomic_write(path, text.encode())
