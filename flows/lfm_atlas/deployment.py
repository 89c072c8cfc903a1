"""Audits on a schedule: registered with a Prefect server for its workers, or served by this process."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
from prefect import __version__
from prefect.client.base import ServerType
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.schedules import CronSchedule
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.runner import Runner
from prefect.types.entrypoint import EntrypointType
from prefect.utilities.urls import url_for
from ruamel.yaml import YAML

from lfm_atlas.audit import AuditTarget, audit
from lfm_atlas.console import EMPTY_FOLDER, print_out, safe_children

_SUBJECT = "lfm-atlas: {{ automation.name }}"
_BODY = (
    "{{ event.payload.sentence or event.event }} ({{ event.resource['prefect.resource.name'] or event.resource.id }})"
)


@dataclass(frozen=True)
class Deployment:
    """One audit on a schedule: ``cron`` is in UTC; ``notify`` is the slug of a notification block, or empty."""

    name: str
    target: AuditTarget
    pool: str
    cron: str
    notify: str = ""


def register(deployment: Deployment, files: Path) -> str:
    """Register work pool, deployment and automations, in place of earlier ones of these names.

    Return where Prefect's interface shows the deployment; "" where the settings do not tell.

    Parameters
    ----------
    deployment
        What to audit, where and when.
    files
        Folder of prefect.yaml and automations.yaml.

    Raises
    ------
    LookupError
        If the server has no notification block of this name.
    ValueError
        If ``deployment.cron`` is no schedule, or the server is too old.
    RuntimeError
        If ``prefect deploy`` fails, or the server refuses something.
    """
    check_cron(deployment.cron)
    try:
        return _register(deployment, files)
    except httpx.HTTPError as error:
        reason = " ".join(str(error).split())[:500] or type(error).__name__
        raise RuntimeError(f"the Prefect server did not take the registration ({reason}). Run deploy again") from error


def _register(deployment: Deployment, files: Path) -> str:
    with get_client(sync_client=True) as client:
        _check_version(client)
        with suppress(ObjectAlreadyExists):  # of whatever type: its owner chose it
            client.create_work_pool(WorkPoolCreate(name=deployment.pool, type="process"))
        block = _block_id(client, deployment.notify) if deployment.notify else None
        _deploy(deployment, files / "prefect.yaml")
        for content in YAML(typ="safe").load(files / "automations.yaml")["automations"]:
            if block is not None:
                content["actions"] = [_with_notification(action, block) for action in content["actions"]]
            for former in client.read_automations_by_name(content["name"]):
                client.delete_automation(former.id)
            client.create_automation(AutomationCore.model_validate(content))
        registered = client.read_deployment_by_name(f"audit/{deployment.name}")
        return url_for("deployment", obj_id=registered.id) or ""


def _check_version(client: SyncPrefectClient) -> None:
    """Raise ValueError if the server is older, by a minor version: its automations know less than this client."""
    if client.server_type is ServerType.CLOUD:
        return
    server, ours = (tuple(int(part) for part in text.split(".")[:2]) for text in (client.api_version(), __version__))
    if server < ours:
        needs = f"expected {'.'.join(map(str, ours))} or later. Upgrade the server (run and audit work with this one)"
        raise ValueError(f"got Prefect {client.api_version()} at the server, {needs}")


def check_cron(cron: str) -> None:
    """Raise ValueError if ``cron`` is no schedule that Prefect understands."""
    try:
        CronSchedule(cron=cron)
    except ValueError as error:
        needs = "minute, hour, day, month and weekday, such as '17 2 * * *'"
        raise ValueError(f"got --cron {cron!r}, expected {needs}") from error


def _deploy(deployment: Deployment, file: Path) -> None:
    variables = deployment.target.to_environment() | {
        "LFM_ATLAS_NAME": deployment.name,
        "LFM_ATLAS_POOL": deployment.pool,
        "LFM_ATLAS_CRON": deployment.cron,
    }
    command = [sys.executable, "-P", "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(file)]
    done = subprocess.run(  # noqa: S603 - our own interpreter
        command, env=os.environ | safe_children() | variables, cwd=EMPTY_FOLDER, capture_output=True,
        encoding="utf-8", errors="replace", check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"prefect deploy failed: {(done.stderr or done.stdout).strip()[-2000:]}")


def _block_id(client: SyncPrefectClient, slug: str) -> str:
    kind, _, name = slug.partition("/")
    with suppress(ObjectNotFound):  # no such kind of block: the error is raised below
        for document in client.read_block_documents_by_type(kind):
            if document.name == name:
                return str(document.id)
    raise LookupError(f"got no block {slug!r} on the server, expected one that notifies. List them: prefect block ls")


def _with_notification(action: dict[str, Any], block: str) -> dict[str, Any]:
    """Return a notification by ``block`` in place of an action that does nothing; any other action as it is."""
    if action["type"] != "do-nothing":
        return action
    return {"type": "send-notification", "block_document_id": block, "subject": _SUBJECT, "body": _BODY}


def run_on_schedule(name: str, cron: str, parameters: dict[str, Any]) -> None:
    """Run the audit at the times of ``cron`` (UTC), one at a time, until a signal.

    SIGTERM exits with 143, SIGINT raises KeyboardInterrupt.
    """
    stopped_by: list[int] = []
    serving: list[asyncio.Task[None] | None] = []

    def stop(received: int, frame: FrameType | None = None) -> None:
        # An exception raised in here, while asyncio makes or ends its loop, would leave half a loop. The runner's
        # own handler waits for the loop that it interrupts, and so for ever.
        stopped_by.append(received)
        for task in filter(None, serving):
            task.get_loop().call_soon_threadsafe(task.cancel)

    async def serve() -> None:
        serving.append(asyncio.current_task())
        if stopped_by:  # between the handler and this line
            return
        runner = Runner(name=name, limit=1, pause_on_shutdown=True)
        runner.handle_sigterm = stop  # type: ignore[method-assign]
        registered = await runner.aadd_flow(
            audit,  # type: ignore[arg-type]
            name=name,
            cron=cron,
            parameters=parameters,
            tags=["lfm-atlas", "audit"],
            concurrency_limit=1,
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        if page := url_for("deployment", obj_id=registered):
            print_out(f"in Prefect's interface: {page}")
            sys.stdout.flush()  # a reader of a log waits for this line
        await runner.start()

    with _signals_handled_by(stop):
        try:
            asyncio.run(serve())
        except asyncio.CancelledError:
            if not stopped_by:
                raise
    if stopped_by[:1] == [signal.SIGINT]:
        raise KeyboardInterrupt
    if stopped_by:
        sys.exit(128 + stopped_by[0])


@contextmanager
def _signals_handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Let ``handler`` take SIGTERM and SIGINT inside the block; a SIGINT that is ignored stays so."""
    # A shell has SIGINT ignored in all that it starts in the background.
    numbers = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        numbers.append(signal.SIGINT)
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
