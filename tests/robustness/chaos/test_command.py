"""The full command, with Prefect and Dask, killed and stopped: it ends soon, leaves nobody, and the next goes on."""

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm_tasks.stores.atlas.files import read_atlas
from tests.integration.test_prefect_run import contents, nobody_left, start
from tests.robustness.chaos.conftest import SETTINGS, crowd
from tests.robustness.chaos.test_kill_points import under_way

pytestmark = pytest.mark.chaos
# A fault ends in success or in an error within this (seconds), a signal within that.
MOST_SECONDS, STOP_SECONDS = 120.0, 10.0


def children(run: subprocess.Popen[str], part: str) -> list[int]:
    """Return the child processes of a run whose command line holds ``part``."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            parent = (entry / "stat").read_text().rsplit(")", 1)[1].split()[1] if entry.name.isdigit() else ""
            if parent == str(run.pid) and part in (entry / "cmdline").read_bytes().decode():
                found.append(int(entry.name))
        except OSError:
            continue
    return sorted(found)


def after_line(run: subprocess.Popen[str], beginning: str) -> None:
    assert run.stderr is not None
    for line in run.stderr:
        if line.startswith(beginning):
            return


def kill_child(part: str, beginning: str) -> Callable[[subprocess.Popen[str]], None]:
    def kill(run: subprocess.Popen[str]) -> None:
        after_line(run, beginning)
        for _ in range(6000):
            if run.poll() is not None:
                return
            if found := children(run, part):
                os.kill(found[-1], signal.SIGKILL)
                return
            time.sleep(0.01)

    return kill


def kill_run(beginning: str) -> Callable[[subprocess.Popen[str]], None]:
    def kill(run: subprocess.Popen[str]) -> None:
        after_line(run, beginning)
        run.kill()

    return kill


def kill_server_that_starts(run: subprocess.Popen[str]) -> None:
    while run.poll() is None and not (found := children(run, "uvicorn")):
        time.sleep(0.01)
    os.kill(found[0], signal.SIGKILL)


# The scheduler lives in the process of the run: killing one kills the other.
KILLS: dict[str, Callable[[subprocess.Popen[str]], None]] = {
    "run, before the first stage": lambda run: time.sleep(1.5) or run.kill(),  # type: ignore[func-returns-value]
    "run and scheduler, recording": kill_run("activations: 0/"),
    "run and scheduler, bases": kill_run("bases: 0/"),
    "run and scheduler, scores": kill_run("scores: 0/"),
    "run and scheduler, after the scores": kill_run("scores: "),
    "run and scheduler, publishing": kill_run("atlas: 0/"),
    "worker that starts": kill_child("spawn_main", "activations: 0/"),
    "worker, bases": kill_child("spawn_main", "bases: 0/"),
    "worker, scores": kill_child("spawn_main", "scores: 0/"),
    "server that starts": kill_server_that_starts,
    "server, bases": kill_child("uvicorn", "bases: 0/"),
    "server, publishing": kill_child("uvicorn", "atlas: 0/"),
}
# A worker that dies costs the run nothing; without its server it ends with a sentence, if it has not ended before.
CODES = {"run": (-signal.SIGKILL,), "worker": (0,), "server": (0, 1)}


@pytest.fixture
def begin() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a run; whatever a test comes to, none stays."""
    runs: list[subprocess.Popen[str]] = []

    def start_run(folder: Path, *options: str) -> subprocess.Popen[str]:
        runs.append(start(folder, *options))
        return runs[-1]

    yield start_run
    for run in runs:
        run.kill()
        run.communicate()


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, tiny_zoo: Callable[..., Path], build: Any) -> dict[str, bytes]:
    folder = tiny_zoo(tmp_path_factory.mktemp("expected"), 3)
    build(folder)
    return contents(folder / "atlas")


@pytest.mark.parametrize("kill", KILLS)
def test_kill__ends_soon_leaves_nobody_and_the_next_run_ends_in_the_same_atlas(
    kill: str,
    begin: Callable[[Path], subprocess.Popen[str]],
    tmp_path: Path,
    tiny_zoo: Callable[..., Path],
    build: Any,
    expected: dict[str, bytes],
    leftovers: Callable[[Path], list[str]],
    figure: Callable[[str], None],
) -> None:
    folder = tiny_zoo(tmp_path / "zoo", 3)
    run = begin(folder)
    KILLS[kill](run)
    killed = time.monotonic()
    _, err = run.communicate(timeout=MOST_SECONDS)
    took = time.monotonic() - killed

    assert run.returncode in CODES[kill.split(",")[0].split()[0]], err
    assert "Traceback" not in err
    assert nobody_left(folder)
    redone = under_way(folder)
    assert redone <= len(os.sched_getaffinity(0))  # one a worker
    assert build(folder).failures == ()
    assert contents(folder / "atlas") == expected
    assert leftovers(folder) == []
    figure(f"kill of the {kill}: exit {run.returncode} after {took:.1f} s, {redone} units made again")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("seed", range(3))
