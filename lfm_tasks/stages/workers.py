"""Workers: the same function over many jobs, on Dask processes or right here, with one BLAS thread each.

A job's own error never stops the others: it comes back as a `Trouble`. The cluster starts with the first job, so a run
with nothing to do starts none.
"""

import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from lfm_tasks.catalog import Catalog
from lfm_tasks.reasons import ReasonError
from lfm_tasks.stores.units import CorruptUnitError

logger = logging.getLogger(__name__)

Job = TypeVar("Job")
Result = TypeVar("Result")

# A stage in which nothing at all finishes for this long is stuck (seconds).
STALL_SECONDS = 3600.0
_THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")

DASK_SETTINGS: dict[str, Any] = {
    "distributed.scheduler.allowed-failures": 3,
    # Without it, a cluster whose workers are all gone waits for ever.
    "distributed.scheduler.no-workers-timeout": "60s",
    "distributed.scheduler.worker-saturation": 1.0,
    "distributed.worker.memory.target": 0.6,
    "distributed.worker.memory.spill": 0.7,
    # A worker has one task at a time and keeps no results: paused with much memory in use it would wait for ever.
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
    "distributed.worker.preload": [__name__],
    "distributed.nanny.pre-spawn-environ": _THREADS | {"MALLOC_TRIM_THRESHOLD_": "65536"},
    # No dashboard: nothing listens that nobody asked for.
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
}


@dataclass(frozen=True)
class Trouble:
    """Why a job gave no result: a reason code and a sentence."""

    reason: str
    message: str


class Workers(Protocol):
    """Runs one function over jobs, in any order.

    ``memory_limit``: bytes that one of them may take; ``peak_bytes``: the most that one had so far.
    """

    memory_limit: int
    peak_bytes: int

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

    def __call__(self, job: Job) -> tuple[Result | Trouble, int]:
        """Run the job; return its result, and the highest memory of this process until now, in bytes."""
        return self._result(job), peak_bytes()

    def _result(self, job: Job) -> Result | Trouble:
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

    def __init__(self, memory_limit: int) -> None:
        self.memory_limit = memory_limit
        self.peak_bytes = 0

    def run(self, function: Callable[[Job], Result], jobs: Sequence[Job]) -> Iterator[tuple[int, Result | Trouble]]:
        """Yield results in order."""
        guarded = Guarded(function)
        for number, job in enumerate(jobs):
            result, self.peak_bytes = guarded(job)
            yield number, result

    def close(self) -> None:
        """Nothing was started."""


class LocalDask:
    """A Dask cluster of processes on this machine, bound to loopback, started with the first job."""

    def __init__(self, n_workers: int, memory_limit: int) -> None:
        self._n_workers = n_workers
        self.memory_limit = memory_limit  # bytes; a worker with more is ended at 95 %
        self.peak_bytes = 0
        self._cluster: Any = None

    def run(self, function: Callable[[Job], Result], jobs: Sequence[Job]) -> Iterator[tuple[int, Result | Trouble]]:
        """Yield results as they finish. A job that keeps killing its worker comes back as `Trouble`."""
        if not jobs:
            return
        from dask.distributed import Client, as_completed

        # A fresh client for each stage: one that has seen a KilledWorker may hang.
        with Client(self._started(), set_as_default=False) as client, client.as_current():
            futures = {future: number for number, future in enumerate(client.map(Guarded(function), jobs, pure=False))}
            for future in as_completed(futures, timeout=STALL_SECONDS * len(jobs)):
                result, peak = _result(future)
                self.peak_bytes = max(self.peak_bytes, peak)
                yield futures[future], result
                future.release()

    def close(self) -> None:
        """Stop the cluster, if there is one."""
        if self._cluster is not None:
            self._cluster.close(timeout=10)
            self._cluster = None

    def _started(self) -> Any:
        if self._cluster is None:
            import dask
            from dask.distributed import LocalCluster

            dask.config.set(DASK_SETTINGS)
            # Prefect's logging setup would let every line of the scheduler through.
            logging.getLogger("distributed").setLevel(logging.ERROR)
            self._cluster = LocalCluster(
                n_workers=self._n_workers,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                memory_limit=self.memory_limit,
                silence_logs=logging.ERROR,
            )
        return self._cluster


def n_workers(catalog: Catalog) -> int:
    """Return how many workers a local run starts."""
    return catalog.cluster.n_workers or len(os.sched_getaffinity(0))


def memory_limit(catalog: Catalog, among: int | None = None) -> int:
    """Return the bytes that a worker may take: as the catalog says, or the machine's memory by the workers."""
    said = catalog.cluster.memory_limit
    if said is None or said == "auto":
        return machine_bytes() // (among or n_workers(catalog))
    number, unit = re.fullmatch(r"([\d.]+) ?(.*)", said).groups()  # type: ignore[union-attr] # the catalog checked it
    power = " KMGT".index(unit[0]) if unit != "B" else 0
    return int(float(number) * (1024 if "i" in unit else 1000) ** power)


def machine_bytes() -> int:
    """Return the memory of this machine, or what its container may take."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            found = min(found, int((Path("/sys/fs/cgroup") / name).read_text()))
    return found


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


def peak_bytes() -> int:
    """Return the highest memory that this process had, in bytes.

    ``ru_maxrss`` is no good for that on Linux: a new process starts with what its parent had.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most << 10
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) << 10


def _result(future: Any) -> tuple[Any, int]:
    from dask.distributed import KilledWorker

    try:
        result, peak = future.result()
        return result, peak
    except KilledWorker as error:
        trouble = Trouble(
            "failed",
            f"its worker died {DASK_SETTINGS['distributed.scheduler.allowed-failures'] + 1} times ({error}): most "
            "often memory; raise cluster.memory_limit or lower atlas.max_points",
        )
        return trouble, 0
