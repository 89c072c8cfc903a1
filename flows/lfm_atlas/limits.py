"""Checks of the environment before a command starts, and of the process limits that ended one."""

import errno
import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

# Of address space, which a run with Prefect, Arrow and SciPy takes (bytes); with less, threads of Prefect end unseen.
_LEAST_ADDRESS_SPACE = 5 << 29
# Threads of the run, of its Prefect server and of a few workers; limits that are far above are not looked at.
_LEAST_THREADS, _MOST_COUNTED = 40, 4096
_STARTS_WORKERS = {"audit", "reproduce", "run"}
# What psutil, and through it Dask, reads of this process.
_OWN_STATUS = Path("/proc/self/stat")
_NO_PROC = (
    "got no /proc, expected it: Dask and psutil read there what this process takes. Mount it (mount -t proc proc /proc)"
)
_OPTIMIZED = (
    "got python -O or PYTHONOPTIMIZE, expected Python without it: Zarr does part of its work in assertions, which -O "
    "removes. Start without -O, and unset PYTHONOPTIMIZE"
)
# What loaders and libraries say when they get no memory, or no thread, beside MemoryError.
_NO_MEMORY = ("failed to map segment", "cannot allocate memory", "unable to allocate", "bad_alloc", "out of memory")
_NO_PROCESS = ("can't start new thread", "resource temporarily unavailable")


def why_unfit(command: str) -> str | None:
    """Return a sentence if a command cannot work in this environment; None if it may.

    Parameters
    ----------
    command
        Its name: what starts workers needs more than what only reads.
    """
    if sys.flags.optimize:
        return _OPTIMIZED
    if time.time() < 0:
        return "got a clock before 1970, expected today's time: certificates and logs need it. Set the clock"
    if command not in _STARTS_WORKERS:
        return None
    if sys.platform == "linux" and not _OWN_STATUS.exists():
        return _NO_PROC
    soft = resource.getrlimit(resource.RLIMIT_AS)[0]
    if 0 <= soft < _LEAST_ADDRESS_SPACE:
        least = f"expected at least {_LEAST_ADDRESS_SPACE / 2**30:g} GiB for a run. Raise it: ulimit -v unlimited"
        return f"got ulimit -v {soft >> 10}, {soft / 2**30:.1f} GiB of address space for a process, {least}"
    soft = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    # The kernel does not hold the superuser to it.
    if 0 <= soft < _MOST_COUNTED and os.geteuid() and soft - (n_used := _n_threads_of_user()) < _LEAST_THREADS:
        found = f"got ulimit -u {soft} processes and threads, of which {n_used} are in use"
        return f"{found}, expected {_LEAST_THREADS} more for a run. Raise it: ulimit -u unlimited"
    return None


def _n_threads_of_user() -> int:
    """Return how many threads all processes of this user have."""
    total = 0
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            total += len(os.listdir(process / "task")) if process.stat().st_uid == os.geteuid() else 0
    return total


def why_exhausted(error: BaseException) -> str | None:
    """Return a sentence that names the limit which caused an error, or one of those behind it; None: no limit did."""
    for one in _with_causes(error):
        text, number = str(one).lower(), getattr(one, "errno", None)
        if isinstance(one, MemoryError) or number == errno.ENOMEM or any(words in text for words in _NO_MEMORY):
            return _no_memory()
        if number == errno.EAGAIN or any(words in text for words in _NO_PROCESS):
            return _limited("processes and threads", "-u", resource.RLIMIT_NPROC)
        if number == errno.EMFILE:
            return _limited("open files", "-n", resource.RLIMIT_NOFILE)
        if "no usable temporary directory" in text:
            places = str(one).rpartition("[")[2].rstrip("]").replace("'", "")
            found = f"got no folder for temporary files with room to write to ({places})"
            return f"{found}, expected one. Set TMPDIR to a folder with free space"
        if type(one).__module__.startswith("psutil") and not _OWN_STATUS.exists():
            return _NO_PROC
    # A library that another library needs did not load: the reason is lost on the way.
    return _no_memory() if isinstance(error, ImportError) and _process_memory() else None


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__


def _no_memory() -> str:
    if found := _process_memory():
        n_bytes, option = found
        limit = f"ulimit {option} {n_bytes >> 10}, {n_bytes / 2**30:.1f} GiB for a process"
        return f"got no more memory under {limit}, expected more. Raise it: ulimit {option} unlimited"
    return "got no more memory, expected more. Close other programs, or lower cluster.n_workers, and run again"


def _process_memory() -> tuple[int, str] | None:
    """Return the smallest limit on the memory of a process, in bytes, and its option of ulimit; None: no limit."""
    options = (("-v", resource.RLIMIT_AS), ("-d", resource.RLIMIT_DATA))
    found = [(soft, option) for option, which in options if (soft := resource.getrlimit(which)[0]) >= 0]
    return min(found, default=None)


def _limited(what: str, option: str, which: int) -> str:
    soft = resource.getrlimit(which)[0]
    limit = f"ulimit {option} {soft}" if soft >= 0 else "the limit of a control group"
    return f"got no more {what} under {limit}, expected more. Raise it, or lower cluster.n_workers"
