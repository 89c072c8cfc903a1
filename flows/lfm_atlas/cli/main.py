"""The command line: ``lfm-atlas``."""

import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

from cyclopts import App, Parameter

from lfm_atlas.cli.atlas import add_atlas_commands, opened
from lfm_atlas.cli.audit import add_audit_commands
from lfm_atlas.cli.maps import add_map_commands
from lfm_atlas.cli.reproduce import add_reproduce_command
from lfm_atlas.console import (
    CRASH,
    DEFAULT_CATALOG,
    OK,
    SOME_FAILED,
    USAGE,
    CatalogPath,
    Scheduler,
    TrustCode,
    format_os_error,
    is_file_to_write,
    load_catalog_or_exit,
    override_scheduler_or_exit,
    print_err,
    print_out,
    stop_on_signals,
)
from lfm_tasks import __version__
from lfm_tasks.errors import TooLargeError

if TYPE_CHECKING:
    from lfm_atlas.pipeline import Outcome
    from lfm_tasks.catalog import Catalog
    from lfm_tasks.runtime.run import ProgressCallback, Scope
    from lfm_tasks.stages.inventory.stage import Zoo


catalog_app = App(name="catalog", help="Show the catalog as it is understood, or the JSON schema for editors.")


@catalog_app.command
def show(catalog: CatalogPath = DEFAULT_CATALOG) -> int:
    """Print the catalog with variables, defaults and discovered models worked in: a catalog itself."""
    from lfm_tasks.catalog.writing import catalog_yaml

    settings = load_catalog_or_exit(catalog)
    for warning in settings.warnings():
        print_err(warning)
    for refused in settings.refused:
        print_err(f"{refused.found}: {refused.message} [refused_arrival]")
    print_out(catalog_yaml(settings).rstrip())
    return OK


@catalog_app.command
def schema() -> int:
    """Print the JSON schema of a catalog, for editors that complete and check while one writes."""
    from lfm_tasks.catalog import catalog_schema

    print_out(json.dumps(catalog_schema(), indent=1, ensure_ascii=False))
    return OK


app = App(
    name="lfm-atlas",
    version=__version__,
    help="""Which representations of a model zoo are alike? Writes a similarity atlas of all (model, layer) spaces.

    Start with `lfm-atlas init` in an empty folder, then `lfm-atlas run`, then open atlas/report.html.

    Exit codes: 0 done, 1 crash, 2 usage or bad catalog, 3 an audit limit is broken, 4 done but some spaces failed,
    130 or 143 stopped by SIGINT or SIGTERM.""",
    suppress_keyboard_interrupt=False,  # main tells it
)
app.command(catalog_app)
add_atlas_commands(app)
add_audit_commands(app)
add_map_commands(app)
add_reproduce_command(app)


@app.command
def run(
    catalog: CatalogPath = DEFAULT_CATALOG,
    *,
    prefect: Annotated[bool, Parameter(help="Orchestrate by Prefect; the numbers are the same without.")] = True,
    dask: Annotated[bool, Parameter(help="Work in Dask processes; --no-dask works in this one.")] = True,
    only: Annotated[list[str] | None, Parameter(help="Compute what touches models of this glob.", negative="")] = None,
    comparison: Annotated[list[str] | None, Parameter(help="Compute this comparison.", negative="")] = None,
    scheduler: Scheduler = "",
    trust_code: TrustCode = False,
) -> int:
    """Compute what is missing and publish the atlas: activations, graphs, bases, maps, scores, report."""
    settings = override_scheduler_or_exit(load_catalog_or_exit(catalog, trust_code), scheduler)
    from lfm_atlas.console import progress
    from lfm_tasks.runtime.run import Scope

    scope = Scope(tuple(only or ()), tuple(comparison or ()))
    if problems := scope.problems(settings):
        for problem in problems:
            print_err(problem)
        return USAGE
    with progress() as announce:
        if prefect and dask:
            outcome = _run_with_prefect(catalog, settings, scope, announce, scheduler)
        else:
            outcome = _run(settings, scope, announce, dask)
    return _say(outcome, settings)


@app.command
def validate(
    catalog: CatalogPath = DEFAULT_CATALOG,
    *,
    deep: Annotated[bool, Parameter(help="Read all values too; of a network to run, one batch.", negative="")] = False,
    format: Annotated[Literal["text", "json"], Parameter(help="json: for programs, with --deep.")] = "text",
    trust_code: TrustCode = False,
) -> int:
    """Check the catalog and open every source; nothing is computed or written."""
    if format == "json" and not deep:
        print_err("found --format json without --deep, needs both: lfm-atlas validate --deep --format json")
        return USAGE
    settings = load_catalog_or_exit(catalog, trust_code)
    for warning in settings.warnings():
        print_err(warning)
    zoo = _zoo(settings)
    if deep:
        return _validate_deeply(settings, zoo, format == "json")
    for failure in zoo.failures:
        print_err(f"{failure.model}: {failure.message} [{failure.reason}]")
    counts = f"{len(settings.models)} models, {zoo.n_chosen} spaces{_in_comparisons(settings, zoo)}"
    print_out(f"{counts}, {len(zoo.failures)} cannot be used")
    return USAGE if zoo.failures else OK


@app.command
def plan(catalog: CatalogPath = DEFAULT_CATALOG, *, trust_code: TrustCode = False) -> int:
    """Say what a run would compute, and what it would find done."""
    from lfm_tasks.planning import plan_run

    settings = load_catalog_or_exit(catalog, trust_code)
    for line in plan_run(settings, _zoo(settings)):
        print_out(line)
    return OK


