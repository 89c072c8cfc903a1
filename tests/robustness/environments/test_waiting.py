"""While a command works: its first lines, its progress, Ctrl+Z, a terminal that is closed, its last moments."""

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from lfm_atlas.console import PROGRESS_SECONDS, progress
from tests.robustness.environments.commands import clean_environment, crowd, lfm_atlas
from tests.robustness.environments.conftest import files, free_port

SLOW_IMPORTS = {"prefect", "dask", "distributed", "xarray"}


def imported_modules(line: str) -> set[str]:
    """Return the package of the module that a line of ``-X importtime`` names, if it names one."""
    return {line.rpartition("|")[2].strip().partition(".")[0]} if line.startswith("import time:") else set()


@pytest.mark.environments
@pytest.mark.parametrize(
    "command",
    [
        ["run"],
        ["run", "--no-prefect"],
        ["audit"],
        ["serve", "--cron", "at night"],
        ["reproduce", "--experiment", "fig3a", "--no-dask"],
    ],
    ids=" ".join,
)
def test_first_line__comes_before_prefect_dask_and_xarray_are_imported(
    command: list[str], zoo: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    # Python writes a line about each module to stderr when its import is done, between the lines of the command.
    process = start(zoo, *command, python=("-X", "importtime"))
    assert process.stderr is not None
    imported: set[str] = set()
    for line in process.stderr:
        if line.startswith("starting "):
            break
        imported |= imported_modules(line)
    assert "cyclopts" in imported
    assert not imported & SLOW_IMPORTS
    assert any(imported_modules(line) & SLOW_IMPORTS for line in process.stderr)
    process.terminate()  # the rest is not what this test is about
    process.communicate(timeout=120 * crowd())


@pytest.mark.environments
def test_deploy__says_first_that_a_server_answers_or_nothing_but_that_none_does(zoo: Path) -> None:
    variables = {"PREFECT_API_URL": f"http://127.0.0.1:{free_port()}/api"}

    ended = lfm_atlas("deploy", folder=zoo, python=("-X", "importtime"), variables=variables)

    assert not set().union(*map(imported_modules, ended.err.splitlines())) & SLOW_IMPORTS


class Pipe(io.StringIO):
    """A stderr that is no terminal."""

    def isatty(self) -> bool:
        return False


@pytest.mark.parametrize(("total", "lines"), [(1, 2), (5, 6), (190, 11), (20_000, 11), (0, 0)])
def test_progress_in_a_pipe__is_a_line_for_each_tenth(total: int, lines: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Pipe())
    with progress() as report:
        for done in range(total + 1):
            report("scores", done, total)
        report("scores", total, total)

    told = sys.stderr.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(told) == lines
    if total:
        assert (told[0], told[-1]) == (f"scores: 0/{total}", f"scores: {total}/{total}")
    if total == 190:
        assert told[1:3] == ["scores: 19/190", "scores: 38/190"]


def test_progress_in_a_pipe__says_that_a_slow_stage_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(sys, "stderr", Pipe())
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with progress() as report:
        for done in range(100):
            report("bases", done, 1000)
            now += PROGRESS_SECONDS / 4

    assert [line.split()[1] for line in sys.stderr.getvalue().splitlines()][:4] == [  # type: ignore[attr-defined]
        "0/1000", "4/1000", "8/1000", "12/1000",
    ]  # fmt: skip


def test_stages_of_two_pipelines__each_start_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Pipe())
    with progress() as report:
        for _ in range(2):
            for done in range(3):
                report("maps", done, 2)

    assert sys.stderr.getvalue() == "maps: 0/2\nmaps: 1/2\nmaps: 2/2\n" * 2  # type: ignore[attr-defined]


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a command in a process group of its own, as a shell does; none outlives its test."""
    started: list[subprocess.Popen[str]] = []

    def begin(
        folder: Path, *arguments: str, before: tuple[str, ...] = (), python: tuple[str, ...] = ()
    ) -> subprocess.Popen[str]:
        started.append(
            subprocess.Popen(
                [*before, sys.executable, *python, "-m", "lfm_atlas", *arguments],
                cwd=folder, env=clean_environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, text=True, process_group=0,
            )
        )  # fmt: skip
        return started[-1]

    yield begin
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def read_until(stream: IO[str] | None, pattern: str) -> str:
    """Return the first line that fits; the command must write it at once, and not at its end."""
    assert stream is not None
    for line in stream:
        if re.search(pattern, line):
            return line
    raise AssertionError(f"the stream ended without {pattern!r}")


@pytest.mark.environments
def test_run_that_is_suspended__goes_on_when_it_is_continued(
    tmp_path: Path,
    write_tiny_zoo: Callable[[Path], Path],
    start: Callable[..., subprocess.Popen[str]],
    expected: dict[str, bytes],
) -> None:
    moments = ("starting", "activations: 0/", "bases: 0/", "scores: 0/")
    zoos = [write_tiny_zoo(tmp_path / f"zoo{number}") for number in range(len(moments))]
    runs = []
    for zoo, moment in zip(zoos, moments, strict=True):  # one after the other: those before do not work any more
        runs.append(start(zoo, "run"))
        read_until(runs[-1].stderr, moment)
        os.killpg(runs[-1].pid, signal.SIGTSTP)  # as Ctrl+Z does: the run and its workers, not the Prefect server
    time.sleep(20)
    assert [run.poll() for run in runs] == [None] * len(moments)

    for zoo, run in zip(zoos, runs, strict=True):
        os.killpg(run.pid, signal.SIGCONT)  # as fg does
        out, err = run.communicate(timeout=300 * crowd())
        assert (run.returncode, "Traceback" in err) == (0, False), err
        assert "2 spaces, 0 failed" in out
        assert files(zoo / "atlas") == expected


@pytest.mark.environments
def test_run_under_nohup__outlives_its_terminal(
    zoo: Path, start: Callable[..., subprocess.Popen[str]], expected: dict[str, bytes]
) -> None:
    run = start(zoo, "run", before=("nohup",))
    read_until(run.stderr, "activations: 0/")
    os.killpg(run.pid, signal.SIGHUP)
    out, err = run.communicate(timeout=300 * crowd())

    assert (run.returncode, "Traceback" in err) == (0, False), err
    assert "2 spaces, 0 failed" in out
    assert files(zoo / "atlas") == expected


@pytest.mark.environments
def test_serve__writes_its_address_at_once_into_a_pipe(zoo: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
    serving = start(zoo, "serve", "--cron", "0 0 1 1 *")

    line = read_until(serving.stdout, "server: ")
    hint = read_until(serving.stdout, "to use the server: ")
    serving.send_signal(signal.SIGTERM)
    _, err = serving.communicate(timeout=120 * crowd())

    assert re.search(r"server: http://127\.0\.0\.1:\d+/api; Ctrl\+C stops both", line)
    assert "export PREFECT_API_AUTH_STRING=$(cat " in hint
    assert (serving.returncode, "Traceback" in err) == (143, False), err


@pytest.mark.environments
def test_serve_at_a_time_that_is_none__is_refused_before_its_server_starts(zoo: Path) -> None:
    ended = lfm_atlas("serve", "--cron", "at night", folder=zoo)

    ended.check(2, "got --cron 'at night', expected minute, hour, day, month and weekday", most_lines=2)
    assert ended.out == ""
    assert not list((zoo / ".lfm-atlas" / "prefect").glob("*.db*"))
    assert not (zoo / ".lfm-atlas" / "prefect" / "server.log").exists()


# As on a machine so busy that the loop of zarr gets no turn while Python ends.
BUSY_EXIT = """
import time
from lfm_tasks.stores.units import arrays

