"""A change of the disk fails, or kills its process; the next run ends where an undisturbed one does, bit for bit."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.chaos
# Two builds a point, about a second each; a run of the tiny zoo has some more operations.
MOST_POINTS = 160


def receipts(folder: Path) -> dict[str, int]:
    """Return the committed units, and when each was committed."""
    return {path.name: path.stat().st_mtime_ns for path in folder.glob(".lfm-atlas/receipts/*/[!.]*.json")}


def under_way(folder: Path) -> int:
    """Return how many units were begun and have no receipt: what has to be made once more."""
    units = {path.name for path in folder.glob(".lfm-atlas/units/*/*")}
    stems = {Path(name).stem for name in receipts(folder)}
    return len([*folder.glob(".lfm-atlas/staging/*"), *(units - stems)])


def test_operation_that_fails_or_kills__loses_nothing(
    tmp_path: Path,
    tiny_zoo: Callable[..., Path],
    in_child: Callable[..., Any],
    state: Callable[[Path], Any],
    leftovers: Callable[[Path], list[str]],
    figure: Callable[[str], None],
) -> None:
    undisturbed = tiny_zoo(tmp_path / "undisturbed")
    first = in_child(undisturbed)
    assert first.code == 0, first.error
    expected = state(undisturbed)
    n_operations = len(first.operations)
    assert n_operations >= 100
    killed = failed = healed = most = 0
    # Evenly over the run, failures and kills in turn.
    step = n_operations // MOST_POINTS + 1
    for point, number in enumerate(range(1, n_operations + 1, step)):
        folder = tiny_zoo(tmp_path / f"{number}")
        kills = point % 2 == 0
        ended = in_child(folder, number, "kill" if kills else "fail")
        place = f"{number} ({'kill' if kills else 'EIO'} at {first.operations[number - 1]}): {ended.error}"
        if kills:
            assert ended.code == -signal.SIGKILL, place
            killed += 1
        else:
            # A fault while leftovers are cleared away costs the run nothing.
            assert ended.code == 0 or "Input/output error" in ended.error, place
            failed += 1
            healed += ended.code == 0
        kept, redone = receipts(folder), under_way(folder)

        again = in_child(folder)

        assert again.code == 0, f"{place} -> {again.error}"
        assert state(folder) == expected, place
        assert leftovers(folder) == [], place
        assert kept.items() <= receipts(folder).items(), place
        assert redone <= 1, place
        most = max(most, redone)
    counts = f"{killed} killed, {failed} failed ({healed} of these did not stop the run)"
    figure(f"kill points: {killed + failed} of {n_operations} operations: {counts}, at most {most} unit made again")
