"""The command as people run it, with Prefect and Dask: it listens on loopback alone, and keeps no secret."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from lfm_atlas.prefect_server import wait_until_ready

COMMAND = [sys.executable, "-c", "from lfm_atlas.cli.main import main; main()"]
LOOPBACK = ("127.0.0.1", "::1", "localhost")
SECRET = "Canary-5f3a9c-Secret"  # noqa: S105 - planted

pytestmark = pytest.mark.fuzz


def listeners(process: subprocess.Popen[bytes]) -> set[str]:
    """Return the addresses that a process and all below it listen on."""
    found = set()
    try:
        parents = [psutil.Process(process.pid)]
        for child in [*parents, *parents[0].children(recursive=True)]:
            connections = child.net_connections("inet")
            found |= {connection.laddr.ip for connection in connections if connection.status == psutil.CONN_LISTEN}
            found |= {c.laddr.ip for c in connections if c.type != 1 and not c.raddr}  # UDP has no state
    except psutil.Error:
        pass  # it is gone already
    return found


def environment(**more: str) -> dict[str, str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
    return plain | more


def test_run__listens_on_loopback_alone_and_writes_no_secret(
    tmp_path: Path, related_spaces: Callable[..., Any], write_zoo: Callable[..., Path]
) -> None:
    folder = write_zoo(tmp_path, related_spaces(2))
    catalog = folder / "data_catalog.yaml"
    far = (
        "  keys: {activations: {path: 's3://bucket/a.npz', key: '{layer}', dataset: probe, storage: lab, "
        "ids: {path: ids.npy}}}\n"
    )
    catalog.write_text(catalog.read_text().replace("models:\n", f"models:\n{far}"))
    options = f'{{"key": "AKIA0000", "secret": "{SECRET}", "endpoint_url": "http://127.0.0.1:9"}}'
    more = {"LFM_ATLAS_STORAGE_LAB": options, "MY_TOKEN": SECRET, "AWS_MAX_ATTEMPTS": "1"}
    heard: set[str] = set()
    with (folder / "told").open("wb") as told:
        process = subprocess.Popen(
            [*COMMAND, "run", str(catalog)], stdout=told, stderr=told, env=environment(**more), cwd=folder
        )
        until = time.monotonic() + 240
        while process.poll() is None and time.monotonic() < until:
            heard |= listeners(process)
            time.sleep(0.2)
        process.kill()

    assert process.returncode == 4, (folder / "told").read_text()
    assert heard
    assert heard <= set(LOOPBACK)
    leaks = [
        str(path.relative_to(folder))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != catalog and SECRET.encode() in path.read_bytes()
    ]
    assert (folder / ".lfm-atlas" / "prefect").is_dir()
    assert leaks == []


def test_serve__listens_on_loopback_alone(
    tmp_path: Path, related_spaces: Callable[..., Any], write_zoo: Callable[..., Path]
) -> None:
    folder = write_zoo(tmp_path, related_spaces(2))
    command = [*COMMAND, "serve", str(folder / "data_catalog.yaml"), "--cron", "0 0 1 1 *"]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment(), cwd=folder
    )
    heard: set[str] = set()
    try:
        until = time.monotonic() + 90
        while not heard and process.poll() is None and time.monotonic() < until:
            heard |= listeners(process)
            time.sleep(0.5)
        time.sleep(8)
        heard |= listeners(process)
        assert process.poll() is None
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    assert heard
    assert heard <= set(LOOPBACK)


def test_dask__with_tls_refuses_who_has_no_certificate() -> None:
    from distributed import Client, LocalCluster, Security

    security = Security.temporary()
    with LocalCluster(
        n_workers=1, processes=False, protocol="tls", security=security, host="127.0.0.1", dashboard_address=None
    ) as cluster:
        assert cluster.scheduler_address.startswith("tls://127.0.0.1:")
        with Client(cluster.scheduler_address, security=security, set_as_default=False) as client:
            assert client.submit(sum, [1, 2]).result() == 3
        with pytest.raises((OSError, TypeError, ValueError)):
            Client(cluster.scheduler_address, set_as_default=False, timeout="2s")
        with pytest.raises(OSError, match=r"[Tt]imed out|connect|SSL|certificate"):
            Client(
                cluster.scheduler_address, security=Security.temporary(), set_as_default=False, timeout="2s"
            )  # another's certificate


def test_prefect__with_a_password_refuses_who_does_not_say_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket
    import urllib.error
    import urllib.request

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    secret = {"PREFECT_SERVER_API_AUTH_STRING": f"admin:{SECRET}", "PREFECT_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"]
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port), "--log-level", "error"],
        env=environment(**secret), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}/api"
    try:
        wait_until_ready(address)
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{address}/version", timeout=5)  # noqa: S310 - loopback
        for known, told in ((f"admin:{SECRET}", "200 OK"), ("admin:wrong", "401")):
            reach = {"PREFECT_API_URL": address, "PREFECT_API_AUTH_STRING": known, "PREFECT_HOME": str(tmp_path)}
            asked = "from prefect import get_client\nprint(get_client(sync_client=True)._client.get('/version'))"
            done = subprocess.run(
                [sys.executable, "-c", asked], env=environment(**reach), capture_output=True, text=True, check=False
            )
            assert told in done.stdout + done.stderr
    finally:
        process.terminate()
        process.wait(20)
