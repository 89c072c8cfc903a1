"""Every user of a machine reaches its loopback: there nobody but a run gets an answer from the run's processes."""

import asyncio
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest
from distributed import LocalCluster, Security

from lfm_tasks.workers.pool import LocalDask

pytestmark = pytest.mark.safety

RUN = [sys.executable, "-m", "lfm_atlas", "run"]
MOST_SECONDS = 240.0
TLS_ALERT = 0x15

# What another user does: calls the handlers that run code, without and with a certificate, and prints what came back.
ATTACK = """
import asyncio, os, sys
from distributed import Security
from distributed.core import rpc
from distributed.protocol.pickle import dumps

folder, *addresses = sys.argv[1:]
stranger = Security.temporary().get_connection_args("client")

async def call(address, arguments, operation):
    async with rpc(address, connection_args=arguments) as server:
        answer = await getattr(server, operation)(function=dumps(os.listdir), args=dumps((folder,)), kwargs=dumps({}))
        print(answer)

async def attack(addresses, seconds):
    for address in addresses:
        for scheme, arguments in (("tcp", {}), ("tls", stranger)):
            for operation in ("run", "run_function"):
                try:
                    await asyncio.wait_for(call(f"{scheme}://{address}", arguments, operation), seconds)
                except Exception as error:
                    print(scheme, address, operation, type(error).__name__)

# First where nobody listens: every module is imported now, since another user may not be able to read this Python.
asyncio.run(attack(["127.0.0.1:1"], 1))
print("attack")
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
asyncio.run(attack(addresses, 10))
"""


def servers(process: psutil.Process) -> Iterator[tuple[psutil.Process, Any]]:
    """Yield each process from ``process`` down, with each socket that others can reach."""
    try:
        family = [process, *process.children(recursive=True)]
    except psutil.Error:
        return
    for member in family:
        try:
            connections = member.net_connections("inet")
        except psutil.Error:  # it is gone already
            continue
        for connection in connections:
            is_stream = connection.type == socket.SOCK_STREAM
            if connection.status == psutil.CONN_LISTEN or (not is_stream and not connection.raddr):
                yield member, connection.laddr


def answers(port: int) -> list[bytes]:
    """Return what a server says to someone without a certificate, who has no TLS, TLS, or a foreign certificate."""
    nameless = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    nameless.check_hostname, nameless.verify_mode = False, ssl.CERT_NONE
    foreign = Security.temporary().get_connection_args("client")["ssl_context"]
    foreign.verify_mode = ssl.CERT_NONE
    return [reply for context in (None, nameless, foreign) if (reply := answer(port, context))]


def answer(port: int, context: ssl.SSLContext | None) -> bytes:
    try:
        with (
            socket.create_connection(("127.0.0.1", port), 10) as plain,
            context.wrap_socket(plain) if context else nullcontext(plain) as connection,
        ):
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            reply = connection.recv(1000)
    except (OSError, ssl.SSLError):
        return b""
    return b"" if reply[:1] == bytes([TLS_ALERT]) else reply


