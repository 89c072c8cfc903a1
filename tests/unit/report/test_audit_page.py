"""The page of an audit: what to do first, findings that lead to their pair, limits in histograms, the history."""

import re
from typing import Any

from lfm_tasks.report.audit_page import AuditFacts, finding_address, finding_columns, histogram, render_audit, shown


def check(name: str, status: str, **more: Any) -> dict[str, Any]:
    of = {"enforced": True, "observed": None, "threshold": None, "message": f"{name} said", "findings": [], "null": {}}
    return of | {"name": name, "status": status} | more


def audit(*checks: dict[str, Any]) -> AuditFacts:
    facts = {
        "verdict": "fail", "sentence": "1 failed", "note": "", "time": "2026-11-29T09:00:00+00:00", "atlas": "1" * 8,
        "counts": {"models": 4, "spaces": 8}, "checks": list(checks), "baseline": None, "computed": {}, "reused": {},
        "program": "lfm-atlas",
    }  # fmt: skip
    line = {"time": facts["time"], "verdict": "fail", "promoted": False, "checks": {c["name"]: c for c in checks}}
    return AuditFacts(facts, [line | {"checks": {}}, line])


def test_what_to_do_first__is_what_fails_the_audit() -> None:
    found = audit(check("a", "pass"), check("b", "warn", enforced=False), check("c", "fail"))

    page = render_audit(found)

    assert [one["name"] for one in found.first] == ["c", "b"]
    first = page.split('id="audit-first"')[1].split("</section>")[0]
    assert re.findall(r'<li class="(\w+)">', first) == ["act", "look", "fine"]
    assert "1 check passed: a." in first


def test_finding__leads_to_its_pair_on_the_page_of_the_atlas() -> None:
    finding = {"dataset": "d", "measure": "lfm", "source": "a b/x/y", "target": "c"}

    assert finding_address(finding, "report.html") == (
        "report.html#dataset=d&measure=lfm&source=a+b&source_layer=x%2Fy&target=c&part=layers"
    )
    assert finding_address({"model": "a"}, "") is None
    page = render_audit(audit(check("c", "fail", findings=[finding])))
    assert 'href="report.html#dataset=d&amp;measure=lfm' in page


def test_histogram__has_the_limit_where_it_is_a_similarity_and_marks_findings() -> None:
    null = {"counts": [1, 4, 0, 0], "limit": 0.97}

    bars = histogram(check("c", "fail", null=null, findings=[{"similarity": 0.99}, {"similarity": None}]))

    assert bars is not None
    assert [bar["height"] for bar in bars["bars"]] == [0.25, 1, 0, 0]
    assert (bars["limit"], bars["found"]) == (0.97, [0.99])
    assert histogram(check("c", "pass", null={"counts": [0, 0]})) is None
    assert histogram(check("c", "pass", null={"counts": [1]}))["limit"] is None  # type: ignore[index]


def test_history__is_a_strip_with_a_sign_and_a_word_each() -> None:
    found = audit(check("c", "fail", observed=0.5))

    assert found.strip("c") == [
        ("", " ", "2026-11-29T09:00:00+00:00: not there"),
        ("fail", "✗", "2026-11-29T09:00:00+00:00: fail, observed 0.5"),
    ]
    assert '<span class="spoken">fail</span>' in render_audit(found)


def test_values__are_written_for_people_and_empty_columns_left_out() -> None:
    rows = [{"a": 0.123456, "b": "", "c": True}, {"a": None, "b": None, "d": ["x", "y"]}]

    assert finding_columns(check("c", "fail", findings=rows)) == ["a", "c", "d"]
    assert [shown(value) for value in (0.123456, "", True, ["x", 1])] == ["0.1235", "–", "yes", "x, 1"]
