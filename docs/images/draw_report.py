"""Draw report.png, the top of the shipped zoo's page.

In a checkout, with the extra ``test`` installed and Chromium on the PATH::

    lfm-atlas run && python docs/images/draw_report.py atlas/report.html
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

SIZE = {"width": 1200, "height": 1240}


def draw(page_file: Path, picture: Path) -> None:
    """Write the picture of a page as it opens."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE, color_scheme="light")
        page.goto(page_file.resolve().as_uri())
        page.wait_for_selector("html[data-ready]")
        page.screenshot(path=picture)
        browser.close()


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(__file__).with_name("report.png"))
