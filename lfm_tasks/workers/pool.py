"""Workers: apply one function to many jobs, in Dask processes or in this one, with one BLAS thread each.

The error of a job never stops the other jobs: it comes back as a `JobFailure`. A cluster starts with the first job, so
a run with nothing to do starts none.
"""

import ctypes
import logging
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, cast

from lfm_tasks.errors import CorruptUnitError, DataError
from lfm_tasks.threads import one_thread
from lfm_tasks.workers.dask_config import DASHBOARD_SETTINGS, DASK_SETTINGS, dask_settings, import_dask
from lfm_tasks.workers.loopback import check_loopback
from lfm_tasks.workers.resources import declare_memory, group_by_request, peak_bytes

logger = logging.getLogger(__name__)

Job = TypeVar("Job")
Result = TypeVar("Result")

# A stage in which no job finishes for this long is stuck (seconds).
STALL_SECONDS = 3600.0
# How often a cluster's start is tried, and how long its end may take (seconds).
N_STARTS = 3
CLOSE_SECONDS = 5.0
# How often the workers are watched (seconds), and at how many checks in a row a worker must be stopped before it is
# ended: half a minute.
WATCH_SECONDS = 2.0
N_STOPPED_CHECKS = 15


class ClusterError(RuntimeError):
    """A cluster that cannot be started or reached, or whose workers cannot work."""


@dataclass(frozen=True)
class JobFailure:
    """Why a job has no result: a reason code and a sentence."""

    reason: str
    message: str


class WorkerDied(JobFailure):
    """The workers that had the job died."""


class Workers(Protocol):
    """Runs one function over jobs, in any order.

    ``peak_bytes``: the most memory that one of them has had so far.
    """

    peak_bytes: int

    @property
    def memory_limit(self) -> int | None:
        """Bytes that one worker (the largest, where they differ) may take; None: unknown."""

    def run(
        self,
        function: Callable[[Job], Result],
        jobs: Sequence[Job],
        needs: Sequence[int] = (),
        devices: Sequence[str] = (),
    ) -> Iterator[tuple[int, Result | JobFailure]]:
        """Yield (index of the job, its result or failure) as the jobs finish.

        Parameters
        ----------
        function
            What a worker does with one job.
        jobs
            The jobs; nothing is started without any.
        needs
            For each job the memory (bytes) that its worker must have; empty if unknown.
        devices
            For each job the device that it runs on, such as ``cpu`` or ``cuda``; empty if all run on CPUs. A GPU has
            one job at a time.

        Raises
        ------
        ClusterError
            If no worker offers a GPU that a job runs on; before the first job starts.
        """
        ...

    def close(self) -> None:
        """Stop what was started."""
        ...


class InProcess:
    """Jobs one after the other in this process: for tests, debugging and very small zoos."""

    def __init__(self, memory_limit: int | None = None) -> None:
        self.memory_limit = memory_limit
        self.peak_bytes = 0

    def run(
        self,
        function: Callable[[Job], Result],
        jobs: Sequence[Job],
        needs: Sequence[int] = (),
        devices: Sequence[str] = (),
    ) -> Iterator[tuple[int, Result | JobFailure]]:
        """Yield results in the order of the jobs."""
        job_function = JobFunction(function)
        for index, job in enumerate(jobs):
            result, self.peak_bytes = job_function(job)
            yield index, result

    def close(self) -> None:
        """Do nothing: nothing was started."""


class LocalDask:
    """A Dask cluster of processes on this machine, closed to its other users, started with the first job.

    With ``announce`` the scheduler serves its dashboard, whose address ``announce`` gets when the cluster has started.
    """

    def __init__(
        self, n_workers: int, memory_limit: int | None = None, announce: Callable[[str], None] | None = None
    ) -> None:
        self._n_workers, self._announce = n_workers, announce
        self.memory_limit = memory_limit  # bytes; a worker with more is ended at 95 %
        self.peak_bytes = 0
        self._cluster: Any = None
        self._closing = ExitStack()

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
        with watch_workers(lambda: self._cluster, self._n_workers):
            for index, (result, peak) in run_jobs(self._connect, function, jobs, needs, devices):
                self.peak_bytes = max(self.peak_bytes, peak)
                yield index, result

    def close(self) -> None:
        """Stop the cluster, if there is one."""
        if self._cluster is not None:
            # Workers that do not answer end with this process: that is no reason to lose the results.
            with suppress(TimeoutError):
                self._cluster.close(timeout=CLOSE_SECONDS)
            self._cluster = None
        self._closing.close()

    def _connect(self) -> AbstractContextManager[Any]:
        from dask.distributed import Client

        if self._cluster is None:
            check_loopback()
            self._closing.enter_context(dask_settings(None if self._announce is None else DASHBOARD_SETTINGS))
            self._cluster = self._start_cluster(N_STARTS)
            if self._announce is not None:
                from lfm_tasks.workers.local_cluster import dashboard_address

                self._announce(dashboard_address(self._cluster))
        return Client(self._cluster, set_as_default=False)

    def _start_cluster(self, n_tries: int) -> Any:
        """Return a cluster; a worker that dies while it starts takes the whole start with it, so it is tried again."""
        from lfm_tasks.workers.local_cluster import start_cluster

        try:
            return start_cluster(self._n_workers, self.memory_limit, with_dashboard=self._announce is not None)
        except RuntimeError as error:
            if n_tries > 1:
                return self._start_cluster(n_tries - 1)
            problem = f"got {self._n_workers} workers that could not be started ({error})"
            raise RuntimeError(f"{problem}, expected them. Lower cluster.n_workers, or run with --no-dask") from error


