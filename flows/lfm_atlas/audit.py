"""The Prefect flow of an audit: the pipeline and the checks, then an event, an artifact and a state for the result."""

from collections.abc import Callable
from functools import partial
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.events import emit_event
from prefect.states import Completed, Failed
from pydantic import BaseModel, Field

from lfm_atlas.atlas import as_task, read_catalog_for_flow
from lfm_atlas.console import no_progress
from lfm_atlas.pipeline import AuditOutcome, audit_zoo
from lfm_tasks.audit import Audit
from lfm_tasks.errors import TooLargeError
from lfm_tasks.runtime.run import ProgressCallback
from lfm_tasks.runtime.session import open_run

# The events that automations listen for; their resource is the atlas.
_EVENTS = {result: f"lfm-atlas.audit.{result}" for result in ("pass", "warn", "fail")}


class AuditParameters(BaseModel, extra="forbid"):
    """Parameters of the flow; Prefect's interface shows them as a form to whoever starts an audit by hand."""

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
    report_progress: ProgressCallback = no_progress, outcomes: list[AuditOutcome] | None = None
) -> Callable[..., State[Any]]:
    """Return the flow of an audit.

    The flow appends its outcome to ``outcomes`` and does not return it: Prefect would store a result.
    """

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
        catalog = read_catalog_for_flow(
            parameters.catalog, trust_code=parameters.trust_code, scheduler=parameters.scheduler
        )
        with open_run(catalog, report_progress) as run:
            # A stage is tried again and goes on where it stopped; the flow is not, since a limit stays broken.
            try:
                outcome = audit_zoo(run, parameters.promote, partial(as_task, retries=1))
            except TooLargeError as error:
                return Failed(name="TooLarge", message=str(error), data=error)
        if outcomes is not None:
            outcomes.append(outcome)
        return report_result(outcome.audit, str(catalog.root))

    return audit


def report_result(audit: Audit, zoo: str) -> State[Any]:
    """Emit the event and create the artifact; return the state, `ThresholdBroken` if an enforced check failed."""
    emit_event(
        _EVENTS[audit.verdict],
        resource={"prefect.resource.id": f"lfm-atlas.atlas.{audit.atlas[:12]}", "prefect.resource.name": zoo},
        payload={"sentence": audit.sentence, "folder": str(audit.folder), "atlas": audit.atlas},
    )
    create_markdown_artifact(audit_markdown(audit), key="lfm-atlas-audit", description=audit.sentence)
    if audit.verdict == "fail":
        return Failed(name="ThresholdBroken", message=audit.sentence)
    return Completed(message=audit.sentence)


def audit_markdown(audit: Audit) -> str:
    """Return the result as Markdown, a table row for each check."""
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


# Deployments start this flow, by the entrypoint ``lfm_atlas.audit.audit``.
audit = audit_flow()
