"""Errors whose cause is a limit are told by it, whatever library met it; others are left alone."""

import errno
import resource

import pytest

from lfm_atlas import limits
from lfm_atlas.limits import why_exhausted, why_unfit


@pytest.fixture
def set_limits(monkeypatch: pytest.MonkeyPatch) -> dict[int, int]:
    soft: dict[int, int] = {}
    monkeypatch.setattr(limits.resource, "getrlimit", lambda which: (soft.get(which, -1), -1))
    return soft


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        ImportError("libarrow.so.2600: failed to map segment from shared object"),
        RuntimeError("2 workers could not be started (std::bad_alloc)"),
    ],
)
def test_memory__is_named_with_its_limit(error: Exception, set_limits: dict[int, int]) -> None:
    assert (why_exhausted(error) or "").startswith("got no more memory, expected more")
    set_limits[resource.RLIMIT_AS] = 1 << 30
    assert "under ulimit -v 1048576, 1.0 GiB for a process" in (why_exhausted(error) or "")


def test_cause__is_found_behind_other_errors(set_limits: dict[int, int]) -> None:
    error = ValueError("the cluster did not start")
    error.__cause__ = RuntimeError("can't start new thread")
    assert "got no more processes and threads under the limit of a control group" in (why_exhausted(error) or "")
    set_limits[resource.RLIMIT_NPROC] = 12
    assert "under ulimit -u 12" in (why_exhausted(error) or "")


def test_import_without_a_reason__is_put_down_to_a_limit_only_where_there_is_one(set_limits: dict[int, int]) -> None:
    error = ImportError("cryptography is missing")
    assert why_exhausted(error) is None
    set_limits[resource.RLIMIT_DATA] = 1 << 28
    assert "under ulimit -d 262144" in (why_exhausted(error) or "")


def test_other_limits__are_named(set_limits: dict[int, int]) -> None:
    set_limits[resource.RLIMIT_NOFILE] = 16
    assert "got no more open files under ulimit -n 16" in (why_exhausted(OSError(errno.EMFILE, "Too many")) or "")
    nowhere = FileNotFoundError(2, "No usable temporary directory found in ['/tmp', '/var/tmp']")
    assert "with room to write to (/tmp, /var/tmp), expected one. Set TMPDIR" in (why_exhausted(nowhere) or "")
    assert why_exhausted(OSError(errno.ENOSPC, "No space left on device")) is None


def test_address_space__is_looked_at_where_workers_start(
    set_limits: dict[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert why_unfit("run") is None
    set_limits[resource.RLIMIT_AS] = 1 << 30
    assert "got ulimit -v 1048576, 1.0 GiB of address space for a process" in (why_unfit("run") or "")
    assert why_unfit("show") is None
    monkeypatch.setattr(limits.time, "time", lambda: -1.0)
    assert "got a clock before 1970" in (why_unfit("show") or "")
