"""The Prefect server of a run: the user's own, or one that is started here and ends with the run.

This module imports nothing of Prefect: Prefect reads the environment when it is imported, and its import takes as long
as the server needs to start.
"""

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
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from lfm_atlas.console import CRASH, print_err

START_SECONDS = 120.0
_RETRY_HINT = "run again, what was finished is kept; --no-prefect needs no server"
_PR_SET_PDEATHSIG = 1

# Settings that the user has not chosen: no telemetry, no messages, no lost records.
PREFECT_DEFAULTS = {
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
    """Yield the address of a Prefect API: the user's own (``PREFECT_API_URL``), or that of a server started here.

    The server keeps its records in ``home``, listens on 127.0.0.1 only, and dies with this process, however that dies.
    This process dies with the server, too: Prefect would try to reach it for minutes at every step.

    Enter this context before ``prefect`` is imported, and call `wait_until_ready` before the first flow.

    Parameters
    ----------
    home
        Folder for the database and the log of the server.
    with_schedules
        Start the whole server, with scheduler and automations; without it, the lean one that a single run needs.
    """
    set_prefect_defaults()
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
    threading.Thread(target=_exit_when_server_ends, args=(process, ended, home), daemon=True).start()
    try:
        yield address
    finally:
        ended.set()
        del os.environ["PREFECT_API_URL"]
        _stop(process)


def set_prefect_defaults() -> None:
    """Set `PREFECT_DEFAULTS` in the environment, except for what is set there; call it before Prefect is imported."""
    for name, value in PREFECT_DEFAULTS.items():
        os.environ.setdefault(name, value)


def wait_until_ready(address: str) -> None:
    """Return when the API at ``address`` answers; RuntimeError if it does not within `START_SECONDS`."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=2):  # noqa: S310 - our own loopback address
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    message = f"found no answer from the Prefect server at {address} within {START_SECONDS:.0f} s, needs one"
    raise RuntimeError(f"{message}: {_RETRY_HINT}")


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
        # A process group of its own: Ctrl+C reaches the whole group of the terminal, and the run still has to report to
        # the server how it ended.
        return subprocess.Popen(  # noqa: S603 - our own interpreter
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, process_group=0,
            preexec_fn=partial(_die_with_parent, os.getpid()),
        )  # fmt: skip


def _die_with_parent(parent: int) -> None:
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it was killed before the line above
            os._exit(1)


def _exit_when_server_ends(process: "subprocess.Popen[bytes]", ended: threading.Event, home: Path) -> None:
    """Wait until the server ends; unless the run ``ended`` before, print an error and exit: the next run goes on."""
    code = process.wait()
    if not ended.is_set():
        message = f"found the Prefect server of this run ended (exit {code}), needs it"
        print_err(f"{message}: see {home / 'server.log'}; {_RETRY_HINT}")
        sys.stderr.flush()
        os._exit(CRASH)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
