"""Workers of two sizes on one scheduler: what the small one cannot hold goes to the large one, or is refused."""

import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.robustness.clusters.conftest import PYTHON, Processes, contents, wait_for
from tests.robustness.clusters.test_local_workers import children

pytestmark = pytest.mark.cluster
# Beside the worker itself a basis of 3,000 points takes some 40 MiB, one of 300 points hardly anything.
SMALL, LARGE = 240 << 20, 2 << 30


def peak_bytes(process: int) -> int:
    """Return the highest memory of a process."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) << 10


def test_heavy_spaces__are_computed_by_the_worker_that_can_hold_them(
    tmp_path: Path,
    processes: Processes,
    related_spaces: Callable[..., dict[str, Any]],
    write_zoo: Callable[..., Path],
    build: Callable[..., Any],
) -> None:
    models = related_spaces(3, n_points=3000)
    here, there = write_zoo(tmp_path / "here", models), write_zoo(tmp_path / "there", models)
    build(here)
    file = ["--scheduler-file", str(tmp_path / "scheduler.json")]
    local = ["--host", "127.0.0.1", "--no-dashboard"]
    processes.start("scheduler", PYTHON, "-m", "dask", "scheduler", *local, "--port", "0", *file)

    def start(name: str, size: int) -> "subprocess.Popen[bytes]":
        options = ["--nthreads", "1", "--memory-limit", str(size), *file, *local]
        return processes.start(name, PYTHON, "-m", "dask", "worker", *options)

    small = start("small", SMALL)
    wait_for(lambda: "Register worker" in processes.log("scheduler"), "a worker's arrival")
    run = [PYTHON, "-m", "lfm_atlas", "run", "--no-prefect", "-c", str(there / "data_catalog.yaml"), "--scheduler"]

    refused = processes.start("refused", *run, file[1]).wait(60)
    large = start("large", LARGE)
    wait_for(lambda: processes.log("scheduler").count("Register worker") > 1, "the large worker's arrival")
    going = processes.start("run", *run, file[1])
    bases = there / ".lfm-atlas" / "receipts" / "bases"
    wait_for(lambda: len(list(bases.glob("*.json"))) > 1 or going.poll() is not None, "some bases")
    assert going.poll() is None, processes.log("run")
    os.kill(children(large.pid)[0], signal.SIGKILL)

    assert refused == 2
    assert re.search(
        r"bases of model\d/layer\d would take \d+ MiB of a worker's 240 MiB, expected at most 95% of it: .*, or start "
        r"a larger worker \(dask worker --memory-limit\); nothing was computed",
        " ".join(processes.log("refused").split()),
    )
    assert going.wait(300) == 0, processes.log("run")
    assert contents(there / "atlas") == contents(here / "atlas")
    assert max(peak_bytes(child) for child in children(small.pid)) < 0.95 * SMALL
    assert processes.log("scheduler").count("Register worker") == 3
