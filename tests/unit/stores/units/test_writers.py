"""Two processes that commit one unit: every order of their steps, and a kill before each, leaves it whole or absent.

The steps are what a process reads or changes in the folders that all share. The writers are threads that stop before
each step; a scheduler lets one of them go on, in every order: orders that lead to the same state are tried once.
"""

import errno
import fcntl
import hashlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm_tasks.errors import CorruptUnitError
from lfm_tasks.stores.units import UnitStore
from lfm_tasks.stores.units import store as units
from lfm_tasks.stores.units.durable import locked
from lfm_tasks.stores.units.integrity import quarantine_unfinished

KIND, KEY = "probes", "ab" * 32
SHARED = ("units", "receipts")
# Choices of the scheduler: who takes the next step, and whether it is killed instead.
Choice = tuple[int, bool]


class Killed(BaseException):
    """What a killed process meets at each step that it does not take any more."""


@dataclass
class Writer:
    """A thread that stops before each step; ``trace`` is what its steps told it, so what it does next."""

    act: Callable[[], object]
    trace: list[str] = field(default_factory=list)
    go: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    stopped: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    waits_for: int = -1  # an open lock file that another one holds
    is_killed: bool = False
    error: BaseException | None = None
    thread: threading.Thread | None = None

    def start(self) -> None:
        def body() -> None:
            self.go.acquire()
            try:
                self.act()
            except BaseException as error:
                self.error = error
            self.trace.append("end")
            self.stopped.release()

        self.thread = threading.Thread(target=body, daemon=True)
        self.thread.start()

    def step(self) -> None:
        """Let the thread go on to its next step, and wait until it stands there."""
        self.go.release()
        assert self.stopped.acquire(timeout=30)

    @property
    def is_done(self) -> bool:
        return bool(self.trace) and self.trace[-1] == "end"


@dataclass
class Stepping:
    """The writers that stop before each step, by their threads, and whether the file system has locks."""

    writers: dict[int, Writer] = field(default_factory=dict)
    has_locks: bool = True


@pytest.fixture
def stepping(monkeypatch: pytest.MonkeyPatch) -> Stepping:
    """Make the threads of writers stop before each step."""
    stepping = Stepping()

    def current() -> Writer | None:
        return stepping.writers.get(threading.get_ident())

    def stop(writer: Writer, name: str) -> None:
        writer.trace.append(name)
        writer.stopped.release()
        writer.go.acquire()
        if writer.is_killed:
            raise Killed

    def is_shared(path: object) -> bool:
        return isinstance(path, str | Path) and any(part in Path(path).parts for part in SHARED)

    def stepped(name: str) -> None:
        plain = getattr(os, name)

        def call(path: Any, *arguments: Any, **options: Any) -> Any:
            writer = current()
            if writer is None or not (is_shared(path) or any(map(is_shared, arguments))):
                return plain(path, *arguments, **options)
            if writer.is_killed:
                raise Killed
            stop(writer, f"{name} {Path(path).name[:12]}")
            try:
                result = plain(path, *arguments, **options)
            except OSError as error:
                writer.trace.append(f"-> {error.errno}")
                raise
            writer.trace.append("-> done" if name != "stat" else f"-> {result.st_mode}")
            return result

        monkeypatch.setattr(os, name, call)

    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # takes milliseconds, and changes nothing that others see
    for name in ("stat", "lstat", "rename", "replace", "unlink", "mkdir"):
        stepped(name)
    flock = fcntl.flock

    def locking(descriptor: int, operation: int) -> None:
        writer = current()
        if writer is None:
            return flock(descriptor, operation)
        if not stepping.has_locks:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
        while True:
            stop(writer, "lock")
            try:
                flock(descriptor, operation | fcntl.LOCK_NB)
            except BlockingIOError:
                writer.waits_for = descriptor
            else:
                writer.waits_for = -1
                return None

    monkeypatch.setattr(fcntl, "flock", locking)
    return stepping


def is_free(descriptor: int) -> bool:
    """Return whether the lock that a writer waits for can be had now."""
    other = os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR)
    try:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(other)
    return True


def state_of(root: Path, writers: list[Writer]) -> str:
    """Return a digest of all that decides what happens next."""
    hasher = hashlib.sha256(repr([(writer.trace, writer.is_killed) for writer in writers]).encode())
    for part in SHARED:
        for current, folders, names in os.walk(root / part):
            folders.sort()
            for name in sorted(names):
                content = (Path(current) / name).read_bytes()
                hasher.update(f"{current.removeprefix(str(root))} {len(name)} {content!r}".encode())
    return hasher.hexdigest()


def writes(store: UnitStore, content: bytes) -> Callable[[], None]:
    def act() -> None:
        with store.commit(KIND, KEY) as unit:
            (unit.folder / "values").write_bytes(content)
            unit.facts["content"] = content.decode()

    return act


