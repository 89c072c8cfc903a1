"""The command ``reproduce``: the paper's experiments on a catalog's models."""

from contextlib import chdir
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from lfm_atlas.console import (
    DEFAULT_CATALOG,
    OK,
    SOME_FAILED,
    USAGE,
    CatalogPath,
    Force,
    TrustCode,
    announce_start,
    exit_if_refused,
    load_catalog_or_exit,
    print_err,
    print_out,
    progress,
    work_folder,
)
from lfm_tasks.errors import number_of

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
    experiment: Annotated[
        list[str] | None,
        Parameter(help="Run this experiment; repeatable. Default: all experiments of the paper.", negative=""),
    ] = None,
    output: Annotated[Path, Parameter(alias="-o", help="Folder to write into.")] = Path("evidence"),
    prefect: Annotated[bool, Parameter(help="Orchestrate by Prefect; --no-prefect gives the same result.")] = True,
    dask: Annotated[bool, Parameter(help="Run tasks in Dask worker processes; --no-dask: in this process.")] = True,
    force: Force = False,
    trust_code: TrustCode = False,
) -> int:
    """Repeat the paper's experiments on the models of a catalog, and check its claims."""
    announce_start("the experiments")
    from lfm_tasks.experiments.charts import require_matplotlib
    from lfm_tasks.experiments.stage import EXPERIMENTS, PAPER_EXPERIMENTS, check_evidence_folder

    try:
        require_matplotlib()
    except ModuleNotFoundError as error:
        print_err(str(error))
        return USAGE
    names = list(dict.fromkeys(experiment or PAPER_EXPERIMENTS))
    if unknown := [name for name in names if name not in EXPERIMENTS]:
        print_err(f"got no experiment {unknown[0][:100]!r}, expected one of {', '.join(EXPERIMENTS)}")
        return USAGE
    catalog = load_catalog_or_exit(catalog_path, trust_code)
    with exit_if_refused():
        check_evidence_folder(catalog, output, force=force)
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
    from lfm_atlas.prefect_access import find_user_server, import_prefect
    from lfm_atlas.prefect_server import prefect_server, wait_until_ready
    from lfm_tasks.experiments.stage import experiment_store
    from lfm_tasks.runtime.folders import prepare_store

    prepare_store(experiment_store(catalog, output))
    with_user_server = find_user_server()
    with prefect_server(output / "store" / "prefect") as address:
        import_prefect(with_user_server=with_user_server)
        from lfm_atlas.reproduce import reproduce_flow

        if not with_user_server:
            wait_until_ready(address)
        return reproduce_flow(report_progress)(str(path), str(output), names, catalog.trust.everything)


def _print_evidence(evidence: "Evidence", output: Path) -> int:
    """Print every claim with its result, and what was skipped; return the exit code."""
    from lfm_tasks.experiments.results import ExperimentResult, SkippedExperiment
    from lfm_tasks.runtime.folding import fold_failures

    for folded in fold_failures(evidence.failures):
        print_err(folded.line(with_dataset=True))
    skipped = [result for result in evidence.results if isinstance(result, SkippedExperiment)]
    for experiment in skipped:
        print_err(f"{experiment.name}: {experiment.message} [{experiment.reason}]")
    results = [result for result in evidence.results if isinstance(result, ExperimentResult)]
    for result in results:
        for claim in result.claims:
            print_out(f"{claim.status:<14} {result.name}: {claim.published}\n{'':<15}found: {claim.measured}")
    print_out(f"{number_of(len(results), 'experiment')}, {len(skipped)} refused; page: {output / 'evidence.html'}")
    return SOME_FAILED if skipped or evidence.failures else OK
