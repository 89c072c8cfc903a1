"""The commands that work on a catalog: init, catalog, validate, layers, plan, run."""

import json
from contextlib import chdir
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from lfm_atlas.console import (
    DEFAULT_CATALOG,
    LIMIT_BROKEN,
    OK,
    SOME_FAILED,
    USAGE,
    CatalogPath,
    Scheduler,
    TrustCode,
    absolute_scheduler,
    check_folders_or_exit,
    load_catalog_or_exit,
    no_progress,
    override_scheduler_or_exit,
    print_err,
    print_out,
    progress,
    work_folder,
)

if TYPE_CHECKING:
    from lfm_atlas.pipeline import Outcome
    from lfm_tasks.catalog import Catalog
    from lfm_tasks.runtime.run import ProgressCallback, Scope
    from lfm_tasks.stages.inventory.stage import Zoo


def add_commands(app: App) -> None:
    """Add the commands of this module to ``app``."""
    for command in (init, validate, layers, plan, run):
        app.command(command)
    catalog = App(name="catalog", help="Show the catalog as it is understood, or the JSON schema for editors.")
    catalog.command(show_catalog, name="show")
    catalog.command(show_schema, name="schema")
    app.command(catalog)


def init(folder: Annotated[Path, Parameter(help="An empty folder, or one to make.")] = Path()) -> int:
    """Write a commented catalog and the small zoo that it describes: a running start."""
    from lfm_tasks.zoo import write_start

    try:
        write_start(folder)
    except FileExistsError as error:
        print_err(str(error))
        return USAGE
    print_out(f"wrote {folder / 'data_catalog.yaml'} and {folder / 'zoo'}; next: lfm-atlas run")
    return OK


def show_catalog(catalog_path: CatalogPath = DEFAULT_CATALOG) -> int:
    """Print the catalog with variables, defaults and discovered models worked in: a catalog itself."""
    from lfm_tasks.catalog.reading import catalog_yaml

    catalog = load_catalog_or_exit(catalog_path)
    for warning in catalog.warnings():
        print_err(warning)
    for refused in catalog.refused_models:
        print_err(f"{refused.name}: {refused.message} [refused_arrival]")
    print_out(catalog_yaml(catalog).rstrip())
    return OK


def show_schema() -> int:
    """Print the JSON schema of a catalog, for editors that complete and check while one writes."""
    from lfm_tasks.catalog import catalog_schema

    print_out(json.dumps(catalog_schema(), indent=1, ensure_ascii=False))
    return OK


def validate(
    catalog_path: CatalogPath = DEFAULT_CATALOG,
    *,
    deep: Annotated[bool, Parameter(help="Read all values too; of a network to run, one batch.", negative="")] = False,
    format: Annotated[Literal["text", "json"], Parameter(help="json: for programs, with --deep.")] = "text",
    trust_code: TrustCode = False,
) -> int:
    """Check the catalog and open every source; nothing is computed or written."""
    if format == "json" and not deep:
        print_err("found --format json without --deep, needs both: lfm-atlas validate --deep --format json")
        return USAGE
    catalog = load_catalog_or_exit(catalog_path, trust_code)
    check_folders_or_exit(catalog_path, catalog)
    for warning in catalog.warnings():
        print_err(warning)
    zoo = _open_zoo(catalog)
    if deep:
        return _validate_deeply(catalog, zoo, as_json=format == "json")
    for failure in zoo.failures:
        print_err(f"{failure.model}: {failure.message} [{failure.reason}]")
    counts = f"{len(catalog.models)} models, {zoo.n_chosen} spaces{_count_in_comparisons(catalog, zoo)}"
    print_out(f"{counts}, {len(zoo.failures)} cannot be used")
    return USAGE if zoo.failures else OK


def _open_zoo(catalog: "Catalog") -> "Zoo":
    from lfm_tasks.stages.inventory.stage import validate_catalog

    return validate_catalog(catalog, no_progress)


def _validate_deeply(catalog: "Catalog", zoo: "Zoo", *, as_json: bool) -> int:
    from lfm_tasks.stages.inventory.inspection import read_zoo, report_as_json, report_as_lines

    with progress() as report_progress:
        report = read_zoo(catalog, zoo, report_progress)
    if as_json:
        print_out(report_as_json(report))
        return USAGE if report.problems else OK
    for line in report_as_lines(report):
        print_out(line)
    for problem in report.problems:
        print_err(problem)
    counts = f"{len(catalog.models)} models, {len(report.spaces)} spaces read{_count_in_comparisons(catalog, zoo)}"
    print_out(f"{counts}, {len(report.problems)} problems")
    return USAGE if report.problems else OK


def _count_in_comparisons(catalog: "Catalog", zoo: "Zoo") -> str:
    return f", {len(zoo.spaces)} of them in comparisons" if catalog.comparisons else ""


