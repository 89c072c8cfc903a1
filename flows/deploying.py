"""Registers audits with a Prefect server: work pool, deployment with its schedule, automations."""

import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.schedules import CronSchedule
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from ruamel.yaml import YAML

SUBJECT = "lfm-atlas: {{ automation.name }}"
BODY = (
    "{{ event.payload.sentence or event.event }} ({{ event.resource['prefect.resource.name'] or event.resource.id }})"
)


@dataclass(frozen=True)
class Deployment:
    """One audit on a schedule: ``cron`` is in UTC; ``notify`` is the slug of a notification block, or empty."""

    name: str
    catalog: Path
    pool: str
    cron: str
    notify: str = ""


def register(deployment: Deployment, files: Path) -> None:
    """Register everything, in the place of what is there; ``files``: folder of prefect.yaml and automations.yaml."""
    check_cron(deployment.cron)
    with get_client(sync_client=True) as client:
        with suppress(ObjectAlreadyExists):  # of whatever type: its owner knows
            client.create_work_pool(WorkPoolCreate(name=deployment.pool, type="process"))
        block = _block_id(client, deployment.notify) if deployment.notify else None
        _deploy(deployment, files / "prefect.yaml")
        for content in YAML(typ="safe").load(files / "automations.yaml")["automations"]:
            if block is not None:
                content["actions"] = [_told(action, block) for action in content["actions"]]
            for former in client.read_automations_by_name(content["name"]):
                client.delete_automation(former.id)
            client.create_automation(AutomationCore.model_validate(content))


def check_cron(cron: str) -> None:
    """Raise ValueError if ``cron`` is no time that Prefect understands."""
    try:
        CronSchedule(cron=cron)
    except ValueError as error:
        needs = "minute, hour, day, month and weekday, such as '17 2 * * *'"
        raise ValueError(f"found --cron {cron!r}, needs {needs}") from error


def _deploy(deployment: Deployment, file: Path) -> None:
    variables = {
        "LFM_ATLAS_NAME": deployment.name,
        "LFM_ATLAS_CATALOG": str(deployment.catalog),
        "LFM_ATLAS_HOME": str(deployment.catalog.parent),
        "LFM_ATLAS_POOL": deployment.pool,
        "LFM_ATLAS_CRON": deployment.cron,
    }
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(file)]
    done = subprocess.run(  # noqa: S603 - our own interpreter
        command, env=os.environ | variables, cwd=deployment.catalog.parent, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"prefect deploy failed: {(done.stderr or done.stdout).strip()[-2000:]}")


def _block_id(client: SyncPrefectClient, slug: str) -> str:
    kind, _, name = slug.partition("/")
    with suppress(ObjectNotFound):  # no such kind of block: told below
        for document in client.read_block_documents_by_type(kind):
            if document.name == name:
                return str(document.id)
    raise LookupError(f"found no block {slug!r} on the server, needs a notification block: prefect block ls shows them")


def _told(action: dict[str, Any], block: str) -> dict[str, Any]:
    if action["type"] != "do-nothing":
        return action
    return {"type": "send-notification", "block_document_id": block, "subject": SUBJECT, "body": BODY}
