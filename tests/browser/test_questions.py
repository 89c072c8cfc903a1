"""A manager's questions: answered in the first screen of the page, or one link away. Run with --browser."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm_tasks.report import render_report
from lfm_tasks.report.audit_page import AuditFacts
from tests.browser.test_reading import WIDE, audit_facts

pytestmark = pytest.mark.browser

Watch = Callable[..., Any]

QUESTIONS = {
    "which pairs need action?": (r"No pair of models needs action", None),
    "who comes from whom?": (
        r"mlp_s0_permuted \(a copy, the same at every layer\) come from mlp_s0",
        None,
    ),
    "what stands apart?": (r"mlp_untrained stands apart", None),
    "what changed?": (r"What changed is not on this page: lfm-atlas audit compares", None),
    "is .62 much?": (r"Unrelated models have a median of 0\.\d\d here", None),
    "who owns it, under which license?": (r"Licenses: apache-2\.0 \(8\)", "#findings"),
}


FIRST_SCREEN = """[...document.querySelectorAll("main li, main .note, header p")].filter((one) => {
    const box = one.getBoundingClientRect();
    return box.height && box.bottom <= innerHeight;
}).map((one) => one.innerText.replace(/\\s+/g, " ")).join("\\n")"""


@pytest.mark.parametrize("question", QUESTIONS)
def test_managers_question__is_answered_in_the_first_screen(
    zoo_folder_built: Path, watch: Watch, question: str
) -> None:
    page = watch((zoo_folder_built / "atlas" / "report.html").read_text(), viewport=WIDE).open()
    words, link = QUESTIONS[question]

    shown = page.evaluate(FIRST_SCREEN)

    assert re.search(words, shown)
    if link:
        page.click(f".sentences a[href='{link}']")
        assert page.locator(link).evaluate("(one) => one.getBoundingClientRect().top < innerHeight")


@pytest.fixture(scope="module")
def urgent_page(made_atlas: Callable[..., Any]) -> str:
    """Give a page on which two models are copies that nobody declared, and an audit found what changed."""
    atlas, summary = made_atlas(8, 2)
    copies = {side: np.isin(atlas[f"{side}_model"].values, ["model001", "model006"]) for side in ("source", "target")}
    is_copy = copies["source"][:, None] & copies["target"]
    same_layer = atlas["source_layer"].values[:, None] == atlas["target_layer"].values
    changed = {
        name: (atlas[name].dims, np.where(is_copy & same_layer, 0.995, atlas[name].values))
        for name in ("score", "calibrated")
    }
    for number, model in enumerate(summary["models"]):
        model["meta"] |= {"owner": "ads" if number < 3 else "maps", "license": "mit" if number != 5 else "unknown"}
    summary["models"][5]["meta"]["base_model"] = "model004"
    found = audit_facts()
    gone = found.facts["checks"][4] | {"status": "fail", "message": "gone since the baseline: model009"}
    facts = {**found.facts, "baseline": "2" * 64, "checks": [*found.facts["checks"][:4], gone]}
    return render_report(atlas.assign(changed), summary, audit=AuditFacts(facts, found.past))


# Where a click leads, and what stands there.
URGENT = {
    "which pairs need action?": (
        r"ACT 1 pair needs action: model001 and model006 are copies of each other \(similarity 0\.9\d\)",
        "model001 and model006",
        r"model001\s+model006\s+copy\s+no: act",
    ),
    "what changed?": (
        r"ACT Since the baseline: gone since the baseline: model009\.",
        "gone since the baseline: model009",
        r"missing\s+fail\s+yes\s.*gone since the baseline: model009",
    ),
    "is .62 much?": (
        r"models have a median of 0\.\d\d here",
        "what the verdicts mean",
        r"related\s+One comes from",
    ),
    "who owns it, under which license?": (
        r"ACT Licenses: mit \(7\), unknown \(1\); owners: maps \(5\), ads \(3\)\. model005 has another license",
        "model005",
        r"model005\s.*maps\s+unknown",
    ),
}


@pytest.mark.parametrize("question", URGENT)
def test_managers_question__that_needs_action_leads_to_its_evidence(
    urgent_page: str, watch: Watch, question: str
) -> None:
    watched = watch(urgent_page, viewport=WIDE)
    page = watched.open()
    answer, link, evidence = URGENT[question]

    shown = page.evaluate(FIRST_SCREEN)
    assert re.search(answer, shown), shown
    page.locator(".answer a", has_text=link).first.click()
    page.wait_for_timeout(150)

    on_screen = page.evaluate(
        """[...document.querySelectorAll("tr, dl")].filter((one) => one.checkVisibility()).filter((one) => {
            const box = one.getBoundingClientRect();
            return box.top >= 0 && box.top < innerHeight;
        }).map((one) => one.innerText).join("\\n")"""
    )
    assert re.search(evidence, on_screen), on_screen
    assert watched.complaints == []


def test_every_link_of_the_answer__leads_to_something_that_is_shown(
    urgent_page: str, zoo_folder_built: Path, watch: Watch
) -> None:
    for html in (urgent_page, (zoo_folder_built / "atlas" / "report.html").read_text()):
        page = watch(html, viewport=WIDE).open()
        targets = page.evaluate(
            "[...document.querySelectorAll('.answer a, nav a')].map((one) => one.getAttribute('href'))"
        )
        assert len(targets) > 8
        for target in targets:
            assert page.locator(target).count() == 1, target
            page.click(f":is(.answer, nav) a[href='{target}'] >> nth=0")
            page.wait_for_timeout(30)
            assert page.locator(target).is_visible(), target