def layers(
    model: Annotated[str, Parameter(help="A model of the catalog.")],
    catalog_path: CatalogPath = DEFAULT_CATALOG,
    *,
    format: Annotated[Literal["text", "json"], Parameter(help="json: for programs, a list of objects.")] = "text",
    trust_code: TrustCode = False,
) -> int:
    """List all layers of a model and the shape of one point in each, those that the catalog chooses marked."""
    from lfm_tasks.errors import DataError
    from lfm_tasks.stages.inventory.inspection import layers_as_json, layers_as_lines, list_layers

    try:
        listed = list_layers(load_catalog_or_exit(catalog_path, trust_code), model)
    except DataError as error:
        print_err(f"{error} [{error.reason}]")
        return USAGE
    print_out(layers_as_lines(listed) if format == "text" else layers_as_json(listed))
    return OK


def plan(catalog_path: CatalogPath = DEFAULT_CATALOG, *, trust_code: TrustCode = False) -> int:
    """Say what a run would compute, and what it would find done."""
    from lfm_tasks.planning import plan_run

    catalog = load_catalog_or_exit(catalog_path, trust_code)
    check_folders_or_exit(catalog_path, catalog)
    for line in plan_run(catalog, _open_zoo(catalog)):
        print_out(line)
    return OK


def run(
    catalog_path: CatalogPath = DEFAULT_CATALOG,
    *,
    prefect: Annotated[bool, Parameter(help="Orchestrate by Prefect; the numbers are the same without.")] = True,
    dask: Annotated[bool, Parameter(help="Work in Dask processes; --no-dask works in this one.")] = True,
    only: Annotated[list[str] | None, Parameter(help="Compute what touches models of this glob.", negative="")] = None,
    comparison: Annotated[list[str] | None, Parameter(help="Compute this comparison.", negative="")] = None,
    scheduler: Scheduler = "",
    trust_code: TrustCode = False,
) -> int:
    """Compute what is missing and publish the atlas: activations, graphs, bases, maps, scores, report."""
    catalog = override_scheduler_or_exit(load_catalog_or_exit(catalog_path, trust_code), scheduler)
    from lfm_tasks.runtime.run import Scope

    scope = Scope(tuple(only or ()), tuple(comparison or ()))
    if problems := scope.problems(catalog):
        for problem in problems:
            print_err(problem)
        return USAGE
    check_folders_or_exit(catalog_path, catalog, ("atlas", "path"), ("atlas", "store"))
    with progress() as report_progress:
        if prefect and dask:
            outcome = _run_with_prefect(catalog_path, catalog, scope, report_progress, scheduler)
        else:
            outcome = _run_directly(catalog, scope, report_progress, dask)
    return _print_outcome(outcome, catalog)


def _run_with_prefect(
    path: Path, catalog: "Catalog", scope: "Scope", report_progress: "ProgressCallback", scheduler: str
) -> "Outcome":
    from lfm_atlas.prefect_server import prefect_server, wait_until_ready
    from lfm_tasks.runtime.session import refuse_if_busy

    refuse_if_busy(catalog)
    path, scheduler = path.absolute(), absolute_scheduler(scheduler)
    with prefect_server(catalog.root / catalog.atlas.store / "prefect") as address:
        # Its import and the server's start take seconds each: side by side.
        from lfm_atlas.atlas import atlas_flow

        wait_until_ready(address)
        flow = atlas_flow(report_progress)
        return flow(str(path), catalog.trust.everything, list(scope.only), list(scope.comparisons), scheduler)


def _run_directly(catalog: "Catalog", scope: "Scope", report_progress: "ProgressCallback", dask: bool) -> "Outcome":
    from lfm_atlas.pipeline import build_atlas
    from lfm_tasks.runtime.session import open_run

    with (
        chdir(work_folder(catalog)),
        open_run(catalog, report_progress, in_process=not dask, scope=scope) as opened,
    ):
        return build_atlas(opened)


def _print_outcome(outcome: "Outcome", catalog: "Catalog") -> int:
    """Print what the run computed and what failed; return the exit code."""
    for damage in outcome.quarantined:
        print_err(f"found damage in the store, {damage}; it was put into quarantine, and made again if it was needed")
    for failure in outcome.failures:
        name = f"{failure.model}/{failure.layer}" if failure.layer else failure.model
        print_err(f"{name} ({failure.dataset}): {failure.message} [{failure.reason}]")
    for pairs in outcome.unscored:
        first = f"{pairs.source} and {pairs.target} first"
        print_err(f"{pairs.count} directed pairs have no score, {first}: {pairs.message} [{pairs.reason}]")
    if any(outcome.computed.values()):
        print_out(", ".join(f"{stage} {n} new, {outcome.reused[stage]} kept" for stage, n in outcome.computed.items()))
    else:
        print_out(f"nothing to compute{'' if outcome.unpublished else ': the atlas is up to date'}")
    counts = f"{outcome.n_spaces} spaces, {len(outcome.failures)} failed"
    code = SOME_FAILED if outcome.failures or outcome.unscored else OK
    if outcome.unpublished:
        print_out(f"{counts}; {outcome.unpublished}")
        return LIMIT_BROKEN if outcome.is_kept else code
    folder = catalog.root / catalog.atlas.path
    if folder.is_relative_to(Path.cwd()):
        folder = folder.relative_to(Path.cwd())
    print_out(f"{counts}; atlas: {folder}, page: {folder}/report.html")
    return code
