"""The Prefect flow of a run: the pipeline with a Prefect task for each stage, and the artifacts that it leaves."""

from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Failed

from lfm_atlas.artifacts import StageProgress, run_name, write_artifacts
from lfm_atlas.console import no_progress, work_folder
from lfm_atlas.pipeline import Outcome, build_atlas
from lfm_tasks.catalog import Catalog, on_scheduler, read_catalog
from lfm_tasks.errors import TooLargeError
from lfm_tasks.runtime.run import ProgressCallback, Scope
from lfm_tasks.runtime.session import open_run
from lfm_tasks.variables import hiding_values

# Seconds; a stage has a limit so that a hanging file system does not hold a nightly run for ever.
STAGE_TIMEOUT = 24 * 3600


def as_task(stage: Callable[..., Any], *, retries: int = 0) -> Callable[..., Any]:
    """Return a stage as a Prefect task. The store knows what is done: Prefect caches and persists nothing."""

    def call(*arguments: Any) -> Any:
        name = stage.__name__.replace("_", "-")
        prefect_task = task(
            name=name,
            task_run_name=name,  # Prefect's own has a digest after it
            description=stage.__doc__,
            retries=retries,
            retry_delay_seconds=10,
            timeout_seconds=STAGE_TIMEOUT,
            cache_policy=NO_CACHE,
            persist_result=False,
            log_prints=False,
        )
        # The task has no parameters: Prefect searches each for futures, with all that it holds, which takes minutes
        # for the scores of a thousand spaces.
        run = getattr(arguments[0], "run", arguments[0])

        def call_stage() -> Any:
            # Prefect records the error of a task.
            with hiding_values(run.catalog.hidden):
                return stage(*arguments)

        return prefect_task(call_stage)()

    return call


def atlas_flow(
    report_progress: ProgressCallback = no_progress, announce: Callable[[str], None] | None = None
) -> Callable[..., Any]:
    """Return the flow of a run.

    ``report_progress`` and ``announce`` (see `open_run`) are no parameters of the flow: Prefect stores those as JSON.
    """

    def name() -> str:
        return run_name("atlas", str(flow_run.parameters["catalog"]))

    @flow(name="atlas", flow_run_name=name, validate_parameters=True, persist_result=False)
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
        zoo_catalog = read_catalog_for_flow(catalog, trust_code=trust_code, scheduler=scheduler)
        scope = Scope(tuple(only or ()), tuple(comparisons or ()))
        if problems := scope.problems(zoo_catalog):
            raise ValueError("; ".join(problems))
        progress = StageProgress(report_progress)
        with chdir(work_folder(zoo_catalog)), open_run(zoo_catalog, progress, scope=scope, announce=announce) as run:
            try:
                outcome = build_atlas(run, as_stage=as_task)
            except TooLargeError as error:
                # A refusal, not a crash: the state carries the message, and there is no traceback.
                return Failed(name="TooLarge", message=str(error), data=error)
            write_artifacts(run.atlas_folder, outcome, zoo_catalog.hidden)
            return outcome

    return build


def read_catalog_for_flow(path: str, *, trust_code: bool, scheduler: str) -> Catalog:
    """Return the catalog at ``path``, with ``scheduler`` in place of its cluster unless that is empty."""
    catalog = read_catalog(Path(path), trust_code=trust_code)
    return on_scheduler(catalog, scheduler) if scheduler else catalog
