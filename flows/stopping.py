"""Ends a command on SIGTERM or SIGINT: in order if it can, within seconds in any case."""

import multiprocessing
import os
import signal
import threading
from types import FrameType

# A run that was told to stop has left after this long, whatever it waits for (seconds).
STOP_SECONDS = 7.0


def stop_on_signals() -> None:
    """Leave with 143 on SIGTERM, by KeyboardInterrupt on SIGINT; at once on a second signal of either kind.

    Leaving takes the run's children with it, however it comes about: the Prefect server dies with its parent, and
    Dask's workers watch theirs.
    """
    signal.signal(signal.SIGTERM, _stop)
    # A shell has SIGINT ignored in what it starts in the background: that stays so.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _stop)


def _stop(number: int, frame: FrameType | None) -> None:
    for again in (signal.SIGTERM, signal.SIGINT):
        signal.signal(again, lambda now, _: _leave(128 + now))
    # What ends in order may wait for a cluster, a server or a computation that does not look up.
    late = threading.Timer(STOP_SECONDS, _leave, [128 + number])
    late.daemon = True
    late.start()
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)


def _leave(code: int) -> None:
    """End this process and its workers now: one that starts would only look for its parent seconds later."""
    try:
        for child in multiprocessing.active_children():
            child.kill()
    finally:
        os._exit(code)
