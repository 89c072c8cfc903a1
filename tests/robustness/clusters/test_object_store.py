"""Store and atlas on an S3 server on loopback: the atlas of a local store, and no unit that is not whole."""

import json
import logging
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

from lfm_atlas.cli.main import app
from lfm_tasks.catalog import read_catalog
from lfm_tasks.errors import CorruptUnitError, DataError, FolderError
from lfm_tasks.maintenance import prune, verify
from lfm_tasks.stores.remote import lock, objects
from lfm_tasks.stores.remote import store as remote_store
from lfm_tasks.stores.remote.objects import RemoteStoreError
from lfm_tasks.stores.remote.store import RemoteUnitStore, claim_remote_store, locked_remotely
from lfm_tasks.stores.units.durable import StoreBusyError
from tests.robustness.clusters.conftest import ENVIRONMENT, PYTHON, contents, wait_for

pytestmark = pytest.mark.cluster
REMOTE = "s3://zoo/atlas-of-the-zoo"


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    """Give the environment of programs that talk to an S3 server of our own."""
    server = pytest.importorskip("moto.server", reason="not run: got no moto").ThreadedMotoServer("127.0.0.1", 0)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server.start()
    host, port = server.get_host_and_port()
    who = {"AWS_ACCESS_KEY_ID": "zoo", "AWS_SECRET_ACCESS_KEY": "only-here", "AWS_DEFAULT_REGION": "us-east-1"}
    yield who | {"AWS_ENDPOINT_URL": f"http://{host}:{port}"}
    server.stop()


