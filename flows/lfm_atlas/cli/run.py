"""The commands that work on a catalog: init, catalog, validate, layers, plan, run."""

import json
from collections.abc import Callable
from contextlib import chdir
from dataclasses import dataclass
from importlib.util import find_spec
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
    announce_dashboard,
    announce_start,
    as_json,
    check_folders_or_exit,
    exit_if_refused,
    load_catalog_as_far_as_possible,
    load_catalog_or_exit,
    no_progress,
    override_scheduler_or_exit,
    print_err,
    print_out,
    progress,
    shown,
    warn_of_read_only_folders,
    work_folder,
)
from lfm_tasks.errors import number_of

if TYPE_CHECKING:
    from lfm_atlas.pipeline import Outcome
    from lfm_tasks.catalog import Catalog
    from lfm_tasks.runtime.run import ProgressCallback, Scope
    from lfm_tasks.stages.inventory.stage import Zoo


def add_commands(app: App) -> None:
    """Add the commands of this module to ``app``."""
    for command in (init, validate, layers, plan, run):
        app.command(command)
    catalog = App(name="catalog", help="Show the catalog with all defaults, or its JSON schema for editors.")
    catalog.command(show_catalog, name="show")
    catalog.command(show_schema, name="schema")
    app.command(catalog)


def init(
    folder: Annotated[
        Path, Parameter(help="Folder for the catalog; created if missing. It must not hold a catalog.")
    ] = Path(),
    *,
    from_: Annotated[
        Path | None,
        Parameter(name="--from", help="A folder of checkpoints, or a glob of activation files, to describe."),
    ] = None,
    data: Annotated[
        list[Path] | None, Parameter(help="With --from: a file of texts or a folder of images.", negative="")
    ] = None,
) -> int:
    """Write a commented catalog: for the shipped zoo, or for your own files (--from)."""
    if from_ is not None:
        return _draft(from_, folder, data or [])
    if data:
        print_err("got --data without --from, expected both: lfm-atlas init --from zoo --data texts.jsonl")
        return USAGE
    from lfm_tasks.zoo import write_start

    with exit_if_refused():
        write_start(folder)
    print_out(f"wrote {folder / 'data_catalog.yaml'} and {folder / 'zoo'}; next: lfm-atlas run")
    return OK


def _draft(zoo: Path, folder: Path, data: "list[Path]") -> int:
    from lfm_tasks.drafting import CATALOG, draft_catalog
    from lfm_tasks.errors import DataError
    from lfm_tasks.stores.outputs import check_output_folder
    from lfm_tasks.stores.units.durable import atomic_write, make_folder

    with exit_if_refused():
        check_output_folder(folder, (CATALOG,), hint="Choose another folder")
        if absent := [path for path in data if not path.exists()]:
            print_err(f"{absent[0]}: got no such file, expected texts or images. Check the path")
            return USAGE
        try:
            draft = draft_catalog(zoo, folder, data)
        except DataError as error:
            print_err(f"{error} [{error.reason}]")
            return USAGE
        make_folder(folder)
        atomic_write(folder / CATALOG, draft.text.encode())
    for remark in draft.remarks:
        print_err(remark)
    print_out(f"wrote {folder / CATALOG}; next: look it through, then lfm-atlas validate")
    return OK


def show_catalog(catalog_path: CatalogPath = DEFAULT_CATALOG) -> int:
    """Print the catalog with variables, defaults and discovered models filled in; the output is a valid catalog."""
    from lfm_tasks.catalog.reading import catalog_yaml
    from lfm_tasks.runtime.folding import fold_failures
    from lfm_tasks.runtime.run import refused_arrivals

    catalog = load_catalog_or_exit(catalog_path)
    for warning in catalog.warnings():
        print_err(warning)
    for folded in fold_failures(refused_arrivals(catalog)):
        print_err(folded.line())
    for model, origins in catalog.facts_from.items():
        print_err(f"{model}: meta from its folder: {', '.join(f'{key} ({file})' for key, file in origins.items())}")
    print_out(catalog_yaml(catalog).rstrip())
    return OK


def show_schema() -> int:
    """Print the JSON schema of a catalog, for completion and checks in editors."""
    from lfm_tasks.catalog import catalog_schema

    print_out(json.dumps(catalog_schema(), indent=1, ensure_ascii=False))
    return OK


def validate(
    catalog_path: CatalogPath = DEFAULT_CATALOG,
    *,
    deep: Annotated[bool, Parameter(help="Read all values too; of a network to run, one batch.", negative="")] = False,
    format: Annotated[Literal["text", "json"], Parameter(help="json: for programs; needs --deep.")] = "text",
    trust_code: TrustCode = False,
) -> int:
    """Check the catalog and open every source; nothing is computed or written."""
    if format == "json" and not deep:
        print_err("got --format json without --deep, expected both: lfm-atlas validate --deep --format json")
        return USAGE
    catalog, is_sound = load_catalog_as_far_as_possible(catalog_path, trust_code)
    check_folders_or_exit(catalog_path, catalog)
    warn_of_read_only_folders(catalog)
    for warning in catalog.warnings():
        print_err(warning)
    from lfm_tasks.runtime.folding import fold_failures

    zoo = _open_zoo(catalog)
    for note in zoo.notes:
        print_err(note)
    if deep and is_sound:
        return _validate_deeply(catalog, zoo, for_programs=format == "json")
    for folded in fold_failures(zoo.failures):
        print_err(folded.line())
    found = f"{number_of(len(catalog.models), 'model')}, {number_of(zoo.n_chosen, 'space')}"
    counts = f"{found}{_count_in_comparisons(catalog, zoo)}"
    rest = "" if is_sound else "; mistakes in the catalog"
    print_out(f"{counts}, {len(zoo.failures)} cannot be used{rest}")
    return OK if is_sound and not zoo.failures else USAGE