def test_signal_at_a_random_moment__ends_within_ten_seconds(
    seed: int,
    number: signal.Signals,
    begin: Callable[[Path], subprocess.Popen[str]],
    tmp_path: Path,
    tiny_zoo: Callable[..., Path],
    build: Any,
    expected: dict[str, bytes],
    leftovers: Callable[[Path], list[str]],
    figure: Callable[[str], None],
) -> None:
    folder = tiny_zoo(tmp_path / "zoo", 3)
    run = begin(folder)
    chance = random.Random(100 * number + seed)  # noqa: S311 - a moment, no secret
    moments = ["activations: 0/", "bases: 0/", "scores: 0/", "atlas: 0/"]
    if seed:
        after_line(run, chance.choice(moments))
    time.sleep(1 + chance.random() if not seed else chance.random() / 2)
    run.send_signal(number)
    sent = time.monotonic()
    _, err = run.communicate(timeout=MOST_SECONDS)
    took = time.monotonic() - sent

    assert run.returncode in (128 + number, 0), err  # 0: it had ended before
    assert "Traceback" not in err
    assert took <= STOP_SECONDS * crowd()
    assert nobody_left(folder)
    assert build(folder).failures == ()
    assert contents(folder / "atlas") == expected
    assert leftovers(folder) == []
    figure(f"{number.name}, moment {seed}: exit {run.returncode} after {took:.1f} s")


def test_second_run__is_refused_within_five_seconds_with_the_first_by_name(
    begin: Callable[[Path], subprocess.Popen[str]],
    tmp_path: Path,
    tiny_zoo: Callable[..., Path],
    figure: Callable[[str], None],
) -> None:
    folder = tiny_zoo(tmp_path / "zoo", 3)
    first = begin(folder)
    after_line(first, "activations: 0/")
    first.send_signal(signal.SIGSTOP)  # it holds the store, however long the second takes
    began = time.monotonic()
    second = begin(folder)
    _, err = second.communicate(timeout=MOST_SECONDS)
    refused = time.monotonic() - began
    first.send_signal(signal.SIGKILL)
    died = time.monotonic()
    first.communicate(timeout=MOST_SECONDS)

    from lfm_tasks.stores.units.durable import locked

    with locked(folder / ".lfm-atlas", "third"):
        freed = time.monotonic() - died
    assert second.returncode == 1
    assert f"process {first.pid} on " in err
    assert "started 20" in err
    assert refused <= 5 * crowd()
    assert freed <= 1
    assert nobody_left(folder)
    figure(f"second run refused after {refused:.1f} s; the store of a killed run free after {freed:.2f} s")


NETWORKS = """
import multiprocessing, os
from torch import nn

class Deadly(nn.Tanh):
    def forward(self, values):
        if multiprocessing.parent_process() is not None:
            os._exit(1)  # as a segmentation fault would
        return super().forward(values)

def tiny(width):
    return nn.Sequential(nn.Linear(6, width), Deadly() if width == 7 else nn.Tanh())
"""


def test_network_that_kills_its_worker_every_time__is_named_and_the_others_finish(
    begin: Callable[..., subprocess.Popen[str]], tmp_path: Path, figure: Callable[[str], None]
) -> None:
    pytest.importorskip("torch", reason="needs the extra [torch]")
    generator = np.random.default_rng(0)
    np.save(tmp_path / "inputs.npy", generator.standard_normal((40, 6)).astype(np.float32))
    np.save(tmp_path / "ids.npy", np.array([f"p{number}" for number in range(40)]))
    (tmp_path / "networks.py").write_text(NETWORKS)
    models = {
        f"width{width}": {"torch": {"factory": "networks:tiny", "args": {"width": width}, "dataset": "probe"}}
        for width in (6, 7, 8, 9)
    }
    probe = {"ids": {"path": "ids.npy"}, "inputs": {"path": "inputs.npy"}}
    catalog = {"version": 1, "datasets": {"probe": probe}, "models": models, "atlas": SETTINGS}
    (tmp_path / "data_catalog.yaml").write_text(json.dumps(catalog | {"cluster": {"n_workers": 2}}))
    began = time.monotonic()
    run = begin(tmp_path, "--trust-code", "--no-prefect")
    _, err = run.communicate(timeout=4 * MOST_SECONDS * crowd())
    took = time.monotonic() - began

    assert run.returncode == 4, err
    assert "Traceback" not in err
    named = [
        line for line in err.splitlines() if "its worker died 4 times, and as often with nothing beside it" in line
    ]
    # Both of its layers, on one line.
    assert [line.split(": ")[0] for line in named] == ["width7/0, 1 (probe)"]
    scores = read_atlas(tmp_path / "atlas")
    assert {name.split("/")[0] for name in scores["source"].values} == {"width6", "width8", "width9"}
    assert nobody_left(tmp_path)
    figure(f"a network that kills its worker: named, exit 4, the 3 others in the atlas after {took:.0f} s")
