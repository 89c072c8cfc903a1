"""Units in an object store: no order of requests and no sleeping writer leaves a receipt without its files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm_tasks.errors import FolderError
from lfm_tasks.stores.remote.contents import find_remote_corruption, remove_remote_unit
from lfm_tasks.stores.remote.lock import LEASE_SECONDS, LockLostError, RemoteLock
from lfm_tasks.stores.remote.objects import RemoteStoreError
from lfm_tasks.stores.remote.store import GRACE_SECONDS, RemoteUnitStore, claim_remote_store, locked_remotely
from tests.unit.stores.remote.object_store import START, FakeFileSystem, Stage

REMOTE = "s3://zoo/atlas"
KEY = "a" * 64


def write_unit(store: RemoteUnitStore, key: str = KEY) -> None:
    with store.commit("probes", key) as writer:
        writer.arrays.write("accuracies", np.array([0.25, 0.5]))


def of(folder: Path, token: str) -> RemoteUnitStore:
    return RemoteUnitStore(folder / token, REMOTE, token)


def take(store: RemoteUnitStore) -> None:
    RemoteLock(store.objects, store.token, "lfm-atlas run").take()


def is_whole(folder: Path) -> bool:
    """Whether the unit is there and a machine without copies reads it; False if it is not there at all."""
    reader = RemoteUnitStore(folder / "reader", REMOTE)
    if not reader.has("probes", KEY):
        return False
    reader.check("probes", KEY)
    return True


def requests(files: FakeFileSystem, action: Callable[[], object]) -> list[tuple[str, str]]:
    seen: list[tuple[str, str]] = []
    files.before = lambda request, name: seen.append((request, name))
    action()
    files.before = lambda request, name: None
    return seen


def test_writer_that_sleeps_before_any_request__writes_nothing_more_when_another_has_the_store(
    files: FakeFileSystem, tmp_path: Path
) -> None:
    n_requests = len(requests(files, lambda: write_unit(RemoteUnitStore(tmp_path / "count", REMOTE))))
    n_refused = 0
    for sleeps_before in range(n_requests + 4):  # and those that look at the lock
        files.contents.clear()
        files.seconds = 0
        folder = tmp_path / str(sleeps_before)
        a, b = of(folder, "a"), of(folder, "b")
        take(a)

        def sleep_and_wake(b: RemoteUnitStore = b) -> None:
            files.before = lambda request, name: None
            files.seconds += LEASE_SECONDS
            take(b)
            b.sweep()

        left = sleeps_before

        def before(request: str, name: str, act: Callable[[], None] = sleep_and_wake) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                act()

        files.before = before
        try:
            write_unit(a)
        except LockLostError:
            n_refused += 1
            assert not is_whole(folder)
        files.before = lambda request, name: None
        write_unit(b)
        assert is_whole(folder)
    assert n_refused >= 4


@pytest.mark.parametrize("seconds", [0, GRACE_SECONDS - 1])
def test_every_order_of_a_late_worker_and_the_next_run__leaves_a_whole_unit(
    files: FakeFileSystem, tmp_path: Path, seconds: float
) -> None:
    n_late = 12
    for turn in range(n_late):
        files.contents.clear()
        files.seconds = 0
        folder = tmp_path / f"{turn}"
        a, b = of(folder, "a"), of(folder, "b")
        take(a)
        RemoteLock(a.objects, a.token).release()  # the run has ended, its worker has not: it is before its last check

        def late(a: RemoteUnitStore = a) -> None:
            write_unit(RemoteUnitStore(a.root, REMOTE))  # as if it had looked at the lock just before

        def next_run(b: RemoteUnitStore = b) -> None:
            take(b)
            files.seconds += seconds
            b.sweep()
            write_unit(b)

        results = Stage(files, [late, next_run]).play(iter([0] * turn + [1] * 60))

        assert [result for result in results if result is not None] == []
        assert is_whole(folder)


def test_sweep__removes_what_no_receipt_names_once_it_is_old(files: FakeFileSystem, tmp_path: Path) -> None:
    store = of(tmp_path, "a")
    take(store)
    write_unit(store)
    files.pipe_file(f"{REMOTE}/units/probes/{'b' * 64}/{'0' * 32}/zarr.json", b"{}")
    files.pipe_file(f"{REMOTE}/units/probes/{KEY}/{'0' * 32}/zarr.json", b"{}")
    left = {name for name in files.contents if f"/{'0' * 32}/" in name}

    files.seconds = GRACE_SECONDS - 1
    store.sweep()
    assert left < set(files.contents)
    files.seconds = GRACE_SECONDS
    store.sweep()

    assert not left & set(files.contents)
    assert is_whole(tmp_path)


def test_lock_that_was_lost__stops_commits_sweeps_removals_and_publications(
    files: FakeFileSystem, tmp_path: Path
) -> None:
    store = of(tmp_path, "a")
    take(store)
    write_unit(store)
    files.pipe_file(f"{REMOTE}/units/probes/{'b' * 64}/{'0' * 32}/zarr.json", b"{}")
    (tmp_path / "atlas").mkdir()
    files.seconds = LEASE_SECONDS + GRACE_SECONDS
    take(of(tmp_path, "b"))
    there = dict(files.contents)

    for use in (
        store.sweep,
        lambda: remove_remote_unit(store, ("probes", KEY)),
        lambda: store.publish_copy(tmp_path / "atlas", KEY),
        lambda: store._put("probes", "c" * 64),
    ):
        with pytest.raises(LockLostError, match="expected that of this run"):
            use()
    del there["zoo/atlas/clock"], files.contents["zoo/atlas/clock"]
    assert files.contents == there


def publish(store: RemoteUnitStore, folder: Path, key: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_bytes(key.encode())
    reference = store.root / "references" / f"{key}.json"
    reference.parent.mkdir(parents=True, exist_ok=True)
    reference.write_bytes(b"{}")
    store.publish_copy(folder, key)


@pytest.mark.parametrize("pointer", [b"", b"{", b"[]", b'{"key": "../../secrets"}', b'{"key": 1}'])
def test_damaged_pointer__is_told_by_verify_means_the_last_atlas_and_is_put_anew(
    files: FakeFileSystem, tmp_path: Path, pointer: bytes
) -> None:
    store = of(tmp_path, "a")
    take(store)
    for key in ("f" * 64, "e" * 64):
        publish(store, tmp_path / "atlas", key)
        files.seconds += 1
    files.contents["zoo/atlas/atlas/current.json"] = (pointer, START)

    assert store.current_atlas() == "e" * 64
    found = list(find_remote_corruption(RemoteUnitStore(tmp_path / "reader", REMOTE)))
    assert [one.place for one in found if one.place.endswith("/current.json")] == [f"{REMOTE}/atlas/current.json"]
    publish(store, tmp_path / "atlas", "e" * 64)

    assert json.loads(files.contents["zoo/atlas/atlas/current.json"][0])["key"] == "e" * 64
    assert store.names_current_atlas()


def test_publication_that_another_run_overtakes__is_refused(files: FakeFileSystem, tmp_path: Path) -> None:
    store = RemoteUnitStore(tmp_path / "a", REMOTE)

    def before(request: str, name: str) -> None:
        if request == "put" and name.endswith("/current.json"):
            files.before = lambda request, name: None
            publish(RemoteUnitStore(tmp_path / "b", REMOTE), tmp_path / "theirs", "b" * 64)

    files.before = before
    with pytest.raises(LockLostError, match=r"another run has published an atlas there meanwhile\. Run again"):
        publish(store, tmp_path / "ours", "a" * 64)
    assert store.current_atlas() == "b" * 64


@pytest.mark.parametrize("name", ["../../escaped", "a/../../escaped", "a//b", "./a"])
def test_object_whose_name_leads_out_of_its_folder__is_refused(
    files: FakeFileSystem, tmp_path: Path, name: str
) -> None:
    store = RemoteUnitStore(tmp_path / "a", REMOTE)
    files.pipe_file(f"{REMOTE}/units/x/{name}", b"x")

    with pytest.raises(RemoteStoreError, match=r"got an object named 'units/x/.*', expected no '\.\.' in a name"):
        store.objects.fetch("units/x", tmp_path / "into" / "deep")

    assert not list(tmp_path.rglob("escaped"))


def failing(request: str, end: str) -> Callable[[str, str], None]:
    def before(asked: str, name: str) -> None:
        if asked == request and name.endswith(end):
            raise TimeoutError("no answer")

    return before


def test_network_that_fails__is_told_and_never_taken_for_damage(files: FakeFileSystem, tmp_path: Path) -> None:
    store = RemoteUnitStore(tmp_path / "a", REMOTE)
    write_unit(store)
    there = dict(files.contents)
    reader = RemoteUnitStore(tmp_path / "b", REMOTE)
    uses: list[tuple[str, str, Callable[[], Any]]] = [
        ("cat", ".json", lambda: reader.check("probes", KEY)),
        ("cat", "arrays.zip", lambda: reader.check("probes", KEY)),
        ("info", ".json", lambda: reader.find("probes", KEY)),
        ("exists", ".json", lambda: reader.has("probes", KEY)),
        ("find", "/units", reader.sweep),
        ("info", "store.json", lambda: claim_remote_store(REMOTE)),
    ]
    for request, end, use in uses:
        files.before = failing(request, end)
        with pytest.raises(
            RemoteStoreError, match=r"s3://zoo/atlas cannot be read \(.*TimeoutError: no answer\)\. Check"
        ):
            use()
    files.before = failing("put", "arrays.zip")
    with pytest.raises(RemoteStoreError, match=r"cannot be written to \(units/probes/.*TimeoutError: no answer\)"):
        write_unit(RemoteUnitStore(tmp_path / "c", REMOTE), "b" * 64)
    files.before = lambda request, name: None
    assert {name for name in files.contents if "receipts" in name} == {name for name in there if "receipts" in name}


def test_store__is_claimed_once_and_locked(files: FakeFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    with locked_remotely(REMOTE, "lfm-atlas run") as token:
        assert json.loads(files.contents["zoo/atlas/lock"][0])["token"] == token
        marker = files.contents["zoo/atlas/store.json"]
    with locked_remotely(REMOTE, "lfm-atlas run"):
        assert files.contents["zoo/atlas/store.json"] == marker
    # A lock without a store is somebody else's.
    del files.contents["zoo/atlas/store.json"]
    with pytest.raises(FolderError, match="got a folder with lock that is no store"):
        claim_remote_store(REMOTE)