arrays._zarr()  # as the first array that is written or read
from zarr.core import sync

sync._get_loop().call_soon_threadsafe(time.sleep, {seconds})
"""


def test_zarr_that_is_busy_at_exit__is_waited_for() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BUSY_EXIT.format(seconds=1)], capture_output=True, text=True, timeout=120, check=False
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_zarr_that_never_ends__keeps_no_process(tmp_path: Path) -> None:
    program = BUSY_EXIT.format(seconds=60) + "arrays.EXIT_SECONDS = 0.5\n"

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=False, cwd=tmp_path
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.environments
@pytest.mark.slow
def test_hundred_readers_on_a_busy_machine__end_without_a_word_of_zarr(
    zoo: Path, build: Callable[[Path], object]
) -> None:
    build(zoo)
    command = [sys.executable, "-m", "lfm_atlas", "show", "atlas", "summary", "--format", "json"]
    ends = []
    for _ in range(10):  # ten at a time: they are the crowd
        readers = [
            subprocess.Popen(
                command, cwd=zoo, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            for _ in range(10)
        ]
        ends += [(*reader.communicate(timeout=300 * crowd()), reader.returncode) for reader in readers]

    assert {(err, code) for _, err, code in ends} == {("", 0)}
    assert len({out for out, _, _ in ends}) == 1


# Makes the folder read-only for the command alone: root may write where rights forbid it, but not to such a disk.
READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'


@pytest.mark.environments
@pytest.mark.parametrize("options", [[], ["--no-prefect"], ["--no-dask"]], ids=["prefect", "no prefect", "no dask"])
def test_audit_of_a_catalog_in_a_read_only_folder__is_refused_before_anything_is_computed(
    options: list[str], zoo: Path, tmp_path: Path
) -> None:
    unshare = shutil.which("unshare") or pytest.skip("not run: there is no command unshare")
    alone = (unshare, "--mount", "sh", "-c", READ_ONLY, str(zoo))
    if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        pytest.skip("not run: mounting takes root")
    catalog = zoo / "data_catalog.yaml"
    out = "atlas:\n  path: ../out/atlas\n  store: ../out/store\n"
    catalog.write_text(catalog.read_text().replace("atlas:\n", out, 1))

    refused = lfm_atlas("audit", str(catalog), *options, folder=tmp_path, before=alone)

    refused.check(1, f"{zoo}", "got a read-only disk", most_lines=2)
    assert not (tmp_path / "out" / "atlas").exists()
    assert not list((tmp_path / "out").rglob("receipts/*/*"))
