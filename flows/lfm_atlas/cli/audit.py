"""The commands that check and keep up an atlas: audit, deploy, serve, verify, prune."""

import shlex
import sys
from contextlib import chdir
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from lfm_atlas.console import (
    CRASH,
    DEFAULT_CATALOG,
    EMPTY_FOLDER,
    LIMIT_BROKEN,
    OK,
    SOME_FAILED,
    USAGE,
    CatalogPath,
    Scheduler,
    TrustCode,
    absolute_scheduler,
    announce_start,
    as_json,
    check_folders_or_exit,
    environment,
    escape_unprintable,
    load_catalog_or_exit,
    override_scheduler_or_exit,
    print_err,
    print_out,
    progress,
    shown,
    work_folder,
)
from lfm_tasks.errors import number_of

if TYPE_CHECKING:
    from lfm_atlas.pipeline import AuditOutcome
    from lfm_tasks.catalog import Catalog
    from lfm_tasks.runtime.run import ProgressCallback


Cron = Annotated[str, Parameter(help="When, in UTC: minute, hour, day, month, weekday.")]
Name = Annotated[str | None, Parameter(help="Name of the deployment; without it, the catalog's folder's.")]
NIGHTLY = "17 2 * * *"


def add_commands(app: App) -> None:
    """Add the commands of this module to ``app``."""
    for command in (audit, deploy, serve, verify, prune):
        app.command(command)


def audit(
    catalog_path: CatalogPath = DEFAULT_CATALOG,
    *,
    promote: Annotated[bool, Parameter(help="Make this atlas the baseline, whatever the result.", negative="")] = False,
    prefect: Annotated[bool, Parameter(help="Orchestrate by Prefect; --no-prefect gives the same result.")] = True,
    dask: Annotated[bool, Parameter(help="Run tasks in Dask worker processes; --no-dask: in this process.")] = True,
    scheduler: Scheduler = "",
    trust_code: TrustCode = False,
) -> int:
    """Update the atlas, then check it against the limits of the catalog and the baseline."""
    catalog = override_scheduler_or_exit(load_catalog_or_exit(catalog_path, trust_code), scheduler)
    announce_start("Prefect" if prefect and dask else "the audit")
    check_folders_or_exit(catalog_path, catalog)
    with progress() as report_progress:
        if prefect and dask:
            outcome = _audit_with_prefect(
                catalog_path, catalog, report_progress, promote=promote, scheduler=absolute_scheduler(scheduler)
            )
        else:
            outcome = _audit_directly(catalog, promote, report_progress, dask)
    return _print_outcome(outcome, catalog)


def _audit_with_prefect(
    path: Path, catalog: "Catalog", report_progress: "ProgressCallback", *, promote: bool, scheduler: str
) -> "AuditOutcome":
    from lfm_atlas.prefect_access import find_user_server, import_prefect
    from lfm_atlas.prefect_server import prefect_server, wait_until_ready
    from lfm_tasks.runtime.folders import prepare_store, refuse_read_only, written_by_audit

    refuse_read_only(catalog, *written_by_audit(catalog, promote))
    prepare_store(catalog)
    path = path.absolute()
    with_user_server = find_user_server()
    with prefect_server(catalog.root / catalog.atlas.store / "prefect") as address:
        import_prefect(with_user_server=with_user_server)
        from lfm_atlas.audit import AuditTarget, audit_flow

        if not with_user_server:
            wait_until_ready(address)
        outcomes: list[AuditOutcome] = []
        target = AuditTarget(str(path), catalog.trust.everything, scheduler)
        state = audit_flow(report_progress, outcomes, target)(**asdict(target), promote=promote, return_state=True)
        if not outcomes:
            # The flow failed before the checks: its error is raised here.
            state.result()
        return outcomes[0]


def _audit_directly(
    catalog: "Catalog", promote: bool, report_progress: "ProgressCallback", dask: bool
) -> "AuditOutcome":
    from lfm_atlas.pipeline import audit_zoo
    from lfm_tasks.runtime.session import open_run

    with chdir(work_folder(catalog)), open_run(catalog, report_progress, in_process=not dask) as opened:
        return audit_zoo(opened, promote)


