"""An object store that is busy, slow or cut off: the atlas of a sound one, or one sentence, and no commit half done."""

import logging
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm_tasks.stores.remote import objects
from lfm_tasks.stores.remote.store import RemoteUnitStore
from tests.robustness.clusters.conftest import ENVIRONMENT, PYTHON, contents
from tests.robustness.clusters.test_object_store import REMOTE, put_remote
from tests.robustness.clusters.unreliable_server import FAULTS, Unreliable, unreliable

pytestmark = pytest.mark.cluster
WHO = {"AWS_ACCESS_KEY_ID": "zoo", "AWS_SECRET_ACCESS_KEY": "only-here", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Unreliable]:
    """Give an S3 server with an empty bucket, behind one that fails; this process sees it as well."""
    server = pytest.importorskip("moto.server", reason="not run: got no moto").ThreadedMotoServer(
        "127.0.0.1", 0, verbose=False
    )
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server.start()
    host, port = server.get_host_and_port()
    with unreliable(f"http://{host}:{port}") as state:
        for name, value in (WHO | {"AWS_ENDPOINT_URL": state.url}).items():
            monkeypatch.setenv(name, value)
        objects._file_system.cache_clear()
        files = objects._file_system()
        if files.exists("zoo"):
            files.rm("zoo", recursive=True)
        files.mkdir("zoo")
        yield state
    server.stop()
    objects._file_system.cache_clear()


@pytest.fixture
def zoos(
    tmp_path: Path, related_spaces: Callable[..., dict[str, Any]], write_zoo: Callable[..., Path], build: Any
) -> tuple[Path, Path]:
    """Give two zoos of the same models: one with its atlas, and one whose store is to be the object store."""
    models = related_spaces(2)
    here, there = (write_zoo(tmp_path / name, models) for name in ("here", "there"))
    build(here)
    put_remote(there)
    return here, there


def run(zoo: Path, store: Unreliable) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PYTHON, "-m", "lfm_atlas", "run", "--no-prefect"],
        cwd=zoo, env=ENVIRONMENT | WHO | {"AWS_ENDPOINT_URL": store.url}, capture_output=True, text=True, timeout=600,
        check=False,
    )  # fmt: skip


def check_units(folder: Path) -> int:
    """Return how many units have a receipt; a machine without copies has to read them all."""
    reader = RemoteUnitStore(folder, REMOTE)
    units = reader.stored_remotely()
    for kind, key in units:
        reader.check(kind, key)
    return len(units)


def test_run_of_which_a_quarter_of_requests_fail__gives_the_same_bytes(
    store: Unreliable, zoos: tuple[Path, Path], tmp_path: Path
) -> None:
    here, there = zoos
    store.share = 0.25

    ended = run(there, store)

    store.share = 0.0
    assert ended.returncode == 0, ended.stderr
    assert set(store.hit) == set(FAULTS)
    assert contents(there / "atlas") == contents(here / "atlas")
    assert check_units(tmp_path / "third") > 5


@pytest.mark.parametrize("n_sound", [0, 60, 150])
def test_store_that_fails_for_good__ends_the_run_with_a_sentence_and_the_next_one_goes_on(
    n_sound: int,
    store: Unreliable,
    zoos: tuple[Path, Path],
    tmp_path: Path,
    build: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here, there = zoos
    store.share, store.sound, store.faults = 1.0, n_sound, ("internal error",)

    ended = run(there, store)

    store.share = 0.0
    assert ended.returncode == 1, ended.stderr
    assert "Traceback" not in ended.stderr, ended.stderr
    told = [line for line in ended.stderr.splitlines() if "RemoteStoreError" in line]
    assert len(told) == 1, ended.stderr
    assert f"{REMOTE} cannot be " in told[0]
    check_units(tmp_path / "third")
    monkeypatch.setattr("lfm_tasks.stores.remote.lock.LEASE_SECONDS", 0.0)  # the lock could not be freed
    build(there)
    assert contents(there / "atlas") == contents(here / "atlas")


@pytest.mark.parametrize("fault", ["lost answer", "half an answer"])
def test_commit_whose_answers_are_lost__is_done_once(fault: str, store: Unreliable, tmp_path: Path) -> None:
    store.share, store.faults = 0.5, (fault,)
    unit_store = RemoteUnitStore(tmp_path / "a", REMOTE)
    for number in range(6):
        with unit_store.commit("probes", f"{number:064x}") as writer:
            writer.arrays.write("accuracies", np.array([0.25, 0.5]))

    store.share = 0.0
    assert store.hit[fault] > 5
    assert check_units(tmp_path / "third") == 6
    written = {tuple(name.split("/")[:3]) for name in unit_store.objects.below("units")}
    assert len(written) == 6
