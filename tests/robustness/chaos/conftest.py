"""Faults, made in a child process: the n-th change of the disk fails or kills, once; nothing in the product knows."""

import builtins
import errno
import io
import json
import os
import resource
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import pytest

from lfm_atlas.console import format_os_error as sentence

# What changes the disk from Python. C++ (pyarrow, renameat2) writes between two of these.
CHANGES = ("fsync", "rename", "replace", "mkdir", "unlink", "rmdir")
SETTINGS = {"graph": {"n_neighbors": 5}, "n_eigenpairs": 4, "null": {"n_permutations": 9}, "measures": ["overlap"]}


def crowd() -> float:
    """Return how many processes want each core: what takes a second alone takes so many now, at least 1."""
    return max(1.0, os.getloadavg()[0] / len(os.sched_getaffinity(0)))


class Ended(NamedTuple):
    """How a child ended: its exit code (negative: the signal), the error it met, what it computed, the operations."""

    code: int
    error: str
    computed: dict[str, int]
    operations: list[str]


class Faults:
    """Counts what changes the disk; at the ``last``-th it breaks.

    ``how``: ``fail`` with EIO, ``kill`` the process, or lose the ``rights`` to change any folder below ``folder``.
    """

    def __init__(self, last: int, how: str, folder: Path) -> None:
        self.last, self.how, self.folder, self.operations = last, how, folder, list[str]()

    def install(self) -> None:
        for name in CHANGES:
            setattr(os, name, self._counted(name, getattr(os, name)))
        plain = io.open

        def opened(file: Any, mode: str = "r", *rest: Any, **more: Any) -> Any:
            if isinstance(file, int) or not set(mode) & set("wax+"):
                return plain(file, mode, *rest, **more)
            self.step(f"open {file}")
            return _Torn(plain(file, mode, *rest, **more), self)

        io.open = builtins.open = opened  # type: ignore[assignment]

    def step(self, name: str, before: Callable[[], object] = lambda: None) -> None:
        self.operations.append(name)
        if len(self.operations) == self.last:
            if self.how == "rights":
                for current, _, _ in os.walk(self.folder, topdown=False):
                    os.chmod(current, 0o555)  # noqa: S103 - that is the fault
                return
            before()
            if self.how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(errno.EIO, os.strerror(errno.EIO), name)

    def _counted(self, name: str, plain: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self.step(f"{name} {arguments[0]}")
            return plain(*arguments, **options)

        return call


class _Torn:
    """A file whose write, where it breaks, leaves half of the bytes."""

    def __init__(self, file: Any, faults: Faults) -> None:
        self._file, self._faults = file, faults

    def write(self, content: Any) -> Any:
        def half() -> None:
            self._file.write(content[: len(content) // 2])
            self._file.flush()

        self._faults.step(f"write {getattr(self._file, 'name', '')}", half)
        return self._file.write(content)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "_Torn":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


@pytest.fixture(scope="session")
def in_child(build: Any, tiny_zoo: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Ended]:
    """Build the atlas of a folder in a forked child, undisturbed or with a fault at the ``last``-th operation."""
    # Children inherit what is imported and compiled.
    build(tiny_zoo(tmp_path_factory.mktemp("warm")))

    def run(folder: Path, last: int = 0, how: str = "fail", prepare: Callable[[], object] = lambda: None) -> Ended:
        log = tmp_path_factory.mktemp("ended") / "log.json"
        file = log.open("w")
        child = os.fork()
        if child == 0:
            _child(folder, file, Faults(last, how, folder), build, prepare)
        file.close()
        _, status = os.waitpid(child, 0)
        told = json.loads(log.read_text()) if log.stat().st_size else {"error": "", "computed": {}, "operations": []}
        return Ended(os.waitstatus_to_exitcode(status), **told)

    return run


def _child(folder: Path, log: TextIO, faults: Faults, build: Any, prepare: Callable[[], object]) -> None:
    told: dict[str, Any] = {"error": "", "computed": {}}
    code = 1
    try:
        prepare()
        faults.install()
        outcome = build(folder)
        told["computed"], code = outcome.computed, 4 if outcome.failures else 0
        told["error"] = "; ".join(failure.message for failure in outcome.failures)
    except BaseException as error:
        told["error"] = sentence(error) if isinstance(error, OSError | RuntimeError) else traceback.format_exc()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        json.dump(told | {"operations": faults.operations}, log)
        log.flush()
        os._exit(code)


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file below a folder, by name."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="session")
def state() -> Callable[[Path], dict[str, bytes]]:
    """Return everything that must not depend on what happened: the published atlas, all units, all receipts."""

    def read(folder: Path) -> dict[str, bytes]:
        parts = ("atlas", ".lfm-atlas/units", ".lfm-atlas/receipts", ".lfm-atlas/references")
        return {f"{part}/{name}": content for part in parts for name, content in contents(folder / part).items()}

    return read


@pytest.fixture(scope="session")
def leftovers() -> Callable[[Path], list[str]]:
    """Return what a run should have cleared away: staging, half-written files, former and staged atlases."""

    def find(folder: Path) -> list[str]:
        names = [path.relative_to(folder).as_posix() for path in folder.rglob("*")]
        marks = ("staging", "partial", ".staged", ".former", "quarantine")
        return sorted(name for name in names if any(mark in name for mark in marks) and name != ".lfm-atlas/staging")

    return find


@pytest.fixture(scope="session")
def tiny_zoo(write_zoo: Any, related_spaces: Any) -> Callable[[Path], Path]:
    """Write a zoo of two models of one layer each: a second to build."""

    def write(folder: Path, n_models: int = 2, **settings: Any) -> Path:
        made: Path = write_zoo(folder, related_spaces(n_models, n_points=40, n_layers=1), **{**SETTINGS, **settings})
        return made

    return write


@pytest.fixture(scope="session")
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Print a line of figures, also where output is captured: docs/reliability.md states them."""
    capture = request.config.pluginmanager.getplugin("capturemanager")

    def tell(line: str) -> None:
        with capture.global_and_fixture_disabled():
            print(f"\n    {line}", flush=True)  # noqa: T201

    return tell
