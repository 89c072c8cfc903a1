"""The Prefect flow: one run of the pipeline, a Prefect task a stage."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.exceptions import PrefectHTTPStatusError
from prefect.states import Failed

from lfm_atlas.console import print_err
from lfm_atlas.pipeline import Outcome, build_atlas
from lfm_tasks.catalog import on_scheduler, read_catalog
from lfm_tasks.errors import TooLargeError
from lfm_tasks.published.artifact import artifact_page, plain
from lfm_tasks.published.atlas import open_atlas
from lfm_tasks.runtime.run import ProgressCallback, Scope
from lfm_tasks.runtime.session import open_run


def artifact_key(atlas: Path) -> str:
    """Return the key of an atlas: the names of its folder, and what tells it from others of these names."""
    absolute = atlas.absolute()
    words = re.sub(r"[^a-z0-9]+", "-", f"{absolute.parent.name}-{absolute.name}".lower()).strip("-")[:40].strip("-")
    return f"lfm-atlas-{words}-{hashlib.sha256(str(absolute).encode()).hexdigest()[:8]}"


def write_artifact(atlas: Path, outcome: Outcome) -> None:
    """Make the artifact of a run; the server's refusal is said, and costs the run nothing."""
    computed = ", ".join(f"{stage} {n} new, {outcome.reused[stage]} kept" for stage, n in outcome.computed.items())
    lines = [f"{computed}."]
    if outcome.unpublished:
        lines.append(f"{plain(outcome.unpublished)}.")
    else:
        with open_atlas(atlas) as found:
            lines.append(artifact_page(found))
        lines.append(f"The page to look at: {plain(str(atlas / 'report.html'))}")
    try:
        create_markdown_artifact("\n\n".join(lines), key=artifact_key(atlas), description="What the atlas comes to")
    except PrefectHTTPStatusError as error:
        print_err(f"the Prefect server refused the artifact of this run ({error}); the atlas is published all the same")


# A stage is bounded, so that a hanging file system does not hold a nightly run for ever (seconds).
STAGE_TIMEOUT = 24 * 3600


def as_task(stage: Callable[..., Any], *, retries: int = 0) -> Callable[..., Any]:
    """Make a stage a Prefect task. The store knows what is done: Prefect caches and persists nothing."""

    def call(*arguments: Any) -> Any:
        named = task(
            name=stage.__name__.replace("_", "-"),
            description=stage.__doc__,
            retries=retries,
            retry_delay_seconds=10,
            timeout_seconds=STAGE_TIMEOUT,
            cache_policy=NO_CACHE,
            persist_result=False,
            log_prints=False,
        )
        # A task without parameters: Prefect looks through every one for futures, and through all that it holds, which
        # takes minutes where it is the scores of a thousand spaces.
        return named(lambda: stage(*arguments))()

    return call


def _no_progress(stage: str, done: int, total: int) -> None:
    """ProgressCallback nothing."""


def atlas_flow(announce: ProgressCallback = _no_progress) -> Callable[..., Any]:
    """Return the flow; progress goes to ``announce``, which is no parameter since parameters are stored as JSON."""

    @flow(name="atlas", flow_run_name="atlas of {catalog}", validate_parameters=True, persist_result=False)
    def build(
        catalog: str,
        trust_code: bool = False,
        only: list[str] | None = None,
        comparisons: list[str] | None = None,
        scheduler: str = "",
    ) -> Outcome | State[Any]:
        """Build the similarity atlas of a catalog.

        Args:
            catalog: Path of the data_catalog.yaml.
            trust_code: Run the factories that it names: they are code.
            only: Compute only what touches models that fit one of these globs; all, without any.
            comparisons: Compute only the comparisons of these names; all, without any.
            scheduler: Work there, and not where the catalog says: tcp://host:port, tls://host:port or a scheduler file.
        """
        settings = read_catalog(Path(catalog), trust_code=trust_code)
        if scheduler:
            settings = on_scheduler(settings, scheduler)
        scope = Scope(tuple(only or ()), tuple(comparisons or ()))
        if problems := scope.problems(settings):
            raise ValueError("; ".join(problems))
        with open_run(settings, announce, scope=scope) as run:
            try:
                outcome = build_atlas(run, as_stage=as_task)
            except TooLargeError as error:
                # Nothing went wrong on the way: no traceback, but a state that says it.
                return Failed(name="TooLarge", message=str(error), data=error)
            write_artifact(run.atlas_folder, outcome)
            return outcome

    return build
