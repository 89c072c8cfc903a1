"""A small zoo for whole commands, and servers of other programs that people have beside them."""

import socket
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

SETTINGS = {"graph": {"n_neighbors": 5}, "n_eigenpairs": 4, "null": {"n_permutations": 9}, "measures": ["overlap"]}


def files(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file below a folder, by name."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def add_to_catalog(zoo: Path, section: str) -> None:
    """Add a section, as YAML, to the catalog of a zoo."""
    path = zoo / "data_catalog.yaml"
    path.write_text(path.read_text(encoding="utf-8") + section + "\n", encoding="utf-8")


@pytest.fixture(scope="session")
def write_tiny_zoo(write_zoo: Callable[..., Path], related_spaces: Any) -> Callable[[Path], Path]:
    """Write a zoo of two models of one layer each, which one worker works on: a second to build."""

    def write(folder: Path, n_models: int = 2) -> Path:
        zoo = write_zoo(folder, related_spaces(n_models, n_points=40, n_layers=1), **SETTINGS)
        add_to_catalog(zoo, "cluster: {n_workers: 1}")
        return zoo

    return write


@pytest.fixture
def zoo(tmp_path: Path, write_tiny_zoo: Callable[[Path], Path]) -> Path:
    """Give a tiny zoo."""
    return write_tiny_zoo(tmp_path / "zoo")


@pytest.fixture(scope="session")
def expected(
    tmp_path_factory: pytest.TempPathFactory, write_tiny_zoo: Callable[[Path], Path], build: Any
) -> dict[str, bytes]:
    """Give the atlas of the tiny zoo, made in this process."""
    folder = write_tiny_zoo(tmp_path_factory.mktemp("expected") / "zoo")
    build(folder)
    return files(folder / "atlas")


@pytest.fixture
def proxy() -> Iterator[tuple[str, list[str]]]:
    """Give the address of a proxy that lets nothing through, and the requests that it got."""
    seen: list[str] = []

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.requestline)
            self.send_error(503)

        do_POST = do_CONNECT = do_GET

        def log_message(self, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}", seen
        server.shutdown()


def free_port() -> int:
    """Return a port of loopback at which nobody answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
