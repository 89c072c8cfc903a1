"""Workers of a cluster that a catalog names: the run waits for them, and checks them before they take work."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from distributed import Client, WorkerPlugin

from lfm_tasks import __version__
from lfm_tasks.catalog import Catalog
from lfm_tasks.workers.clusters.opening import OpenCluster, opener
from lfm_tasks.workers.dask_config import DaskSettingsError, dask_settings, honored_settings
from lfm_tasks.workers.pool import ClusterError, Job, JobFailure, Result, run_jobs
from lfm_tasks.workers.resources import memory_limit, worker_sizes

# How long a client waits for an answer of the scheduler, unless the user's Dask settings say so (seconds).
CONNECT_SECONDS = 60


class RemoteDask:
    """A cluster that a catalog names, opened with the first job, or to learn how large its workers are.

    ``announce`` gets the address of its dashboard, once, where the cluster has one.
    """

    def __init__(self, catalog: Catalog, announce: Callable[[str], None] | None = None) -> None:
        self._announce = announce
        self._configured_limit = memory_limit(catalog)
        self.peak_bytes = 0
        try:
            self._settings = honored_settings()
        except DaskSettingsError as error:
            raise ClusterError(str(error)) from error
        self._open: Callable[[], OpenCluster] = opener(catalog)
        self._store = (catalog.root / catalog.atlas.store).absolute()
        self._remote = catalog.atlas.remote or ""
        self._wait_seconds: int = getattr(catalog.cluster, "wait_seconds")  # noqa: B009 - all kinds but local have it
        self._closing = ExitStack()
        self._client_arguments: Mapping[str, Any] | None = None

    @property
    def memory_limit(self) -> int | None:
        """Bytes that a worker may take, as the catalog says; else what the largest declares, None if one does not."""
        if self._configured_limit is not None:
            return self._configured_limit
        with self._client() as client:
            sizes = worker_sizes(client)
        declared = [size for size in sizes if size is not None]
        return max(declared) if len(declared) == len(sizes) else None

    def run(
        self,
        function: Callable[[Job], Result],
        jobs: Sequence[Job],
        needs: Sequence[int] = (),
        devices: Sequence[str] = (),
    ) -> Iterator[tuple[int, Result | JobFailure]]:
        """Yield results as they finish. A job that keeps killing its worker comes back as `JobFailure`."""
        if not jobs:
            return
        for index, (result, peak) in run_jobs(self._connect, function, jobs, needs, devices):
            self.peak_bytes = max(self.peak_bytes, peak)
            yield index, result

    def close(self) -> None:
        """Stop what was started."""
        self._closing.close()

    def _client(self) -> AbstractContextManager[Client]:
        connect_timeout = self._settings.get("distributed.comm.timeouts.connect")
        return connect(self._opened(), self._wait_seconds, connect_timeout)

    @contextmanager
    def _connect(self) -> Iterator[Client]:
        with self._client() as client:
            lock = (self._store / "lock").read_text(encoding="utf-8")
            register(client, Readiness(str(self._store), self._remote, lock))
            if self._announce is not None and client.dashboard_link:
                self._announce(str(client.dashboard_link))
                self._announce = None
            yield client

    def _opened(self) -> Mapping[str, Any]:
        if self._client_arguments is None:
            self._closing.enter_context(dask_settings(self._settings))
            self._client_arguments = self._closing.enter_context(self._open())
        return self._client_arguments


@contextmanager
def connect(
    client_arguments: Mapping[str, Any], wait_seconds: int, connect_timeout: str | float | None = None
) -> Iterator[Client]:
    """Give a client of a scheduler that has a worker; `ClusterError` if it cannot be reached or none comes.

    Parameters
    ----------
    client_arguments
        Where the scheduler is, and the certificates.
    wait_seconds
        How long to wait for the first worker.
    connect_timeout
        How long to wait for the scheduler, as Dask writes it (seconds, or ``30s``); `CONNECT_SECONDS` without it.
    """
    # A fresh client for each stage: one that has seen a KilledWorker may hang.
    try:
        client = ClosingClient(**client_arguments, set_as_default=False, timeout=connect_timeout or CONNECT_SECONDS)
    except (OSError, TimeoutError, ValueError, RuntimeError) as error:
        address = client_arguments.get("address")
        where = client_arguments.get("scheduler_file") or getattr(address, "name", address)
        why = " ".join(str(error.__cause__ or error).split())[:300]
        message = f"the scheduler {where} cannot be reached ({type(error).__name__}: {why})"
        raise ClusterError(f"{message}. Check its address, that it runs, and the certificates") from error
    with client:
        try:
            client.wait_for_workers(1, timeout=wait_seconds)
        except TimeoutError as error:
            raise ClusterError(
                f"no worker came within {wait_seconds} s. Look at the queue and at the workers' logs, or raise "
                "cluster.wait_seconds"
            ) from error
        yield client


class ClosingClient(Client):  # type: ignore[misc]
    """A client that is closed if it cannot start.

    Dask leaves that to the end of Python, where it waits for its stopped event loop, twice as long as for a scheduler.
    """

    def start(self, **kwargs: Any) -> None:
        """Connect to the scheduler."""
        try:
            super().start(**kwargs)
        except Exception:
            self.close()
            raise


def register(client: Client, plugin: "Readiness") -> None:
    """Have every worker checked, now and later; `ClusterError` that names the first worker that is not fit."""
    try:
        client.register_plugin(plugin)
    except ClusterError:
        raise
    except Exception as error:  # whatever a worker raises that cannot even load the check
        needs = "install lfm-atlas and the same packages on all machines"
        raise ClusterError(f"a worker cannot take work ({type(error).__name__}: {error}): {needs}") from error


class Readiness(WorkerPlugin):  # type: ignore[misc]
    """Checks each worker, later ones as well: it has the run's version and one thread, and it sees the store.

    A worker that does not pass takes no work: its start fails.
    """

    name = "lfm-atlas"

    def __init__(self, store: str, remote: str, lock: str) -> None:
        self.store, self.remote, self.lock, self.version = store, remote, lock, __version__

    def setup(self, worker: Any) -> None:
        """Raise `ClusterError` if the worker is not fit to work."""
        from threadpoolctl import threadpool_limits

        if self.version != __version__:
            raise ClusterError(
                f"worker {worker.address} has lfm-atlas {__version__}, expected {self.version} as the run has. "
                "Install the same packages on all machines"
            )
        if worker.state.nthreads != 1:
            raise ClusterError(
                f"worker {worker.address} has {worker.state.nthreads} threads, expected 1 for the same bits on every "
                "machine. Start dask worker --nthreads 1 --nworkers N"
            )
        if self.remote:
            _check_object_store(worker.address, self.remote)
        else:
            self._check_store(worker.address)
        threadpool_limits(1)

    def _check_store(self, worker: str) -> None:
        try:
            lock = (Path(self.store) / "lock").read_text(encoding="utf-8")
        except OSError:
            lock = ""
        if lock != self.lock:
            raise ClusterError(
                f"worker {worker} does not see the store {self.store}, expected it at this path. Put the "
                "catalog's folder on a file system that all machines share"
            )


def _check_object_store(worker: str, remote: str) -> None:
    from lfm_tasks.stores.remote.lock import LOCK
    from lfm_tasks.stores.remote.objects import S3Objects

    try:
        S3Objects(remote).read(LOCK)
    except OSError as error:
        raise ClusterError(
            f"worker {worker} cannot read {remote} ({type(error).__name__}: {error}), expected it to. Install the "
            "extra remote there, and set the AWS_... variables of the run"
        ) from error
