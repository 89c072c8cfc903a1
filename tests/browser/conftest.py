"""A browser without a network, and pages under watch in it."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lfm_tasks.report import render_report
from tests.unit.report.conftest import made_atlas, with_sections  # noqa: F401 - fixtures


@pytest.fixture(scope="session")
def whole_page(made_atlas: Callable[..., Any], with_sections: Callable[..., Any]) -> str:  # noqa: F811
    """Give a page with every view: two datasets, of which the second has no sections; four spaces in the plane."""
    atlas, summary = made_atlas(4, 2, datasets=("probe", "other"))
    atlas, groups = with_sections(atlas, n_pairs=56)
    return render_report(atlas, summary, groups)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Give the system's Chromium with no name resolved; where there is none, the tests say that they were not run."""
    sync = pytest.importorskip("playwright.sync_api", reason="not run: Playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("not run: got no Chromium on the PATH")
    with sync.sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND"]
        opened = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield opened
        opened.close()


class Watched:
    """A page in the browser, and everything that it asked for or complained of."""

    def __init__(self, browser: Any, path: Path, **context: Any) -> None:
        self.context = browser.new_context(**context)
        self.page = self.context.new_page()
        self.address = path.as_uri()
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))

    charts = (
        "models", "nearest", "zoo", "layers", "chance", "functional", "distortion",
        "source-class", "source-distortion", "target-class", "target-distortion",
    )  # fmt: skip

    def open(self, choice: str = "") -> Any:
        self.page.goto(self.address + choice)
        self.page.wait_for_selector("html[data-ready]", timeout=60_000)
        return self.page

    def do(self, act: Callable[[], Any]) -> None:
        """Do something that changes the choice, and wait until the page has drawn it."""
        drawn = self.page.evaluate("document.documentElement.dataset.drawn")
        act()
        # The page allows no script but its own, so no function can be waited for.
        self.page.wait_for_selector(f"html:not([data-drawn='{drawn}'])")

    def cells(self, name: str) -> list[list[str]]:
        """Return the texts of a table, opened if it waits behind a summary."""
        self.page.evaluate(f"document.getElementById('table-{name}').closest('details')?.setAttribute('open', '')")
        self.page.wait_for_selector(f"#table-{name} table")
        return [row.locator("th, td").all_inner_texts() for row in self.page.locator(f"#table-{name} tbody tr").all()]

    @property
    def choice(self) -> dict[str, str]:
        """The choice in the address."""
        found: dict[str, str] = self.page.evaluate("Object.fromEntries(new URLSearchParams(location.hash.slice(1)))")
        return found


@pytest.fixture
def watch(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Watched]]:
    """Open a page, given as HTML, under watch."""
    opened: list[Watched] = []

    def start(html: str, **context: Any) -> Watched:
        path = tmp_path / f"report{len(opened)}.html"
        path.write_text(html, encoding="utf-8")
        opened.append(Watched(browser, path, **context))
        return opened[-1]

    yield start
    for watched in opened:
        watched.context.close()