def explore(
    tmp_path: Path,
    stepping: Stepping,
    prepare: Callable[[UnitStore], None],
    actors: Callable[[UnitStore], list[Callable[[], object]]],
    *,
    kills: bool = True,
) -> Iterator[tuple[UnitStore, list[Writer], list[Choice]]]:
    """Yield the store and the writers at the end of every order of their steps, with at most one kill."""
    seen: set[str] = set()
    waiting: list[list[Choice]] = [[]]
    count = 0
    while waiting:
        schedule = waiting.pop()
        root = tmp_path / f"{(count := count + 1)}"
        store = UnitStore(root)
        prepare(store)
        is_mended = False
        writers = [Writer(act) for act in actors(store)]
        for writer in writers:
            writer.start()
            assert writer.thread is not None
            assert writer.thread.ident is not None
            stepping.writers[writer.thread.ident] = writer
            writer.step()
        taken: list[Choice] = []
        while not all(writer.is_done for writer in writers):
            able = [
                index
                for index, writer in enumerate(writers)
                if not writer.is_done and (writer.waits_for < 0 or is_free(writer.waits_for))
            ]
            assert able, f"nobody can go on after {taken}"
            if len(taken) < len(schedule):
                choice = schedule[len(taken)]
            else:
                state = state_of(root, writers)
                if state in seen:
                    break
                seen.add(state)
                choices = [(index, False) for index in able]
                if kills and not any(writer.is_killed for writer in writers):
                    choices += [(index, True) for index in able]
                waiting += [[*taken, other] for other in choices[1:]]
                choice = choices[0]
            taken.append(choice)
            index, writers[index].is_killed = choice[0], choice[1] or writers[choice[0]].is_killed
            writers[index].step()
            is_widowed = store.receipt_path(KIND, KEY).is_file() and not store.unit_path(KIND, KEY).is_dir()
            assert not (is_mended and is_widowed), f"a receipt without its unit after {taken}"
            is_mended = is_mended or not is_widowed
        else:
            yield store, writers, taken
        for writer in writers:  # of an order that was tried before
            writer.is_killed = True
            while not writer.is_done:
                writer.step()
        stepping.writers.clear()  # threads that are gone give their numbers to others
    assert count > 1


def leave_nothing(store: UnitStore) -> None:
    """Begin with an empty store."""


def leave_folders(store: UnitStore) -> None:
    """Begin with a store that has other units of this kind: there are no folders to make."""
    for part in SHARED:
        (store.root / part / KIND).mkdir(parents=True)


def leave_whole_folder(store: UnitStore) -> None:
    """Begin with what a kill between the rename and the receipt leaves."""
    writes(store, b"same")()
    store.receipt_path(KIND, KEY).unlink()


def leave_damaged_folder(store: UnitStore) -> None:
    leave_whole_folder(store)
    (store.unit_path(KIND, KEY) / "values").write_bytes(b"torn")


def leave_receipt(store: UnitStore) -> None:
    writes(store, b"same")()
    store.unit_path(KIND, KEY).rename(store.root / "gone")


def assert_sound(store: UnitStore, writers: list[Writer], taken: list[Choice]) -> None:
    """Check that no writer failed, the unit is whole or absent, and that the next writer ends in a whole one."""
    errors = [writer.error for writer in writers if writer.error is not None and not isinstance(writer.error, Killed)]
    assert not errors, f"{errors} after {taken}"
    if any(writer.error is None for writer in writers) or store.has(KIND, KEY):
        receipt = store.check(KIND, KEY)
        assert receipt.facts["content"].encode() == (store.unit_path(KIND, KEY) / "values").read_bytes()
    writes(store, b"same")()
    store.check(KIND, KEY)


PREPARED = [leave_nothing, leave_whole_folder, leave_damaged_folder, leave_receipt]
Prepare = Callable[[UnitStore], None]


@pytest.mark.parametrize("second", [b"same", b"other"], ids=["equal", "different"])
@pytest.mark.parametrize("prepare", PREPARED)
def test_two_writers__leave_one_whole_unit(prepare: Prepare, second: bytes, tmp_path: Path, stepping: Stepping) -> None:
    n_orders = 0
    for store, writers, taken in explore(
        tmp_path, stepping, prepare, lambda store: [writes(store, b"same"), writes(store, second)]
    ):
        assert_sound(store, writers, taken)
        n_orders += 1
    assert n_orders > 10


@pytest.mark.parametrize("prepare", [leave_folders, leave_whole_folder])
def test_two_writers_without_locks__leave_one_whole_unit(prepare: Prepare, tmp_path: Path, stepping: Stepping) -> None:
    stepping.has_locks = False
    for store, writers, taken in explore(
        tmp_path, stepping, prepare, lambda store: [writes(store, b"same"), writes(store, b"same")]
    ):
        assert_sound(store, writers, taken)


