"""Streams that nobody reads lose what is written; a full disk behind stdout does not pass in silence."""

import errno
import os
from pathlib import Path

import pytest

from lfm_atlas.streams import PIPE_BROKEN, _PipeOrTerminal


def broken_pipe() -> int:
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def test_broken_pipe__loses_what_is_written_or_ends_the_command() -> None:
    descriptor = broken_pipe()
    stream = _PipeOrTerminal(descriptor, ends_command=False)
    assert stream.write(b"lost") == 4
    assert stream.write(b"and more") == 8
    os.close(descriptor)
    descriptor = broken_pipe()
    stream = _PipeOrTerminal(descriptor, ends_command=True)
    with pytest.raises(SystemExit) as ended:
        stream.write(b"lost")
    assert ended.value.code == PIPE_BROKEN == 141
    assert stream.write(b"at exit") == 7
    os.close(descriptor)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="not run: needs /dev/full")
def test_full_disk__is_an_error_behind_stdout_and_nothing_behind_stderr() -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    stream = _PipeOrTerminal(descriptor, ends_command=False)
    assert stream.write(b"to stderr") == 9
    os.close(descriptor)
    descriptor = os.open("/dev/full", os.O_WRONLY)
    stream = _PipeOrTerminal(descriptor, ends_command=False, is_result=True)
    with pytest.raises(OSError, match="No space left") as error:
        stream.write(b"a table")
    assert error.value.errno == errno.ENOSPC
    assert stream.write(b"at exit") == 7
    os.close(descriptor)