def _open_zoo(catalog: "Catalog") -> "Zoo":
    from lfm_tasks.stages.inventory.stage import validate_catalog

    return validate_catalog(catalog, no_progress)


def _validate_deeply(catalog: "Catalog", zoo: "Zoo", *, for_programs: bool) -> int:
    from lfm_tasks.stages.inventory.inspection import read_zoo, report_as_json, report_as_lines

    with progress() as report_progress:
        report = read_zoo(catalog, zoo, report_progress)
    if for_programs:
        print_out(report_as_json(report))
        return USAGE if report.problems else OK
    for line in report_as_lines(report):
        print_out(line)
    for problem in report.problems:
        print_err(problem)
    found = f"{number_of(len(catalog.models), 'model')}, {number_of(len(report.spaces), 'space')} read"
    counts = f"{found}{_count_in_comparisons(catalog, zoo)}"
    print_out(f"{counts}, {number_of(len(report.problems), 'problem')}")
    return USAGE if report.problems else OK


def _count_in_comparisons(catalog: "Catalog", zoo: "Zoo") -> str:
    return f", {len(zoo.spaces)} of them in comparisons" if catalog.comparisons else ""


def layers(
    model: Annotated[str, Parameter(help="A model of the catalog.")],
    catalog_path: CatalogPath = DEFAULT_CATALOG,
    *,
    dataset: Annotated[str | None, Parameter(help="A dataset of the model; needed if it has several.")] = None,
    format: Annotated[Literal["text", "json"], Parameter(help="json: for programs, a list of objects.")] = "text",
    trust_code: TrustCode = False,
) -> int:
    """List all layers of a model with the shape of one point; * marks those that the catalog selects."""
    from lfm_tasks.errors import DataError
    from lfm_tasks.stages.inventory.inspection import layers_as_json, layers_as_lines, list_layers

    try:
        listed = list_layers(load_catalog_or_exit(catalog_path, trust_code), model, dataset)
    except DataError as error:
        print_err(f"{error} [{error.reason}]")
        return USAGE
    print_out(layers_as_lines(listed) if format == "text" else layers_as_json(listed))
    return OK


def plan(
    catalog_path: CatalogPath = DEFAULT_CATALOG,
    *,
    format: Annotated[Literal["text", "json"], Parameter(help="json: for programs, one object on stdout.")] = "text",
    trust_code: TrustCode = False,
) -> int:
    """Print the work of a run: how much is stored already, and the time, memory and disk space of the rest."""
    from lfm_tasks.planning import plan_as_json, plan_refusal, plan_run

    catalog = load_catalog_or_exit(catalog_path, trust_code)
    check_folders_or_exit(catalog_path, catalog)
    warn_of_read_only_folders(catalog)
    zoo = _open_zoo(catalog)
    if format == "json":
        print_out(as_json(plan_as_json(catalog, zoo)))
    else:
        for line in plan_run(catalog, zoo):
            print_out(line)
    if refusal := plan_refusal(catalog, zoo):
        print_err(refusal)
        return USAGE
    return OK


def run(
    catalog_path: CatalogPath = DEFAULT_CATALOG,
    *,
    prefect: Annotated[bool, Parameter(help="Orchestrate by Prefect; --no-prefect gives the same result.")] = True,
    dask: Annotated[bool, Parameter(help="Run tasks in Dask worker processes; --no-dask: in this process.")] = True,
    only: Annotated[
        list[str] | None,
        Parameter(help="Compute only spaces and pairs of models that match this glob; repeatable.", negative=""),
    ] = None,
    comparison: Annotated[
        list[str] | None, Parameter(help="Compute only this comparison; repeatable.", negative="")
    ] = None,
    scheduler: Scheduler = "",
    dashboard: Annotated[bool, Parameter(help="Serve Dask's dashboard while workers work.", negative="")] = False,
    prefect_ui: Annotated[bool, Parameter(help="Serve Prefect's interface while the run lasts.", negative="")] = False,
    trust_code: TrustCode = False,
) -> int:
    """Compute what is missing and publish the atlas: activations, graphs, bases, maps, scores, report."""
    catalog = override_scheduler_or_exit(load_catalog_or_exit(catalog_path, trust_code), scheduler)
    if refusal := _why_no_pages(catalog, dashboard and not dask, dashboard, prefect_ui and not (prefect and dask)):
        print_err(refusal)
        return USAGE
    announce = announce_dashboard if dashboard else None
    announce_start("Prefect" if prefect and dask else "the run")
    from lfm_tasks.runtime.folders import ATLAS, OF_A_RUN, STORE, refuse_read_only
    from lfm_tasks.runtime.run import Scope

    scope = Scope(tuple(only or ()), tuple(comparison or ()))
    if problems := scope.problems(catalog):
        for problem in problems:
            print_err(problem)
        return USAGE
    check_folders_or_exit(catalog_path, catalog, *OF_A_RUN)
    refuse_read_only(catalog, ATLAS, STORE)
    with progress() as report_progress:
        if prefect and dask:
            options = PrefectOptions(absolute_scheduler(scheduler), announce, prefect_ui)
            outcome = _run_with_prefect(catalog_path, catalog, scope, report_progress, options)
        else:
            outcome = _run_directly(catalog, scope, report_progress, dask, announce)
    return _print_outcome(outcome, catalog)


