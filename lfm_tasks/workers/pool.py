"""Workers: the same function over many jobs, on Dask processes or right here, with one BLAS thread each.

A job's error never stops the others: it comes back as a `JobFailure`. The cluster starts with the first job, so a run
with nothing to do starts none.
"""

import logging
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from lfm_tasks.errors import DataError
from lfm_tasks.stores.units.store import CorruptUnitError
from lfm_tasks.workers.dask_config import DASK_SETTINGS
from lfm_tasks.workers.resources import declare_memory, group_by_memory, peak_bytes

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController


logger = logging.getLogger(__name__)

# How often somebody looks (seconds), and how often in a row a worker has to be found stopped: half a minute.
WATCH_SECONDS = 2.0
N_STOPPED = 15


@contextmanager
def watched(cluster: Callable[[], Any], n_workers: int) -> Iterator[None]:
    """Watch over the workers of a cluster (None as long as there is none) while the block runs."""
    ended, stopped = threading.Event(), StoppedWorkers()

    def watch() -> None:
        while not ended.wait(WATCH_SECONDS):
            if (own := cluster()) is not None:
                own.loop.add_callback(replace_lost, own, n_workers)
                own.loop.add_callback(stopped.look, own)

    watching = threading.Thread(target=watch, name="lfm-atlas workers", daemon=True)
    watching.start()
    try:
        yield
    finally:
        ended.set()
        watching.join()


def replace_lost(cluster: Any, n_workers: int) -> None:
    """Start workers for those that are gone for good: killed while they started, their nanny gives up.

    dask/distributed issues 6426 and 7312.
    """
    gone = [name for name, nanny in cluster.workers.items() if nanny.status.name in ("closed", "failed")]
    if cluster.status.name == "running" and (gone or len(cluster.workers) < n_workers):
        for name in gone:
            del cluster.workers[name]
        cluster.scale(n_workers)


class StoppedWorkers:
    """Ends workers that were stopped (SIGSTOP, a shell's Ctrl+Z) and not continued; their nannies start them anew.

    Looks are counted, not seconds: a run that is suspended as a whole does not look, and goes on with all its workers.
    A worker that is busy, however long, is not stopped; one that waits for a disk that hangs is neither, and Dask ends
    it when it has been silent for 5 minutes.
    """

    def __init__(self) -> None:
        self._looks: Counter[int] = Counter()

    def look(self, cluster: Any) -> None:
        """Count who is stopped; end those that were so at every one of the last looks."""
        processes = [nanny.pid for nanny in cluster.workers.values() if getattr(nanny, "pid", None)]
        self._looks = Counter({pid: self._looks[pid] + 1 for pid in processes if is_stopped(pid)})
        for pid, n_looks in self._looks.items():
            if n_looks >= N_STOPPED:
                logger.warning("worker %s has been stopped for %g s and is started anew", pid, n_looks * WATCH_SECONDS)
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def is_stopped(pid: int) -> bool:
    """Return whether a process was stopped by a signal; False where the system does not tell (it has no /proc)."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    # After the name, which may hold anything, in parentheses.
    return status.rpartition(")")[2].split()[0] == "T"


Job = TypeVar("Job")
Result = TypeVar("Result")

# A stage in which nothing at all finishes for this long is stuck (seconds).
STALL_SECONDS = 3600.0
# How often a cluster's start is tried, and how long its end may take (seconds).
N_STARTS = 3
CLOSE_SECONDS = 5.0


class ClusterError(RuntimeError):
    """A cluster that cannot be started or reached, or whose workers cannot work."""


@dataclass(frozen=True)
class JobFailure:
    """Why a job gave no result: a reason code and a sentence."""

    reason: str
    message: str


class WorkerDied(JobFailure):
    """The workers that had the job died."""


class Workers(Protocol):
    """Runs one function over jobs, in any order.

    ``peak_bytes``: the most memory that one of them had so far.
    """

    peak_bytes: int

    @property
    def memory_limit(self) -> int | None:
        """Bytes that one of them (the largest, where they differ) may take; None: unknown."""

    def run(
        self, function: Callable[[Job], Result], jobs: Sequence[Job], needs: Sequence[int] = ()
    ) -> Iterator[tuple[int, Result | JobFailure]]:
        """Yield (number of the job, its result or trouble) as they finish.

        ``needs``: for each job the memory (bytes) that its worker has to have, if that is known.
        """
        ...

    def close(self) -> None:
        """Stop what was started."""
        ...


@dataclass(frozen=True)
class Guarded(Generic[Job, Result]):
    """A function whose errors are results, and which keeps linear algebra to one thread."""

    function: Callable[[Job], Result]

    def __call__(self, job: Job) -> tuple[Result | JobFailure, int]:
        """Run the job; return its result, and the highest memory of this process until now, in bytes."""
        return self._result(job), peak_bytes()

    def _result(self, job: Job) -> Result | JobFailure:
        try:
            # One thread on every way of running: sums in another order would change the last bits.
            with _thread_pools(len(sys.modules)).limit(limits=1):
                return self.function(job)
        except DataError as error:
            return JobFailure(error.reason, str(error))
        except (OSError, CorruptUnitError):
            # A full disk, a lost right or a damaged store is not the space's fault: it ends the run.
            raise
        except Exception as error:
            logger.exception("%s failed", getattr(self.function, "__name__", "job"))
            return JobFailure("failed", f"{type(error).__name__}: {error}")


@lru_cache(maxsize=1)
def _thread_pools(n_modules: int) -> "ThreadpoolController":
    """Return the thread pools of the libraries that are loaded; looked for again (3 ms) when modules have come."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