def attacked_by_another_user(folder: Path, addresses: list[str]) -> str:
    """Return what another user gets who calls servers to list a folder; skip where there is no other user."""
    if os.geteuid() != 0:
        pytest.skip("not run: needs the rights of root, to act as another user")
    done = subprocess.run(
        [sys.executable, "-c", ATTACK, str(folder), *(address.split("://")[1] for address in addresses)],
        cwd="/", capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.partition("attack\n")[2]


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    folder = tmp_path / "secret"
    folder.mkdir(mode=0o700)
    (folder / "thesis").touch()
    return folder


@pytest.fixture
def workers() -> Iterator[LocalDask]:
    """Give a local cluster of one worker that has done a job."""
    started = LocalDask(1)
    assert dict(started.run(abs, [-1])) == {0: 1}
    yield started
    started.close()


def addresses_of(workers: LocalDask) -> list[str]:
    cluster = workers._cluster
    nannies = list(cluster.workers.values())
    return [cluster.scheduler_address, *(nanny.address for nanny in nannies), *(n.worker_address for n in nannies)]


@pytest.mark.filterwarnings("ignore")
def test_cluster_without_certificates__runs_the_code_of_another_user(secret: Path) -> None:
    """The attack works, so that it fails below for the right reason."""
    with LocalCluster(n_workers=1, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster:
        assert "'result': ['thesis']" in attacked_by_another_user(secret, [cluster.workers[0].address])


@pytest.mark.filterwarnings("ignore")
def test_another_user__cannot_have_code_run_by_a_run(workers: LocalDask, secret: Path) -> None:
    attempts = attacked_by_another_user(secret, addresses_of(workers)).splitlines()

    assert len(attempts) == 3 * 4
    assert not [attempt for attempt in attempts if not attempt.endswith("Error")]


@pytest.mark.filterwarnings("ignore")  # what Dask says of sockets that a dead worker held
def test_worker_that_replaces_another__answers_nobody_either(workers: LocalDask) -> None:
    [nanny] = workers._cluster.workers.values()
    died = nanny.pid
    os.kill(died, signal.SIGKILL)
    deadline = time.monotonic() + MOST_SECONDS
    while nanny.pid in (None, died) or nanny.status.name != "running":
        assert time.monotonic() < deadline
        time.sleep(0.1)

    assert dict(workers.run(abs, [-2])) == {0: 2}
    for address in addresses_of(workers):
        assert address.startswith("tls://127.0.0.1:")
        assert answers(int(address.rpartition(":")[2])) == []


def test_control_channel_of_serve__answers_only_to_the_token_of_a_flow_run() -> None:
    """`serve` starts Prefect's runner, which listens for the flow runs that it has started."""
    from prefect.runner._control_channel import ControlChannel

    async def answers_to(port: int, said: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(said)
        if said:
            writer.write_eof()
        try:
            return await asyncio.wait_for(reader.read(1000), 30)
        except ConnectionError:
            return b""
        finally:
            writer.close()

    async def attack() -> tuple[list[bytes], bool]:
        async with ControlChannel() as channel:
            assert channel._server is not None
            assert [bound.getsockname()[0] for bound in channel._server.sockets] == ["127.0.0.1"]
            flow_run = uuid4()
            port, token = channel.register(flow_run)
            guesses = [b"GET / HTTP/1.0\r\n\r\n", b"0" * len(token), b"0" * len(token) + b"\n", b"\x00" * 4096]
            replies = [await answers_to(port, said) for said in guesses]
            return replies, channel.get_conclusion(flow_run) is None

    replies, is_untouched = asyncio.run(attack())

    assert replies == [b""] * 4
    assert is_untouched


@pytest.mark.parametrize("options", [["--no-prefect"], pytest.param([], marks=pytest.mark.slow)], ids=" ".join)
def test_run__answers_nobody_shows_its_key_to_nobody_and_runs_nothing_of_others(
    options: list[str], tmp_path: Path, related_spaces: Callable[..., Any], write_zoo: Callable[..., Path]
) -> None:
    zoo = write_zoo(tmp_path / "zoo", related_spaces(2, n_layers=1))
    foreign = made_by_another_user(tmp_path / "scratch" / "dask-scratch-space")
    catalog = zoo / "data_catalog.yaml"
    catalog.write_text(catalog.read_text() + "cluster: {n_workers: 2}\n")
    ports: set[int] = set()
    said: dict[int, list[bytes]] = {}
    exposed: set[bytes] = set()

    with start(options, zoo, foreign.parent) as run:
        while is_running(run):
            for process, address in servers(psutil.Process(run.pid)):
                assert address.ip == "127.0.0.1"
                if address.port not in ports:
                    ports.add(address.port)
                    said[address.port] = answers(address.port)
                    exposed |= visible(process.pid)

    assert run.returncode == 0, (zoo / "log").read_text()
    assert "handshake" not in (zoo / "log").read_text()  # strangers do not fill the terminal
    # Prefect's server asks for a secret of its own.
    prefect = [port for port, replies in said.items() if any(b"uvicorn" in reply for reply in replies)]
    assert len(prefect) <= ("--no-prefect" not in options)
    assert len(ports) - len(prefect) >= 5  # a scheduler, two nannies, two workers
    assert not {port: replies for port, replies in said.items() if replies and port not in prefect}
    assert not [text for text in exposed if b"PRIVATE KEY" in text]
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"PRIVATE KEY" in path.read_bytes()]
    assert sorted(foreign.iterdir()) == sorted(foreign.glob("*.py"))


def test_run_in_one_process__listens_nowhere(
    tmp_path: Path, related_spaces: Callable[..., Any], write_zoo: Callable[..., Path]
) -> None:
    zoo = write_zoo(tmp_path / "zoo", related_spaces(2, n_layers=1))
    heard = []

    with start(["--no-dask"], zoo, tmp_path) as run:
        while is_running(run):
            heard += list(servers(psutil.Process(run.pid)))

    assert run.returncode == 0, (zoo / "log").read_text()
    assert heard == []


def made_by_another_user(folder: Path) -> Path:
    """Make Dask's default folder below ``TMPDIR``, which belongs to whoever makes it first; Dask imports from it."""
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    for name in ("h5py", "numba", "threadpoolctl", "xarray", "zarr"):
        (folder / f"{name}.py").write_text("import pathlib\npathlib.Path(__file__).with_suffix('.ran').touch()\n")
    return folder


def start(options: list[str], zoo: Path, scratch: Path) -> "subprocess.Popen[bytes]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
    with (zoo / "log").open("wb") as log:
        return subprocess.Popen(
            [*RUN, *options, "-c", "data_catalog.yaml"], cwd=zoo, stdout=log, stderr=log,
            env=environment | {"TMPDIR": str(scratch)},
        )  # fmt: skip


def is_running(run: "subprocess.Popen[bytes]") -> bool:
    time.sleep(0.1)
    return run.poll() is None


def visible(process: int) -> set[bytes]:
    """Return what a process shows of itself: arguments, which everybody reads, and environment."""
    try:
        return {Path(f"/proc/{process}/{name}").read_bytes() for name in ("cmdline", "environ")}
    except OSError:
        return set()
