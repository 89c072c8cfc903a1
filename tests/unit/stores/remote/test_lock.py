"""The lock of an object store: one holder in every order of requests, ages by the store's clock, damage told."""

import itertools
import json
import logging
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lfm_tasks.stores.remote import lock, objects
from lfm_tasks.stores.remote.lock import LEASE_SECONDS, LockDamagedError, LockLostError, RemoteLock, held
from lfm_tasks.stores.remote.objects import RemoteStoreError, S3Objects
from lfm_tasks.stores.units.durable import StoreBusyError
from tests.unit.stores.remote.object_store import FakeFileSystem, Stage

PLACE = "s3://zoo/atlas"
OBJECTS = S3Objects(PLACE)


def of(token: str) -> RemoteLock:
    return RemoteLock(OBJECTS, token, f"run {token}")


def holder(files: FakeFileSystem) -> Any:
    return json.loads(files.contents["zoo/atlas/lock"][0])["token"]


def test_lock__is_held_by_one_renewed_and_released(files: FakeFileSystem) -> None:
    a, b = of("a"), of("b")
    a.take()
    with pytest.raises(StoreBusyError, match=r"s3://zoo/atlas is in use by 'run a' \(process \d+ on .*\). Wait until"):
        b.take()
    files.seconds = LEASE_SECONDS - 1
    a.renew()
    files.seconds += LEASE_SECONDS - 1
    with pytest.raises(StoreBusyError, match="a lock of a dead run falls after 120 s"):
        b.take()
    a.release()

    b.take()

    assert holder(files) == "b"
    with pytest.raises(LockLostError, match=r"got the lock of 'run b' \(process .*\), expected that of this run"):
        a.check()


@pytest.mark.parametrize("hours", [-48, 0, 48])
def test_ages__are_of_the_stores_clock_whatever_this_machines_says(
    files: FakeFileSystem, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    of("a").take()
    wall = time.time
    monkeypatch.setattr(time, "time", lambda: wall() + 3600 * hours)
    files.seconds = LEASE_SECONDS - 1
    with pytest.raises(StoreBusyError, match="is in use by 'run a'"):
        of("b").take()
    files.seconds = LEASE_SECONDS

    of("b").take()

    assert holder(files) == "b"


def test_holder_that_wakes_up__must_not_write_release_or_renew(files: FakeFileSystem) -> None:
    a, b = of("a"), of("b")
    a.take()
    files.seconds = LEASE_SECONDS
    a.check()  # nobody has taken it: it is still the only one
    b.take()

    for use in (a.check, a.renew, a.release):
        with pytest.raises(LockLostError, match=r"Nothing more is written there; run again when no other run holds it"):
            use()
    assert holder(files) == "b"
    b.release()
    with pytest.raises(LockLostError, match="got a lock that is free, expected that of this run"):
        a.check()
    del files.contents["zoo/atlas/lock"]
    with pytest.raises(LockLostError, match="got no lock, expected that of this run"):
        a.check()


@pytest.mark.parametrize("content", [b"", b"{", b'{"token": "a"', b"[]", b"null", b'{"version": 1}', b"\xff\x00"])
def test_damaged_lock__is_told_with_the_command_that_removes_it(files: FakeFileSystem, content: bytes) -> None:
    files.contents["zoo/atlas/lock"] = (content, objects_time(files))
    files.seconds = 7200

    with pytest.raises(LockDamagedError) as told:
        of("a").take()

    assert f"s3://zoo/atlas: got a lock that names no holder ({len(content)} bytes, '" in str(told.value)
    assert "put 2026-01-01 00:00:00 UTC, 7200 s ago by the store's clock)" in str(told.value)
    command = str(told.value).partition("then remove it: ")[2]
    assert shlex.split(command)[0] == "python"
    removed = command.replace("import fsspec; fsspec.filesystem('s3').rm_file(", "import sys; print(")
    done = subprocess.run([sys.executable, *shlex.split(removed)[1:]], capture_output=True, text=True, check=True)
    assert done.stdout == "s3://zoo/atlas/lock\n"
    assert files.contents["zoo/atlas/lock"][0] == content


def objects_time(files: FakeFileSystem) -> Any:
    files.pipe_file("s3://zoo/elsewhere", b"")
    return files.contents["zoo/elsewhere"][1]


def test_lock_of_a_newer_version__is_left_alone(files: FakeFileSystem) -> None:
    files.contents["zoo/atlas/lock"] = (b'{"version": 2, "token": {"of": "tomorrow"}}', objects_time(files))
    with pytest.raises(LockDamagedError, match=r"got a lock of a newer version of lfm-atlas \(format 2\), expected"):
        of("a").take()


# What a holder, asleep until its lease is over, and runs that want the lock do; each step is a request.
def renewing() -> str:
    of("a").renew()
    return "a"


def taking(token: str) -> Callable[[], str]:
    def take() -> str:
        of(token).take()
        return token

    return take


@pytest.mark.parametrize("lost", [0, 1])
@pytest.mark.parametrize("state", ["absent", "free", "expired"])
def test_every_order_of_requests__leaves_one_holder(files: FakeFileSystem, state: str, lost: int) -> None:
    actors = [taking("b"), taking("c"), *([renewing] if state == "expired" else [])]
    # Two runs take six requests, unless one is refused and looks again. With three, every 23rd of 3^9 orders.
    orders = itertools.product(range(len(actors)), repeat=6 if state != "expired" else 9)
    for order in itertools.islice(orders, 0, None, 1 if state != "expired" else 23):
        files.contents.clear()
        files.seconds, files.lost = 0, 0
        if state != "absent":
            of("a").take()
        if state == "free":
            of("a").release()
        files.seconds, files.lost = 2 * LEASE_SECONDS, lost

        results = Stage(files, actors).play(iter(order))

        holders = [result for result in results if isinstance(result, str)]
        assert holders == [holder(files)], (order, results)
        assert {type(result) for result in results} <= {str, StoreBusyError, LockLostError}


@pytest.mark.parametrize("use", [RemoteLock.take, RemoteLock.renew, RemoteLock.release])
def test_put_whose_answer_was_lost_and_that_was_sent_again__is_known_as_ones_own(
    files: FakeFileSystem, use: Callable[[RemoteLock], None]
) -> None:
    if use is not RemoteLock.take:
        of("a").take()
    files.lost = 1

    use(of("a"))

    assert files.lost == 0
    assert holder(files) == (None if use is RemoteLock.release else "a")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["take", "renew", "release", "check", "wait"]))))
