"""What commands print: tables as text only, a sentence for an error of the disk; and how they end on a signal."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lfm_atlas.console import as_json, environment, escape_unprintable, format_os_error, print_tables
from lfm_tasks.published.answers import Table


def test_tables__show_names_as_text_only(capsys: pytest.CaptureFixture[str]) -> None:
    name = "[bold red]a[/] \x1b[2J\x9b31m\u202eevil\u2028"
    print_tables([Table("t", name, [{name: name, "number": 0.5}])])

    printed = capsys.readouterr().out
    assert "[bold red]a[/] \\x1b[2J\\x9b31m\\u202eevil\\u2028" in printed
    assert not {"\x1b", "\x9b", "\u202e", "\u2028"} & set(printed)
    assert escape_unprintable("layer.1/é") == "layer.1/é"
    assert as_json({"a": "\x9b\u202e"}).isascii()


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (
            errno.ENOSPC,
            r"x: got no space left on the disk \(\d+\.\d MB free\), expected more. Free some, then run again",
        ),
        (errno.EDQUOT, "no space left on the disk"),
        (errno.EFBIG, "got a file beyond the size limit .*, expected a higher limit"),
        (errno.EROFS, "got a read-only disk, expected one to write to"),
        (errno.EACCES, "x: permission denied. Choose a place that you may write to"),
        (errno.EIO, "got a disk that fails"),
        (errno.ENOENT, "FileNotFoundError"),
    ],
)
def test_error_of_the_disk__is_a_sentence(code: int, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=sentence):
        raise OSError(format_os_error(OSError(code, "what the system says", str(tmp_path / "x"))))


def test_table__that_is_too_wide_is_printed_in_parts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lfm_atlas.console._DEFAULT_WIDTH", 60)
    row = {"name": "mlp_s0_finetuned", "relation": "beyond chance"} | {f"number_{index}": 0.5 for index in range(6)}

    print_tables([Table("t", "nearest", [row])])

    title, *lines = capsys.readouterr().out.splitlines()
    assert title == "nearest"
    assert max(map(len, lines)) <= 60
    heads, rows = lines[::2], lines[1::2]
    assert [name for head in heads for name in head.split()[1:]] == list(row)[1:]
    assert all(line.startswith("mlp_s0_finetuned") for line in rows)
    assert len(rows) == 2


def test_error_of_a_command_that_starts_anew__promises_nothing_of_a_next_run() -> None:
    error = OSError(errno.ENOSPC, "No space left on device", "folder/x")
    assert format_os_error(error).endswith(
        "Free some, then run again; what was finished is kept, the next run goes on from there"
    )
    assert format_os_error(error, resumes=False).endswith("Free some, then run again")


STOPPED = """
import multiprocessing, os, signal, sys, time
import lfm_atlas.console
multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,), daemon=True).start()
lfm_atlas.console.STOP_SECONDS = 0.3
lfm_atlas.console.stop_on_signals()
try:
    print("ready", flush=True)
    time.sleep(60)
finally:
    print("ending", flush=True)
    time.sleep(float(sys.argv[1]))
"""


@pytest.mark.parametrize(("waits", "again"), [("0", False), ("60", False), ("60", True)])
@pytest.mark.parametrize("received", [signal.SIGTERM, signal.SIGINT])
def test_signal__ends_in_order_or_in_time_or_at_once(received: signal.Signals, waits: str, again: bool) -> None:
    hear: Callable[[], object] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    command = [sys.executable, "-c", STOPPED, waits]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, preexec_fn=hear)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(received)
    assert process.stdout.readline() == "ending\n"
    if again:
        process.send_signal(received)

    assert process.wait(20) in (128 + received, -received)
    assert process.stdout.read() == ""  # its child, which would hold it open for a minute, has ended, too
    process.stdout.close()


IGNORED = """
import os, signal, sys, time
import lfm_atlas.console
lfm_atlas.console.stop_on_signals()
if sys.argv[1] == "prefect":
    from prefect.exceptions import TerminationSignal
    def raise_it(received, frame):
        raise TerminationSignal(signal=received)
    signal.signal(signal.SIGTERM, raise_it)

class Finalized:
    def __del__(self):
        os.kill(os.getpid(), int(sys.argv[2]))
        time.sleep(0.01)  # the handler raises here, and Python ignores it

try:
    Finalized()
    print("ignored", flush=True)
    time.sleep(60)
except BaseException as error:
    print(type(error).__name__, flush=True)
    raise SystemExit(7)
"""


@pytest.mark.parametrize(
    ("handler", "received", "expected"),
    [
        ("ours", signal.SIGTERM, "Stopped"),
        ("ours", signal.SIGINT, "KeyboardInterrupt"),
        ("prefect", signal.SIGTERM, "TerminationSignal"),
    ],
)
def test_signal_whose_exception_python_ignores__comes_again(
    handler: str, received: signal.Signals, expected: str
) -> None:
    hear: Callable[[], object] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    completed = subprocess.run(
        [sys.executable, "-c", IGNORED, handler, str(int(received))],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        preexec_fn=hear,
    )

    assert completed.stdout.split() == ["ignored", expected], completed.stderr
    assert completed.returncode == 7


def test_other_exceptions_that_python_ignores__are_printed() -> None:
    code = """
import lfm_atlas.console
lfm_atlas.console.stop_on_signals()
class Finalized:
    def __del__(self):
        raise ValueError("seen")
Finalized()
print("ended")
"""
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False)

    assert (completed.returncode, completed.stdout) == (0, "ended\n")
    assert "ValueError: seen" in completed.stderr


def test_forget_working_directory__takes_it_off_the_path_unless_the_user_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lfm_atlas.cli import forget_working_directory

    monkeypatch.chdir(tmp_path)
    other = str(tmp_path / "other")
    for variable, expected, stays in (
        (os.pathsep + other, other, False),
        (os.pathsep, None, False),
        (other + os.pathsep + "." + os.pathsep, os.pathsep.join([other, str(tmp_path)]), True),
        (other, other, True),
    ):
        monkeypatch.setenv("PYTHONPATH", variable)
        monkeypatch.setattr(sys, "path", ["", str(tmp_path), other])

        forget_working_directory()

        assert os.environ.get("PYTHONPATH") == expected
        assert sys.path == ([str(tmp_path)] if stays else []) + [other]


def test_environment__is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LFM_ATLAS_TEST_A", "before")
    monkeypatch.delenv("LFM_ATLAS_TEST_B", raising=False)

    with environment({"LFM_ATLAS_TEST_A": "now", "LFM_ATLAS_TEST_B": "now"}):
        assert (os.environ["LFM_ATLAS_TEST_A"], os.environ["LFM_ATLAS_TEST_B"]) == ("now", "now")

    assert os.environ["LFM_ATLAS_TEST_A"] == "before"
    assert "LFM_ATLAS_TEST_B" not in os.environ
