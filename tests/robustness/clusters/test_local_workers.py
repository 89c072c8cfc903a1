"""How many workers there are on this machine, and how many of them die on the way, does not change a bit."""

import os
import signal
import subprocess
from functools import partial
from pathlib import Path

import pytest

from lfm_tasks.zoo import write_start
from tests.robustness.clusters.conftest import PYTHON, Processes, contents, wait_for

pytestmark = pytest.mark.cluster


def children(process: int) -> list[int]:
    """Return the processes below one that do Dask's work."""
    found, waiting = [], [process]
    while waiting:
        here = waiting.pop()
        for task in Path(f"/proc/{here}/task").glob("*/children"):
            waiting += [int(child) for child in task.read_text().split()]
        found.append(here)
    return [child for child in found if b"--multiprocessing-fork" in Path(f"/proc/{child}/cmdline").read_bytes()]


def has_more(receipts: Path, n_units: int, run: "subprocess.Popen[bytes]") -> bool:
    """Return whether more units are there, or will not come."""
    return len(list(receipts.rglob("*.json"))) > n_units or run.poll() is not None


@pytest.mark.parametrize(("n_workers", "n_kills"), [(4, 0), (2, 3)])
def test_shipped_zoo__is_the_same_with_more_workers_and_when_some_are_killed(
    tmp_path: Path, zoo_folder_built: Path, processes: Processes, n_workers: int, n_kills: int
) -> None:
    write_start(tmp_path / "zoo")
    path = tmp_path / "zoo" / "data_catalog.yaml"
    path.write_text(path.read_text() + f"cluster: {{n_workers: {n_workers}}}\n")
    receipts = tmp_path / "zoo" / ".lfm-atlas" / "receipts"

    run = processes.start("run", PYTHON, "-m", "lfm_atlas", "run", "--no-prefect", "-c", str(path))
    for n_units in range(10, 10 * n_kills + 1, 10):
        wait_for(partial(has_more, receipts, n_units, run), "more units", 400)
        assert run.poll() is None, processes.log("run")
        os.kill(children(run.pid)[0], signal.SIGKILL)

    assert run.wait(400) == 0, processes.log("run")
    assert contents(tmp_path / "zoo" / "atlas") == contents(zoo_folder_built / "atlas")
