"""Whole commands in an environment that a test prepares, and what every one of them has to hold to.

`lfm_atlas` starts a command and returns how it ended; `Ended.check` asserts its exit code, that no traceback was
printed, that nothing was said twice, and what the messages name.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# A command that takes longer than this has hung (seconds).
MOST_SECONDS = 300.0
# What the machine of whoever runs the tests may have set; each test sets what it is about.
_INHERITED = re.compile(
    r"(?i)(PREFECT_|DASK_|LFM_ATLAS_|DO_NOT_TRACK|PYTHON(?!PATH)|(http|https|all|no|ftp|socks)_proxy|LC_|LANG|COLUMNS)"
)
# The start of a traceback, of one that Python prints at exit, and of an error in a thread or a destructor.
_TRACEBACKS = re.compile(r"Traceback \(most recent|Exception ignored in|Fatal Python error|^\s+File \"", re.M)


def crowd() -> float:
    """Return how many processes want each core: what takes a second alone takes so many now, at least 1."""
    return max(1.0, os.getloadavg()[0] / len(os.sched_getaffinity(0)))


def clean_environment() -> dict[str, str]:
    """Return the variables of this process without those that the tests here are about."""
    return {name: value for name, value in os.environ.items() if not _INHERITED.match(name)}


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes
    ----------
    code
        Its exit code; negative: the signal that ended it.
    out, err
        What it wrote to stdout and stderr; bytes that are no UTF-8 as replacement characters.
    seconds
        How long it took.
    """

    code: int
    out: str
    err: str
    seconds: float

    def check(self, code: int, *sentences: str, most_lines: int | None = None, within: float | None = None) -> "Ended":
        """Assert how the command ended, and return it.

        Parameters
        ----------
        code
            The exit code.
        sentences
            What stdout and stderr together have to say.
        most_lines
            How many lines stderr may have; None: any number.
        within
            How many seconds it may take where nothing else wants the cores; None: up to `MOST_SECONDS`.
        """
        told = f"exit {self.code} after {self.seconds:.1f} s\n--- stdout\n{self.out}\n--- stderr\n{self.err}"
        assert not _TRACEBACKS.search(self.out + self.err), told
        assert self.code == code, told
        for sentence in sentences:
            assert sentence in self.out + self.err, f"{sentence!r} is missing\n{told}"
        if most_lines is not None:
            assert len(self.err.splitlines()) <= most_lines, told
        if within is not None:
            assert self.seconds <= within * crowd(), told
        return self


def lfm_atlas(
    *arguments: str,
    folder: Path,
    variables: Mapping[str, str] | None = None,
    before: Sequence[str] = (),
    python: Sequence[str] = (),
    prepare: Callable[[], object] | None = None,
    stdin: int | None = subprocess.DEVNULL,
) -> Ended:
    """Run a command of lfm-atlas to its end.

    Parameters
    ----------
    arguments
        The command and its options, such as ``"run", "--no-prefect"``.
    folder
        Where it starts.
    variables
        Set in its environment, beside those of `clean_environment`.
    before
        What starts it, such as ``"prlimit", "--nproc=30"`` or ``"sh", "-c", 'exec "$@" >&-', "sh"``.
    python
        Options of the interpreter, such as ``"-O"``.
    prepare
        Called in the child before the command, for limits and rights.
    stdin
        Its standard input.
    """
    began = time.monotonic()
    process = subprocess.Popen(
        [*before, sys.executable, *python, "-m", "lfm_atlas", *arguments],
        cwd=folder, env=clean_environment() | dict(variables or {}), stdin=stdin, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, preexec_fn=prepare, process_group=0,
    )  # fmt: skip
    try:
        out, err = process.communicate(timeout=MOST_SECONDS * crowd())
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        raise AssertionError(
            f"{arguments} hung\n{out.decode(errors='replace')}\n{err.decode(errors='replace')}"
        ) from None
    texts = (out.decode(errors="replace"), err.decode(errors="replace"))
    return Ended(process.returncode, *texts, time.monotonic() - began)
