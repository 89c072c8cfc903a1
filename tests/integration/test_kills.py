"""A run killed at any point, started again, ends in the atlas of a run that nobody disturbed, bit for bit."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# Kills its own process, hard, before the n-th step that changes the disk: each write made durable, each rename.
KILLED = """
import os, signal, sys
from pathlib import Path
last, log = int(sys.argv.pop(1)), Path(sys.argv.pop(1))
steps = 0

def step(name):
    global steps
    steps += 1
    if steps == last:
        os.kill(os.getpid(), signal.SIGKILL)

def counted(module, name):
    plain = getattr(module, name)
    def call(*arguments, **options):
        step(name)
        return plain(*arguments, **options)
    setattr(module, name, call)

for name in ("fsync", "rename", "replace", "mkdir"):
    counted(os, name)
import lfm_tasks.stores.units.durable, lfm_tasks.stores.units.store, lfm_atlas.cli.main
sys.argv[0] = "lfm-atlas"
try:
    lfm_atlas.cli.main.main()
finally:
    log.write_text(str(steps))
"""
N_KILLS = 10


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def run_until(step: int, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", KILLED, str(step), str(folder / "steps"), "run", str(folder / "data_catalog.yaml")]
    return subprocess.run(
        [*command, "--no-prefect", "--no-dask"], capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, related_spaces: Any, write_zoo: Callable[..., Path]
) -> tuple[dict[str, bytes], int, Any]:
    """Give the atlas of a run that nobody disturbed, and how many steps it took."""
    models = related_spaces(2)
    folder = write_zoo(tmp_path_factory.mktemp("undisturbed"), models)
    run = run_until(0, folder)
    assert run.returncode == 0, run.stderr
    return contents(folder / "atlas"), int((folder / "steps").read_text()), models


@pytest.mark.parametrize("kill", range(1, N_KILLS + 1))
def test_run_killed__goes_on_to_the_same_atlas(
    kill: int, undisturbed: Any, tmp_path: Path, write_zoo: Callable[..., Path], build: Any
) -> None:
    atlas, n_steps, models = undisturbed
    assert n_steps > 50
    folder = write_zoo(tmp_path, models)
    killed = run_until(kill * n_steps // (N_KILLS + 1), folder)
    assert killed.returncode == -signal.SIGKILL

    outcome = build(folder)

    assert outcome.failures == ()
    assert contents(folder / "atlas") == atlas
    assert not any((folder / ".lfm-atlas" / "staging").glob("*"))
    assert sorted(path.name for path in folder.iterdir() if "atlas" in path.name) == [".lfm-atlas", "atlas"]
    # What was done before the kill was kept.
    assert sum(outcome.reused.values()) + sum(outcome.computed.values()) == 4 + 4 + 10 + 1 + 1 + 1


def test_run_killed_while_another_atlas_is_published__leaves_a_whole_one(
    tmp_path: Path, related_spaces: Any, write_zoo: Callable[..., Path], build: Any
) -> None:
    folder = write_zoo(tmp_path, related_spaces(2))
    build(folder)
    old = contents(folder / "atlas")
    write_zoo(tmp_path, related_spaces(2), measures=["overlap"])
    assert run_until(0, write_zoo(tmp_path / "count", related_spaces(2), measures=["overlap"])).returncode == 0
    new = contents(tmp_path / "count" / "atlas")
    seen = set()
    for step in range(200, 0, -12):
        killed = run_until(step, folder)
        found = contents(folder / "atlas")
        assert found in (old, new)
        seen.add(killed.returncode)
        if found == new:
            break

    assert seen <= {0, -signal.SIGKILL}
    build(folder)
    assert contents(folder / "atlas") == new


def test_second_run_at_the_same_time__is_refused_and_harms_nothing(
    tmp_path: Path, related_spaces: Any, write_zoo: Callable[..., Path]
) -> None:
    from lfm_tasks.stores.units.marker import held_store

    folder = write_zoo(tmp_path, related_spaces(2))
    with held_store(folder / ".lfm-atlas", "lfm-atlas run"):
        refused = run_until(0, folder)

    assert refused.returncode == 1
    assert str(os.getpid()) in refused.stderr
    assert not (folder / "atlas").exists()
