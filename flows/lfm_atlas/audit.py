"""The Prefect flow of an audit: the atlas, the checks, a state by name, an event, an artifact."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.events import emit_event
from prefect.states import Completed, Failed
from pydantic import BaseModel, Field

from lfm_atlas.atlas import _no_progress, as_task
from lfm_atlas.pipeline import Audited, audit_zoo
from lfm_tasks.audit import Audit
from lfm_tasks.catalog import on_scheduler, read_catalog
from lfm_tasks.errors import TooLargeError
from lfm_tasks.runtime.run import ProgressCallback
from lfm_tasks.runtime.session import open_run

# What automations listen for; the resource is the atlas.
EVENTS = {verdict: f"lfm-atlas.audit.{verdict}" for verdict in ("pass", "warn", "fail")}


class AuditParameters(BaseModel, extra="forbid"):
    """What a person says when they start an audit by hand: a form in Prefect's interface."""

    catalog: str = Field(
        default="data_catalog.yaml", min_length=1, description="Path of the catalog, from where the worker runs."
    )
    promote: bool = Field(
        default=False,
        description="Make this atlas the baseline, whatever the checks say. Passing ones become it anyway.",
    )
    trust_code: bool = Field(default=False, description="Run the factories that the catalog names: they are code.")
    scheduler: str = Field(
        default="",
        description="Work there, and not where the catalog says: tcp://host:port, tls://host:port or a scheduler file.",
    )


def audit_flow(
    announce: ProgressCallback = _no_progress, found: list[Audited] | None = None
) -> Callable[..., State[Any]]:
    """Return the flow. What it came to is put into ``found``, which is no result since results are stored."""

    @flow(
        name="audit",
        flow_run_name="audit of {parameters.catalog}",
        validate_parameters=True,
        persist_result=False,
        retries=0,
        timeout_seconds=24 * 3600,
    )
    def audit(parameters: AuditParameters = AuditParameters()) -> State[Any]:  # noqa: B008 - a frozen default
        """Bring the atlas of a catalog up to date and hold it against its limits and baseline.

        Args:
            parameters: The catalog, and what may be done.
        """
        catalog = read_catalog(Path(parameters.catalog), trust_code=parameters.trust_code)
        if parameters.scheduler:
            catalog = on_scheduler(catalog, parameters.scheduler)
        with open_run(catalog, announce) as run:
            # A stage goes on where it stopped; the flow is not tried again, since a broken limit is no accident.
            try:
                audited = audit_zoo(run, parameters.promote, partial(as_task, retries=1))
            except TooLargeError as error:
                return Failed(name="TooLarge", message=str(error), data=error)
        if found is not None:
            found.append(audited)
        return tell(audited.audit, str(catalog.root))

    return audit


def tell(audit: Audit, zoo: str) -> State[Any]:
    """Emit the event, write the artifact; return the state, `ThresholdBroken` where an enforced limit is."""
    emit_event(
        EVENTS[audit.verdict],
        resource={"prefect.resource.id": f"lfm-atlas.atlas.{audit.atlas[:12]}", "prefect.resource.name": zoo},
        payload={"sentence": audit.sentence, "folder": str(audit.folder), "atlas": audit.atlas},
    )
    create_markdown_artifact(as_markdown(audit), key="lfm-atlas-audit", description=audit.sentence)
    if audit.verdict == "fail":
        return Failed(name="ThresholdBroken", message=audit.sentence)
    return Completed(message=audit.sentence)


def as_markdown(audit: Audit) -> str:
    """Return the checks as a table."""
    rows = [
        f"| {check.name} | {check.status} | {'yes' if check.enforced else 'no'} | {_cell(check.message)} |"
        for check in audit.checks
    ]
    head = [
        f"# Audit: {audit.verdict}",
        "",
        audit.sentence,
        "",
        "| check | status | enforced | found |",
        "|---|---|---|---|",
    ]
    tail = ["", "Similarity is evidence of lineage, not proof.", "", f"Page: `{audit.folder / 'audit.html'}`"]
    return "\n".join([*head, *rows, *tail])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


# What deployments start: the flow without bars.
audit = audit_flow()
