"""The commands audit, deploy and serve."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from lfm_atlas.console import (
    CRASH,
    DEFAULT_CATALOG,
    LIMIT_BROKEN,
    OK,
    SOME_FAILED,
    USAGE,
    CatalogPath,
    Scheduler,
    TrustCode,
    as_json,
    load_catalog_or_exit,
    override_scheduler_or_exit,
    print_err,
    print_out,
    visible,
)

if TYPE_CHECKING:
    from lfm_atlas.pipeline import Audited
    from lfm_tasks.catalog import Catalog
    from lfm_tasks.runtime.run import ProgressCallback


Cron = Annotated[str, Parameter(help="When, in UTC: minute, hour, day, month, weekday.")]
Name = Annotated[str | None, Parameter(help="Name of the deployment; without it, the catalog's folder's.")]
NIGHTLY = "17 2 * * *"


def deploy(
    catalog: CatalogPath = DEFAULT_CATALOG,
    *,
    cron: Cron = NIGHTLY,
    name: Name = None,
    pool: Annotated[str, Parameter(help="Work pool whose workers run the audits.")] = "lfm-atlas",
    notify: Annotated[str, Parameter(help="Notification block that is told, such as slack-webhook/zoo.")] = "",
) -> int:
    """Register audits of a catalog with a Prefect server: deployment, schedule, work pool, automations."""
    load_catalog_or_exit(catalog)
    if not os.environ.get("PREFECT_API_URL"):
        print_err("found no PREFECT_API_URL, needs the address of a server: prefect server start, then export it")
        return USAGE
    path = catalog.absolute()
    _be_quiet()
    from lfm_atlas.prefect_server import Deployment, register

    chosen = Deployment(name or path.parent.name, path, pool, cron, notify)
    try:
        register(chosen, deploy_files())
    except (LookupError, ValueError) as error:
        print_err(str(error))
        return USAGE
    print_out(f"audit/{chosen.name} runs at {cron!r} (UTC) where a worker is: prefect worker start --pool {pool}")
    return OK


def serve(
    catalog: CatalogPath = DEFAULT_CATALOG, *, cron: Cron = NIGHTLY, name: Name = None, trust_code: TrustCode = False
) -> int:
    """Run audits of a catalog on a schedule, on this machine, until stopped; a server is started if there is none."""
    settings = load_catalog_or_exit(catalog, trust_code)
    path = catalog.absolute()
    from lfm_atlas.prefect_server import prefect_server, wait_until_ready

    home = settings.root / settings.atlas.store / "prefect"
    with prefect_server(home, with_schedules=True) as address:
        wait_until_ready(address)
        from lfm_atlas.prefect_server import check_cron, run_on_schedule

        try:
            check_cron(cron)
        except ValueError as error:
            print_err(str(error))
            return USAGE
        print_out(f"audits of {catalog} at {cron!r} (UTC); server: {address}; Ctrl+C stops both")
        run_on_schedule(name or path.parent.name, cron, {"catalog": str(path), "trust_code": trust_code})
    return OK


def deploy_files() -> Path:
    """Return the folder of prefect.yaml and automations.yaml: in the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "deploy"
    return installed if installed.is_dir() else package.parents[1] / "deploy"


def _be_quiet() -> None:
    from lfm_atlas.prefect_server import QUIET

    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


def add_audit_commands(app: App) -> None:
    """Add the commands to the command line."""
    for command in (audit, deploy, serve, prune, verify):
        app.command(command)


def audit(
    catalog: CatalogPath = DEFAULT_CATALOG,
    *,
    promote: Annotated[bool, Parameter(help="Make this atlas the baseline, whatever is found.", negative="")] = False,
    prefect: Annotated[bool, Parameter(help="Orchestrate by Prefect; the audit is the same without.")] = True,
    dask: Annotated[bool, Parameter(help="Work in Dask processes; --no-dask works in this one.")] = True,
    scheduler: Scheduler = "",
    trust_code: TrustCode = False,
) -> int:
    """Bring the atlas up to date, then hold it against the limits of the catalog and the baseline."""
    settings = override_scheduler_or_exit(load_catalog_or_exit(catalog, trust_code), scheduler)
    from lfm_atlas.console import progress

    with progress() as announce:
        if prefect and dask:
            audited = _audit_with_prefect(catalog, settings, announce, promote=promote, scheduler=scheduler)
        else:
            audited = _audit(settings, promote, announce, dask)
    return _say(audited)


