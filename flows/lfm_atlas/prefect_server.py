"""The Prefect server of a run: the user's own, or one that is started here and ends with the run.

This module imports nothing of Prefect: Prefect reads the environment when it is imported, and its import takes as long
as the server needs to start.
"""

import ctypes
import os
import secrets
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from functools import partial
from pathlib import Path

from lfm_atlas.console import CRASH, EMPTY_FOLDER, environment, print_err, safe_children

START_SECONDS = 120.0
# In the server's folder: the secret that a served API answers to.
SECRET_FILE = "api_auth"  # noqa: S105 - the name of a file
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


# Prefect's settings that are paths, and those of the libraries that it reaches a server by.
_PATHS = (
    "PREFECT_HOME",
    "PREFECT_PROFILES_PATH",
    "PREFECT_LOGGING_CONFIG_PATH",
    "PREFECT_LOGGING_SETTINGS_PATH",
    "PREFECT_LOCAL_STORAGE_PATH",
    "PREFECT_API_SSL_CERT_FILE",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "TMPDIR",
)

# The server gets its socket from the run: nobody else can take the port between the choice and the start.
_SERVER = """
import socket, sys, uvicorn
config = uvicorn.Config(
    "prefect.server.api.server:create_app", factory=True, log_level="error", timeout_keep_alive=120,
    timeout_graceful_shutdown=3,
)
server = uvicorn.Server(config)
server.run(sockets=[socket.socket(fileno=int(sys.argv[1]))])
sys.exit(0 if server.started else 3)
"""


@contextmanager
def prefect_server(home: Path, *, with_schedules: bool = False) -> Iterator[str]:
    """Yield the address of a Prefect API: the user's own (``PREFECT_API_URL``), or that of a server started here.

    The server keeps its records in ``home``, listens on 127.0.0.1 only, and dies with this process, however that dies.
    This process dies with the server, too: Prefect would try to reach it for minutes at every step. Other users of the
    machine reach the port, too: the server answers only to a secret, which this process and its children have in their
    environment.

    Enter this context before ``prefect`` is imported, and call `wait_until_ready` before the first flow. Inside it the
    working directory is an empty folder: Prefect reads settings from where it works.

    Parameters
    ----------
    home
        Folder for the database and the log of the server.
    with_schedules
        Start the whole server, with scheduler and automations; without it, the lean one that a single run needs. The
        secret lies in `SECRET_FILE` of ``home``, too, for other programs of the same user.
    """
    set_prefect_defaults()
    home = home.absolute()
    with chdir(EMPTY_FOLDER):
        if address := os.environ.get("PREFECT_API_URL"):
            yield address
            return
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        if with_schedules:
            _check_owner(home)
        secret = f"lfm-atlas:{secrets.token_urlsafe(32)}"
        with socket.socket() as listener, environment(_settings(home, secret)):
            listener.bind(("127.0.0.1", 0))
            process = _start(home, listener, secret, with_schedules)
            port = listener.getsockname()[1]
            listener.close()
            ended = threading.Event()
            threading.Thread(target=_exit_when_server_ends, args=(process, ended, home), daemon=True).start()
            os.environ["PREFECT_API_URL"] = address = f"http://127.0.0.1:{port}/api"
            if with_schedules:
                _write_secret(home / SECRET_FILE, secret)
            try:
                yield address
            finally:
                ended.set()
                del os.environ["PREFECT_API_URL"]
                (home / SECRET_FILE).unlink(missing_ok=True)
                _stop(process)


def _settings(home: Path, secret: str) -> dict[str, str]:
    """Return Prefect's settings for this process and its server; settings that lie in ``home`` do not count."""
    settings = {"PREFECT_HOME": str(home), "PREFECT_API_AUTH_STRING": secret}
    for name, file in (("PREFECT_PROFILES_PATH", "profiles.toml"), ("PREFECT_LOGGING_SETTINGS_PATH", "logging.yml")):
        settings[name] = os.environ.get(name, str(EMPTY_FOLDER / file))
    return settings


def _check_owner(home: Path) -> None:
    """Raise RuntimeError unless ``home`` belongs to this user alone: the records in it say what a schedule runs."""
    status = home.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        problem = f"got {home}, which another user can change, expected a folder that only you can write to"
        raise RuntimeError(f"{problem}. Move it away, with the records of earlier audits in it, then start again.")


def _write_secret(path: Path, secret: str) -> None:
    """Write a new file that only this user can read, whatever lies or links there."""
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "w") as file:
        file.write(secret)


def set_prefect_defaults() -> None:
    """Set `PREFECT_DEFAULTS` in the environment, except for what is set there; call it before Prefect is imported.

    Paths that the user has set become absolute: Prefect works in another folder than the one where the command starts.
    """
    for name, value in PREFECT_DEFAULTS.items():
        os.environ.setdefault(name, value)
    for name in _PATHS:
        path = os.environ.get(name, "")
        if path and not path.startswith("~"):
            os.environ[name] = os.path.abspath(path)


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


def _start(home: Path, listener: socket.socket, secret: str, with_schedules: bool) -> subprocess.Popen[bytes]:
    """Start the server on a socket that is bound already."""
    # The folder is for who looks at the processes.
    command = [sys.executable, "-P", "-c", _SERVER, str(listener.fileno()), str(home)]
    variables = os.environ | safe_children() | {"PREFECT_UI_ENABLED": "false", "PREFECT_SERVER_API_AUTH_STRING": secret}
    if not with_schedules:
        variables["PREFECT__SERVER_EPHEMERAL"] = "1"  # Prefect's lean form: no scheduler, no automations
    with (home / "server.log").open("ab") as log:
        # A process group of its own: Ctrl+C reaches the whole group of the terminal, and the run still has to report to
        # the server how it ended.
        return subprocess.Popen(  # noqa: S603 - our own interpreter
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=variables, cwd=EMPTY_FOLDER, process_group=0,
            pass_fds=(listener.fileno(),), preexec_fn=partial(_die_with_parent, os.getpid()),
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
