"""The Prefect server of a run: the user's own, or one that is started here and ends with the run.

This module imports nothing of Prefect: Prefect reads the environment when it is imported, and its import takes as long
as the server needs to start.
"""

import ctypes
import logging
import os
import secrets
import shlex
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, chdir, contextmanager
from functools import partial
from pathlib import Path

from lfm_atlas.console import CRASH, EMPTY_FOLDER, environment, print_err
from lfm_atlas.prefect_settings import PREFECT_DEFAULTS as PREFECT_DEFAULTS
from lfm_atlas.prefect_settings import set_prefect_defaults, settings_of_run, variables_of_server
from lfm_atlas.proxies import unusable_proxies
from lfm_tasks.workers.loopback import check_loopback

START_SECONDS = 120.0
# In the server's folder: the secret that a served API answers to.
SECRET_FILE = "api_auth"  # noqa: S105 - the name of a file
_RETRY_HINT = "run again, what was finished is kept; --no-prefect needs no server"
_PR_SET_PDEATHSIG = 1

# The server gets its socket from the run: nobody else can take the port between the choice and the start.
# Beside its API, which wants the secret, Prefect's server tells everybody its settings and its schema. This one serves
# nothing but the API and, where a person wants it, the pages of the interface, which ask for the secret.
_SERVER = """
import socket, sys, uvicorn

HAS_PAGES, SCHEMAS = sys.argv[3:] == ["pages"], ("/docs", "/redoc", "/openapi.json")

def create_app():
    from prefect.server.api.server import create_app
    served = create_app()

    async def app(scope, receive, send):
        path = scope.get("path", "")
        is_page = HAS_PAGES and scope["type"] == "http" and not path.startswith(SCHEMAS)
        if scope["type"] == "lifespan" or path.startswith("/api/") or is_page:
            await served(scope, receive, send)
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body"})
        else:
            await send({"type": "websocket.close"})

    return app

config = uvicorn.Config(
    create_app, factory=True, log_level="error", timeout_keep_alive=120, timeout_graceful_shutdown=3
)
server = uvicorn.Server(config)
server.run(sockets=[socket.socket(fileno=int(sys.argv[1]))])
sys.exit(0 if server.started else 3)
"""


@contextmanager
def prefect_server(
    home: Path,
    *,
    with_schedules: bool = False,
    with_pages: bool = False,
    before_start: Callable[[], object] = lambda: None,
) -> Iterator[str]:
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
    with_pages
        Start the whole server with its interface, see `pages_of`; its users log in by that secret.
    before_start
        Called before a server is started, where Prefect may be imported; what it raises comes through.

    Raises
    ------
    RuntimeError
        If this machine does not reach its own loopback, or ``home`` belongs to another user.
    """
    set_prefect_defaults()
    home = home.absolute()
    with chdir(EMPTY_FOLDER):
        if address := os.environ.get("PREFECT_API_URL"):
            with environment(dict.fromkeys(unusable_proxies(), "")):
                before_start()
                yield address
            return
        _make_private(home, with_schedules=with_schedules)
        secret = f"lfm-atlas:{secrets.token_urlsafe(32)}"
        check_loopback()
        with socket.socket() as listener, ExitStack() as settings:
            listener.bind(("127.0.0.1", 0))
            address = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
            settings.enter_context(environment({**settings_of_run(home, secret), "PREFECT_API_URL": address}))
            before_start()
            is_whole = with_schedules or with_pages
            variables = variables_of_server(home, secret, with_schedules=is_whole, pages_of=address * with_pages)
            process = _start(home, listener, variables, with_pages=with_pages)
            listener.close()
            ended = threading.Event()
            threading.Thread(target=_exit_when_server_ends, args=(process, ended, home), daemon=True).start()
            if is_whole:
                _write_secret(home / SECRET_FILE, secret)
            try:
                yield address
            finally:
                _send_logs()
                ended.set()
                (home / SECRET_FILE).unlink(missing_ok=True)
                _stop(process)


def pages_of(address: str) -> str:
    """Return where the interface of the server is whose API has this address."""
    return address.removesuffix("/api") + "/"


def pages_sentence(address: str, secret_file: Path | None) -> str:
    """Return where the interface is, and how to log in; ``secret_file`` is None at a server of the user."""
    if secret_file is None:
        return f"Prefect's interface: {os.environ.get('PREFECT_UI_URL') or pages_of(address)}"
    password = f"its password is what this prints: cat {shlex.quote(str(secret_file.absolute()))}"
    return f"Prefect's interface, until this command ends: {pages_of(address)}; {password}"


def _send_logs() -> None:
    """Send what Prefect has logged while its server still listens: at exit it would print that nobody does."""
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        for handler in logging.getLogger(name).handlers:
            handler.flush()


def _make_private(home: Path, *, with_schedules: bool) -> None:
    """Make ``home`` where it is missing, and take the rights of all other users to it and to what is in it.

    RuntimeError if it belongs to another user, or if others could change the records, which say what a schedule runs.
    """
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    status = home.lstat()
    is_others = not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid()
    if is_others or (with_schedules and status.st_mode & 0o022):
        problem = f"got {home}, which another user can change, expected a folder that only you can write to"
        advice = "Move it away, with the records of earlier audits in it, then start again"
        raise RuntimeError(f"{problem}. {advice}{'' if with_schedules else '; --no-prefect needs none'}.")
    home.chmod(0o700)
    for folder, folders, files in os.walk(home):
        for names, rights in ((folders, 0o700), (files, 0o600)):
            for path in (Path(folder, name) for name in names):
                # A link's target may be anybody's; what others put there, before it was private, stays theirs.
                if not path.is_symlink() and path.lstat().st_uid == os.geteuid():
                    path.chmod(rights)


def _write_secret(path: Path, secret: str) -> None:
    """Write a new file that only this user can read, whatever lies or links there."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "w", encoding="ascii") as file:
        file.write(secret)


def wait_until_ready(address: str) -> None:
    """Return when the server at ``address`` on this machine answers; RuntimeError if not within `START_SECONDS`.

    No proxy is used, whatever the environment sets. For a server of the user there is `find_user_server`.
    """
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            with opener.open(f"{address}/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    message = f"got no answer from the Prefect server at {address} within {START_SECONDS:.0f} s, expected one"
    raise RuntimeError(f"{message}. {_RETRY_HINT[0].upper()}{_RETRY_HINT[1:]}")


def _start(
    home: Path, listener: socket.socket, variables: dict[str, str], *, with_pages: bool
) -> subprocess.Popen[bytes]:
    """Start the server on a socket that is bound already."""
    # The folder is for who looks at the processes.
    command = [sys.executable, "-P", "-c", _SERVER, str(listener.fileno()), str(home), *["pages"] * with_pages]
    with open(os.open(home / "server.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600), "ab") as log:
        # A process group of its own: Ctrl+C reaches the whole group of the terminal, and the run still has to report to
        # the server how it ended.
        return subprocess.Popen(  # noqa: S603 - our own interpreter
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=variables, cwd=EMPTY_FOLDER, process_group=0,
            pass_fds=(listener.fileno(),), preexec_fn=partial(_die_with_parent, os.getpid()), umask=0o077,
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
        message = f"got the end of this run's Prefect server (exit code {code}), expected it to run"
        print_err(f"{message}. See {home / 'server.log'}; {_RETRY_HINT}")
        sys.stderr.flush()
        os._exit(CRASH)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
