"""The page that a run leaves in Prefect: verdicts and a thumbnail, under one key for each atlas."""

import hashlib
import re
from pathlib import Path

from prefect.artifacts import create_markdown_artifact
from prefect.exceptions import PrefectHTTPStatusError

from flows.console import complain
from flows.pipeline import Outcome
from lfm_tasks.published.opening import open_atlas
from lfm_tasks.published.verdicts import plain, verdict_page


def artifact_key(atlas: Path) -> str:
    """Return the key of an atlas: the names of its folder, and what tells it from others of these names."""
    absolute = atlas.absolute()
    words = re.sub(r"[^a-z0-9]+", "-", f"{absolute.parent.name}-{absolute.name}".lower()).strip("-")[:40].strip("-")
    return f"lfm-atlas-{words}-{hashlib.sha256(str(absolute).encode()).hexdigest()[:8]}"


def leave_artifact(atlas: Path, outcome: Outcome) -> None:
    """Make the artifact of a run; the server's refusal is said, and costs the run nothing."""
    computed = ", ".join(f"{stage} {n} new, {outcome.reused[stage]} kept" for stage, n in outcome.computed.items())
    lines = [f"{computed}."]
    if outcome.unpublished:
        lines.append(f"{plain(outcome.unpublished)}.")
    else:
        with open_atlas(atlas) as found:
            lines.append(verdict_page(found))
        lines.append(f"The page to look at: {plain(str(atlas / 'report.html'))}")
    try:
        create_markdown_artifact("\n\n".join(lines), key=artifact_key(atlas), description="What the atlas comes to")
    except PrefectHTTPStatusError as error:
        complain(f"the Prefect server refused the artifact of this run ({error}); the atlas is published all the same")
