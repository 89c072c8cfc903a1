"""Draw dask.png and prefect.png: both interfaces during a run of the shipped zoo.

In a checkout, with the extras ``test`` and ``dashboard`` installed and Chromium on the PATH::

    python docs/images/draw_dashboards.py
"""

import base64
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

SIZE = {"width": 1200, "height": 700}
LFM_ATLAS = [sys.executable, "-m", "lfm_atlas"]
HERE = Path(__file__).parent


def found_in(log: Path, pattern: str) -> str:
    """Return what a pattern finds in the log of the run, as soon as it is there."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if found := re.search(pattern, log.read_text(encoding="utf-8")):
            return found[1]
        time.sleep(0.1)
    raise TimeoutError(f"{pattern}: {log.read_text(encoding='utf-8')}")


def draw_dask(page: Page, address: str, picture: Path) -> None:
    """Write the picture of the tasks of the workers."""
    page.goto(address)
    page.wait_for_timeout(5000)
    page.screenshot(path=picture)


def draw_prefect(page: Page, address: str, password: str, picture: Path) -> None:
    """Write the picture of the flow run that goes on."""
    page.goto(address)
    page.fill("input[type=password]", password)
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("dashboard"))
    credentials = base64.b64encode(password.encode()).decode()
    headers = {"Authorization": f"Basic {credentials}"}
    (run,) = page.request.post(f"{address}api/flow_runs/filter", data={}, headers=headers).json()
    page.goto(f"{address}v2/runs/flow-run/{run['id']}")
    page.get_by_role("tab", name="Task Runs").click()
    page.get_by_text("build-bases").first.wait_for()
    page.set_viewport_size({"width": 1200, "height": 1000})
    page.wait_for_timeout(1000)
    page.screenshot(path=picture)


def main() -> None:
    """Run the shipped zoo in a new folder, and draw what its addresses show meanwhile."""
    with tempfile.TemporaryDirectory() as parent, sync_playwright() as playwright:
        folder, log = Path(parent, "zoo"), Path(parent, "log")
        subprocess.run([*LFM_ATLAS, "init", str(folder)], check=True)  # noqa: S603 - our own interpreter
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE, color_scheme="light")
        with log.open("w", encoding="utf-8") as file:
            command = [*LFM_ATLAS, "run", "--dashboard", "--prefect-ui"]
            run = subprocess.Popen(command, cwd=folder, stderr=file)  # noqa: S603 - our own interpreter
        dask = found_in(log, r"Dask's dashboard.*: (http\S+)")
        prefect = found_in(log, r"Prefect's interface.*: (http[^;\s]+)")
        password = (folder / ".lfm-atlas/prefect/api_auth").read_text(encoding="ascii")
        found_in(log, "bases: (12)/")
        draw_dask(page, dask, HERE / "dask.png")
        draw_prefect(page, prefect, password, HERE / "prefect.png")
        browser.close()
        run.wait()


if __name__ == "__main__":
    main()
