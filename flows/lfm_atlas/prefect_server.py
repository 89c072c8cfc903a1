"""The Prefect server of a run, deployments of the audit, and audits served on a schedule."""

import asyncio
import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.schedules import CronSchedule
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.runner import Runner
from prefect.types.entrypoint import EntrypointType
from ruamel.yaml import YAML

from lfm_atlas.audit import audit
from lfm_atlas.console import CRASH, print_err

START_SECONDS = 120.0
_WAYS_ON = "run again, what was finished is kept; --no-prefect needs no server"
_PR_SET_PDEATHSIG = 1

QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    # With the defaults, records of fast tasks are lost and tracebacks printed at exit.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "200",
    # Whole seconds: Prefect rounds down, and with 0 the server spins on one core.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "PREFECT_LOGGING_LEVEL": "ERROR",
    "PREFECT_SHOW_STARTUP_MESSAGES": "false",
}


@contextmanager
def prefect_server(home: Path, *, with_schedules: bool = False) -> Iterator[str]:
    """Give the address of a Prefect API: the user's own (``PREFECT_API_URL``), or one started here.

    ``with_schedules``: the whole server, with its scheduler and automations; without, the lean form of it.

    Ours keeps its records in ``home``, listens on 127.0.0.1 only, and dies with this process, however that dies. This
    process dies with it, too: Prefect would try to reach it for minutes at every step.
    To be entered before ``prefect`` is imported.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if address := os.environ.get("PREFECT_API_URL"):
        yield address
        return
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.environ["PREFECT_HOME"] = str(home)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = _start(home, port, with_schedules)
    os.environ["PREFECT_API_URL"] = address = f"http://127.0.0.1:{port}/api"
    ended = threading.Event()
    threading.Thread(target=_leave_without, args=(process, ended, home), daemon=True).start()
    try:
        yield address
    finally:
        ended.set()
        del os.environ["PREFECT_API_URL"]
        _stop(process)


def wait_until_ready(address: str) -> None:
    """Return when the API answers; raise TimeoutError if it does not."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=2):  # noqa: S310 - our own loopback address
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    found = f"found no answer from the Prefect server at {address} within {START_SECONDS:.0f} s"
    raise RuntimeError(f"{found}, needs one: {_WAYS_ON}")


def _start(home: Path, port: int, with_schedules: bool) -> subprocess.Popen[bytes]:
    command = [
        sys.executable, "-m", "uvicorn", "--app-dir", str(home), "--factory", "prefect.server.api.server:create_app",
        "--host", "127.0.0.1", "--port", str(port), "--log-level", "error", "--timeout-keep-alive", "120",
        "--timeout-graceful-shutdown", "3",
    ]  # fmt: skip
    environment = os.environ | {"PREFECT_UI_ENABLED": "false"}
    if not with_schedules:
        environment["PREFECT__SERVER_EPHEMERAL"] = "1"  # Prefect's lean form: no scheduler, no automations
    with (home / "server.log").open("ab") as log:
        # A group of its own: Ctrl+C goes to all of the terminal's, and the run has to tell the server how it ended.
        return subprocess.Popen(  # noqa: S603 - our own interpreter
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, process_group=0,
            preexec_fn=partial(_die_with_parent, os.getpid()),
        )  # fmt: skip


def _die_with_parent(parent: int) -> None:
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it was killed before the line above
            os._exit(1)


def _leave_without(process: "subprocess.Popen[bytes]", ended: threading.Event, home: Path) -> None:
    """Wait for the server's end; where it was not wanted, say so and end this process: the next run goes on."""
    code = process.wait()
    if not ended.is_set():
        found = f"found the Prefect server of this run ended (exit {code}), needs it"
        print_err(f"{found}: see {home / 'server.log'}; {_WAYS_ON}")
        sys.stderr.flush()
        os._exit(CRASH)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


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


def run_on_schedule(name: str, cron: str, parameters: dict[str, Any]) -> None:
    """Run the audit at the times of ``cron`` (UTC), one at a time, until SIGINT or SIGTERM."""
    stopped_by: list[int] = []

    async def serve() -> None:
        loop, serving = asyncio.get_running_loop(), asyncio.current_task()

        def stop(number: int, frame: object = None) -> None:
            # The runner's own handler waits for the loop that it interrupts, and so for ever. A SIGINT raised here
            # would be lost where a shell has it ignored, as for all that it starts in the background.
            stopped_by.append(number)
            if serving is not None:
                loop.call_soon_threadsafe(serving.cancel)

        runner = Runner(name=name, limit=1, pause_on_shutdown=True)
        runner.handle_sigterm = stop  # type: ignore[method-assign]
        await runner.aadd_flow(
            audit,  # type: ignore[arg-type]
            name=name,
            cron=cron,
            parameters={"parameters": parameters},
            tags=["lfm-atlas", "audit"],
            concurrency_limit=1,
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        await runner.start()

    try:
        asyncio.run(serve())
    except asyncio.CancelledError:
        if stopped_by:
            sys.exit(128 + stopped_by[0])
        raise
