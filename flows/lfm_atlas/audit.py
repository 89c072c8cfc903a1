"""The Prefect flow of an audit: the pipeline and the checks, then an event, an artifact and a state for the result."""

import os
from collections.abc import Callable
from contextlib import chdir
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.events import emit_event
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from lfm_atlas.artifacts import StageProgress, run_name, write_artifacts, write_checks, write_link
from lfm_atlas.atlas import as_task, read_catalog_for_flow
from lfm_atlas.console import no_progress, work_folder
from lfm_atlas.pipeline import AuditOutcome, audit_zoo
from lfm_tasks.audit import Audit
from lfm_tasks.errors import TooLargeError
from lfm_tasks.runtime.run import ProgressCallback
from lfm_tasks.runtime.session import open_run
from lfm_tasks.variables import NOTHING_HIDDEN, HiddenValues

# The events that automations listen for; their resource is the atlas.
_EVENTS = {result: f"lfm-atlas.audit.{result}" for result in ("pass", "warn", "fail")}


# Variables of the process that runs the audits; `lfm-atlas serve` and `lfm-atlas deploy` set them.
CATALOG, TRUST_CODE, SCHEDULER = "LFM_ATLAS_CATALOG", "LFM_ATLAS_TRUST_CODE", "LFM_ATLAS_SCHEDULER"
_TRUTH = {"": False, "0": False, "false": False, "1": True, "true": True}


@dataclass(frozen=True)
class AuditParameters:
    """Parameters of a flow run, as its flow describes them.

    Anyone who may call Prefect's API chooses them, so they decide nothing about which code runs, and where.
    """

    catalog: str = ""
    promote: bool = False
    trust_code: bool = False
    scheduler: str = ""


@dataclass(frozen=True)
class AuditTarget:
    """The target of an audit and the code it may run: set by the process that serves audits, never by a flow run."""

    catalog: str
    trust_code: bool = False
    scheduler: str = ""

    @classmethod
    def from_environment(cls) -> "AuditTarget":
        """Return the target that the environment of this process names; ValueError if it names none."""
        catalog, trust_code = os.environ.get(CATALOG, ""), os.environ.get(TRUST_CODE, "")
        if not catalog:
            advice = "Start it by lfm-atlas serve, or register it by lfm-atlas deploy, which set it"
            raise ValueError(f"got no {CATALOG} in the environment, expected the path of the catalog. {advice}.")
        if trust_code.lower() not in _TRUTH:
            raise ValueError(f"got {TRUST_CODE}={trust_code[:100]!r}, expected true or false. Set one of these.")
        return cls(catalog, _TRUTH[trust_code.lower()], os.environ.get(SCHEDULER, ""))

    def to_environment(self) -> dict[str, str]:
        """Return the variables from which `from_environment` makes this target again."""
        return {
            CATALOG: self.catalog,
            TRUST_CODE: "true" if self.trust_code else "false",
            SCHEDULER: self.scheduler,
        }

    def check(self, parameters: AuditParameters) -> None:
        """Raise ValueError if ``parameters`` name another catalog or scheduler, or trust code that is not trusted."""
        problems = [
            f"got {name} {getattr(parameters, name)!r}, expected {getattr(self, name)!r}"
            for name in asdict(self)
            if getattr(parameters, name) and getattr(parameters, name) != getattr(self, name)
        ]
        if problems:
            advice = "Leave them out, or serve or deploy the audit with what you want"
            raise ValueError(f"{'; '.join(problems)}, which the process that runs the audits chose. {advice}.")


def audit_flow(
    report_progress: ProgressCallback = no_progress,
    outcomes: list[AuditOutcome] | None = None,
    target: AuditTarget | None = None,
    announce: Callable[[str], None] | None = None,
) -> Callable[..., State[Any]]:
    """Return the flow of an audit.

    The flow appends its outcome to ``outcomes`` and does not return it: Prefect would store a result. Without a
    ``target``, each flow run takes it from the environment; a run whose parameters say otherwise fails as ``Refused``.
    ``announce``: see `open_run`.
    """

    def name() -> str:
        chosen = target.catalog if target else os.environ.get(CATALOG, "")
        return run_name("audit", chosen or str(flow_run.parameters["catalog"]))

    @flow(
        name="audit",
        flow_run_name=name,
        validate_parameters=True,
        persist_result=False,
        retries=0,
        timeout_seconds=24 * 3600,
    )
    def audit(catalog: str = "", promote: bool = False, trust_code: bool = False, scheduler: str = "") -> State[Any]:
        """Bring the atlas of a catalog up to date and hold it against its limits and baseline.

        Args:
            catalog: Path of the catalog, as served or deployed; another one is refused. Empty: that one.
            promote: Make this atlas the baseline, whatever the checks say. Passing ones become it anyway.
            trust_code: Run the factories that the catalog names: they are code. Refused unless served or deployed so.
            scheduler: Where the work is done, as served or deployed; another scheduler is refused.
        """
        parameters = AuditParameters(catalog, promote, trust_code, scheduler)
        try:
            chosen = target or AuditTarget.from_environment()
            chosen.check(parameters)
        except ValueError as error:
            return Failed(name="Refused", message=f"this flow run was refused, nothing ran: {error}")
        zoo = read_catalog_for_flow(chosen.catalog, trust_code=chosen.trust_code, scheduler=chosen.scheduler)
        progress = StageProgress(report_progress)
        with chdir(work_folder(zoo)), open_run(zoo, progress, announce=announce) as run:
            # A stage is tried again and goes on where it stopped; the flow is not, since a limit stays broken.
            try:
                outcome = audit_zoo(run, parameters.promote, partial(as_task, retries=1))
            except TooLargeError as error:
                return Failed(name="TooLarge", message=str(error), data=error)
            write_artifacts(run.atlas_folder, outcome.run, zoo.hidden)
        if outcomes is not None:
            outcomes.append(outcome)
        return report_result(outcome.audit, str(zoo.root), zoo.hidden)

    return audit


def report_result(audit: Audit, zoo: str, hidden: HiddenValues = NOTHING_HIDDEN) -> State[Any]:
    """Emit the event and create the artifacts; return the state, `ThresholdBroken` if an enforced check failed."""
    emit_event(
        _EVENTS[audit.verdict],
        resource={"prefect.resource.id": f"lfm-atlas.atlas.{audit.atlas[:12]}", "prefect.resource.name": zoo},
        payload={"sentence": audit.sentence, "folder": hidden(str(audit.folder)), "atlas": audit.atlas},
    )
    create_markdown_artifact(hidden(audit_markdown(audit)), key="lfm-atlas-audit", description=audit.sentence)
    write_checks(
        [
            {"check": one.name, "status": one.status, "enforced": one.enforced, "found": hidden(one.message)}
            for one in audit.checks
        ],
        "lfm-atlas-audit-checks",
        audit.sentence,
    )
    write_link(audit.folder / "audit.html", "lfm-atlas-audit-page", "The audit, on the machine of the run", hidden)
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