@pytest.fixture
def files(server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give an empty bucket, seen by this process."""
    for name, value in server.items():
        monkeypatch.setenv(name, value)
    objects._file_system.cache_clear()
    files = objects._file_system()
    if files.exists("zoo"):
        files.rm("zoo", recursive=True)
    files.mkdir("zoo")
    return files


def put_remote(folder: Path) -> None:
    catalog = folder / "data_catalog.yaml"
    content = YAML(typ="safe").load(catalog)
    content["atlas"]["remote"] = REMOTE
    with catalog.open("w") as file:
        YAML().dump(content, file)


def write_unit(store: RemoteUnitStore, key: str = "a" * 64) -> str:
    with store.commit("probes", key) as writer:
        writer.arrays.write("accuracies", np.array([0.25, 0.5]))
        writer.facts["n"] = 2
    return key


def read_unit(store: RemoteUnitStore, key: str) -> list[float]:
    with store.open("probes", key) as unit:
        return list(unit.read("accuracies"))


def test_run__gives_the_atlas_of_a_local_store_and_another_machine_has_nothing_to_compute(
    tmp_path: Path,
    files: Any,
    related_spaces: Callable[..., dict[str, Any]],
    write_zoo: Callable[..., Path],
    build: Callable[..., Any],
) -> None:
    models = related_spaces(3)
    here, there, other = (write_zoo(tmp_path / name, models) for name in ("here", "there", "other"))
    build(here)
    put_remote(there)
    put_remote(other)

    build(there, in_process=False)
    second = build(other)

    assert contents(there / "atlas") == contents(here / "atlas") == contents(other / "atlas")
    assert {stage: n for stage, n in second.computed.items() if n} == {"atlas": 1}
    current = json.loads(files.cat_file(f"{REMOTE}/atlas/current.json"))["key"]
    files.get(f"{REMOTE}/atlas/{current}/", str(tmp_path / "got"), recursive=True)
    assert contents(tmp_path / "got") == contents(here / "atlas")
    assert json.loads(files.cat_file(f"{REMOTE}/lock"))["token"] is None


# Kills its own process, hard, before the n-th object is put.
KILLED = """
import os, signal, sys
from pathlib import Path
from lfm_tasks.stores.remote import objects
from lfm_atlas.pipeline import build_atlas
from lfm_tasks.catalog import read_catalog
from lfm_tasks.runtime.session import open_run

left = int(sys.argv[2])
files = objects._file_system()
put = files.pipe_file

def pipe_file(*arguments, **options):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return put(*arguments, **options)

files.pipe_file = pipe_file
with open_run(read_catalog(Path(sys.argv[1])), lambda *_: None, in_process=True) as run:
    build_atlas(run)
"""


@pytest.mark.parametrize("kill_before", [4, 15, 60])
def test_run_that_is_killed__leaves_whole_units_only_and_the_next_goes_on(
    tmp_path: Path,
    files: Any,
    server: dict[str, str],
    related_spaces: Callable[..., dict[str, Any]],
    write_zoo: Callable[..., Path],
    build: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    kill_before: int,
) -> None:
    models = related_spaces(2)
    here, there, other = (write_zoo(tmp_path / name, models) for name in ("here", "there", "other"))
    build(here)
    put_remote(there)
    put_remote(other)
    catalog = str(there / "data_catalog.yaml")

    killed = subprocess.run([PYTHON, "-c", KILLED, catalog, str(kill_before)], env=ENVIRONMENT | server, check=False)
    store = RemoteUnitStore(tmp_path / "third", REMOTE)
    for name in files.find(f"{REMOTE}/receipts"):
        kind, file = name.split("/")[-2:]
        store.check(kind, file.removesuffix(".json"))
    with pytest.raises(StoreBusyError, match="a lock of a dead run falls after 120 s"):
        build(other)
    monkeypatch.setattr(lock, "LEASE_SECONDS", 0.0)
    build(other)

    assert killed.returncode == -9
    assert contents(other / "atlas") == contents(here / "atlas")


def test_files_without_a_receipt__are_no_unit_and_are_swept(
    tmp_path: Path, files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_store, "GRACE_SECONDS", 0.0)
    store = RemoteUnitStore(tmp_path / "a", REMOTE)
    key = write_unit(store)
    files.pipe_file(f"{REMOTE}/units/probes/{'b' * 64}/{'0' * 32}/zarr.json", b"{}")
    files.pipe_file(f"{REMOTE}/units/probes/{key}/{'0' * 32}/zarr.json", b"{}")

    assert not store.has("probes", "b" * 64)
    store.sweep()
    assert not [name for name in files.find(REMOTE) if f"/{'0' * 32}/" in name]
    assert read_unit(RemoteUnitStore(tmp_path / "b", REMOTE), key) == [0.25, 0.5]


def test_second_writer_of_a_unit__leaves_the_first_ones(tmp_path: Path, files: Any) -> None:
    first, second = (RemoteUnitStore(tmp_path / name, REMOTE) for name in ("a", "b"))
    with first.commit("probes", "a" * 64) as slow:
        slow.arrays.write("accuracies", np.array([0.25, 0.5]))
        write_unit(second)
        before = files.cat_file(f"{REMOTE}/receipts/probes/{'a' * 64}.json")

    assert files.cat_file(f"{REMOTE}/receipts/probes/{'a' * 64}.json") == before
    assert len({name.split("/")[-3] for name in files.find(f"{REMOTE}/units") if name.endswith("/zarr.json")}) <= 2
    assert read_unit(first, "a" * 64) == [0.25, 0.5]


COMMITS = """
import sys
from pathlib import Path
import numpy as np
from lfm_tasks.stores.remote.store import RemoteUnitStore

root, remote, seed, n_units = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
for index in np.random.default_rng(seed).permutation(n_units).tolist():
    store = RemoteUnitStore(root, remote)
    with store.commit("probes", f"{index:064x}") as writer:
        writer.arrays.write("accuracies", np.array([index, 0.5]))
    with store.open("probes", f"{index:064x}") as unit:
        assert unit.read("accuracies")[0] == index
"""


def test_processes_that_commit_the_same_units__fail_never(
    tmp_path: Path, files: Any, server: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_store, "GRACE_SECONDS", 0.0)
    n_units = 12
    # Two workers of one machine, which share its copies, and one of another; one more is killed on the way.
    places = ["here", "here", "there", "here"]
    processes = [
        subprocess.Popen(
            [PYTHON, "-c", COMMITS, str(tmp_path / place), REMOTE, str(seed), str(n_units)], env=ENVIRONMENT | server
        )
        for seed, place in enumerate(places)
    ]
    wait_for(lambda: len(files.find(f"{REMOTE}/receipts")) > 2, "the first commits")
    processes[-1].kill()

    assert [process.wait() for process in processes][:-1] == [0, 0, 0]
    store = RemoteUnitStore(tmp_path / "third", REMOTE)
    for index in range(n_units):
        assert read_unit(store, f"{index:064x}") == [float(index), 0.5]
    store.sweep()
    named = {json.loads(files.cat_file(name))["folder"] for name in files.find(f"{REMOTE}/receipts")}
    assert {name.split("/")[-2] for name in files.find(f"{REMOTE}/units")} == named


def test_damaged_copy_on_this_machine__is_never_put(tmp_path: Path, files: Any) -> None:
    store = RemoteUnitStore(tmp_path / "a", REMOTE)
    key = write_unit(store)
    files.rm(REMOTE, recursive=True)
    next((tmp_path / "a" / "units").rglob("arrays.zip")).write_bytes(b"x")

    write_unit(store)

    assert read_unit(RemoteUnitStore(tmp_path / "b", REMOTE), key) == [0.25, 0.5]


@pytest.mark.parametrize("what", ["changed", "missing"])
def test_damaged_object__is_found_on_read_and_put_aside(tmp_path: Path, files: Any, what: str) -> None:
    key = write_unit(RemoteUnitStore(tmp_path / "a", REMOTE))
    arrays = next(name for name in files.find(f"{REMOTE}/units") if name.endswith("/arrays.zip"))
    if what == "changed":
        files.pipe_file(arrays, b"x" + files.cat_file(arrays)[1:])
    else:
        files.rm_file(arrays)
    other = RemoteUnitStore(tmp_path / "b", REMOTE)

    with pytest.raises(CorruptUnitError, match=r"put into quarantine\. Run again to compute it again"):
        read_unit(other, key)

    assert not other.has("probes", key)
    assert files.find(f"{REMOTE}/quarantine")
    other.sweep()
    assert len(files.find(f"{REMOTE}/units")) > 0
    write_unit(other)
    assert read_unit(other, key) == [0.25, 0.5]


def test_damaged_copy_on_this_machine__is_fetched_anew(tmp_path: Path, files: Any) -> None:
    store = RemoteUnitStore(tmp_path / "a", REMOTE)
    key = write_unit(store)
    arrays = next((tmp_path / "a" / "units").rglob("arrays.zip"))
    arrays.write_bytes(b"x")

    assert read_unit(store, key) == [0.25, 0.5]


def test_damaged_receipt__is_put_aside(tmp_path: Path, files: Any) -> None:
    store = RemoteUnitStore(tmp_path / "a", REMOTE)
    key = write_unit(store)
    files.pipe_file(f"{REMOTE}/receipts/probes/{key}.json", b"{")

    with pytest.raises(CorruptUnitError, match=f"receipt probes/{key} cannot be read"):
        store.receipt("probes", key)
    assert store.find("probes", key) is None
    assert not store.has("probes", key)


def verified(folder: Path, *, capture: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = app(["verify", str(folder / "data_catalog.yaml")], result_action="return_value")
    return int(code), capture.readouterr().err


def test_verify__reads_what_lies_there_and_runs_make_it_whole_again(
    tmp_path: Path,
    files: Any,
    related_spaces: Callable[..., dict[str, Any]],
    write_zoo: Callable[..., Path],
    build: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = write_zoo(tmp_path / "zoo", related_spaces(2))
    put_remote(folder)
    build(folder)
    before = contents(folder / ".lfm-atlas" / "units")
    assert verified(folder, capture=capsys) == (0, "")
    arrays, receipt, page = (
        next(name for name in files.find(f"{REMOTE}/{place}") if name.endswith(end))
        for place, end in (("units/scores", "arrays.zip"), ("receipts/bases", ".json"), ("atlas", "report.html"))
    )
    files.pipe_file(arrays, b"x" + files.cat_file(arrays)[1:])
    files.pipe_file(receipt, b"{")
    files.rm_file(page)

    code, found = verified(folder, capture=capsys)

    assert code == 1
    assert f"{REMOTE}/units/scores/{arrays.split('/')[-3]}: unit scores/" in found
    assert "arrays.zip is damaged" in found
    assert re.search(rf"{REMOTE}/units/bases/\w+: receipt bases/\w+ cannot be read", found)
    assert re.search(rf"{REMOTE}/atlas/\w+: report.html is missing", found)
    assert len(found.splitlines()) == 3
    assert contents(folder / ".lfm-atlas" / "units") == before
    assert not list((folder / ".lfm-atlas" / "staging").glob("*"))
    with locked_remotely(REMOTE, "lfm-atlas run"), pytest.raises(StoreBusyError, match="is in use by 'lfm-atlas run'"):
        verify(read_catalog(folder / "data_catalog.yaml"))
    # A machine without copies reads it: what is damaged is put aside, and made again by the run after.
    other = write_zoo(tmp_path / "other", related_spaces(2))
    put_remote(other)
    assert verified(other, capture=capsys) == (code, found)
    with pytest.raises(CorruptUnitError, match=r"put into quarantine\. Run again to compute it again"):
        build(other)
    build(other)
    assert verified(other, capture=capsys) == (0, "")


def test_prune__removes_what_no_atlas_there_was_made_of(
    tmp_path: Path,
    files: Any,
    related_spaces: Callable[..., dict[str, Any]],
    write_zoo: Callable[..., Path],
    build: Callable[..., Any],
) -> None:
    folder = write_zoo(tmp_path / "zoo", related_spaces(3))
    put_remote(folder)
    build(folder)
    first = set(files.find(f"{REMOTE}/units"))
    store = RemoteUnitStore(folder / ".lfm-atlas", REMOTE)
    unnoted = write_unit(store)  # of a kind that no atlas notes
    catalog = folder / "data_catalog.yaml"
    content = YAML(typ="safe").load(catalog)
    for n_eigenpairs in (5, 6):  # the atlas before the last one stays, for who reads it
        content["atlas"]["n_eigenpairs"] = n_eigenpairs
        with catalog.open("w") as file:
            YAML().dump(content, file)
        build(folder)
    settings = read_catalog(catalog)
    there = set(files.find(f"{REMOTE}/units"))

    told = prune(settings, remove=False).remote
    with locked_remotely(REMOTE, "lfm-atlas run"), pytest.raises(StoreBusyError, match="is in use by 'lfm-atlas run'"):
        prune(settings, remove=True)
    assert set(files.find(f"{REMOTE}/units")) == there
    done = prune(settings, remove=True).remote

    assert told == done
    assert done is not None
    left = set(files.find(f"{REMOTE}/units"))
    assert {kind for kind, _ in done.units} == {"bases", "halves", "scores", "collections", "kept_maps"}
    assert {name.split("/")[3] for name in first & left} == {"activations"}
    assert left < there
    assert store.has("probes", unnoted)
    assert there - left < first
    assert len(files.find(f"{REMOTE}/references")) == 2
    assert done.n_kept == len(files.find(f"{REMOTE}/receipts"))
    assert not verify(settings).damages
    assert not any(build(folder).computed.values())
    content["atlas"]["n_eigenpairs"] = 5
    with catalog.open("w") as file:
        YAML().dump(content, file)
    assert {stage for stage, n in build(folder).computed.items() if n} == {"atlas"}


def test_prune__refuses_where_nobody_knows_what_an_atlas_was_made_of(
    tmp_path: Path,
    files: Any,
    related_spaces: Callable[..., dict[str, Any]],
    write_zoo: Callable[..., Path],
    build: Callable[..., Any],
) -> None:
    folder = write_zoo(tmp_path / "zoo", related_spaces(2))
    put_remote(folder)
    build(folder)
    settings = read_catalog(folder / "data_catalog.yaml")
    files.rm(files.find(f"{REMOTE}/references"))
    there = files.find(REMOTE)

    with pytest.raises(DataError, match=f"{REMOTE}: got an atlas that does not say what it was made of, expected one"):
        prune(settings, remove=True)
    assert files.find(REMOTE) == there
    build(folder)
    assert prune(settings, remove=True).remote is not None
    files.rm(f"{REMOTE}/atlas", recursive=True)
    with pytest.raises(DataError, match=f"{REMOTE}: got no atlas, expected one to know what to keep: lfm-atlas run"):
        prune(settings, remove=True)


def test_server_that_does_not_answer__is_told_without_a_traceback(files: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        RemoteStoreError, match=r"s3://none/zoo cannot be written to .*\. Check the address, and the AWS_"
    ):
        locked_remotely("s3://none/zoo", "lfm-atlas run").__enter__()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    objects._file_system.cache_clear()
    with pytest.raises(RemoteStoreError, match="NoCredentials"):
        locked_remotely(REMOTE, "lfm-atlas run").__enter__()
    objects._file_system.cache_clear()


def test_lock__is_held_by_one_and_falls_when_nobody_renews_it(files: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with locked_remotely(REMOTE, "lfm-atlas run"):
        with pytest.raises(StoreBusyError, match=r"is in use by 'lfm-atlas run' \(process \d+ on .*\)\. Wait"):
            locked_remotely(REMOTE, "another").__enter__()
        monkeypatch.setattr(lock, "LEASE_SECONDS", 0.0)
        with locked_remotely(REMOTE, "another"):
            held = json.loads(files.cat_file(f"{REMOTE}/lock"))
    assert held["purpose"] == "another"
    assert json.loads(files.cat_file(f"{REMOTE}/lock"))["token"] is None


@pytest.mark.parametrize("content", [b"", b'{"version": 1, "tok'], ids=["empty", "partial"])
def test_damaged_lock__is_a_sentence_and_the_command_in_it_removes_the_lock(
    content: bytes,
    tmp_path: Path,
    files: Any,
    server: dict[str, str],
    related_spaces: Callable[..., dict[str, Any]],
    write_zoo: Callable[..., Path],
) -> None:
    folder = write_zoo(tmp_path / "zoo", related_spaces(2))
    put_remote(folder)
    claim_remote_store(REMOTE)
    files.pipe_file(f"{REMOTE}/lock", content)
    run = [PYTHON, "-m", "lfm_atlas", "run", "--no-prefect", "--no-dask"]
    environment = ENVIRONMENT | server | {"PATH": f"{Path(PYTHON).parent}:{ENVIRONMENT['PATH']}"}

    refused = subprocess.run(run, cwd=folder, env=environment, capture_output=True, text=True, check=False)

    assert refused.returncode == 1, refused.stderr
    told = refused.stderr.splitlines()[-1]
    assert f"{REMOTE}: got a lock that names no holder ({len(content)} bytes" in told
    assert "Traceback" not in refused.stderr
    command = told.partition("then remove it: ")[2]
    subprocess.run(["sh", "-c", command], env=environment, check=True)
    assert not files.exists(f"{REMOTE}/lock")
    subprocess.run(run, cwd=folder, env=environment, check=True)


def test_machine_without_the_models__keeps_the_atlas_that_another_one_published(
    tmp_path: Path,
    files: Any,
    related_spaces: Callable[..., dict[str, Any]],
    write_zoo: Callable[..., Path],
    build: Callable[..., Any],
) -> None:
    first = write_zoo(tmp_path / "first", related_spaces(2))
    put_remote(first)
    build(first)
    current = files.cat_file(f"{REMOTE}/atlas/current.json")
    second = write_zoo(tmp_path / "second", related_spaces(2))
    put_remote(second)
    for path in second.glob("*.npz"):
        path.unlink()

    outcome = build(second)

    assert outcome.is_kept
    assert "expected at least one space" in outcome.unpublished
    assert files.cat_file(f"{REMOTE}/atlas/current.json") == current
    assert contents(second / "atlas") == contents(first / "atlas")


def test_audit_on_a_machine_without_the_models_and_without_an_atlas__is_of_the_published_one(
    tmp_path: Path,
    files: Any,
    related_spaces: Callable[..., dict[str, Any]],
    write_zoo: Callable[..., Path],
    build: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    first, second = (write_zoo(tmp_path / name, related_spaces(2)) for name in ("first", "second"))
    put_remote(first)
    put_remote(second)
    build(first)
    for path in second.glob("*.npz"):
        path.unlink()

    options = ("--no-prefect", "--no-dask")
    assert app(["audit", str(second / "data_catalog.yaml"), *options], result_action="return_value") == 3

    assert "fail     keep_if_below: got 0 spaces" in capsys.readouterr().err
    assert contents(second / "atlas") == contents(first / "atlas")
    audit = json.loads((second / "audits" / "audit.json").read_text())
    assert audit["atlas"] == json.loads((first / "atlas" / "manifest.json").read_text())["key"]
    assert {check["name"]: check["status"] for check in audit["checks"]}["control"] == "pass"
    assert verify(read_catalog(second / "data_catalog.yaml")).damages == ()
    prune(read_catalog(second / "data_catalog.yaml"), remove=True)


OF_SOMEBODY = {
    "a thesis": (("thesis.tex",), "got a folder with thesis.tex that is no store of lfm-atlas"),
    "names of ours": (("units/x", "lock", "atlas/x"), "got a folder with atlas, lock, units that is no store"),
    "a marker": (("store.json",), "got a folder with store.json that is no store"),
    "an earlier store": (("units/x", "receipts/x"), "got a store without a sound store.json"),
}


@pytest.mark.parametrize(("there", "message"), OF_SOMEBODY.values(), ids=OF_SOMEBODY.keys())
def test_address_of_somebody__is_refused_before_anything_is_written(
    there: tuple[str, ...],
    message: str,
    tmp_path: Path,
    files: Any,
    related_spaces: Callable[..., dict[str, Any]],
    write_zoo: Callable[..., Path],
    build: Callable[..., Any],
) -> None:
    folder = write_zoo(tmp_path / "zoo", related_spaces(2))
    put_remote(folder)
    for name in there:
        files.pipe_file(f"{REMOTE}/{name}", b"years of work")
    before = {name: files.cat_file(name) for name in files.find(REMOTE)}

    for use in (build, lambda folder: verify(read_catalog(folder / "data_catalog.yaml"))):
        with pytest.raises(FolderError, match=message):
            use(folder)

    assert {name: files.cat_file(name) for name in files.find(REMOTE)} == before


def test_address_inside_of_another_store__is_refused(files: Any) -> None:
    claim_remote_store(REMOTE)

    with pytest.raises(FolderError, match=f"got an address inside of the store {REMOTE}, expected one outside of it"):
        claim_remote_store(f"{REMOTE}/units/mine")


def test_marker__is_put_once(files: Any) -> None:
    # What the console of an object store makes for a new folder.
    files.pipe_file(f"{REMOTE}/", b"")
    claim_remote_store(REMOTE)
    marker = files.cat_file(f"{REMOTE}/store.json")
    claim_remote_store(REMOTE)

    assert files.cat_file(f"{REMOTE}/store.json") == marker


def test_sweep__removes_no_object_that_is_not_named_like_ours(
    tmp_path: Path, files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_store, "GRACE_SECONDS", 0.0)
    store = RemoteUnitStore(tmp_path / "a", REMOTE)
    key = write_unit(store)
    theirs = [
        "units/thesis.tex",
        "units/probes/thesis.tex",
        f"units/probes/{key}/thesis.tex",
        "receipts/x",
        "quarantine/x",
    ]
    for name in theirs:
        files.pipe_file(f"{REMOTE}/{name}", b"mine")
    files.pipe_file(f"{REMOTE}/units/probes/{key}/{'0' * 32}/arrays.zip", b"left by a killed run")

    store.sweep()

    assert all(files.exists(f"{REMOTE}/{name}") for name in theirs)
    assert not files.exists(f"{REMOTE}/units/probes/{key}/{'0' * 32}/arrays.zip")
    assert read_unit(store, key) == [0.25, 0.5]