class InProcess:
    """Jobs one after the other in this process: for tests, debugging and very small zoos."""

    def __init__(self, memory_limit: int | None = None) -> None:
        self.memory_limit = memory_limit
        self.peak_bytes = 0

    def run(
        self, function: Callable[[Job], Result], jobs: Sequence[Job], needs: Sequence[int] = ()
    ) -> Iterator[tuple[int, Result | JobFailure]]:
        """Yield results in order."""
        guarded = Guarded(function)
        for number, job in enumerate(jobs):
            result, self.peak_bytes = guarded(job)
            yield number, result

    def close(self) -> None:
        """Nothing was started."""


class LocalDask:
    """A Dask cluster of processes on this machine, bound to loopback, started with the first job."""

    def __init__(self, n_workers: int, memory_limit: int | None = None) -> None:
        self._n_workers = n_workers
        self.memory_limit = memory_limit  # bytes; a worker with more is ended at 95 %
        self.peak_bytes = 0
        self._cluster: Any = None

    def run(
        self, function: Callable[[Job], Result], jobs: Sequence[Job], needs: Sequence[int] = ()
    ) -> Iterator[tuple[int, Result | JobFailure]]:
        """Yield results as they finish. A job that keeps killing its worker comes back as `JobFailure`."""
        if not jobs:
            return
        with watched(lambda: self._cluster, self._n_workers):
            for number, (result, peak) in run_in_order(self._connected, function, jobs, needs):
                self.peak_bytes = max(self.peak_bytes, peak)
                yield number, result

    def close(self) -> None:
        """Stop the cluster, if there is one."""
        if self._cluster is not None:
            # Workers that do not answer end with this process: that is no reason to lose what it has come to.
            with suppress(TimeoutError):
                self._cluster.close(timeout=CLOSE_SECONDS)
            self._cluster = None

    def _connected(self) -> AbstractContextManager[Any]:
        from dask.distributed import Client

        return Client(self._started(), set_as_default=False)

    def _started(self) -> Any:
        if self._cluster is None:
            quieten()
            self._cluster = self._start(N_STARTS)
        return self._cluster

    def _start(self, n_tries: int) -> Any:
        """Return a cluster; a worker that dies while it starts takes the whole start with it, so it is tried again."""
        from dask.distributed import LocalCluster

        try:
            return LocalCluster(
                n_workers=self._n_workers,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                scheduler_kwargs={"dashboard": False},
                memory_limit=self.memory_limit,
                silence_logs=logging.ERROR,
            )
        except RuntimeError as error:
            if n_tries > 1:
                return self._start(n_tries - 1)
            found = f"found {self._n_workers} workers that could not be started ({error})"
            raise RuntimeError(f"{found}, needs them: lower cluster.n_workers, or run with --no-dask") from error