def prune(
    catalog: CatalogPath = DEFAULT_CATALOG,
    *,
    remove: Annotated[bool, Parameter(help="Remove them; without it they are only told.", negative="")] = False,
) -> int:
    """Find what is stored and no published atlas or baseline was made of; --remove removes it, and nothing else."""
    settings = load_catalog_or_exit(catalog)
    from lfm_tasks.errors import DataError
    from lfm_tasks.maintenance import prune as prune_store

    try:
        pruned = prune_store(settings, remove=remove)
    except DataError as error:
        print_err(f"{error} [{error.reason}]")
        return USAGE
    verb = "removed" if remove else "would remove"
    for where, own in (("", pruned), (f"{settings.atlas.remote}: ", pruned.remote)):
        if own is not None:
            counts = ", ".join(f"{kind} {n}" for kind, n in own.count().items()) or "nothing"
            print_out(f"{where}{verb}: {counts}; {own.n_bytes / 1e6:.1f} MB; {own.n_kept} units stay")
    return OK


def verify(
    catalog: CatalogPath = DEFAULT_CATALOG,
    *,
    format: Annotated[Literal["text", "json"], Parameter(help="json: for programs, one object on stdout.")] = "text",
) -> int:
    """Read every byte of the store and its published atlases; list what is damaged, and leave with 1 if anything is."""
    settings = load_catalog_or_exit(catalog)
    from lfm_tasks.errors import DataError
    from lfm_tasks.maintenance import verify as verify_store

    try:
        found = verify_store(settings)
    except DataError as error:
        print_err(f"{error} [{error.reason}]")
        return USAGE
    if format == "json":
        print_out(as_json(asdict(found)))
        return CRASH if found.damages else OK
    for damage in found.damages:
        print_err(f"{visible(damage.place)}: {visible(damage.found)}")
    counts = f"{found.n_units} units and {found.n_atlases} atlases read, {len(found.damages)} damaged"
    print_out(f"{counts}{'; lfm-atlas run makes again what its atlas needs' if found.damages else ''}")
    return CRASH if found.damages else OK


def _audit(catalog: "Catalog", promote: bool, announce: "ProgressCallback", dask: bool) -> "Audited":
    from lfm_atlas.pipeline import audit_zoo
    from lfm_tasks.runtime.session import open_run

    with open_run(catalog, announce, in_process=not dask) as opened:
        return audit_zoo(opened, promote)


def _audit_with_prefect(
    path: Path, catalog: "Catalog", announce: "ProgressCallback", *, promote: bool, scheduler: str
) -> "Audited":
    from lfm_atlas.prefect_server import prefect_server, wait_until_ready
    from lfm_tasks.runtime.session import refuse_if_busy

    refuse_if_busy(catalog)
    with prefect_server(catalog.root / catalog.atlas.store / "prefect") as address:
        from lfm_atlas.audit import AuditParameters, audit_flow

        wait_until_ready(address)
        found: list[Audited] = []
        parameters = AuditParameters(
            catalog=str(path), promote=promote, trust_code=catalog.trust.everything, scheduler=scheduler
        )
        state = audit_flow(announce, found)(parameters, return_state=True)
        if not found:
            # It did not come to a verdict: whatever stopped it is raised here.
            state.result()
        return found[0]


def _say(audited: "Audited") -> int:
    audit, outcome = audited.audit, audited.outcome
    for failure in outcome.failures:
        print_err(f"{failure.model}/{failure.layer or '*'}: {failure.message} [{failure.reason}]")
    for check in audit.checks:
        line = f"{check.status:<8} {check.name}: {check.message}"
        if check.status in ("warn", "fail", "error"):
            print_err(line)
        else:
            print_out(line)
    print_out(f"audit: {audit.verdict}; {audit.sentence}")
    kept = "this atlas is the baseline now" if audit.promoted else "the baseline stays as it is"
    print_out(f"{kept}; page: {audit.folder / 'audit.html'}")
    if audit.verdict == "fail":
        return LIMIT_BROKEN
    return SOME_FAILED if outcome.failures or outcome.refused else OK
