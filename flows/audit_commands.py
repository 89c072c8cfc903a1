"""The commands of audits: ``lfm-atlas audit``, and those that put it on a schedule."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from flows.console import (
    CRASH,
    DEFAULT_CATALOG,
    LIMIT_BROKEN,
    OK,
    SOME_FAILED,
    USAGE,
    CatalogPath,
    Scheduler,
    TrustCode,
    complain,
    moved_or_leave,
    read_or_leave,
    say,
)
from flows.deploy_commands import deploy, serve
from flows.tables import as_json, visible

if TYPE_CHECKING:
    from flows.auditing import Audited
    from lfm_tasks.catalog import Catalog
    from lfm_tasks.runtime.run import Announce


def register_audits(app: App) -> None:
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
    settings = moved_or_leave(read_or_leave(catalog, trust_code), scheduler)
    from flows.progress import progress

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
    settings = read_or_leave(catalog)
    from lfm_tasks.maintenance.prune import prune as prune_store
    from lfm_tasks.reasons import ReasonError

    try:
        pruned = prune_store(settings, remove=remove)
    except ReasonError as error:
        complain(f"{error} [{error.reason}]")
        return USAGE
    verb = "removed" if remove else "would remove"
    for where, own in (("", pruned), (f"{settings.atlas.remote}: ", pruned.remote)):
        if own is not None:
            counts = ", ".join(f"{kind} {n}" for kind, n in own.count().items()) or "nothing"
            say(f"{where}{verb}: {counts}; {own.n_bytes / 1e6:.1f} MB; {own.n_kept} units stay")
    return OK


def verify(
    catalog: CatalogPath = DEFAULT_CATALOG,
    *,
    format: Annotated[Literal["text", "json"], Parameter(help="json: for programs, one object on stdout.")] = "text",
) -> int:
    """Read every byte of the store and its published atlases; list what is damaged, and leave with 1 if anything is."""
    settings = read_or_leave(catalog)
    from lfm_tasks.maintenance.verify import verify as verify_store
    from lfm_tasks.reasons import ReasonError

    try:
        found = verify_store(settings)
    except ReasonError as error:
        complain(f"{error} [{error.reason}]")
        return USAGE
    if format == "json":
        say(as_json(asdict(found)))
        return CRASH if found.damages else OK
    for damage in found.damages:
        complain(f"{visible(damage.place)}: {visible(damage.found)}")
    counts = f"{found.n_units} units and {found.n_atlases} atlases read, {len(found.damages)} damaged"
    say(f"{counts}{'; lfm-atlas run makes again what its atlas needs' if found.damages else ''}")
    return CRASH if found.damages else OK


def _audit(catalog: "Catalog", promote: bool, announce: "Announce", dask: bool) -> "Audited":
    from flows.auditing import audit_zoo
    from lfm_tasks.runtime.session import open_run

    with open_run(catalog, announce, in_process=not dask) as opened:
        return audit_zoo(opened, promote)


def _audit_with_prefect(
    path: Path, catalog: "Catalog", announce: "Announce", *, promote: bool, scheduler: str
) -> "Audited":
    from flows.server import prefect_server, wait_until_ready
    from lfm_tasks.runtime.session import refuse_if_busy

    refuse_if_busy(catalog)
    with prefect_server(catalog.root / catalog.atlas.store / "prefect") as address:
        from flows.audit import AuditParameters, audit_flow

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
        complain(f"{failure.model}/{failure.layer or '*'}: {failure.message} [{failure.reason}]")
    for check in audit.checks:
        line = f"{check.status:<8} {check.name}: {check.message}"
        if check.status in ("warn", "fail", "error"):
            complain(line)
        else:
            say(line)
    say(f"audit: {audit.verdict}; {audit.sentence}")
    kept = "this atlas is the baseline now" if audit.promoted else "the baseline stays as it is"
    say(f"{kept}; page: {audit.folder / 'audit.html'}")
    if audit.verdict == "fail":
        return LIMIT_BROKEN
    return SOME_FAILED if outcome.failures or outcome.refused else OK
