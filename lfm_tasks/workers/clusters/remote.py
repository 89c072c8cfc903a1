"""Workers of a cluster that is not this process's own: checked before they work, and waited for."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from distributed import Client, WorkerPlugin

from lfm_tasks import __version__
from lfm_tasks.catalog import Catalog
from lfm_tasks.workers.pool import ClusterError, Job, JobFailure, Result, quieten, run_in_order
from lfm_tasks.workers.resources import memory_limit, worker_sizes

# What a client takes to reach the scheduler, for as long as the cluster is open.
Opened = AbstractContextManager[Mapping[str, Any]]

# Kind of cluster -> its package, which is the extra of the same name; none for what Dask itself brings.
EXTRAS = {"address": "", "slurm": "dask-jobqueue", "kubernetes": "dask-kubernetes", "gateway": "dask-gateway"}


def opener(catalog: Catalog) -> Callable[[], Opened]:
    """Return what opens the catalog's cluster; `ClusterError` if its extra is not installed."""
    kind = catalog.cluster.type
    try:
        engine = import_module(f"lfm_tasks.workers.clusters.{kind}")
    except ImportError as error:
        needs = f'install it: python -m pip install "lfm-atlas[{kind}]"'
        raise ClusterError(f"cluster.type {kind} needs {EXTRAS[kind]}, which is not installed: {needs}") from error
    return lambda: _opened(engine.open_cluster(catalog), kind)


@contextmanager
def _opened(cluster: Opened, kind: str) -> Iterator[Mapping[str, Any]]:
    """Give the same; what the library raises while it starts the cluster becomes a sentence."""
    with ExitStack() as closing:
        try:
            reached = closing.enter_context(cluster)
        except ClusterError:
            raise
        except Exception as error:  # the libraries have no common class of errors
            raise ClusterError(f"the {kind} cluster could not be started ({type(error).__name__}: {error})") from error
        yield reached


CONNECT_SECONDS = 60


class RemoteDask:
    """A cluster that a catalog names, opened with the first job, or to ask how large its workers are."""

    def __init__(self, catalog: Catalog) -> None:
        self._said_limit = memory_limit(catalog)
        self.peak_bytes = 0
        self._open: Callable[[], Opened] = opener(catalog)
        self._store = (catalog.root / catalog.atlas.store).absolute()
        self._remote = catalog.atlas.remote or ""
        self._wait_seconds: int = getattr(catalog.cluster, "wait_seconds")  # noqa: B009 - all kinds but local have it
        self._closing = ExitStack()
        self._reached: Any = None

    @property
    def memory_limit(self) -> int | None:
        """Bytes that a worker may take, as the catalog says; else what the largest declares, None if one does not."""
        if self._said_limit is not None:
            return self._said_limit
        with connected(self._at(), self._wait_seconds) as client:
            declared = worker_sizes(client)
        known = [size for size in declared if size is not None]
        return max(known) if len(known) == len(declared) else None

    def run(
        self, function: Callable[[Job], Result], jobs: Sequence[Job], needs: Sequence[int] = ()
    ) -> Iterator[tuple[int, Result | JobFailure]]:
        """Yield results as they finish. A job that keeps killing its worker comes back as `JobFailure`."""
        if not jobs:
            return
        for number, (result, peak) in run_in_order(self._connected, function, jobs, needs):
            self.peak_bytes = max(self.peak_bytes, peak)
            yield number, result

    def close(self) -> None:
        """Stop what was started."""
        self._closing.close()

    def _at(self) -> Any:
        if self._reached is None:
            quieten()
            self._reached = self._closing.enter_context(self._open())
        return self._reached

    @contextmanager
    def _connected(self) -> Iterator[Client]:
        with connected(self._at(), self._wait_seconds) as client:
            register(client, Readiness(str(self._store), self._remote, (self._store / "lock").read_text()))
            yield client


class Readiness(WorkerPlugin):  # type: ignore[misc]
    """Checks each worker, those that come later, too: same version, one thread, and it sees the store.

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
                f"worker {worker.address} has lfm-atlas {__version__}, needs {self.version} as the run has: "
                "install the same packages on all machines"
            )
        if worker.state.nthreads != 1:
            raise ClusterError(
                f"worker {worker.address} has {worker.state.nthreads} threads, needs 1 for the same bits on every "
                "machine: start dask worker --nthreads 1 --nworkers N"
            )
        if self.remote:
            _check_reach(worker.address, self.remote)
        else:
            self._check_sight(worker.address)
        threadpool_limits(1)

    def _check_sight(self, worker: str) -> None:
        try:
            seen = (Path(self.store) / "lock").read_text()
        except OSError:
            seen = ""
        if seen != self.lock:
            raise ClusterError(
                f"worker {worker} does not see the store {self.store}, needs it at this path: put the "
                "catalog's folder on a file system that all machines share"
            )


def _check_reach(worker: str, remote: str) -> None:
    from lfm_tasks.stores.remote import read_object

    try:
        read_object(f"{remote}/lock")
    except Exception as error:  # file systems of fsspec have no common class of errors
        raise ClusterError(
            f"worker {worker} cannot read {remote} ({type(error).__name__}: {error}), needs the extra remote and the "
            "same AWS_... variables as the run"
        ) from error


@contextmanager
def connected(reached: Any, wait_seconds: int) -> Iterator[Client]:
    """Give a client of a scheduler that has a worker; `ClusterError` if it cannot be reached or none comes."""
    # A fresh client for each stage: one that has seen a KilledWorker may hang.
    try:
        client = Client(**reached, set_as_default=False, timeout=CONNECT_SECONDS)
    except (OSError, TimeoutError, ValueError, RuntimeError) as error:
        where = reached.get("scheduler_file") or getattr(reached.get("address"), "name", reached.get("address"))
        why = " ".join(str(error.__cause__ or error).split())[:300]
        message = f"the scheduler {where} cannot be reached ({type(error).__name__}: {why})"
        raise ClusterError(f"{message}: check its address, that it runs, and the certificates") from error
    with client:
        try:
            client.wait_for_workers(1, timeout=wait_seconds)
        except TimeoutError as error:
            raise ClusterError(
                f"no worker came within {wait_seconds} s: look at the queue and at the workers' logs, or raise "
                "cluster.wait_seconds"
            ) from error
        yield client


def register(client: Client, plugin: Readiness) -> None:
    """Have every worker checked, now and later; `ClusterError` naming the first that is not fit."""
    try:
        client.register_plugin(plugin)
    except ClusterError:
        raise
    except Exception as error:  # whatever a worker raises that cannot even load the check
        needs = "install lfm-atlas and the same packages on all machines"
        raise ClusterError(f"a worker cannot take work ({type(error).__name__}: {error}): {needs}") from error
