"""What an audit leaves: ``audit.json`` for programs, JUnit for CI, a page for people, a line of history."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from lfm_tasks.audit.check import Check
from lfm_tasks.report.audit_page import AuditFacts, render_audit
from lfm_tasks.stores.units.durable import write_durably

SCHEMA_VERSION = 1
_N_PAST = 30


def write_audit(
    folder: Path, facts: Mapping[str, Any], checks: tuple[Check, ...], report: Callable[[AuditFacts], str]
) -> None:
    """Write all files of one audit, each whole or not at all; the history grows by a line.

    ``report`` draws the page of the atlas with a section of the audit.
    """
    history = [*read_history(folder), history_line(facts)]
    _write(folder / "history.jsonl", "".join(json.dumps(line, sort_keys=True) + "\n" for line in history))
    _write(folder / "audit.json", json.dumps(facts, indent=1, allow_nan=False, ensure_ascii=False) + "\n")
    _write(folder / "audit.junit.xml", junit(checks))
    shown = AuditFacts(facts, history[-_N_PAST:])
    _write(folder / "audit.html", render_audit(shown))
    _write(folder / "report.html", report(shown))


def history_line(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the history keeps of an audit."""
    kept = ("time", "verdict", "atlas", "baseline", "promoted", "computed")
    checks = {check["name"]: {"status": check["status"], "observed": check["observed"]} for check in facts["checks"]}
    return {name: facts[name] for name in kept} | {"checks": checks}


def read_history(folder: Path) -> list[dict[str, Any]]:
    """Return all earlier audits, the oldest first."""
    path = folder / "history.jsonl"
    if not path.is_file():
        return []
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except ValueError as error:
        raise ValueError(f"{path}: found a line that is no JSON ({error}): mend it, or move the file away") from error


def junit(checks: tuple[Check, ...]) -> str:
    """Return the checks as a JUnit suite: a test case each."""
    counted = {status: sum(check.status == status for check in checks) for status in ("fail", "error", "skipped")}
    suite = ElementTree.Element(
        "testsuite", name="lfm-atlas audit", tests=str(len(checks)), failures=str(counted["fail"]),
        errors=str(counted["error"]), skipped=str(counted["skipped"]),
    )  # fmt: skip
    elements = {"fail": "failure", "error": "error", "skipped": "skipped", "warn": "system-out"}
    for check in checks:
        case = ElementTree.SubElement(suite, "testcase", classname="audit", name=check.name)
        if check.status in elements:
            told = ElementTree.SubElement(case, elements[check.status])
            # XML cannot hold control characters; messages quote what errors say.
            text = "".join(character if character.isprintable() else " " for character in check.message)
            if check.status == "warn":
                told.text = f"warning: {text}"
            else:
                told.set("message", text)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(suite, encoding="unicode") + "\n"


def _write(path: Path, text: str) -> None:
    write_durably(path, text.encode())