def run_jobs(
    connect: Callable[[], AbstractContextManager[Any]],
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    needs: Sequence[int] = (),
    devices: Sequence[str] = (),
) -> Iterator[tuple[int, tuple[Result | JobFailure, int]]]:
    """Yield (index of the job, (its result or failure, peak bytes of its worker)) as a cluster's workers finish.

    Parameters
    ----------
    connect
        Returns a client of the cluster; called once for the jobs, and once more for each job whose worker died.
    function, jobs, needs, devices
        As in `Workers.run`.

    Raises
    ------
    RuntimeError
        If the scheduler is gone.
    ClusterError
        If all workers that may take a job are gone, or none was there that has its GPU.
    """
    import_dask()
    from dask.distributed import CancelledError
    from distributed.scheduler import NoValidWorkerError

    suspects: list[int] = []
    try:
        for index, result in _results_as_completed(connect, function, dict(enumerate(jobs)), needs, devices):
            if isinstance(result[0], WorkerDied):
                suspects.append(index)
            else:
                yield index, result
        # Every job that was on a worker when it died is a suspect: each runs once more, with no other beside it.
        for index in suspects:
            yield from _results_as_completed(connect, function, {index: jobs[index]}, needs, devices)
    except CancelledError as error:
        lost = "got no Dask scheduler any more, expected it to run. Run again; finished work is kept"
        raise RuntimeError(f"{lost} ({error})") from error
    except NoValidWorkerError as error:
        problem = "all workers that may take a task are gone, and none came back"
        raise ClusterError(f"{problem} ({' '.join(str(error).split())}). Look at the workers' logs") from error


def _results_as_completed(
    connect: Callable[[], AbstractContextManager[Any]],
    function: Callable[[Job], Result],
    jobs: Mapping[int, Job],
    needs: Sequence[int],
    devices: Sequence[str],
) -> Iterator[tuple[int, tuple[Any, int]]]:
    """Yield index, result and peak bytes of each job as they finish; `WorkerDied` for one whose workers died."""
    from dask.distributed import KilledWorker, as_completed

    # A fresh client each time: one that has seen a KilledWorker may hang.
    with connect() as client, client.as_current():
        index_of: dict[Any, int] = {}
        try:
            groups = list(group_by_request(client, list(jobs), needs, devices))
        except LookupError as error:
            raise ClusterError(str(error)) from error
        for resources, indices in groups:
            batch = [jobs[index] for index in indices]
            futures = client.map(JobFunction(function), batch, pure=False, resources=resources, key=_name_of(function))
            index_of |= dict(zip(futures, indices, strict=True))
        for future in as_completed(list(index_of), timeout=STALL_SECONDS * len(jobs)):
            try:
                yield index_of[future], future.result()
            except KilledWorker as error:
                yield index_of[future], (_worker_died(error), 0)
            future.release()


def _name_of(function: Callable[..., Any]) -> str:
    """Return the name of this function's tasks on a dashboard."""
    name = getattr(getattr(function, "func", function), "__name__", type(function).__name__)
    return str(name).strip("_").replace("_", " ").strip()


def _worker_died(error: Exception) -> WorkerDied:
    n_deaths = DASK_SETTINGS["distributed.scheduler.allowed-failures"] + 1
    return WorkerDied(
        "failed",
        f"its worker died {n_deaths} times, and as often with nothing beside it ({error}): most often memory; "
        "raise cluster.memory_limit or lower atlas.max_points",
    )


