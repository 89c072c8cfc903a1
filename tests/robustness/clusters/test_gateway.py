"""A small zoo through a Dask Gateway that starts its clusters on this machine."""

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.robustness.clusters.conftest import PYTHON, Processes, contents, wait_for

pytestmark = pytest.mark.cluster

# `dask-scheduler` and `dask-worker`, which the Gateway would start, are no commands any more. Kernels of BLAS for
# another type of CPU, where a variable asks for them, give other last bits.
SETTINGS = """
c.DaskGateway.backend_class = "dask_gateway_server.backends.local.UnsafeLocalBackend"
c.DaskGateway.authenticator_class = "dask_gateway_server.auth.SimpleAuthenticator"
c.SimpleAuthenticator.password = "only-here"
c.DaskGateway.address = "127.0.0.1:{gateway}"
c.Proxy.address = "127.0.0.1:{proxy}"
c.Proxy.tcp_address = "127.0.0.1:{proxy}"
c.UnsafeLocalBackend.clusters_directory = "{folder}"
c.UnsafeLocalBackend.inherited_environment = ["PATH", "PYTHONPATH", "OPENBLAS_CORETYPE"]
c.ClusterConfig.scheduler_cmd = ["{python}", "-m", "dask", "scheduler"]
c.ClusterConfig.worker_cmd = ["{python}", "-m", "dask", "worker"]
c.ClusterConfig.environment = {{"OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("size", ["n_workers: 2", "adapt: {minimum: 1, maximum: 2}"])
def test_gateway__gives_the_atlas_of_one_process_to_who_may_come_in(
    tmp_path: Path,
    processes: Processes,
    related_spaces: Callable[..., dict[str, Any]],
    write_zoo: Callable[..., Path],
    build: Callable[..., Any],
    size: str,
) -> None:
    for package in ("dask_gateway", "dask_gateway_server"):
        pytest.importorskip(package, reason=f"not run: got no {package}")
    models = related_spaces(2)
    here, there = write_zoo(tmp_path / "here", models), write_zoo(tmp_path / "there", models)
    build(here)
    gateway, proxy = free_port(), free_port()
    folder = tmp_path / "clusters"
    folder.mkdir()
    settings = tmp_path / "gateway.py"
    settings.write_text(SETTINGS.format(gateway=gateway, proxy=proxy, folder=folder, python=PYTHON))
    with (there / "data_catalog.yaml").open("a") as catalog:
        catalog.write(f"cluster: {{type: gateway, address: 'http://127.0.0.1:{proxy}', {size}}}\n")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    processes.start("gateway", PYTHON, "-m", "dask_gateway_server", "-f", str(settings), PATH=path)
    wait_for(lambda: "started" in processes.log("gateway"), "the gateway's start", 120)

    def run(name: str, password: str) -> int:
        who = {"DASK_GATEWAY__AUTH__TYPE": "basic", "DASK_GATEWAY__AUTH__KWARGS": f'{{"password": "{password}"}}'}
        command = [PYTHON, "-m", "lfm_atlas", "run", "--no-prefect", "-c", str(there / "data_catalog.yaml")]
        return processes.start(name, *command, **who).wait(300)

    stranger, code = run("stranger", "guessed"), run("run", "only-here")

    assert stranger == 1
    assert "the gateway cluster could not be started" in processes.log("stranger")
    assert "guessed" not in processes.log("stranger")
    assert code == 0, processes.log("run") + processes.log("gateway")[-3000:]
    assert contents(there / "atlas") == contents(here / "atlas")
