"""Standard streams that are closed, broken or of another encoding, so that none of them ends a command."""

import errno
import io
import os
import signal
import sys
from contextlib import suppress
from typing import Any, TextIO

# What a command that a broken pipe ends exits with, as a shell tells it of others.
PIPE_BROKEN = 128 + signal.SIGPIPE


def protect_streams(*, only_prints: bool) -> None:
    """Have stdout and stderr lose what nobody can read, instead of ending the command.

    A character that the encoding of a stream lacks is written as an escape. A stream that was closed before the
    command started leads nowhere. So does a pipe whose reader has gone, and stderr whatever happens to it; a full disk
    behind stdout is an error, since the result is lost.

    Parameters
    ----------
    only_prints
        Whether what the command prints is all that it does: it then ends when nobody reads on.
    """
    for descriptor in range(3):
        _keep_open(descriptor)
    sys.stdout = _protected(sys.stdout, sys.__stdout__, 1, only_prints)
    sys.stderr = _protected(sys.stderr, sys.__stderr__, 2, False)


def _keep_open(descriptor: int) -> None:
    """Let a closed standard descriptor lead nowhere: the next file that is opened would else take its number."""
    try:
        os.fstat(descriptor)
    except OSError:
        nowhere = os.open(os.devnull, os.O_RDWR)
        if nowhere != descriptor:
            os.dup2(nowhere, descriptor)
            os.close(nowhere)


def _protected(stream: TextIO | None, original: TextIO | None, descriptor: int, ends_command: bool) -> TextIO:
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")
    if stream is not original or not isinstance(stream, io.TextIOWrapper):
        return stream  # somebody else's, such as a test's
    with suppress(OSError):
        stream.flush()
    raw = _PipeOrTerminal(descriptor, ends_command=ends_command, is_result=descriptor == 1)
    return io.TextIOWrapper(
        io.BufferedWriter(raw), stream.encoding, "backslashreplace", line_buffering=stream.line_buffering,
        write_through=descriptor == 2,
    )  # fmt: skip


class _PipeOrTerminal(io.FileIO):
    """A descriptor for writing; what is written to a broken pipe, or to a terminal that is gone, is lost."""

    def __init__(self, descriptor: int, *, ends_command: bool, is_result: bool = False) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._is_result = is_result
        self._ends_command = ends_command
        self._is_terminal = os.isatty(descriptor)

    def write(self, data: Any, /) -> int:
        """Write bytes and return how many; SystemExit if the pipe is broken and the command ends with it."""
        try:
            return super().write(data)
        except OSError as error:
            # Whatever is written from now on goes nowhere: Python would tell it again when the process ends.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            is_gone = isinstance(error, BrokenPipeError) or (self._is_terminal and error.errno == errno.EIO)
            if not is_gone and self._is_result:
                raise
            if self._ends_command:
                raise SystemExit(PIPE_BROKEN) from None
            return memoryview(data).nbytes