def run_in_order(
    connect: Callable[[], AbstractContextManager[Any]],
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    needs: Sequence[int] = (),
) -> Iterator[tuple[int, tuple[Result | JobFailure, int]]]:
    """Yield (number of the job, (its result or trouble, peak bytes of its worker)) as a client's workers finish."""
    from dask.distributed import CancelledError
    from distributed.scheduler import NoValidWorkerError

    blamed: list[int] = []
    try:
        for number, result in _finished(connect, function, dict(enumerate(jobs)), needs):
            if isinstance(result[0], WorkerDied):
                blamed.append(number)
            else:
                yield number, result
        # Whoever was on a worker when it died is blamed: each once more, with nobody beside it.
        for number in blamed:
            yield from _finished(connect, function, {number: jobs[number]}, needs)
    except CancelledError as error:
        lost = "found Dask's scheduler gone, needs it: run again, what was finished is kept"
        raise RuntimeError(f"{lost} ({error})") from error
    except NoValidWorkerError as error:
        found = "all workers that may take a task are gone, and none came back"
        raise ClusterError(f"{found} ({' '.join(str(error).split())}): look at the workers' logs") from error


def _finished(
    connect: Callable[[], AbstractContextManager[Any]],
    function: Callable[[Job], Result],
    jobs: Mapping[int, Job],
    needs: Sequence[int],
) -> Iterator[tuple[int, tuple[Any, int]]]:
    """Yield the number, result and peak bytes of each job as they finish; `WorkerDied` for one whose workers died."""
    from dask.distributed import KilledWorker, as_completed

    # A fresh client each time: one that has seen a KilledWorker may hang.
    with connect() as client, client.as_current():
        numbers: dict[Any, int] = {}
        for resources, own in group_by_memory(client, list(jobs), needs):
            futures = client.map(Guarded(function), [jobs[number] for number in own], pure=False, resources=resources)
            numbers |= dict(zip(futures, own, strict=True))
        for future in as_completed(list(numbers), timeout=STALL_SECONDS * len(jobs)):
            try:
                yield numbers[future], future.result()
            except KilledWorker as error:
                yield numbers[future], (_killed(error), 0)
            future.release()


def quieten() -> None:
    """Give this process Dask's settings, and keep the scheduler's lines to itself."""
    import dask

    # A copy: where Bokeh is missing, Dask's scheduler adds a route to the very list it was given.
    dask.config.set(deepcopy(DASK_SETTINGS))
    # Prefect's logging setup would let every line of the scheduler through.
    logging.getLogger("distributed").setLevel(logging.ERROR)


def dask_setup(worker: Any) -> None:
    """Leave Ctrl+C, which a terminal sends to every process, to the run: it stops its workers. Dask calls this."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    declare_memory(worker)
    logging.getLogger("distributed.worker").addFilter(is_news)


def is_news(record: logging.LogRecord) -> bool:
    """Return whether a worker's line is worth a person's while.

    That the scheduler has not answered a heartbeat comes with a traceback, and means that the run is ending or that the
    machine is busy: workers that are lost for good are told by the scheduler.
    """
    return not record.getMessage().startswith("Failed to communicate with scheduler during heartbeat")


def _killed(error: Exception) -> WorkerDied:
    n_deaths = DASK_SETTINGS["distributed.scheduler.allowed-failures"] + 1
    return WorkerDied(
        "failed",
        f"its worker died {n_deaths} times, and as often with nothing beside it ({error}): most often memory; "
        "raise cluster.memory_limit or lower atlas.max_points",
    )
