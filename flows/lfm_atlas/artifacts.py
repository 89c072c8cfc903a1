"""Artifacts of flow runs in Prefect's interface: a page, a table, a link, and the progress of each stage."""

import hashlib
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.exceptions import PrefectHTTPStatusError

from lfm_atlas.console import print_err
from lfm_atlas.pipeline import Outcome
from lfm_tasks.published.artifact import artifact_page, escape_markdown, nearest_rows
from lfm_tasks.published.atlas import open_atlas
from lfm_tasks.runtime.run import ProgressCallback
from lfm_tasks.variables import NOTHING_HIDDEN, HiddenValues


def run_name(what: str, catalog: str, now: datetime | None = None) -> str:
    """Return the name of a flow run: the folder of its catalog, and when it starts.

    Examples
    --------
    >>> run_name("audit", "/data/zoo/data_catalog.yaml", datetime(2026, 1, 31, 2, 17, tzinfo=UTC))
    'audit of zoo, 2026-01-31 02:17 UTC'
    """
    started = datetime.now(UTC) if now is None else now
    return f"{what} of {Path(catalog).absolute().parent.name or catalog}, {started:%Y-%m-%d %H:%M} UTC"


def artifact_key(atlas_folder: Path, hidden: HiddenValues = NOTHING_HIDDEN) -> str:
    """Return the key of the artifact of an atlas: the names of its folder, and a digest of its path."""
    absolute = atlas_folder.absolute()
    shown = Path(hidden(str(absolute)))
    words = re.sub(r"[^a-z0-9]+", "-", f"{shown.parent.name}-{shown.name}".lower()).strip("-")[:40].strip("-")
    return f"lfm-atlas-{words}-{hashlib.sha256(str(absolute).encode()).hexdigest()[:8]}"


def write_artifacts(atlas_folder: Path, outcome: Outcome, hidden: HiddenValues = NOTHING_HIDDEN) -> None:
    """Create the artifacts of a run; if the server refuses them, print that: the atlas is published all the same.

    The page of checks and of models by models; with ``-nearest`` after its key the nearest model of each as a table,
    with ``-report`` the link to the report.
    """
    key, report = artifact_key(atlas_folder, hidden), (atlas_folder / "report.html").absolute()
    computed = ", ".join(f"{stage} {n} new, {outcome.reused[stage]} kept" for stage, n in outcome.computed.items())
    lines = [f"{computed}."]
    rows: list[dict[str, Any]] = []
    if outcome.unpublished:
        lines.append(f"{escape_markdown(outcome.unpublished)}.")
    else:
        with open_atlas(atlas_folder) as published:
            lines.append(artifact_page(published))
            rows = nearest_rows(published)
        lines.append(f"The page to look at: {escape_markdown(hidden(str(report)))}")
    with _unless_refused():
        create_markdown_artifact("\n\n".join(lines), key=key, description="What the atlas comes to")
        if rows:
            create_table_artifact(rows, key=f"{key}-nearest", description="The model that is nearest to each")
        if not outcome.unpublished:
            write_link(report, f"{key}-report", "The report, on the machine of the run", hidden)


def write_link(page: Path, key: str, description: str, hidden: HiddenValues = NOTHING_HIDDEN) -> None:
    """Create a link to a page on the machine of the run."""
    create_link_artifact(hidden(page.absolute().as_uri()), link_text=page.name, key=key, description=description)


def write_checks(rows: list[Mapping[str, Any]], key: str, description: str) -> None:
    """Create the table of the checks of an audit."""
    create_table_artifact([dict(row) for row in rows], key=key, description=description)


@contextmanager
def _unless_refused() -> Iterator[None]:
    try:
        yield
    except PrefectHTTPStatusError as error:
        print_err(f"the Prefect server refused the artifact of this run ({error}); the atlas is published all the same")


# Seconds between two updates of a bar: each is a request to the server.
_UPDATE_SECONDS = 2.0


class StageProgress:
    """A progress callback that has a bar for each stage that takes time in Prefect's interface, too.

    The first refusal of the server ends the bars, not the run.
    """

    def __init__(self, report_progress: ProgressCallback) -> None:
        self._report = report_progress
        self._bars: dict[str, UUID] = {}
        self._updated: dict[str, float] = {}
        self._is_refused = False

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Report that ``done`` of ``total`` jobs of a stage are done."""
        self._report(stage, done, total)
        is_over, now = done >= total, time.monotonic()
        # Of a stage with nothing to do there is no bar.
        is_due = not is_over if stage not in self._bars else is_over or now - self._updated[stage] > _UPDATE_SECONDS
        if self._is_refused or not is_due:
            return
        percent, words = 100.0 * done / total, f"{stage}: {done} of {total}"
        try:
            if stage in self._bars:
                update_progress_artifact(self._bars[stage], percent, description=words)
            else:
                created: Any = create_progress_artifact(percent, description=words)
                self._bars[stage] = created
        except (PrefectHTTPStatusError, RuntimeError) as error:
            self._is_refused = True
            print_err(f"the Prefect server refused a bar of this run ({error}); the run goes on without")
        self._updated[stage] = now