@dataclass(frozen=True)
class JobFunction(Generic[Job, Result]):
    """A function as workers call it: an error becomes a `JobFailure`, and linear algebra keeps to one thread."""

    function: Callable[[Job], Result]

    def __call__(self, job: Job) -> tuple[Result | JobFailure, int]:
        """Run the job; return its result, and the highest memory of this process until now, in bytes."""
        try:
            return self._result(job), peak_bytes()
        finally:
            _return_memory()

    def _result(self, job: Job) -> Result | JobFailure:
        try:
            # One thread wherever a job runs: sums in another order would change the last bits.
            with one_thread():
                return self.function(job)
        except DataError as error:
            return JobFailure(error.reason, str(error))
        except (OSError, CorruptUnitError):
            # A full disk, a lost right or a damaged store is not the space's fault: it ends the run.
            raise
        except Exception as error:
            logger.exception("%s failed", getattr(self.function, "__name__", "job"))
            return JobFailure("failed", f"{type(error).__name__}: {error}")


def _return_memory() -> None:
    """Give freed memory back to the system, which glibc keeps within a job: two jobs may need it in other sizes."""
    if trim := _malloc_trim():
        trim(0)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    """Return glibc's function; None where the system has another C library."""
    try:
        return cast("Callable[[int], int]", ctypes.CDLL(None).malloc_trim)
    except (AttributeError, OSError, TypeError):
        return None


def dask_setup(worker: Any) -> None:
    """Prepare a worker, as Dask calls it by this name when the module is preloaded.

    The worker ignores Ctrl+C, which a terminal sends to every process: the run stops its workers.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    declare_memory(worker)
    logging.getLogger("distributed.worker").addFilter(is_relevant_record)


_SAID_ELSEWHERE = ("Failed to communicate with scheduler during heartbeat", "Compute Failed")


def is_relevant_record(record: logging.LogRecord) -> bool:
    """Return whether a line of a worker's log says more than that a heartbeat was not answered, or that a job failed.

    Both come with a traceback. The one means that the run is ending or that the machine is busy: the scheduler reports
    the workers that are lost for good. The other's error ends the run, which says it in a sentence.
    """
    return not record.getMessage().startswith(_SAID_ELSEWHERE)


@contextmanager
def watch_workers(cluster: Callable[[], Any], n_workers: int) -> Iterator[None]:
    """Replace lost and stopped workers of a local cluster while the block runs.

    Parameters
    ----------
    cluster
        Returns the cluster, None as long as there is none.
    n_workers
        How many workers it is to have.
    """
    is_over, stopped = threading.Event(), StoppedWorkers()

    def watch() -> None:
        while not is_over.wait(WATCH_SECONDS):
            if (started := cluster()) is not None:
                started.loop.add_callback(replace_lost_workers, started, n_workers)
                started.loop.add_callback(stopped.check, started)

    watcher = threading.Thread(target=watch, name="lfm-atlas workers", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        is_over.set()
        watcher.join()


def replace_lost_workers(cluster: Any, n_workers: int) -> None:
    """Start workers for those that are gone for good: if one is killed while it starts, its nanny gives up.

    dask/distributed issues 6426 and 7312.
    """
    lost = [name for name, nanny in cluster.workers.items() if nanny.status.name in ("closed", "failed")]
    if cluster.status.name == "running" and (lost or len(cluster.workers) < n_workers):
        for name in lost:
            del cluster.workers[name]
        cluster.scale(n_workers)


class StoppedWorkers:
    """Ends workers that were stopped (SIGSTOP, a shell's Ctrl+Z) and not continued; their nannies restart them.

    Checks are counted, not seconds: a run that is suspended as a whole does not check, and goes on with all its
    workers. A worker that is busy, however long, is not stopped; nor is one that waits for a disk that hangs, which
    Dask ends when it has been silent for 5 minutes.
    """

    def __init__(self) -> None:
        self._n_checks: Counter[int] = Counter()

    def check(self, cluster: Any) -> None:
        """Count the workers that are stopped; end those that were so at each of the last `N_STOPPED_CHECKS`."""
        processes = [nanny.pid for nanny in cluster.workers.values() if getattr(nanny, "pid", None)]
        self._n_checks = Counter({pid: self._n_checks[pid] + 1 for pid in processes if is_stopped(pid)})
        for pid, n_checks in self._n_checks.items():
            if n_checks >= N_STOPPED_CHECKS:
                logger.warning("worker %s has been stopped for %g s and is restarted", pid, n_checks * WATCH_SECONDS)
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def is_stopped(pid: int) -> bool:
    """Return whether a process was stopped by a signal; False on systems without /proc."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    # After the name, which may hold anything, in parentheses.
    return status.rpartition(")")[2].split()[0] == "T"
