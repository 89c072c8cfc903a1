"""The search box of the page: one for every section. Run with --browser."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

from lfm_tasks.report import render_report
from tests.browser.test_reading import WIDE, audit_facts

pytestmark = pytest.mark.browser

Watch = Callable[..., Any]

# What is about the zoo, or the audit, as a whole.
OF_ALL = {"answer", "made", "audit", "audit-first", "audit-history", "audit-made"}
# Names and texts of every section that are shown: rows, lines of lists, drawn names, choices of pairs.
SHOWN = """(section) => {
    const isShown = (one) => one.checkVisibility() && !one.closest("details:not([open])");
    const all = section.querySelectorAll("tbody th, tbody td, ul.searched > li, .plot[id] svg text, .shown");
    return [...all].filter(isShown).map((one) => one.textContent);
}"""
SAID = ".left-out, p.note:has-text('match the search')"


@pytest.fixture(scope="module")
def every_section(made_atlas: Callable[..., Any], with_sections: Callable[..., Any]) -> str:
    """Give a page on which every section is there: also comparisons, failures, doubts, findings of an audit."""
    atlas, summary = made_atlas(4, 2, datasets=("probe", "other"))
    atlas, groups = with_sections(atlas, n_pairs=56)
    names = [str(name) for name in atlas["source"].values]
    of = {"dataset": "probe", "measures": ["lfm"], "sources": names[:4], "targets": names[4:]}
    failure = {"dataset": "probe", "model": "model002", "layer": "modellayer00", "stage": "bases", "reason": "few"}
    summary |= {"failures": [failure | {"message": "too few points"}], "left_out": ["model001: 3 rows are not finite"]}
    doubtful = atlas["recall"].copy()
    doubtful[0, 6:] = 0.5
    atlas = atlas.assign(recall=doubtful)
    return render_report(
        atlas.assign_attrs(comparisons={"first half": of}), summary, {**groups, **_across()}, audit_facts()
    )


def _across() -> dict[str, xr.Dataset]:
    of_pair = ("measure", "direction", "source", "target")
    cells = {"score": (of_pair, [[[[0.5]], [[0.4]]]]), "calibrated": (of_pair, [[[[0.3]], [[0.2]]]])}
    names = {"measure": ["overlap"], "direction": ["forward", "back"], "source": ["model000/modellayer00"]}
    names["target"] = ["model001/modellayer01"]
    facts = {"comparison": "both", "source_dataset": "probe", "target_dataset": "other", "regime": "labels"}
    return {"across/both": xr.Dataset(cells | {"message": (("source", "target"), [[""]])}, names, facts)}


def sections(page: Any) -> dict[str, tuple[list[str], list[str]]]:
    """Return of each section that is shown its names and texts, and what it says of the search."""
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    page.wait_for_timeout(50)
    found = {}
    for section in page.locator("main section").all():
        if section.is_visible():
            said = [one.inner_text() for one in section.locator(SAID).all() if one.is_visible()]
            found[section.get_attribute("aria-labelledby")] = section.evaluate(SHOWN), said
    return found


def test_search_that_finds_nothing__leaves_nothing_in_any_section(every_section: str, watch: Watch) -> None:
    watched = watch(every_section, viewport=WIDE)
    page = watched.open("#source=model000&target=model001")
    before = sections(page)
    of_tables = {"findings", "comparisons", "datasets", "transfers", "spaces", "failed", "audit-near_duplicate"}
    of_charts = {"models", "nearest-heading", "zoo", "layers", "chance-heading", "functional-map", "embedded"}
    assert of_tables | of_charts | {"distortion-heading"} < {*before}

    watched.do(lambda: page.fill("#find", "nobody has this name"))

    for name, (shown, said) in sections(page).items():
        if name in OF_ALL:
            assert (shown, said) == before[name], name
        else:
            assert shown == [], name
            assert said or not before[name][0], name  # a check that found nothing has no lines
    assert page.inner_text("#found") == "0 of 4 models"
    watched.do(lambda: page.fill("#find", ""))
    assert sections(page) == before
    assert page.inner_text("#found") == ""
    assert watched.complaints == []


def test_search_for_a_model__leaves_only_what_is_about_it(every_section: str, watch: Watch) -> None:
    watched = watch(every_section, viewport=WIDE)
    page = watched.open("#source=model000&target=model001")

    watched.do(lambda: page.fill("#find", "model003"))

    found = sections(page)
    for name in ("layers", "chance-heading", "functional-map", "distortion-heading", "embedded"):
        assert found[name][0] == [], name
        assert "Neither model000" in found[name][1][0], name
    # Lists and tables: each line is about the model, or about a pair that it is in.
    rows = page.locator(".searched tbody tr:visible, ul.searched > li:visible").all_inner_texts()
    assert len(rows) > 10
    assert [row for row in rows if "model003" not in row] == []
    assert page.locator("#chart-models svg text", has_text="model").all_text_contents() == ["model003"] * 2
    # The other way round: of a section that is left out a click leads to what was found.
    watched.do(lambda: page.locator("#layers ~ .left-out button").click())
    assert watched.choice["source"] == "model003"
    assert sections(page)["layers"][1] == []
    assert watched.complaints == []


def test_search_for_a_layer__leaves_it_in_the_charts_of_layers(every_section: str, watch: Watch) -> None:
    watched = watch(every_section, viewport=WIDE)
    page = watched.open("#source=model000&target=model001&source_layer=modellayer00&target_layer=modellayer00")

    watched.do(lambda: page.fill("#find", "layer01"))

    assert [row[0] for row in watched.cells("layers")] == ["modellayer01"]
    assert page.inner_text("#layers-filtered") == "1 of 2 × 1 of 2 layers match the search."
    assert page.locator("#chart-models .facet").count() == 8  # every model has such a layer
    assert "Neither model000/modellayer00 nor model001/modellayer00" in page.inner_text("#functional .left-out")
    watched.do(lambda: page.click("#functional .left-out button"))
    assert (watched.choice["source"], watched.choice["source_layer"]) == ("model000", "modellayer01")
    assert page.is_visible("#functional-shown")
    spaces = page.locator("#spaces ~ details tbody tr:not([hidden])").all_text_contents()
    assert len(spaces) == 8
    assert all("modellayer01" in row for row in spaces)


def test_rows_that_are_left_out__are_not_taken_away(every_section: str, watch: Watch) -> None:
    watched = watch(every_section, accept_downloads=True)
    page = watched.open()
    watched.do(lambda: page.fill("#find", "model003"))

    with page.expect_download() as waiting:
        page.click("button[aria-label='CSV of: Table: Transfers on probe']")
    rows = list(csv.reader(io.StringIO(Path(waiting.value.path()).read_text(encoding="utf-8-sig"))))

    assert [row[0] for row in rows] == ["Source → target"]
