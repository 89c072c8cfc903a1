"""What people find on the page: answers, search, sorting, files to take away, small screens, other eyes."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from lfm_tasks.checks.histograms import histogram
from lfm_tasks.parity.files import parity_as_dict, verdict_as_lines
from lfm_tasks.parity.sides import Side
from lfm_tasks.parity.stage import compare_sides
from lfm_tasks.report import render_report
from lfm_tasks.report.audit_page import AuditFacts, render_audit

pytestmark = pytest.mark.browser

Watch = Callable[..., Any]
WIDE, NARROW = {"width": 1400, "height": 900}, {"width": 390, "height": 844}


def audit_facts() -> AuditFacts:
    """Return an audit with a check of each status, findings that are pairs, and a history."""
    finding = {"dataset": "probe", "source": "model000", "target": "model001", "similarity": 0.99, "declared": False}
    of = {
        "enforced": True,
        "observed": 0.99,
        "threshold": 0.97,
        "message": "look at model000",
        "findings": [],
        "null": {},
    }
    null: dict[str, Any] = {"of": "similarities", "n": 6, "median": 0.4, "max": 0.99}
    null["histograms"] = histogram([0.3, 0.4, 0.5, 0.99], "similarities", limit=0.97, found=[0.99])
    checks = [
        of | {"name": "near_duplicate", "status": "fail", "findings": [finding], "null": null},
        of | {"name": "license", "status": "warn"}, of | {"name": "drift", "status": "skipped", "observed": None},
        of | {"name": "quality", "status": "pass", "null": null}, of | {"name": "missing", "status": "unjudged"},
        of | {"name": "parity.port", "status": "fail"},
    ]  # fmt: skip
    past = {"time": "2026-11-28T09:00:00+00:00", "verdict": "pass", "promoted": True, "checks": {}}
    facts = {
        "verdict": "fail", "sentence": "1 failed", "note": "Evidence, no proof.", "time": "2026-11-29T09:00:00+00:00",
        "counts": {"models": 4, "spaces": 8}, "checks": checks, "atlas": "1" * 64, "baseline": None,
        "computed": {"bases": 1}, "reused": {"bases": 2}, "program": "lfm-atlas", "parity": [a_port()],
    }  # fmt: skip
    now = {"time": facts["time"], "verdict": "fail", "promoted": False}
    return AuditFacts(facts, [past] * 29 + [now | {"checks": {check["name"]: check for check in checks}}])


def a_port() -> dict[str, Any]:
    """Return a comparison of two networks of 30 layers with long names, of which the last ten are off."""
    rows = np.random.default_rng(0).standard_normal((60, 4)).astype(np.float32)
    names = [f"model.layers.{number}.post_attention_layernorm" for number in range(30)]
    ids = np.array([f"p{number}" for number in range(60)])
    sides = [
        Side(name, {one: rows * (factor if n >= 20 else 1) for n, one in enumerate(names)}, ids)
        for name, factor in (("network", np.float32(1)), ("port", np.float32(1.01)))
    ]
    found = compare_sides(*sides)
    return {"check": "parity.port", "sentences": list(verdict_as_lines(found)), **parity_as_dict(found)}


@pytest.fixture(scope="module")
def large_page(made_atlas: Callable[..., Any]) -> str:
    """Give a page of 100 models with owners, licenses and long layer names."""
    atlas, summary = made_atlas(100, 6)
    layers = [f"model.language_model.layers.{n % 6}.post_attention_layernorm" for n in range(600)]
    for model in summary["models"]:
        model["meta"] |= {"owner": f"team{model['meta']['seed'] % 3}", "license": "mit"}
    named = {side: np.array(layers, dtype=object) for side in ("source", "target")}
    return render_report(
        atlas.assign_coords({f"{side}_layer": (side, texts) for side, texts in named.items()}), summary
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("kind", ["whole", "audited", "audit", "bare"])
def test_axe__finds_nothing(
    made_atlas: Callable[..., Any], whole_page: str, watch: Watch, scheme: str, viewport: dict[str, int], kind: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="not run: axe is not installed")
    atlas, summary = made_atlas(3, 2)
    summary["failures"] = [dict.fromkeys(("dataset", "model", "layer", "stage", "reason", "message"), "not there")]
    made = {
        "whole": lambda: whole_page,
        "audited": lambda: render_report(atlas, summary, audit=audit_facts()),
        "audit": lambda: render_audit(audit_facts()),
        "bare": lambda: render_report(atlas.assign(calibrated=atlas["calibrated"] * np.nan), summary),
    }
    watched = watch(made[kind](), viewport=viewport, color_scheme=scheme)
    if kind == "audit":
        watched.page.goto(watched.address)
    else:
        watched.open().evaluate("for (const one of document.querySelectorAll('details')) one.open = true")

    found = axe.Axe().run(watched.page).response["violations"]

    assert [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found] == []


@pytest.mark.parametrize("kind", ["whole", "large", "audit"])
def test_small_screen__is_never_scrolled_sideways(whole_page: str, large_page: str, watch: Watch, kind: str) -> None:
    html = {"whole": whole_page, "large": large_page, "audit": render_audit(audit_facts())}[kind]
    watched = watch(html, viewport=NARROW)
    watched.page.goto(watched.address)
    if kind != "audit":
        watched.open()

    assert watched.page.evaluate("document.documentElement.scrollWidth") == NARROW["width"]
    if kind != "audit":
        cut = """[...document.querySelectorAll(".plot > svg")].filter((one) => one.clientWidth)
            .filter((one) => one.getBoundingClientRect().right > innerWidth).map((one) => one.parentElement.id)"""
        assert watched.page.evaluate(cut) == []


def test_without_scripts__words_and_tables_are_there(whole_page: str, watch: Watch) -> None:
    watched = watch(whole_page, java_script_enabled=False)
    page = watched.page
    page.goto(watched.address)

    assert page.locator(".sentences li").count() >= 3
    assert page.locator("#findings ~ div table").first.is_visible()
    assert page.locator("noscript p").is_visible()
    assert page.is_hidden("#charts")
    assert page.is_hidden("#bar")
    assert watched.complaints == []


def test_search__filters_every_section_and_stands_in_the_address(large_page: str, watch: Watch) -> None:
    watched = watch(large_page, viewport=WIDE)
    page = watched.open()

    watched.do(lambda: page.fill("#find", "seed:7 , model012"))

    shown = page.locator("#findings ~ div tbody tr:not([hidden]) th").all_inner_texts()
    assert {"model007", "model012"} <= set(shown)
    assert len(shown) < 40
    assert page.inner_text("#models-filtered").endswith("of 100 models match the search; the tree needs all of them.")
    assert "model012" in page.locator("#chart-models text").all_text_contents()
    assert watched.choice["find"] == "seed:7 , model012"
    watched.do(lambda: page.fill("#find", "nobody has this name"))
    assert page.inner_text("#models ~ .left-out") == "No model matches the search."
    assert page.is_hidden("#chart-models")
    watched.do(lambda: page.fill("#find", ""))
    assert page.is_visible("#chart-models")
    assert watched.complaints == []


def test_table__is_sorted_by_numbers_and_back(large_page: str, watch: Watch) -> None:
    page = watch(large_page).open()
    head = page.locator("#findings ~ div th", has_text="Similarity").first
    column = head.evaluate("(one) => one.cellIndex")

    def shown() -> list[float]:
        cells = page.locator(f"#findings ~ div tbody tr > :nth-child({column + 1})")
        return [float(text) for text in cells.all_inner_texts()]

    head.locator("button").press("Enter")
    assert shown() == sorted(shown(), reverse=True)
    assert head.get_attribute("aria-sort") == "descending"
    head.locator("button").press("Enter")
    assert shown() == sorted(shown())


def test_hundred_models__fit_with_names_and_the_whole_tree_and_no_long_select(large_page: str, watch: Watch) -> None:
    page = watch(large_page, viewport=WIDE).open()

    drawing = page.locator("#chart-models > svg").bounding_box()
    assert drawing["x"] + drawing["width"] <= WIDE["width"]
    outside = page.evaluate(
        """[...document.querySelectorAll("#chart-models .tree, #chart-models text")].filter((one) => {
            const box = one.getBoundingClientRect(), all = one.ownerSVGElement.getBoundingClientRect();
            return box.left < all.left - 1 || box.right > all.right + 1 || box.top < all.top - 1;
        }).map((one) => one.textContent)"""
    )
    assert outside == []
    assert page.locator("#chart-models text", has_text="model099").count() == 2
    assert page.locator("#chart-models .facet").count() == 200
    assert page.evaluate("Math.max(...[...document.querySelectorAll('select')].map((one) => one.length))") <= 101


def test_collapse__shows_the_means_of_the_values_of_a_key(large_page: str, watch: Watch) -> None:
    watched = watch(large_page)
    page = watched.open("#facet=owner")

    watched.do(lambda: page.check("#collapse"))

    assert watched.choice["collapse"] == "yes"
    assert [row[0] for row in watched.cells("models")] == ["team0 (34)", "team1 (33)", "team2 (33)"]


def test_tooltip__names_both_and_stays_on_the_screen(large_page: str, watch: Watch) -> None:
    page = watch(large_page, viewport=WIDE).open()
    page.evaluate("scrollBy(0, document.querySelector('#chart-models image').getBoundingClientRect().top - 300)")
    box = page.locator("#chart-models image").first.bounding_box()
    for x, y in ((2, 2), (box["width"] - 2, 2), (2, min(box["height"], 880 - box["y"]) - 2)):
        page.mouse.move(box["x"] + x, box["y"] + y)
        page.mouse.move(box["x"] + x, box["y"] + y + 1)
        shown = page.locator("#tip").bounding_box()
        assert shown["x"] >= 0
        assert shown["y"] >= 0
        assert shown["x"] + shown["width"] <= WIDE["width"]
        assert shown["y"] + shown["height"] <= WIDE["height"]
    lines = page.locator("#tip div").all_inner_texts()
    assert sum(line.startswith("model") for line in lines) == 2
    assert any(line.startswith("similarity ") for line in lines)
    assert any(line.startswith("95 % interval ") for line in lines)
    assert any(line.startswith("smallest q of their layers ") for line in lines)


def test_layer_names__lose_what_they_share_and_never_overlap(
    made_atlas: Callable[..., Any], with_sections: Callable[..., Any], watch: Watch
) -> None:
    atlas, summary = made_atlas(2, 40, prefix="acme--decoder-7b-instruct-preview-2026-10-")
    atlas, groups = with_sections(atlas, n_pairs=40)
    layers = np.array([f"model.layers.{n % 40}.post_attention_layernorm" for n in range(80)], dtype=object)
    named = atlas.assign_coords(source_layer=("source", layers), target_layer=("target", layers))
    html = render_report(named, summary, groups)
    for viewport in (WIDE, NARROW):
        page = watch(html, viewport=viewport).open()

        boxes = page.evaluate(
            """[...document.querySelectorAll("#chart-layers text")].filter((one) => /^\\d+$/.test(one.textContent))
               .map((one) => one.getBoundingClientRect())
               .map(({ left, right, top, bottom }) => [left, right, top, bottom])"""
        )

        assert page.inner_text("#layers-left-out") == "Layers: model.layers.*.post_attention_layernorm"
        assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"]
        assert len(boxes) >= 16
        crossing = [
            (a, b) for place, a in enumerate(boxes) for b in boxes[place + 1 :]
            if a[0] < b[1] - 1 and b[0] < a[1] - 1 and a[2] < b[3] - 2.5 and b[2] < a[3] - 2.5
        ]  # fmt: skip
        assert crossing == []


def test_tables_and_charts__are_taken_away_as_files(whole_page: str, watch: Watch, tmp_path: Path) -> None:
    watched = watch(whole_page, accept_downloads=True)
    page = watched.open()

    def saved(label: str) -> bytes:
        with page.expect_download() as waiting:
            page.click(f"button[aria-label='{label}']")
        waiting.value.save_as(tmp_path / "saved")
        return (tmp_path / "saved").read_bytes()

    rows = list(csv.reader(io.StringIO(saved("CSV of: Table: Models").decode("utf-8-sig"))))
    assert rows[0][:3] == ["Model", "Nearest", "Verdict"]
    assert len(rows) == 1 + page.locator("#findings ~ div tbody tr").count()
    drawing = saved("SVG of: Heat map of models against models").decode()
    assert drawing.startswith("<svg")
    assert "model000" in drawing
    assert "class=" not in drawing
    assert saved("PNG of: The nearest models, falling").startswith(b"\x89PNG")
    assert watched.complaints == []


def test_cells__that_a_spreadsheet_would_run_are_quoted(made_atlas: Callable[..., Any], watch: Watch) -> None:
    page = watch(render_report(*made_atlas(3, 1, prefix="=1+")), accept_downloads=True).open()
    with page.expect_download() as waiting:
        page.click("button[aria-label='CSV of: Table: Models']")
    rows = list(csv.reader(io.StringIO(Path(waiting.value.path()).read_text(encoding="utf-8-sig"))))

    assert [row[0] for row in rows[1:]] == ["'=1+000", "'=1+001", "'=1+002"]


def test_link__is_copied(whole_page: str, watch: Watch) -> None:
    watched = watch(whole_page, permissions=["clipboard-read", "clipboard-write"])
    page = watched.open("#source=model002&target=model001")

    page.click("#copy-link")
    page.wait_for_selector("#copied:not(:empty)")

    assert page.evaluate("navigator.clipboard.readText()") == page.url
    assert "source=model002" in page.url


def test_link_to_a_pair__leads_to_its_layers(zoo_folder_built: Path, watch: Watch) -> None:
    watched = watch((zoo_folder_built / "atlas" / "report.html").read_text(), viewport=WIDE)
    page = watched.open("#source=cnn_s0&target=tanh_s0")

    watched.do(lambda: page.click("#pair-2 a"))

    assert (watched.choice["source"], watched.choice["target"]) == ("mlp_s0", "mlp_s0_finetuned")
    page.wait_for_timeout(200)
    assert page.locator("#layers").evaluate("(one) => Math.abs(one.getBoundingClientRect().top) < 400")


def test_map__is_not_drawn_where_it_would_mislead(made_atlas: Callable[..., Any], watch: Watch) -> None:
    atlas, summary = made_atlas(30, 1)
    apart = np.broadcast_to(np.eye(30) * 0.6 + 0.3, atlas["calibrated"].shape)
    page = watch(render_report(atlas.assign(calibrated=(atlas["calibrated"].dims, apart)), summary)).open()

    assert page.is_visible("#zoo-none")
    assert page.is_hidden("#part-zoo")
    assert "above .2 a map misleads" in page.inner_text("#zoo-none")


def test_numbers__that_were_not_computed_are_not_spoken_of(made_atlas: Callable[..., Any], watch: Watch) -> None:
    atlas, summary = made_atlas(4, 3)
    absent = ("null_mean", "null_q95", "calibrated", "p_value", "ci_low", "ci_high", "q_value", "unrelated_rank")
    bare = atlas.assign({name: atlas[name] * np.nan for name in (*absent, "split_half_reliability")})
    watched = watch(render_report(bare.drop_vars("half_scores"), summary))

    page = watched.open()

    words = page.inner_text("body").lower().replace("no chance was computed", "").replace("what chance gives", "")
    for word in ("95 %", "interval", "permuted", "ceiling", "calibrated:", "same on each half"):
        assert word not in words, word
    assert page.inner_text("#chance-heading") == "Matched layers"
    assert [head for head in page.locator("#findings ~ div th").all_inner_texts() if "Interval" in head] == []
    assert watched.complaints == []


def test_paper__cuts_no_table(large_page: str, whole_page: str, watch: Watch) -> None:
    for html in (whole_page, large_page):
        page = watch(html, viewport={"width": 1030, "height": 700}).open()
        page.emulate_media(media="print")
        page.evaluate("dispatchEvent(new Event('beforeprint'))")

        assert page.evaluate("document.documentElement.scrollWidth") == 1030


def test_inputs__are_shown_as_pictures_or_as_text_that_stays_text(
    made_atlas: Callable[..., Any], with_sections: Callable[..., Any], watch: Watch
) -> None:
    atlas, summary = made_atlas(3, 2)
    atlas, groups = with_sections(atlas, n_pairs=6)
    maps = groups["maps/probe"]
    points = maps["point"].values[:4]
    worst, neighbors = np.array([[0, 1] + [-1] * 8]), np.full((1, 2, 10, 3), -1)
    neighbors[0, 0, 0], neighbors[0, 1, 0] = [1, 2, 3], [3, 2, -1]
    black = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR42mNgAAAAAgAB4iG8MwAAAABJRU5ErkJggg=="
    for kind, shown in (("text", [f"<img src=x onerror=alert({n})>" for n in range(4)]), ("image", [black] * 4)):
        group = xr.Dataset(
            {
                "preview": ("point", np.array(shown, dtype=object)), "worst": (("pair", "rank"), worst),
                "neighbors": (("pair", "space", "rank", "neighbor"), neighbors),
            },
            {"point": points} | {side: ("pair", maps[side].values[:1]) for side in ("source", "target")},
            {"kind": kind},
        )  # fmt: skip
        watched = watch(render_report(atlas, summary, groups | {"previews/probe": group}))
        ends = [str(maps[side].values[0]).split("/") for side in ("source", "target")]
        page = watched.open(
            f"#source={ends[0][0]}&source_layer={ends[0][1]}&target={ends[1][0]}&target_layer={ends[1][1]}"
        )

        assert page.locator("#table-previews tbody tr").count() == 2
        found = page.locator("#table-previews tbody tr").first.locator("td, th")
        assert [found.nth(cell).locator("q, img").count() for cell in (0, 3, 4)] == [1, 3, 2]
        assert page.locator("#table-previews img").count() == (0 if kind == "text" else 7)
        assert page.evaluate("[...document.images].every((one) => one.naturalWidth > 0)")
        assert watched.complaints == []
