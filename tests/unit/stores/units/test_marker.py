"""A store is known by its marker, the first file in it; a folder of somebody else's never becomes one."""

import errno
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lfm_tasks.errors import FolderError
from lfm_tasks.stores.units.durable import add_checksum, locked
from lfm_tasks.stores.units.integrity import find_corruption, quarantine_corrupt
from lfm_tasks.stores.units.marker import STORE_FILE, claim_store, held_store, marker_bytes, store_id, why_no_store
from lfm_tasks.stores.units.store import UnitStore


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


@pytest.mark.parametrize("there", [(), (".DS_Store",), ("lost+found/",), (f".{STORE_FILE}.{'0' * 32}.partial",)])
def test_claim__makes_a_store_of_nothing_and_of_an_empty_folder(there: tuple[str, ...], tmp_path: Path) -> None:
    for name in there:
        (tmp_path / "store" / name).parent.mkdir(parents=True, exist_ok=True)
        path = tmp_path / "store" / name
        path.mkdir() if name.endswith("/") else path.write_text("")

    claim_store(tmp_path / "store")

    identity = store_id(tmp_path / "store")
    assert identity is not None
    assert len(identity) == 32
    claim_store(tmp_path / "store")
    assert store_id(tmp_path / "store") == identity
    assert STORE_FILE in names(tmp_path / "store")


OF_SOMEBODY = [
    ("thesis.tex",),
    ("runs/a.csv",),
    ("staging/thesis.tex", "lock", "units/x", "runs/x"),
    ("units/x", "receipts/x"),
    ("store.json",),
    ("lock",),
]


@pytest.mark.parametrize("there", OF_SOMEBODY)
def test_folder_of_somebody__is_refused_and_left_as_it_is(there: tuple[str, ...], tmp_path: Path) -> None:
    for name in there:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path, *tmp_path.rglob("*"))}

    with pytest.raises(
        FolderError, match=r"that is no store of lfm-atlas .*Name another store, or move the folder away"
    ):
        held_store(tmp_path, "a test").__enter__()

    assert {path: path.stat().st_mtime_ns for path in (tmp_path, *tmp_path.rglob("*"))} == before


def test_refusal__names_first_what_no_store_holds(tmp_path: Path) -> None:
    for name in ("units", "lock", "thesis.tex", "a", "b", "c"):
        (tmp_path / name).write_text("mine")

    assert "got a folder with a, b, c and 1 more that is no store" in (why_no_store(tmp_path) or "")


MARKERS: list[Callable[[Path], object]] = [
    lambda path: path.write_bytes(marker_bytes().replace(b"store", b"stork", 1)),
    lambda path: path.write_bytes(marker_bytes()[:-1]),
    lambda path: path.write_text('{"schema": "lfm-atlas store", "version": 1, "id": "0"}'),
    lambda path: path.write_text(""),
    lambda path: path.mkdir(),
    lambda path: os.mkfifo(path),
    lambda path: (path.with_name("real.json").write_bytes(marker_bytes()), path.symlink_to("real.json")),
]


@pytest.mark.parametrize("damage", MARKERS)
def test_marker_that_is_not_ours__is_none(damage: Callable[[Path], object], tmp_path: Path) -> None:
    damage(tmp_path / STORE_FILE)

    assert store_id(tmp_path) is None
    assert "got a folder with" in (why_no_store(tmp_path) or "")


def test_store_of_an_earlier_version__is_told_from_a_folder_of_somebody(tmp_path: Path) -> None:
    (tmp_path / "units").mkdir()
    with locked(tmp_path, "lfm-atlas run"):
        pass

    told = why_no_store(tmp_path) or ""
    assert "got a store without a sound store.json, damaged or made by an earlier lfm-atlas" in told
    assert "Remove the store, and the next run computes it again; or name another one" in told
    (tmp_path / "thesis.tex").write_text("mine")
    assert "got a folder with thesis.tex that is no store" in (why_no_store(tmp_path) or "")


