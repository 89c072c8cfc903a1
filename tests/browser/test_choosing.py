"""Choosing in the page: controls, keyboard, mouse, the address. Run with --browser."""

import re
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.browser

CHOICES = ("dataset", "measure", "statistic", "source", "target", "source_layer", "target_layer", "facet", "distance")
# What stands beside them in the bar.
BESIDE = ("find", "collapse", "copy-link")
# Two models whose layers have embeddings.
EMBEDDED = "#source=model000&target=model001"
Watch = Callable[..., Any]


def test_every_control__changes_what_is_shown_and_the_address(whole_page: str, watch: Watch) -> None:
    watched = watch(whole_page)
    page = watched.open()
    for control in CHOICES:
        offered = page.locator(f"#{control} option").evaluate_all("all => all.map((option) => option.value)")
        assert len(offered) > 1, control
        other = next(name for name in offered if name != watched.choice[control])
        before = page.evaluate("document.querySelector('main').innerHTML")

        watched.do(lambda control=control, other=other: page.select_option(f"#{control}", other))

        assert watched.choice[control] == other
        assert page.evaluate("document.querySelector('main').innerHTML") != before, control
        if control == "dataset":
            assert page.is_hidden("#functional")
            watched.do(lambda: page.select_option("#dataset", "probe"))
            assert page.is_visible("#functional")
    assert watched.complaints == []


def test_address__brings_back_what_its_sender_saw(whole_page: str, watch: Watch) -> None:
    watched = watch(whole_page)
    page = watched.open("#measure=lfm&statistic=score&source=model002&target=model001&facet=seed&distance=shared")
    seen, address = page.inner_text("main"), page.evaluate("location.hash")

    again = watch(whole_page)
    restored = again.open(address)

    assert restored.inner_text("main") == seen
    assert again.choice == watched.choice
    assert watched.choice["source"] == "model002"


@pytest.mark.parametrize(
    "rubbish",
    [
        "#source=nobody&target=&measure=__proto__&statistic=constructor&dataset=%00&facet=toString",
        "#%%%=%E0%A4%A&&&===",
        "#" + "source=" * 2000,
        "#source=<img src=x onerror=alert(1)>",
    ],
)
def test_address__with_rubbish_in_it_opens_the_page_as_without(whole_page: str, watch: Watch, rubbish: str) -> None:
    plain, watched = watch(whole_page), watch(whole_page)
    expected = plain.open().inner_text("main")

    assert watched.open(rubbish).inner_text("main") == expected
    assert watched.complaints == []


def test_address__that_changes_redraws_and_a_link_to_a_part_keeps_the_choice(whole_page: str, watch: Watch) -> None:
    watched = watch(whole_page)
    page = watched.open()

    watched.do(lambda: page.evaluate("location.hash = '#source=model003&target=model000'"))
    assert watched.choice["source"] == "model003"
    page.click("nav a[href='#layers']")
    page.wait_for_timeout(100)
    assert watched.choice["target"] == "model000"


def test_charts__are_walked_and_chosen_from_by_the_keyboard(whole_page: str, watch: Watch) -> None:
    watched = watch(whole_page)
    page = watched.open(EMBEDDED)
    for name in watched.charts:
        page.focus(f"#chart-{name}")
        page.keyboard.press("Home")
        first = page.inner_text(f"#chart-{name}-readout")
        page.keyboard.press("ArrowRight" if name in ("models", "layers", "functional") else "ArrowDown")
        assert first, name
        assert page.inner_text(f"#chart-{name}-readout") not in ("", first), name
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.focus("#chart-models")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowDown")
    first, second = page.inner_text("#chart-models-readout").split(":")[0].split(" and ")

    watched.do(lambda: page.keyboard.press("Enter"))

    assert (watched.choice["source"], watched.choice["target"]) == (first, second)
    assert page.evaluate("document.activeElement.id") == "chart-models"
    page.keyboard.press("Escape")
    assert page.inner_text("#chart-models-readout") == ""


def test_every_control__is_reached_by_the_tab_key(whole_page: str, watch: Watch) -> None:
    watched = watch(whole_page)
    page = watched.open(EMBEDDED)
    reached = set()
    for _ in range(200):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id"))

    assert {*CHOICES, *BESIDE, *(f"chart-{name}" for name in watched.charts)} <= reached


def test_controls_and_charts__have_names_for_those_who_listen(whole_page: str, watch: Watch) -> None:
    watched = watch(whole_page)
    page = watched.open()

    for control in CHOICES:
        assert page.locator(f"label:has(#{control})").inner_text().strip()
    for name in watched.charts:
        assert page.get_attribute(f"#chart-{name}", "aria-label")
        assert page.get_attribute(f"#chart-{name}-readout", "aria-live") == "polite"
    assert page.locator("th:not([scope])").count() == 0


def test_click_on_a_cell__chooses_its_models_then_its_layers(whole_page: str, watch: Watch) -> None:
    watched = watch(whole_page)
    page = watched.open()
    for name, controls in (("models", ("source", "target")), ("layers", ("source_layer", "target_layer"))):
        page.locator(f"#chart-{name}").scroll_into_view_if_needed()
        box = page.locator(f"#chart-{name} image").first.bounding_box()
        place = (box["x"] + 3, box["y"] + box["height"] - 3)
        page.mouse.move(*place)
        said = re.split(" and | → ", page.inner_text(f"#chart-{name}-readout").split(":")[0])

        watched.do(lambda place=place: page.mouse.click(*place))

        assert [watched.choice[control] for control in controls] == said


@pytest.mark.parametrize("control", ["kept_pair", "embedded_pair"])
def test_pairs_on_offer__lead_to_their_spaces(whole_page: str, watch: Watch, control: str) -> None:
    watched = watch(whole_page)
    page = watched.open("#source=model003&target=model002")

    watched.do(lambda: page.select_option(f"#{control}", index=3))

    chosen = page.locator(f"#{control} option:checked").inner_text()
    pair = [f"{watched.choice[side]}/{watched.choice[f'{side}_layer']}" for side in ("source", "target")]
    assert chosen == " → ".join(pair)
    assert page.is_visible("#functional-shown")
    assert watched.complaints == []
