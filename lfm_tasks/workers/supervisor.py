"""Watching over the workers of this machine: lost ones are replaced, stopped ones are ended and start anew."""

import logging
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

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
