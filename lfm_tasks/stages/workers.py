"""Workers: the same function over many jobs, on Dask processes or right here, with one BLAS thread each.

A job's own error never stops the others: it comes back as a `Trouble`. The cluster starts with the first job, so a run
with nothing to do starts none.
"""

import logging
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from lfm_tasks.reasons import ReasonError
from lfm_tasks.stages.dask_settings import DASK_SETTINGS
from lfm_tasks.stores.units import CorruptUnitError

logger = logging.getLogger(__name__)

Job = TypeVar("Job")
Result = TypeVar("Result")

# A stage in which nothing at all finishes for this long is stuck (seconds).
STALL_SECONDS = 3600.0


class ClusterError(RuntimeError):
    """A cluster that cannot be started or reached, or whose workers cannot work."""


@dataclass(frozen=True)
class Trouble:
    """Why a job gave no result: a reason code and a sentence."""

    reason: str
    message: str


class Workers(Protocol):
    """Runs one function over jobs, in any order."""

    def run(self, function: Callable[[Job], Result], jobs: Sequence[Job]) -> Iterator[tuple[int, Result | Trouble]]:
        """Yield (number of the job, its result or trouble) as they finish."""
        ...

    def close(self) -> None:
        """Stop what was started."""
        ...


@dataclass(frozen=True)
class Guarded(Generic[Job, Result]):
    """A function whose errors are results, and which keeps linear algebra to one thread."""

    function: Callable[[Job], Result]

    def __call__(self, job: Job) -> Result | Trouble:
        """Run the job."""
        from threadpoolctl import threadpool_limits

        try:
            # One thread on every way of running: sums in another order would change the last bits.
            with threadpool_limits(1):
                return self.function(job)
        except ReasonError as error:
            return Trouble(error.reason, str(error))
        except CorruptUnitError as error:
            return Trouble("failed", str(error))
        except OSError:
            # A full disk or a lost right is not the space's fault: it ends the run.
            raise
        except Exception as error:
            logger.exception("%s failed", getattr(self.function, "__name__", "job"))
            return Trouble("failed", f"{type(error).__name__}: {error}")


class InProcess:
    """Jobs one after the other in this process: for tests, debugging and very small zoos."""

    def run(self, function: Callable[[Job], Result], jobs: Sequence[Job]) -> Iterator[tuple[int, Result | Trouble]]:
        """Yield results in order."""
        guarded = Guarded(function)
        for number, job in enumerate(jobs):
            yield number, guarded(job)

    def close(self) -> None:
        """Nothing was started."""


class LocalDask:
    """A Dask cluster of processes on this machine, bound to loopback, started with the first job."""

    def __init__(self, n_workers: int, memory_limit: str = "auto") -> None:
        self._n_workers = n_workers
        self._memory_limit = memory_limit
        self._cluster: Any = None

    def run(self, function: Callable[[Job], Result], jobs: Sequence[Job]) -> Iterator[tuple[int, Result | Trouble]]:
        """Yield results as they finish. A job that keeps killing its worker comes back as `Trouble`."""
        if not jobs:
            return
        from dask.distributed import Client

        # A fresh client for each stage: one that has seen a KilledWorker may hang.
        with Client(self._started(), set_as_default=False) as client, client.as_current():
            yield from finished(client, function, jobs)

    def close(self) -> None:
        """Stop the cluster, if there is one."""
        if self._cluster is not None:
            self._cluster.close(timeout=10)
            self._cluster = None

    def _started(self) -> Any:
        if self._cluster is None:
            from dask.distributed import LocalCluster

            quieten()
            self._cluster = LocalCluster(
                n_workers=self._n_workers,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                memory_limit=self._memory_limit,
                silence_logs=logging.ERROR,
            )
        return self._cluster


def finished(
    client: Any, function: Callable[[Job], Result], jobs: Sequence[Job]
) -> Iterator[tuple[int, Result | Trouble]]:
    """Yield (number of the job, its result or trouble) as a client's workers finish them."""
    from dask.distributed import as_completed

    futures = {future: number for number, future in enumerate(client.map(Guarded(function), jobs, pure=False))}
    for future in as_completed(futures, timeout=STALL_SECONDS * len(jobs)):
        yield futures[future], _result(future)
        future.release()


def quieten() -> None:
    """Give this process Dask's settings, and keep the scheduler's lines to itself."""
    import dask

    dask.config.set(DASK_SETTINGS)
    # Prefect's logging setup would let every line of the scheduler through.
    logging.getLogger("distributed").setLevel(logging.ERROR)


def dask_setup(worker: object) -> None:
    """Leave Ctrl+C, which a terminal sends to every process, to the run: it stops its workers. Dask calls this."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.getLogger("distributed.worker").addFilter(is_news)


def is_news(record: logging.LogRecord) -> bool:
    """Return whether a worker's line is worth a person's while.

    That the scheduler has not answered a heartbeat comes with a traceback, and means that the run is ending or that the
    machine is busy: workers that are lost for good are told by the scheduler.
    """
    return not record.getMessage().startswith("Failed to communicate with scheduler during heartbeat")


def _result(future: Any) -> Any:
    from dask.distributed import KilledWorker
    from distributed.scheduler import NoValidWorkerError

    try:
        return future.result()
    except NoValidWorkerError as error:
        raise ClusterError(f"all workers are gone, and none came back ({error}): look at the workers' logs") from error
    except KilledWorker as error:
        return Trouble(
            "failed",
            f"its worker died {DASK_SETTINGS['distributed.scheduler.allowed-failures'] + 1} times ({error}): most "
            "often memory; raise cluster.memory_limit or lower atlas.max_points",
        )