def _why_no_pages(catalog: "Catalog", is_without_dask: bool, dashboard: bool, is_without_prefect: bool) -> str:
    """Return why the pages that a run is to serve cannot be, "" if they can."""
    from lfm_tasks.catalog.cluster import LocalCluster

    if is_without_dask:
        return "got --dashboard with --no-dask, expected workers to look at. Leave one of them out."
    if is_without_prefect:
        return "got --prefect-ui in a run without Prefect, expected one with it. Leave out --no-prefect and --no-dask."
    # The schedulers of other clusters serve their own pages.
    if dashboard and isinstance(catalog.cluster, LocalCluster) and find_spec("bokeh") is None:
        return "got no Bokeh, expected it for --dashboard. Do: pip install 'lfm-atlas[dashboard]'"
    return ""


@dataclass(frozen=True)
class PrefectOptions:
    """Of a run with Prefect: where it works, what gets the address of Dask's dashboard, whether it serves pages."""

    scheduler: str
    announce: Callable[[str], None] | None
    with_pages: bool


def _run_with_prefect(
    path: Path, catalog: "Catalog", scope: "Scope", report_progress: "ProgressCallback", options: PrefectOptions
) -> "Outcome":
    from lfm_atlas.prefect_access import find_user_server, import_prefect
    from lfm_atlas.prefect_server import SECRET_FILE, pages_sentence, prefect_server, wait_until_ready
    from lfm_tasks.runtime.folders import prepare_store

    prepare_store(catalog)
    path, home = path.absolute(), catalog.root / catalog.atlas.store / "prefect"
    with_user_server = find_user_server()
    with prefect_server(home, with_pages=options.with_pages) as address:
        # Its import and the server's start take seconds each: side by side.
        import_prefect(with_user_server=with_user_server)
        from lfm_atlas.atlas import atlas_flow

        if not with_user_server:
            wait_until_ready(address)
        if options.with_pages:
            print_err(pages_sentence(address, None if with_user_server else home / SECRET_FILE))
        flow = atlas_flow(report_progress, options.announce)
        return flow(str(path), catalog.trust.everything, list(scope.only), list(scope.comparisons), options.scheduler)


def _run_directly(
    catalog: "Catalog",
    scope: "Scope",
    report_progress: "ProgressCallback",
    dask: bool,
    announce: Callable[[str], None] | None,
) -> "Outcome":
    from lfm_atlas.pipeline import build_atlas
    from lfm_tasks.runtime.session import open_run

    with (
        chdir(work_folder(catalog)),
        open_run(catalog, report_progress, in_process=not dask, scope=scope, announce=announce) as opened,
    ):
        return build_atlas(opened)


def _print_outcome(outcome: "Outcome", catalog: "Catalog") -> int:
    """Print the results and failures of a run; return the exit code."""
    from lfm_tasks.runtime.folding import fold_failures

    for damage in outcome.quarantined:
        print_err(f"got damage in the store, {damage}; it was put into quarantine, and made again if it was needed")
    for sentence in (*catalog.aliases, *catalog.unclaimed, *outcome.recorded):
        print_err(sentence)
    for folded in fold_failures(outcome.failures):
        print_err(folded.line(with_dataset=True))
    for pairs in outcome.unscored:
        print_err(pairs.line())
    if any(outcome.computed.values()):
        print_out(", ".join(f"{stage} {n} new, {outcome.reused[stage]} kept" for stage, n in outcome.computed.items()))
    else:
        print_out(f"nothing to compute{'' if outcome.unpublished else ': the atlas is up to date'}")
    counts = f"{number_of(outcome.n_spaces, 'space')}, {len(outcome.failures)} failed"
    code = SOME_FAILED if outcome.failures or outcome.unscored else OK
    if outcome.unpublished:
        print_out(shown(f"{counts}; {outcome.unpublished}"))
        return LIMIT_BROKEN if outcome.is_kept else code
    folder = catalog.root / catalog.atlas.path
    if folder.is_relative_to(Path.cwd()):
        folder = folder.relative_to(Path.cwd())
    print_out(shown(f"{counts}; atlas: {folder}, page: {folder}/report.html"))
    return code
