"""What runs beside the tests here: processes that end with their test, and certificates."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
ENVIRONMENT = os.environ | {
    "OPENBLAS_NUM_THREADS": "1",
    "DASK_CONFIG": str(ROOT / "deploy" / "dask.yaml"),
}
PYTHON = sys.executable


def needs(*programs: str, root: bool = False) -> None:
    """Skip the test, saying what it needed."""
    if missing := [name for name in programs if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]:
        pytest.skip(f"not run: got no {', '.join(missing)}")
    if root and os.geteuid() != 0:
        pytest.skip("not run: needs the rights of root")


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def wait_for(condition: Callable[[], object], what: str, seconds: float = 90) -> None:
    """Return when ``condition`` is true; fail, naming ``what``, if it does not become so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds:.0f} s"
        time.sleep(0.2)


@dataclass
class Processes:
    """Starts programs, each with a log of its own, and stops them."""

    folder: Path
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("wb") as log:
            self.running[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder,
                env=ENVIRONMENT | environment, start_new_session=True,
            )  # fmt: skip
        return self.running[name]

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def stop(self) -> None:
        for process in reversed(self.running.values()):
            process.terminate()
        for process in self.running.values():
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Give a starter of processes that end with the test."""
    folder = tmp_path / "processes"
    folder.mkdir()
    started = Processes(folder)
    yield started
    started.stop()


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """Give a folder with an authority (ca.pem), a certificate that it signed (cert.pem), and one it did not."""
    needs("openssl")
    folder = tmp_path / "certificates"
    folder.mkdir()

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    def new(name: str) -> tuple[str, ...]:
        return "req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}-key.pem", "-subj", f"/CN={name}"

    openssl(*new("ca"), "-x509", "-days", "2", "-out", "ca.pem")
    openssl(*new("stranger"), "-x509", "-days", "2", "-out", "stranger.pem")
    openssl(*new("cert"), "-out", "cert.csr")
    signed_by = ("-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial")
    openssl("x509", "-req", "-in", "cert.csr", *signed_by, "-days", "2", "-out", "cert.pem")
    return folder


def tls_options(certificates: Path) -> list[str]:
    """Return the options of ``dask scheduler`` and ``dask worker``."""
    files = {"ca-file": "ca.pem", "cert": "cert.pem", "key": "cert-key.pem"}
    return [part for name, file in files.items() for part in (f"--tls-{name}", str(certificates / file))]
