"""A scheduler and two workers with addresses of their own, by TLS: the atlas of one process, and no stranger let in."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.robustness.clusters.conftest import ENVIRONMENT, PYTHON, Processes, contents, needs, tls_options, wait_for

pytestmark = pytest.mark.cluster
SCHEDULER = "tls://10.213.0.2:8786"


@pytest.fixture
def machines() -> Iterator[Callable[..., list[str]]]:
    """Give four network namespaces on one switch, seen as machines: a prefix for commands in the n-th of them."""
    needs("ip", root=True)
    switch, *names = (f"lfm{os.getpid()}-{number}" for number in range(5))

    def ip(*arguments: str) -> None:
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"not run: ip {' '.join(arguments)} says {done.stderr.strip()}")

    made = []
    try:
        for name in (switch, *names):
            ip("netns", "add", name)
            made.append(name)
        ip("-n", switch, "link", "add", "switch", "type", "bridge")
        ip("-n", switch, "link", "set", "switch", "up")
        for number, name in enumerate(names, start=1):
            ip("-n", switch, "link", "add", f"port{number}", "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("-n", switch, "link", "set", f"port{number}", "master", "switch", "up")
            ip("-n", name, "address", "add", f"10.213.0.{number}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield lambda number: ["ip", "netns", "exec", names[number - 1]]
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "delete", name], check=False)


def run(machine: list[str], folder: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*machine, PYTHON, "-m", "lfm_atlas", "run", "--no-prefect", *options],
        cwd=folder, env=ENVIRONMENT | environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_scheduler_and_workers_on_addresses_of_their_own__give_the_atlas_of_one_process(
    tmp_path: Path,
    machines: Callable[..., list[str]],
    processes: Processes,
    certificates: Path,
    related_spaces: Callable[..., dict[str, Any]],
    write_zoo: Callable[..., Path],
    build: Callable[..., Any],
) -> None:
    models = related_spaces(3)
    here, there = write_zoo(tmp_path / "here", models), write_zoo(tmp_path / "there", models)
    build(here)
    tls = tls_options(certificates)
    processes.start(
        "scheduler", *machines(2), PYTHON, "-m", "dask", "scheduler", "--protocol", "tls", "--host", "10.213.0.2",
        "--no-dashboard", *tls,
    )  # fmt: skip
    for number in (3, 4):
        worker = ["--host", f"10.213.0.{number}", "--nthreads", "1", "--no-dashboard", *tls]
        processes.start(f"worker{number}", *machines(number), PYTHON, "-m", "dask", "worker", SCHEDULER, *worker)
    wait_for(lambda: "Register" in processes.log("scheduler"), "a worker's arrival")
    catalog = there / "data_catalog.yaml"
    files = {"ca": "ca.pem", "cert": "cert.pem", "key": "cert-key.pem"}
    plain = catalog.read_text()

    without = run(machines(1), there, "--scheduler", SCHEDULER)
    unencrypted = run(machines(1), there, "--scheduler", SCHEDULER.replace("tls", "tcp"))
    named = f"{{{', '.join(f'{key}: {certificates / file}' for key, file in files.items())}}}"
    catalog.write_text(plain + f"cluster: {{type: address, scheduler: '{SCHEDULER}', tls: {named}}}\n")
    stranger = named.replace("/cert.", "/stranger.").replace("/cert-", "/stranger-")
    (there / "stranger.yaml").write_text(catalog.read_text().replace(named, stranger))
    strange = run(machines(1), there, "-c", "stranger.yaml")
    good = run(machines(1), there)

    assert (without.returncode, unencrypted.returncode, strange.returncode) == (1, 1, 1)
    assert f"{SCHEDULER} needs certificates. Name them in cluster.tls" in without.stderr
    assert "cannot be reached" in unencrypted.stderr
    assert "cannot be reached" in strange.stderr
    assert "Traceback" not in without.stderr + unencrypted.stderr + strange.stderr
    assert good.returncode == 0, good.stderr
    assert contents(there / "atlas") == contents(here / "atlas")
    shares = [processes.log(f"worker{number}").count("Starting Worker plugin lfm-atlas") for number in (3, 4)]
    assert min(shares) > 0