def _print_outcome(outcome: "AuditOutcome", catalog: "Catalog") -> int:
    """Print the failures of the run and the result of every check; return the exit code."""
    from lfm_tasks.runtime.folding import fold_failures

    audit, run = outcome.audit, outcome.run
    for sentence in (*catalog.unclaimed, *run.recorded):
        print_err(sentence)
    for folded in fold_failures(run.failures):
        print_err(folded.line())
    for pairs in run.unscored:
        print_err(pairs.line())
    for check in audit.checks:
        line = f"{check.status:<8} {check.name}: {check.message}"
        if check.status in ("warn", "fail", "error"):
            print_err(line)
        else:
            print_out(line)
    kept = "the baseline stays as it is" if audit.baseline else "there is no baseline yet"
    baseline = "this atlas is the baseline now" if audit.promoted else kept
    print_out(f"audit: {audit.verdict}; {audit.sentence}: {baseline}")
    print_out(shown(f"page: {audit.folder / 'audit.html'}"))
    if audit.verdict == "fail":
        return LIMIT_BROKEN
    return SOME_FAILED if run.failures or run.unscored else OK


def deploy(
    catalog_path: CatalogPath = DEFAULT_CATALOG,
    *,
    cron: Cron = NIGHTLY,
    name: Name = None,
    pool: Annotated[str, Parameter(help="Work pool whose workers run the audits.")] = "lfm-atlas",
    notify: Annotated[str, Parameter(help="Prefect block to notify, such as slack-webhook/zoo.")] = "",
    scheduler: Scheduler = "",
    trust_code: TrustCode = False,
) -> int:
    """Register audits of a catalog with a Prefect server: deployment, schedule, work pool, automations."""
    override_scheduler_or_exit(load_catalog_or_exit(catalog_path, trust_code), scheduler)
    from lfm_atlas.prefect_access import find_user_server, import_prefect
    from lfm_atlas.prefect_settings import set_prefect_defaults
    from lfm_atlas.proxies import unusable_proxies

    if not find_user_server():
        print_err("got no PREFECT_API_URL, expected the address of a server: prefect server start, then export it")
        return USAGE
    announce_start("Prefect")
    path, scheduler = catalog_path.absolute(), absolute_scheduler(scheduler)
    set_prefect_defaults()
    with chdir(EMPTY_FOLDER), environment(dict.fromkeys(unusable_proxies(), "")):
        import_prefect(with_user_server=True)
        from lfm_atlas.audit import AuditTarget
        from lfm_atlas.deployment import Deployment, register

        target = AuditTarget(str(path), trust_code, scheduler)
        deployment = Deployment(name or path.parent.name, target, pool, cron, notify)
        try:
            page = register(deployment, _deploy_folder())
        except (LookupError, ValueError) as error:
            print_err(str(error))
            return USAGE
    print_out(f"audit/{deployment.name} runs at {cron!r} (UTC) where a worker is: prefect worker start --pool {pool}")
    if page:
        print_out(f"in Prefect's interface: {page}")
    return OK


