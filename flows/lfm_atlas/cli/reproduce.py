"""The command ``reproduce``: the paper's experiments on a catalog's models."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from lfm_atlas.console import (
    DEFAULT_CATALOG,
    OK,
    SOME_FAILED,
    USAGE,
    CatalogPath,
    TrustCode,
    load_catalog_or_exit,
    print_err,
    print_out,
)

if TYPE_CHECKING:
    from lfm_atlas.reproduce import Evidence
    from lfm_tasks.catalog import Catalog
    from lfm_tasks.runtime.run import ProgressCallback


def add_reproduce_command(app: App) -> None:
    """Add the command to an application."""
    app.command(reproduce)


def reproduce(
    catalog: CatalogPath = DEFAULT_CATALOG,
    *,
    experiment: Annotated[list[str] | None, Parameter(help="Do this experiment; all without it.", negative="")] = None,
    output: Annotated[Path, Parameter(alias="-o", help="Folder to write into.")] = Path("evidence"),
    prefect: Annotated[bool, Parameter(help="Orchestrate by Prefect; the numbers are the same without.")] = True,
    dask: Annotated[bool, Parameter(help="Work in Dask processes; --no-dask works in this one.")] = True,
    trust_code: TrustCode = False,
) -> int:
    """Do the paper's experiments on the models of a catalog: tables, figures, and a page that says what holds."""
    from lfm_tasks.experiments.stage import EXPERIMENTS

    names = list(dict.fromkeys(experiment or EXPERIMENTS))
    if unknown := [name for name in names if name not in EXPERIMENTS]:
        print_err(f"found no experiment {unknown[0][:100]!r}, needs one of {', '.join(EXPERIMENTS)}")
        return USAGE
    if output.exists() and not output.is_dir():
        print_err(f"{output}: found a file, needs a folder to write into: give another name")
        return USAGE
    settings = load_catalog_or_exit(catalog, trust_code)
    from lfm_atlas.console import progress

    with progress() as announce:
        if prefect and dask:
            evidence = _with_prefect(catalog, settings, output, names, announce)
        else:
            evidence = _directly(settings, output, names, announce, dask)
    return _say(evidence, output)


def _directly(
    catalog: "Catalog", output: Path, names: list[str], announce: "ProgressCallback", dask: bool
) -> "Evidence":
    from lfm_atlas.reproduce import reproduce as do
    from lfm_tasks.experiments.stage import experiment_store
    from lfm_tasks.runtime.session import open_run

    with open_run(experiment_store(catalog, output), announce, in_process=not dask) as run:
        return do(run, names, output)


def _with_prefect(
    path: Path, catalog: "Catalog", output: Path, names: list[str], announce: "ProgressCallback"
) -> "Evidence":
    from lfm_atlas.prefect_server import prefect_server, wait_until_ready

    with prefect_server(output.absolute() / "store" / "prefect") as address:
        from lfm_atlas.reproduce import reproduce_flow

        wait_until_ready(address)
        return reproduce_flow(announce)(str(path), str(output), names, catalog.trust.everything)


def _say(evidence: "Evidence", output: Path) -> int:
    from lfm_tasks.experiments.results import ExperimentResult, SkippedExperiment

    for failure in evidence.failures:
        print_err(f"{failure.model}/{failure.layer or '*'} ({failure.dataset}): {failure.message} [{failure.reason}]")
    refused = [one for one in evidence.found if isinstance(one, SkippedExperiment)]
    for one in refused:
        print_err(f"{one.name}: {one.message} [{one.reason}]")
    findings = [one for one in evidence.found if isinstance(one, ExperimentResult)]
    for finding in findings:
        for claim in finding.claims:
            print_out(f"{claim.verdict:<14} {finding.name}: {claim.published}\n{'':<15}found: {claim.found}")
    print_out(f"{len(findings)} experiments, {len(refused)} refused; page: {output / 'evidence.html'}")
    return SOME_FAILED if refused or evidence.failures else OK
