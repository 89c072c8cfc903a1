"""Zoom and pan in the charts of the page: wheel, fingers, mouse, keyboard. Run with --browser."""

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.browser

Watch = Callable[..., Any]
EMBEDDED = "#source=model000&target=model001"
ZOOMED = ("models", "zoo", "layers", "functional", "source-class")
SCREENS = {"wide": {"width": 1400, "height": 900}, "narrow": {"width": 390, "height": 844}}


class Chart:
    """A chart in its frame, in the middle of the screen."""

    def __init__(self, page: Any, name: str) -> None:
        self.page, self.name = page, name
        page.evaluate(f"document.querySelector('#chart-{name} .area').scrollIntoView({{ block: 'center' }})")

    @property
    def zoom(self) -> float:
        found: float = self.page.evaluate(f"document.getElementById('chart-{self.name}').zoom ?? 1")
        return found

    @property
    def frame(self) -> dict[str, float]:
        """The frame that the chart is scrolled in."""
        found: dict[str, float] = self.page.evaluate(
            f"""(({{ scrollLeft, scrollTop, scrollWidth, clientWidth, clientHeight }}) =>
                ({{ scrollLeft, scrollTop, scrollWidth, clientWidth, clientHeight }}))
                (document.getElementById('chart-{self.name}').parentElement)"""
        )
        return found

    @property
    def area(self) -> dict[str, float]:
        found: dict[str, float] = self.page.locator(f"#chart-{self.name} .area").bounding_box()
        return found

    def share(self, x: float, y: float) -> tuple[float, float]:
        """Return where a place of the screen is in the chart, from 0 to 1 each way."""
        area = self.area
        return (x - area["x"]) / area["width"], (y - area["y"]) / area["height"]

    def middle(self) -> tuple[float, float]:
        """Return a place near the middle of what the frame shows."""
        box = self.page.locator(f"#chart-{self.name} >> ..").bounding_box()
        width = min(box["width"], self.area["x"] + self.area["width"] - box["x"])
        return box["x"] + 0.45 * width, box["y"] + 0.55 * box["height"]


