"""The page of an audit: what to do first, findings that lead to their pair, limits in histograms, the history."""

import re
from typing import Any

import numpy as np

from lfm_tasks.checks.histograms import histogram
from lfm_tasks.report.audit_page import AuditFacts, finding_address, finding_columns, histograms, render_audit, shown


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


def test_histogram__has_the_limit_where_its_value_lies_and_marks_findings() -> None:
    (made,) = histogram([0.1, 0.1, 0.1, 0.1, 0.9, np.nan], "likeness", limit=0.97, found=[0.99, None, 1.2])
    null = {"histograms": [made | {"counts": [1, 4, 0, 0]}]}

    (drawn,) = histograms(check("c", "fail", null=null))

    assert [(bar["x"], bar["height"]) for bar in drawn["bars"]] == [(0, 0.25), (0.25, 1)]
    assert (drawn["limit_at"], drawn["found_at"]) == (0.97, [0.99, 1])
    assert histograms(check("c", "pass", null={"of": "models", "n": 3})) == []
    page = render_audit(audit(check("c", "pass", null=null)))
    assert 'd="M446.8 14V68"' in page  # 20 + 440 * 0.97
    assert ">limit 0.97</text>" in page
    assert 'href="#audit-c"' in page


def test_histogram__of_a_check_that_passes_is_shown_with_its_limit() -> None:
    null = {"histograms": histogram([0.001, 0.03], "change", limit=0.02, found=[0.03], ends=(0, 0.04))}

    page = render_audit(audit(check("drift", "pass", null=null)))

    section = page.split('id="audit-drift"')[1].split("</section>")[0]
    assert 'd="M240.0 14V68"' in section
    assert section.count('class="found"') == 1
    assert "2 values, lowest 0.001, median 0.0155, highest 0.03" in section
    assert "<table" not in section


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
