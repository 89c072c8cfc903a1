"""The shipped zoo on a single-node SLURM: by SLURMCluster, with a worker's job cancelled, and as one sbatch job."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lfm_tasks.zoo import write_start
from tests.robustness.clusters.conftest import ENVIRONMENT, PYTHON, ROOT, Processes, contents, wait_for
from tests.robustness.clusters.slurm import cancel, jobs, slurm

pytestmark = pytest.mark.cluster
CLUSTER = "cluster: {type: slurm, interface: lo, n_workers: 2, memory: 2GiB, walltime: '00:20:00', wait_seconds: 120}\n"


@pytest.fixture
def controller(tmp_path: Path, processes: Processes) -> Iterator[dict[str, str]]:
    with slurm(tmp_path / "slurm", processes) as environment:
        yield environment


def test_worker_jobs_of_which_one_is_cancelled__give_the_atlas_of_one_process(
    tmp_path: Path, zoo_folder_built: Path, processes: Processes, request: pytest.FixtureRequest
) -> None:
    pytest.importorskip("dask_jobqueue", reason="not run: got no dask-jobqueue")
    controller = request.getfixturevalue("controller")
    write_start(tmp_path / "zoo")
    with (tmp_path / "zoo" / "data_catalog.yaml").open("a") as catalog:
        catalog.write(CLUSTER)
    receipts = tmp_path / "zoo" / ".lfm-atlas" / "receipts" / "bases"

    run = processes.start(
        "run", PYTHON, "-m", "lfm_atlas", "run", "-c", str(tmp_path / "zoo" / "data_catalog.yaml"), **controller
    )
    wait_for(lambda: len(list(receipts.glob("*.json"))) > 3 or run.poll() is not None, "the first bases", 300)
    first, second = jobs(controller)
    cancel(controller, first)
    wait_for(lambda: set(jobs(controller)) - {first, second} or run.poll() is not None, "a new worker's job", 120)
    code = run.wait(300)

    assert code == 0, processes.log("run")
    assert contents(tmp_path / "zoo" / "atlas") == contents(zoo_folder_built / "atlas")
    wait_for(lambda: not jobs(controller), "the end of the jobs")
    keys = [path for path in (tmp_path / "zoo" / ".lfm-atlas" / "slurm").iterdir() if b"PRIVATE" in path.read_bytes()]
    assert all(path.stat().st_mode & 0o077 == 0 for path in keys)


def test_batch_job__gives_the_atlas_of_one_process(
    tmp_path: Path, zoo_folder_built: Path, controller: dict[str, str]
) -> None:
    write_start(tmp_path / "zoo")
    script = ROOT / "deploy" / "slurm" / "run.sbatch"

    done = subprocess.run(
        ["sbatch", "--wait", "--ntasks=2", str(script)],
        cwd=tmp_path / "zoo", env=os.environ | ENVIRONMENT | controller | {"LFM_ATLAS_PYTHON": PYTHON},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip

    [log] = (tmp_path / "zoo").glob("lfm-atlas-*.log")
    assert done.returncode == 0, log.read_text()[-3000:]
    assert contents(tmp_path / "zoo" / "atlas") == contents(zoo_folder_built / "atlas")
    assert not list((tmp_path / "zoo").glob(".lfm-atlas-job-*"))