def settle(page: Any) -> None:
    """Wait for two frames of the screen: turns of the wheel between two are one step."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    page.wait_for_timeout(60)


@pytest.mark.parametrize("name", ZOOMED)
def test_wheel__zooms_with_control_at_the_mouse_and_is_the_pages_without(
    whole_page: str, watch: Watch, name: str
) -> None:
    watched = watch(whole_page, viewport=SCREENS["wide"])
    page = watched.open(EMBEDDED)
    page.focus(f"#chart-{name}")
    for _ in range(4):
        page.keyboard.press("+")
    chart = Chart(page, name)
    x, y = chart.middle()
    page.mouse.move(x, y)
    before, scrolled = chart.share(x, y), page.evaluate("scrollY")

    page.keyboard.down("Control")
    page.mouse.wheel(0, -240)
    settle(page)
    page.keyboard.up("Control")

    assert chart.zoom > 1.5**4 + 2
    assert chart.share(x, y) == pytest.approx(before, abs=0.01)
    assert page.evaluate("scrollY") == scrolled
    page.focus(f"#chart-{name}")
    page.keyboard.press("0")
    assert chart.zoom == 1
    chart = Chart(page, name)
    scrolled = page.evaluate("scrollY")
    page.mouse.move(*chart.middle())
    page.mouse.wheel(0, -90)
    page.wait_for_timeout(150)
    assert chart.zoom == 1
    assert page.evaluate("scrollY") == scrolled - 90
    assert watched.complaints == []


@pytest.mark.parametrize("screen", SCREENS)
def test_keyboard__zooms_shows_the_whole_and_brings_the_chosen_cell_into_view(
    whole_page: str, watch: Watch, screen: str
) -> None:
    watched = watch(whole_page, viewport=SCREENS[screen])
    page = watched.open(EMBEDDED)
    for name in ZOOMED:
        chart = Chart(page, name)
        page.focus(f"#chart-{name}")

        for _ in range(8):
            page.keyboard.press("+")

        assert chart.zoom == 8
        page.keyboard.press("-")
        assert chart.zoom == pytest.approx(8 / 1.5)
        assert page.evaluate("document.documentElement.scrollWidth") == SCREENS[screen]["width"]
        page.keyboard.press("End")
        ring = page.locator(f"#chart-{name} .ring").bounding_box()
        frame = page.locator(f"#chart-{name} >> ..").bounding_box()
        assert ring["x"] < frame["x"] + frame["width"], name
        assert ring["y"] < frame["y"] + frame["height"], name
        assert 0 <= ring["y"] < SCREENS[screen]["height"], name
        page.keyboard.press("0")
        assert chart.zoom == 1
        # The browser's own zoom keeps its keys.
        page.keyboard.press("Control++")
        assert chart.zoom == 1
    assert watched.complaints == []


def test_mouse__drags_an_enlarged_chart_and_chooses_nothing_by_that(whole_page: str, watch: Watch) -> None:
    watched = watch(whole_page, viewport=SCREENS["wide"])
    page = watched.open(EMBEDDED)
    chart = Chart(page, "models")
    page.focus("#chart-models")
    for _ in range(8):
        page.keyboard.press("+")
    chart = Chart(page, "models")
    before, chosen, scrolled = chart.frame, watched.choice, page.evaluate("scrollY")
    x, y = 500.0, page.locator("#chart-models >> ..").bounding_box()["y"] + before["clientHeight"] / 2

    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 40, y - 25, steps=4)
    page.mouse.up()

    after = chart.frame
    assert (after["scrollLeft"] - before["scrollLeft"], after["scrollTop"] - before["scrollTop"]) == (40, 25)
    assert watched.choice == chosen
    assert page.evaluate("scrollY") == scrolled
    watched.do(lambda: page.mouse.click(x, y))
    assert watched.choice != chosen


def test_two_fingers__zoom_and_one_scrolls_the_page(whole_page: str, watch: Watch) -> None:
    watched = watch(whole_page, viewport=SCREENS["narrow"], has_touch=True, is_mobile=True)
    page = watched.open(EMBEDDED)
    chart = Chart(page, "models")
    x, y = chart.middle()
    before = chart.share(x, y)
    client = watched.context.new_cdp_session(page)

    def touch(kind: str, *apart: float) -> None:
        points = [{"x": x + at, "y": y, "id": n} for n, at in enumerate(apart)]
        client.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", -15, 15)
    for apart in (20, 25, 30):
        touch("touchMove", -apart, apart)
    touch("touchEnd")
    settle(page)

    assert chart.zoom == pytest.approx(2, rel=0.1)
    assert chart.share(x, y) == pytest.approx(before, abs=0.06)
    assert page.evaluate("visualViewport.scale") == pytest.approx(1, abs=0.01)
    assert page.evaluate("document.documentElement.scrollWidth") == SCREENS["narrow"]["width"]
    assert watched.complaints == []


def test_legend_and_zoom__outlast_another_width_of_the_window(whole_page: str, watch: Watch) -> None:
    watched = watch(whole_page, viewport=SCREENS["wide"])
    page = watched.open("#facet=seed")
    page.focus("#chart-zoo")
    page.keyboard.press("+")
    assert page.locator("#chart-zoo .legend li").count() == 4

    page.set_viewport_size(SCREENS["narrow"])
    page.wait_for_timeout(150)

    assert page.locator("#chart-zoo .legend li").count() == 4
    assert Chart(page, "zoo").zoom == 1.5


def test_buttons__zoom_too(whole_page: str, watch: Watch) -> None:
    page = watch(whole_page).open(EMBEDDED)
    chart = Chart(page, "zoo")

    page.click("button[aria-label='Make larger: Map of the models']")
    assert chart.zoom == 1.5
    page.click("button[aria-label='Make larger: Map of the models']")
    page.click("button[aria-label='Make smaller: Map of the models']")
    assert chart.zoom == 1.5
    page.click("button[aria-label='Show whole: Map of the models']")
    assert chart.zoom == 1