@pytest.mark.parametrize(
    "name", ["staging", "units", "receipts", "partial", "quarantine", "runs", "locks", "maps", "prefect"]
)
def test_folder_of_a_store_that_is_a_link_or_a_file__is_refused(name: str, tmp_path: Path) -> None:
    claim_store(tmp_path / "store")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "store" / name).symlink_to(tmp_path / "theirs")

    with pytest.raises(FolderError, match=f"got the link {name} in the store, expected a folder of its own"):
        claim_store(tmp_path / "store")

    (tmp_path / "store" / name).unlink()
    (tmp_path / "store" / name).write_text("mine")
    with pytest.raises(FolderError, match=f"got {name}, which is no folder, in the store"):
        claim_store(tmp_path / "store")


def test_lock_that_is_a_link__is_refused(tmp_path: Path) -> None:
    claim_store(tmp_path / "store")
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "store" / "lock").symlink_to(tmp_path / "precious")

    with pytest.raises(FolderError, match="got the link lock in the store, expected a file of its own"):
        held_store(tmp_path / "store", "a test").__enter__()
    assert (tmp_path / "precious").read_text() == "mine"


def test_link_to_a_store__is_one(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "store").symlink_to("disk")
    (tmp_path / "nowhere").symlink_to("gone")
    (tmp_path / "file").touch()

    claim_store(tmp_path / "store")

    assert store_id(tmp_path / "disk") is not None
    for name in ("nowhere", "file"):
        with pytest.raises(FolderError, match="got a file or a link that leads nowhere"):
            claim_store(tmp_path / name)


def test_file_system_without_second_names__gets_a_marker_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)

    claim_store(tmp_path)

    assert store_id(tmp_path) is not None
    assert names(tmp_path) == [STORE_FILE]


def claimed(root: str, barrier: Any, ids: Any) -> None:
    barrier.wait()
    claim_store(Path(root))
    ids.put(store_id(Path(root)))


def test_processes_that_make_a_store_at_once__make_one(tmp_path: Path) -> None:
    # Children of a clean process: a fork of this one takes the threads' locks of all tests before it along.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lfm_tasks.stores.units.store"])
    for number in range(20):
        root, barrier, ids = tmp_path / str(number), context.Barrier(4), context.Queue()
        workers = [context.Process(target=claimed, args=(str(root), barrier, ids)) for _ in range(4)]
        for worker in workers:
            worker.start()
        found = {ids.get(timeout=30) for _ in workers}
        for worker in workers:
            worker.join()
        assert found == {store_id(root)}
        assert names(root) == [STORE_FILE]


def test_kill_at_every_step__leaves_a_folder_that_the_next_run_makes_a_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_killed = 0
    for step in range(1, 50):
        root, count = tmp_path / str(step) / "store", 0
        child = os.fork()
        if child == 0:

            def counted(plain: Callable[..., Any], step: int = step) -> Callable[..., Any]:
                def call(*arguments: Any, **options: Any) -> Any:
                    nonlocal count
                    count += 1
                    if count == step:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return plain(*arguments, **options)

                return call

            for name in ("fsync", "link", "mkdir", "unlink", "open"):
                monkeypatch.setattr(os, name, counted(getattr(os, name)))
            with held_store(root, "killed"):
                os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) == 0:
            break
        n_killed += 1
        before = store_id(root)
        with held_store(root, "next"):
            UnitStore(root).sweep()
        assert before in (None, store_id(root)), step
        assert names(root) == ["lock", STORE_FILE], step
    assert n_killed > 5


def test_store_of_a_newer_version__is_named_and_neither_read_nor_changed(tmp_path: Path) -> None:
    content = add_checksum({"schema": "lfm-atlas store", "version": 2, "id": "0" * 32, "since": "then"})
    (tmp_path / STORE_FILE).write_bytes(content)
    for use in (why_no_store, store_id, claim_store, lambda root: held_store(root, "a test").__enter__()):
        with pytest.raises(FolderError, match=r"by a newer version of lfm-atlas \(format 2\), expected format 1"):
            use(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [STORE_FILE]
    assert (tmp_path / STORE_FILE).read_bytes() == content


def test_kinds_of_units_that_this_version_does_not_know__are_not_damaged(tmp_path: Path) -> None:
    claim_store(tmp_path)
    with UnitStore(tmp_path).commit("of_the_future", "0" * 64) as writer:
        (writer.folder / "numbers.bin").write_bytes(b"7")
    assert list(find_corruption(UnitStore(tmp_path))) == []
    assert quarantine_corrupt(UnitStore(tmp_path)) == ()
