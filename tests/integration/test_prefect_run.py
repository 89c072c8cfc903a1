"""A run as it is by default, orchestrated by Prefect and worked by Dask: same atlas, no traces, clean stops."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment["LFM_ATLAS_TEST"] = str(folder)  # a mark on whatever the run starts
    return subprocess.Popen(
        [sys.executable, "-m", "lfm_atlas", "run", str(folder / "data_catalog.yaml"), *options],
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=_hear_interrupts, process_group=0,
    )  # fmt: skip


def _hear_interrupts() -> None:
    # A suite that runs in the background of a script ignores SIGINT, and its children would inherit that.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def processes_about(folder: Path) -> list[str]:
    """Return the command lines of living processes that name ``folder``, or that a run on it started."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                marks = (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if str(folder) in line or f"LFM_ATLAS_TEST={folder}".encode() in marks:
                found.append(line)
    return found


def nobody_left(folder: Path) -> bool:
    for _ in range(100):
        if not processes_about(folder):
            return True
        time.sleep(0.2)
    return False


@pytest.fixture(scope="module")
def expected(
    tmp_path_factory: pytest.TempPathFactory, related_spaces: Any, write_zoo: Callable[..., Path], build: Any
) -> dict[str, bytes]:
    folder = write_zoo(tmp_path_factory.mktemp("expected"), related_spaces(3))
    build(folder)
    return contents(folder / "atlas")


def test_run__by_prefect_and_dask_gives_the_same_bytes_and_leaves_nobody_behind(
    tmp_path: Path, related_spaces: Any, write_zoo: Callable[..., Path], expected: dict[str, bytes]
) -> None:
    folder = write_zoo(tmp_path, related_spaces(3))

    run = start(folder)
    out, err = run.communicate(timeout=300)

    assert run.returncode == 0, err
    assert "6 spaces, 0 failed" in out
    assert "Traceback" not in err
    assert contents(folder / "atlas") == expected
    assert nobody_left(folder)
    # Prefect's own records are kept: the flow, and a task for each stage.
    with sqlite3.connect(folder / ".lfm-atlas" / "prefect" / "prefect.db") as records:
        states = records.execute("select state_type from flow_run").fetchall()
        tasks = records.execute("select name from task_run").fetchall()
        inputs = records.execute("select distinct task_inputs from task_run").fetchall()
    # What is a parameter of a task, Prefect looks through: the scores of a large zoo for minutes.
    assert inputs == [("{}",)]
    assert states == [("COMPLETED",)]
    assert {name for (name,) in tasks} == {
        "validate", "record-activations", "build-bases", "score-pairs", "fit-collections", "keep-maps",
        "compare-across-datasets",
        "fit-transfers", "embed-spaces", "publish-atlas",
    }  # fmt: skip

    again = start(folder)
    out, err = again.communicate(timeout=300)

    assert again.returncode == 0, err
    assert "nothing to compute: the atlas is up to date" in out


def interrupt_all(run: subprocess.Popen[str]) -> None:
    """Do what a terminal does on Ctrl+C."""
    os.killpg(run.pid, signal.SIGINT)


@pytest.mark.parametrize(
    ("stop", "code"),
    [
        (lambda run: run.send_signal(signal.SIGTERM), 143),
        (lambda run: run.send_signal(signal.SIGINT), 130),
        (interrupt_all, 130),
    ],
)
def test_run_that_is_stopped__leaves_with_its_code_and_goes_on_later(
    stop: Callable[[subprocess.Popen[str]], None],
    code: int,
    tmp_path: Path,
    related_spaces: Any,
    write_zoo: Callable[..., Path],
    build: Any,
    expected: dict[str, bytes],
) -> None:
    folder = write_zoo(tmp_path, related_spaces(3))
    run = start(folder)
    assert run.stderr is not None
    for line in run.stderr:
        if line.startswith("bases: 0/"):
            break
    stop(run)
    _, err = run.communicate(timeout=120)

    assert run.returncode == code, err
    assert "Traceback" not in err
    assert ("what was finished is kept, the next run goes on from there" in err) == (code == 130)
    assert nobody_left(folder)

    assert build(folder).failures == ()
    assert contents(folder / "atlas") == expected


def test_run_that_is_killed__takes_its_server_and_workers_with_it(
    tmp_path: Path, related_spaces: Any, write_zoo: Callable[..., Path], build: Any, expected: dict[str, bytes]
) -> None:
    folder = write_zoo(tmp_path, related_spaces(3))
    run = start(folder)
    assert run.stderr is not None
    for line in run.stderr:
        if line.startswith("bases: 0/"):
            break
    run.kill()
    run.communicate(timeout=120)

    assert nobody_left(folder)
    assert build(folder).failures == ()
    assert contents(folder / "atlas") == expected


def test_run_with_a_failed_space__is_4_and_keeps_the_others(
    tmp_path: Path, related_spaces: Any, write_zoo: Callable[..., Path]
) -> None:
    models = related_spaces(2)
    models["model1"][0]["layer1"][0, 0] = float("nan")
    run = start(write_zoo(tmp_path, models))
    out, err = run.communicate(timeout=300)

    assert run.returncode == 4, err
    assert "[not_finite]" in err
    assert "3 spaces, 1 failed" in out