@app.command
def layers(
    catalog: CatalogPath,
    model: Annotated[str, Parameter(help="A model of the catalog.")],
    *,
    format: Annotated[Literal["text", "json"], Parameter(help="json: for programs, a list of objects.")] = "text",
    trust_code: TrustCode = False,
) -> int:
    """List all layers of a model and the shape of one point in each, those that the catalog chooses marked."""
    from lfm_tasks.errors import DataError
    from lfm_tasks.stages.inventory.inspection import layers_as_json, layers_as_lines, list_layers

    try:
        listed = list_layers(load_catalog_or_exit(catalog, trust_code), model)
    except DataError as error:
        print_err(f"{error} [{error.reason}]")
        return USAGE
    print_out(layers_as_lines(listed) if format == "text" else layers_as_json(listed))
    return OK


@app.command
def report(
    atlas: Annotated[Path, Parameter(help="Folder of a published atlas.")] = Path("atlas"),
    *,
    output: Annotated[Path, Parameter(alias="-o", help="File to write.")] = Path("report.html"),
) -> int:
    """Draw the report of a published atlas once more."""
    from lfm_tasks.report import render_report
    from lfm_tasks.stores.atlas.files import read_groups
    from lfm_tasks.stores.units.durable import atomic_write

    if not is_file_to_write(output):
        return USAGE
    with opened(atlas) as found:
        page = render_report(found.scores.load(), dict(found.summary), read_groups(atlas, found.manifest))
    atomic_write(output, page.encode())
    print_out(f"wrote {output}")
    return OK


@app.command
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


def main() -> NoReturn:
    """Run the command and leave with its exit code."""
    stop_on_signals()
    try:
        result = app(result_action="return_value")
        code = result if isinstance(result, int) else OK
    except KeyboardInterrupt:
        print_err("stopped; what was finished is kept, the next run goes on from there")
        code = 128 + signal.SIGINT
    except TooLargeError as error:
        print_err(str(error))
        code = USAGE
    except (OSError, RuntimeError) as error:
        # Full disk, a busy store: the message says it, a traceback would hide it.
        print_err(format_os_error(error))
        code = CRASH
    sys.stdout.flush()
    sys.exit(code)


def _zoo(catalog: "Catalog") -> "Zoo":
    from lfm_atlas.console import no_progress
    from lfm_tasks.stages.inventory.stage import validate_catalog

    return validate_catalog(catalog, no_progress)


def _validate_deeply(catalog: "Catalog", zoo: "Zoo", json: bool) -> int:
    from lfm_atlas.console import progress
    from lfm_tasks.stages.inventory.inspection import read_zoo, report_as_json, report_as_lines

    with progress() as announce:
        report = read_zoo(catalog, zoo, announce)
    if json:
        print_out(report_as_json(report))
        return USAGE if report.problems else OK
    for line in report_as_lines(report):
        print_out(line)
    for problem in report.problems:
        print_err(problem)
    counts = f"{len(catalog.models)} models, {len(report.spaces)} spaces read{_in_comparisons(catalog, zoo)}"
    print_out(f"{counts}, {len(report.problems)} problems")
    return USAGE if report.problems else OK


def _in_comparisons(catalog: "Catalog", zoo: "Zoo") -> str:
    return f", {len(zoo.spaces)} of them in comparisons" if catalog.comparisons else ""


def _run(catalog: "Catalog", scope: "Scope", announce: "ProgressCallback", dask: bool) -> "Outcome":
    from lfm_atlas.pipeline import build_atlas
    from lfm_tasks.runtime.session import open_run

    with open_run(catalog, announce, in_process=not dask, scope=scope) as opened:
        return build_atlas(opened)


def _run_with_prefect(
    path: Path, catalog: "Catalog", scope: "Scope", announce: "ProgressCallback", scheduler: str
) -> "Outcome":
    from lfm_atlas.prefect_server import prefect_server, wait_until_ready
    from lfm_tasks.runtime.session import refuse_if_busy

    refuse_if_busy(catalog)
    with prefect_server(catalog.root / catalog.atlas.store / "prefect") as address:
        # Its import and the server's start take seconds each: side by side.
        from lfm_atlas.atlas import atlas_flow

        wait_until_ready(address)
        build = atlas_flow(announce)
        return build(str(path), catalog.trust.everything, list(scope.only), list(scope.comparisons), scheduler)


def _say(outcome: "Outcome", catalog: "Catalog") -> int:
    for damage in outcome.put_aside:
        print_err(f"found damage in the store, {damage}; it was put into quarantine, and made again if it was needed")
    for failure in outcome.failures:
        name = f"{failure.model}/{failure.layer}" if failure.layer else failure.model
        print_err(f"{name} ({failure.dataset}): {failure.message} [{failure.reason}]")
    for pairs in outcome.refused:
        first = f"{pairs.source} and {pairs.target} first"
        print_err(f"{pairs.count} directed pairs have no score, {first}: {pairs.message} [{pairs.reason}]")
    if any(outcome.computed.values()):
        print_out(", ".join(f"{stage} {n} new, {outcome.reused[stage]} kept" for stage, n in outcome.computed.items()))
    else:
        print_out(f"nothing to compute{'' if outcome.unpublished else ': the atlas is up to date'}")
    counts = f"{outcome.n_spaces} spaces, {len(outcome.failures)} failed"
    code = SOME_FAILED if outcome.failures or outcome.refused else OK
    if outcome.unpublished:
        print_out(f"{counts}; {outcome.unpublished}")
        return code
    folder = catalog.root / catalog.atlas.path
    if folder.is_relative_to(Path.cwd()):
        folder = folder.relative_to(Path.cwd())
    print_out(f"{counts}; atlas: {folder}, page: {folder}/report.html")
    return code