def test_any_story__has_one_holder_and_nobody_else_may_write(story: list[tuple[str, str]]) -> None:
    files = FakeFileSystem()
    patch = pytest.MonkeyPatch()
    patch.setattr(objects, "_file_system", lambda: files)
    holds, renewed = None, 0.0  # the truth
    for who, what in story:
        if what == "wait":
            files.seconds += LEASE_SECONDS / 2
            continue
        try:
            getattr(of(who), what)()
        except StoreBusyError:
            assert what == "take"
            assert holds not in (None, who)
            assert files.seconds - renewed < LEASE_SECONDS
        except LockLostError:
            assert what != "take"
            assert holds != who
        else:
            assert what == "take" or holds == who
            assert what != "take" or holds in (None, who) or files.seconds - renewed >= LEASE_SECONDS
            if what == "release":
                holds = None
            elif what != "check":
                # Taking what one has changes nothing.
                renewed = renewed if what == "take" and holds == who else files.seconds
                holds = who
    patch.undo()


def test_held__renews_and_frees_it_and_says_when_it_was_lost(
    files: FakeFileSystem, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lock, "RENEW_SECONDS", 0.01)
    with held(OBJECTS, "lfm-atlas run") as token:
        first = files.contents["zoo/atlas/lock"]
        deadline = time.monotonic() + 30
        while files.contents["zoo/atlas/lock"] == first and time.monotonic() < deadline:
            time.sleep(0.01)
        assert files.contents["zoo/atlas/lock"] != first
        assert holder(files) == token
    assert holder(files) is None
    assert not caplog.records

    with caplog.at_level(logging.WARNING), held(OBJECTS, "lfm-atlas run"):
        files.contents["zoo/atlas/lock"] = (b'{"version": 1, "token": "another"}', first[1])
    assert "Nothing more is written there" in caplog.text
    assert holder(files) == "another"


def test_renewal__goes_on_after_the_network_has_failed(files: FakeFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "RENEW_SECONDS", 0.01)
    failures = iter(range(3))

    def before(request: str, name: str) -> None:
        if request == "put" and name.endswith("/lock") and next(failures, None) is not None:
            raise ConnectionResetError("reset")

    with held(OBJECTS, "lfm-atlas run"):
        first = files.contents["zoo/atlas/lock"]
        files.before = before
        deadline = time.monotonic() + 30
        while files.contents["zoo/atlas/lock"] == first and time.monotonic() < deadline:
            time.sleep(0.01)
        assert files.contents["zoo/atlas/lock"] != first
        assert next(failures, None) is None


def test_store_that_cannot_be_reached__is_told_in_a_sentence(files: FakeFileSystem) -> None:
    def before(request: str, name: str) -> None:
        raise ConnectionResetError("reset by peer")

    files.before = before
    with pytest.raises(
        RemoteStoreError, match=r"s3://zoo/atlas cannot be read \(lock: ConnectionResetError: reset by peer\). Check"
    ):
        of("a").take()
