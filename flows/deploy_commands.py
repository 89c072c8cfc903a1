"""The commands that put audits on a schedule: ``lfm-atlas deploy`` and ``lfm-atlas serve``."""

import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from flows.console import DEFAULT_CATALOG, OK, USAGE, CatalogPath, TrustCode, complain, read_or_leave, say

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
    read_or_leave(catalog)
    if not os.environ.get("PREFECT_API_URL"):
        complain("found no PREFECT_API_URL, needs the address of a server: prefect server start, then export it")
        return USAGE
    path = catalog.absolute()
    _be_quiet()
    from flows.deploying import Deployment, register

    chosen = Deployment(name or path.parent.name, path, pool, cron, notify)
    try:
        register(chosen, deploy_files())
    except (LookupError, ValueError) as error:
        complain(str(error))
        return USAGE
    say(f"audit/{chosen.name} runs at {cron!r} (UTC) where a worker is: prefect worker start --pool {pool}")
    return OK


def serve(
    catalog: CatalogPath = DEFAULT_CATALOG, *, cron: Cron = NIGHTLY, name: Name = None, trust_code: TrustCode = False
) -> int:
    """Run audits of a catalog on a schedule, on this machine, until stopped; a server is started if there is none."""
    settings = read_or_leave(catalog, trust_code)
    path = catalog.absolute()
    from flows.server import prefect_server, wait_until_ready

    home = settings.root / settings.atlas.store / "prefect"
    with prefect_server(home, with_schedules=True) as address:
        wait_until_ready(address)
        from flows.deploying import check_cron
        from flows.serving import run_on_schedule

        try:
            check_cron(cron)
        except ValueError as error:
            complain(str(error))
            return USAGE
        say(f"audits of {catalog} at {cron!r} (UTC); server: {address}; Ctrl+C stops both")
        run_on_schedule(name or path.parent.name, cron, {"catalog": str(path), "trust_code": trust_code})
    return OK


def deploy_files() -> Path:
    """Return the folder of prefect.yaml and automations.yaml: in the installed package, or beside it in a checkout."""
    installed = Path(__file__).parent / "deploy"
    return installed if installed.is_dir() else Path(__file__).parents[1] / "deploy"


def _be_quiet() -> None:
    from flows.server import QUIET

    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
