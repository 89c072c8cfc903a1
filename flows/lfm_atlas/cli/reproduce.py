"""The command ``reproduce``: the paper's experiments on a catalog's models."""

from contextlib import chdir
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from lfm_atlas.console import (
    DEFAULT_CATALOG,
    EMPTY_FOLDER,
    OK,
    SOME_FAILED,
    USAGE,
    CatalogPath,
    TrustCode,
    load_catalog_or_exit,
    print_err,
    print_out,
    progress,
    work_folder,
)

if TYPE_CHECKING:
    from lfm_atlas.reproduce import Evidence
    from lfm_tasks.catalog import Catalog
    from lfm_tasks.runtime.run import ProgressCallback


def add_commands(app: App) -> None:
    """Add the command of this module to ``app``."""
    app.command(reproduce)


def reproduce(
    catalog_path: CatalogPath = DEFAULT_CATALOG,
    *,
    experiment: Annotated[list[str] | None, Parameter(help="Do this experiment; all without it.", negative="")] = None,
    output: Annotated[Path, Parameter(alias="-o", help="Folder to write into.")] = Path("evidence"),
    prefect: Annotated[bool, Parameter(help="Orchestrate by Prefect; the numbers are the same without.")] = True,
    dask: Annotated[bool, Parameter(help="Work in Dask processes; --no-dask works in this one.")] = True,
    trust_code: TrustCode = False,
) -> int:
    """Do the paper's experiments on the models of a catalog: tables, figures, and a page that says what holds."""
    from lfm_tasks.experiments.charts import require_matplotlib
    from lfm_tasks.experiments.stage import EXPERIMENTS

    try:
        # Matplotlib reads a matplotlibrc of the working directory when it is imported.
        with chdir(EMPTY_FOLDER):
            require_matplotlib()
    except ModuleNotFoundError as error:
        print_err(str(error))
        return USAGE
    names = list(dict.fromkeys(experiment or EXPERIMENTS))
    if unknown := [name for name in names if name not in EXPERIMENTS]:
        print_err(f"found no experiment {unknown[0][:100]!r}, needs one of {', '.join(EXPERIMENTS)}")
        return USAGE
    if output.exists() and not output.is_dir():
        print_err(f"{output}: found a file, needs a folder to write into: give another name")
        return USAGE
    catalog = load_catalog_or_exit(catalog_path, trust_code)
    with progress() as report_progress:
        if prefect and dask:
            evidence = _run_with_prefect(catalog_path.absolute(), catalog, output.absolute(), names, report_progress)
        else:
            evidence = _run_directly(catalog, output.absolute(), names, report_progress, dask)
    return _print_evidence(evidence, output)


def _run_directly(
    catalog: "Catalog", output: Path, names: list[str], report_progress: "ProgressCallback", dask: bool
) -> "Evidence":
    from lfm_atlas.reproduce import run_experiments
    from lfm_tasks.experiments.stage import experiment_store
    from lfm_tasks.runtime.session import open_run

    with (
        chdir(work_folder(catalog)),
        open_run(experiment_store(catalog, output), report_progress, in_process=not dask) as run,
    ):
        return run_experiments(run, names, output)


def _run_with_prefect(
    path: Path, catalog: "Catalog", output: Path, names: list[str], report_progress: "ProgressCallback"
) -> "Evidence":
    from lfm_atlas.prefect_server import prefect_server, wait_until_ready

    with prefect_server(output / "store" / "prefect") as address:
        from lfm_atlas.reproduce import reproduce_flow

        wait_until_ready(address)
        return reproduce_flow(report_progress)(str(path), str(output), names, catalog.trust.everything)


def _print_evidence(evidence: "Evidence", output: Path) -> int:
    """Print every claim with its result, and what was skipped; return the exit code."""
    from lfm_tasks.experiments.results import ExperimentResult, SkippedExperiment

    for failure in evidence.failures:
        print_err(f"{failure.model}/{failure.layer or '*'} ({failure.dataset}): {failure.message} [{failure.reason}]")
    skipped = [result for result in evidence.results if isinstance(result, SkippedExperiment)]
    for experiment in skipped:
        print_err(f"{experiment.name}: {experiment.message} [{experiment.reason}]")
    results = [result for result in evidence.results if isinstance(result, ExperimentResult)]
    for result in results:
        for claim in result.claims:
            print_out(f"{claim.status:<14} {result.name}: {claim.published}\n{'':<15}found: {claim.measured}")
    print_out(f"{len(results)} experiments, {len(skipped)} refused; page: {output / 'evidence.html'}")
    return SOME_FAILED if skipped or evidence.failures else OK