def _deploy_folder() -> Path:
    """Return the folder of prefect.yaml and automations.yaml: in the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "deploy"
    return installed if installed.is_dir() else package.parents[1] / "deploy"


def serve(
    catalog_path: CatalogPath = DEFAULT_CATALOG,
    *,
    cron: Cron = NIGHTLY,
    name: Name = None,
    scheduler: Scheduler = "",
    trust_code: TrustCode = False,
) -> int:
    """Run audits of a catalog on a schedule, on this machine, until stopped; a server is started if there is none."""
    catalog = override_scheduler_or_exit(load_catalog_or_exit(catalog_path, trust_code), scheduler)
    announce_start("Prefect")
    check_folders_or_exit(catalog_path, catalog)
    path, scheduler = catalog_path.absolute(), absolute_scheduler(scheduler)
    from lfm_atlas.prefect_access import find_user_server
    from lfm_atlas.prefect_server import SECRET_FILE, pages_sentence, prefect_server, wait_until_ready
    from lfm_tasks.runtime.folders import prepare_store

    prepare_store(catalog)
    home = catalog.root / catalog.atlas.store / "prefect"
    with_user_server = find_user_server()
    check = partial(_import_prefect_and_check, cron, with_user_server)
    with prefect_server(home, with_schedules=True, with_pages=True, before_start=check) as address:
        from lfm_atlas.audit import AuditTarget
        from lfm_atlas.deployment import run_on_schedule

        if not with_user_server:
            wait_until_ready(address)
        print_out(f"audits of {catalog_path} at {cron!r} (UTC); server: {address}; Ctrl+C stops both")
        print_out(pages_sentence(address, None if with_user_server else home / SECRET_FILE))
        if not with_user_server:
            print_out(
                f"to use the server: export PREFECT_API_AUTH_STRING=$(cat {shlex.quote(str(home / SECRET_FILE))})"
            )
        # A reader of a log or a pipe would otherwise wait for these lines for as long as the audits are served.
        sys.stdout.flush()
        target = AuditTarget(str(path), trust_code, scheduler)
        with environment(target.to_environment()):
            run_on_schedule(name or path.parent.name, cron, {"catalog": str(path)})
    return OK


def _import_prefect_and_check(cron: str, with_user_server: bool) -> None:
    """Import Prefect; exit with `USAGE` if ``cron`` is no schedule."""
    from lfm_atlas.prefect_access import import_prefect

    import_prefect(with_user_server=with_user_server, prints_errors=True)
    from lfm_atlas.deployment import check_cron

    try:
        check_cron(cron)
    except ValueError as error:
        print_err(str(error))
        sys.exit(USAGE)


def verify(
    catalog_path: CatalogPath = DEFAULT_CATALOG,
    *,
    format: Annotated[Literal["text", "json"], Parameter(help="json: for programs, one object on stdout.")] = "text",
) -> int:
    """Read every byte of the store and its published atlases; list damaged files (exit code 1 if there are any)."""
    catalog = load_catalog_or_exit(catalog_path)
    check_folders_or_exit(catalog_path, catalog, ("atlas", "store"))
    from lfm_tasks.errors import DataError
    from lfm_tasks.maintenance import verify as verify_store

    try:
        verified = verify_store(catalog)
    except DataError as error:
        print_err(f"{error} [{error.reason}]")
        return USAGE
    if format == "json":
        print_out(as_json(asdict(verified)))
        return CRASH if verified.damages else OK
    for damage in verified.damages:
        print_err(f"{escape_unprintable(damage.place)}: {escape_unprintable(damage.description)}")
    atlases = "1 atlas" if verified.n_atlases == 1 else f"{verified.n_atlases} atlases"
    counts = f"{number_of(verified.n_units, 'unit')} and {atlases} read, {len(verified.damages)} damaged"
    print_out(f"{counts}{'; lfm-atlas run makes again what its atlas needs' if verified.damages else ''}")
    return CRASH if verified.damages else OK


def prune(
    catalog_path: CatalogPath = DEFAULT_CATALOG,
    *,
    remove: Annotated[bool, Parameter(help="Remove them; without it, only list them.", negative="")] = False,
    forget_missing: Annotated[
        bool, Parameter(help="Treat missing atlases as deleted, not as unmounted.", negative="")
    ] = False,
) -> int:
    """List stored units that no published atlas and no baseline uses; --remove deletes them and nothing else."""
    catalog = load_catalog_or_exit(catalog_path)
    check_folders_or_exit(catalog_path, catalog, ("atlas", "store"))
    from lfm_tasks.errors import DataError
    from lfm_tasks.maintenance import prune as prune_store

    try:
        pruned = prune_store(catalog, remove=remove, forget_missing=forget_missing)
    except DataError as error:
        print_err(f"{error} [{error.reason}]")
        return USAGE
    counted = "their units count as gone" if forget_missing else "their units stay, --remove refuses"
    for folder in pruned.missing:
        print_err(f"{folder}: got no atlas where one was published from this store; {counted}")
    verb = "removed" if remove else "would remove"
    for where, part in (("", pruned), (f"{catalog.atlas.remote}: ", pruned.remote)):
        if part is not None:
            counts = ", ".join(f"{kind} {n}" for kind, n in part.counts().items()) or "nothing"
            kept = number_of(part.n_kept, "unit")
            print_out(shown(f"{where}{verb}: {counts}; {part.n_bytes / 1e6:.1f} MB; {kept} left"))
    return OK
