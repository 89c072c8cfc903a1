"""Dask's processes on this machine, closed to its other users.

Who reaches a Dask server runs code as its owner, and every user of a machine reaches loopback. So all servers of a run
speak TLS and demand the run's own certificate, and their files lie in a private folder. None of them serves pages but
the scheduler of a run that wants a dashboard, whose address holds a secret and shows what runs, but changes nothing.
"""

import hmac
import logging
import os
import secrets
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import dask
import distributed
from distributed import Security, SpecCluster
from distributed.node import ServerNode
from tornado.web import ErrorHandler

from lfm_tasks.sources.checkpoints.devices import OWN_GPU, n_gpus
from lfm_tasks.workers.resources import offered_gpus


def start_cluster(n_workers: int, memory_limit: int | None, *, with_dashboard: bool = False) -> SpecCluster:
    """Start a scheduler in this process, and worker processes of one thread each, on loopback; each GPU has a worker.

    The certificate and its key are new for each cluster. A worker gets them through the pipe that starts it: they
    stand in no argument, no environment variable, and in no file that lasts.

    Parameters
    ----------
    n_workers
        How many workers to start.
    memory_limit
        Bytes that a worker may take; None: unlimited.
    with_dashboard
        Whether the scheduler serves its pages, at `dashboard_address`; needs Bokeh.

    Raises
    ------
    RuntimeError
        If a worker dies while it starts.
    """
    common = {
        "host": "127.0.0.1",
        "protocol": "tls://",
        "security": Security.temporary(),
        "local_directory": str(scratch_folder()),
        "dashboard": False,
    }
    options = common | {
        "worker_class": ClosedWorker,
        "nthreads": 1,
        "memory_limit": memory_limit,
        "silence_logs": logging.ERROR,
    }
    offers = {number: offered_gpus(number, n_workers, n_gpus()) for number in range(n_workers)}
    # A worker that is lost for good comes back under its number, with its GPU.
    workers = {
        number: {
            "cls": ClosedNanny,
            "options": options | ({"resources": offer, "env": {OWN_GPU: str(number)}} if offer else {}),
        }
        for number, offer in offers.items()
    }
    pages = {"dashboard": True, "dashboard_address": "127.0.0.1:0", "http_prefix": f"/{secrets.token_urlsafe(24)}"}
    return SpecCluster(
        scheduler={"cls": WatchedScheduler, "options": common | pages}
        if with_dashboard
        else {"cls": ClosedScheduler, "options": common},
        workers=workers,
        security=common["security"],
        silence_logs=logging.ERROR,
    )


def dashboard_address(cluster: SpecCluster) -> str:
    """Return the address of the dashboard of a cluster that was started with one."""
    scheduler = cluster.scheduler
    prefix = str(scheduler.http_prefix).strip("/")
    return f"http://127.0.0.1:{scheduler.http_server.port}/{prefix}/status"


def scratch_folder() -> Path:
    """Return a folder for Dask's files that only this user can enter.

    The user who first creates Dask's default, ``/tmp/dask-scratch-space``, owns it and could replace what workers spill
    there, which is unpickled, and modules there, which are imported.
    """
    parent = Path(dask.config.get("temporary-directory") or tempfile.gettempdir()).absolute()
    parent.mkdir(parents=True, exist_ok=True)
    folder = parent / f"lfm-atlas-{os.geteuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    is_private = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077
    return folder if is_private else Path(tempfile.mkdtemp(prefix="lfm-atlas-", dir=parent))


class ClosedServer(ServerNode):  # type: ignore[misc]
    """A Dask server without a port for pages, which answers everybody, and without modules in its scratch folder."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # Dask puts the folder first on the path of imports.
        while self.local_directory in sys.path:
            sys.path.remove(self.local_directory)

    def start_http_server(self, *arguments: Any, **options: Any) -> None:
        """Do nothing: a server without pages needs no port for them."""


class ClosedScheduler(ClosedServer, distributed.Scheduler):  # type: ignore[misc]
    """The scheduler of a run, in the run's process."""


class WatchedScheduler(ClosedScheduler):
    """The scheduler of a run that wants a dashboard: its pages lie below a secret path."""

    def __init__(self, *arguments: Any, http_prefix: str, **options: Any) -> None:
        self.http_prefix = http_prefix
        super().__init__(*arguments, http_prefix=http_prefix, **options)

    def start_http_server(self, *arguments: Any, **options: Any) -> None:
        """Start the server of the pages; outside the secret path there is nothing.

        Dask has a list of all pages and a redirect to the first one there, which would tell the path.
        """
        ServerNode.start_http_server(self, *arguments, **options)
        application, secret = self.http_application, self.http_prefix.strip("/").encode()
        find_handler = application.find_handler

        def find_below_secret(request: Any, **more: Any) -> Any:
            if hmac.compare_digest(request.path.split("/")[1].encode(), secret):
                return find_handler(request, **more)
            return application.get_handler_delegate(request, ErrorHandler, {"status_code": 404})

        application.find_handler = find_below_secret


class ClosedNanny(ClosedServer, distributed.Nanny):  # type: ignore[misc]
    """Starts one worker, and restarts it when it dies, in the run's process."""


class ClosedWorker(ClosedServer, distributed.Worker):  # type: ignore[misc]
    """A worker of a run, in a process of its own."""