def test_writer_without_locks__refuses_to_move_what_another_may_be_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = UnitStore(tmp_path)
    leave_damaged_folder(store)

    def no_lock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_lock)
    with pytest.raises(OSError, match=r"got a folder without a receipt, .* no locks .*. Stop all runs and remove it"):
        writes(store, b"same")()
    assert (store.unit_path(KIND, KEY) / "values").read_bytes() == b"torn"
    with pytest.raises(OSError, match=r"got no lock from this file system .* Put atlas.store on .* with flock"):
        locked(tmp_path, "a run").__enter__()


def leave_damaged_unit(store: UnitStore) -> None:
    writes(store, b"same")()
    (store.unit_path(KIND, KEY) / "values").write_bytes(b"torn")


def reads(store: UnitStore) -> Callable[[], None]:
    """Read a unit as a job does: what is damaged is put into quarantine."""

    def act() -> None:
        with suppress(CorruptUnitError), store.open(KIND, KEY):
            pass

    return act


class NoArrays:
    """Stands for the reader of a unit's arrays: these units have none."""

    def __init__(self, *_: object) -> None:
        pass

    def close(self) -> None:
        pass


def test_reader_that_finds_damage__never_moves_the_unit_that_was_made_anew(
    tmp_path: Path, stepping: Stepping, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units, "ArrayReader", NoArrays)
    for store, writers, taken in explore(
        tmp_path, stepping, leave_damaged_unit, lambda store: [reads(store), writes(store, b"same")]
    ):
        errors = [writer.error for writer in writers if writer.error and not isinstance(writer.error, Killed)]
        assert not errors, f"{errors} after {taken}"
        reads(store)()
        writes(store, b"same")()
        store.check(KIND, KEY)


def test_end_of_a_run__never_moves_a_unit_that_is_being_published(tmp_path: Path, stepping: Stepping) -> None:
    for store, writers, taken in explore(
        tmp_path,
        stepping,
        leave_nothing,
        lambda store: [lambda: quarantine_unfinished(store), writes(store, b"same")],
    ):
        ends_run, commits_unit = writers
        assert ends_run.error is None or ends_run.is_killed, f"{ends_run.error} after {taken}"
        assert_sound(store, [commits_unit], taken)


def test_writer_that_outlives_its_run__publishes_nothing_that_was_swept(tmp_path: Path) -> None:
    store = UnitStore(tmp_path)

    def swept() -> None:
        with store.commit(KIND, KEY) as unit:
            (unit.folder / "values").write_bytes(b"same")
            store.sweep()

    with pytest.raises(FileNotFoundError):
        swept()
    assert not store.has(KIND, KEY)
    assert not store.unit_path(KIND, KEY).exists()


def test_remove_partial__leaves_what_is_being_written(tmp_path: Path) -> None:
    store = UnitStore(tmp_path)
    with store.resume(KIND, KEY) as unit:
        (unit.folder / "values").write_bytes(b"same")
        store.remove_partial(KIND)
    store.check(KIND, KEY)
    store.remove_partial(KIND)
    assert not (tmp_path / "partial").exists()


def commits(root: str, n_units: int, seed: int) -> None:
    """Commit units that other processes commit at the same moment; in a random order, so that they meet and part."""
    order = np.random.default_rng(seed).permutation(n_units).tolist()
    for index in sorted(order, key=lambda index: index // 8):
        with UnitStore(Path(root)).commit(KIND, f"{index:064x}") as unit:
            (unit.folder / "values").write_bytes(b"%d" % index)
            unit.facts["content"] = f"{index}"


def commit_with_kills(root: Path, n_units: int, n_processes: int, n_kills: int) -> int:
    """Commit units by several processes, kill some at random moments and start them anew; return how many failed."""
    # Children of a clean process: a fork of this one takes the threads' locks of all tests before it along.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lfm_tasks.stores.units.store"])
    chance = np.random.default_rng(0)

    def start(seed: int) -> Any:
        process = context.Process(target=commits, args=(str(root), n_units, seed))
        process.start()
        return process

    processes = [start(seed) for seed in range(n_processes)]
    n_failed = 0
    for seed in range(n_kills):
        victim = int(chance.integers(n_processes))
        processes[victim].join(chance.uniform(0, 0.4))
        if processes[victim].is_alive():
            os.kill(processes[victim].pid, signal.SIGKILL)
            processes[victim].join()
        else:
            n_failed += processes[victim].exitcode != 0
        processes[victim] = start(n_processes + seed)
    for process in processes:
        process.join()
        n_failed += process.exitcode != 0
    return n_failed


def assert_all_whole(root: Path, n_units: int) -> None:
    store = UnitStore(root)
    for index in range(n_units):
        assert store.check(KIND, f"{index:064x}").facts == {"content": f"{index}"}
    assert len(list((root / "receipts" / KIND).glob("[!.]*.json"))) == n_units
    assert not (root / "quarantine").exists()


def test_processes_that_commit_the_same_units__fail_never(tmp_path: Path) -> None:
    assert commit_with_kills(tmp_path, n_units=60, n_processes=4, n_kills=4) == 0
    assert_all_whole(tmp_path, 60)
